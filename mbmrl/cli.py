"""A robot controller that keeps working when the robot changes.

A dynamics model is meta-trained so that the last few seconds of motion adapt it to the robot
as it is right now; at every control step the adapted model plans the next action.

  mbmrl demo             a walking robot breaks, and adapts
  mbmrl list             everything that has a name
  mbmrl COMMAND --help   what a command does, with examples

Exit status: 0 done, 2 what was asked for cannot be done, 1 anything else, 130 interrupted.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

# Small models on few cores: more threads only get in each other's way. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import tyro
from tyro.conf import Positional, UseAppendAction, arg

# torch and MuJoCo are imported inside the commands, so that --help answers at once.
if TYPE_CHECKING:
    from mbmrl.conditions import Condition

RobotName = Annotated[
    str, arg(metavar="NAME", help="From `mbmrl list robots`, or package.module:Class.")
]
CheckpointDir = Annotated[
    Path | None,
    arg(metavar="DIR", help="The trained model; when left out, the one shipped for the robot."),
]
PlannerName = Annotated[
    str | None,
    arg(metavar="NAME", help="From `mbmrl list planners`; when left out, the robot's own."),
]
Seed = Annotated[int, arg(metavar="N", help="Of everything random.")]
Seconds = Annotated[float, arg(metavar="S", help="How long an episode is.")]

ONSET = 0.3
"""When a perturbation begins that does not say when, as a share of the episode."""


class UsageError(ValueError):
    """A request that cannot be met."""


@dataclass(frozen=True)
class Train:
    """Make a checkpoint from nothing: collect data, meta-train, collect with the result, repeat.

    Goes on where an earlier call with the same flags was cut off. TensorBoard's curves lie in
    DIR/curves.

      mbmrl train --robot hexapod --out runs/hexapod
      mbmrl train --robot hexapod --out runs/quick --minutes 5
      mbmrl train --robot cheetah --out runs/all --adapter all
    """

    out: Annotated[Path, arg(metavar="DIR", help="Folder of the checkpoint.")]
    robot: RobotName = "hexapod"
    minutes: Annotated[
        float | None,
        arg(metavar="N", help="About how long on two cores; when left out, the robot's full course."),
    ] = None
    seed: Seed = 0
    adapter: Annotated[
        str,
        arg(metavar="NAME,…", help="Learners beside the pooled model: from `mbmrl list adapters`, or all."),
    ] = "default"

    def __call__(self) -> None:
        """Train."""
        _check_numbers(minutes=self.minutes, seed=self.seed)
        from mbmrl import registry
        from mbmrl.train import train

        adapters = [a for a in _split(self.adapter) if a != "default"]
        if adapters == ["all"]:
            adapters = [a for a in registry.names("adapters") if a != "none"]
            adapters = [a for a in adapters if not registry.load("adapters", a).trained_as]
        out = train(self.robot, self.out, self.minutes, self.seed, adapters)
        print(f"The checkpoint lies in {out}: try `mbmrl run --checkpoint {out}`")


@dataclass(frozen=True)
class Run:
    """Drive one robot, watch it live, and keep what happened.

    Writes run.npz, run.json and run.png to the --out folder, and run.mp4 with --video. However
    a run ends, the robot is stopped and what was recorded is kept. A robot that is not simulated
    is always driven in real time.

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
                help="What happens to a simulated robot, from `mbmrl list perturbations`; repeat it "
                "for several at once. Without onset=SECONDS it begins 30 % into the run. When left "
                "out, the robot suffers its usual damage; `none` leaves it alone.",
            ),
        ]
    ] = ()
    adapter: Annotated[
        str,
        arg(metavar="NAME", help="From `mbmrl list adapters`; an agent of `mbmrl list agents` will do."),
    ] = "default"
    planner: PlannerName = None
    seconds: Seconds = 20.0
    seed: Seed = 0
    path: Annotated[
        str | None,
        arg(metavar="NAME", help="straight, arc, zigzag or eight; when left out, eight."),
    ] = None
    out: Annotated[
        Path | None, arg(metavar="DIR", help="When left out, runs/ROBOT-TIME.")
    ] = None
    video: Annotated[
        bool, arg(help="Render an MP4 too: needs OpenGL (EGL or OSMesa), but no display.")
    ] = False
    real_time: Annotated[
        bool, arg(help="Keep to the wall clock, and count the deadlines missed.")
    ] = False

    def __call__(self) -> None:
        """Run."""
        _check_numbers(seconds=self.seconds, seed=self.seed)
        import torch

        from mbmrl.drive import Drive

        torch.set_num_threads(1)
        name = self.robot.rpartition(":")[2]
        out = self.out or Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        Drive(
            robot=self.robot,
            condition=_condition(self.perturb, self.seconds) if self.perturb else None,
            onset=ONSET * self.seconds,
            agent=self.adapter,
            checkpoint=self.checkpoint,
            planner=self.planner,
            path=self.path,
            seconds=self.seconds,
            seed=self.seed,
            real_time=self.real_time,
        ).record(out, video=self.video)


