"""A leg that is limp, seized, weak, reversed or lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import mujoco
import numpy as np

from robots.perturbations.base import (
    FORCE_LEFT,
    NO_DRAG,
    Perturbation,
    PerturbationError,
    Split,
    damage_joint,
    in_range,
    lock_joint,
    one_of,
    subtree,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot

MODES = ("disabled", "locked", "weak", "reversed", "missing")


@dataclass(frozen=True, kw_only=True)
class DamagedLeg(Perturbation):
    """A leg fails: disabled (limp), locked (seized), weak, reversed or missing.

    A limp or weak joint on a servo that damps (ant, quadruped) keeps that damping: it is passive,
    outside the force limit and any ``motor_strength``, like the drag of a motor behind its gears.

    Attributes:
        leg: the leg's name.
        mode: ``disabled`` no drive in any joint; ``locked`` every joint seized at its angle;
            ``weak`` every drive scaled; ``reversed`` the joint that swings the leg runs
            backwards; ``missing`` the leg is gone, mass and contact included.
        scale: force left, of the nominal one, in mode ``weak``.
    """

    name: ClassVar[str] = "damaged_leg"
    magnitudes: ClassVar[Mapping[str, float]] = {"scale": 1.0}

    leg: str
    mode: str = "disabled"
    scale: float = 0.5

    @property
    def can_grow(self) -> bool:
        """Only in mode ``weak``."""
        return self.mode == "weak"

    def check(self, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        one_of("leg", self.leg, list(robot.legs))
        one_of("mode", self.mode, MODES)
        in_range("scale", self.scale, 0.0, 1.0)

    def apply(self, model: mujoco.MjModel, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        leg = robot.legs[self.leg]
        if self.mode == "missing":
            self._remove(model, robot)
        joints = leg.joints[:1] if self.mode == "reversed" else leg.joints
        for joint in joints:
            damage_joint(model, joint, self.mode, self.scale)

    def _remove(self, model: mujoco.MjModel, robot: SimRobot) -> None:
        """A thousandth of the mass is left: a massless body has no dynamics.

        So little that neither a medium nor a stiffer spring may act on it; and where its medium
        was all that damped it, what is left is stiff.
        """
        dry = not (model.opt.density or model.opt.viscosity)
        bodies = subtree(model, robot.legs[self.leg].body)
        for j in np.flatnonzero(np.isin(model.jnt_bodyid, bodies)):
            model.jnt_stiffness[j] = robot.nominal.jnt_stiffness[j]
            if robot.nominal.opt.density:
                lock_joint(model, model.joint(j).name)
        for b in bodies:
            model.body_mass[b] *= 1e-3
            model.body_inertia[b] *= 1e-3 if dry else NO_DRAG * 1e-3
            of_body = model.geom_bodyid == b
            model.geom_contype[of_body] = 0
            model.geom_conaffinity[of_body] = 0
            model.geom_rgba[of_body, 3] = 0.0

    @classmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """Train and test share no (leg, mode) pair (:func:`held_out`) and no ``scale``."""
        pairs = [
            (leg, mode)
            for leg in robot.legs
            for mode in MODES
            if held_out(robot, leg, mode) == (split == "test")
        ]
        if not pairs:
            raise PerturbationError(f"{robot.spec.name} has no leg to damage")
        leg, mode = pairs[rng.integers(len(pairs))]
        return cls(leg=leg, mode=mode, scale=round(FORCE_LEFT.draw(rng, split), 3))

    def mirrored(self, robot: SimRobot) -> Self:
        """See :class:`Perturbation`."""
        return replace(self, leg=mirror_leg(robot, self.leg))

    def held_out(self, robot: SimRobot) -> bool:
        """See :class:`Perturbation`."""
        return held_out(robot, self.leg, self.mode)

    def names(self, robot: SimRobot) -> list[Perturbation]:
        """See :class:`Perturbation`."""
        from robots.perturbations.damaged_joint import names  # here, because it imports this module

        return names(self, robot)

    def marked_bodies(self, robot: SimRobot) -> tuple[str, ...]:
        """See :class:`Perturbation`."""
        return (robot.legs[self.leg].body,)


def mirror_leg(robot: SimRobot, name: str) -> str:
    """The leg at the same place on the other side; itself where it has no side."""
    leg = robot.legs[name]
    if not leg.side:
        return name
    same = [n for n, g in robot.legs.items() if g.side == leg.side]
    other = [n for n, g in robot.legs.items() if g.side not in ("", leg.side)]
    return other[same.index(name)] if other else name


def held_out(robot: SimRobot, leg: str, mode: str) -> bool:
    """Whether a (leg, mode) pair belongs to the test range.

    With legs counted from the front on each side, every third (place, mode) diagonal is held
    out on both sides, and of the others one side each: those are held out only in name where
    training mirrors its data, so reports keep them apart.
    """
    side = robot.legs[leg].side
    place = [n for n, g in robot.legs.items() if g.side == side].index(leg)
    diagonal = place + MODES.index(mode)
    if diagonal % 3 == 0:
        return True
    return bool(side) and (side == "left") == (diagonal % 2 == 0)
