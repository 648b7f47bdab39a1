"""A slippery floor, slippery patches on it, or slippery feet on one side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import mujoco
import numpy as np

from robots.perturbations.base import (
    Box,
    Magnitude,
    Perturbation,
    Split,
    floors,
    in_range,
    legs_on,
    on_the_floor,
    one_of,
    sides,
    subtree,
    swap_side,
    touching,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot


ICE = (0.55, 0.8, 1.0, 0.45)  # the colour of slippery squares
DRAWN = 8  # squares each way
THICK = 0.0002  # [m]
LEFT = Magnitude(mild=(0.25, 0.8), test=(0.08, 0.2), harsh=(0.02, 0.06))
LEAST = 1e-3
"""At a tenth of it, MuJoCo's contacts begin to diverge."""


@dataclass(frozen=True, kw_only=True)
class Friction(Perturbation):
    """Friction is scaled: under every contact, under the feet of one side, or on patches.

    Patches are the squares of one colour of a chequerboard; they need a floor to lie on.

    Attributes:
        scale: friction left, of the nominal one; at least :data:`LEAST`.
        side: ``both``: under every contact, not only under the legs of one side.
        patch: side of the squares [m]; 0: it is everywhere.
    """

    name: ClassVar[str] = "friction"
    magnitudes: ClassVar[Mapping[str, float]] = {"scale": 1.0}

    scale: float
    side: str = "both"
    patch: float = 0.0

    def check(self, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        in_range("scale", self.scale, LEAST, 10.0)
        one_of("side", self.side, sides(robot))
        in_range("patch [m]", self.patch, 0.0, 100.0)
        touching(robot)
        if self.patch:
            on_the_floor(robot)

    @property
    def changing(self) -> bool:
        """On patches."""
        return self.patch > 0

    def apply(self, model: mujoco.MjModel, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        if self.side == "both" and not self.patch:
            model.geom_friction *= self.scale
            return
        slippery = np.ones(model.ngeom, bool)
        if self.side != "both":
            limbs = [subtree(model, robot.legs[leg].body) for leg in legs_on(robot, self.side)]
            slippery = np.isin(model.geom_bodyid, np.concatenate(limbs))
        if self.patch:
            squares = np.floor(robot.data.geom_xpos[:, :2] / self.patch).sum(1)
            slippery &= squares % 2 == 0
        if floor := floors(model):
            # A contact has the larger friction of the two, unless one has priority: all of it
            # goes to the robot's side, so that it is the robot's to lose.
            felt = model.geom_priority <= model.geom_priority[floor].max()
            model.geom_friction[felt] = np.maximum(
                model.geom_friction[felt], model.geom_friction[floor].max(0)
            )
            slippery[floor] = True
        model.geom_friction[slippery] *= self.scale

    @classmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """A scale of :data:`LEFT` and a side."""
        return cls(scale=round(LEFT.draw(rng, split), 3), side=str(rng.choice(sides(robot))))

    def boxes(self, x: float, y: float) -> list[Box]:
        """The slippery squares near the robot."""
        if not self.patch:
            return []
        size = (self.patch / 2, self.patch / 2, THICK)
        steps = range(-DRAWN, DRAWN + 1)
        squares = [(x // self.patch + i, y // self.patch + j) for i in steps for j in steps]
        return [
            Box(((column + 0.5) * self.patch, (row + 0.5) * self.patch, 0.0), size, ICE)
            for column, row in squares
            if (column + row) % 2 == 0
        ]

    def mirrored(self, robot: SimRobot) -> Self:
        """See :class:`Perturbation`."""
        return replace(self, side=swap_side(self.side))
