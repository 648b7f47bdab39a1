"""A robot controller that keeps working when the robot changes.

A dynamics model is meta-trained so that the last few seconds of motion adapt it to the robot
as it is right now; at every control step the adapted model plans the next action.

  mbmrl demo             a walking robot breaks, and adapts
  mbmrl list             everything that has a name
  mbmrl COMMAND --help   what a command does, with examples

Exit status: 0 done, 2 what was asked for cannot be done, 1 anything else, 130 interrupted.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

# Small models on few cores: more threads only get in each other's way. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import tyro
from tyro.conf import Positional, UseAppendAction, arg

from mbmrl import registry

# torch and MuJoCo are imported inside the commands, so that --help answers at once.
if TYPE_CHECKING:
    from mbmrl import log
    from mbmrl.conditions import Condition
    from mbmrl.discriminate import Results
    from mbmrl.evaluate import Evaluation, Row
    from robots.base import Robot
    from robots.sim import SimRobot

RobotName = Annotated[
    str,
    arg(
        metavar="NAME",
        help="From `mbmrl list robots`, package.module:Class, or DRIVER=FILE.",
    ),
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


MOST_GAPS = 10
"""Gaps that `mbmrl data` lists."""


class UsageError(ValueError):
    """A request that cannot be met."""


class Findings(RuntimeError):
    """What was looked at is not as it should be."""


@dataclass(frozen=True)
class Train:
    """Make a checkpoint from nothing: collect data, meta-train, collect with the result, repeat.

    With --data it learns from recordings alone: of a robot that is not simulated, by its class or
    by the spec that is stored in them. Whether their conditions are labelled or not, each window is
    a task of its own.

    Goes on where an earlier call with the same flags was cut off. TensorBoard's curves lie in
    DIR/curves.

    For example:

      mbmrl train --robot hexapod --out runs/hexapod
      mbmrl train --robot hexapod --out runs/quick --minutes 5
      mbmrl train --robot cheetah --out runs/all --adapter all
      mbmrl train --data data/mine --out runs/mine
    """

    out: Annotated[Path, arg(metavar="DIR", help="Folder of the checkpoint.")]
    robot: Annotated[
        str | None,
        arg(
            metavar="NAME",
            help="From `mbmrl list robots`, or package.module:Class; when left out, the hexapod, "
            "or the one of the recordings.",
        ),
    ] = None
    data: Annotated[
        Path | None, arg(metavar="DIR", help="Recordings, as `mbmrl record` writes them.")
    ] = None
    minutes: Annotated[
        float | None,
        arg(
            metavar="N", help="About how long on two cores; when left out, the robot's full course."
        ),
    ] = None
    seed: Seed = 0
    adapter: Annotated[
        str,
        arg(
            metavar="NAME,…",
            help="Learners beside the pooled model: from `mbmrl list adapters`, or all.",
        ),
    ] = "default"

    def __call__(self) -> None:
        """Train."""
        _check_numbers(minutes=self.minutes, seed=self.seed)
        from mbmrl.train import train, train_from

        adapters = _split(self.adapter)
        if adapters == ("all",):
            every = {a: registry.load("adapters", a) for a in registry.names("adapters")}
            adapters = tuple(a for a, c in every.items() if a != "none" and not c.trained_as)
        elif adapters == ("default",):
            adapters = ()
        how = (self.minutes, self.seed, adapters)
        if self.data:
            out = train_from(self.data, self.out, self.robot, *how)
        else:
            out = train(self.robot or "hexapod", self.out, *how)
        print(f"The checkpoint lies in {out}: try `mbmrl run --checkpoint {out}`")


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
            help="What to follow, for robots whose task leaves a choice: a path (straight, arc, "
            "zigzag, eight), a schedule of velocity commands (forward, turns, square, weave, tour) "
            "or a direction (back, right, left, ahead). When left out, the last of them.",
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
        _check_numbers(seconds=self.seconds, seed=self.seed)
        import torch

        from mbmrl import drive, plot
        from mbmrl.compose import make_agent
        from mbmrl.evaluate import checkpoint_for
        from robots.sim import SimRobot

        torch.set_num_threads(1)
        cls = _load_robot(self.robot, self.seconds)
        robot: Robot
        if issubclass(cls, SimRobot):
            robot = cls(_condition(cls, self.perturb, self.seconds), self.seed)
        elif self.video or self.perturb not in ((), ("none",)):
            raise UsageError(f"{self.robot} is not simulated: no --perturb and no --video")
        else:
            robot = cls()
        (path,) = _paths(cls, (self.path,) if self.path else None, 1)
        checkpoint = checkpoint_for(self.adapter, robot.spec, self.checkpoint)
        agent = make_agent(
            self.adapter, [robot], checkpoint, [path], planner=self.planner, seed=self.seed
        )
        out = self.out or Path("runs") / f"{robot.spec.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        out.mkdir(parents=True, exist_ok=True)
        driven = drive.Drive(
            robot, agent, real_time=self.real_time or not isinstance(robot, SimRobot)
        )
        try:
            driven.run(self.seconds)
        finally:
            driven.save(out, robot=self.robot, agent=self.adapter, path=path, seed=self.seed)
        _print(driven.summary())
        plot.plot_run(out)
        if self.video:
            from mbmrl import video

            video.video_run(out)
        print(f"Written to {out}: {', '.join(sorted(f.name for f in out.iterdir()))}")


@dataclass(frozen=True)
class Eval:
    """Compare agents on the same robots, damages and seeds; a table with 95 % intervals.

    Several --perturb act at once, as one condition. Without any, the robot's whole test suite of
    held-out conditions is driven one by one, as with --suite test. Score (1 as wanted, 0
    worthless), distance from the path and model error are means after the onset; the intervals
    resample conditions first and episodes within them. The first agent is compared with each
    other one, paired by condition, path and seed.

    Episodes run side by side, so the times of a tick, and the deadlines missed, come from a short
    run of a single, undamaged robot, once for each agent.

    For example:

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
                help="From `mbmrl list perturbations`; repeat it for several at once; `none` for "
                "the undamaged robot. Without onset=SECONDS it begins 30 % into the episode.",
            ),
        ]
    ] = ()
    suite: Annotated[
        Literal["test", "validation"] | None,
        arg(
            help="Drive a list of conditions one by one: the robot's held-out ones, or draws of "
            "the training ranges, to choose settings on.",
        ),
    ] = None
    agents: Annotated[
        str, arg(metavar="A,B,…", help="From `mbmrl list agents`, and any adapter.")
    ] = "default,frozen,pooled"
    planner: PlannerName = None
    paths: Annotated[
        str | None,
        arg(
            metavar="P,Q,…",
            help="Each is driven, see `mbmrl run --help`; when left out, the last two.",
        ),
    ] = None
    episodes: Annotated[int, arg(metavar="N", help="Per condition, path and agent.")] = 1
    seconds: Seconds = 20.0
    seed: Annotated[int, arg(metavar="N", help="Of the first episode; the next one has N + 1.")] = 0
    jobs: Annotated[int, arg(metavar="N", help="Processes to share the work.")] = 1
    json: Annotated[Path | None, arg(metavar="FILE", help="Write one row an episode here.")] = None

    def __call__(self) -> None:
        """Evaluate."""
        _check_numbers(seconds=self.seconds, seed=self.seed, episodes=self.episodes, jobs=self.jobs)
        if self.perturb and self.suite:
            raise UsageError("--perturb and --suite exclude each other")
        _check_file(self.json)
        import torch

        from mbmrl import conditions, report
        from mbmrl.evaluate import Evaluation

        torch.set_num_threads(1)
        cls = _load_simulated(self.robot, self.seconds)
        if self.perturb:
            suite = [_condition(cls, self.perturb, self.seconds)]
        else:
            every = conditions.SUITES[self.suite or "test"](cls())
            suite = [conditions.starting(c, ONSET * self.seconds) for c in every]
        what = Evaluation(
            robot=self.robot,
            conditions=tuple(suite),
            agents=_split(self.agents),
            paths=_paths(cls, _split(self.paths) if self.paths else None, 2),
            episodes=self.episodes,
            seconds=self.seconds,
            seed=self.seed,
            checkpoint=self.checkpoint,
            planner=self.planner,
        )
        rows: list[Row] = []
        for _ in _evaluated(what, self.jobs, rows):
            if self.json:
                _write(self.json, json.dumps([row.to_json() for row in rows], indent=1))
        _print(report.agents_table(rows))
        _print(report.errors_table(rows))
        if len(what.agents) > 1:
            _print(report.comparison_table(rows))


