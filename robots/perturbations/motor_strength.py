"""Weak motors: a tired battery, a cold gearbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import mujoco
import numpy as np

from robots.perturbations.base import (
    Magnitude,
    Perturbation,
    Split,
    driven,
    in_range,
    legs_on,
    one_of,
    scale_actuator,
    sides,
    swap_side,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot


LEFT = Magnitude(mild=(0.35, 0.8), test=(0.15, 0.3), harsh=(0.03, 0.11))


@dataclass(frozen=True, kw_only=True)
class MotorStrength(Perturbation):
    """Every motor of a side, or of the robot, gives less force.

    Attributes:
        scale: force left, of the nominal one.
        side: which legs' motors.
    """

    name: ClassVar[str] = "motor_strength"
    magnitudes: ClassVar[Mapping[str, float]] = {"scale": 1.0}

    scale: float
    side: str = "both"

    def check(self, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        in_range("scale", self.scale, 0.0, 2.0)
        one_of("side", self.side, sides(robot))
        driven(robot)

    def apply(self, model: mujoco.MjModel, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        for leg in legs_on(robot, self.side):
            for joint in robot.legs[leg].joints:
                scale_actuator(model, joint, self.scale)

    @classmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """A scale of :data:`LEFT` and a side."""
        return cls(scale=round(LEFT.draw(rng, split), 3), side=str(rng.choice(sides(robot))))

    def mirrored(self, robot: SimRobot) -> Self:
        """See :class:`Perturbation`."""
        return replace(self, side=swap_side(self.side))
