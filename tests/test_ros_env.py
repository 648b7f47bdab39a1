"""Without ROS 2, and with wrong arguments: an answer, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mbmrl import cli
from mbmrl.ros import env


def test_without_ros_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rclpy", None)
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/opt/ros/jazzy")
    assert cli.main(["ros", "controller"]) == 2
    told = capsys.readouterr().err
    assert "pip install 'mbmrl[ros]'" in told and "apt install" in told


def test_packages_of_this_python_are_found_and_the_systems_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "rclpy", None)
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/opt/ros/jazzy")
    for _ in range(2):
        with pytest.raises(env.NoRos):
            env.prepare()
        assert os.environ["AMENT_PREFIX_PATH"].split(os.pathsep) == [sys.prefix, "/opt/ros/jazzy"]


@pytest.mark.parametrize(
    "args", [["--params", "/nowhere.yaml"], ["--set", "robot"], ["--remap", "imu"]]
)
def test_arguments_that_cannot_be_meant(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["ros", "controller", *args]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_console_scripts_answer_too() -> None:
    code = (
        "import sys; sys.modules['rclpy'] = None; from mbmrl.ros import main as m; exit(m.robot())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("mbmrl: ROS 2 is not there")
