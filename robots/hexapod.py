"""The flagship: a small six-legged robot under a tripod gait, steered by its stride amplitudes."""

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
TIMESTEP = 0.01  # simulation step [s]
SERVO_PERIOD = 0.02  # the gait generator's own period [s]
GAIT_HZ = 2.0
STRIDE = 0.5  # swing angle at amplitude 1 [rad]
LIFT = 0.4  # lift angle of the swing phase [rad]
STANCE = -0.05  # lift angle of the stance phase [rad]
AMPLITUDE_TAU = 0.08  # time constant of the amplitude filter [s]

LEGS = ("L0", "L1", "L2", "R0", "R1", "R2")
TRIPOD = np.array([0, 1, 0, 1, 0, 1]) * math.pi  # phase of each leg [rad]
TICKS = round(DT / SERVO_PERIOD)
FILTER = 1 - math.exp(-SERVO_PERIOD / AMPLITUDE_TAU)
KEEP = (1 - FILTER) ** TICKS  # share of the old amplitude after one control period
TURN = 2 * math.pi * GAIT_HZ * DT  # phase gained in one control period [rad]

AMPLITUDES = tuple(f"amp_{leg}" for leg in LEGS)
STRIDES = tuple(f"stride_{leg}" for leg in LEGS)


def _other_side(name: str) -> str:
    return name.replace("_L", "_#").replace("_R", "_L").replace("_#", "_R")


SPEC = RobotSpec(
    name="hexapod",
    dt=DT,
    obs=(
        *without("z"),
        Field("gait_sin", "1", -1, 1),
        Field("gait_cos", "1", -1, 1),
        *(Field(name, "1", -1, 1) for name in AMPLITUDES),
    ),
    act=tuple(Field(name, "1", -1, 1) for name in STRIDES),
    pose=POSE,
    known={
        "gait_sin": {"gait_sin": math.cos(TURN), "gait_cos": math.sin(TURN)},
        "gait_cos": {"gait_cos": math.cos(TURN), "gait_sin": -math.sin(TURN)},
        **{a: {a: KEEP, s: 1 - KEEP} for a, s in zip(AMPLITUDES, STRIDES, strict=True)},
    },
    tree=dict.fromkeys(LEGS, ""),
    mirror={
        **BODY_MIRROR,
        # the other tripod leads: half a turn of the gait
        **{n: (n, -1.0) for n in ("gait_sin", "gait_cos")},
        **{n: (_other_side(n), 1.0) for n in (*AMPLITUDES, *STRIDES)},
    },
)