@dataclass(frozen=True)
class Discriminate:
    """Find the perturbations that tell controllers apart: those on which to know the damage pays.

    Three planners on the true simulator are compared: oracle, who knows what is wrong with the
    robot, nominal, who takes it for undamaged, and robust, who plans for the mean of the undamaged
    robot and four faults. None of them learns: they bound what adapting can buy. Each held-out
    perturbation of the robot's test suite is driven by itself, and the faults that robust knows. A
    perturbation discriminates where the 95 % intervals of oracle's and nominal's score are
    disjoint, and it defeats robust planning where oracle's and robust's are.

    This takes hours a robot, most of them for robust: with --robust-where-it-matters only the
    perturbations that discriminate are driven with it. With --json it goes on where an earlier
    call was cut off, be it with another robot or with more episodes; --markdown writes the tables
    of all robots in that file.

    For example:

      mbmrl discriminate --robot cheetah --jobs 2 --json runs/gaps.json
      mbmrl discriminate --robot hexapod --jobs 2 --json runs/gaps.json --markdown docs/gaps.md
      mbmrl discriminate --robot cheetah --seconds 3 --episodes 2 --robust-where-it-matters
    """

    robot: RobotName = "hexapod"
    robust_where_it_matters: Annotated[
        bool, arg(help="Drive robust only where oracle beats nominal.")
    ] = False
    episodes: Annotated[int, arg(metavar="N", help="Per perturbation and planner.")] = 5
    seconds: Seconds = 10.0
    seed: Annotated[int, arg(metavar="N", help="Of the first episode; the next one has N + 1.")] = 0
    jobs: Annotated[int, arg(metavar="N", help="Processes to share the work.")] = 1
    json: Annotated[
        Path | None, arg(metavar="FILE", help="Keep the episodes here, and go on from them.")
    ] = None
    markdown: Annotated[Path | None, arg(metavar="FILE", help="Write the tables here.")] = None

    def __call__(self) -> None:
        """Compare."""
        _check_numbers(seconds=self.seconds, seed=self.seed, episodes=self.episodes, jobs=self.jobs)
        _check_file(self.json)
        _check_file(self.markdown, "--markdown")
        import torch

        from mbmrl import conditions, discriminate
        from mbmrl.compose import faults
        from mbmrl.evaluate import Evaluation

        torch.set_num_threads(1)
        cls = _load_simulated(self.robot, self.seconds)
        record = discriminate.Results.load(self.json, self.seconds)
        record.known[cls.spec.name] = [conditions.text(fault) for fault in faults(cls())]
        what = Evaluation(
            robot=self.robot,
            conditions=tuple(
                conditions.starting(c, ONSET * self.seconds) for c in discriminate.suite(cls())
            ),
            agents=("oracle", "nominal"),
            paths=_paths(cls, None, 1),
            episodes=self.episodes,
            seconds=self.seconds,
            seed=self.seed,
        )
        self._drive(what, record)
        chosen = what.conditions
        if self.robust_where_it_matters:
            known = {g.perturbation: g for g in discriminate.gaps(record, cls.spec.name)}
            chosen = tuple(c for c in chosen if known[conditions.text(c) or "none"].discriminates)
        self._drive(replace(what, agents=("robust",), conditions=chosen), record)
        if self.markdown:
            _write(self.markdown, discriminate.markdown(record))
        _print(discriminate.table(record, cls.spec.name))

    def _drive(self, what: Evaluation, record: Results) -> None:
        for _ in _evaluated(what, self.jobs, record.rows):
            if self.json:
                _write(self.json, record.dump())


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
        _check_numbers(seconds=self.seconds, seed=self.seed)
        import torch

        from mbmrl.demo import demo

        torch.set_num_threads(1)
        demo(self.out, self.seed, self.seconds)


