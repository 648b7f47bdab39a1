"""A slippery floor, or slippery feet on one side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import mujoco
import numpy as np

from robots.perturbations.base import (
    Magnitude,
    Perturbation,
    Split,
    in_range,
    legs_on,
    one_of,
    sides,
    subtree,
    swap_side,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot


LEFT = Magnitude(mild=(0.25, 0.8), test=(0.08, 0.2), harsh=(0.02, 0.06))


@dataclass(frozen=True, kw_only=True)
class Friction(Perturbation):
    """Friction is scaled, under every contact or under the feet of one side.

    Attributes:
        scale: friction left, of the nominal one.
        side: ``both`` scales every geom, the floor too.
    """

    name: ClassVar[str] = "friction"

    scale: float
    side: str = "both"

    def check(self, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        in_range("scale", self.scale, 0.0, 10.0)
        one_of("side", self.side, sides(robot))

    def apply(self, model: mujoco.MjModel, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        if self.side == "both":
            model.geom_friction *= self.scale
            return
        for leg in legs_on(robot, self.side):
            bodies = subtree(model, robot.legs[leg].body)
            model.geom_friction[np.isin(model.geom_bodyid, bodies)] *= self.scale

    @classmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """A scale of :data:`LEFT` and a side."""
        return cls(scale=round(LEFT.draw(rng, split), 3), side=rng.choice(sides(robot)))

    def mirrored(self, robot: SimRobot) -> Self:
        """See :class:`Perturbation`."""
        return replace(self, side=swap_side(self.side))
