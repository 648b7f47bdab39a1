"""Robot × condition × agent × episode on paired seeds, and the intervals that reports quote."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from jaxtyping import Float

from mbmrl import checkpoint as checkpoints
from mbmrl import conditions, registry
from mbmrl.checkpoint import Checkpoint
from mbmrl.compose import make_agent
from mbmrl.conditions import Condition
from mbmrl.episode import Log, run_episodes
from mbmrl.spec import RobotSpec
from robots.sim import SimRobot

LANES = 32
"""Episodes that run side by side."""
WITHOUT_MODEL = ("oracle", "nominal", "zero")
"""Agents that need no checkpoint."""

Watch = Callable[[int], None]
"""Told how many more robot-ticks are done."""


@dataclass(frozen=True)
class Row:
    """One episode.

    "After the onset" is every tick whose observation the condition had a part in.

    Attributes:
        robot: its name.
        perturbation: the condition as text; ``none`` for the undamaged robot.
        mirror_trained: whether only its side kept the condition out of training.
        agent: what drove.
        path: that was to be followed; empty where there is none.
        episode: its number among those of the same condition, path and agent.
        seed: of the robot's initial state and of the planner.
        return_: −Σ cost · dt, with the planner's own cost; ``return`` in JSON.
        return_after_onset: the same after the onset.
        score: mean gain after the onset, 1 as wanted.
        cross_track_m: mean distance from the path after the onset [m]; NaN where there is none.
        fell: whether the robot fell at any time.
        tick_ms_p50: median time of a decision, adapting and planning [ms], see :func:`time_alone`.
        tick_ms_p99: its 99th percentile.
        missed_deadlines: decisions, of those timed, that took longer than the control period.
        pred_error_prior: mean squared normalised one-step error of θ* after the onset; NaN without
            a learned model.
        pred_error_adapted: the same of the model that planned.
    """

    robot: str
    perturbation: str
    mirror_trained: bool
    agent: str
    path: str
    episode: int
    seed: int
    return_: float
    return_after_onset: float
    score: float
    cross_track_m: float
    fell: bool
    tick_ms_p50: float
    tick_ms_p99: float
    missed_deadlines: int
    pred_error_prior: float
    pred_error_adapted: float

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; null where a number does not apply."""
        values = dataclasses.asdict(self).items()
        return {
            name.rstrip("_"): None if isinstance(v, float) and not math.isfinite(v) else v
            for name, v in values
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        """The inverse of :meth:`to_json`."""
        values = {("return_" if k == "return" else k): v for k, v in data.items()}
        return cls(**{k: math.nan if v is None else v for k, v in values.items()})


@dataclass(frozen=True)
class Evaluation:
    """What is to be evaluated.

    Attributes:
        robot: a simulated robot's name, or ``package.module:Class``.
        conditions: each with its own onset; an empty one is the undamaged robot.
        agents: names of agents or adapters.
        paths: each condition is driven along every one of them.
        episodes: per condition, path and agent.
        seconds: per episode [s].
        seed: of episode 0; episode i of every condition, path and agent has ``seed + i``.
        checkpoint: its folder; None for the shipped one.
        planner: another than the robot's own.
    """

    robot: str
    conditions: tuple[Condition, ...]
    agents: tuple[str, ...]
    paths: tuple[str, ...]
    episodes: int
    seconds: float
    seed: int = 0
    checkpoint: Path | None = None
    planner: str | None = None

    @property
    def robot_ticks(self) -> int:
        """How much there is to do, for a progress bar."""
        episodes = len(self.conditions) * len(self.paths) * len(self.agents) * self.episodes
        return episodes * round(self.seconds / self._class().spec.dt)

    def build(self, condition: Condition = (), seed: int = 0) -> SimRobot:
        """One of its robots.

        Raises:
            UnknownName: there is no such robot.
            SpecError: it is not simulated.
            PerturbationError: the condition makes no sense on it.
        """
        return self._class()(condition, seed)

    def agent(self, name: str, robots: Sequence[SimRobot], paths: Sequence[str], seed: int) -> Any:
        """One of its agents, see :func:`make_agent`."""
        checkpoint = checkpoint_for([name], robots[0].spec, self.checkpoint)
        return make_agent(name, robots, checkpoint, paths, planner=self.planner, seed=seed)