@dataclass(frozen=True)
class Render:
    """Draw a robot, or recorded runs side by side: a picture (.png) or a film (.mp4).

    Of a robot by its name, a picture shows it at rest and a film shows it babbling, unless told
    otherwise; a --perturb without onset=SECONDS acts from the start. Of folders that `mbmrl run`
    wrote, a picture shows where the run ends; in a film, runs of the same robot under the same
    perturbations go side by side. No display is needed, but OpenGL is (EGL or OSMesa).

    For example:

      mbmrl render --robot hexapod --out hexapod.png
      mbmrl render --robot hexapod --perturb damaged_leg:leg=L1 --seconds 4 --out lame.mp4
      mbmrl render --robot cheetah --perturb slope:angle=0.2 --agent oracle --out uphill.mp4
      mbmrl render runs/default runs/frozen --out both.mp4
    """

    out: Annotated[Path, arg(metavar="FILE", help="What is drawn: FILE.png or FILE.mp4.")]
    folders: Positional[
        Annotated[tuple[Path, ...], arg(metavar="DIR", help="What `mbmrl run` wrote.")]
    ] = ()
    robot: Annotated[
        str | None, arg(metavar="NAME", help="Instead of folders: from `mbmrl list robots`.")
    ] = None
    perturb: UseAppendAction[
        Annotated[
            tuple[str, ...],
            arg(
                metavar="KIND:key=value,…",
                help="What happens to that robot, from `mbmrl list perturbations`; repeat it for "
                "several at once.",
            ),
        ]
    ] = ()
    agent: Annotated[
        str | None,
        arg(
            metavar="NAME",
            help="What drives it, from `mbmrl list agents`; when left out, zero for a picture and "
            "babble for a film.",
        ),
    ] = None
    seconds: Seconds = 2.0
    seed: Seed = 0

    def __call__(self) -> None:
        """Draw."""
        _check_numbers(seconds=self.seconds, seed=self.seed)
        _check_file(self.out, "--out")
        film = self.out.suffix == ".mp4"
        if not film and self.out.suffix != ".png":
            raise UsageError(f"--out {self.out}: it ends in .png or .mp4")
        if bool(self.folders) == bool(self.robot):
            raise UsageError("either folders of recorded runs or --robot NAME is drawn")
        if self.folders and (self.perturb or self.agent):
            raise UsageError("--perturb and --agent are for --robot: a recorded run has its own")
        from mbmrl import log, scene, video

        runs = [log.load(folder) for folder in self.folders]
        if len({(run.robot, run.perturbations) for run in runs}) > 1:
            raise UsageError("side by side go runs of the same robot under the same perturbations")
        if len(runs) > 1 and not film:
            raise UsageError("a picture is of one run: several go into an .mp4")
        cls = _load_simulated(self.robot, self.seconds) if self.robot else None
        scene.backend()  # where there is none, it is known now
        if cls:
            runs = [self._driven(cls, self.agent or ("babble" if film else "zero"))]
        if film:
            video.render(runs, self.out)
        else:
            video.picture(runs[0], self.out)
        print(f"Drawn to {self.out}")

    def _driven(self, cls: type[SimRobot], agent: str) -> log.Run:
        """The robot, driven for the purpose."""
        import torch

        from mbmrl import conditions
        from mbmrl.compose import make_agent
        from mbmrl.drive import Drive
        from mbmrl.evaluate import checkpoint_for

        torch.set_num_threads(1)
        robot = cls([conditions.parse(text) for text in self.perturb], self.seed)
        (path,) = _paths(cls, None, 1)
        checkpoint = checkpoint_for(agent, robot.spec, None)
        driver = make_agent(agent, [robot], checkpoint, [path], seed=self.seed)
        drive = Drive(robot, driver, real_time=False)
        drive.run(self.seconds)
        return drive.recorded(robot=self.robot or "", agent=agent, path=path, seed=self.seed)


