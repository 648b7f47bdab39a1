"""A good driver of a made-up arm with two joints, and what can be wrong with one."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from mbmrl.spec import Field, RobotSpec
from robots.base import ENDING, Robot
from tests.dummy import PointMass

SPEC = RobotSpec(
    name="arm",
    dt=0.05,
    obs=(
        Field("hip", "rad", -2, 2),
        Field("knee", "rad", -2, 2),
        Field("hip_rate", "rad/s"),
        Field("knee_rate", "rad/s"),
    ),
    act=(Field("hip_to", "rad", -1.5, 1.5), Field("knee_to", "rad", -1.5, 1.5)),
    safe_act=(0.5, -0.5),
    command="position",
    stale_after=0.2,
)
FOLLOW = 4.0  # how fast the joints go to their targets [1/s]


class Arm(Robot):
    """Two joints that follow their targets, with the wall clock as their physics."""

    spec: ClassVar[RobotSpec] = SPEC
    asked: ClassVar[list[np.ndarray]] = []
    resets: ClassVar[list[float]] = []

    def __init__(self) -> None:
        self.plugged, self.connected = True, False
        self.lock = threading.Lock()
        self.angle, self.target = SPEC.rest + 0.05, SPEC.rest.copy()
        self.at = time.monotonic()

    def connect(self) -> None:
        self.connected = True

    def reset(self) -> None:
        self.resets.append(time.monotonic())

    def read(self) -> np.ndarray:
        if not (self.plugged and self.connected):
            raise ConnectionError("no arm on the bus")
        with self.lock:
            now = time.monotonic()
            gap = self.target - self.angle
            self.angle = self.angle + gap * (1 - math.exp(-FOLLOW * (now - self.at)))
            self.at = self.stamp = now
            return np.r_[self.angle, FOLLOW * (self.target - self.angle)]

    def write(self, act: np.ndarray) -> np.ndarray:
        if not (self.plugged and self.connected):
            raise ConnectionError("no arm on the bus")
        if not np.isfinite(act).all():
            raise ValueError(f"{act} is no target")
        self.asked.append(act.copy())
        with self.lock:
            self.target = np.clip(act, SPEC.act_low, SPEC.act_high)
        return self.target

    def stop(self) -> None:
        self.connected = False

    def pull(self) -> None:
        self.plugged = False


class SlowRead(Arm):
    def read(self) -> np.ndarray:
        time.sleep(1.2 * SPEC.dt)
        return super().read()


class DeadRead(Arm):
    def read(self) -> np.ndarray:
        time.sleep(60.0)
        return super().read()


class OldReading(Arm):
    """Answers with what it read first."""

    def read(self) -> np.ndarray:
        self.first = getattr(self, "first", super().read())
        return self.first


class OldStamp(Arm):
    def read(self) -> np.ndarray:
        obs = super().read()
        self.stamp = self.first_stamp = getattr(self, "first_stamp", self.stamp)
        return obs


class LateReading(Arm):
    """A reading of half a second ago."""

    def read(self) -> np.ndarray:
        obs = super().read()
        self.stamp = time.monotonic() - 0.5
        return obs


class WallClock(Arm):
    def read(self) -> np.ndarray:
        obs = super().read()
        self.stamp = time.time()
        return obs


class Unclamped(Arm):
    def write(self, act: np.ndarray) -> np.ndarray:
        super().write(act)
        return act


class SendsNaN(Arm):
    def write(self, act: np.ndarray) -> np.ndarray:
        return act if np.isnan(act).any() else super().write(act)


class ReadsNaN(Arm):
    def read(self) -> np.ndarray:
        obs = super().read()
        obs[1] = np.nan
        return obs


class Degrees(Arm):
    def read(self) -> np.ndarray:
        return np.r_[np.degrees(super().read()[:2]), super().read()[2:]]


class DegreesPerSecond(Arm):
    def read(self) -> np.ndarray:
        return super().read() * [1, 1, 180 / math.pi, 180 / math.pi]


class KneeFirst(Arm):
    def write(self, act: np.ndarray) -> np.ndarray:
        return super().write(act[::-1])


class Turned(Arm):
    """One sensor counts the other way than its rate."""

    def read(self) -> np.ndarray:
        return super().read() * [-1, 1, 1, 1]


class StopsOnce(Arm):
    def stop(self) -> None:
        if not self.connected:
            raise RuntimeError("already stopped")
        super().stop()


class StopsTwiceNot(Arm):
    """Fails the second time only after it was connected."""

    def connect(self) -> None:
        super().connect()
        self.stops = 0

    def stop(self) -> None:
        super().stop()
        self.stops = getattr(self, "stops", -9) + 1
        if self.stops == 2:
            raise OSError("the port is closed")


class StopHangs(Arm):
    """Only the thread that connected may stop it; others wait for ever."""

    def connect(self) -> None:
        self.thread = threading.get_ident()
        super().connect()

    def stop(self) -> None:
        if getattr(self, "thread", None) not in (None, threading.get_ident()):
            time.sleep(60.0)
        super().stop()


class ConnectsOnce(Arm):
    def connect(self) -> None:
        if hasattr(self, "used"):
            raise OSError("the port is busy")
        self.used = True
        super().connect()


class Short(Arm):
    def read(self) -> np.ndarray:
        return super().read()[:3]


class Silent(Arm):
    def write(self, act: np.ndarray) -> np.ndarray:
        super().write(act)
        return None  # type: ignore[return-value]


class NeverMissed(Arm):
    """Goes on with its last reading when the cable is out."""

    def pull(self) -> None:
        self.read = lambda: np.zeros(4)  # type: ignore[method-assign]
        self.write = lambda act: act  # type: ignore[method-assign]


class InDegrees(Arm):
    spec = dataclasses.replace(SPEC, obs=(Field("hip", "deg"), *SPEC.obs[1:]))


class UnsafeRest(Arm):
    spec = dataclasses.replace(SPEC, safe_act=(1.7, 0.0))


class NoSpec(Arm):
    spec = None  # type: ignore[assignment]


class Ended(PointMass):
    """Its program is told to end at the tenth tick, and again and again while it is stopped."""

    number: ClassVar[int] = signal.SIGTERM
    stops: ClassVar[list[str]] = []

    def __init__(self) -> None:
        super().__init__()
        self.tick = 0

    def read(self) -> np.ndarray:
        self.tick += 1
        if self.tick == 10:
            os.kill(os.getpid(), self.number)
        return super().read()

    def stop(self) -> None:
        self.stops.append("begins")
        for number in ENDING:
            os.kill(os.getpid(), number)
        time.sleep(0.05)
        self.stops.append("ends")


FAULTS: list[tuple[Callable[[], Arm], str, str]] = [
    (SlowRead, "read() takes", "p99"),
    (DeadRead, "read()", "gave up"),
    (OldReading, "readings are new", "the same"),
    (OldStamp, "stamps", "never move on"),
    (LateReading, "stamps", "stale_after"),
    (WallClock, "stamps", "time.monotonic"),
    (Unclamped, "an action beyond its limits", "hip_to, knee_to beyond"),
    (SendsNaN, "an action that is no number", "was sent"),
    (ReadsNaN, "readings are plausible", "knee is not finite"),
    (Degrees, "readings are plausible", "leaves its limits"),
    (DegreesPerSecond, "readings are plausible", "degrees for radians"),
    (KneeFirst, "write() returns", "in another order"),
    (Turned, "readings are plausible", "moves against hip_rate"),
    (StopsOnce, "stop() before connect()", "already stopped"),
    (StopsTwiceNot, "stop() again", "the port is closed"),
    (StopHangs, "stop() from another thread", "did not return"),
    (ConnectsOnce, "connect() after stop()", "the port is busy"),
    (Short, "read() returns", "(3,)"),
    (Silent, "write() returns", "None"),
    (NeverMissed, "read() or write() without the robot", "nobody would notice"),
    (InDegrees, "the spec's units and safe action", "'deg'"),
    (UnsafeRest, "the spec's units and safe action", "hip_to"),
    (NoSpec, "the spec", "no RobotSpec"),
]
"""Each with the check that finds it, and what that says."""
