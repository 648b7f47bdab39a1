"""Recordings: made, shown, doubted, brought in and out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from mbmrl.commands.common import (
    CheckpointDir,
    Findings,
    RobotName,
    Seconds,
    Seed,
    UsageError,
    check_numbers,
    check_times,
    driving,
    load_robot,
    loading,
    show,
)

if TYPE_CHECKING:
    from robots.base import Robot


MOST_GAPS = 10
"""Gaps that `mbmrl data` lists."""


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
        check_numbers(seconds=self.seconds, seed=self.seed, episodes=self.episodes)
        if not 0 < self.share <= 1:
            raise UsageError(f"--share is above 0 and at most 1, not {self.share}")
        import torch
        from rich.progress import Progress

        from mbmrl import conditions, record, recording
        from robots.sim import SimRobot

        torch.set_num_threads(1)
        cls = load_robot(self.robot, self.seconds)
        simulated = issubclass(cls, SimRobot)
        robot: Robot
        if issubclass(cls, SimRobot):
            parts = self.condition.split(" + ") if self.condition not in ("", "none") else []
            happens = tuple(conditions.parse(p) for p in parts)
            check_times(happens, self.seconds)
            robot = cls(happens, self.seed)
        else:
            with loading(self.robot):
                robot = cls()
        # another start, and other noise, for every call that goes on
        seed = self.seed + len(recording.files(self.out))
        agent = record.policy(self.policy, robot, self.checkpoint, seed)
        with Progress(transient=True) as progress:
            total = self.episodes * round(self.seconds / robot.spec.dt)
            bar = progress.add_task("recording", total=total)
            with driving(self.robot, cls):
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
            show(table)
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
        check_numbers(seed=0, horizon=self.horizon)
        import torch

        from mbmrl import checkpoint, foresight, recording

        torch.set_num_threads(1)
        found = recording.load_all(self.where)
        model = checkpoint.for_robot(found[0].spec, self.checkpoint)
        planned = foresight.planned(model.spec)
        horizon = self.horizon or planned
        chosen = foresight.places(found, model.window, horizon)
        foreseen = foresight.foresee(model, chosen, horizon)
        show(foresight.table(foreseen))
        picture = self.png or _beside(self.where) / "check.png"
        foresight.plot(model, found, foreseen, picture)
        print(f"Drawn to {picture}")
        print(foresight.verdict(foreseen, planned))
        if foreseen.horizon() == 0:
            raise Findings(f"the model in {self.checkpoint} foresees nothing")


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
            if not self.where.exists():
                raise UsageError(f"{self.where} does not exist")
            mapping = bags.load_mapping(self.mapping or self.where / "mapping.yaml")
            samples = bags.read(self.where, mapping.sources)
            for name, found in samples.items():
                if found.back:
                    print(f"{name}: {found.back} samples that go back in time are left out")
            made = [bags.resample(mapping, samples)]
        recording.beside(self.out, made[0].spec)  # refuses what would make the folder unreadable
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
        some = recording.files(self.where)
        if some and not (self.where / "run.json").is_file():
            raise UsageError(f"{self.where} is a folder of recordings: name one, as {some[0]}")
        found = logs.of_run(log.load(self.where)) if run else recording.load(self.where)
        bags.write(found, self.out, self.storage)
        print(f"Written to {self.out}")


def _beside(where: Path) -> Path:
    """The folder that it is, or that it lies in."""
    return where if where.is_dir() else where.parent
