"""A fish that swims in three dimensions: dm_control's, with a servo or a motor a fin joint."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import ClassVar

import mujoco
import numpy as np
from jaxtyping import Float

from mbmrl.spec import Field, RobotSpec
from robots.frames import BODY, BODY_MIRROR, POSE, observe_body
from robots.sim import Leg, SimRobot, compiled, turn_body

DT = 0.1  # control period [s]
TIMESTEP = 0.02  # simulation step [s]
STOP_TIMESTEP = 0.0125  # the same where joints have stops, which a torrent shakes [s]
HEIGHT = 0.5  # above the ground where an episode begins [m]
STOP = 0.03, 1.0  # how a joint is pushed back from its end: time constant [s], damping ratio
SOLID = 0.9, 0.95, 0.05, 0.5, 2.0  # MuJoCo's own impedance, within 0.05 rad
FIN_ROLL_KP = 1.5e-4  # of a fin's own servo: half the suite's, which flaps both [N m/rad]

DRIVEN = (
    "tail1",
    "tail_twist",
    "finleft_pitch",
    "finright_pitch",
    "finleft_roll",
    "finright_roll",
)
JOINTS = (
    "tail1",
    "tail_twist",
    "tail2",  # follows on a spring
    "finright_roll",
    "finright_pitch",
    "finleft_roll",
    "finleft_pitch",
)


def _other_side(name: str) -> str:
    return name.replace("left", "#").replace("right", "left").replace("#", "right")


MIRRORED = {j: (_other_side(j), 1.0 if j.endswith("pitch") else -1.0) for j in JOINTS}


def _spec(name: str, command: str, unit: str) -> RobotSpec:
    """Body and joints are measured; the actions are called ``command_…``."""
    return RobotSpec(
        name=name,
        dt=DT,
        obs=(
            *BODY,
            *(Field(joint, "rad") for joint in JOINTS),
            *(Field(f"{joint}_rate", "rad/s") for joint in JOINTS),
        ),
        act=tuple(Field(f"{command}_{joint}", unit, -1, 1) for joint in DRIVEN),
        pose=POSE,
        tree={
            "tail1": "",
            "tail_twist": "tail1",
            "tail2": "tail_twist",
            "finright_roll": "",
            "finright_pitch": "finright_roll",
            "finleft_roll": "",
            "finleft_pitch": "finleft_roll",
        },
        mirror={
            **BODY_MIRROR,
            **MIRRORED,
            **{f"{j}_rate": (f"{other}_rate", sign) for j, (other, sign) in MIRRORED.items()},
            **{f"{command}_{j}": (f"{command}_{MIRRORED[j][0]}", MIRRORED[j][1]) for j in DRIVEN},
        },
    )


class Fish(SimRobot):
    """Fish in dense water that carries its weight, 6 position servos; action: joint targets, 10 Hz.

    The suite moves both fins by one flapping servo. Here each fin rolls on a servo of its own,
    as strong for a flap of both.

    Source: Tassa et al. 2018, "DeepMind Control Suite" (arXiv 1801.00690).
    """

    name: ClassVar[str] = "fish"
    task: ClassVar[str] = "reach"
    speed: ClassVar[float | None] = 0.02
    size: ClassVar[float] = 0.2
    spec = _spec("fish", "target", "rad")
    torso = "torso"
    legs: ClassVar[dict[str, Leg]] = {
        "tail": Leg("tail1", ("tail1", "tail_twist")),
        "finleft": Leg("finleft", ("finleft_roll", "finleft_pitch"), "left"),
        "finright": Leg("finright", ("finright_roll", "finright_pitch"), "right"),
    }

    @classmethod
    def build(cls) -> mujoco.MjModel:
        """The suite's, with servos."""
        return compiled(_mjspec())

    def place(self) -> np.ndarray:
        """Float at the origin, heading along x, with fins and tail as they happen to be."""
        for joint in JOINTS:
            self.data.joint(joint).qpos = self.rng.uniform(-0.2, 0.2)
        return np.zeros(0)

    def observe(
        self,
        qpos: Float[np.ndarray, "*b q"],
        qvel: Float[np.ndarray, "*b v"],
        carry: Float[np.ndarray, "*b c"],
    ) -> Float[np.ndarray, "*b o"]:
        """Pose, height, body-frame velocity, roll, pitch, body rates, joint angles and rates."""
        return np.concatenate([observe_body(qpos, qvel), qpos[..., 7:], qvel[..., 6:]], -1)

    def controls(
        self, carry: Float[np.ndarray, "n c"], acts: Float[np.ndarray, "n h u"]
    ) -> tuple[Float[np.ndarray, "n s a"], Float[np.ndarray, "n h c"]]:
        """Each target is held for the whole control period."""
        return acts, acts[..., :0]


class FishTorque(Fish):
    """The fish without its servos; action: torque per joint, 10 Hz.

    Its motors, of 1e-4 to 5e-4 N m, are as strong as the servos are 1 rad from their targets; its
    joints have stops, where the suite only names an end.
    """

    name: ClassVar[str] = "fish_torque"
    spec = _spec("fish_torque", "torque", "1")

    @classmethod
    def build(cls) -> mujoco.MjModel:
        """The suite's, with motors."""
        spec = _mjspec()
        spec.option.timestep = STOP_TIMESTEP
        for actuator in spec.actuators:
            strength = actuator.gainprm[0]
            actuator.set_to_motor()
            actuator.gear[0] = strength
        for joint in DRIVEN:
            stop = spec.joint(joint)
            stop.limited, stop.solref_limit, stop.solimp_limit = True, STOP, SOLID
        return compiled(spec)


def _mjspec() -> mujoco.MjSpec:
    """The suite's fish, turned to face along x, without what it senses and aims at."""
    spec = mujoco.MjSpec.from_file(str(files("dm_control") / "suite" / "fish.xml"))
    actuators = {actuator.name: actuator for actuator in spec.actuators}
    for thing in (spec.geom("target"), actuators["fins_flap"], *spec.tendons):
        spec.delete(thing)
    for fin in ("finleft", "finright"):
        roll = spec.add_actuator(actuators["tail"].classname, name=f"{fin}_roll")
        roll.target, roll.trntype = f"{fin}_roll", mujoco.mjtTrn.mjTRN_JOINT
        roll.set_to_position(kp=FIN_ROLL_KP)
        roll.ctrlrange = -1, 1
    spec.option.timestep = TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    # Gravity and constraints act, so that a load sinks and a joint can seize.
    spec.option.disableflags = mujoco.mjtDisableBit.mjDSBL_CONTACT
    for body in spec.bodies[1:]:
        body.gravcomp = 1.0
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960
    ground = spec.geom("ground")
    ground.size, ground.contype, ground.conaffinity = (50, 50, 1), 0, 0
    spec.body("torso").pos = 0, 0, HEIGHT
    turn_body(spec.body("torso"), -math.pi / 2)
    return spec
