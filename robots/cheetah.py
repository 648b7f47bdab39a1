"""The paper's benchmark: the planar half-cheetah of dm_control's suite, driven by torques."""

from __future__ import annotations

import cmath
from collections.abc import Sequence
from importlib.resources import files
from typing import ClassVar

import mujoco
import numpy as np
from jaxtyping import Float

from mbmrl.spec import Field, RobotSpec
from robots.frames import numbers, together
from robots.perturbations.base import Perturbation, subtree
from robots.sim import Leg, SimRobot, compiled

DT = 0.05  # control period [s]
MASS = 14.0  # of the whole robot [kg]
SETTLE = 200  # simulation steps before an episode, as in the suite

JOINTS = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")

SPEC = RobotSpec(
    name="cheetah",
    dt=DT,
    obs=(
        Field("z", "m"),
        Field("pitch", "rad"),
        *(Field(joint, "rad") for joint in JOINTS),
        Field("vx", "m/s"),
        Field("vz", "m/s"),
        Field("pitch_rate", "rad/s"),
        *(Field(f"{joint}_rate", "rad/s") for joint in JOINTS),
    ),
    act=tuple(Field(f"torque_{joint}", "1", -1, 1) for joint in JOINTS),
    tree={
        "bthigh": "",
        "bshin": "bthigh",
        "bfoot": "bshin",
        "fthigh": "",
        "fshin": "fthigh",
        "ffoot": "fshin",
    },
)


class Cheetah(SimRobot):
    """Half-cheetah in a vertical plane, 6 torque motors; action: torque per joint, 20 Hz.

    ``vx`` and ``vz`` are those of the centre of mass, as in the suite's own reward: the torso's
    swing to and fro within each stride, and a planner could buy speed by rocking it. ``pitch`` is
    positive nose down and counts turns, so that its change never jumps.

    Source: Tassa et al. 2018, "DeepMind Control Suite" (arXiv 1801.00690).
    """

    name: ClassVar[str] = "cheetah"
    task: ClassVar[str] = "speed"
    spec = SPEC
    torso = "torso"
    legs: ClassVar[dict[str, Leg]] = {
        "B": Leg("bthigh", JOINTS[:3]),
        "F": Leg("fthigh", JOINTS[3:]),
    }

    def __init__(self, perturb: Sequence[Perturbation] = (), seed: int = 0) -> None:
        super().__init__(perturb, seed)
        self._height = float(self.nominal.body(self.torso).pos[2])
        self._chain = _mass_distribution(self.nominal)

    @classmethod
    def build(cls) -> mujoco.MjModel:
        """Compile the suite's model.

        The total mass is set afterwards: MuJoCo logs a warning about the compiler's own way.
        """
        spec = mujoco.MjSpec.from_file(str(files("dm_control") / "suite" / "cheetah.xml"))
        spec.compiler.settotalmass = -1
        spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960
        cls.surround(spec)
        model = compiled(spec)
        bodies = _bodies(model)
        share = MASS / model.body_mass[bodies].sum()
        model.body_mass[bodies] *= share
        model.body_inertia[bodies] *= share
        mujoco.mj_setConst(model, mujoco.MjData(model))
        return model

    @classmethod
    def surround(cls, spec: mujoco.MjSpec) -> None:
        """Change the world around the robot: here, it is the suite's."""

    def place(self) -> np.ndarray:
        """Fall from random joint angles and settle, as in the suite."""
        limited = self.model.jnt_limited == 1
        self.data.qpos[limited] = self.rng.uniform(*self.model.jnt_range[limited].T)
        mujoco.mj_step(self.model, self.data, SETTLE)
        self.data.qpos[0] = 0.0
        return np.zeros(0)

    def observe(
        self,
        qpos: Float[np.ndarray, "*b q"],
        qvel: Float[np.ndarray, "*b v"],
        carry: Float[np.ndarray, "*b c"],
    ) -> Float[np.ndarray, "*b o"]:
        """Torso height and pitch, joint angles, velocity of the centre of mass, rates.

        The centre of mass is the nominal robot's: a payload's place is not for it to know.
        """
        _, z, *angles = numbers(qpos)
        vx, vz, *rates = numbers(qvel)
        own = len(self._chain)  # what moves besides the robot comes after it
        exp = cmath.exp if qpos.ndim == 1 else np.exp
        moving, turned, turning = vx + 1j * vz, [0.0], [0.0]
        for angle, rate, (parent, moves) in zip(angles, rates, self._chain, strict=False):
            pitch, pitch_rate = turned[parent] + angle, turning[parent] + rate
            moving = moving + pitch_rate * (moves * exp(-1j * pitch))
            turned.append(pitch)
            turning.append(pitch_rate)
        return together([z + self._height, *angles[:own], moving.real, moving.imag, *rates[:own]])

    def controls(
        self, carry: Float[np.ndarray, "n c"], acts: Float[np.ndarray, "n h u"]
    ) -> tuple[Float[np.ndarray, "n s a"], Float[np.ndarray, "n h c"]]:
        """Each torque is held for the whole control period."""
        return acts, acts[..., :0]


def _bodies(model: mujoco.MjModel) -> list[int]:
    return subtree(model, Cheetah.torso)


def _mass_distribution(model: mujoco.MjModel) -> list[tuple[int, complex]]:
    """How the robot's centre of mass moves as each body turns.

    Of each body: the one that it hangs on, counted from 1, the torso; and the velocity x + iz of
    the centre of mass when the body, not turned yet, turns at 1 rad/s with all that hangs on
    it [m/s].
    """
    bodies = _bodies(model)
    moved = model.body_mass[:, None] * model.body_ipos
    for body in bodies[1:]:
        moved[model.body_parentid[body]] += model.body_subtreemass[body] * model.body_pos[body]
    centres = (moved[bodies, 0] + 1j * moved[bodies, 2]) / model.body_subtreemass[bodies[0]]
    hangs_on = [0, *(1 + bodies.index(b) for b in model.body_parentid[bodies[1:]])]
    return list(zip(hangs_on, (-1j * centres).tolist(), strict=True))