@dataclass(frozen=True)
class Eval:
    """Compare agents on the same robots, damages and seeds; a table with 95 % intervals.

    Several --perturb act at once, as one condition. Without any, the robot's whole test suite of
    held-out conditions is driven one by one, as with --suite test. Score, distance from the path
    and model error are means after the onset; the intervals resample conditions first and episodes
    within them. The first agent is compared with each other one, paired by condition, path and seed.

    Episodes run side by side; so the times of a tick, and the deadlines missed, come from a short
    run of a single, undamaged robot, once for each agent.

      mbmrl eval --robot hexapod --agents default,frozen,pooled,oracle
      mbmrl eval --robot hexapod --agents maml,rls --perturb damaged_leg:leg=L0,mode=locked
      mbmrl eval --robot cheetah --perturb none --agents default,frozen --json rows.json
    """

    robot: RobotName = "hexapod"
    checkpoint: CheckpointDir = None
    perturb: UseAppendAction[
        Annotated[
            tuple[str, ...],
            arg(
                metavar="KIND:key=value,…",
                help="From `mbmrl list perturbations`; repeat it for several at once; `none` for the "
                "robot as it was built. Without onset=SECONDS it begins 30 % into the episode.",
            ),
        ]
    ] = ()
    suite: Annotated[
        Literal["test"] | None,
        arg(metavar="test", help="Drive the robot's held-out conditions one by one."),
    ] = None
    agents: Annotated[
        str, arg(metavar="A,B,…", help="From `mbmrl list agents`, and any adapter.")
    ] = "default,frozen,pooled"
    planner: PlannerName = None
    paths: Annotated[
        str | None,
        arg(metavar="P,Q,…", help="Each is driven, for robots that follow one; when left out, eight,zigzag."),
    ] = None
    episodes: Annotated[int, arg(metavar="N", help="Per condition, path and agent.")] = 1
    seconds: Seconds = 20.0
    seed: Annotated[int, arg(metavar="N", help="Of the first episode; the next one has N + 1.")] = 0
    jobs: Annotated[int, arg(metavar="N", help="Processes to share the work.")] = 1
    json: Annotated[
        Path | None, arg(metavar="FILE", help="Write one row an episode here.")
    ] = None

    def __call__(self) -> None:
        """Evaluate."""
        _check_numbers(
            seconds=self.seconds, seed=self.seed, episodes=self.episodes, jobs=self.jobs
        )
        if self.perturb and self.suite:
            raise UsageError("--perturb and --suite exclude each other")
        import torch

        from mbmrl import report

        torch.set_num_threads(1)
        report.evaluate(
            robot=self.robot,
            condition=_condition(self.perturb, self.seconds) if self.perturb else None,
            onset=ONSET * self.seconds,
            agents=_split(self.agents),
            paths=_split(self.paths) if self.paths else None,
            episodes=self.episodes,
            seconds=self.seconds,
            seed=self.seed,
            checkpoint=self.checkpoint,
            planner=self.planner,
            jobs=self.jobs,
            json_file=self.json,
        )
