"""Which number of which ROS message an observation field is: by name, both ways.

A source is written ``FIELD=PLACE``, where PLACE is one of

- ``position/JOINT``, ``velocity/JOINT``, ``effort/JOINT`` of ``sensor_msgs/JointState``;
- ``imu/…`` of ``sensor_msgs/Imu``: :data:`ANGLES`, :data:`TURNS`, :data:`RATES`;
- ``odom/…`` of ``nav_msgs/Odometry``: x, y, z, the same, and vx, vy, vz in the body frame;
- ``known`` or ``known/0.5``: nobody measures it; the controller follows the spec's linear map from
  that first value.

Messages are only looked at by their fields, so nothing here needs ROS.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from mbmrl.spec import Field, RobotSpec, SpecError

JOINT_STATES, IMU, ODOM, KNOWN = "joint_states", "imu", "odom", "known"
JOINT_PARTS = ("position", "velocity", "effort")
ANGLES = ("roll", "pitch", "yaw")
TURNS = ("turn_x", "turn_y", "turn_z")
"""The whole turn about one axis [rad], for a robot that turns about no other."""
RATES = ("roll_rate", "pitch_rate", "yaw_rate")
PLACE, SPEED = ("x", "y", "z"), ("vx", "vy", "vz")
AXES = "xyz"
OF_TOPIC = {IMU: (*ANGLES, *TURNS, *RATES), ODOM: (*PLACE, *ANGLES, *TURNS, *RATES, *SPEED)}


@dataclass(frozen=True)
class Source:
    """One place in one message.

    Attributes:
        topic: of :data:`OF_TOPIC`, :data:`JOINT_STATES` or :data:`KNOWN`.
        part: of the message; for joints, which of :data:`JOINT_PARTS`.
        joint: its name, for joints.
        first: the first value of a known field.
    """

    topic: str
    part: str = ""
    joint: str = ""
    first: float = 0.0

    def __str__(self) -> str:
        """As it is written."""
        if self.topic == JOINT_STATES:
            return f"{self.part}/{self.joint}"
        return f"{self.topic}/{self.part}" if self.part else f"{self.topic}/{self.first:g}"


def parse(text: str) -> Source:
    """``position/knee``, ``odom/vx``, ``known`` → a source; raises :class:`SpecError`."""
    topic, _, rest = text.partition("/")
    if topic in JOINT_PARTS and rest:
        return Source(JOINT_STATES, topic, rest)
    if rest in OF_TOPIC.get(topic, ()):
        return Source(topic, rest)
    if topic == KNOWN:
        try:
            return Source(KNOWN, first=float(rest or 0.0))
        except ValueError:
            pass
    places = [f"{p}/JOINT" for p in JOINT_PARTS]
    places += [f"{t}/{{{','.join(parts)}}}" for t, parts in OF_TOPIC.items()]
    raise SpecError(f"{text!r} is no place in a message: choose from {', '.join(places)}, known")


def usual(field: Field, pose: Sequence[str]) -> Source:
    """Where a field is looked for unless it is said: by its name and unit."""
    name = field.name
    if name in pose:
        return Source(ODOM, ("x", "y", "yaw")[pose.index(name)])
    if name in (*PLACE, *SPEED):
        return Source(ODOM, name)
    if name in ANGLES:
        # an angle without limits is one that counts turns
        counts = math.isinf(field.low) and math.isinf(field.high)
        return Source(IMU, f"turn_{AXES[ANGLES.index(name)]}" if counts else name)
    if name in RATES:
        return Source(IMU, name)
    if name.endswith("_rate"):
        return Source(JOINT_STATES, "velocity", name.removesuffix("_rate"))
    return Source(JOINT_STATES, "position", name)


class Layout:
    """Every field of an observation, and where it travels.

    Args:
        spec: of the robot.
        given: sources as text, for fields that are not where they usually are.

    Raises:
        SpecError: for a field that the robot has not, or a place that no message has.
    """

    def __init__(self, spec: RobotSpec, given: Sequence[str] = ()) -> None:
        self.spec = spec
        said = {}
        for text in given:
            name, equals, place = (part.strip() for part in text.partition("="))
            if not equals:
                raise SpecError(f"a source is written FIELD=PLACE, not {text!r}")
            spec.index(name)
            said[name] = parse(place)
        self.sources = tuple(said.get(f.name) or usual(f, spec.pose) for f in spec.obs)
        for field, source in zip(spec.obs, self.sources, strict=True):
            if source.topic == KNOWN and field.name not in spec.known:
                raise SpecError(
                    f"{field.name} cannot be known: {spec.name} has a linear map for "
                    f"{', '.join(spec.known) or 'no field'} only; say which message measures it"
                )
        self.unwrapped = [
            i
            for i, (f, s) in enumerate(zip(spec.obs, self.sources, strict=True))
            if s.part in (*ANGLES, *TURNS) and math.isinf(f.high)
        ]

    @property
    def topics(self) -> list[str]:
        """That are needed."""
        needed = {s.topic for s in self.sources}
        return [t for t in (JOINT_STATES, IMU, ODOM) if t in needed]

    def missing(self, messages: Mapping[str, Any]) -> list[str]:
        """What is wanted of the joints and not there, each with what to do."""
        if JOINT_STATES not in messages:
            return []
        there = list(messages[JOINT_STATES].name)
        return [
            f"{f.name} is to be the {s.part} of joint {s.joint!r}, which {JOINT_STATES} does not "
            f"name; it names {', '.join(there)}: add '{f.name}=PLACE' to the parameter sources"
            for f, s in zip(self.spec.obs, self.sources, strict=True)
            if s.topic == JOINT_STATES and s.joint not in there
        ]

    def read(self, messages: Mapping[str, Any]) -> Float[np.ndarray, " o"]:
        """The observation that these messages hold; NaN where they do not say, or it is known."""
        found = {t: _numbers(t, messages[t]) for t in self.topics if t in messages}
        values = [
            found.get(s.topic, {}).get(f"{s.part}/{s.joint}" if s.joint else s.part, math.nan)
            for s in self.sources
        ]
        return np.array(values, dtype=float)

    def write(self, obs: Float[np.ndarray, " o"], messages: Mapping[str, Any]) -> None:
        """Put an observation into fresh messages: the inverse of :meth:`read`."""
        parts: dict[str, dict[str, float]] = {t: {} for t in self.topics}
        joints: dict[str, dict[str, float]] = {}
        for source, value in zip(self.sources, obs, strict=True):
            if source.topic == JOINT_STATES:
                joints.setdefault(source.joint, {})[source.part] = float(value)
            elif source.topic != KNOWN:
                parts[source.topic][source.part] = float(value)
        if JOINT_STATES in messages:
            state = messages[JOINT_STATES]
            state.name = list(joints)
            for part in JOINT_PARTS:
                if any(part in values for values in joints.values()):
                    setattr(state, part, [v.get(part, math.nan) for v in joints.values()])
        if IMU in messages:
            _orient(messages[IMU].orientation, parts[IMU])
            _set(messages[IMU].angular_velocity, parts[IMU], RATES)
        if ODOM in messages:
            pose, twist = messages[ODOM].pose.pose, messages[ODOM].twist.twist
            _set(pose.position, parts[ODOM], PLACE)
            _orient(pose.orientation, parts[ODOM])
            _set(twist.linear, parts[ODOM], SPEED)
            _set(twist.angular, parts[ODOM], RATES)


def joints(message: Any, names: Sequence[str], part: str) -> Float[np.ndarray, " u"]:  # noqa: ANN401
    """One part of the named joints; NaN for those that the message does not tell."""
    found = _numbers(JOINT_STATES, message)
    return np.array([found.get(f"{part}/{name}", math.nan) for name in names])


def _numbers(topic: str, message: Any) -> dict[str, float]:  # noqa: ANN401
    """Everything that a message tells, by part."""
    if topic == JOINT_STATES:
        names = list(message.name)
        # a part that is empty, or of another length than the names, tells nothing
        parts = {p: list(getattr(message, p)) for p in JOINT_PARTS}
        return {
            f"{p}/{n}": v
            for p, values in parts.items()
            if len(values) == len(names)
            for n, v in zip(names, values, strict=True)
        }
    if topic == IMU:
        angles, rates = _angles(message.orientation), _get(message.angular_velocity, RATES)
        # REP 145: a first covariance of −1 says that the part is not measured
        if message.orientation_covariance[0] == -1:
            angles = dict.fromkeys(angles, math.nan)
        if message.angular_velocity_covariance[0] == -1:
            rates = dict.fromkeys(rates, math.nan)
        return {**angles, **rates}
    pose, twist = message.pose.pose, message.twist.twist
    return {
        **_get(pose.position, PLACE),
        **_angles(pose.orientation),
        **_get(twist.linear, SPEED),
        **_get(twist.angular, RATES),
    }


def _get(vector: Any, names: Sequence[str]) -> dict[str, float]:  # noqa: ANN401
    return {name: getattr(vector, axis) for name, axis in zip(names, AXES, strict=True)}


def _set(vector: Any, values: Mapping[str, float], names: Sequence[str]) -> None:  # noqa: ANN401
    for name, axis in zip(names, AXES, strict=True):
        setattr(vector, axis, values.get(name, 0.0))


def _angles(quaternion: Any) -> dict[str, float]:  # noqa: ANN401
    """Roll, pitch, yaw and the whole turns; NaN for a quaternion that is none."""
    w, x, y, z = quaternion.w, quaternion.x, quaternion.y, quaternion.z
    length = math.hypot(w, x, y, z)
    if not 0.5 < length < 2.0:  # all zeros is how a driver says that it does not know
        return dict.fromkeys((*ANGLES, *TURNS), math.nan)
    w, x, y, z = w / length, x / length, y / length, z / length
    # what frames.py does for many, here for one: numpy takes 20 times as long for so few numbers
    angles = (
        math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)),
        math.asin(max(-1.0, min(1.0, 2 * (w * y - x * z)))),
        math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)),
    )
    turns = (math.remainder(2 * math.atan2(v, w), 2 * math.pi) for v in (x, y, z))
    return dict(zip((*ANGLES, *TURNS), (*angles, *turns), strict=True))


def _orient(quaternion: Any, values: Mapping[str, float]) -> None:  # noqa: ANN401
    """Fill in the orientation: yaw after pitch after roll, or one whole turn."""
    halves = [values.get(a, values.get(t, 0.0)) / 2 for a, t in zip(ANGLES, TURNS, strict=True)]
    (cr, cp, cy), (sr, sp, sy) = np.cos(halves), np.sin(halves)
    quaternion.w = float(cr * cp * cy + sr * sp * sy)
    quaternion.x = float(sr * cp * cy - cr * sp * sy)
    quaternion.y = float(cr * sp * cy + sr * cp * sy)
    quaternion.z = float(cr * cp * sy - sr * sp * cy)
