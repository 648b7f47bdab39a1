"""A simulated robot behind the topics of a real one, to be broken while it runs."""

from __future__ import annotations

import threading
import time
import traceback
from typing import Any

import numpy as np
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger

from mbmrl import conditions, registry
from mbmrl.loop import Clock
from mbmrl.ros.intake import Intake, Wanted
from mbmrl.ros.params import ROBOT_PARAMS, Param, declare, per_joint, values
from robots.ros2 import output
from robots.sim import Diverged, SimRobot
from robots.topics import IMU, JOINT_STATES, ODOM, Layout

PARAMS = (
    *ROBOT_PARAMS,
    Param("seed", int, 0, "Of the initial state.", 0, 2**31 - 1),
    Param("perturb", list[str], [], "KIND:key=value,… from `mbmrl list perturbations`.", live=True),
    Param("perturbed", bool, True, "Whether perturb acts now; see ~/perturb.", live=True),
    Param("perturb_after", float, 0.0, "perturb acts from then on [simulated s].", 0.0, 1e6),
    Param("real_time", bool, True, "False: as fast as commands come, with /clock."),
    Param("patience", float, 1.0, "Longest wait for a command unless real_time [s].", 0.0, 60.0),
)


class SimulatedRobot(Node):
    """Publishes its state once a control period, and then does what the newest command says.

    In real time a command acts in the period in which it arrives: the simulation stands still
    while its plan is made, as it does in ``mbmrl run``. A command stays until the next one, like
    forward_command_controller's.

    Args:
        node: for :class:`rclpy.node.Node`.
    """

    def __init__(self, **node: Any) -> None:  # noqa: ANN401
        super().__init__("mbmrl_robot", **node)
        declare(self, PARAMS)
        self.failed = threading.Event()
        p = values(self, PARAMS)
        cls = registry.load("robots", p["robot"] or "hexapod")
        if not issubclass(cls, SimRobot):
            raise ValueError(f"{p['robot']} is not simulated")
        self.robot: SimRobot = cls(seed=p["seed"])
        spec = self.robot.spec
        self.layout = Layout(spec, p["sources"])
        u = spec.num_act
        self.out = output(
            spec,
            p["joints"],
            p["actions"],
            per_joint(p["scale"], u, 1.0, "scale"),
            per_joint(p["offset"], u, 0.0, "offset"),
            topic=f"{p['controller']}/commands",
        )
        self._real_time, self._patience = p["real_time"], p["patience"]
        self._after = p["perturb_after"]
        self._act = spec.rest
        self._arrived = threading.Condition()
        self._new = False
        self._next: SimRobot | None = None
        self._perturb, self._perturbed = p["perturb"], p["perturbed"]
        self._parsed(self._perturb)
        self._changed = True
        kinds = {JOINT_STATES: JointState, IMU: Imu, ODOM: Odometry}
        self._kinds = {topic: kinds[topic] for topic in self.layout.topics}
        sure = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self._states = {t: self.create_publisher(k, t, sure) for t, k in self._kinds.items()}
        self._clock_topic = (
            None if p["real_time"] else self.create_publisher(ClockMessage, "/clock", 1)
        )
        self._intake = Intake(self, [Wanted(Float64MultiArray, self.out.topic, self._take, sure)])
        self.create_service(SetBool, "~/perturb", self._serve_perturb)
        self.create_service(Trigger, "~/reset", self._serve_reset)
        self.add_on_set_parameters_callback(self._may_change)
        self.add_post_set_parameters_callback(self._take_over)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="robot", daemon=True)
        self._thread.start()

    def halt(self) -> None:
        """End the simulation."""
        self._ending.set()
        self._thread.join()
        self._intake.close()

    def restart(self, robot: SimRobot) -> None:
        """Begin a new episode, with this robot, when the period is over."""
        self._next = robot

    def step(self, act: np.ndarray) -> None:
        """One period."""
        self.robot.write(act)

    def _run(self) -> None:
        clock = Clock(self.robot.spec.dt, real_time=self._real_time)
        try:
            self.restart(self.robot)
            clock.start()
            while not self._ending.is_set():
                if self._next is not None:
                    self.robot, self._next = self._next, None
                    self.robot.reset()
                    self._act, self._changed = self.robot.spec.rest, bool(self._perturb)
                self._perturb_now()
                with self._arrived:
                    self._new = False
                self._publish()
                clock.wait()
                with self._arrived:
                    if not self._real_time:
                        self._wait_for_command()
                    act = self._act
                try:
                    self.step(act)
                except Diverged as error:
                    self.get_logger().error(f"{error}; it starts anew")
                    self.restart(self.robot)
        except Exception:
            self.get_logger().fatal(f"the robot ends: {traceback.format_exc()}")
            self.failed.set()

    def _wait_for_command(self) -> None:
        end = time.monotonic() + self._patience
        while not self._new and not self._ending.is_set() and time.monotonic() < end:
            self._arrived.wait(0.05)

    def _publish(self) -> None:
        stamp = self.get_clock().now().to_msg()
        if self._clock_topic is not None:
            # the first moment is not 0: that means that there is no stamp
            stamp = Time(nanoseconds=round(1e9 * (self.robot.time + self.robot.spec.dt))).to_msg()
        messages: dict[str, Any] = {topic: kind() for topic, kind in self._kinds.items()}
        self.layout.write(self.robot.read(), messages)
        for topic, message in messages.items():
            message.header.stamp = stamp
            message.header.frame_id = ODOM if topic == ODOM else "base_link"
            if topic == ODOM:
                message.child_frame_id = "base_link"
            self._states[topic].publish(message)
        if self._clock_topic is not None:
            self._clock_topic.publish(ClockMessage(clock=stamp))

    def _take(self, message: Float64MultiArray) -> None:
        command = np.array(message.data, dtype=float)
        if command.shape != (self.robot.spec.num_act,) or not np.isfinite(command).all():
            self.get_logger().warning(
                f"ignored a command that is not {self.robot.spec.num_act} finite numbers",
                throttle_duration_sec=1.0,
            )
            return
        with self._arrived:
            self._act, self._new = self.out.action(command), True
            self._arrived.notify_all()

    # --- breaking it ------------------------------------------------------------------------

    def _parsed(self, texts: list[str], onset: float = 0.0) -> conditions.Condition:
        found = tuple(conditions.parse(text, onset) for text in texts if text)
        for perturbation in found:
            perturbation.check(self.robot)
        return found

    def _perturb_now(self) -> None:
        if self._changed and self.robot.time >= self._after:
            self._changed = False
            on = self._perturb if self._perturbed else []
            self.robot.perturb = self._parsed(on, self.robot.time)
            self.get_logger().info(f"perturbed: {conditions.text(self.robot.perturb) or 'no'}")

    def _may_change(self, parameters: list[Parameter]) -> SetParametersResult:
        live = {p.name for p in PARAMS if p.live}
        for parameter in parameters:
            if parameter.name in {p.name for p in PARAMS} - live:
                return SetParametersResult(
                    successful=False, reason=f"{parameter.name} is read at the start"
                )
            if parameter.name == "perturb":
                try:
                    self._parsed(list(parameter.value or []))
                except ValueError as error:
                    return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _take_over(self, parameters: list[Parameter]) -> None:
        """What was allowed happens, all of it or nothing."""
        for parameter in parameters:
            if parameter.name == "perturb":
                self._perturb, self._changed = list(parameter.value or []), True
            if parameter.name == "perturbed":
                self._perturbed, self._changed = parameter.value, True

    def _serve_perturb(self, request: Any, response: Any) -> Any:  # noqa: ANN401
        self.set_parameters([Parameter("perturbed", value=bool(request.data))])
        response.success = True
        return response

    def _serve_reset(self, request: Any, response: Any) -> Any:  # noqa: ANN401
        self.restart(self.robot)
        response.success = True
        return response
