"""A robot that babbles, follows a script or is driven, recorded for training."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from controllers.base import Planner
from controllers.scripted import Babble, Script
from mbmrl import recording, registry, tasks
from mbmrl.compose import checkpoint_for, make_agent
from mbmrl.control import shielded
from mbmrl.loop import AgentLike, Clock, run
from mbmrl.spec import RobotSpec
from mbmrl.types import Plan
from robots.base import Robot, interruptible
from robots.shield import Shield
from robots.sim import SimRobot


class Blind:
    """A planner that asks for no model and no task, as the loop's agent: nothing is known yet.

    Args:
        planner: of :mod:`controllers.scripted`.
    """

    def __init__(self, planner: Planner) -> None:
        self.planner = planner

    def reset(self, obs: Float[np.ndarray, " o"]) -> None:
        """Begin an episode."""
        self.forget()

    def forget(self, num_robots: int = 1) -> None:
        """Begin anew."""
        self.planner.reset(num_robots)

    def observe(self, obs: np.ndarray, act: np.ndarray, next_obs: np.ndarray) -> None:
        """Nothing to learn."""

    def act(self, obs: Float[np.ndarray, " o"]) -> Plan:
        """The next action."""
        return self.planner.plan(torch.from_numpy(obs).float()[None], _unknown, _unknown)


def _unknown(*_: object) -> torch.Tensor:
    raise RuntimeError("this planner was to look at no model")


def policy(name: str, robot: Robot, checkpoint: Path | None = None, seed: int = 0) -> AgentLike:
    """Who decides.

    Args:
        name: ``babble``, ``package.module:function`` (time since the episode began [s] and
            observation → action), or an agent or adapter.
        robot: that it is for.
        checkpoint: for an agent that needs one; None takes the one shipped for the robot.
        seed: of its random numbers.

    Raises:
        UnknownName: for a name that leads nowhere.
    """
    if name == "babble":
        return Blind(Babble(robot.spec, seed))
    if ":" in name:
        return Blind(Script(robot.spec, registry.function(name)))
    paths = tasks.usual(robot.task)
    return make_agent(name, [robot], checkpoint_for(name, robot.spec, checkpoint), paths, seed=seed)


def record(
    robot: Robot,
    agent: AgentLike,
    folder: Path,
    *,
    name: str,
    seconds: float,
    episodes: int = 1,
    condition: str = "",
    share: float = 1.0,
    real_time: bool = True,
    watch: Callable[[], None] = lambda: None,
    warn: Callable[[str], None] = print,
) -> list[Path]:
    """Record until the folder holds so many whole episodes of this condition.

    What an earlier call recorded counts; an episode that was cut off is kept, but does not.

    Args:
        robot: disconnected; it is stopped in the end, by Ctrl-C, SIGTERM and SIGHUP too.
        agent: decides.
        folder: of the recordings.
        name: of the robot.
        seconds: length of an episode [s].
        episodes: how many.
        condition: what is done to the robot meanwhile.
        share: see :class:`Shield`.
        real_time: whether to keep to the wall clock.
        watch: told after every tick.
        warn: told of ticks that did without a decision, and why.

    Returns:
        The files written.

    Raises:
        RecordingError: for a folder of another robot.
        BadObservation: the robot's readings cannot be used.
        Stale: they stay too old.
        Unsafe: decisions are no numbers, or the driver does not say what was sent, again and again.
    """
    ticks, shield = round(seconds / robot.spec.dt), Shield(robot, share)
    missing = episodes - whole_episodes(folder, robot.spec, ticks, condition)
    written: list[Path] = []
    if missing <= 0:
        return written
    with interruptible(), shield:
        for path, _ in zip(recording.numbered(folder), range(missing), strict=False):
            epoch = time.time() - (0.0 if isinstance(robot, SimRobot) else time.monotonic())
            with recording.Writer(path, robot.spec, name, condition, epoch) as writer:
                written.append(path)

                def sink(obs: np.ndarray, plan: Plan, sent: np.ndarray, took: float) -> None:
                    writer.append(shield.measured, obs, sent)  # noqa: B023, called in this turn only
                    watch()

                control = shielded(shield, agent, sink, warn)
                run(control, ticks, Clock(robot.spec.dt, real_time=real_time))
    return written


def whole_episodes(folder: Path, spec: RobotSpec, ticks: int, condition: str) -> int:
    """How many episodes of so many ticks under a condition a folder holds.

    Raises:
        RecordingError: for a folder of another robot.
    """
    found = recording.beside(folder, spec)
    return sum(len(r) >= ticks and r.condition == condition for r in found)
