"""A mass that lands on the robot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import mujoco
import numpy as np

from robots.perturbations.base import (
    Magnitude,
    Perturbation,
    PerturbationError,
    Split,
    in_range,
    planar,
    submerged,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot


SHARE = Magnitude(mild=(0.1, 0.5), test=(0.6, 0.8), harsh=(0.9, 1.1))


@dataclass(frozen=True, kw_only=True)
class Payload(Perturbation):
    """A point mass fixed to the torso.

    What carries the torso, of a robot that floats, does so at the common centre of mass, and does
    not carry the load. In a medium the load displaces nothing; and as MuJoCo takes a body for the
    box of its mass and inertia, a heavier torso of little more inertia has a little less drag.

    Attributes:
        mass: [kg].
        x: forward of the torso's origin [m].
        y: left of it [m]; 0 on a robot that moves in a plane.
    """

    name: ClassVar[str] = "payload"
    magnitudes: ClassVar[Mapping[str, float]] = {"mass": 0.0}

    mass: float
    x: float = 0.0
    y: float = 0.0

    def check(self, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        in_range("mass", self.mass, 0.0, 10 * _robot_mass(robot))
        reach = _reach(robot)
        in_range("x", self.x, -2 * reach, 2 * reach)
        in_range("y", self.y, -2 * reach, 2 * reach)
        if self.y and planar(type(robot)):
            raise PerturbationError(
                f"{robot.spec.name} moves in a vertical plane: y is 0, not {self.y:g}"
            )

    def apply(self, model: mujoco.MjModel, robot: SimRobot) -> None:
        """Merge the point mass into the torso: mass, centre of mass and inertia tensor."""
        b = model.body(robot.torso).id
        mass, centre = model.body_mass[b], model.body_ipos[b].copy()
        axes = np.empty(9)
        mujoco.mju_quat2Mat(axes, model.body_iquat[b])
        rotation = axes.reshape(3, 3)
        tensor = rotation @ np.diag(model.body_inertia[b]) @ rotation.T
        load = np.array([self.x, self.y, 0.0])
        total = mass + self.mass
        joint_centre = (mass * centre + self.mass * load) / total
        tensor = (
            tensor
            + _steiner(mass, centre - joint_centre)
            + _steiner(self.mass, load - joint_centre)
        )
        moments, frame = np.linalg.eigh(tensor)
        frame[:, 0] *= np.sign(np.linalg.det(frame))
        model.body_mass[b] = total
        model.body_gravcomp[b] *= mass / total  # what carries the torso does not carry the load
        model.body_ipos[b] = joint_centre
        model.body_inertia[b] = moments
        mujoco.mju_mat2Quat(model.body_iquat[b], frame.ravel())

    def load(self) -> tuple[float, float, float]:
        """See :class:`Perturbation`."""
        return self.mass, self.x, self.y

    @classmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """A :data:`SHARE` of what the robot weighs, or can bear, somewhere on its torso."""
        share = SHARE.draw(rng, split)
        reach = _reach(robot)
        x = rng.uniform(-0.7, 0.7) * reach
        y = rng.uniform(-0.4, 0.4) * reach if any(g.side for g in robot.legs.values()) else 0.0
        mass = share * _load(type(robot))
        digits = 3 if mass > 0.01 else 7
        return cls(mass=round(float(mass), digits), x=round(float(x), 3), y=round(float(y), 3))

    def mirrored(self, robot: SimRobot) -> Self:
        """See :class:`Perturbation`."""
        return replace(self, y=-self.y)


def _steiner(mass: float, offset: np.ndarray) -> np.ndarray:
    return mass * (offset @ offset * np.eye(3) - np.outer(offset, offset))


def _robot_mass(robot: SimRobot) -> float:
    return float(robot.nominal.body(robot.torso).subtreemass[0])


@cache
def _load(robot: type[SimRobot]) -> float:
    """What the robot weighs, or what sinks it at a third of its speed where it floats [kg]."""
    probe = robot()
    if not (submerged(probe) and probe.nominal.body_gravcomp.any() and robot.speed):
        return _robot_mass(probe)
    data = mujoco.MjData(probe.nominal)
    up = probe.nominal.jnt_dofadr[probe.nominal.body(robot.torso).jntadr[0]] + 2
    data.qvel[up] = -robot.speed / 3
    mujoco.mj_forward(probe.nominal, data)
    return float(data.qfrc_fluid[up] / -probe.nominal.opt.gravity[2])


def _reach(robot: SimRobot) -> float:
    """Half the length of the torso [m]: the farthest leg root from its origin, or its own size."""
    if not robot.legs:
        torso = robot.nominal.geom_bodyid == robot.nominal.body(robot.torso).id
        return float(robot.nominal.geom_rbound[torso].max())
    roots = [robot.nominal.body(g.body).pos[0] for g in robot.legs.values()]
    return float(np.abs(roots).max())
