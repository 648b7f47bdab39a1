"""Relays commands, and sends the safe one when they cease: forward_command_controller never does.

A process of its own, since the controller's may be killed.
"""

from __future__ import annotations

import threading
import time

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64MultiArray

from mbmrl.ros.intake import Intake, Wanted
from mbmrl.ros.params import ROBOT_PARAMS, Param, declare, values

PARAMS = (
    Param("controller", str, "forward_command_controller", "It sends to CONTROLLER/commands."),
    Param("input", str, "~/commands", "Where the controller sends its commands."),
    Param("timeout", float, 0.3, "Silence for so long brings the safe command [s].", 0.001, 60.0),
    Param("safe_command", list[float], [], "What does no harm, one value a joint."),
)


class Watchdog(Node):
    """Between a controller and a robot."""

    def __init__(self) -> None:
        super().__init__("mbmrl_watchdog")
        declare(self, PARAMS, ROBOT_PARAMS)  # one file serves all nodes
        p = values(self, PARAMS)
        self.failed = threading.Event()
        self.safe = np.array(p["safe_command"], dtype=float)
        if not self.safe.size or not np.isfinite(self.safe).all():
            raise ValueError("safe_command has one finite value for each joint")
        self._timeout = p["timeout"]
        self._last = 0.0
        self._armed = False
        self._moved = threading.Condition()
        sure = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        output = self.resolve_topic_name(f"{p['controller']}/commands")
        if self.resolve_topic_name(p["input"]) == output:
            raise ValueError(f"what comes in would go out on the same topic, {output}, for ever")
        self._out = self.create_publisher(Float64MultiArray, output, sure)
        self._ending = False
        self._intake = Intake(self, [Wanted(Float64MultiArray, p["input"], self._relay, sure)])
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def halt(self) -> None:
        """The safe command is the last one, once anything was relayed."""
        with self._moved:
            self._ending = True
            self._moved.notify_all()
        self._thread.join()
        self._intake.close()
        if self._armed:
            self._send_safe()
            self._out.wait_for_all_acked(Duration(seconds=0.5))

    def _relay(self, message: Float64MultiArray) -> None:
        command = np.array(message.data, dtype=float)
        if command.shape != self.safe.shape or not np.isfinite(command).all():
            self.get_logger().error(
                f"held back a command that is not {self.safe.size} finite numbers",
                throttle_duration_sec=1.0,
            )
            return
        with self._moved:
            if self._ending:
                return
            self._out.publish(message)
            self._last, self._armed = time.monotonic(), True
            self._moved.notify_all()

    def _watch(self) -> None:
        with self._moved:
            self._moved.wait_for(lambda: self._armed or self._ending)
            while not self._ending:
                left = self._last + self._timeout - time.monotonic()
                if left > 0:
                    self._moved.wait(left)
                    continue
                self.get_logger().error(
                    f"no command for {self._timeout:g} s: safe command", throttle_duration_sec=1.0
                )
                self._send_safe()
                self._moved.wait(self._timeout)

    def _send_safe(self) -> None:
        self._out.publish(Float64MultiArray(data=self.safe.tolist()))
