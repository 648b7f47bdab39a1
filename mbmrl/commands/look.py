"""What there is, and pictures of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from tyro.conf import Positional, UseAppendAction, arg

from mbmrl.commands.common import (
    Seconds,
    Seed,
    UsageError,
    check_file,
    check_numbers,
    condition,
    courses,
    load_simulated,
    show,
)

if TYPE_CHECKING:
    from mbmrl import log
    from mbmrl.conditions import Condition
    from robots.sim import SimRobot


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
            show(about.listing(what))


@dataclass(frozen=True)
class Info:
    """Show versions, processor, rendering and shipped checkpoints: what a bug report needs.

    For example:

      mbmrl info
    """

    def __call__(self) -> None:
        """Show them."""
        from mbmrl import about

        show(about.machine())
        show(about.listing("checkpoints"))


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
class Render:
    """Draw a robot, or recorded runs side by side: a picture (.png) or a film (.mp4).

    Of a robot by its name, a picture shows it at rest and a film shows it babbling, unless told
    otherwise; a --perturb without onset=SECONDS acts from the start, and in a picture all do. Of
    folders that `mbmrl run` wrote, a picture shows where the run ends; in a film, runs of the same
    robot under the same perturbations go side by side. No display is needed, but OpenGL is (EGL or
    OSMesa).

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
        check_numbers(seconds=self.seconds, seed=self.seed)
        check_file(self.out, "--out")
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
        cls = load_simulated(self.robot, self.seconds) if self.robot else None
        happens = self._condition(cls, film) if cls else ()
        scene.backend()  # where there is none, it is known now
        if cls:
            runs = [self._driven(cls, happens, self.agent or ("babble" if film else "zero"))]
        if film:
            video.render(runs, self.out)
        else:
            video.picture(runs[0], self.out)
        print(f"Drawn to {self.out}")

    def _condition(self, cls: type[SimRobot], film: bool) -> Condition:
        """What ``--perturb`` asks for, from the start: in a picture all of it, and to the end."""
        texts = [_from_the_start(text) for text in self.perturb] or ["none"]
        asked = condition(cls, texts, self.seconds if film else math.inf)
        return asked if film else tuple(replace(p, onset=0.0, until=math.inf) for p in asked)

    def _driven(self, cls: type[SimRobot], happens: Condition, agent: str) -> log.Run:
        """The robot, driven for the purpose."""
        import torch

        from mbmrl.compose import checkpoint_for, make_agent
        from mbmrl.drive import Drive

        torch.set_num_threads(1)
        robot = cls(happens, self.seed)
        (path,) = courses(cls, None, 1)
        checkpoint = checkpoint_for(agent, robot.spec, None)
        driver = make_agent(agent, [robot], checkpoint, [path], seed=self.seed)
        drive = Drive(robot, driver, real_time=False)
        drive.run(self.seconds)
        return drive.recorded(robot=self.robot or "", agent=agent, path=path, seed=self.seed)


def _from_the_start(text: str) -> str:
    """A ``--perturb`` that begins at once where it does not say when."""
    name, _, rest = text.partition(":")
    return text if text == "none" or "onset=" in rest else f"{name}:onset=0,{rest}"
