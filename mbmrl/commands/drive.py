"""Drive one robot, or several agents side by side."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import UseAppendAction, arg

from mbmrl.commands.common import (
    CheckpointDir,
    PlannerName,
    RobotName,
    Seconds,
    Seed,
    UsageError,
    check_folder,
    check_numbers,
    condition,
    courses,
    driving,
    load_robot,
    load_simulated,
    loading,
    show,
)

if TYPE_CHECKING:
    from robots.base import Robot


@dataclass(frozen=True)
class Run:
    """Drive one robot, watch it live, and keep what happened.

    Writes run.npz, run.json and run.png to the --out folder, and run.mp4 with --video. However
    a run ends, the robot is stopped and what was recorded is kept. A robot that is not simulated
    is always driven in real time.

    For example:

      mbmrl run --robot hexapod --perturb damaged_leg:leg=L1,mode=missing,onset=5 --video
      mbmrl run --robot hexapod --perturb friction:scale=0.2,side=left --perturb payload:mass=1
      mbmrl run --robot cheetah --perturb none --adapter frozen --seconds 10
      mbmrl run --robot my_pkg.mod:MyRobot --checkpoint runs/mine
    """

    robot: RobotName = "hexapod"
    checkpoint: CheckpointDir = None
    perturb: UseAppendAction[
        Annotated[
            tuple[str, ...],
            arg(
                metavar="KIND:key=value,…",
                help="What happens to a simulated robot, from `mbmrl list perturbations`; repeat "
                "it for several at once. Without onset=SECONDS it begins 30 % into the run. When "
                "left out, a leg or so fails; `none` leaves the robot alone.",
            ),
        ]
    ] = ()
    adapter: Annotated[
        str,
        arg(
            metavar="NAME",
            help="From `mbmrl list adapters`; an agent of `mbmrl list agents` will do.",
        ),
    ] = "default"
    planner: PlannerName = None
    seconds: Seconds = 20.0
    seed: Seed = 0
    path: Annotated[
        str | None,
        arg(
            metavar="NAME",
            help="What to follow: a path (straight, arc, zigzag, eight), a schedule of velocity "
            "commands (forward, turns, square, weave, tour) or a direction (back, right, left, "
            "ahead). A robot can be given all that it measures enough for, whatever it was trained "
            "on; when left out, the last one of the task of its own.",
        ),
    ] = None
    out: Annotated[Path | None, arg(metavar="DIR", help="When left out, runs/ROBOT-TIME.")] = None
    video: Annotated[
        bool, arg(help="Render an MP4 too: needs OpenGL (EGL or OSMesa), but no display.")
    ] = False
    real_time: Annotated[
        bool, arg(help="Keep to the wall clock, and count the deadlines missed.")
    ] = False

    def __call__(self) -> None:
        """Run."""
        check_numbers(seconds=self.seconds, seed=self.seed)
        import torch

        from mbmrl import drive, plot
        from mbmrl.compose import checkpoint_for, make_agent
        from robots.sim import SimRobot

        torch.set_num_threads(1)
        cls = load_robot(self.robot, self.seconds)
        robot: Robot
        if issubclass(cls, SimRobot):
            robot = cls(condition(cls, self.perturb, self.seconds), self.seed)
        elif self.video or self.perturb not in ((), ("none",)):
            raise UsageError(f"{self.robot} is not simulated: no --perturb and no --video")
        else:
            with loading(self.robot):
                robot = cls()
        (path,) = courses(cls, (self.path,) if self.path else None, 1)
        checkpoint = checkpoint_for(self.adapter, robot.spec, self.checkpoint)
        agent = make_agent(
            self.adapter, [robot], checkpoint, [path], planner=self.planner, seed=self.seed
        )
        out = self.out or Path("runs") / f"{robot.spec.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        check_folder(out)
        out.mkdir(parents=True, exist_ok=True)
        driven = drive.Drive(
            robot, agent, real_time=self.real_time or not isinstance(robot, SimRobot)
        )
        try:
            with driving(self.robot, cls):
                driven.run(self.seconds)
        finally:
            driven.save(out, robot=self.robot, agent=self.adapter, path=path, seed=self.seed)
        show(driven.summary())
        plot.plot_run(out)
        if self.video:
            from mbmrl import video

            video.video_run(out)
        print(f"Written to {out}: {', '.join(sorted(f.name for f in out.iterdir()))}")


@dataclass(frozen=True)
class Demo:
    """Break a walking robot and watch it adapt, beside one that does not; under three minutes.

    For example:

      mbmrl demo
      mbmrl demo --out runs/demo --seed 1
    """

    out: Annotated[Path, arg(metavar="DIR", help="Where the video and the figure go.")] = Path(
        "runs/demo"
    )
    seed: Seed = 0
    seconds: Seconds = 20.0

    def __call__(self) -> None:
        """Show it."""
        check_numbers(seconds=self.seconds, seed=self.seed)
        import torch

        from mbmrl.demo import ROBOT, demo

        torch.set_num_threads(1)
        load_simulated(ROBOT, self.seconds)
        check_folder(self.out)
        demo(self.out, self.seed, self.seconds)
