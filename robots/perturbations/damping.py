"""Joints that turn less easily: rust, cold grease, a cable in the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import mujoco
import numpy as np

from robots.perturbations.base import (
    Magnitude,
    Perturbation,
    PerturbationError,
    Split,
    driven,
    in_range,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot


RATE = Magnitude(mild=(5.0, 30.0), test=(40.0, 60.0), harsh=(80.0, 200.0))  # [1/s]
SPRING = Magnitude(mild=(50.0, 200.0), test=(300.0, 500.0), harsh=(700.0, 1000.0))  # [1/s²]


@dataclass(frozen=True, kw_only=True)
class Damping(Perturbation):
    """Every driven joint is damped, or pulled back to its middle, more than it was.

    Both are given for the inertia that the joint moves, so that one number means the same on a
    heavy joint and on a light one, damped before or not.

    Attributes:
        rate: at which a free joint would lose its speed [1/s]: damping over inertia.
        spring: squared angular frequency at which it would swing [1/s²]: stiffness over inertia.
    """

    name: ClassVar[str] = "damping"
    magnitudes: ClassVar[Mapping[str, float]] = {"rate": 0.0, "spring": 0.0}

    rate: float = 0.0
    spring: float = 0.0

    def check(self, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        in_range("rate [1/s]", self.rate, 0.0, 1e3)
        in_range("spring [1/s²]", self.spring, 0.0, 1e4)
        driven(robot)
        if not (self.rate or self.spring):
            raise PerturbationError("damping needs a rate= or a spring=")

    def apply(self, model: mujoco.MjModel, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        for joint in driven(robot):
            there = model.joint(joint)
            body = there.bodyid[0]
            if model.body_mass[body] < robot.nominal.body_mass[body]:
                continue  # of a leg that is missing
            inertia = 1 / robot.nominal.dof_invweight0[there.dofadr]
            there.damping += self.rate * inertia
            there.stiffness += self.spring * inertia

    @classmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """A :data:`RATE` or a :data:`SPRING`."""
        if rng.random() < 0.5:
            return cls(rate=round(RATE.draw(rng, split), 3))
        return cls(spring=round(SPRING.draw(rng, split), 3))
