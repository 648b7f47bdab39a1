"""A quadruped of the size of a Unitree A1, driven joint by joint."""

from __future__ import annotations

import math
from typing import ClassVar

import mujoco
import numpy as np

from robots.legged import LEGS, JointTargets, joint_spec, limbs, world
from robots.sim import Leg, compiled

DT = 0.05  # control period [s]
TIMESTEP = 0.01  # simulation step [s]
TAU = 0.05  # time constant of the target filter [s]

JOINTS = ("abduction", "hip", "knee")
LINK = 0.2  # length of thigh and of shank [m]
STANCE = (0.0, 0.9, -1.8)  # abduction, hip, knee [rad]
REACH = (0.25, 0.5, 0.5)  # of a target from the stance [rad]
KP, KD = 100.0, 2.0  # of the servos [N m/rad, N m s/rad]
TORQUE = 33.5  # at most [N m]


class Quadruped(JointTargets):
    """Quadruped of 12.8 kg, 12 position servos; action: joint targets around a stance, 20 Hz.

    Dimensions, masses, joint ranges and torque limits are those of the Unitree A1 as its maker
    describes it (github.com/unitreerobotics/unitree_ros, a1_description), with inertias of simple
    shapes; the servos' gains of 100 N m/rad and 2 N m s/rad are those that it is commonly run with
    under position control. The maker gives 3.3 m/s as its greatest speed.
    """

    name: ClassVar[str] = "quadruped"
    task: ClassVar[str] = "velocity"
    speed: ClassVar[float] = 0.4
    spec = joint_spec("quadruped", DT, JOINTS, keep=math.exp(-DT / TAU))
    legs: ClassVar[dict[str, Leg]] = limbs("hip", "knee", "abduction")
    stance = np.tile(STANCE, len(LEGS))
    reach = np.tile(REACH, len(LEGS))
    tau = TAU

    @classmethod
    def build(cls) -> mujoco.MjModel:
        """Compile the MJCF below."""
        return compiled(mujoco.MjSpec.from_string(mjcf()))


def mjcf() -> str:
    """Trunk 6 kg; legs of 1.7 kg with an abduction, a hip and a knee each."""
    legs, actuators = [], []
    for name in LEGS:
        ahead = 1 if name[0] == "F" else -1
        out = 1 if name[1] == "L" else -1
        legs.append(f"""
        <body name="{name}" pos="{0.1805 * ahead} {0.047 * out} 0">
          <joint name="{name}_abduction" axis="{out} 0 0" range="-0.803 0.803"/>
          <geom type="cylinder" size="0.046 0.02" zaxis="1 0 0" mass="0.595"/>
          <body name="{name}_thigh" pos="0 {0.0838 * out} 0">
            <joint name="{name}_hip" axis="0 1 0" range="-1.047 4.189"/>
            <geom type="capsule" fromto="0 0 0 0 0 -{LINK}" size="0.02" mass="0.888"/>
            <body name="{name}_shank" pos="0 0 -{LINK}">
              <joint name="{name}_knee" axis="0 1 0" range="-2.697 -0.916"/>
              <geom type="capsule" fromto="0 0 0 0 0 -{LINK}" size="0.01" mass="0.151"/>
              <geom class="foot" name="{name}_foot" pos="0 0 -{LINK}" size="0.02" mass="0.06"/>
            </body>
          </body>
        </body>""")
        actuators += [f'<position joint="{name}_{joint}"/>' for joint in JOINTS]
    torso = f"""
        <body name="torso" pos="0 0 {2 * LINK * math.cos(STANCE[1]) + 0.03}">
          <freejoint/>
          <geom name="torso" class="hull" type="box" size="0.1335 0.097 0.057" mass="6"/>
          <geom name="nose" type="box" size="0.02 0.06 0.03" pos="0.14 0 0" mass="0"
                rgba="0.95 0.75 0.2 1"/>
          {"".join(legs)}
        </body>"""
    default = f"""
        <joint armature="0.01" damping="{KD}"/>
        <position kp="{KP}" forcerange="-{TORQUE} {TORQUE}"/>"""
    return world("quadruped", f'timestep="{TIMESTEP}"', default, torso, "".join(actuators))
