"""The conformance suite finds what is wrong with a driver, and nothing wrong with a good one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mbmrl import cli, registry, testing
from mbmrl.testing import check_robot, examine
from robots.base import ENDING, Robot
from tests.arm import FAULTS, SPEC, Arm
from tests.test_recording import made

GOOD = "tests.arm:Arm"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(testing, "TICKS", 24)
    monkeypatch.setattr(testing, "PATIENCE", 1.0)
    Arm.asked.clear()
    Arm.resets.clear()
    yield


def test_a_good_driver_passes_everything() -> None:
    found = examine(Arm, allow_motion=True, unplug=Arm.pull)
    assert {f.result for f in found} == {"pass"}, found
    check_robot(Arm, allow_motion=True, unplug=Arm.pull)


@pytest.mark.parametrize(
    ("fault", "what", "told"), FAULTS, ids=lambda x: getattr(x, "__name__", "")
)
def test_every_planted_fault_is_found(fault: Callable[[], Robot], what: str, told: str) -> None:
    start = time.monotonic()
    with pytest.raises(AssertionError) as caught:
        check_robot(fault, allow_motion=True, unplug=lambda arm: arm.pull())
    assert time.monotonic() - start < 20.0
    assert any(line.startswith(what) and told in line for line in str(caught.value).splitlines())


def test_without_leave_it_stays_near_the_safe_action_and_resets_nothing() -> None:
    found = examine(Arm)
    assert {f.result for f in found} == {"pass", "skip"}
    room = testing.SMALL * np.maximum(SPEC.act_high - SPEC.rest, SPEC.rest - SPEC.act_low)
    assert len(Arm.asked) >= 24 and not Arm.resets
    assert (np.abs(np.array(Arm.asked) - SPEC.rest) <= room + 1e-12).all()
    assert np.ptp(Arm.asked, axis=0).min() > 0.02  # it does move a little
    examine(Arm, allow_motion=True)
    assert Arm.resets and (np.abs(np.array(Arm.asked)) > SPEC.act_high).any()


def test_whatever_happens_the_robot_is_stopped_in_the_end() -> None:
    last: list[Arm] = []

    class Fails(Arm):
        def __init__(self) -> None:
            super().__init__()
            last.append(self)

        def write(self, act: np.ndarray) -> np.ndarray:
            raise OSError("no power")

    found = examine(Fails)
    assert any(f.result == "fail" and "no power" in f.detail for f in found)
    assert not last[0].connected


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("call", ["connect", "write", "stop"])
def test_a_signal_stops_the_robot_and_nothing_more_is_done(
    call: str, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    last: list[Arm] = []
    done: list[str] = []

    class Ends(Arm):
        def __init__(self) -> None:
            super().__init__()
            last.append(self)

        def connect(self) -> None:
            self.told("connect")
            super().connect()

        def write(self, act: np.ndarray) -> np.ndarray:
            self.told("write")
            return super().write(act)

        def stop(self) -> None:
            self.told("stop")
            super().stop()

        def told(self, what: str) -> None:
            done.append(what)
            if what == call:
                os.kill(os.getpid(), number)
                time.sleep(0.2)

    before = signal.signal(number, signal.default_int_handler)
    try:
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            examine(Ends, allow_motion=True)
        assert time.monotonic() - start < 10.0
        assert signal.getsignal(number) == signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert not last[0].connected and done[-1] == "stop"
    so_far = len(done)
    time.sleep(3 * SPEC.dt)
    assert len(done) == so_far and not last[0].connected


@pytest.mark.parametrize("name", registry.names("robots"))
def test_every_shipped_robot_passes(name: str) -> None:
    check_robot(registry.load("robots", name), allow_motion=True)


def test_a_replay_passes(tmp_path: Path) -> None:
    from mbmrl import recording

    recording.save(tmp_path / "a.episode", made(60))
    check_robot(registry.load("robots", f"replay={tmp_path}"))


@pytest.mark.parametrize(("name", "status"), [(GOOD, 0), ("tests.arm:Degrees", 1)])
def test_the_command_reports_and_its_status_says_how_it_went(
    name: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["robot", "check", name, "--allow-motion"]) == status
    told = capsys.readouterr()
    assert "p99" in told.out and ("leaves its limits" in told.out) == bool(status)
    assert ("fails " in told.err) == bool(status)


def test_the_plug_is_pulled_by_the_user(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    robots: list[Arm] = []
    connect = Arm.connect
    monkeypatch.setattr(Arm, "connect", lambda self: (robots.append(self), connect(self))[1])
    monkeypatch.setattr("builtins.input", lambda prompt: robots[-1].pull())
    assert cli.main(["robot", "check", GOOD, "--unplug"]) == 0
    assert "no arm on the bus" in capsys.readouterr().out
