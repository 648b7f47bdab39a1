"""A four-legged ant, as benchmarks have it, of the size of a dog."""

from __future__ import annotations

import math
from typing import ClassVar

import mujoco
import numpy as np
from jaxtyping import Float

from robots.frames import observe_body
from robots.legged import LEGS, SETTLE_S, JointTargets, joint_spec, limbs, world
from robots.sim import Leg, SimRobot, compiled

DT = 0.05  # control period [s]
TIMESTEP = 0.01  # simulation step [s]
TAU = 0.05  # time constant of the target filter [s]

JOINTS = ("hip", "ankle")
STANCE = (0.0, 0.0)  # [rad]
REACH = (0.6, 0.5)  # of a target from the stance [rad]
KP, KD = 60.0, 1.5  # of the servos [N m/rad, N m s/rad]
TORQUE = 25.0  # at most [N m]
SHANK = (0.25, 0.3)  # of the shank in stance, outwards and down [m]


class Ant(JointTargets):
    """Ant of 10 kg, 8 position servos; action: joint targets around a stance, 20 Hz.

    The body plan is that of Schulman et al. 2015 (arXiv 1506.02438): a round torso and four legs
    with a hip about the vertical and an ankle each. It is nobody's robot: masses, servos and
    dimensions are ours.
    """

    name: ClassVar[str] = "ant"
    task: ClassVar[str] = "direction"
    speed: ClassVar[float] = 1.0
    spec = joint_spec("ant", DT, JOINTS, keep=math.exp(-DT / TAU))
    legs: ClassVar[dict[str, Leg]] = limbs(*JOINTS)
    stance = np.tile(STANCE, len(LEGS))
    reach = np.tile(REACH, len(LEGS))
    tau = TAU

    @classmethod
    def build(cls) -> mujoco.MjModel:
        """Compile the MJCF below."""
        return compiled(mujoco.MjSpec.from_string(_mjcf("position")))


class AntTorque(SimRobot):
    """The ant without its servos; action: torque per joint, 20 Hz."""

    name: ClassVar[str] = "ant_torque"
    task: ClassVar[str] = "direction"
    speed: ClassVar[float] = 1.0
    spec = joint_spec("ant_torque", DT, JOINTS)
    torso = "torso"
    legs: ClassVar[dict[str, Leg]] = limbs(*JOINTS)

    @classmethod
    def build(cls) -> mujoco.MjModel:
        """Compile the MJCF below."""
        return compiled(mujoco.MjSpec.from_string(_mjcf("motor")))

    def place(self) -> np.ndarray:
        """Lie down from near the stance, at the origin and heading along x."""
        self.data.qpos[7:] += self.rng.uniform(-0.1, 0.1, self.spec.num_act)
        mujoco.mj_step(self.model, self.data, round(2 * SETTLE_S / TIMESTEP))
        self.data.qpos[:2] = 0.0
        return np.zeros(0)

    def observe(
        self,
        qpos: Float[np.ndarray, "*b q"],
        qvel: Float[np.ndarray, "*b v"],
        carry: Float[np.ndarray, "*b c"],
    ) -> Float[np.ndarray, "*b o"]:
        """The body, joint angles and rates."""
        return np.concatenate([observe_body(qpos, qvel), qpos[..., 7:15], qvel[..., 6:14]], -1)

    def controls(
        self, carry: Float[np.ndarray, "n c"], acts: Float[np.ndarray, "n h u"]
    ) -> tuple[Float[np.ndarray, "n s a"], Float[np.ndarray, "n h c"]]:
        """Each torque is held for the whole control period."""
        return acts, acts[..., :0]


def _mjcf(drive: str) -> str:
    """Torso 6 kg, a disc of 36 cm; legs of 1 kg; ``drive`` is ``position`` or ``motor``."""
    legs, actuators = [], []
    for name in LEGS:
        ahead = math.sqrt(0.5) * (1 if name[0] == "F" else -1)
        out = math.sqrt(0.5) * (1 if name[1] == "L" else -1)
        side = 1 if name[1] == "L" else -1
        x, y = SHANK[0] * ahead, SHANK[0] * out
        legs.append(f"""
        <body name="{name}" pos="{0.18 * ahead} {0.18 * out} 0">
          <joint name="{name}_hip" axis="0 0 {-side}" range="-0.8 0.8"/>
          <geom type="capsule" fromto="0 0 0 {0.2 * ahead} {0.2 * out} 0" size="0.035"
                mass="0.6"/>
          <body name="{name}_shank" pos="{0.2 * ahead} {0.2 * out} 0">
            <joint name="{name}_ankle" axis="{out} {-ahead} 0" range="-0.9 0.7"/>
            <geom type="capsule" fromto="0 0 0 {x} {y} {-SHANK[1]}" size="0.025" mass="0.35"/>
            <geom class="foot" name="{name}_foot" pos="{x} {y} {-SHANK[1]}" size="0.03"
                  mass="0.05"/>
          </body>
        </body>""")
        actuators += [f'<{drive} joint="{name}_{joint}"/>' for joint in JOINTS]
    torso = f"""
        <body name="torso" pos="0 0 {SHANK[1] + 0.03}">
          <freejoint/>
          <geom name="torso" class="hull" type="cylinder" size="0.18 0.06" mass="6"/>
          <geom name="nose" type="sphere" size="0.04" pos="0.18 0 0.03" mass="0"
                rgba="0.95 0.75 0.2 1"/>
          {"".join(legs)}
        </body>"""
    damping, actuator = {
        "position": (KD, f'<position kp="{KP}" forcerange="-{TORQUE} {TORQUE}"/>'),
        "motor": (0.5, f'<motor gear="{TORQUE}" ctrlrange="-1 1"/>'),
    }[drive]
    default = f'<joint armature="0.02" damping="{damping}"/>{actuator}'
    return world("ant", f'timestep="{TIMESTEP}"', default, torso, "".join(actuators))
