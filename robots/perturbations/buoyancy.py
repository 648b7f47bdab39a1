"""A medium that carries part of the weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import mujoco
import numpy as np

from robots.perturbations.base import Magnitude, Perturbation, Split, heavy, in_range

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot


CARRIED = Magnitude(mild=(0.1, 0.5), test=(0.6, 0.75), harsh=(0.82, 0.9))


@dataclass(frozen=True, kw_only=True)
class Buoyancy(Perturbation):
    """Part of the whole robot's weight is carried.

    Attributes:
        gravcomp: the part, 0 (dry) to 1 (neutrally buoyant).
    """

    name: ClassVar[str] = "buoyancy"
    magnitudes: ClassVar[Mapping[str, float]] = {"gravcomp": 0.0}

    gravcomp: float

    def check(self, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        in_range("gravcomp", self.gravcomp, 0.0, 1.0)
        heavy(robot)

    def apply(self, model: mujoco.MjModel, robot: SimRobot) -> None:
        """Carrying the same part of every body is the same as that much less gravity."""
        model.opt.gravity *= 1.0 - self.gravcomp

    @classmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """A part of :data:`CARRIED`."""
        return cls(gravcomp=round(CARRIED.draw(rng, split), 3))
