"""Make a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from mbmrl import registry
from mbmrl.commands.common import Seed, check_numbers, split


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
      mbmrl train --robot ant --out runs/ensemble --members 4
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
    members: Annotated[
        int | None,
        arg(
            metavar="K",
            help="Members of each learner, trained together as an ensemble, for nearly K times the "
            "time of fitting; when left out, one.",
        ),
    ] = None
    network: Annotated[
        Literal["mlp", "graph"] | None,
        arg(
            help="A plain network, or one that passes messages along the links that the robot's "
            "spec names; when left out, the plain one.",
        ),
    ] = None

    def __call__(self) -> None:
        """Train."""
        check_numbers(minutes=self.minutes, seed=self.seed, members=self.members)
        from mbmrl import recording
        from mbmrl.train import train, train_from

        there = (self.out / "config.json").is_file()
        adapters = split(self.adapter)
        if adapters == ("all",):
            every = {a: registry.load("adapters", a) for a in registry.names("adapters")}
            adapters = tuple(a for a, c in every.items() if a != "none" and not c.trained_as)
        elif adapters == ("default",):
            adapters = ()
        how = (self.minutes, self.seed, adapters, self.members, self.network)
        if self.data:
            out = train_from(self.data, self.out, self.robot, *how)
            robot = self.robot or recording.load_all(self.data)[0].robot
        else:
            robot = self.robot or "hexapod"
            out = train(robot, self.out, *how)
        lies = "was there already, in" if there else "lies in"
        print(f"The checkpoint {lies} {out}: try `mbmrl run --robot {robot} --checkpoint {out}`")
