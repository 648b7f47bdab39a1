"""What can happen to a simulated robot: the contract, and the shared ways to damage a joint."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import mujoco
import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot

Split = Literal["train", "test"]


TERRAIN, TERRAIN_CELLS = "terrain", 97
"""The height field that waits beside every floor: its name, and its points a side."""

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


NO_DRAG = 1e-6
"""Scale of a body's inertia that leaves it no drag: MuJoCo's fluid model sees a smaller box."""


class PerturbationError(ValueError):
    """A perturbation that makes no sense, or not on this robot."""


class Box(NamedTuple):
    """A box that is drawn while a perturbation acts.

    Attributes:
        place: of its middle [m].
        size: half its sides [m].
        rgba: its colour.
    """

    place: tuple[float, float, float]
    size: tuple[float, float, float]
    rgba: tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Perturbation(ABC):
    """A change of the robot or of its world, from ``onset`` to ``until``.

    A kind overrides the hooks that it needs: :meth:`apply` for the body and the world,
    :meth:`actuate` for what the actuators hear, :meth:`sense` for what the sensors tell.

    Attributes:
        onset: when it begins [s since the reset].
        until: when it ends [s].
        ramp: how long it grows from nothing to its full magnitude [s].

    Raises:
        PerturbationError: where it begins before the reset, never, or not before it ends; where
            it is to grow and has no magnitude.
    """

    name: ClassVar[str]
    magnitudes: ClassVar[Mapping[str, float]] = {}
    """The fields that say how strong it is, each with its value where there is no change."""

    onset: float = 0.0
    until: float = math.inf
    ramp: float = 0.0

    def __post_init__(self) -> None:
        """See the class."""
        if not (0 <= self.onset < self.until and self.onset < math.inf):
            raise PerturbationError(
                f"{self.name}: 0 <= onset < until [s] does not hold for {self.onset}, {self.until}"
            )
        if not 0 <= self.ramp < math.inf:
            raise PerturbationError(f"{self.name}: 0 <= ramp [s] does not hold for {self.ramp}")
        if self.ramp and not self.can_grow:
            raise PerturbationError(
                f"{self.name} comes at once here: it has no magnitude for a ramp to grow"
            )

    # --- hooks ----------------------------------------------------------------------------------

    def apply(self, model: mujoco.MjModel, robot: SimRobot) -> None:  # noqa: B027, a hook
        """Write the change into ``model``, which holds the nominal values.

        Composable: each perturbation scales or adds to what the ones before it left.
        """

    @property
    def changing(self) -> bool:
        """Whether :meth:`apply` depends on the time or on where the robot is.

        It is then applied anew at every simulation step. True rollouts take it as it is now, and
        so does the oracle, which plans by them: under gusts, on patches and during a ramp it does
        not know what comes, and is no upper bound.
        """
        return False

    def actuator_memory(self, robot: SimRobot) -> Float[np.ndarray, " c"] | None:
        """What :meth:`actuate` remembers as it begins; None: the actuators are not touched."""
        return None

    def actuate(
        self, memory: Float[np.ndarray, "n c"], ctrl: Float[np.ndarray, "n s a"]
    ) -> tuple[Float[np.ndarray, "n s a"], Float[np.ndarray, "n c"]]:
        """What the actuators hear of the commands of s simulation steps, and the memory then.

        Pure: the same lines serve one step and many true rollouts.
        """
        return ctrl, memory

    def sensor_memory(self, robot: SimRobot) -> Float[np.ndarray, " c"] | None:
        """What :meth:`sense` remembers as it begins; None: the sensors are not touched."""
        return None

    def sense(
        self,
        memory: Float[np.ndarray, " c"],
        obs: Float[np.ndarray, " o"],
        rng: np.random.Generator,
    ) -> tuple[Float[np.ndarray, " o"], Float[np.ndarray, " c"]]:
        """What the sensors tell, once a control step, of the fields that they measure.

        These are ``spec.predicted``: what the controller makes itself needs no sensor, and the
        pose comes from elsewhere.
        """
        return obs, memory

    # --- growing --------------------------------------------------------------------------------

    @property
    def can_grow(self) -> bool:
        """Whether it has a magnitude."""
        return bool(self.magnitudes)

    def grown(self, share: float) -> Perturbation:
        """The same with this share of its magnitude."""
        partly = {n: v + share * (getattr(self, n) - v) for n, v in self.magnitudes.items()}
        return replace(self, **partly)

    def at(self, time: float) -> Perturbation:
        """What there is of it at a time [s]."""
        share = (time - self.onset) / self.ramp if self.ramp else 1.0
        return self.grown(max(share, 0.0)) if share < 1.0 else self

    # --- what a robot allows, and what is drawn -------------------------------------------------

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

    def names(self, robot: SimRobot) -> list[Perturbation]:
        """It, and what does the same by another name, the first of the names first."""
        return [self]

    # --- how it is shown ------------------------------------------------------------------------

    def marked_bodies(self, robot: SimRobot) -> tuple[str, ...]:
        """Bodies to paint red while it acts."""
        return ()

    def boxes(self, x: float, y: float) -> list[Box]:
        """What to draw around a robot at this place [m] while it acts."""
        return []

    def arrow(self, time: float) -> tuple[float, float] | None:
        """Where what pushes points to [rad], and how much of its greatest it is at a time [s]."""
        return None

    def load(self) -> tuple[float, float, float] | None:
        """What to draw on the torso: its mass [kg], and its place forward and left [m]."""
        return None


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


def driven(robot: SimRobot) -> list[str]:
    """The driven joints of every leg.

    Raises:
        PerturbationError: where there is none.
    """
    joints = [joint for leg in robot.legs.values() for joint in leg.joints]
    if not joints:
        raise PerturbationError(f"{robot.spec.name} has no legs, nor driven joints that are named")
    return joints


def legs_on(robot: SimRobot, side: str) -> list[str]:
    """Names of the legs on a side."""
    return [n for n, leg in robot.legs.items() if side in ("both", leg.side)]


def sideless(robot: SimRobot) -> bool:
    """Whether none of its legs has a side: what is drawn for it points along the x axis."""
    return not any(leg.side for leg in robot.legs.values())


@cache
def planar(robot: type[SimRobot]) -> bool:
    """Whether it has no sides, and each joint moves it within the vertical plane along x."""
    probe = robot()
    model, data = probe.nominal, mujoco.MjData(probe.nominal)
    mujoco.mj_kinematics(model, data)
    own = np.isin(model.jnt_bodyid, subtree(model, robot.torso))
    kind, along_y = model.jnt_type[own], np.abs(data.xaxis[own, 1])
    turns = (kind == int(mujoco.mjtJoint.mjJNT_HINGE)) & (along_y > 1 - 1e-6)
    slides = (kind == int(mujoco.mjtJoint.mjJNT_SLIDE)) & (along_y < 1e-6)
    return sideless(probe) and bool((turns | slides).all())


def in_its_plane(robot: SimRobot, direction: float) -> None:
    """Raise :class:`PerturbationError` where a direction [rad] leads out of a planar robot's plane.

    Off by 0.01 rad it still counts as along the plane.
    """
    if planar(type(robot)) and not abs(math.sin(direction)) <= 1e-2:
        raise PerturbationError(
            f"{robot.spec.name} moves in a vertical plane: direction [rad] is 0 or {math.pi:.4g},"
            f" not {direction:g}"
        )


def floors(model: mujoco.MjModel) -> list[int]:
    """The planes of the world that something can stand on, and the rough ground in their place."""
    touched = (model.geom_contype | model.geom_conaffinity) > 0
    flat = touched & (model.geom_type == int(mujoco.mjtGeom.mjGEOM_PLANE))
    rough = model.geom_type == int(mujoco.mjtGeom.mjGEOM_HFIELD)
    return [int(g) for g in np.flatnonzero((model.geom_bodyid == 0) & (flat | rough))]


@cache
def reach(robot: type[SimRobot]) -> float:
    """How far the nominal robot reaches from its torso, legs and all [m]."""
    model = robot().nominal
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    own = np.isin(model.geom_bodyid, subtree(model, robot.torso))
    away = data.geom_xpos[own, :2] - data.body(robot.torso).xpos[:2]
    return float((np.hypot(*away.T) + model.geom_rbound[own]).max())


def on_the_floor(robot: SimRobot) -> None:
    """Raise :class:`PerturbationError` where there is no floor to stand on."""
    if not floors(robot.nominal):
        raise PerturbationError(f"{robot.spec.name} stands on no floor")


def heavy(robot: SimRobot) -> None:
    """Raise :class:`PerturbationError` where gravity moves nothing."""
    if not _weighs(type(robot)):
        raise PerturbationError(f"gravity moves nothing on {robot.spec.name}")


@cache
def _weighs(robot: type[SimRobot]) -> bool:
    model = robot().nominal
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return bool(np.abs(data.qfrc_bias - data.qfrc_gravcomp).max() > 1e-9)


def submerged(robot: SimRobot) -> bool:
    """Whether the robot lives in a medium that drags and carries it."""
    return bool(robot.nominal.opt.density)


def touching(robot: SimRobot) -> None:
    """Raise :class:`PerturbationError` where the robot can touch nothing but itself."""
    model = robot.nominal
    own = np.isin(model.geom_bodyid, subtree(model, robot.torso))
    kind, meets = model.geom_contype, model.geom_conaffinity
    pairs = kind[own, None] & meets[~own] | meets[own, None] & kind[~own]
    if model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CONTACT or not pairs.any():
        raise PerturbationError(f"{robot.spec.name} touches no floor nor anything else")


def servo_range(robot: SimRobot) -> Float[np.ndarray, " a"]:
    """From the lowest to the highest command of each actuator, in its own unit.

    Raises:
        PerturbationError: where neither a command nor its joint has limits.
    """
    model = robot.nominal
    joint = model.actuator_trnid[:, 0]
    limits = np.where(
        model.actuator_ctrllimited[:, None], model.actuator_ctrlrange, model.jnt_range[joint]
    )
    if not (model.actuator_ctrllimited | model.jnt_limited[joint]).all():
        raise PerturbationError(f"{robot.spec.name} has actuators without limits to take shares of")
    return limits[:, 1] - limits[:, 0]


def subtree(model: mujoco.MjModel, body: str) -> list[int]:
    """Ids of a body and of everything that hangs on it."""
    ids = [model.body(body).id]
    for child in range(ids[0] + 1, model.nbody):
        if model.body_parentid[child] in ids:
            ids.append(child)
    return ids


def scale_actuator(model: mujoco.MjModel, joint: str, scale: float) -> None:
    """Scale the force that a joint's motor or position servo can give; 0 leaves it limp."""
    for a in actuators(model, joint):
        model.actuator_gainprm[a] *= scale
        model.actuator_biasprm[a] *= scale
        model.actuator_forcerange[a] *= scale


def reverse_actuator(model: mujoco.MjModel, joint: str) -> None:
    """Turn a motor round: it drives the joint to the negative of what it is told."""
    for a in actuators(model, joint):
        model.actuator_gear[a] *= -1


def lock_joint(model: mujoco.MjModel, joint: str) -> None:
    """Seize a joint at the angle it has: no drive, and dry friction that no torque overcomes.

    Dry friction is part of MuJoCo's constraint solver and so stays stable where equally strong
    damping does not. Solver and integrator leave it a slow creep; a heavy rotor, which does
    nothing else on a joint that does not turn, keeps that below 0.006 rad a second: in 10 s of full
    torques the cheetah's thighs yield by 0.05 and 0.03 rad, any other joint by less than 0.006.
    """
    scale_actuator(model, joint, 0.0)
    dof = model.joint(joint).dofadr[0]
    model.dof_frictionloss[dof] = 1e6
    model.dof_solimp[dof, :2] = 0.9999
    model.dof_armature[dof] = 10.0


def actuators(model: mujoco.MjModel, joint: str) -> list[int]:
    """Ids of the actuators that drive a joint."""
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
