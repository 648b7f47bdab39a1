"""Robots whose episodes take milliseconds: a point mass on a rail, by hand and in MuJoCo."""

from __future__ import annotations

import os
import signal
from typing import ClassVar

import mujoco
import numpy as np

from mbmrl.settings import Settings
from mbmrl.spec import Field, RobotSpec
from robots.base import Robot
from robots.sim import Leg, SimRobot

DT = 0.1  # [s]

SPEC = RobotSpec(
    name="pointmass",
    dt=DT,
    obs=(Field("vx", "m/s"), Field("pitch", "rad")),
    act=(Field("force", "N", -1, 1),),
)

SETTINGS = Settings(
    adapter="bayes",
    hidden=(8,),
    window=4,
    plan={"horizon": 3, "num_samples": (8,), "num_knots": 2},
    true_plan={"horizon": 3, "num_samples": (8,), "num_knots": 2},
)
"""For tests that train nothing and need no good plan."""


class PointMass(Robot):
    """1 kg on a rail without friction; never pitches.

    Its arrays are filled again and again, as a driver's may be.
    """

    spec = SPEC

    def __init__(self) -> None:
        self.gain = 1.0
        self.stopped = 0
        self.obs, self.sent = np.zeros(2), np.zeros(1)

    def connect(self) -> None:
        self.stopped = 0

    def reset(self) -> None:
        self.obs[:] = 0.0

    def read(self) -> np.ndarray:
        return self.obs

    def write(self, act: np.ndarray) -> np.ndarray:
        np.clip(act, -1, 1, out=self.sent)
        self.obs[0] += DT * self.gain * self.sent[0]
        return self.sent

    def stop(self) -> None:
        self.stopped += 1


class Deaf(PointMass):
    """A point mass whose speed sensor fails at the tenth tick."""

    last: ClassVar[Deaf]

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        Deaf.last = self

    def read(self) -> np.ndarray:
        self.count += 1
        return np.array([np.nan, 0.0]) if self.count > 10 else super().read()


class Unplugged(Deaf):
    """A point mass whose cable is pulled at the tenth tick."""

    def read(self) -> np.ndarray:
        if self.count == 10:
            raise ConnectionError("the cable is out")
        return super().read()


class Interrupted(Deaf):
    """A point mass whose program is told to end at the tenth tick."""

    def read(self) -> np.ndarray:
        if self.count == 10:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().read()


class SimPointMass(SimRobot):
    """The same, simulated; its motor is the only thing that can break."""

    spec = SPEC
    torso = "mass"
    legs: ClassVar[dict[str, Leg]] = {"motor": Leg("mass", ("rail",))}

    @classmethod
    def build(cls) -> mujoco.MjModel:
        return mujoco.MjModel.from_xml_string("""
        <mujoco>
          <option timestep="0.02" gravity="0 0 0"/>
          <worldbody>
            <body name="mass">
              <joint name="rail" type="slide" axis="1 0 0"/>
              <geom type="sphere" size="0.1" mass="1"/>
            </body>
          </worldbody>
          <actuator><motor joint="rail" ctrlrange="-1 1"/></actuator>
        </mujoco>""")

    def place(self) -> np.ndarray:
        self.data.qvel[0] = self.rng.uniform(-0.1, 0.1)
        return np.zeros(0)

    def observe(self, qpos: np.ndarray, qvel: np.ndarray, carry: np.ndarray) -> np.ndarray:
        return np.concatenate([qvel, np.zeros_like(qvel)], -1)

    def controls(self, carry: np.ndarray, acts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n, h, _ = acts.shape
        return np.repeat(acts, self.substeps, axis=1), np.zeros((n, h, 0))
