"""ROS 2 bags in and out, sqlite3 and MCAP, without ROS.

A mapping says which number of which message a field of the robot is:

.. code-block:: yaml

    robot: my_pkg.mod:MyRobot      # whose spec; or `spec: spec.json`
    fields:
      hip: {topic: /joint_states, path: "position[hip_joint]"}
      hip_rate: {topic: /joint_states, path: "velocity[hip_joint]"}
      yaw: {topic: /odom, path: pose.pose.orientation.yaw}
      vx: {topic: /odom, path: twist.twist.linear.x}
      hip_goal: {topic: /commands, path: "data[0]", scale: 0.0174533}
    max_gap: 0.1                   # [s]; when left out, 2.5 times the topic's usual period
    condition: on ice              # what was done to the robot; when left out, nothing is known

A path names fields of the message; in brackets stands an index, or the name of a joint, which is
looked up in the message's ``name``; ``roll``, ``pitch`` and ``yaw`` are those of a quaternion. A
value is multiplied by ``scale``, then ``offset`` is added.

What is read is resampled to the robot's period. Observations are interpolated linearly between the
samples before and after (angles between −π and π, the short way round). An action is the one in
force in the middle of the period, held since its sample. Where two samples that are needed lie
further apart than ``max_gap``, the period is left out, and the recording has a gap there. Samples
are stamped by their header where they have one, else by the time at which the bag got them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from mbmrl import registry
from mbmrl.recording import Recording
from mbmrl.spec import Field, RobotSpec, SpecError
from robots.frames import roll_pitch_yaw, rotation

USUAL_GAPS = 2.5
"""So many usual periods of a topic make a gap where the mapping does not say."""
ANGLES = ("roll", "pitch", "yaw")
Format = Literal["mcap", "sqlite3"]


class BagError(ValueError):
    """A bag, or a mapping, that no recording can be made of."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a field's numbers come from.

    Attributes:
        topic: name of the topic.
        path: of the number in its messages.
        scale: of the number.
        offset: is added to it.
    """

    topic: str
    path: str
    scale: float = 1.0
    offset: float = 0.0

    def value(self, message: Any) -> float:  # noqa: ANN401
        """The number in a message; raises :class:`BagError` where there is none."""
        found = message
        for name, _, inside in re.findall(r"(\w+)(\[([^\]]+)\])?", self.path):
            try:
                if name in ANGLES and hasattr(found, "w"):
                    q = np.array([found.w, found.x, found.y, found.z])
                    found = roll_pitch_yaw(rotation(q))[ANGLES.index(name)]
                    continue
                found = getattr(found, name)
                if inside:
                    index = inside if inside.isdecimal() else list(message.name).index(inside)
                    found = found[int(index)]
            except (AttributeError, ValueError, IndexError) as error:
                raise BagError(f"{self.topic} has no {self.path}: {error}") from error
        return float(found) * self.scale + self.offset


@dataclass(frozen=True)
class BagMapping:
    """A robot's fields in a bag.

    Attributes:
        robot: its name.
        spec: of the robot.
        sources: of every field.
        max_gap: [s]; 0 where the topics' own periods decide.
        condition: what was done to the robot.
    """

    robot: str
    spec: RobotSpec
    sources: Mapping[str, Source]
    max_gap: float = 0.0
    condition: str = ""


def load_mapping(file: Path) -> BagMapping:
    """Read a mapping.

    Raises:
        BagError: where it cannot be read, or leaves out a field of the robot.
    """
    from ruamel.yaml import YAML, YAMLError

    if not file.exists():
        raise BagError(f"the mapping {file} does not exist: name one with --mapping")
    try:
        about = dict(YAML(typ="safe", pure=True).load(file.read_text()))
        sources = {str(k): Source(**v) for k, v in about["fields"].items()}
        if "spec" in about:
            spec = RobotSpec.from_json(json.loads((file.parent / about["spec"]).read_text()))
        else:
            spec = registry.load("robots", about["robot"]).spec
        robot, gap = str(about.get("robot", spec.name)), float(about.get("max_gap", 0.0))
        condition = str(about.get("condition", ""))
    except (OSError, YAMLError, TypeError, KeyError, AttributeError, SpecError) as error:
        raise BagError(f"{file} is no mapping: {type(error).__name__}: {error}") from error
    names = [f.name for f in (*spec.obs, *spec.act)]
    missing, unknown = [n for n in names if n not in sources], sorted(set(sources) - set(names))
    if missing or unknown:
        told = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
        raise BagError(f"{file}: {spec.name} has the fields {', '.join(names)}; it {told}")
    return BagMapping(robot, spec, sources, gap, condition)


@dataclass(frozen=True)
class Samples:
    """One field as it stands in a bag.

    Attributes:
        at: when [ns].
        values: in the field's unit.
        back: how many samples went back in time; they are left out.
    """

    at: np.ndarray
    values: Float[np.ndarray, " n"]
    back: int


def read(bag: Path, sources: Mapping[str, Source]) -> dict[str, Samples]:
    """All samples of every field.

    Raises:
        BagError: for a bag that cannot be read, or lacks a topic.
    """
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    of_topic: dict[str, list[str]] = {}
    for name, source in sources.items():
        of_topic.setdefault(source.topic, []).append(name)
    rows: dict[str, list[tuple[int, float]]] = {name: [] for name in sources}
    try:
        with AnyReader([bag], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
            there = {c.topic for c in reader.connections}
            if lost := sorted(set(of_topic) - there):
                raise BagError(
                    f"{bag} has no topic {', '.join(lost)}; it has {', '.join(sorted(there))}"
                )
            wanted = [c for c in reader.connections if c.topic in of_topic]
            for connection, received, raw in reader.messages(wanted):
                message = reader.deserialize(raw, connection.msgtype)
                at = _stamp(message) or received
                for name in of_topic[connection.topic]:
                    rows[name].append((at, sources[name].value(message)))
    except BagError:
        raise
    except Exception as error:  # rosbags raises its reader's, sqlite's and the system's
        raise BagError(f"{bag} cannot be read as a bag: {error}") from error
    return {name: _in_order(name, pairs) for name, pairs in rows.items()}


def _stamp(message: Any) -> int:  # noqa: ANN401
    """The stamp in a message's header [ns]; 0 where it has none."""
    stamp = getattr(getattr(message, "header", None), "stamp", None)
    return 0 if stamp is None else int(stamp.sec) * 10**9 + int(stamp.nanosec)


