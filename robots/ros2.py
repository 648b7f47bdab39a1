"""ROS 2 topics as a robot: states in by name, commands out through the guard."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from mbmrl.safety import Age, Envelope, Guard, Restarted
from mbmrl.spec import RobotSpec, SpecError
from robots.base import Robot
from robots.topics import IMU, JOINT_STATES, KNOWN, ODOM, Layout, joints

ACKNOWLEDGED = 0.5
"""So long it waits until everybody who listens has the stop command [s]."""
READS = 50
"""So many readings tell whether states come as often as they are read."""
INTERFACES = {"effort": "effort", "position": "positions", "velocity": "velocities"}
"""What a command is, and the field of a trajectory's points that holds it."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """How an action becomes a command.

    Attributes:
        topic: name of the topic.
        joints: in the order of the command, one for each action.
        order: which action each joint takes.
        scale: command = scale · action + offset, one entry a joint.
        offset: see scale.
        interface: of :data:`INTERFACES`, what a command is.
        trajectory: whether to send ``trajectory_msgs/JointTrajectory`` rather than
            ``std_msgs/Float64MultiArray``.
    """

    topic: str
    joints: tuple[str, ...]
    order: Sequence[int]
    scale: Float[np.ndarray, " u"]
    offset: Float[np.ndarray, " u"]
    interface: str
    trajectory: bool

    def command(self, act: Float[np.ndarray, " u"]) -> Float[np.ndarray, " u"]:
        """In the joints' order and units."""
        return self.scale * act[list(self.order)] + self.offset

    def action(self, command: Float[np.ndarray, " u"]) -> Float[np.ndarray, " u"]:
        """The inverse of :meth:`command`."""
        act = np.empty_like(command)
        act[list(self.order)] = (command - self.offset) / self.scale
        return act

    def trajectory_of(
        self, commands: Float[np.ndarray, "h u"], times_s: Float[np.ndarray, " h"]
    ) -> Any:  # noqa: ANN401
        """The commands as a ``trajectory_msgs/JointTrajectory``, each after its time [s]."""
        from rclpy.duration import Duration
        from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

        points = [
            JointTrajectoryPoint(
                time_from_start=Duration(seconds=after).to_msg(),
                **{INTERFACES[self.interface]: command.tolist()},
            )
            for command, after in zip(commands, times_s, strict=True)
        ]
        return JointTrajectory(joint_names=list(self.joints), points=points)


def output(
    spec: RobotSpec,
    joints: Sequence[str],
    actions: Sequence[str],
    scale: Float[np.ndarray, " u"],
    offset: Float[np.ndarray, " u"],
    *,
    topic: str,
    interface: str = "effort",
    trajectory: bool = False,
) -> Output:
    """Match actions and joints by name.

    Args:
        spec: of the robot.
        joints: in the order of the command; none for the actions' own names.
        actions: ``ACTION=JOINT`` for every action whose joint has another name.
        scale: see :class:`Output`.
        offset: see :class:`Output`.
        topic: of the commands.
        interface: of :data:`INTERFACES`.
        trajectory: see :class:`Output`.

    Raises:
        SpecError: what does not match, and what to change.
    """
    names = [f.name for f in spec.act]
    joint_of = dict(zip(names, names, strict=True))
    for text in actions:
        name, equals, joint = (part.strip() for part in text.partition("="))
        if not equals or name not in joint_of:
            raise SpecError(
                f"actions are written ACTION=JOINT with ACTION of {', '.join(names)}, not {text!r}"
            )
        joint_of[name] = joint
    order = list(joints) or list(joint_of.values())
    lost = [f"{n} drives {j!r}" for n, j in joint_of.items() if j not in order]
    if lost:
        raise SpecError(
            f"{'; '.join(lost)}, but the parameter joints names {', '.join(order)}: add "
            "'ACTION=JOINT' to the parameter actions, or the joint to joints"
        )
    if len(order) != len(names) or len(set(joint_of.values())) != len(names):
        raise SpecError(
            f"{spec.name} has {len(names)} actions ({', '.join(names)}), each for one joint; the "
            f"parameter joints names {len(order)}: {', '.join(order)}"
        )
    of = list(joint_of.values())
    index = [of.index(joint) for joint in order]
    return Output(
        topic=topic,
        joints=tuple(order),
        order=index,
        scale=scale,
        offset=offset,
        interface=interface,
        trajectory=trajectory,
    )


