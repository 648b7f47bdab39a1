"""Wind that pushes the robot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import mujoco
import numpy as np
from jaxtyping import Float

from robots.perturbations.base import (
    Magnitude,
    Perturbation,
    PerturbationError,
    Split,
    in_its_plane,
    in_range,
    sideless,
    submerged,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot


SHARE = Magnitude(mild=(0.03, 0.12), test=(0.15, 0.25), harsh=(0.3, 0.4))  # of the weight
MOST = 0.6  # of the weight
GRAVITY = 9.81  # [m/s²]
SLACK = 1e-9  # [N/m]


@dataclass(frozen=True, kw_only=True)
class Wind(Perturbation):
    """A horizontal force on the torso, steady or in gusts.

    Attributes:
        force: at its strongest [N].
        direction: the way it blows, from the world's x axis [rad].
        period: from one gust to the next [s], with calm between them; 0: it is steady.
    """

    name: ClassVar[str] = "wind"
    magnitudes: ClassVar[Mapping[str, float]] = {"force": 0.0}

    force: float
    direction: float = 0.0
    period: float = 0.0

    def check(self, robot: SimRobot) -> None:
        """See :class:`Perturbation`; nothing holds a robot against much more than :data:`MOST`."""
        in_range("force [N]", self.force, 0.0, MOST * _weight(robot))
        in_range("direction [rad]", self.direction, -2 * math.pi, 2 * math.pi)
        in_its_plane(robot, self.direction)
        in_range("period [s]", self.period, 0.0, math.inf)
        if submerged(robot):
            raise PerturbationError(
                f"no wind blows where {robot.spec.name} swims: a medium has a current="
            )
        if not _ways(robot.nominal, robot):
            raise PerturbationError(f"{robot.spec.name} cannot be pushed along")

    @property
    def changing(self) -> bool:
        """Where it comes in gusts."""
        return self.period > 0

    def apply(self, model: mujoco.MjModel, robot: SimRobot) -> None:
        """Hang the torso on a spring of next to no stiffness, which is stretched without end.

        So the force is part of the model, and true rollouts feel it too.
        """
        push = self.force * np.array([math.cos(self.direction), math.sin(self.direction), 0.0])
        push *= self._gust(robot.time)
        for joint, coordinate, axis in _ways(model, robot):
            model.jnt_stiffness[joint] = max(SLACK, model.jnt_stiffness[joint])
            model.qpos_spring[coordinate] += push @ axis / model.jnt_stiffness[joint]

    def arrow(self, time: float) -> tuple[float, float]:
        """See :class:`Perturbation`."""
        return self.direction, self._gust(time)

    def _gust(self, time: float) -> float:
        """How strongly it blows, of its strongest."""
        if not self.period:
            return 1.0
        return (1 - math.cos(2 * math.pi * (time - self.onset) / self.period)) / 2

    @classmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """A :data:`SHARE` of the weight; any direction on robots with sides, steady or not."""
        force = SHARE.draw(rng, split) * _weight(robot)
        ways = [0.0, math.pi]
        direction = rng.choice(ways) if sideless(robot) else rng.uniform(-math.pi, math.pi)
        period = rng.uniform(1.0, 4.0) if rng.random() < 0.5 else 0.0
        return cls(
            force=float(f"{force:.3g}"),
            direction=round(float(direction), 3),
            period=round(float(period), 2),
        )

    def mirrored(self, robot: SimRobot) -> Self:
        """See :class:`Perturbation`."""
        return replace(self, direction=-self.direction)


def _ways(model: mujoco.MjModel, robot: SimRobot) -> list[tuple[int, int, Float[np.ndarray, 3]]]:
    """How the torso can move along: joint, coordinate and axis of each way."""
    torso, found = model.body(robot.torso), []
    for joint in range(torso.jntadr[0], torso.jntadr[0] + torso.jntnum[0]):
        coordinate, kind = model.jnt_qposadr[joint], model.jnt_type[joint]
        if kind == mujoco.mjtJoint.mjJNT_FREE:
            found += [(joint, int(coordinate + i), np.eye(3)[i]) for i in range(3)]
        elif kind == mujoco.mjtJoint.mjJNT_SLIDE:
            found.append((joint, int(coordinate), model.jnt_axis[joint].copy()))
    return found


def _weight(robot: SimRobot) -> float:
    return GRAVITY * float(robot.nominal.body(robot.torso).subtreemass[0])
