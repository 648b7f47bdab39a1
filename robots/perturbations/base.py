"""What can happen to a simulated robot: the contract, and the shared ways to damage a joint."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import mujoco
import numpy as np

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot

Split = Literal["train", "test"]


HARSH = 0.25
"""Share of the training magnitudes that are drawn beyond the test band."""


class Magnitude(NamedTuple):
    """How strong a kind of perturbation is drawn.

    Training takes what is milder and what is harsher than the test band, never what is in it: a
    robot in trouble is then new to the model, but not outside everything that it has seen.

    Attributes:
        mild: the mild training range.
        test: the held-out band.
        harsh: the harsh training range.
    """

    mild: tuple[float, float]
    test: tuple[float, float]
    harsh: tuple[float, float]

    def draw(self, rng: np.random.Generator, split: Split) -> float:
        """A magnitude of that split."""
        if split == "train":
            low, high = self.harsh if rng.random() < HARSH else self.mild
        else:
            low, high = self.test
        return float(rng.uniform(low, high))


class PerturbationError(ValueError):
    """A perturbation that makes no sense, or not on this robot."""


@dataclass(frozen=True, kw_only=True)
class Perturbation(ABC):
    """A change of the robot's body or of its world, from ``onset`` to ``until``.

    Attributes:
        onset: when it begins [s since the reset].
        until: when it ends [s].

    Raises:
        PerturbationError: where it begins before the reset, never, or not before it ends.
    """

    name: ClassVar[str]

    onset: float = 0.0
    until: float = math.inf

    def __post_init__(self) -> None:
        """See the class."""
        if not (0 <= self.onset < self.until and self.onset < math.inf):
            raise PerturbationError(
                f"{self.name}: 0 <= onset < until [s] does not hold for {self.onset}, {self.until}"
            )

    @abstractmethod
    def apply(self, model: mujoco.MjModel, robot: SimRobot) -> None:
        """Write the change into ``model``, a fresh copy of the nominal one.

        Composable: each perturbation scales or adds to what the ones before it left.
        """

    @abstractmethod
    def check(self, robot: SimRobot) -> None:
        """Raise :class:`PerturbationError`, naming what would be valid, where it is senseless."""

    @classmethod
    @abstractmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """Draw places, modes and magnitudes from the ``train`` or the disjoint ``test`` range.

        Raises:
            PerturbationError: where the robot offers nothing to perturb this way.
        """

    def mirrored(self, robot: SimRobot) -> Self:
        """The left-right mirror image on ``robot``; itself where it has no side."""
        return self

    def held_out(self, robot: SimRobot) -> bool:
        """Whether its place and mode belong to the test range, whatever its magnitude."""
        return False

    def marked_bodies(self, robot: SimRobot) -> tuple[str, ...]:
        """Bodies to paint red while it acts."""
        return ()


FORCE_LEFT = Magnitude(mild=(0.3, 0.7), test=(0.1, 0.25), harsh=(0.02, 0.07))
"""Of a weak leg or joint."""


def one_of(what: str, value: str, valid: tuple[str, ...] | list[str]) -> None:
    """Raise :class:`PerturbationError` unless ``value`` is among ``valid``."""
    if value not in valid:
        raise PerturbationError(f"{what} {value!r} is not one of {', '.join(valid) or '(none)'}")


def in_range(what: str, value: float, low: float, high: float) -> None:
    """Raise :class:`PerturbationError` unless ``low <= value <= high`` (NaN never is)."""
    if not low <= value <= high:
        raise PerturbationError(f"{what} must lie in [{low:g}, {high:g}], not {value:g}")


def swap_side(side: str) -> str:
    """The other side."""
    return {"left": "right", "right": "left"}.get(side, side)


def sides(robot: SimRobot) -> list[str]:
    """The sides this robot can be perturbed on: both, and each one where it has legs."""
    return [
        "both",
        *(s for s in ("left", "right") if any(g.side == s for g in robot.legs.values())),
    ]


def legs_on(robot: SimRobot, side: str) -> list[str]:
    """Names of the legs on a side."""
    return [n for n, leg in robot.legs.items() if side in ("both", leg.side)]


def subtree(model: mujoco.MjModel, body: str) -> list[int]:
    """Ids of a body and of everything that hangs on it."""
    ids = [model.body(body).id]
    for child in range(ids[0] + 1, model.nbody):
        if model.body_parentid[child] in ids:
            ids.append(child)
    return ids


def scale_actuator(model: mujoco.MjModel, joint: str, scale: float) -> None:
    """Scale the force that a joint's motor or position servo can give; 0 leaves it limp."""
    for a in _actuators(model, joint):
        model.actuator_gainprm[a] *= scale
        model.actuator_biasprm[a] *= scale
        model.actuator_forcerange[a] *= scale


def reverse_actuator(model: mujoco.MjModel, joint: str) -> None:
    """Turn a motor round: it drives the joint to the negative of what it is told."""
    for a in _actuators(model, joint):
        model.actuator_gear[a] *= -1


def lock_joint(model: mujoco.MjModel, joint: str) -> None:
    """Seize a joint at the angle it has: no drive, and dry friction that no torque overcomes.

    Dry friction is part of MuJoCo's constraint solver and so stays stable where equally strong
    damping does not. Solver and integrator leave it a slow creep; a heavy rotor, which does
    nothing else on a joint that does not turn, keeps that below 0.01 rad in a second.
    """
    scale_actuator(model, joint, 0.0)
    dof = model.joint(joint).dofadr[0]
    model.dof_frictionloss[dof] = 1e6
    model.dof_solimp[dof, :2] = 0.9999
    model.dof_armature[dof] = 10.0


def _actuators(model: mujoco.MjModel, joint: str) -> list[int]:
    j = model.joint(joint).id
    return [a for a in range(model.nu) if model.actuator_trnid[a, 0] == j]


def damage_joint(model: mujoco.MjModel, joint: str, mode: str, scale: float) -> None:
    """Apply one damage mode to one joint: disabled, locked, weak or reversed."""
    if mode == "locked":
        lock_joint(model, joint)
    elif mode == "reversed":
        reverse_actuator(model, joint)
    else:
        scale_actuator(model, joint, scale if mode == "weak" else 0.0)
