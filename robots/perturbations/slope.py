"""A floor that tilts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import mujoco
import numpy as np

from robots.perturbations.base import (
    Magnitude,
    Perturbation,
    Split,
    in_its_plane,
    in_range,
    on_the_floor,
    sideless,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot


ANGLE = Magnitude(mild=(0.03, 0.14), test=(0.17, 0.25), harsh=(0.28, 0.35))  # [rad]


@dataclass(frozen=True, kw_only=True)
class Slope(Perturbation):
    """The floor tilts: gravity turns, the floor's coordinates stay.

    Roll and pitch are measured against the floor, not against gravity as an accelerometer would.

    Attributes:
        angle: of the slope [rad].
        direction: the way down, from the world's x axis [rad].
    """

    name: ClassVar[str] = "slope"
    magnitudes: ClassVar[Mapping[str, float]] = {"angle": 0.0}

    angle: float
    direction: float = 0.0

    def check(self, robot: SimRobot) -> None:
        """See :class:`Perturbation`; angles beyond 0.6 rad are refused, degrees most of all."""
        in_range("angle [rad]", self.angle, 0.0, 0.6)
        in_range("direction [rad]", self.direction, -2 * math.pi, 2 * math.pi)
        on_the_floor(robot)
        in_its_plane(robot, self.direction)

    def apply(self, model: mujoco.MjModel, robot: SimRobot) -> None:
        """Rotate gravity by ``angle`` about the horizontal axis across the way down."""
        axis = np.array([-math.sin(self.direction), math.cos(self.direction), 0.0])
        quat, turned = np.empty(4), np.empty(3)
        mujoco.mju_axisAngle2Quat(quat, axis, -self.angle)
        mujoco.mju_rotVecQuat(turned, model.opt.gravity, quat)
        model.opt.gravity = turned

    @classmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """An :data:`ANGLE`; any direction on robots with sides, up or down on others."""
        angle = round(ANGLE.draw(rng, split), 3)
        ways = [0.0, math.pi]
        direction = rng.choice(ways) if sideless(robot) else rng.uniform(-math.pi, math.pi)
        return cls(angle=angle, direction=round(float(direction), 3))

    def mirrored(self, robot: SimRobot) -> Self:
        """See :class:`Perturbation`."""
        return replace(self, direction=-self.direction)
