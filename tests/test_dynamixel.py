"""The servo bus against an emulated one, in a process of its own, that things are done to."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mbmrl import registry
from mbmrl.spec import SpecError
from mbmrl.testing import examine

pytest.importorskip("dynamixel_sdk", reason="pip install 'mbmrl[dynamixel]'")
pytest.importorskip("ruamel.yaml", reason="pip install 'mbmrl[dynamixel]'")

from robots.dynamixel import GOAL, MIDDLE, RAD, TORQUE, WATCHDOG, BusError, Dynamixel, Servo

IDS = (1, 2, 3, 4, 5, 6)


class Emulated:
    """The other end of the bus."""

    def __init__(self, *ids: int) -> None:
        script = Path(__file__).parent / "servo_bus.py"
        self.process = subprocess.Popen(
            [sys.executable, str(script), *map(str, ids)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.port = self.process.stdout.readline().strip()

    def tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        time.sleep(0.02)

    def state(self) -> dict[int, bytes]:
        self.tell("state")
        assert self.process.stdout
        told = json.loads(self.process.stdout.readline())
        return {int(i): bytes(table) for i, table in told.items()}

    def torques(self) -> list[int]:
        return [table[TORQUE] for table in self.state().values()]


@pytest.fixture
def bus() -> Iterator[Emulated]:
    made = Emulated(*IDS)
    yield made
    made.process.kill()
    made.process.communicate()


def robot_of(bus: Emulated, tmp_path: Path, watchdog: float = 0.5, dt: float = 0.01) -> Dynamixel:
    servos = "\n".join(
        f"  - {{id: {i}, name: joint{i}, low: -1, high: 1.2, direction: {1 - 2 * (i % 2)}, "
        f"offset: 0.{i}}}"
        for i in IDS
    )
    file = tmp_path / "arm.yaml"
    file.write_text(
        f"name: arm\nport: {bus.port}\ndt: {dt}\nwatchdog: {watchdog}\nservos:\n{servos}\n"
    )
    return registry.load("robots", f"dynamixel={file}")()


def goal(table: bytes) -> int:
    return int.from_bytes(table[GOAL : GOAL + 4], "little", signed=True)


def steady(robot: Dynamixel, act: np.ndarray, ticks: int = 60) -> np.ndarray:
    for _ in range(ticks):
        obs = robot.read()
        robot.write(act)
        time.sleep(robot.spec.dt)
    return obs


# --- what it does -----------------------------------------------------------------------------


def test_nothing_jumps_when_the_torque_comes_on(bus: Emulated, tmp_path: Path) -> None:
    with robot_of(bus, tmp_path) as robot:
        obs = robot.read()
        for i, table in bus.state().items():
            assert table[TORQUE] == 1 and table[11] == 3 and table[WATCHDOG] == 25
            assert goal(table) == 2048 + 10 * i  # where the emulator put it
        np.testing.assert_allclose(obs[6:], 0)


def test_angles_follow_the_goals_in_the_users_frame(bus: Emulated, tmp_path: Path) -> None:
    """angle = direction · (position − middle) + offset, both ways."""
    with robot_of(bus, tmp_path) as robot:
        sent = robot.write(np.linspace(-0.5, 0.5, 6))
        np.testing.assert_allclose(sent, np.linspace(-0.5, 0.5, 6), atol=RAD / 2)
        for k, (i, table) in enumerate(bus.state().items()):
            turned = (-1 if i % 2 else 1) * (sent[k] - i / 10)
            assert goal(table) == round(turned / RAD) + MIDDLE
        np.testing.assert_allclose(steady(robot, sent)[:6], sent, atol=1e-9)


def test_rates_are_those_of_the_angles(bus: Emulated, tmp_path: Path) -> None:
    with robot_of(bus, tmp_path) as robot:
        robot.write(np.full(6, 1.0))
        before, at = robot.read(), robot.stamp
        time.sleep(0.03)
        after, later = robot.read(), robot.stamp
        assert at is not None and later is not None
        measured = (after[:6] - before[:6]) / (later - at)
        assert np.abs(measured).min() > 1.0
        np.testing.assert_allclose(after[6:], measured, rtol=0.5)  # a busy machine


def test_goals_beyond_the_limits_are_not_sent(bus: Emulated, tmp_path: Path) -> None:
    with robot_of(bus, tmp_path) as robot:
        for asked, limit in ((9.0, 1.2), (-9.0, -1.0)):
            sent = robot.write(np.full(6, asked))
            np.testing.assert_allclose(sent, limit, atol=RAD)
            assert (np.abs(sent) <= abs(limit)).all()
        with pytest.raises(ValueError, match="6 finite goals"):
            robot.write(np.full(6, np.nan))
        for servo, table in zip(robot.servos, bus.state().values(), strict=True):
            assert servo.low <= servo.angle(goal(table)) <= servo.high


def test_stopping_lets_go_of_the_motors_as_often_as_asked(bus: Emulated, tmp_path: Path) -> None:
    robot = robot_of(bus, tmp_path)
    robot.stop()
    for _ in range(2):
        robot.connect()
        assert bus.torques() == [1] * 6
        robot.stop()
        robot.stop()
        assert bus.torques() == [0] * 6
    with pytest.raises(BusError, match="not connected"):
        robot.read()


def test_stopping_from_another_thread_while_it_reads(bus: Emulated, tmp_path: Path) -> None:
    robot = robot_of(bus, tmp_path)
    robot.connect()
    took: list[float] = []

    def stop() -> None:
        start = time.monotonic()
        robot.stop()
        took.append(time.monotonic() - start)

    thread = threading.Timer(0.1, stop)
    thread.start()
    with pytest.raises(BusError):
        steady(robot, robot.spec.rest, 500)
    thread.join()
    assert took[0] < 0.1 and bus.torques() == [0] * 6


def test_it_keeps_the_contract_of_drivers(bus: Emulated, tmp_path: Path) -> None:
    """At 20 Hz: the emulator shares this machine with everything else."""
    cls = type(robot_of(bus, tmp_path, dt=0.05))
    found = examine(cls, allow_motion=True, unplug=lambda robot: bus.tell("gone"))
    assert [f for f in found if f.result in ("fail", "skip")] == []


# --- what is done to it -----------------------------------------------------------------------


def timed_failure(robot: Dynamixel) -> tuple[BusError, float]:
    """The error that reading and writing ends in, and how long the failing call took [s]."""
    for _ in range(300):
        start = time.monotonic()
        try:
            robot.read()
            robot.write(robot.spec.rest)
        except BusError as error:
            return error, time.monotonic() - start
    raise AssertionError("nobody noticed")


def test_one_garbled_packet_is_asked_for_again(bus: Emulated, tmp_path: Path) -> None:
    with robot_of(bus, tmp_path) as robot:
        bus.tell("crc 1")
        start = time.monotonic()
        assert np.isfinite(robot.read()).all()
        assert time.monotonic() - start < 0.1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("crc 1000", r"servo 1 \(joint1\) gives no answer: Incorrect status packet"),
        ("silent 4", r"servo 4 \(joint4\) gives no answer: There is no status packet"),
        ("overload 5", r"servo 5 \(joint5\) stopped itself: overload"),
        ("gone", "is gone"),
    ],
)
def test_every_fault_is_a_clear_error_within_100_ms(
    fault: str, message: str, bus: Emulated, tmp_path: Path
) -> None:
    robot = robot_of(bus, tmp_path)
    with pytest.raises(BusError, match=message), robot:
        robot.read()
        bus.tell(fault)
        error, took = timed_failure(robot)
        assert took < 0.1, took
        raise error
    start = time.monotonic()
    robot.stop()
    assert time.monotonic() - start < 0.1
    if fault != "gone":
        assert bus.torques() == [0] * 6


def test_servos_that_hear_nothing_stop_by_themselves(bus: Emulated, tmp_path: Path) -> None:
    """A program that hangs; and the next one connects again."""
    robot = robot_of(bus, tmp_path, watchdog=0.1)
    with pytest.raises(BusError, match=r"watchdog of servo 1 \(joint1\) tripped"), robot:
        robot.write(np.full(6, 1.0))
        time.sleep(0.25)
        state = bus.state()
        assert all(t[WATCHDOG] == 0xFF for t in state.values())
        robot.read()
    assert bus.torques() == [0] * 6
    with robot:
        assert np.isfinite(robot.read()).all()


@pytest.mark.parametrize("missing", ["port", "servo"])
def test_connecting_says_what_is_missing(missing: str, bus: Emulated, tmp_path: Path) -> None:
    robot = robot_of(bus, tmp_path)
    if missing == "servo":
        bus.tell("silent 3")
        message = r"servo 3 \(joint3\)"
    else:
        type(robot).port = "/dev/absent"
        message = "/dev/absent cannot be opened"
    with pytest.raises(BusError, match=message):
        robot.connect()
    assert bus.torques() == [0] * 6


@pytest.mark.slow
def test_six_servos_at_100_hz(bus: Emulated, tmp_path: Path) -> None:
    """Reading and writing takes a part of the period only; p99 is printed with -s."""
    took = []
    with robot_of(bus, tmp_path) as robot:
        for k in range(500):
            start = time.perf_counter()
            robot.read()
            robot.write(np.full(6, 0.3 * math.sin(k / 20)))
            took.append(time.perf_counter() - start)
            time.sleep(max(0.0, 0.01 - took[-1]))
    p50, p99 = 1e3 * np.percentile(took, (50, 99))
    missed = sum(t > 0.01 for t in took)
    print(f"read + write: p50 {p50:.1f} ms, p99 {p99:.1f} ms; {missed} of 500 ticks missed")
    assert p50 < 30.0  # on a machine that runs the bus too, and more besides


# --- the file ---------------------------------------------------------------------------------


GOOD = {"id": 1, "name": "hip", "low": -1.0, "high": 1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"direction": 2}, "direction is 1 or -1"),
        ({"id": 254}, "between 0 and 252"),
        ({"rest": 2.0}, "not within its limits"),
        ({"high": 4.0}, "half a turn"),
    ],
)
def test_a_servo_that_cannot_be_is_refused(changes: dict[str, float], message: str) -> None:
    Servo(**GOOD)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=message):
        Servo(**{**GOOD, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "describes no bus"),
        ("name: arm", "describes no bus"),
        ("name: a\nport: b\ndt: 0.01\nservos: [{id: 1}]", "describes no bus"),
        ("name: a\nport: b\ndt: 0.2\nservos: []", "watchdog is longer than dt"),
        ("name: a\nport: b\ndt: 0.01\nbuad: 1\nservos: []", "unknown keys ..buad"),
    ],
)
def test_a_file_that_describes_no_bus_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "arm.yaml").write_text(text)
    with pytest.raises(SpecError, match=message):
        Dynamixel.from_file(tmp_path / "arm.yaml")
