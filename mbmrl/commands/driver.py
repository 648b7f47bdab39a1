"""A driver's word, and topics instead of a driver."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from mbmrl import registry
from mbmrl.commands.common import (
    Findings,
    RobotName,
    UsageError,
    show,
)

if TYPE_CHECKING:
    from robots.base import Robot


@dataclass(frozen=True)
class RobotCommand:
    """Check that a robot's driver keeps the contract: timing, stopping, units, the action returned.

    Actions stay within 2 % of the way from the safe action to the limits, and reset() is not
    called, unless --allow-motion. Exit status 1 where a check fails.

    For example:

      mbmrl robot check my_pkg.mod:MyRobot
      mbmrl robot check my_pkg.mod:MyRobot --allow-motion --unplug
      mbmrl robot check dynamixel=arm.yaml
    """

    what: Positional[Literal["check"]]
    name: Positional[RobotName]
    allow_motion: Annotated[
        bool, arg(help="The robot may move: it is reset, and sent actions beyond its limits.")
    ] = False
    unplug: Annotated[bool, arg(help="Ask for the robot's cable to be pulled in the end.")] = False

    def __call__(self) -> None:
        """Check."""
        from mbmrl import testing

        cls: type[Robot] = registry.load("robots", self.name)

        def ask(robot: Robot) -> None:
            input("Pull the robot's cable, and press Enter: ")

        findings = testing.examine(cls, self.allow_motion, ask if self.unplug else None)
        show(testing.report(self.name, findings))
        failed = sum(f.result == "fail" for f in findings)
        if failed:
            raise Findings(f"{self.name} fails {failed} checks")


@dataclass(frozen=True)
class Ros:
    """Run a ROS 2 node: the controller, a simulated robot behind topics, or the watchdog.

    The nodes' parameters are told by `ros2 param describe`, and in docs/ros2.md.

    For example:

      mbmrl ros robot --set robot=hexapod
      mbmrl ros controller --set robot=hexapod
      mbmrl ros controller --params my_robot.yaml --remap imu=/imu/data
    """

    node: Positional[Literal["controller", "robot", "watchdog"]]
    params: Annotated[Path | None, arg(metavar="FILE", help="YAML, as ROS 2 nodes take it.")] = None
    set: UseAppendAction[
        Annotated[tuple[str, ...], arg(metavar="NAME=VALUE", help="A parameter; repeat it.")]
    ] = ()
    remap: UseAppendAction[
        Annotated[tuple[str, ...], arg(metavar="FROM=TO", help="A topic or so; repeat it.")]
    ] = ()

    def __call__(self) -> None:
        """Run it."""
        from mbmrl.ros.main import full_name, serve

        args = ["--ros-args"]
        if self.params:
            if not self.params.is_file():
                raise UsageError(f"there is no parameter file {self.params}")
            args += ["--params-file", str(self.params)]
        for flag, pairs in (("-r", self.remap), ("-p", self.set)):
            for pair in pairs:
                name, equals, value = pair.partition("=")
                if not equals:
                    raise UsageError(f"{pair!r} is not of the form NAME=VALUE")
                space, _, node = full_name(self.node, args).rpartition("/")
                if flag == "-p" and ":" not in name and not space:
                    # said to all nodes it would come before what a file says to this one; of one
                    # in a namespace ROS cannot be told so
                    name = f"{node}:{name}"
                args += [flag, f"{name}:={value}"]
        status = serve(self.node, args)
        if status:
            raise SystemExit(status)
