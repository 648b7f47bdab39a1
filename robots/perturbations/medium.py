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
    NO_DRAG,
    Box,
    Magnitude,
    Perturbation,
    PerturbationError,
    Split,
    in_its_plane,
    in_range,
    reach,
    sideless,
    subtree,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot


CARRIED = Magnitude(mild=(0.1, 0.4), test=(0.5, 0.65), harsh=(0.75, 0.85))  # of its density
SLOWED = Magnitude(mild=(0.2, 1.0), test=(1.5, 2.5), harsh=(3.5, 4.5))  # by viscosity [1/s]
FLOW = Magnitude(mild=(0.3, 1.0), test=(1.3, 1.8), harsh=(2.2, 3.0))  # of its reach a second
STREAM = Magnitude(mild=(0.1, 0.3), test=(0.4, 0.55), harsh=(0.65, 0.8))  # of a swimmer's speed
FILL = {int(mujoco.mjtGeom.mjGEOM_BOX): 1.0, int(mujoco.mjtGeom.mjGEOM_CYLINDER): math.pi / 4}
"""Part of the box around it that a geom fills, where that is not an ellipsoid's."""
WATER = (0.2, 0.5, 0.8, 0.25)  # its colour
DRAWN = 5.0  # half of how far it is drawn [m]
FILM = 0.002  # how thick [m]


@dataclass(frozen=True, kw_only=True)
class Medium(Perturbation):
    """A medium on top of the one that the robot lives in, everywhere or below a level.

    It carries of each body the weight of what its visible geoms displace. Drag is that of MuJoCo's
    fluid model, which takes a body for the box that has its mass and inertia: ½ density · area ·
    speed², and 3π · viscosity · mean side · speed. Below a level it carries the part of each geom's
    height that is under water, and all drag shrinks to the part of the robot's volume that is. What
    is carried acts at a body's centre of mass: a body that is half in the water does not right
    itself.

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
        """See :class:`Perturbation`; drag beyond these ranges makes light limbs diverge."""
        in_range("density [kg/m³]", self.density, 0.0, 5e3)
        in_range("viscosity [Pa·s]", self.viscosity, 0.0, 50.0)
        in_range("current [m/s]", self.current, 0.0, 5.0)
        in_range("direction [rad]", self.direction, -2 * math.pi, 2 * math.pi)
        in_its_plane(robot, self.direction)
        in_range("level [m]", self.level, -math.inf, math.inf)
        own = robot.nominal.opt
        if not (self.density or self.viscosity or own.density or own.viscosity):
            raise PerturbationError("a medium needs a density= or a viscosity=")
        if not _displacing(robot).any():
            raise PerturbationError(f"{robot.spec.name} has no visible geom to displace a medium")

    @property
    def changing(self) -> bool:
        """Where the robot can leave it."""
        return self.level < math.inf

    def apply(self, model: mujoco.MjModel, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        volume = _displacing(robot)
        wet = volume * self._under(robot)
        share = float(wet.sum() / volume.sum())
        model.opt.density += share * self.density
        model.opt.viscosity += share * self.viscosity
        model.opt.wind += self.current * np.array(
            [math.cos(self.direction), math.sin(self.direction), 0.0]
        )
        displaced = np.bincount(model.geom_bodyid, wet, model.nbody)
        # A payload displaces nothing; a missing leg as little as it weighs, and it does not drag.
        model.body_inertia[model.body_mass < robot.nominal.body_mass] *= NO_DRAG
        mass = np.maximum(model.body_mass, robot.nominal.body_mass)
        model.body_gravcomp += self.density * displaced / np.maximum(mass, 1e-9)

    def _under(self, robot: SimRobot) -> Float[np.ndarray, " g"]:
        """Part of each geom's height that is below the level."""
        if self.level == math.inf:
            return np.ones(robot.nominal.ngeom)
        up = robot.data.geom_xmat[:, 6:]
        half = np.maximum((np.abs(up) * robot.nominal.geom_aabb[:, 3:]).sum(1), 1e-9)
        bottom = robot.data.geom_xpos[:, 2] - half
        return np.clip((self.level - bottom) / (2 * half), 0.0, 1.0)

    def arrow(self, time: float) -> tuple[float, float] | None:
        """See :class:`Perturbation`."""
        return (self.direction, 1.0) if self.current else None

    @classmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """One that carries part of the weight, and may be thick or flow.

        Where the robot has a medium of its own, that one grows denser, or thicker, or flows no
        faster than the robot swims. Denser it does not grow where it carries just what the robot
        weighs: that would shoot up like a cork. Invisible geoms count here alone: who has some
        is carried less than :data:`CARRIED` says.
        """
        own, mass = robot.nominal.opt.density, float(robot.nominal.body(robot.torso).subtreemass[0])
        heavy = own or mass / float(_volumes(robot).sum())
        thick = mass / (6 * math.pi * float(_halves(robot).mean(1).sum()))
        what = rng.integers(1 if robot.nominal.body_gravcomp.any() and own else 0, 3)
        density = viscosity = current = direction = 0.0
        if what == 0 or not own:
            density = CARRIED.draw(rng, split) * heavy
        if what == 1:
            viscosity = SLOWED.draw(rng, split) * thick
        if what == 2:
            if own and robot.speed:
                current = STREAM.draw(rng, split) * robot.speed
            else:
                current = FLOW.draw(rng, split) * reach(type(robot))
            ways = [0.0, math.pi]
            direction = rng.choice(ways) if sideless(robot) else rng.uniform(-math.pi, math.pi)
        return cls(
            density=float(f"{density:.3g}"),
            viscosity=float(f"{viscosity:.3g}"),
            current=round(current, 4 if own else 3),
            direction=round(float(direction), 3),
        )

    def mirrored(self, robot: SimRobot) -> Self:
        """See :class:`Perturbation`."""
        return replace(self, direction=-self.direction)

    def boxes(self, x: float, y: float) -> list[Box]:
        """Water up to the level, or a film on the floor where there is no surface."""
        height = self.level if self.level < math.inf else FILM
        return [Box((x, y, height / 2), (DRAWN, DRAWN, max(height / 2, FILM)), WATER)]


def _halves(robot: SimRobot) -> Float[np.ndarray, "g 3"]:
    """Half the sides of the box around each of the robot's geoms [m]; 0 for all others."""
    own = np.isin(robot.nominal.geom_bodyid, subtree(robot.nominal, robot.torso))
    return own[:, None] * robot.nominal.geom_aabb[:, 3:]


def _displacing(robot: SimRobot) -> Float[np.ndarray, " g"]:
    """The volume of each geom that is seen [m³]: others touch for those, or mark a place."""
    return np.where(robot.nominal.geom_rgba[:, 3] > 0, _volumes(robot), 0.0)


def _volumes(robot: SimRobot) -> Float[np.ndarray, " g"]:
    """The volume of each geom [m³]; a mesh as the ellipsoid in the box around it."""
    halves, kinds = _halves(robot), robot.nominal.geom_type
    fill = np.array([FILL.get(int(kind), math.pi / 6) for kind in kinds])
    radius, length = halves[:, 0], halves[:, 2]
    capsule = math.pi * radius**2 * (2 * length - 2 / 3 * radius)
    is_capsule = kinds == int(mujoco.mjtGeom.mjGEOM_CAPSULE)
    return np.where(is_capsule, capsule, 8 * fill * halves.prod(1))