class Topics(Robot):
    """Whatever publishes its state and takes commands, as ros2_control's robots do.

    The newest sample wins, and how old it may be is judged here: no queue, no QoS deadline. A
    sample whose stamp stands still is no new one; one whose stamp goes back is a new beginning.

    Args:
        node: whose topics these are; it need not be spun for them.
        layout: of the observation.
        output: of the commands.
        guard: of the commands.
        envelope: of what is measured at the output's joints.
        stale_s: how old a sample may be [s].
        sync_s: how long to wait at most for a sample that is just coming [s].
        stop_s: how long to take at most for reaching the safe command at its rate [s].
    """

    def __init__(
        self,
        node: Any,  # noqa: ANN401
        layout: Layout,
        output: Output,
        guard: Guard,
        envelope: Envelope,
        *,
        stale_s: float,
        sync_s: float = 0.0,
        stop_s: float = 1.0,
    ) -> None:
        self.node, self.layout, self.output = node, layout, output
        self.guard, self.envelope = guard, envelope
        self.sync_s, self.stop_s = sync_s, stop_s
        self.spec = layout.spec
        self.messages: dict[str, Any] = {}
        self.ages = {topic: Age(stale_s) for topic in layout.topics}
        self._arrived = threading.Condition()
        self._fresh: set[str] = set()
        self._went_back = ""
        self._news: deque[bool] = deque(maxlen=READS)
        self._publisher: Any = None
        self._sending = threading.Lock()
        self._intake: Any = None
        self._known: dict[int, float] = {}
        self._unwrapped: dict[int, float] = {}
        self._forget()

    def connect(self) -> None:
        """Subscribe and advertise."""
        if self._publisher is not None:
            return
        from nav_msgs.msg import Odometry
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import Imu, JointState
        from std_msgs.msg import Float64MultiArray
        from trajectory_msgs.msg import JointTrajectory

        from mbmrl.ros.intake import Intake, Wanted

        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        sure = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        types = {JOINT_STATES: JointState, IMU: Imu, ODOM: Odometry}
        wanted = [
            Wanted(types[topic], topic, partial(self._take, topic), newest)
            for topic in self.layout.topics
        ]
        self._intake = Intake(self.node, wanted)
        kind = JointTrajectory if self.output.trajectory else Float64MultiArray
        self._publisher = self.node.create_publisher(kind, self.output.topic, sure)

    def close(self) -> None:
        """Give the topics back."""
        if self._publisher is not None:
            self._intake.close()
            self.node.destroy_publisher(self._publisher)
            self._publisher = None

    def reset(self) -> None:
        """A robot behind topics starts from where it is: only what is remembered goes."""
        self._forget()

    def read(self) -> Float[np.ndarray, " o"]:
        """The observation that the newest samples make.

        Raises:
            Restarted: stamps went back; the next reading will be of the new beginning.
            Stale: a sample is too old.
            Unsafe: a joint is outside its envelope.
        """
        self._news.append(self.await_state(self.sync_s))
        with self._arrived:
            messages, now = dict(self.messages), time.monotonic()
            self._fresh.clear()
            gone_back, self._went_back = self._went_back, ""
        if gone_back:
            self._forget()
            raise Restarted(f"the stamps of {gone_back} went back: the robot began anew")
        for topic, age in self.ages.items():
            age.check(now, topic)
        if JOINT_STATES in messages:
            state, names = messages[JOINT_STATES], self.output.joints
            parts = [joints(state, names, part) for part in ("position", "velocity", "effort")]
            self.envelope.check(names, *parts)
        obs = self.layout.read(messages)
        for i, value in self._known.items():
            obs[i] = value
        for i in self.layout.unwrapped:
            before = self._unwrapped.get(i, obs[i])
            turn = np.mod(obs[i] - before + np.pi, 2 * np.pi) - np.pi
            obs[i] = before + turn
            if np.isfinite(obs[i]):
                self._unwrapped[i] = float(obs[i])
        self._obs = obs
        return obs

    def write(self, act: Float[np.ndarray, " u"]) -> Float[np.ndarray, " u"]:
        """Send an action; returns the one really sent.

        Raises:
            Unsafe: it is not finite; nothing was sent.
        """
        with self._sending:
            sent = self.guard.pass_on(self.output.command(np.asarray(act, dtype=float)))
            self._publish(sent)
        action = self.output.action(sent)
        self._follow(action)
        return action

    def rest(self) -> None:
        """One step at its rate towards the safe command."""
        with self._sending:
            self._publish(self.guard.pass_on(self.guard.safe))

    def again(self) -> None:
        """The last command once more, for whoever listens whether anybody still speaks."""
        with self._sending:
            self._publish(self.guard.sent)

    def stop(self) -> None:
        """Reach the safe command, and wait until all who listen have it."""
        if self._publisher is None:
            return
        from rclpy.duration import Duration

        end = time.monotonic() + self.stop_s
        self.rest()
        while not self.guard.at_rest() and time.monotonic() < end:
            time.sleep(self.spec.dt)
            self.rest()
        acknowledged = self._publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGED))
        if not (acknowledged and self.heard()):
            self.node.get_logger().error(f"nobody confirms the stop command on {self.topic}")

    @property
    def topic(self) -> str:
        """The full name of the topic of its commands."""
        return str(self.node.resolve_topic_name(self.output.topic))

    def heard(self) -> bool:
        """Whether anybody listens to the commands."""
        return self._publisher is not None and self._publisher.get_subscription_count() > 0

    def await_state(self, seconds: float) -> bool:
        """Wait until every topic has brought something that was not read yet; whether they have."""
        with self._arrived:
            return self._arrived.wait_for(lambda: len(self._fresh) == len(self.ages), seconds)

    def await_next(self, seconds: float) -> bool:
        """:meth:`await_state`, of states that have not even come yet."""
        with self._arrived:
            self._fresh.clear()
        return self.await_state(seconds)

    def hold(self) -> None:
        """Rates of change count from where the joints are, where commands are positions."""
        where = np.full(len(self.output.joints), np.nan)
        if self.output.interface == "position" and JOINT_STATES in self.messages:
            where = joints(self.messages[JOINT_STATES], self.output.joints, "position")
        self.guard.start(where)

    def repeats(self) -> float:
        """The share of the last readings for which some topic had brought nothing new."""
        return 1 - sum(self._news) / len(self._news) if len(self._news) == READS else 0.0

    def age(self) -> float:
        """Of the oldest of the newest samples [s]."""
        now = time.monotonic()
        return max(age.of(now) for age in self.ages.values())

    def _take(self, topic: str, message: Any) -> None:  # noqa: ANN401
        stamp = _nanoseconds(message)
        with self._arrived:
            before = _nanoseconds(self.messages[topic]) if topic in self.messages else -1
            if stamp and stamp == before:
                return
            if stamp and stamp < before:
                self._went_back = topic
            self.messages[topic] = message
            self.ages[topic].fresh(time.monotonic())
            self._fresh.add(topic)
            self._arrived.notify_all()

    def _publish(self, command: Float[np.ndarray, " u"]) -> None:
        from std_msgs.msg import Float64MultiArray

        if self.output.trajectory:
            self._publisher.publish(
                self.output.trajectory_of(command[None], np.array([self.spec.dt]))
            )
        else:
            self._publisher.publish(Float64MultiArray(data=command.tolist()))

    def _follow(self, action: Float[np.ndarray, " u"]) -> None:
        """The known fields one control period later."""
        spec = self.spec
        values = dict(
            zip([f.name for f in (*spec.obs, *spec.act)], [*self._obs, *action], strict=True)
        )
        self._known = {
            i: sum(c * values[n] for n, c in spec.known[spec.obs[i].name].items())
            for i in self._known
        }

    def _forget(self) -> None:
        sources = self.layout.sources
        self._known.update({i: s.first for i, s in enumerate(sources) if s.topic == KNOWN})
        self._unwrapped.clear()
        self._obs = np.zeros(self.spec.num_obs)


def _nanoseconds(message: Any) -> int:  # noqa: ANN401
    stamp = message.header.stamp
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)
