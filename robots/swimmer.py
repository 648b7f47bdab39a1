"""A chain of links that swims in a plane by bending: dm_control's swimmer, driven by torques."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import ClassVar

import mujoco
import numpy as np
from jaxtyping import Float

from mbmrl.spec import Field, RobotSpec
from robots.sim import Leg, SimRobot, compiled, turn_body

DT = 0.1  # control period [s]
TIMESTEP = 0.01  # simulation step [s]
LINKS = 6
HALF = 0.05  # half a link [m]

JOINTS = tuple(f"joint_{i}" for i in range(LINKS - 1))
RATES = tuple(f"{joint}_rate" for joint in JOINTS)
TORQUES = tuple(f"torque_{i}" for i in range(LINKS - 1))

SPEC = RobotSpec(
    name="swimmer",
    dt=DT,
    obs=(
        Field("x", "m"),
        Field("y", "m"),
        Field("yaw", "rad", -math.pi, math.pi),
        Field("vx", "m/s"),
        Field("vy", "m/s"),
        Field("yaw_rate", "rad/s"),
        *(Field(name, "rad") for name in JOINTS),
        *(Field(name, "rad/s") for name in RATES),
    ),
    act=tuple(Field(name, "1", -1, 1) for name in TORQUES),
    pose=("x", "y", "yaw"),
    tree={"0": "", **{str(i + 1): str(i) for i in range(LINKS - 2)}},
    mirror={n: (n, -1.0) for n in ("y", "yaw", "vy", "yaw_rate", *JOINTS, *RATES, *TORQUES)},
)


class Swimmer(SimRobot):
    """Six links in a plane of dense water, 5 torque motors; action: torque per joint, 10 Hz.

    Its place is its centre of mass, its heading the mean of its links': both go steadily where it
    swims, while every link swings to and fro.

    Source: Tassa et al. 2018, "DeepMind Control Suite" (arXiv 1801.00690), after Coulom 2002.
    """

    name: ClassVar[str] = "swimmer"
    task: ClassVar[str] = "reach"
    speed: ClassVar[float | None] = 0.08
    size: ClassVar[float] = 1.0
    spec = SPEC
    torso = "head"
    legs: ClassVar[dict[str, Leg]] = {
        "front": Leg("segment_0", JOINTS[:2]),
        "rear": Leg("segment_2", JOINTS[2:]),
    }

    @classmethod
    def build(cls) -> mujoco.MjModel:
        """The suite's head, turned to face along x, and its tail, a link at a time."""
        spec = mujoco.MjSpec.from_file(str(files("dm_control") / "suite" / "swimmer.xml"))
        for thing in (spec.geom("target"), spec.light("target_light")):
            spec.delete(thing)
        spec.option.timestep = TIMESTEP
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.gravity = 0, 0, 0
        spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960
        ground = spec.geom("ground")
        ground.size, ground.contype, ground.conaffinity = (50, 50, 1), 0, 0
        link = spec.body("head")
        default = spec.find_default("swimmer")
        for joint in link.joints:
            joint.pos = 0, 0, 0
        for i, name in enumerate(JOINTS):
            link = link.add_body(name=f"segment_{i}", pos=(0, 2 * HALF, 0))
            link.add_joint(default, name=name, range=(-360 / LINKS, 360 / LINKS))  # [degrees]
            for kind in ("inertial", "visual"):
                link.add_geom(spec.find_default(kind))
            motor = spec.add_actuator(spec.find_default("main"), name=TORQUES[i], target=name)
            motor.trntype = mujoco.mjtTrn.mjTRN_JOINT
        turn_body(spec.body("head"), math.pi / 2)
        return compiled(spec)

    def place(self) -> np.ndarray:
        """Lie at the origin, almost straight and heading along x."""
        self.data.qpos[3:] = self.rng.uniform(-0.3, 0.3, len(JOINTS))
        self.data.qpos[2] = -np.cumsum(self.data.qpos[2:]).mean()
        self.data.qpos[:2] = -self.observe(self.data.qpos, self.data.qvel, np.zeros(0))[:2]
        return np.zeros(0)

    def observe(
        self,
        qpos: Float[np.ndarray, "*b q"],
        qvel: Float[np.ndarray, "*b v"],
        carry: Float[np.ndarray, "*b c"],
    ) -> Float[np.ndarray, "*b o"]:
        """Place and heading of the whole, velocity in its own frame, joint angles and rates."""
        links, rates = (np.cumsum(x[..., 2:], -1) for x in (qpos, qvel))
        cos, sin = np.cos(links), np.sin(links)
        x = qpos[..., 0] - cos @ LEVERS
        y = qpos[..., 1] - sin @ LEVERS
        along_x = qvel[..., 0] + (rates * sin) @ LEVERS
        along_y = qvel[..., 1] - (rates * cos) @ LEVERS
        yaw = links.mean(-1)
        ahead, left = np.cos(yaw), np.sin(yaw)
        vx = ahead * along_x + left * along_y
        vy = ahead * along_y - left * along_x
        parts = np.stack([x, y, np.arctan2(left, ahead), vx, vy, rates.mean(-1)], -1)
        return np.concatenate([parts, qpos[..., 3:], qvel[..., 3:]], -1)

    def controls(
        self, carry: Float[np.ndarray, "n c"], acts: Float[np.ndarray, "n h u"]
    ) -> tuple[Float[np.ndarray, "n s a"], Float[np.ndarray, "n h c"]]:
        """Each torque is held for the whole control period."""
        return acts, acts[..., :0]


def _levers() -> Float[np.ndarray, " l"]:
    """How far each link's direction carries the centre of mass behind the head's centre [m].

    The centre of link k lies half of link 0, all between, and half of link k behind the head's.
    """
    link, of = np.arange(LINKS), np.arange(LINKS)[:, None]
    return HALF * ((of > link).astype(float) + ((of >= link) & (link > 0))).mean(0)


LEVERS = _levers()
