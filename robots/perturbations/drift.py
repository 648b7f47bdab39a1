"""Wear: something that gets worse and worse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from robots.perturbations.backlash import Backlash
from robots.perturbations.base import (
    Magnitude,
    Perturbation,
    PerturbationError,
    Split,
    in_range,
)
from robots.perturbations.friction import Friction
from robots.perturbations.miscalibration import Miscalibration
from robots.perturbations.motor_strength import MotorStrength

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot


OVER = Magnitude(mild=(1.0, 3.0), test=(4.0, 6.0), harsh=(8.0, 10.0))  # [s]
WEARS: dict[str, type[Perturbation]] = {
    kind.name: kind for kind in (Backlash, Friction, Miscalibration, MotorStrength)
}


@dataclass(frozen=True, kw_only=True)
class Drift(Perturbation):
    """Wear: weaker motors, less friction, more play or offset, growing all over the robot.

    Any other kind that has a magnitude grows as slowly when it is given a ramp of its own.

    Attributes:
        kind: what grows, one of :data:`WEARS`.
        to: its magnitude in the end.
        ramp: how long that takes [s].
    """

    name: ClassVar[str] = "drift"

    kind: str
    to: float
    ramp: float = 10.0

    def __post_init__(self) -> None:
        """See :class:`Perturbation`."""
        super().__post_init__()
        if self.kind not in WEARS:
            raise PerturbationError(
                f"kind {self.kind!r} is not one of {', '.join(WEARS)}:"
                " give any other kind ramp=SECONDS itself, and it grows as slowly"
            )

    @property
    def can_grow(self) -> bool:
        """It does nothing else."""
        return True

    def grown(self, share: float) -> Perturbation:
        """So much of its kind."""
        return self._whole().grown(share)

    def at(self, time: float) -> Perturbation:
        """See :class:`Perturbation`."""
        return self._whole().at(time)

    def check(self, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        in_range("ramp [s]", self.ramp, 0.1, 1e5)
        self._whole().check(robot)

    @classmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """A kind that the robot allows, its magnitude as for the kind itself, over :data:`OVER`."""
        kind = WEARS[str(rng.choice([name for name in WEARS if _allowed(robot, name)]))]
        (magnitude,) = kind.magnitudes
        to = getattr(kind.sample(robot, rng, split), magnitude)
        return cls(kind=kind.name, to=to, ramp=round(OVER.draw(rng, split), 1))

    def _whole(self) -> Perturbation:
        """The kind in the end."""
        kind = WEARS[self.kind]
        (magnitude,) = kind.magnitudes
        values = {magnitude: self.to, "onset": self.onset, "until": self.until, "ramp": self.ramp}
        return kind(**values)


def _allowed(robot: SimRobot, name: str) -> bool:
    try:
        WEARS[name].sample(robot, np.random.default_rng(0), "train").check(robot)
    except PerturbationError:
        return False
    return True