Listed = Literal["all", "robots", "perturbations", "planners", "adapters", "agents", "checkpoints"]


@dataclass(frozen=True)
class List:
    """List what there is by name, a line each.

    For example:

      mbmrl list
      mbmrl list perturbations
    """

    what: Positional[Listed] = "all"

    def __call__(self) -> None:
        """List."""
        from mbmrl import about

        for what in get_args(Listed)[1:] if self.what == "all" else [self.what]:
            _print(about.listing(what))


@dataclass(frozen=True)
class Info:
    """Show versions, processor, rendering and shipped checkpoints: what a bug report needs.

    For example:

      mbmrl info
    """

    def __call__(self) -> None:
        """Show them."""
        from mbmrl import about

        _print(about.machine())
        _print(about.listing("checkpoints"))


@dataclass(frozen=True)
class Plot:
    """Draw a recorded run again: path, speed and model error over time.

    For example:

      mbmrl plot runs/mine
    """

    folder: Positional[Annotated[Path, arg(metavar="DIR", help="What `mbmrl run` wrote.")]]

    def __call__(self) -> None:
        """Draw it."""
        from mbmrl.plot import plot_run

        print(f"Drawn to {plot_run(self.folder)}")


@dataclass(frozen=True)
class Bench:
    """Time this machine, on one thread; every ratio is of rivals timed in turn in one run.

    Without a flag, or with --tick, the whole tick of one robot's default controller against its
    control period; robots for which no checkpoint is shipped get random weights, which cost the
    same. --plan and --meta time planning, adapting and meta-training against the bare matrix
    products of the same sizes, and against other libraries where they are installed (pip install
    'mbmrl[bench]'); --sim times the simulation against dm_control's own loop; --ros times the
    control loop over ROS 2 topics, a minute a robot, the controller in a process of its own; `cart`
    is a robot for 100 Hz.

    For example:

      mbmrl bench
      mbmrl bench --robot cheetah --json tick.json
      mbmrl bench --plan --json plan.json
      mbmrl bench --meta
      mbmrl bench --ros --robot cheetah
    """

    tick: Annotated[bool, arg(help="The control loop of each robot.")] = False
    plan: Annotated[bool, arg(help="Large plans, on every rollout engine.")] = False
    meta: Annotated[bool, arg(help="Adapting, and a step of meta-training.")] = False
    sim: Annotated[bool, arg(help="Simulating robots, beside dm_control's own loop.")] = False
    ros: Annotated[bool, arg(help="The control loop over ROS 2 topics, in real time.")] = False
    robot: Annotated[
        str | None,
        arg(metavar="NAME", help="From `mbmrl list robots`; when left out, all of them."),
    ] = None
    json: Annotated[Path | None, arg(metavar="FILE", help="Write the figures here, as rows.")] = (
        None
    )

    def __call__(self) -> None:
        """Time it."""
        _check_file(self.json)
        if self.tick + self.plan + self.meta + self.sim + self.ros > 1:
            raise UsageError("one of --tick, --plan, --meta, --sim and --ros at a time")
        if self.robot and (self.plan or self.meta):
            raise UsageError("--plan and --meta time no robot: leave --robot out")
        import torch

        from mbmrl.bench import meta, plan, ros, sim, tick, turns

        torch.set_num_threads(1)
        rows: Sequence[tick.Speed | plan.PlanSpeed | meta.MetaSpeed | sim.SimSpeed | ros.RosSpeed]
        if self.plan:
            rows = plans = [row for case in plan.CASES for row in plan.bench(case)]
            table = plan.table(plans)
        elif self.meta:
            rows = learners = [row for case in meta.CASES for row in meta.bench(case)]
            table = meta.table(learners)
        elif self.ros:
            driven = [self.robot] if self.robot else ros.ROBOTS
            rows = loops = [ros.speed(name) for name in driven]
            table = ros.table(loops)
        else:
            names = [self.robot] if self.robot else tick.simulated()
            if self.sim:
                rows = simulations = [row for name in names for row in sim.bench(name)]
                table = sim.table(simulations)
            else:
                rows = robots = [tick.bench(name) for name in names]
                table = tick.table(robots)
        if self.json:
            machine = {"machine": turns.machine()}
            _write(self.json, json.dumps([row.to_json() | machine for row in rows], indent=1))
        _print(table)
        print(turns.machine())


