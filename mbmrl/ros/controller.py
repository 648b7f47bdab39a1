"""The controller as a lifecycle node."""

from __future__ import annotations

import functools
import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Path as PathMessage
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock as RosClock
from rclpy.clock import ClockType
from rclpy.exceptions import NameValidationException
from rclpy.impl.implementation_singleton import rclpy_implementation as rcl
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from controllers.agent import Agent
from controllers.learned import LearnedModel
from controllers.several import Several
from mbmrl.control import KEPT, Control, percentiles
from mbmrl.loop import Clock
from mbmrl.ros.build import PARAMS, agent_for, checkpoint_for, robot_for, warm_up
from mbmrl.ros.clock import SimClock
from mbmrl.ros.params import declare, values
from mbmrl.ros.steer import TwistTask
from mbmrl.ros.tell import diagnostics, other_publishers, plan_message
from mbmrl.safety import Latch, Restarted, Stale, Unsafe
from mbmrl.spec import SpecError
from mbmrl.tasks import Task
from mbmrl.types import Plan
from robots.ros2 import Topics

BEHIND = 2e-3
"""So long after the robot's state the control period begins at most [s]."""

SLOW = 0.2
"""States that bring nothing new in more than so many periods come too seldom to learn from."""

Transition = Callable[[Any, LifecycleState], None]


