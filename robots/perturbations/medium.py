"""A medium that carries, drags and flows: water, oil, mud."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import mujoco
import numpy as np
from jaxtyping import Float

from robots.perturbations.base import (
    Box,
    Magnitude,
    Perturbation,
    PerturbationError,
    Split,
    in_range,
    planar,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot


CARRIED = Magnitude(mild=(0.1, 0.4), test=(0.5, 0.65), harsh=(0.75, 0.85))  # of the weight
SLOWED = Magnitude(mild=(0.2, 1.0), test=(1.5, 2.5), harsh=(3.5, 4.5))  # by viscosity [1/s]
FLOW = Magnitude(mild=(0.1, 0.4), test=(0.5, 0.7), harsh=(0.9, 1.2))  # [m/s]
WATER = (0.2, 0.5, 0.8, 0.25)  # its colour
DRAWN = 5.0  # half of how far it is drawn [m]


@dataclass(frozen=True, kw_only=True)
class Medium(Perturbation):
    """A medium on top of the one that the robot lives in, everywhere or below a level.

    Each body is the box that has its mass and its inertia, as in MuJoCo's own fluid model, which
    gives the drag: ½ density · area · speed², and viscosity · 3π · mean side · speed. The medium
    carries the weight of what the box displaces, at the body's centre of mass. Below a level it
    carries the part of the box's height that is under water, and the drag of every body shrinks
    with the part of the whole robot that is.

    Attributes:
        density: added [kg/m³].
        viscosity: added [Pa·s].
        current: how fast it flows [m/s].
        direction: the way it flows, from the world's x axis [rad].
        level: how high it stands [m].
    """

    name: ClassVar[str] = "medium"
    magnitudes: ClassVar[Mapping[str, float]] = {"density": 0.0, "viscosity": 0.0, "current": 0.0}

    density: float = 0.0
    viscosity: float = 0.0
    current: float = 0.0
    direction: float = 0.0
    level: float = math.inf

    def check(self, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        in_range("density [kg/m³]", self.density, 0.0, 2e4)
        in_range("viscosity [Pa·s]", self.viscosity, 0.0, 1e3)
        in_range("current [m/s]", self.current, 0.0, 20.0)
        in_range("direction [rad]", self.direction, -2 * math.pi, 2 * math.pi)
        in_range("level [m]", self.level, -math.inf, math.inf)
        own = robot.nominal.opt
        if not (self.density or self.viscosity or own.density or own.viscosity):
            raise PerturbationError("a medium needs a density= or a viscosity=")

    @property
    def changing(self) -> bool:
        """Where the robot can leave it."""
        return self.level < math.inf

    def apply(self, model: mujoco.MjModel, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        sides = _boxes(robot)
        volume = sides.prod(1)
        under = self._under(sides, robot)
        share = float(under @ volume / volume.sum())
        model.opt.density += share * self.density
        model.opt.viscosity += share * self.viscosity
        flow = self.current * np.array([math.cos(self.direction), math.sin(self.direction), 0.0])
        model.opt.wind += flow
        carried = under * volume * self.density
        heavy = model.body_mass > 0
        model.body_gravcomp[heavy] += carried[heavy] / model.body_mass[heavy]

    def _under(self, sides: Float[np.ndarray, "b 3"], robot: SimRobot) -> Float[np.ndarray, " b"]:
        """Part of each body's height that is below the level."""
        if self.level == math.inf:
            return np.ones(len(sides))
        up = robot.data.ximat[:, 6:]
        height = np.maximum((np.abs(up) * sides).sum(1), 1e-9)
        bottom = robot.data.xipos[:, 2] - height / 2
        return np.clip((self.level - bottom) / height, 0.0, 1.0)

    @classmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """One that carries part of the weight, that slows down, or that flows past."""
        mass, volume = float(robot.nominal.body_mass.sum()), float(_boxes(robot).prod(1).sum())
        thick = mass / (3 * math.pi * float(_boxes(robot).mean(1).sum()))
        what = rng.integers(3)
        density = viscosity = current = direction = 0.0
        if what == 0 or not robot.nominal.opt.density:
            density = CARRIED.draw(rng, split) * mass / volume
        if what == 1:
            viscosity = SLOWED.draw(rng, split) * thick
        if what == 2:
            current = FLOW.draw(rng, split)
            ways = [0.0, math.pi]
            direction = rng.choice(ways) if planar(robot) else rng.uniform(-math.pi, math.pi)
        return cls(
            density=float(f"{density:.3g}"),
            viscosity=float(f"{viscosity:.3g}"),
            current=round(current, 3),
            direction=round(float(direction), 3),
        )

    def mirrored(self, robot: SimRobot) -> Self:
        """See :class:`Perturbation`."""
        return replace(self, direction=-self.direction)

    def boxes(self, x: float, y: float) -> list[Box]:
        """The water, where it has a surface."""
        if self.level == math.inf:
            return []
        return [Box((x, y, self.level / 2), (DRAWN, DRAWN, self.level / 2), WATER)]


def _boxes(robot: SimRobot) -> Float[np.ndarray, "b 3"]:
    """Sides [m] of the box that has each nominal body's mass and inertia."""
    mass, inertia = robot.nominal.body_mass[:, None], robot.nominal.body_inertia
    squares = 6 * np.maximum(inertia.sum(1, keepdims=True) - 2 * inertia, 0.0)
    return np.sqrt(np.divide(squares, mass, out=np.zeros_like(squares), where=mass > 0))