@dataclass(frozen=True)
class Ros:
    """Run a ROS 2 node: the controller, a simulated robot behind topics, or the watchdog.

    The nodes' parameters are told by `ros2 param describe`, and in docs/ros2.md.

    For example:

      mbmrl ros robot --set robot=hexapod
      mbmrl ros controller --set robot=hexapod
      mbmrl ros controller --params my_robot.yaml --remap imu=/imu/data
    """

    node: Positional[Literal["controller", "robot", "watchdog"]]
    params: Annotated[Path | None, arg(metavar="FILE", help="YAML, as ROS 2 nodes take it.")] = None
    set: UseAppendAction[
        Annotated[tuple[str, ...], arg(metavar="NAME=VALUE", help="A parameter; repeat it.")]
    ] = ()
    remap: UseAppendAction[
        Annotated[tuple[str, ...], arg(metavar="FROM=TO", help="A topic or so; repeat it.")]
    ] = ()

    def __call__(self) -> None:
        """Run it."""
        from mbmrl.ros.main import serve

        args = ["--ros-args"]
        if self.params:
            if not self.params.is_file():
                raise UsageError(f"there is no parameter file {self.params}")
            args += ["--params-file", str(self.params)]
        for flag, pairs in (("-p", self.set), ("-r", self.remap)):
            for pair in pairs:
                if "=" not in pair:
                    raise UsageError(f"{pair!r} is not of the form NAME=VALUE")
                args += [flag, pair.replace("=", ":=", 1)]
        status = serve(self.node, args)
        if status:
            raise SystemExit(status)


@dataclass(frozen=True)
class Record:
    """Record a robot that babbles, follows a script or is driven by an agent: data to train on.

    Every tick is on disk at once: a kill loses that tick at most. A folder that holds some of the
    episodes already gets the missing ones.

    For example:

      mbmrl record --robot my_pkg.mod:MyRobot --share 0.3 --seconds 60 --episodes 5 --out data/mine
      mbmrl record --robot my_pkg.mod:MyRobot --policy my_pkg.stick:act --out data/mine
      mbmrl record --robot hexapod --condition friction:scale=0.3 --out data/hexapod
    """

    robot: RobotName
    out: Annotated[Path, arg(metavar="DIR", help="Folder of the recordings, all of one robot.")]
    policy: Annotated[
        str,
        arg(
            metavar="NAME",
            help="babble; package.module:function, (seconds, obs) to action; or an agent of "
            "`mbmrl list agents` or an adapter.",
        ),
    ] = "babble"
    checkpoint: CheckpointDir = None
    condition: Annotated[
        str,
        arg(
            metavar="TEXT",
            help="What is done to the robot meanwhile: any words. A simulated one is perturbed so, "
            "as by `mbmrl run --perturb`; + joins several.",
        ),
    ] = ""
    share: Annotated[
        float, arg(help="How far actions may go from the safe action to the limits, 1 all the way.")
    ] = 1.0
    seconds: Seconds = 60.0
    episodes: Annotated[int, arg(metavar="N", help="How many the folder is to hold.")] = 1
    seed: Seed = 0

    def __call__(self) -> None:
        """Record."""
        _check_numbers(seconds=self.seconds, seed=self.seed, episodes=self.episodes)
        if not 0 < self.share <= 1:
            raise UsageError(f"--share is above 0 and at most 1, not {self.share}")
        import torch
        from rich.progress import Progress

        from mbmrl import conditions, record, recording
        from robots.sim import SimRobot

        torch.set_num_threads(1)
        cls = _load_robot(self.robot, self.seconds)
        simulated = issubclass(cls, SimRobot)
        robot: Robot
        if issubclass(cls, SimRobot):
            parts = self.condition.split(" + ") if self.condition else []
            robot = cls([conditions.parse(p) for p in parts], self.seed)
        else:
            robot = cls()
        # another start, and other noise, for every call that goes on
        seed = self.seed + len(recording.files(self.out))
        agent = record.policy(self.policy, robot, self.checkpoint, seed)
        with Progress(transient=True) as progress:
            total = self.episodes * round(self.seconds / robot.spec.dt)
            bar = progress.add_task("recording", total=total)
            written = record.record(
                robot,
                agent,
                self.out,
                name=self.robot,
                seconds=self.seconds,
                episodes=self.episodes,
                condition=self.condition,
                share=self.share,
                real_time=not simulated,
                watch=lambda: progress.advance(bar),
                warn=progress.console.print,
            )
        print(f"{len(written)} new episodes in {self.out}: look at them with `mbmrl data`")