def _in_order(name: str, pairs: list[tuple[int, float]]) -> Samples:
    if len(pairs) < 2:
        raise BagError(f"{name} has {len(pairs)} samples: two at least are needed")
    at, values = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    keep = at > np.maximum.accumulate(np.r_[at[0] - 1, at[:-1]])
    return Samples(at[keep], values[keep], int((~keep).sum()))


def resample(mapping: BagMapping, samples: Mapping[str, Samples]) -> Recording:
    """One recording at the robot's period; rows that are not known are NaN, and so make gaps.

    Raises:
        BagError: where the topics do not overlap in time.
    """
    spec = mapping.spec
    acts = [samples[f.name] for f in spec.act]
    start = max(s.at[0] for s in samples.values())
    end = min(s.at[-1] for s in samples.values())
    if end - start < 2e9 * spec.dt:
        raise BagError("the topics do not overlap in time")
    # the ticks fall on the commands, as near as equal periods allow
    first = next((int(t) for t in acts[0].at if t >= start), int(start))
    times = np.arange(0.0, (end - first) / 1e9 + 1e-9, spec.dt)
    columns = [_linear(f, samples[f.name], first, times, mapping.max_gap) for f in spec.obs]
    held = [_held(s, first, times + spec.dt / 2, mapping.max_gap) for s in acts]
    return Recording(
        spec=spec,
        robot=mapping.robot,
        epoch=first / 1e9,
        stamps=times,
        obs=np.stack(columns, 1),
        act=np.stack(held, 1),
        condition=mapping.condition,
    )


def _seconds(samples: Samples, first: int) -> Float[np.ndarray, " n"]:
    return (samples.at - first) / 1e9


def _gap(at: Float[np.ndarray, " n"], max_gap: float) -> float:
    return max_gap or USUAL_GAPS * float(np.median(np.diff(at)))


def _linear(
    field: Field, samples: Samples, first: int, times: Float[np.ndarray, " t"], max_gap: float
) -> Float[np.ndarray, " t"]:
    at, values = _seconds(samples, first), samples.values
    turns = field.unit == "rad" and math.isclose(field.high - field.low, 2 * math.pi, rel_tol=1e-3)
    if turns:
        values = np.unwrap(values)
    found = np.interp(times, at, values)
    if turns:
        found = (found - field.low) % (2 * math.pi) + field.low
    after = np.clip(np.searchsorted(at, times), 1, len(at) - 1)
    exact = np.isclose(at[after], times, atol=1e-9) | np.isclose(at[after - 1], times, atol=1e-9)
    lost = (at[after] - at[after - 1] > _gap(at, max_gap)) & ~exact
    return np.where(lost, np.nan, found)


def _held(
    samples: Samples, first: int, times: Float[np.ndarray, " t"], max_gap: float
) -> Float[np.ndarray, " t"]:
    at = _seconds(samples, first)
    before = np.clip(np.searchsorted(at, times, side="right") - 1, 0, None)
    lost = times - at[before] > _gap(at, max_gap)
    return np.where(lost, np.nan, samples.values[before])


def write(recording: Recording, folder: Path, storage: Format = "mcap") -> None:
    """Write a bag with a topic for every field, and the mapping that reads it again.

    Args:
        recording: one episode; what is not finite is left out.
        folder: of the bag, which `ros2 bag`, PlotJuggler and Foxglove open; there is none yet.
        storage: ``mcap`` or ``sqlite3``.

    Raises:
        BagError: where the folder exists, or a field's name is no topic's.
    """
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    if folder.exists():
        raise BagError(f"{folder} exists: choose another name")
    spec, store = recording.spec, get_typestore(Stores.ROS2_JAZZY)
    number = store.types["std_msgs/msg/Float64"]
    topics = {f.name: f"/obs/{f.name}" for f in spec.obs}
    topics |= {f.name: f"/act/{f.name}" for f in spec.act}
    bad = [n for n in topics if not re.fullmatch(r"[A-Za-z_]\w*", n, re.ASCII)]
    if bad:
        raise BagError(f"{', '.join(bad)} can be no topic of ROS")
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    with Writer(folder, version=9, storage_plugin=plugin) as writer:
        ways = {
            name: writer.add_connection(topic, number.__msgtype__, typestore=store)
            for name, topic in topics.items()
        }
        for stamp, obs, act in zip(recording.stamps, recording.obs, recording.act, strict=True):
            at = round(1e9 * (recording.epoch + stamp))
            for name, value in zip(ways, (*obs, *act), strict=True):
                if np.isfinite(value):
                    message = store.serialize_cdr(number(float(value)), number.__msgtype__)
                    writer.write(ways[name], at, message)
    (folder / "spec.json").write_text(json.dumps(spec.to_json(), indent=1))
    lines = [f"  {name}: {{topic: {topic}, path: data}}" for name, topic in topics.items()]
    about = [f"robot: {recording.robot}", f"condition: {json.dumps(recording.condition)}"]
    text = "\n".join([*about, "spec: spec.json", "fields:", *lines, ""])
    (folder / "mapping.yaml").write_text(text)
