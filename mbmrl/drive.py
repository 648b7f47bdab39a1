"""One robot through the control loop: shown live, recorded, and stopped however it ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from controllers.agent import Agent
from mbmrl import conditions
from mbmrl.episode import Log, Recorder
from mbmrl.evaluate import measures
from mbmrl.loop import Clock, Loop, run
from mbmrl.types import Plan
from robots.base import Robot
from robots.sim import SimRobot


class Drive:
    """One episode.

    Args:
        robot: disconnected; a simulated one has its perturbations.
        agent: for this robot.
        real_time: whether to keep to the wall clock.

    Attributes:
        qpos: a simulated robot's generalised positions after each tick.
        clock: counts the deadlines that were missed.
    """

    def __init__(self, robot: Robot, agent: Agent, *, real_time: bool) -> None:
        self.robot, self.agent = robot, agent
        self.clock = Clock(robot.spec.dt, real_time=real_time)
        self.recorder = Recorder(agent.task)
        self.qpos: list[np.ndarray] = []

    def run(self, seconds: float) -> None:
        """Connect, drive and stop the robot.

        Raises:
            BadObservation: the robot's reading cannot be used.
            Diverged: the simulation blew up.
        """
        ticks, dt = round(seconds / self.robot.spec.dt), self.robot.spec.dt
        time, state = TextColumn("{task.completed:5.1f} s"), TextColumn("{task.description}")
        with Progress(time, BarColumn(20), state) as progress, self.robot:
            task = progress.add_task("", total=ticks * dt)

            def sink(obs: np.ndarray, plan: Plan, sent: np.ndarray, took: float) -> None:
                self.recorder(obs, plan, sent, took)
                if isinstance(self.robot, SimRobot):
                    self.qpos.append(self.robot.data.qpos.copy())
                progress.update(task, advance=dt, description=self._state())

            run(Loop(self.robot, self.agent, sink), ticks, self.clock)

    @property
    def log(self) -> Log:
        """What has happened so far."""
        return self.recorder.log()

    def _state(self) -> str:
        """The newest tick in words."""
        _, _, gain, _, cross_track, _, took = self.recorder.rows[-1]
        gains = [row[2].item() for row in self.recorder.rows[-_ticks(2.0, self.robot) :]]
        parts = [f"score {np.mean(gains):.2f}"]
        if np.isfinite(cross_track).all():
            parts.append(f"off the path {100 * cross_track.item():4.1f} cm")
        if "gate" in self.recorder.infos[-1]:
            parts.append("adapted " if self.recorder.infos[-1]["gate"].item() else "as prior")
        parts.append(f"{1e3 * took:3.0f} ms")
        if isinstance(self.robot, SimRobot):
            parts.append(conditions.text(self.robot.active) or "undamaged")
        return "  ".join(parts)