@dataclass(frozen=True)
class Data:
    """Show what is in recordings: minutes, coverage of every field, gaps, suspicious numbers.

    Exit status 1 where something is suspicious.

    For example:

      mbmrl data data/mine
      mbmrl data data/mine --png data.png
    """

    where: Positional[Annotated[Path, arg(metavar="DIR", help="Recordings, or one of them.")]]
    png: Annotated[
        Path | None, arg(metavar="FILE", help="When left out, data.png beside the recordings.")
    ] = None

    def __call__(self) -> None:
        """Show it."""
        from mbmrl import recording, survey

        found = recording.load_all(self.where)
        for table in survey.tables(found):
            _print(table)
        picture = (
            self.png or (self.where if self.where.is_dir() else self.where.parent) / "data.png"
        )
        survey.plot(found, picture)
        print(f"Drawn to {picture}")
        for gap in [gap for r in found for gap in survey.gaps(r)][:MOST_GAPS]:
            print(f"gap: {gap.recording} at {gap.at:.2f} s, {gap.seconds:.3f} s long")
        doubts = survey.suspicious(found)
        for doubt in doubts:
            print(f"suspicious: {doubt}")
        if doubts:
            raise Findings(f"{len(doubts)} suspicious things in {self.where}")


@dataclass(frozen=True)
class CheckModel:
    """Compare a model's predictions with a recording that it was not trained on, before it drives.

    Errors of every field one step ahead and open loop, in SI units, adapted and not, against who
    expects nothing to change, and who expects everything to go on as it did. The verdict is the
    number of steps for which the adapted model beats the better one of these two, in the geometric
    mean over the fields. Exit status 1 where that is none.

    For example:

      mbmrl check-model data/held-out --checkpoint runs/mine
      mbmrl check-model data/held-out --checkpoint runs/mine --horizon 30 --png check.png
    """

    where: Positional[Annotated[Path, arg(metavar="DIR", help="Recordings, or one of them.")]]
    checkpoint: CheckpointDir = None
    horizon: Annotated[
        int | None,
        arg(metavar="N", help="Steps ahead; when left out, as far as the planner looks."),
    ] = None
    png: Annotated[
        Path | None, arg(metavar="FILE", help="When left out, check.png beside the recordings.")
    ] = None

    def __call__(self) -> None:
        """Check."""
        _check_numbers(seed=0, horizon=self.horizon)
        import torch

        from mbmrl import checkpoint, foresight, recording

        torch.set_num_threads(1)
        found = recording.load_all(self.where)
        model = checkpoint.for_robot(found[0].spec, self.checkpoint)
        planned = foresight.planned(model.spec)
        horizon = self.horizon or planned
        chosen = foresight.places(found, model.window, horizon)
        foreseen = foresight.foresee(model, chosen, horizon)
        _print(foresight.table(foreseen))
        picture = self.png or _beside(self.where) / "check.png"
        foresight.plot(model, found, foreseen, picture)
        print(f"Drawn to {picture}")
        print(foresight.verdict(foreseen, planned))
        if foreseen.horizon() == 0:
            raise Findings(f"the model in {self.checkpoint} foresees nothing")


@dataclass(frozen=True)
class RobotCommand:
    """Check that a robot's driver keeps the contract: timing, stopping, units, the action returned.

    Actions stay within 2 % of the way from the safe action to the limits, and reset() is not
    called, unless --allow-motion. Exit status 1 where a check fails.

    For example:

      mbmrl robot check my_pkg.mod:MyRobot
      mbmrl robot check my_pkg.mod:MyRobot --allow-motion --unplug
      mbmrl robot check dynamixel=arm.yaml
    """

    what: Positional[Literal["check"]]
    name: Positional[RobotName]
    allow_motion: Annotated[
        bool, arg(help="The robot may move: it is reset, and sent actions beyond its limits.")
    ] = False
    unplug: Annotated[bool, arg(help="Ask for the robot's cable to be pulled in the end.")] = False

    def __call__(self) -> None:
        """Check."""
        from mbmrl import testing

        cls: type[Robot] = registry.load("robots", self.name)

        def ask(robot: Robot) -> None:
            input("Pull the robot's cable, and press Enter: ")

        findings = testing.examine(cls, self.allow_motion, ask if self.unplug else None)
        _print(testing.report(self.name, findings))
        failed = sum(f.result == "fail" for f in findings)
        if failed:
            raise Findings(f"{self.name} fails {failed} checks")


