"""A node as a process: started, spun, and stopped before ROS is."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
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

    Args:
        name: of :data:`NODES`.
        args: ROS's own, from ``--ros-args`` on.

    Raises:
        NoRos: what to install.
        ValueError: a parameter cannot be used.
    """
    # Small models on few cores: more threads only get in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    env.prepare()
    import rclpy
    from rclpy.executors import MultiThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: over.set())
    sys.setswitchinterval(SWITCH)
    # ROS's own handlers would shut it down before the stop command is out
    rclpy.init(args=[name, *args], signal_handler_options=SignalHandlerOptions.NO)
    try:
        module, _, cls = NODES[name].partition(":")
        node = getattr(importlib.import_module(module), cls)()
        node.over = over
        settle()
        executor = MultiThreadedExecutor(num_threads=3)
        executor.add_node(node)
        spinning = threading.Thread(target=executor.spin, name="executor", daemon=True)
        spinning.start()
        try:
            begun = _started(node)
            while begun and not over.wait(0.1) and not node.failed.is_set():
                pass
        finally:
            node.halt()
            executor.shutdown()
            spinning.join(10.0)  # a node that goes while somebody waits for it takes all along
            node.destroy_node()
        return 0 if begun and not node.failed.is_set() else 1
    finally:
        rclpy.try_shutdown()


def _started(node: Any) -> bool:  # noqa: ANN401
    """Lead a lifecycle node to where it drives, if it wants to."""
    if not node.has_parameter("autostart") or not node.get_parameter("autostart").value:
        return True
    from rclpy.lifecycle import TransitionCallbackReturn

    done = TransitionCallbackReturn.SUCCESS
    return bool(node.trigger_configure() == done and node.trigger_activate() == done)


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
