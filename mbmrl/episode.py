"""Run simulated episodes side by side and keep what the reports need."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from controllers.agent import Agent
from mbmrl.loop import Clock, Loop, run
from mbmrl.tasks import Task
from mbmrl.types import Plan
from robots.batch import SimBatch
from robots.sim import SimRobot


@dataclass(frozen=True)
class Log:
    """What happened to r robots over t ticks.

    Attributes:
        obs: observations, as the sensors told them; all that follows was measured by the truth
            where robots are simulated.
        act: actions really sent.
        gain: how well each tick went, 1 as wanted (see the task).
        cost: the task's cost of where each tick led.
        cross_track: distance from the path [m].
        fell: whether the robot had fallen.
        took: how long each decision took [s], for all robots together.
        info: the agent's numbers; NaN where it had none.
    """

    obs: Float[np.ndarray, "t r o"]
    act: Float[np.ndarray, "t r u"]
    gain: Float[np.ndarray, "t r"]
    cost: Float[np.ndarray, "t r"]
    cross_track: Float[np.ndarray, "t r"]
    fell: Bool[np.ndarray, "t r"]
    took: Float[np.ndarray, " t"]
    info: dict[str, Float[np.ndarray, "t r"]]


class Recorder:
    """The loop's sink that a :class:`Log` is made of.

    Args:
        task: the agent's own.
        truth: where simulated robots are now. No faulty sensor then says how well they did: the
            task is followed a second time, by where they were when they were read.
    """

    def __init__(self, task: Task, truth: Callable[[], np.ndarray] | None = None) -> None:
        self.task = task if truth is None else copy.deepcopy(task)
        self.truth = truth
        self._true: np.ndarray | None = None
        self.rows: list[tuple[np.ndarray, ...]] = []
        self.infos: list[dict[str, np.ndarray]] = []

    def __call__(self, obs: np.ndarray, plan: Plan, sent: np.ndarray, took: float) -> None:
        """Keep one tick."""
        task = self.task
        told, act = (torch.from_numpy(np.atleast_2d(x)).float() for x in (obs, sent))
        now = told if self.truth is None else self._followed(told, self.truth)
        cost = task.cost(now[:, None, None], act[:, None, None])[:, 0]
        measures = (task.gain(now), cost, task.cross_track(now), task.fell(now))
        rows = (told, act, *measures)
        self.rows.append((*(x.numpy() for x in rows), np.array(took)))
        self.infos.append({k: v.numpy() for k, v in plan.info.items()})

    def _followed(
        self, told: Float[torch.Tensor, "r o"], truth: Callable[[], np.ndarray]
    ) -> Float[torch.Tensor, "r o"]:
        """The truth of this tick; at a reset, it is what sensors tell."""
        if self._true is None:
            self.task.reset(told)
        now = told if self._true is None else torch.from_numpy(self._true).float()
        self.task.observe(now)
        self._true = np.atleast_2d(truth())  # a simulation stands still until it is read again
        return now

    def log(self) -> Log:
        """Everything so far."""
        columns = [np.stack(c) for c in zip(*self.rows, strict=True)]
        names = sorted({name for info in self.infos for name in info})
        nothing = np.full(columns[2].shape[1:], np.nan)
        info = {
            n: np.stack([np.asarray(i.get(n, nothing), dtype=float) for i in self.infos])
            for n in names
        }
        obs, act, gain, cost, cross_track, fell, took = columns
        return Log(obs, act, gain, cost, cross_track, fell, took, info)


def run_episodes(
    robots: Sequence[SimRobot],
    agent: Agent,
    seconds: float,
    watch: Callable[[int], None] = lambda tick: None,
) -> Log:
    """Drive the robots for ``seconds`` of simulated time, as fast as it goes.

    Args:
        robots: of one class; their own perturbations and seeds are set.
        agent: for as many robots.
        seconds: per episode [s].
        watch: told after every tick, for a progress bar.
    """
    batch = SimBatch(robots)
    recorder = Recorder(agent.task, batch.truth)

    def sink(*tick: object) -> None:
        recorder(*tick)  # type: ignore[arg-type]
        watch(len(recorder.rows))

    dt = robots[0].spec.dt
    run(Loop(batch, agent, sink), round(seconds / dt), Clock(dt, real_time=False))
    return recorder.log()