@dataclass(frozen=True)
class Import:
    """Make recordings of a ROS 2 bag (sqlite3 or MCAP), or of what `mbmrl run` wrote.

    A bag needs a mapping: which number of which message each field of the robot is. What is read is
    resampled to the robot's control period, and cut where samples are missing. How a mapping is
    written, and how it is interpolated: `python -m pydoc mbmrl.bags`.

    For example:

      mbmrl import bags/monday --mapping mapping.yaml --out data/mine
      mbmrl import bags/ice.mcap --mapping mapping.yaml --condition ice --out data/mine
      mbmrl import runs/mine --out data/mine
    """

    where: Positional[Annotated[Path, arg(metavar="PATH", help="The bag, or the run's folder.")]]
    out: Annotated[Path, arg(metavar="DIR", help="Folder of the recordings.")]
    mapping: Annotated[
        Path | None, arg(metavar="FILE", help="YAML; a bag that mbmrl wrote has its own.")
    ] = None
    condition: Annotated[str, arg(metavar="TEXT", help="What was done to the robot.")] = ""

    def __call__(self) -> None:
        """Import."""
        import dataclasses

        from mbmrl import bags, log, logs, recording, survey

        if (self.where / "run.json").is_file():
            made = logs.by_condition(log.load(self.where))
        else:
            mapping = bags.load_mapping(self.mapping or self.where / "mapping.yaml")
            samples = bags.read(self.where, mapping.sources)
            for name, found in samples.items():
                if found.back:
                    print(f"{name}: {found.back} samples that go back in time are left out")
            made = [bags.resample(mapping, samples)]
        for r, path in zip(made, recording.numbered(self.out), strict=False):
            r = dataclasses.replace(r, condition=self.condition or r.condition, name=path.stem)
            recording.save(path, r)
            gaps, minutes = survey.gaps(r), survey.seconds(r) / 60
            print(f"{path}: {minutes:.2f} minutes that can be used, {len(gaps)} gaps")


@dataclass(frozen=True)
class Export:
    """Write a recording, or what `mbmrl run` wrote, as a ROS 2 bag that plotting tools open.

    Each field is a topic of std_msgs/Float64. The bag's folder holds the mapping, too, by which
    `mbmrl import` reads it again.

    For example:

      mbmrl export data/mine/0000.episode --out bags/mine
      mbmrl export runs/mine --out bags/run --storage sqlite3
    """

    where: Positional[Annotated[Path, arg(metavar="PATH", help="A recording, or a run's folder.")]]
    out: Annotated[Path, arg(metavar="DIR", help="The bag's folder; there is none yet.")]
    storage: Literal["mcap", "sqlite3"] = "mcap"

    def __call__(self) -> None:
        """Export."""
        from mbmrl import bags, log, logs, recording

        run = self.where.is_dir()
        found = logs.of_run(log.load(self.where)) if run else recording.load(self.where)
        bags.write(found, self.out, self.storage)
        print(f"Written to {self.out}")


COMMANDS: tuple[type[Callable[[], None]], ...] = (
    Demo,
    Run,
    Eval,
    Discriminate,
    Train,
    Record,
    Data,
    CheckModel,
    Import,
    Export,
    RobotCommand,
    Ros,
    Plot,
    Render,
    List,
    Info,
    Bench,
)

