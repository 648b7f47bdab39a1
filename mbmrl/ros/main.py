"""A node as a process: started, spun, and stopped before ROS is."""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from mbmrl.loop import settle
from mbmrl.ros import env

NODES = {
    "controller": "mbmrl.ros.controller:Controller",
    "robot": "mbmrl.ros.robot:SimulatedRobot",
    "watchdog": "mbmrl.ros.watchdog:Watchdog",
}
SWITCH = 5e-4
"""How long a thread may keep the interpreter from the control loop [s]."""


def serve(name: str, args: Sequence[str] = ()) -> int:
    """Run a node until a signal, or until it fails; returns the exit status.

    It is 2 where the parameters cannot be used, whatever the robot does, and 1 after a failure.

    Args:
        name: of :data:`NODES`.
        args: ROS's own, from ``--ros-args`` on.

    Raises:
        NoRos: what to install.
        ValueError: the arguments or a parameter cannot be used.
    """
    # Small models on few cores: more threads only get in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    env.prepare()
    import rclpy
    from rclpy.exceptions import NameValidationException, ParameterException
    from rclpy.executors import MultiThreadedExecutor
    from rclpy.impl.implementation_singleton import rclpy_implementation as rcl
    from rclpy.signals import SignalHandlerOptions

    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: over.set())
    sys.setswitchinterval(SWITCH)
    # ROS's own handlers would shut it down before the stop command is out
    try:
        rclpy.init(args=[name, *args], signal_handler_options=SignalHandlerOptions.NO)
    except (rcl.RCLError, rcl.UnknownROSArgsError) as error:
        # what follows is where in ROS's source it was found
        said = re.split(r"\s*, at /", str(error))[0].removeprefix("failed to initialize rcl: ")
        raise ValueError(" ".join(said.split())) from error
    try:
        _see_files(name, args)
        module, _, cls = NODES[name].partition(":")
        try:
            node = getattr(importlib.import_module(module), cls)()
        except (NameValidationException, ParameterException) as error:
            raise ValueError(" ".join(str(error).split())) from error
        node.over = over
        settle()
        executor = MultiThreadedExecutor(num_threads=3)
        executor.add_node(node)
        spinning = threading.Thread(
            target=_spin, args=(executor, node), name="executor", daemon=True
        )
        spinning.start()
        try:
            status = _started(node)
            while not status and not over.wait(0.1) and not node.failed.is_set():
                pass
        finally:
            over.set()
            node.halt()
            executor.shutdown()
            spinning.join(10.0)  # a node that goes while somebody waits for it takes all along
            executor._executor.shutdown()  # rclpy does not wait for callbacks that still run
            node.halt()  # one of them may have begun to drive
            node.destroy_node()
        return 1 if node.failed.is_set() else status
    finally:
        rclpy.try_shutdown()


def _see_files(name: str, args: Sequence[str]) -> None:
    """Warn of what parameter files say to nobody; raises where that is all that they say."""
    from mbmrl.ros.params import unread

    node = full_name(name, args)
    ours = [f"{node.rpartition('/')[0]}/mbmrl_{other}" for other in NODES if other != name]
    for flag, file in pairwise(args):
        lost = unread(Path(file), node, ours) if flag == "--params-file" else []
        if lost:
            print(f"mbmrl: {file}: {', '.join(lost)} is not {node}: not read", file=sys.stderr)


def full_name(name: str, args: Sequence[str]) -> str:
    """Of a node, with its namespace, as these arguments rename it."""
    renamed: dict[str, str] = {}
    for rule in args:
        what, _, to = rule.partition(":=")
        renamed.setdefault(what.rpartition(":")[2], to)  # as ROS does, which takes the first
    space = renamed.get("__ns", "/").rstrip("/")
    return f"{space}/{renamed.get('__node', f'mbmrl_{name}')}"


def _spin(executor: Any, node: Any) -> None:  # noqa: ANN401
    """Serve the node; without anybody who does, it could neither be asked to stop nor asked how."""
    try:
        executor.spin()
    except Exception:
        if node.over.is_set():  # rclpy takes away what it still waits for
            return
        node.get_logger().fatal(f"nobody serves the node any more: {traceback.format_exc()}")
        node.failed.set()


def _started(node: Any) -> int:  # noqa: ANN401
    """Lead a lifecycle node to where it drives, if it wants to; returns the exit status."""
    if not node.has_parameter("autostart") or not node.get_parameter("autostart").value:
        return 0
    from rclpy.lifecycle import TransitionCallbackReturn

    done = TransitionCallbackReturn.SUCCESS
    if node.trigger_configure() == done and node.trigger_activate() == done:
        return 0
    if node.over.is_set():
        return 0
    return 2 if node.unusable else 1


def _script(name: str) -> int:
    try:
        return serve(name, sys.argv[1:])
    except ValueError as error:
        print(f"mbmrl: {error}", file=sys.stderr)
        return 2


def controller() -> int:
    """``controller_node``."""
    return _script("controller")


def robot() -> int:
    """``robot_node``."""
    return _script("robot")


def watchdog() -> int:
    """``watchdog_node``."""
    return _script("watchdog")
