"""The same quadruped under a trot, steered by its stride amplitudes and a turn."""

from __future__ import annotations

import math
from typing import ClassVar

import mujoco
import numpy as np
from jaxtyping import Float

from mbmrl.spec import Field, RobotSpec
from robots.frames import BODY, BODY_MIRROR, POSE, observe_body
from robots.legged import LEGS, SETTLE_S, limbs, swapped
from robots.quadruped import LINK, TIMESTEP, mjcf
from robots.sim import Leg, SimRobot, compiled

DT = 0.1  # control period [s]
SERVO_PERIOD = 0.02  # the gait generator's own period [s]
GAIT_HZ = 2.5
HEIGHT = 0.26  # from foot to hip in stance [m]
STRIDE = 0.3  # swing of the leg at amplitude 1 [rad]
SWAY = 0.15  # sideways swing of the leg at a turn of 1 [rad]
BACKWARD = -0.3  # least amplitude: who could trot backwards as well as ahead would not turn round
LIFT = 0.05  # of the foot in the swing phase [m]
FILTER_TAU = 0.08  # time constant of the filter of amplitudes and turn [s]

TROT = np.array([0, 1, 1, 0]) * math.pi  # phase of each leg [rad]
AHEAD = np.array([1, 1, -1, -1])  # front or rear
OUT = np.array([1, -1, 1, -1])  # left or right
TICKS = round(DT / SERVO_PERIOD)
FILTER = 1 - math.exp(-SERVO_PERIOD / FILTER_TAU)
KEEP = (1 - FILTER) ** TICKS  # share of the old amplitude after one control period
PHASE = 2 * math.pi * GAIT_HZ * DT  # gained in one control period [rad]

FILTERED = (*(f"amp_{leg}" for leg in LEGS), "turn")
ACTIONS = (*(f"stride_{leg}" for leg in LEGS), "turning")

SPEC = RobotSpec(
    name="quadruped_gait",
    dt=DT,
    obs=(
        *BODY,
        Field("gait_sin", "1", -1, 1),
        Field("gait_cos", "1", -1, 1),
        *(Field(name, "1", -1, 1) for name in FILTERED),
    ),
    act=(*(Field(name, "1", BACKWARD, 1) for name in ACTIONS[:-1]), Field("turning", "1", -1, 1)),
    pose=POSE,
    known={
        "gait_sin": {"gait_sin": math.cos(PHASE), "gait_cos": math.sin(PHASE)},
        "gait_cos": {"gait_cos": math.cos(PHASE), "gait_sin": -math.sin(PHASE)},
        **{f: {f: KEEP, a: 1 - KEEP} for f, a in zip(FILTERED, ACTIONS, strict=True)},
    },
    tree=dict.fromkeys(LEGS, ""),
    mirror={
        **BODY_MIRROR,
        # the other diagonal leads: half a turn of the gait
        **{n: (n, -1.0) for n in ("gait_sin", "gait_cos", "turn", "turning")},
        **swapped((*FILTERED[:-1], *ACTIONS[:-1])),
    },
)


class QuadrupedGait(SimRobot):
    """The quadruped at a trot; action: stride amplitude per leg and a turn, 10 Hz."""

    name: ClassVar[str] = "quadruped_gait"
    task: ClassVar[str] = "path"
    speed: ClassVar[float] = 0.4
    spec = SPEC
    torso = "torso"
    legs: ClassVar[dict[str, Leg]] = limbs("hip", "knee", "abduction")

    @classmethod
    def build(cls) -> mujoco.MjModel:
        """Compile the quadruped's MJCF."""
        return compiled(mujoco.MjSpec.from_string(mjcf()))

    def place(self) -> np.ndarray:
        """Stand at the origin, heading along x, with a random gait phase."""
        bend = math.acos(HEIGHT / (2 * LINK))
        self.data.ctrl[:] = self.data.qpos[7:] = np.tile([0.0, bend, -2 * bend], len(LEGS))
        mujoco.mj_step(self.model, self.data, round(SETTLE_S / TIMESTEP))
        self.data.qpos[:2] = 0.0
        return np.array([self.rng.uniform(0, 2 * math.pi), *np.zeros(len(FILTERED))])

    def observe(
        self,
        qpos: Float[np.ndarray, "*b q"],
        qvel: Float[np.ndarray, "*b v"],
        carry: Float[np.ndarray, "*b c"],
    ) -> Float[np.ndarray, "*b o"]:
        """The body, gait phase, filtered amplitudes and turn."""
        phase = carry[..., :1]
        parts = [observe_body(qpos, qvel), np.sin(phase), np.cos(phase), carry[..., 1:]]
        return np.concatenate(parts, -1)

    def controls(
        self, carry: Float[np.ndarray, "n c"], acts: Float[np.ndarray, "n h u"]
    ) -> tuple[Float[np.ndarray, "n s a"], Float[np.ndarray, "n h c"]]:
        """The trot: legs swing ahead while they are lifted, front and rear to opposite sides."""
        n, h, _ = acts.shape
        phase, filtered = carry[:, :1], carry[:, 1:]
        ctrl = np.empty((n, h * TICKS, len(LEGS), 3))
        carries = np.empty((n, h, carry.shape[1]))
        for t in range(h * TICKS):
            filtered = filtered + FILTER * (acts[:, t // TICKS] - filtered)
            phase = phase + 2 * math.pi * GAIT_HZ * SERVO_PERIOD
            swing = -np.cos(phase + TROT)
            length = HEIGHT - LIFT * np.maximum(0, np.sin(phase + TROT))
            bend = np.arccos(length / (2 * LINK))
            ctrl[:, t, :, 0] = SWAY * AHEAD * OUT * filtered[:, 4:] * swing
            ctrl[:, t, :, 1] = bend - STRIDE * filtered[:, :4] * swing
            ctrl[:, t, :, 2] = -2 * bend
            if t % TICKS == TICKS - 1:
                carries[:, t // TICKS] = np.concatenate([phase % (2 * math.pi), filtered], 1)
        return ctrl.reshape(n, h * TICKS, -1), carries
