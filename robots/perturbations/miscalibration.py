"""Servos mounted a few teeth off, or motors with a bias."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from robots.perturbations.base import (
    Magnitude,
    Perturbation,
    Split,
    actuators,
    driven,
    in_range,
    one_of,
    servo_range,
)
from robots.perturbations.damaged_leg import mirror_leg

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot


OFFSET = Magnitude(mild=(0.02, 0.08), test=(0.1, 0.15), harsh=(0.2, 0.25))


@dataclass(frozen=True, kw_only=True)
class Miscalibration(Perturbation):
    """The commands to a leg are off by a constant.

    Attributes:
        offset: of the range of each command; either way.
        leg: whose, or ``all``.
    """

    name: ClassVar[str] = "miscalibration"
    magnitudes: ClassVar[Mapping[str, float]] = {"offset": 0.0}

    offset: float
    leg: str = "all"

    def check(self, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        in_range("offset", self.offset, -1.0, 1.0)
        one_of("leg", self.leg, ["all", *robot.legs])
        driven(robot)
        servo_range(robot)

    def actuator_memory(self, robot: SimRobot) -> Float[np.ndarray, " c"]:
        """The range of each actuator that is off; 0 for the others."""
        joints = driven(robot) if self.leg == "all" else robot.legs[self.leg].joints
        off = [a for joint in joints for a in actuators(robot.nominal, joint)]
        spans = servo_range(robot)
        return np.where(np.isin(np.arange(spans.size), off), spans, 0.0)

    def actuate(
        self, memory: Float[np.ndarray, "n c"], ctrl: Float[np.ndarray, "n s a"]
    ) -> tuple[Float[np.ndarray, "n s a"], Float[np.ndarray, "n c"]]:
        """See :class:`Perturbation`."""
        return ctrl + self.offset * memory[:, None], memory

    @classmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """An :data:`OFFSET` of either sign, of one leg or of all."""
        offset = rng.choice([-1.0, 1.0]) * round(OFFSET.draw(rng, split), 3)
        return cls(offset=float(offset), leg=str(rng.choice(["all", *robot.legs])))

    def mirrored(self, robot: SimRobot) -> Self:
        """See :class:`Perturbation`."""
        return self if self.leg == "all" else replace(self, leg=mirror_leg(robot, self.leg))
