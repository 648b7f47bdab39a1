"""A joint that is limp, seized, weak or reversed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import mujoco
import numpy as np

from robots.perturbations.base import (
    FORCE_LEFT,
    Perturbation,
    Split,
    damage_joint,
    driven,
    in_range,
    one_of,
)
from robots.perturbations.damaged_leg import DamagedLeg, mirror_leg

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot

MODES = ("disabled", "locked", "weak", "reversed")


@dataclass(frozen=True, kw_only=True)
class DamagedJoint(Perturbation):
    """A joint fails: disabled (limp), locked (seized), weak or reversed.

    A limp or weak joint on a servo that damps (ant, quadruped) keeps that damping: it is passive,
    outside the force limit and any ``motor_strength``, like the drag of a motor behind its gears.

    Attributes:
        joint: the joint's name.
        mode: as for a leg, for this joint alone.
        scale: force left, of the nominal one, in mode ``weak``.
    """

    name: ClassVar[str] = "damaged_joint"
    magnitudes: ClassVar[Mapping[str, float]] = {"scale": 1.0}

    joint: str
    mode: str = "disabled"
    scale: float = 0.5

    @property
    def can_grow(self) -> bool:
        """Only in mode ``weak``."""
        return self.mode == "weak"

    def check(self, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        one_of("joint", self.joint, driven(robot))
        one_of("mode", self.mode, MODES)
        in_range("scale", self.scale, 0.0, 1.0)

    def apply(self, model: mujoco.MjModel, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        damage_joint(model, self.joint, self.mode, self.scale)

    @classmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """Every third (joint, mode) diagonal is the test range, on both sides alike."""
        pairs = [
            (joint, mode)
            for joint in driven(robot)
            for mode in MODES
            if _held_out(robot, joint, mode) == (split == "test")
        ]
        joint, mode = pairs[rng.integers(len(pairs))]
        return cls(joint=joint, mode=mode, scale=round(FORCE_LEFT.draw(rng, split), 3))

    def mirrored(self, robot: SimRobot) -> Self:
        """See :class:`Perturbation`."""
        leg, k = next(
            (n, g.joints.index(self.joint)) for n, g in robot.legs.items() if self.joint in g.joints
        )
        return replace(self, joint=robot.legs[mirror_leg(robot, leg)].joints[k])

    def held_out(self, robot: SimRobot) -> bool:
        """See :class:`Perturbation`."""
        return _held_out(robot, self.joint, self.mode)

    def names(self, robot: SimRobot) -> list[Perturbation]:
        """See :class:`Perturbation`."""
        return names(self, robot)

    def marked_bodies(self, robot: SimRobot) -> tuple[str, ...]:
        """See :class:`Perturbation`."""
        body = robot.nominal.jnt_bodyid[robot.nominal.joint(self.joint).id]
        return (robot.nominal.body(body).name,)


def names(perturbation: DamagedLeg | DamagedJoint, robot: SimRobot) -> list[Perturbation]:
    """See :meth:`Perturbation.names`.

    A leg runs backwards as the joint does that swings it; one of a single joint fails as that does.
    """
    if perturbation.mode in MODES:
        how = {f: getattr(perturbation, f) for f in ("mode", "scale", "onset", "until", "ramp")}
        for name, leg in robot.legs.items():
            both = [DamagedLeg(leg=name, **how), DamagedJoint(joint=leg.joints[0], **how)]
            if perturbation in both and (len(leg.joints) == 1 or perturbation.mode == "reversed"):
                return both
    return [perturbation]


def _held_out(robot: SimRobot, joint: str, mode: str) -> bool:
    return (_places(robot)[joint] + MODES.index(mode)) % 3 == 0


def _places(robot: SimRobot) -> dict[str, int]:
    """A number for each joint that is the same for its mirror image."""
    count: dict[str, int] = {}
    places = {}
    for leg in robot.legs.values():
        for joint in leg.joints:
            places[joint] = count.setdefault(leg.side, 0)
            count[leg.side] += 1
    return places
