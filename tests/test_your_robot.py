"""The driver of docs/your-robot.md, as it is written there, against a stand-in for its firmware."""

from __future__ import annotations

import importlib
import json
import math
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_train import TINY, in_this_process

from mbmrl import cli, log, recording, testing
from mbmrl import compose as composing
from mbmrl.testing import check_robot, examine

DOCS = Path(__file__).parent.parent / "docs" / "your-robot.md"
DRIVER = re.search(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


class Firmware(threading.Thread):
    """2 kg on wheels with friction, that leans with its acceleration."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self.socket.getsockname())
        self.speed = self.pitch = self.turning = self.torque = 0.0
        self.at = time.monotonic()
        self.alive = True
        self.start()

    def run(self) -> None:
        while self.alive:
            data, sender = self.socket.recvfrom(1000)
            self.move()
            self.torque = json.loads(data).get("torque_Nmm", 1000 * self.torque) / 1000
            rpm = self.speed / 0.05 * 60 / (2 * math.pi)
            angles = {"pitch_deg": math.degrees(self.pitch), "gyro_dps": math.degrees(self.turning)}
            answer = {"wheel_rpm": rpm, "age_ms": 1.0, **angles}
            if self.alive:
                self.socket.sendto(json.dumps(answer).encode(), sender)

    def move(self) -> None:
        now = time.monotonic()
        while self.at < now:
            step = min(0.005, now - self.at)
            push = self.torque / 0.05 / 2.0 / 8.0 - 1.2 * self.speed
            self.speed += step * push
            self.turning += step * (-20.0 * self.pitch - 6.0 * self.turning - 0.3 * push)
            self.pitch += step * self.turning
            self.at += step

    def off(self, *_: object) -> None:
        self.alive = False


@pytest.fixture
def firmware(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Firmware]:
    assert DRIVER
    made = Firmware()
    (tmp_path / "rover.py").write_text(DRIVER[1])
    monkeypatch.setenv("ROVER", made.address)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "rover", raising=False)
    monkeypatch.setattr(testing, "TICKS", 25)
    before = signal.getsignal(signal.SIGTERM)
    yield made
    signal.signal(signal.SIGTERM, before)
    made.off()


def command(*args: object) -> int:
    return cli.main([str(a) for a in args])


def test_the_driver_has_fewer_than_80_lines() -> None:
    assert DRIVER and len(DRIVER[1].splitlines()) < 80


def test_it_keeps_the_contract(firmware: Firmware) -> None:
    rover = importlib.import_module("rover").Rover
    check_robot(rover, allow_motion=True, unplug=firmware.off)


def test_nobody_there_is_said_clearly(firmware: Firmware, monkeypatch: pytest.MonkeyPatch) -> None:
    firmware.off()
    (found, *_) = [f for f in examine(importlib.import_module("rover").Rover) if f.result == "fail"]
    assert found.what == "connect()" and "timed out" in found.detail


def test_every_command_of_the_page_is_one() -> None:
    page = DOCS.read_text(encoding="utf-8")
    names = set(re.findall(r"mbmrl ([a-z-]+) ", page)) - {"itself"}
    assert names <= {cli.command_name(c) for c in cli.COMMANDS}
    assert {"robot", "record", "data", "train", "check-model", "run", "import", "export"} <= names


@pytest.mark.slow
def test_from_the_driver_to_control(firmware: Firmware, tmp_path: Path) -> None:
    """Record, look, train, check, drive: nothing but the driver's file is written."""
    fit = replace(TINY.fit, updates=100, batch=24, check_every=50)
    plan = {"horizon": 6, "num_samples": (24, 16), "num_knots": 3}
    settings = replace(TINY, hidden=(16,), fit=fit, plan=plan)
    record = ["record", "--robot", "rover:Rover"]
    assert command(*record, "--seconds", 20, "--out", "data/rover") == 0
    assert command(*record, "--seconds", 5, "--seed", 1, "--out", "data/held-out") == 0
    assert command("data", "data/rover") == 0
    assert len(recording.load_all(tmp_path / "data" / "rover")[0]) == 200
    with in_this_process(settings=settings):
        assert command("train", "--data", "data/rover", "--out", "runs/rover") == 0
        check = ["check-model", "data/held-out", "--checkpoint", "runs/rover", "--horizon", 6]
        assert command(*check) == 0
        drive = ["--checkpoint", "runs/rover", "--seconds", 4, "--out", "runs/driven"]
        assert command("run", "--robot", "rover:Rover", *drive) == 0
    assert composing.settings_for("balancer") != settings
    speed = log.load(tmp_path / "runs" / "driven").obs("vx")
    assert np.mean(speed[-15:]) > 0.8  # it was told to go at 2.5 m/s
    assert abs(firmware.torque) == 0.0
