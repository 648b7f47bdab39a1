"""What the four-legged robots share: what they measure, how they mirror, and their world."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import ClassVar

import mujoco
import numpy as np
from jaxtyping import Float

from mbmrl.spec import Field, RobotSpec
from robots.frames import BODY, BODY_MIRROR, POSE, observe_body
from robots.scenery import scenery
from robots.sim import Leg, SimRobot

LEGS = ("FL", "FR", "RL", "RR")
OTHER_SIDE = {"FL": "FR", "FR": "FL", "RL": "RR", "RR": "RL"}
SETTLE_S = 0.5  # before an episode [s]


def swapped(names: Iterable[str]) -> dict[str, tuple[str, float]]:
    """The mirror of fields whose names begin or end with a leg's: the same, on the other side."""
    return {n: ("_".join(OTHER_SIDE.get(p, p) for p in n.split("_")), 1.0) for n in names}


def limbs(*joints: str) -> dict[str, Leg]:
    """The :data:`LEGS`; their joints, the one that swings them first, are called ``FL_…``."""
    side = {"L": "left", "R": "right"}
    return {n: Leg(n, tuple(f"{n}_{joint}" for joint in joints), side[n[1]]) for n in LEGS}


def chain(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each name after the one before it, the first after ``""``."""
    return zip(("", *names), names, strict=False)


def joint_spec(
    name: str, dt: float, joints: Sequence[str], *, keep: float | None = None
) -> RobotSpec:
    """Body and joints are measured; the action is one number in [−1, 1] a joint.

    Args:
        name: of the robot.
        dt: control period [s].
        joints: of each leg, from the body outwards.
        keep: share of the filtered target that is left after one control period; None where the
            action is a torque, which nothing filters.
    """
    tree = {f"{leg}_{j}": f"{leg}_{i}" if i else "" for leg in LEGS for i, j in chain(joints)}
    joints = [*tree]
    rates = [f"{joint}_rate" for joint in joints]
    targets = [f"{joint}_target" for joint in joints] if keep is not None else []
    acts = [f"{joint}_{'torque' if keep is None else 'offset'}" for joint in joints]
    share = keep or 0.0
    return RobotSpec(
        name=name,
        dt=dt,
        obs=(
            *BODY,
            *(Field(joint, "rad") for joint in joints),
            *(Field(rate, "rad/s") for rate in rates),
            *(Field(target, "1", -1, 1) for target in targets),
        ),
        act=tuple(Field(act, "1", -1, 1) for act in acts),
        pose=POSE,
        known={t: {t: share, a: 1 - share} for t, a in zip(targets, acts, strict=False)},
        mirror=BODY_MIRROR | swapped([*joints, *rates, *targets, *acts]),
        tree=tree,
    )


class JointTargets(SimRobot):
    """A robot on a free joint with a position servo in each joint of its legs.

    An action moves each joint's target from the stance by a share of its reach; a first-order
    filter stands between the action and the servo.
    """

    torso = "torso"
    stance: ClassVar[Float[np.ndarray, " u"]]
    reach: ClassVar[Float[np.ndarray, " u"]]
    tau: ClassVar[float]

    @cached_property
    def _left(self) -> Float[np.ndarray, "s 1"]:
        """Share of the old target that is left after each simulation step."""
        steps = np.arange(1, self.substeps + 1)[:, None]
        return np.exp(-steps * self.nominal.opt.timestep / self.tau)

    def place(self) -> np.ndarray:
        """Stand at the origin, heading along x, near the stance, and settle."""
        target = self.rng.uniform(-0.1, 0.1, self.spec.num_act)
        self.data.ctrl[:] = self.data.qpos[7:] = self.stance + self.reach * target
        mujoco.mj_step(self.model, self.data, round(SETTLE_S / self.model.opt.timestep))
        self.data.qpos[:2] = 0.0
        return target

    def observe(
        self,
        qpos: Float[np.ndarray, "*b q"],
        qvel: Float[np.ndarray, "*b v"],
        carry: Float[np.ndarray, "*b c"],
    ) -> Float[np.ndarray, "*b o"]:
        """The body, joint angles and rates, and the filtered targets."""
        joints = qpos[..., 7 : 7 + self.spec.num_act], qvel[..., 6 : 6 + self.spec.num_act]
        return np.concatenate([observe_body(qpos, qvel), *joints, carry], -1)

    def controls(
        self, carry: Float[np.ndarray, "n c"], acts: Float[np.ndarray, "n h u"]
    ) -> tuple[Float[np.ndarray, "n s a"], Float[np.ndarray, "n h c"]]:
        """The filtered targets, step by step."""
        n, h, joints = acts.shape
        targets = np.empty((n, h, self.substeps, joints))
        for t in range(h):
            act = acts[:, t, None]
            targets[:, t] = act + self._left * (carry[:, None] - act)
            carry = targets[:, t, -1]
        ctrl = self.stance + self.reach * targets.reshape(n, -1, joints)
        return ctrl, targets[:, :, -1]


def world(name: str, option: str, default: str, bodies: str, actuators: str) -> str:
    """MJCF of a robot on a checkered floor, which no part touches unless its conaffinity is 1."""
    return f"""
    <mujoco model="{name}">
      <compiler angle="radian"/>
      <option integrator="implicitfast" cone="pyramidal" iterations="20" {option}/>
      {scenery()}
      <default>
        <geom contype="0" conaffinity="0" rgba="0.25 0.30 0.38 1"/>
        {default}
        <default class="foot">
          <geom type="sphere" conaffinity="1" friction="0.9 0.005 0.0001" priority="1"
                rgba="0.1 0.1 0.12 1"/>
        </default>
        <default class="hull">
          <geom conaffinity="1" friction="0.5 0.005 0.0001" rgba="0.16 0.46 0.74 1"/>
        </default>
      </default>
      <worldbody>
        {bodies}
      </worldbody>
      <actuator>{actuators}</actuator>
    </mujoco>"""
