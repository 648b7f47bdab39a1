"""More gravity, or less: another planet, a lift that starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import mujoco
import numpy as np

from robots.perturbations.base import Magnitude, Perturbation, Split, heavy, in_range, subtree

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot


SCALE = Magnitude(mild=(1.1, 1.4), test=(1.5, 1.7), harsh=(1.8, 2.0))


@dataclass(frozen=True, kw_only=True)
class Gravity(Perturbation):
    """Gravity is scaled; inertia is not, which tells it from a payload.

    Attributes:
        scale: of the nominal gravity.
    """

    name: ClassVar[str] = "gravity"
    magnitudes: ClassVar[Mapping[str, float]] = {"scale": 1.0}

    scale: float

    def check(self, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        in_range("scale", self.scale, 0.0, 3.0)
        heavy(robot)

    def apply(self, model: mujoco.MjModel, robot: SimRobot) -> None:
        """What floats on springs of its own, not on the robot, is held up by gravity as well."""
        model.opt.gravity *= self.scale
        own = np.isin(model.jnt_bodyid, subtree(model, robot.torso))
        model.jnt_stiffness[(model.body_gravcomp[model.jnt_bodyid] > 0) & ~own] *= self.scale

    @classmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """A :data:`SCALE`."""
        return cls(scale=round(SCALE.draw(rng, split), 3))
