"""One robot through the control loop: shown live, recorded, and stopped however it ends."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from rich import box
from rich.markup import escape
from rich.progress import Progress, TextColumn
from rich.table import Table

from controllers.agent import Agent, TrueModel
from mbmrl import conditions, log
from mbmrl.control import Control, shielded
from mbmrl.episode import Recorder
from mbmrl.loop import Clock, Loop, Ticking, run, settle
from mbmrl.measures import from_onset, phase
from mbmrl.types import Plan
from robots.base import Robot, interruptible, undisturbed
from robots.shield import Shield
from robots.sim import SimRobot

LATELY = 2.0
"""The live score is a mean over so many seconds."""


class Drive:
    """One episode of one robot.

    Args:
        robot: disconnected; a simulated one knows what will happen to it.
        agent: for this robot.
        real_time: whether to keep to the wall clock.
    """

    def __init__(self, robot: Robot, agent: Agent, *, real_time: bool) -> None:
        self.robot, self.agent = robot, agent
        self.perturb = robot.perturb if isinstance(robot, SimRobot) else ()
        # a simulation's time stands still while its plan is made
        waits = isinstance(robot, SimRobot)
        agent.looks_ahead = real_time and not waits and not isinstance(agent.model, TrueModel)
        self.shield = None if waits else Shield(robot)
        self.control: Control | None = None
        self.clock = Clock(robot.spec.dt, real_time=real_time)
        self.recorder = Recorder(agent.task, robot.truth if isinstance(robot, SimRobot) else None)
        self.qpos: list[np.ndarray] = []

    def run(self, seconds: float) -> None:
        """Connect, drive, and stop the robot, which Ctrl-C, SIGTERM and SIGHUP do too.

        Raises:
            BadObservation: the robot's readings cannot be used.
            Stale: they stay too old.
            Unsafe: plans are no numbers, or the driver does not say what was sent, again and again.
            Diverged: the simulation blew up.
        """
        dt = self.robot.spec.dt
        ticks = round(seconds / dt)
        columns = (
            TextColumn("{task.completed:5.1f} / {task.total:.1f} s"),
            TextColumn("{task.description}"),
        )
        with interruptible(), Progress(*columns) as progress, self.shield or self.robot:
            bar = progress.add_task("", total=ticks * dt)

            def sink(obs: np.ndarray, plan: Plan, sent: np.ndarray, took: float) -> None:
                self.recorder(obs, plan, sent, took)
                qpos = self.robot.data.qpos if isinstance(self.robot, SimRobot) else np.zeros(0)
                self.qpos.append(qpos.copy())
                progress.update(bar, advance=dt, description=self._state())

            settle()
            loop: Ticking = Loop(self.robot, self.agent, sink)
            if self.shield is not None:
                loop = self.control = shielded(
                    self.shield, self.agent, sink, progress.console.print
                )
            run(loop, ticks, self.clock)

    def recorded(self, *, robot: str, agent: str, path: str, seed: int) -> log.Run:
        """What was recorded so far, which is something."""
        return log.Run(
            spec=self.robot.spec,
            robot=robot,
            agent=agent,
            path=path,
            perturbations=tuple(conditions.text([p], timing=True) for p in self.perturb),
            onsets=tuple(p.onset for p in self.perturb),
            seed=seed,
            log=self.recorder.log(),
            qpos=np.array(self.qpos),
            missed_deadlines=self.clock.missed,
        )

    def save(self, folder: Path, *, robot: str, agent: str, path: str, seed: int) -> None:
        """Write it, if anything was recorded; no signal cuts it short."""
        if self.recorder.rows:
            with undisturbed():
                log.save(folder, self.recorded(robot=robot, agent=agent, path=path, seed=seed))

    def summary(self) -> Table:
        """How it went, before and after the damage."""
        dt, whole = self.robot.spec.dt, self.recorder.log()
        after = from_onset(self.perturb, dt)
        parts = {"whole run": slice(None)}
        if self.perturb and after.start < len(whole.gain):
            parts = {"before": slice(after.start), "after": after}
        p50, p99 = 1e3 * np.percentile(whole.took, (50, 99))
        caption = (
            f"a tick took {p50:.1f} ms, p99 {p99:.1f} ms; the control period is {1e3 * dt:.0f} ms"
        )
        if self.clock.real_time:
            caption += f"; {self.clock.missed} deadlines were missed"
        if self.control is not None and self.control.gaps:
            caption += f"; the safe action {self.control.gaps} times, see above"
        title = conditions.text(self.perturb) or "undamaged"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        table.caption, table.caption_justify = caption, "left"
        for column in ("", "score", "off the path [cm]", "model error: θ* → θ′", "fell"):
            table.add_column(escape(column), justify="right" if column else "left")
        for name, ticks in parts.items():
            part = phase(whole, 0, ticks, dt)
            errors = _number(part.pred_error_prior, 3), _number(part.pred_error_adapted, 3)
            table.add_row(
                name,
                _number(part.score, 2),
                _number(100 * part.cross_track_m, 1),
                " → ".join(errors),
                "yes" if part.fell else "no",
            )
        return table

    def _state(self) -> str:
        """The newest tick in words."""
        _, _, _, _, cross_track, _, took = self.recorder.rows[-1]
        info = self.recorder.infos[-1]
        lately = self.recorder.rows[-math.ceil(LATELY / self.robot.spec.dt) :]
        parts = [f"score {np.mean([row[2] for row in lately]):5.2f}"]
        if np.isfinite(cross_track).all():
            parts.append(f"{100 * cross_track.item():4.1f} cm off the path")
        if "gate" in info:
            parts.append("gate open" if info["gate"].item() else "gate shut")
        parts.append(f"{1e3 * took:3.0f} ms")
        if isinstance(self.robot, SimRobot):
            parts.append(", ".join(p.name for p in self.robot.active) or "undamaged")
        return "  ".join(parts)


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"