def transition(work: Transition) -> Callable[[Any, LifecycleState], TransitionCallbackReturn]:
    """A lifecycle callback that says what went wrong; rclpy would swallow it."""

    @functools.wraps(work)
    def callback(node: Controller, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            work(node, state)
        except NameValidationException as error:
            node.unusable = True
            node.get_logger().error(f"{work.__name__}: {' '.join(str(error).split())}")
        except (ValueError, OSError, Restarted, Stale, Unsafe) as error:
            node.get_logger().error(f"{work.__name__}: {error}")
        except Exception:
            node.get_logger().error(f"{work.__name__}: {traceback.format_exc()}")
        else:
            return TransitionCallbackReturn.SUCCESS
        return TransitionCallbackReturn.FAILURE

    return callback


@dataclass
class Driver:
    """Everything that exists from configure to cleanup."""

    robot: Topics
    agent: Agent
    model: LearnedModel | Several
    max_bad: int
    simulated_time: bool


class Controller(LifecycleNode):
    """Drives a robot behind topics with an adapting controller."""

    def __init__(self) -> None:
        super().__init__("mbmrl_controller")
        declare(self, PARAMS)
        self.failed = threading.Event()
        self.over = threading.Event()
        self.unusable = False
        """Whether the parameters were refused, whatever the robot does."""
        self._stop = Latch()
        self._driver: Driver | None = None
        self._control: Control | None = None
        self._beat: Clock | SimClock | None = None
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._twist: tuple[float, tuple[float, float, float]] | None = None
        self._info: dict[str, float] = {}
        self._latency: deque[float] = deque(maxlen=KEPT)
        self._off_period: deque[float] = deque(maxlen=KEPT)
        self._count = 0
        self.add_on_set_parameters_callback(self._may_change)
        self.add_post_set_parameters_callback(self._changed)
        self.create_service(SetBool, "~/adapt", self._serve_adapt)
        self.create_service(Trigger, "~/stop", self._serve_stop)
        self.create_service(Trigger, "~/reset", self._serve_reset)
        self._plan_topic: Any = None
        self._twist_topic: Any = None
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 1)
        # real seconds: simulated ones may stand still
        self.create_timer(1.0, self._diagnose, clock=RosClock(clock_type=ClockType.STEADY_TIME))

    # --- the lifecycle --------------------------------------------------------------------

    @transition
    def on_configure(self, state: LifecycleState) -> None:
        """Load the checkpoint, and see that it, the parameters and the robot fit together."""
        p = values(self, PARAMS)
        try:  # before the robot is waited for
            checkpoint = checkpoint_for(p["robot"], p["checkpoint"])
            spec = checkpoint.spec
            agent = agent_for(checkpoint, p)
            robot = robot_for(self, spec, p)
        except ValueError:
            self.unusable = True
            raise
        robot.connect()
        try:
            self._see(robot, p["state_timeout"])
            simulated = self.get_parameter("use_sim_time").value
            agent.looks_ahead = p["look_ahead"] and not simulated
            warm_up(agent, robot)
            steered = isinstance(agent.task, TwistTask)
            self._plan_topic = self.create_publisher(
                PathMessage if spec.pose else JointTrajectory, "~/plan", 1
            )
            if steered:
                kind = TwistStamped if p["stamped_cmd_vel"] else Twist
                self._twist_topic = self.create_subscription(kind, "cmd_vel", self._take_twist, 1)
        except BaseException:
            robot.close()
            raise
        model = agent.model
        assert isinstance(model, LearnedModel | Several)
        self._driver = Driver(robot, agent, model, p["max_bad"], simulated)
        self._set_adapt(p["adapt"])
        self.get_logger().info(
            f"{spec.name}: {robot.topic} ← {', '.join(robot.output.joints)}; "
            + ", ".join(
                f"{f.name} = {s}" for f, s in zip(spec.obs, robot.layout.sources, strict=True)
            )
        )

    @transition
    def on_activate(self, state: LifecycleState) -> None:
        """Start driving, unless somebody else does."""
        driver = self._configured()
        topic = driver.robot.topic
        others = other_publishers(self, topic)
        if others:
            raise ValueError(
                f"{', '.join(others)} publishes on {topic} too: a robot takes commands from one "
                "controller alone; shut the other one down, or clean it up, first"
            )
        driver.robot.hold()
        self._control = Control(driver.robot, driver.agent, self._sink, self._warn, driver.max_bad)
        self._control.stop = self._stop  # a stop holds, whatever becomes active meanwhile
        dt = driver.robot.spec.dt
        self._beat = SimClock(self.get_clock(), dt) if driver.simulated_time else Clock(dt)
        self._ending.clear()
        self._thread = threading.Thread(target=self._drive, name="control", daemon=True)
        self._thread.start()

    @transition
    def on_deactivate(self, state: LifecycleState) -> None:
        """Stop the robot; the history is gone."""
        self.halt()

    @transition
    def on_cleanup(self, state: LifecycleState) -> None:
        """Give the topics back."""
        self.halt()
        self._configured().robot.close()
        self.destroy_publisher(self._plan_topic)
        if self._twist_topic is not None:
            self.destroy_subscription(self._twist_topic)
        self._driver = self._plan_topic = self._twist_topic = None

    @transition
    def on_shutdown(self, state: LifecycleState) -> None:
        """Stop the robot, and leave it to others."""
        self.halt()
        if self._driver is not None:
            self._driver.robot.close()

    on_error = on_shutdown

    def _LifecycleNodeMixin__on_change_state(self, request: Any, response: Any) -> Any:  # noqa: ANN401, N802
        """Rclpy lets a transition that there is not from here end whoever serves the node."""
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)
        except rcl.RCLError as error:
            self.get_logger().error(str(error).partition(", at ")[0])
            response.success = False
            return response

    def halt(self) -> None:
        """End the loop, and send the stop command until it was received; any number of times."""
        self._ending.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        if self._thread is not None and self._driver is not None:
            self._driver.robot.stop()
        self._thread = self._control = None

    def destroy_node(self) -> None:
        """Give everything back."""
        if self._driver is not None:
            self._driver.robot.close()
        super().destroy_node()

    # --- every period ---------------------------------------------------------------------

    def _drive(self) -> None:
        """The loop's own thread."""
        assert self._driver and self._control and self._beat
        robot, control, clock = self._driver.robot, self._control, self._beat
        period, before = clock.period, 0.0
        clock.start()
        try:
            while not self._ending.is_set():
                now = time.monotonic()
                if before:
                    passed = (now - before) / period
                    self._off_period.append(period * abs(passed - max(1, round(passed))))
                before = now
                self._steer()
                if isinstance(clock, Clock) and not control.driving and robot.age() < period:
                    # fall in with the robot's own beat, a little behind it: waking together with
                    # the thread that takes the messages costs more than it gains
                    robot.await_next(period)
                    time.sleep(min(BEHIND, 0.05 * period))
                    clock.align()
                    before = 0.0
                if isinstance(clock, SimClock) and clock.still:
                    control.rest("simulated time stands still: nothing new comes on /clock")
                else:
                    control.tick()
                self._count += 1
                clock.wait()
        except Exception:
            self.get_logger().fatal(f"control ends: {traceback.format_exc()}")
            robot.stop()
            self.failed.set()

    def _sink(self, obs: np.ndarray, plan: Plan, sent: np.ndarray, took: float) -> None:
        assert self._driver is not None
        self._latency.append(self._driver.robot.age())
        self._info = {name: float(value[0]) for name, value in plan.info.items()}
        if self._plan_topic.get_subscription_count():
            now = self.get_clock().now()
            self._plan_topic.publish(plan_message(plan, self._driver.robot, now))

    def _steer(self) -> None:
        task = self._configured().agent.task
        if isinstance(task, TwistTask):
            since, twist = self._twist or (-math.inf, (0.0, 0.0, 0.0))
            late = time.monotonic() - since > self.get_parameter("cmd_vel_timeout").value
            task.steer(*((0.0, 0.0, 0.0) if late else twist))

    # --- what comes in --------------------------------------------------------------------

    def _take_twist(self, message: Any) -> None:  # noqa: ANN401
        twist = message.twist if isinstance(message, TwistStamped) else message
        wanted = (twist.linear.x, twist.linear.y, twist.angular.z)
        if all(math.isfinite(v) for v in wanted):
            self._twist = time.monotonic(), wanted

    def _serve_adapt(self, request: Any, response: Any) -> Any:  # noqa: ANN401
        results = self.set_parameters([Parameter("adapt", value=bool(request.data))])
        response.success, response.message = results[0].successful, results[0].reason
        return response

    def _serve_stop(self, request: Any, response: Any) -> Any:  # noqa: ANN401
        self._stop.trip("asked to by ~/stop")
        response.success, response.message = True, "~/reset goes on"
        return response

    def _serve_reset(self, request: Any, response: Any) -> Any:  # noqa: ANN401
        self._stop.release()
        response.success = True
        response.message = "" if self._control else "the controller is not active"
        return response

    def _may_change(self, parameters: list[Parameter]) -> SetParametersResult:
        """Once configured, only what cannot jolt."""
        live = {p.name for p in PARAMS if p.live}
        ours = {p.name for p in PARAMS}
        for parameter in parameters:
            if self._driver is not None and parameter.name in ours - live:
                return SetParametersResult(
                    successful=False,
                    reason=f"{parameter.name} is read when the node is configured: deactivate and "
                    "clean it up first",
                )
        return SetParametersResult(successful=True)

    def _changed(self, parameters: list[Parameter]) -> None:
        """What was allowed happens, all of it or nothing."""
        for parameter in parameters:
            if parameter.name == "adapt":
                self._set_adapt(parameter.value)
            if parameter.name == "max_bad" and self._control is not None:
                self._control.bad.most = parameter.value

    def _set_adapt(self, on: bool) -> None:
        if self._driver is not None:
            self._driver.model.switch(on)

    # --- what goes out --------------------------------------------------------------------

    def _warn(self, why: str) -> None:
        self.get_logger().warning(why, throttle_duration_sec=1.0)

    def report(self) -> dict[str, float | str]:
        """The node's state in numbers."""
        control, clock, driver = self._control, self._beat, self._driver
        if control is None or clock is None or driver is None:
            return {"state": "not active"}
        tick, period, latency = (
            percentiles(x) for x in (control.took, self._off_period, self._latency)
        )
        return {
            "state": control.state,
            "ticks": self._count,
            "missed deadlines": clock.missed,
            "tick p50 [ms]": tick[0],
            "tick p99 [ms]": tick[1],
            "period error p99 [ms]": period[1],
            "state to command p50 [ms]": latency[0],
            "state to command p99 [ms]": latency[1],
            "periods without news": driver.robot.repeats(),
            "state age [ms]": 1e3 * driver.robot.age(),
            "bad states and plans": control.bad.total,
            "gaps": control.gaps,
            "adapting": str(self.get_parameter("adapt").value),
            **self._wanted(driver.agent.task),
            **self._info,
        }

    def _wanted(self, task: Task) -> dict[str, float]:
        if not isinstance(task, TwistTask):
            return {}
        return {
            f"wanted {name}": float(v) for name, v in zip(task.fields, task.target, strict=True)
        }

    def _amiss(self) -> str:
        """What is wrong although it drives; empty where nothing is."""
        if self._driver is None or self._control is None or not self._control.driving:
            return ""
        robot = self._driver.robot
        if not robot.heard():
            return f"nobody listens to {robot.topic}"
        if robot.repeats() > SLOW:
            return (
                f"nothing new came in {robot.repeats():.0%} of the periods: states are slower than "
                f"one in {robot.spec.dt:g} s, and what it learns from them is wrong"
            )
        return ""

    def _diagnose(self) -> None:
        report = self.report()
        control = self._control
        amiss = self._amiss()
        if amiss:
            self._warn(amiss)
        well = control is not None and control.driving and not amiss
        level = DiagnosticStatus.OK if well else DiagnosticStatus.WARN
        if control is not None and control.stop.reason:
            level = DiagnosticStatus.ERROR
        self._diagnostics.publish(diagnostics(self, level, amiss or str(report["state"]), report))

    # --- whom it drives ---------------------------------------------------------------------

    def _see(self, robot: Topics, seconds: float) -> None:
        """Wait for the robot; raises where it is not what the parameters say."""
        end = time.monotonic() + seconds
        while not robot.await_state(0.1) and time.monotonic() < end and not self.over.is_set():
            pass
        if not robot.await_state(0.0):
            if self.over.is_set():
                raise SpecError("interrupted while it waited for the robot")
            silent = [t for t in robot.layout.topics if t not in robot.messages]
            raise SpecError(
                f"nothing came on {', '.join(silent) or 'all topics at once'} within {seconds:g} "
                "s: is the robot there, and are topics and namespaces remapped?"
            )
        simulated = self.get_parameter("use_sim_time").value
        while simulated and not self.get_clock().now().nanoseconds:
            if time.monotonic() > end or self.over.is_set():
                raise SpecError(f"use_sim_time is true, and no /clock came within {seconds:g} s")
            time.sleep(0.05)
        missing = robot.layout.missing(robot.messages)
        if missing:
            raise SpecError("; ".join(missing))
        while True:
            try:
                robot.read()
                return
            except Stale:  # a sample that is late once is no robot that is gone
                if time.monotonic() > end or self.over.is_set():
                    raise
                robot.await_next(0.1)

    def _configured(self) -> Driver:
        if self._driver is None:
            raise ValueError("the controller is not configured")
        return self._driver