class Hexapod(SimRobot):
    """Hexapod, 12 position servos, tripod gait; action: stride amplitude per leg, 10 Hz."""

    name: ClassVar[str] = "hexapod"
    task: ClassVar[str] = "path"
    spec = SPEC
    torso = "torso"
    legs: ClassVar[dict[str, Leg]] = {
        leg: Leg(leg, (f"{leg}_swing", f"{leg}_lift"), "left" if leg[0] == "L" else "right")
        for leg in LEGS
    }

    @classmethod
    def build(cls) -> mujoco.MjModel:
        """Compile the MJCF below."""
        return compiled(mujoco.MjSpec.from_string(_mjcf()))

    def place(self) -> np.ndarray:
        """Stand at the origin, heading along x, with a random gait phase; let it settle."""
        phase = self.rng.uniform(0, 2 * math.pi)
        carry = np.array([phase, *np.zeros(len(LEGS))])
        ctrl, carries = self.controls(carry[None], np.zeros((1, 2, len(LEGS))))
        self.move(ctrl[0], 2)
        self.data.qpos[:2] = 0.0
        return carries[0, -1]

    def observe(
        self,
        qpos: Float[np.ndarray, "*b q"],
        qvel: Float[np.ndarray, "*b v"],
        carry: Float[np.ndarray, "*b c"],
    ) -> Float[np.ndarray, "*b o"]:
        """Pose, body-frame velocity, roll, pitch, body rates, gait phase, filtered amplitudes."""
        body, phase = observe_body(qpos, qvel, "z"), carry[..., :1]
        return np.concatenate([body, np.sin(phase), np.cos(phase), carry[..., 1:]], -1)

    def controls(
        self, carry: Float[np.ndarray, "n c"], acts: Float[np.ndarray, "n h u"]
    ) -> tuple[Float[np.ndarray, "n s a"], Float[np.ndarray, "n h c"]]:
        """The tripod gait: swing = −amplitude · cos(phase), lift while it swings ahead."""
        n, h, legs = acts.shape
        phase, amplitude = carry[:, :1], carry[:, 1:]
        ctrl = np.empty((n, h * TICKS, legs, 2))
        carries = np.empty((n, h, 1 + legs))
        for t in range(h * TICKS):
            amplitude = amplitude + FILTER * (acts[:, t // TICKS] - amplitude)
            phase = phase + 2 * math.pi * GAIT_HZ * SERVO_PERIOD
            leg_phase = phase + TRIPOD
            ctrl[:, t, :, 0] = -STRIDE * amplitude * np.cos(leg_phase)
            ctrl[:, t, :, 1] = LIFT * np.maximum(0, np.sin(leg_phase)) + STANCE
            if t % TICKS == TICKS - 1:
                carries[:, t // TICKS] = np.concatenate([phase % (2 * math.pi), amplitude], 1)
        return ctrl.reshape(n, h * TICKS, 2 * legs), carries


def _mjcf() -> str:
    """Torso 2.5 kg, 40 × 16 cm; legs of 130 g with a swing and a lift servo each."""
    bodies, actuators = [], []
    for leg in LEGS:
        out = 1 if leg[0] == "L" else -1
        x = (0.16, 0.0, -0.16)[int(leg[1])]
        bodies.append(f"""
        <body name="{leg}" pos="{x} {0.09 * out} 0">
          <joint name="{leg}_swing" axis="0 0 {-out}" range="-60 60"/>
          <geom class="shell" fromto="0 0 0 0 {0.02 * out} 0" size="0.015" mass="0.03"/>
          <body name="{leg}_shank" pos="0 {0.02 * out} 0">
            <joint name="{leg}_lift" axis="{out} 0 0" range="-50 70"/>
            <geom class="shell" fromto="0 0 0 0 {0.1 * out} 0" size="0.012" mass="0.05"/>
            <geom class="shell" fromto="0 {0.1 * out} 0 0 {0.12 * out} -0.11" size="0.01"
                  mass="0.04"/>
            <geom class="foot" name="{leg}_foot" pos="0 {0.12 * out} -0.11"/>
          </body>
        </body>""")
        actuators.append(f'<position joint="{leg}_swing" kp="12" forcerange="-4 4"/>')
        actuators.append(f'<position joint="{leg}_lift" kp="30" forcerange="-6 6"/>')
    return f"""
    <mujoco model="hexapod">
      <compiler angle="degree"/>
      <option timestep="{TIMESTEP}" integrator="implicitfast" cone="pyramidal" iterations="20"/>
      {scenery()}
      <default>
        <joint damping="0.3" armature="0.005"/>
        <default class="shell">
          <geom type="capsule" contype="0" conaffinity="0" rgba="0.25 0.30 0.38 1"/>
        </default>
        <default class="foot">
          <geom type="sphere" size="0.015" mass="0.01" friction="0.9 0.005 0.0001" priority="1"
                rgba="0.1 0.1 0.12 1"/>
        </default>
      </default>
      <worldbody>
        <body name="torso" pos="0 0 0.13">
          <freejoint/>
          <geom name="torso" type="box" size="0.2 0.08 0.03" mass="2.5" friction="0.5 0.005 0.0001"
                rgba="0.16 0.46 0.74 1"/>
          <geom name="nose" class="shell" type="sphere" size="0.025" pos="0.2 0 0.02" mass="0.01"
                rgba="0.95 0.75 0.2 1"/>
          {"".join(bodies)}
        </body>
      </worldbody>
      <actuator>{"".join(actuators)}</actuator>
    </mujoco>"""