EXTRAS = {"rosbags": "bags", "ruamel": "bags,dynamixel", "dynamixel_sdk": "dynamixel"}
"""What brings a library that a command may lack."""
FILE_ERRORS = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
"""What comes of a wrong path; a full disk, say, is nothing that the user got wrong."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    try:
        _parse(list(sys.argv[1:] if argv is None else argv))()
    except KeyboardInterrupt:
        return _end("interrupted", 130)
    except BrokenPipeError:  # of `mbmrl list | head`; what is still buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, *FILE_ERRORS) as error:
        return _end(str(error), 2)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if not extra:
            raise
        return _end(f"{error.name} is not installed: pip install 'mbmrl[{extra}]'", 2)
    except RuntimeError as error:
        from mbmrl.loop import BadObservation
        from mbmrl.safety import Stale, Unsafe
        from mbmrl.scene import NoOpenGL
        from robots.sim import Diverged

        if not isinstance(error, BadObservation | Stale | Unsafe | Diverged | NoOpenGL | Findings):
            raise
        return _end(str(error), 1)
    return 0


def command_name(command: type[object]) -> str:
    """How users call it: ``CheckModel`` is ``check-model``, ``RobotCommand`` is ``robot``."""
    name = command.__name__.removesuffix("Command")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


def _parse(argv: list[str]) -> Callable[[], None]:
    """The command that the arguments stand for; exits on ``--help`` and on mistakes."""
    by_name = {command_name(cls): cls for cls in COMMANDS}
    name, *rest = argv or ["--help"]
    if name in by_name:
        flags = (tyro.conf.FlagCreatePairsOff,)
        return tyro.cli(by_name[name], prog=f"mbmrl {name}", args=rest, config=flags)
    if name in ("-h", "--help"):
        lines = {name: (cls.__doc__ or "").partition("\n")[0] for name, cls in by_name.items()}
        commands = "\n".join(f"  {name:12} {line}" for name, line in lines.items())
        print(
            f"usage: mbmrl COMMAND [--help] …\n\n{(__doc__ or '').strip()}\n\nCommands:\n{commands}"
        )
        raise SystemExit(0)
    raise registry.unknown("command", name, list(by_name))


def _condition(cls: type[SimRobot], texts: Sequence[str], seconds: float) -> Condition:
    """What ``--perturb`` asks for; the robot's usual damage where it was left out."""
    from mbmrl import conditions

    onset = ONSET * seconds
    if not texts:
        return conditions.starting(conditions.usual(cls()), onset)
    if "none" in texts:
        if len(texts) > 1:
            raise UsageError("--perturb none excludes every other --perturb")
        return ()
    condition = tuple(conditions.parse(text, onset) for text in texts)
    for p in condition:
        if p.onset >= seconds:
            raise UsageError(f"{p.name} begins at {p.onset:g} s: the end is at {seconds:g} s")
    return condition


def _paths(cls: type[Robot], wanted: tuple[str, ...] | None, count: int) -> tuple[str, ...]:
    """Names of what to follow, so many where nothing is wanted; an empty one for no choice."""
    from mbmrl import tasks

    known = tasks.COURSES[cls.task]
    if wanted and not known:
        raise UsageError(f"{cls.spec.name} follows no path")
    for name in wanted or ():
        if name not in known:
            raise registry.unknown("path", name, known)
    return wanted or tasks.usual(cls.task, count)


def _load_robot(name: str, seconds: float) -> type[Robot]:
    """The class of a robot that is to be driven for so long."""
    cls: type[Robot] = registry.load("robots", name)
    if seconds < cls.spec.dt:
        raise UsageError(
            f"--seconds {seconds:g} is less than one control period of {cls.spec.dt} s"
        )
    return cls


def _load_simulated(name: str, seconds: float) -> type[SimRobot]:
    """The same of one that can be driven as fast as it goes."""
    from robots.sim import SimRobot

    cls = _load_robot(name, seconds)
    if not issubclass(cls, SimRobot):
        raise UsageError(f"{name} is not simulated: only `mbmrl run` can drive it")
    return cls


def _evaluated(what: Evaluation, jobs: int, rows: list[Row]) -> Iterator[None]:
    """Drive what ``rows`` does not hold yet, under a bar; stop each time there are more of them."""
    from rich.progress import Progress

    from mbmrl.evaluate import evaluated, left

    done = tuple(rows)
    with Progress(transient=True) as progress:
        bar = progress.add_task("driving", total=left(what, done))
        for some in evaluated(what, jobs=jobs, watch=lambda n: progress.advance(bar, n), done=done):
            rows += some
            yield


def _split(text: str) -> tuple[str, ...]:
    """Names with commas between them, each once."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise UsageError(f"{text!r} names nothing")
    return found


def _check_numbers(*, seed: int, **positive: float | None) -> None:
    """Refuse what no run can be made of."""
    if not 0 <= seed < 2**32:
        raise UsageError(f"--seed is between 0 and 2**32 - 1, not {seed}")
    for name, value in positive.items():
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"--{name} is a positive number, not {value}")


def _beside(where: Path) -> Path:
    """The folder that it is, or that it lies in."""
    return where if where.is_dir() else where.parent


def _check_file(file: Path | None, flag: str = "--json") -> None:
    """Refuse now what could not be written in the end."""
    if file and not file.absolute().parent.is_dir():
        raise UsageError(f"{flag} {file}: there is no folder {file.absolute().parent}")


def _write(file: Path, text: str) -> None:
    """The whole file or none of it."""
    part = file.with_name(f".{file.name}.part")
    part.write_text(text)
    os.replace(part, file)


def _print(table: object) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 120).print(table)  # a file has room


def _end(message: str, status: int) -> int:
    print(f"mbmrl: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
