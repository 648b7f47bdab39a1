"""A small skid-steered rover: four wheels that slip whenever it turns."""

from __future__ import annotations

import math
from typing import ClassVar

import mujoco
import numpy as np
from jaxtyping import Float

from mbmrl.spec import Field, RobotSpec
from robots.frames import BODY_MIRROR, POSE, observe_body, without
from robots.scenery import scenery
from robots.sim import Leg, SimRobot, compiled

DT = 0.1  # control period [s]
TIMESTEP = 0.005  # simulation step [s]
RADIUS = 0.098  # of a wheel [m]
WHEELBASE, TRACK = 0.262, 0.37559  # between the wheels' centres [m]
MAX_SPEED = 20.0  # of a wheel [rad/s]: 2 m/s, as the real one
MAX_TORQUE = 6.0  # of a wheel [N m]: with all four at full speed 480 W; the real one has 500 W
SERVO = 2.0  # gain of the wheel-speed servo [N m s/rad]
FRICTION = 0.7  # of rubber on a smooth floor

WHEELS = ("FL", "FR", "RL", "RR")
SPEEDS = tuple(f"speed_{wheel}" for wheel in WHEELS)
TARGETS = tuple(f"target_{wheel}" for wheel in WHEELS)


def _other_side(name: str) -> str:
    return name[:-1] + {"L": "R", "R": "L"}[name[-1]]


SPEC = RobotSpec(
    name="rover",
    dt=DT,
    obs=(
        *without("z", "vz"),
        *(Field(name, "rad/s") for name in SPEEDS),
    ),
    act=tuple(Field(name, "rad/s", -MAX_SPEED, MAX_SPEED) for name in TARGETS),
    pose=POSE,
    tree=dict.fromkeys(WHEELS, ""),
    mirror={
        **BODY_MIRROR,
        **{n: (_other_side(n), 1.0) for n in (*SPEEDS, *TARGETS)},
    },
)


class Rover(SimRobot):
    """Skid-steered rover of 18 kg, a speed servo a wheel; action: wheel speeds, 10 Hz.

    Masses, moments of inertia and dimensions are those of Clearpath's Jackal (from
    ``jackal_description``; its centre's 2 mm to the left and its small products of inertia are
    left out, for symmetry). The real one drives both wheels of a side by one motor.
    """

    name: ClassVar[str] = "rover"
    task: ClassVar[str] = "path"
    speed: ClassVar[float | None] = 0.8
    size: ClassVar[float] = 2.0
    spec = SPEC
    torso = "chassis"
    legs: ClassVar[dict[str, Leg]] = {
        wheel: Leg(wheel, (f"wheel_{wheel}",), "left" if wheel[1] == "L" else "right")
        for wheel in WHEELS
    }

    @classmethod
    def build(cls) -> mujoco.MjModel:
        """Compile the MJCF below."""
        return compiled(mujoco.MjSpec.from_string(_mjcf()))

    def place(self) -> np.ndarray:
        """Stand at the origin, heading about along x."""
        yaw = self.rng.uniform(-0.1, 0.1)
        self.data.qpos[3:7] = math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)
        mujoco.mj_step(self.model, self.data, 100)
        self.data.qpos[:2] = 0.0
        return np.zeros(0)

    def observe(
        self,
        qpos: Float[np.ndarray, "*b q"],
        qvel: Float[np.ndarray, "*b v"],
        carry: Float[np.ndarray, "*b c"],
    ) -> Float[np.ndarray, "*b o"]:
        """Pose, body-frame velocity, roll, pitch, body rates, wheel speeds."""
        return np.concatenate([observe_body(qpos, qvel, "z", "vz"), qvel[..., 6:]], -1)

    def controls(
        self, carry: Float[np.ndarray, "n c"], acts: Float[np.ndarray, "n h u"]
    ) -> tuple[Float[np.ndarray, "n s a"], Float[np.ndarray, "n h c"]]:
        """Each speed is held for the whole control period."""
        return acts, acts[..., :0]


def _mjcf() -> str:
    """The chassis' frame lies amid the wheels' centres.

    A wheel touches the floor as a ball of its radius does, at one point below its centre.
    """
    bodies, actuators = [], []
    for wheel in WHEELS:
        x = WHEELBASE / 2 * (1 if wheel[0] == "F" else -1)
        y = TRACK / 2 * (1 if wheel[1] == "L" else -1)
        bodies.append(f"""
        <body name="{wheel}" pos="{x} {y} 0">
          <joint name="wheel_{wheel}" axis="0 1 0"/>
          <inertial pos="0 0 0" mass="0.477" diaginertia="0.0013 0.0024 0.0013"/>
          <geom class="tread"/>
          <geom class="wheel"/>
          <geom class="hub"/>
        </body>""")
        actuators.append(
            f'<velocity name="{wheel}" joint="wheel_{wheel}" kv="{SERVO}" '
            f'ctrlrange="{-MAX_SPEED} {MAX_SPEED}" forcerange="{-MAX_TORQUE} {MAX_TORQUE}"/>'
        )
    return f"""
    <mujoco model="rover">
      <option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" iterations="20"/>
      {scenery(squares=1)}
      <default>
        <joint damping="0.02" armature="0.01"/>
        <default class="tread">
          <geom type="sphere" size="{RADIUS}" conaffinity="0" priority="1"
                friction="{FRICTION} 0.005 0.0001" rgba="0 0 0 0"/>
        </default>
        <default class="shell">
          <geom contype="0" conaffinity="0"/>
          <default class="wheel">
            <geom type="cylinder" size="{RADIUS} 0.02" zaxis="0 1 0" rgba="0.12 0.12 0.14 1"/>
          </default>
          <default class="hub">
            <geom type="box" size="0.06 0.022 0.012" rgba="0.75 0.76 0.78 1"/>
          </default>
        </default>
      </default>
      <worldbody>
        <body name="chassis" pos="0 0 {RADIUS}">
          <freejoint/>
          <inertial pos="0.012 0 0.0325" mass="16.523" diaginertia="0.3136 0.3922 0.4485"/>
          <geom name="chassis" type="box" size="0.21 0.155 0.092" pos="0 0 0.0575"
                conaffinity="0" friction="0.4 0.005 0.0001" rgba="0.16 0.46 0.74 1"/>
          <geom name="nose" class="shell" type="box" size="0.01 0.1 0.02" pos="0.21 0 0.1"
                rgba="0.95 0.75 0.2 1"/>
          {"".join(bodies)}
        </body>
      </worldbody>
      <actuator>{"".join(actuators)}</actuator>
    </mujoco>"""
