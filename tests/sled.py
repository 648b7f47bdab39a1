"""A robot, its checkpoint and planners for the ROS 2 tests, to be named on a command line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import mujoco
import numpy as np
import torch
from torch import Tensor

from controllers.mppi import MPPI
from mbmrl.bench import tick
from mbmrl.spec import Field, RobotSpec
from mbmrl.types import CostFn, Plan, RolloutFn
from robots.sim import Leg, SimRobot

DT = 0.05  # [s]
PUSH = (0.75, 0.5)  # what Pusher commands
SAFE = (0.125, -0.125)

SPEC = RobotSpec(
    name="sled",
    dt=DT,
    obs=(
        Field("vx", "m/s"),
        Field("pitch", "rad"),
        Field("a", "rad"),
        Field("b", "rad"),
        Field("a_rate", "rad/s"),
        Field("b_rate", "rad/s"),
    ),
    act=(Field("torque_a", "N·m", -1, 1), Field("torque_b", "N·m", -1, 1)),
    safe_act=SAFE,
)


class Sled(SimRobot):
    """A sled on a rail with two free arms."""

    name: ClassVar[str] = "sled"
    spec = SPEC
    torso = "sled"
    legs: ClassVar[dict[str, Leg]] = {"A": Leg("arm_a", ("a",)), "B": Leg("arm_b", ("b",))}

    @classmethod
    def build(cls) -> mujoco.MjModel:
        arm = '<geom type="capsule" fromto="0 0 0 0 0 -0.3" size="0.02" mass="0.2"/>'
        return mujoco.MjModel.from_xml_string(f"""
        <mujoco>
          <option timestep="0.005" gravity="0 0 -9.81"/>
          <worldbody>
            <body name="sled">
              <joint name="rail" type="slide" axis="1 0 0" damping="1"/>
              <geom type="sphere" size="0.1" mass="1" contype="0" conaffinity="0"/>
              <body name="arm_a"><joint name="a" axis="0 1 0" damping="0.2"/>{arm}</body>
              <body name="arm_b"><joint name="b" axis="0 1 0" damping="0.2"/>{arm}</body>
            </body>
          </worldbody>
          <actuator><motor joint="a"/><motor joint="b"/></actuator>
        </mujoco>""")

    def place(self) -> np.ndarray:
        self.data.qpos[1:] = self.rng.uniform(-0.1, 0.1, 2)
        return np.zeros(0)

    def observe(self, qpos: np.ndarray, qvel: np.ndarray, carry: np.ndarray) -> np.ndarray:
        level = np.zeros_like(qvel[..., :1])
        return np.concatenate([qvel[..., :1], level, qpos[..., 1:], qvel[..., 1:]], -1)

    def controls(self, carry: np.ndarray, acts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n, h, _ = acts.shape
        return np.repeat(acts, self.substeps, axis=1), np.zeros((n, h, 0))


class Tiny(MPPI):
    """Plans in a millisecond."""

    name: ClassVar[str] = "tiny"

    def __init__(self, *args: object, seed: int = 0, **_: object) -> None:
        super().__init__(*args, horizon=4, num_samples=(16,), num_knots=2, seed=seed)  # type: ignore[arg-type, misc]


class Pusher(Tiny):
    """Always the same push."""

    name: ClassVar[str] = "pusher"

    def plan(self, obs: Tensor, rollout: RolloutFn, cost: CostFn) -> Plan:
        plan = super().plan(obs, rollout, cost)
        return dataclasses.replace(plan, action=torch.tensor([PUSH]))


class Poisoned(Pusher):
    """NaN: one plan in twenty, and eight in a row in every hundred."""

    name: ClassVar[str] = "poisoned"
    count = 0

    def plan(self, obs: Tensor, rollout: RolloutFn, cost: CostFn) -> Plan:
        plan = super().plan(obs, rollout, cost)
        Poisoned.count += 1
        if Poisoned.count % 20 == 0 or Poisoned.count % 100 > 92:
            bad = torch.tensor([[float("nan"), float("inf")]])
            plan = dataclasses.replace(plan, action=bad)
        return plan


class Raising(Pusher):
    """Raises what nobody foresaw once it has planned for a while."""

    name: ClassVar[str] = "raising"
    count = 0

    def plan(self, obs: Tensor, rollout: RolloutFn, cost: CostFn) -> Plan:
        Raising.count += 1
        if Raising.count > 80:
            raise KeyError("a bug")
        return super().plan(obs, rollout, cost)


def save(folder: Path) -> Path:
    """A checkpoint of random weights."""
    tick.untrained(SPEC).save(folder)
    return folder
