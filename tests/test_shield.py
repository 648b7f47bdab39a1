"""What a driver is kept from, and what it is not believed."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mbmrl import cli, log, recording
from mbmrl.compose import make_planner
from mbmrl.ros.build import command_path
from mbmrl.ros.params import Param
from mbmrl.safety import Stale, Unsafe
from mbmrl.settings import Settings
from mbmrl.spec import SpecError
from robots.base import ENDING, interruptible, undisturbed
from robots.shield import Shield
from tests import arm
from tests.arm import Arm, Ended
from tests.dummy import DT, SPEC, PointMass

LIMITED = dataclasses.replace(
    arm.SPEC, act=tuple(dataclasses.replace(f, rate=2.0) for f in arm.SPEC.act)
)
STEP = 2.0 * LIMITED.dt


class SlowArm(Arm):
    """Its targets change by 2 rad/s at most, and count from where it is."""

    spec = LIMITED

    def held(self) -> np.ndarray:
        return self.angle.copy()


class Flaky(PointMass):
    """Now and then it reads what is no number, or what is old; it keeps what it was sent."""

    sent_all: list[float]

    def __init__(self) -> None:
        super().__init__()
        self.tick, self.sent_all = 0, []

    def read(self) -> np.ndarray:
        self.tick += 1
        self.stamp = time.monotonic()
        if self.tick % 7 == 0:
            return np.array([np.nan, 0.0])
        if self.tick % 10 == 0:
            self.stamp -= 1.0
        return super().read()

    def write(self, act: np.ndarray) -> np.ndarray:
        self.sent_all.append(float(act[0]))
        assert math.isfinite(act[0])
        return super().write(act)


class Old(PointMass):
    """Its readings never change, says its stamp."""

    spec = dataclasses.replace(SPEC, stale_after=0.2)

    def connect(self) -> None:
        super().connect()
        self.stamp = time.monotonic() - 10


@pytest.fixture
def told() -> Iterator[list[int]]:
    """The signals that came through to whoever had handled them before; all are his in the end."""
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in ENDING}
    Ended.stops.clear()
    yield came
    left = [signal.getsignal(number) for number in ENDING]
    for number, handler in before.items():
        signal.signal(number, handler)
    assert left == [note] * len(ENDING)


def test_rates_count_from_where_the_robot_is() -> None:
    robot = SlowArm()
    robot.angle = np.array([1.2, 0.3])
    with Shield(robot) as shield:
        first = shield.write(np.array([-1.5, 1.5]))
        np.testing.assert_allclose(first, [1.2 - STEP, 0.3 + STEP])
        second = shield.write(np.array([-9.0, 0.3]))
        np.testing.assert_allclose(second, [1.2 - 2 * STEP, 0.3])
        for _ in range(40):
            last = shield.write(np.array([-9.0, 0.3]))
        np.testing.assert_allclose(last, [-1.5, 0.3])
        shield.rest()
        np.testing.assert_allclose(robot.target, [-1.5 + STEP, 0.3 - STEP])
        shield.again()
        np.testing.assert_allclose(robot.target, [-1.5 + STEP, 0.3 - STEP])


@pytest.mark.parametrize("act", [[np.nan, 0.0], [np.inf, 0.0], [0.0], [0.0, 0.0, 0.0]])
def test_nothing_is_sent_of_what_is_no_action(act: list[float]) -> None:
    robot = Arm()
    with Shield(robot) as shield:
        sent = len(robot.asked)
        with pytest.raises(Unsafe):
            shield.write(np.array(act))
        assert len(robot.asked) == sent


@pytest.mark.parametrize(
    "answer", [None, 0.25, [0.25], [0.25] * 3, [[0.25, 0.5]], [np.nan, 0.5], [np.inf, 0.5], "sent"]
)
def test_what_is_no_action_was_not_sent(answer: object) -> None:
    class Tells(Arm):
        def write(self, act: np.ndarray) -> np.ndarray:
            super().write(act)
            return answer  # type: ignore[return-value]

    with Shield(Tells()) as shield:
        with pytest.raises(Unsafe, match=r"must be the 2 numbers really sent") as caught:
            shield.write(arm.SPEC.rest)
        assert f"Tells.write() returned {answer!r}" in str(caught.value)
        shield.again()
        shield.rest()


def test_numbers_of_another_kind_were_sent() -> None:
    class Tells(Arm):
        def write(self, act: np.ndarray) -> np.ndarray:
            return super().write(act).tolist()  # type: ignore[return-value]

    with Shield(Tells()) as shield:
        np.testing.assert_array_equal(shield.write(arm.SPEC.rest), arm.SPEC.rest)


def test_a_reading_is_believed_until_it_is_stale() -> None:
    class Aged(Arm):
        age = 0.0

        def read(self) -> np.ndarray:
            obs = super().read()
            assert self.stamp is not None
            self.stamp -= self.age
            return obs

    robot = Aged()
    with Shield(robot) as shield:
        robot.age = 0.5 * arm.SPEC.stale_after
        assert shield.read().shape == (4,)
        robot.age = 1.1 * arm.SPEC.stale_after
        with pytest.raises(Stale, match=r"0.2 s are allowed"):
            shield.read()
        robot.age = 0.0
        assert shield.read().shape == (4,)


def test_rates_reach_the_planner_and_the_topics() -> None:
    planner = make_planner(LIMITED, Settings())
    np.testing.assert_allclose(planner._changes[0], STEP)  # type: ignore[attr-defined]
    assert not make_planner(arm.SPEC, Settings())._changes  # type: ignore[attr-defined]
    from mbmrl.ros import build

    p = {x.name: x.default for x in build.PARAMS if isinstance(x, Param)}
    p |= {"joints": ["knee_to", "hip_to"], "scale": [2.0]}
    _, guard = command_path(LIMITED, p)
    np.testing.assert_allclose(guard.limits.rate, 4.0)
    _, guard = command_path(LIMITED, p | {"command_rate": [1.0]})
    np.testing.assert_allclose(guard.limits.rate, 1.0)


def test_a_rate_is_positive() -> None:
    with pytest.raises(SpecError, match="the rate of 'hip_to'"):
        still = tuple(dataclasses.replace(f, rate=0.0) for f in arm.SPEC.act)
        dataclasses.replace(arm.SPEC, act=still)


@pytest.mark.parametrize("verb", ["run", "record"])
def test_a_run_goes_on_over_readings_that_cannot_be_used(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [verb, "--robot", "tests.test_shield:Flaky", "--seconds", "4", "--out", str(tmp_path)]
    extra = ["--adapter", "zero"] if verb == "run" else []
    assert cli.main([*args, *extra]) == 0
    told = capsys.readouterr()
    assert "no finite vx" in told.out + told.err
    obs = (
        log.load(tmp_path).log.obs[:, 0]
        if verb == "run"
        else recording.load(tmp_path / "0000.episode").obs
    )
    assert np.isfinite(obs).all()
    assert 30 < len(obs) < 4 / DT, "bad ticks are none of the data"


@pytest.mark.parametrize("verb", ["run", "record"])
def test_a_run_ends_where_readings_stay_useless(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [verb, "--robot", "tests.test_shield:Old", "--seconds", "60", "--out", str(tmp_path)]
    began = time.monotonic()
    assert cli.main([*args, *(["--adapter", "zero"] if verb == "run" else [])]) == 1
    assert time.monotonic() - began < 30
    assert "old; 0.2 s are allowed" in capsys.readouterr().err


class Doubles(PointMass):
    """Says it has sent two numbers where it has one joint."""

    def write(self, act: np.ndarray) -> np.ndarray:
        return np.repeat(super().write(act), 2)


@pytest.mark.parametrize("verb", ["run", "record"])
def test_a_run_ends_where_nobody_knows_what_was_sent(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [verb, "--robot", "tests.test_shield:Doubles", "--seconds", "60", "--out", str(tmp_path)]
    began = time.monotonic()
    assert cli.main([*args, *(["--adapter", "zero"] if verb == "run" else [])]) == 1
    assert time.monotonic() - began < 30
    assert "it must be the 1 numbers really sent" in capsys.readouterr().err
    if verb == "record":
        assert len(recording.load(tmp_path / "0000.episode")) == 0


# --- how it ends ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("verb", ["run", "record"])
def test_a_signal_stops_the_robot_and_no_other_cuts_that_short(
    verb: str,
    number: signal.Signals,
    told: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Ended, "number", number)
    args = [verb, "--robot", "tests.arm:Ended", "--seconds", "4", "--out", str(tmp_path)]
    assert cli.main([*args, *(["--adapter", "zero"] if verb == "run" else [])]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert Ended.stops == ["begins", "ends"] and not told
    kept = log.load(tmp_path).log.gain if verb == "run" else recording.load_all(tmp_path)[0].obs
    assert len(kept) == 8  # the reset reads, too


def test_no_signal_cuts_a_stop_short_that_nobody_asked_for(told: list[int]) -> None:
    with interruptible(), Ended():
        pass
    assert Ended.stops == ["begins", "ends"] and not told


def test_no_signal_cuts_the_record_short(
    told: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = log.save

    def told_to_end(folder: Path, run: log.Run) -> None:
        for number in ENDING:
            os.kill(os.getpid(), number)
        save(folder, run)

    monkeypatch.setattr(log, "save", told_to_end)
    args = ["--robot", "tests.dummy:PointMass", "--adapter", "zero", "--seconds", "0.5"]
    assert cli.main(["run", *args, "--out", str(tmp_path)]) == 0
    assert len(log.load(tmp_path).log.gain) == 5 and not told


def test_what_was_ignored_stays_ignored(told: list[int]) -> None:
    """As nohup has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
            with undisturbed():
                os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_leave_signals_alone(told: list[int]) -> None:
    seen: list[object] = []

    def drive() -> None:
        with interruptible(), PointMass() as robot:
            seen.extend(signal.getsignal(number) for number in ENDING)
        seen.append(robot.stopped)

    thread = threading.Thread(target=drive, daemon=True)
    thread.start()
    thread.join(5.0)
    assert seen == [*(signal.getsignal(number) for number in ENDING), 1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ConnectionError])
def test_what_is_half_connected_is_stopped(error: type[BaseException]) -> None:
    class Half(Arm):
        def connect(self) -> None:
            super().connect()
            raise error("half-way")

        def stop(self) -> None:
            super().stop()
            raise RuntimeError("it was not even connected")

    robot = Half()
    with pytest.raises(error, match="half-way"), Shield(robot):
        pass
    assert not robot.connected
