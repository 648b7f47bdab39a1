"""ROS 2 bags in and out."""

from __future__ import annotations

import dataclasses
import json
import math
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mbmrl import cli, log, logs, recording
from mbmrl.recording import Recording
from mbmrl.spec import Field, RobotSpec
from tests.dummy import SPEC as POINTMASS
from tests.recorded import babble
from tests.test_recording import made

rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="pip install 'mbmrl[bags]'")

from rosbags.typesys import Stores, get_typestore  # noqa: E402

from mbmrl import bags  # noqa: E402
from mbmrl.bags import BagError, Samples, Source, load_mapping, resample  # noqa: E402

STORE = get_typestore(Stores.ROS2_JAZZY)
START = 1_700_000_000  # [s since 1970]

SPEC = RobotSpec(
    name="rover",
    dt=0.1,
    obs=(
        Field("hip", "rad"),
        Field("hip_rate", "rad/s"),
        Field("yaw", "rad", -math.pi, math.pi),
    ),
    act=(Field("push", "N", -1, 1),),
)
MAPPING = """
robot: nowhere:Rover
spec: spec.json
fields:
  hip: {topic: /joint_states, path: "position[hip_joint]"}
  hip_rate: {topic: /joint_states, path: "velocity[1]"}
  yaw: {topic: /odom, path: pose.pose.orientation.yaw}
  push: {topic: /commands, path: "data[0]", scale: 0.5, offset: 0.1}
"""


def message(kind: str, *values: Any) -> Any:
    return STORE.types[kind](*values)


def header(at: float) -> Any:
    stamp = message("builtin_interfaces/msg/Time", int(at), round(at % 1 * 1e9))
    return message("std_msgs/msg/Header", stamp, "")


def joints(at: float, angle: float, rate: float) -> Any:
    numbers = np.array([9.0, angle]), np.array([9.0, rate]), np.zeros(0)
    return message("sensor_msgs/msg/JointState", header(at), ["other_joint", "hip_joint"], *numbers)


def odometry(at: float, yaw: float) -> Any:
    point, vector = (message(f"geometry_msgs/msg/{n}", 0.0, 0.0, 0.0) for n in ("Point", "Vector3"))
    turned = message("geometry_msgs/msg/Quaternion", 0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2))
    pose = message("geometry_msgs/msg/Pose", point, turned)
    twist = message("geometry_msgs/msg/Twist", vector, vector)
    return message(
        "nav_msgs/msg/Odometry",
        header(at),
        "base",
        message("geometry_msgs/msg/PoseWithCovariance", pose, np.zeros(36)),
        message("geometry_msgs/msg/TwistWithCovariance", twist, np.zeros(36)),
    )


def command(number: float) -> Any:
    layout = message("std_msgs/msg/MultiArrayLayout", [], 0)
    return message("std_msgs/msg/Float64MultiArray", layout, np.array([number]))


def angle(t: float) -> float:
    return 0.3 * math.sin(t)


def bag_of(
    folder: Path,
    storage: str = "MCAP",
    late: float = 0.03,
    outage: tuple[float, float] = (9.0, 9.0),
) -> Path:
    """5 s: joints at 200 Hz, odometry at 50 Hz, commands at 10 Hz, all of them ``late`` [s]."""
    rows = []
    for k in range(1000):
        t = k / 200
        if not outage[0] < t < outage[1]:
            rows.append((t, "/joint_states", joints(START + t, angle(t), 0.3 * math.cos(t))))
    for k in range(250):
        t = k / 50
        yaw = (2.0 * t + math.pi) % (2 * math.pi) - math.pi
        rows.append((t, "/odom", odometry(START + t, yaw)))
    rows += [(0.05 + k / 10 - late, "/commands", command(k / 50)) for k in range(49)]
    plugin = getattr(rosbag2.StoragePlugin, storage)
    with rosbag2.Writer(folder, version=9, storage_plugin=plugin) as writer:
        ways: dict[str, Any] = {}
        for t, topic, m in sorted(rows, key=lambda row: row[0]):
            if topic not in ways:
                ways[topic] = writer.add_connection(topic, m.__msgtype__, typestore=STORE)
            at = START * 10**9 + round((t + late) * 1e9)
            writer.write(ways[topic], at, STORE.serialize_cdr(m, m.__msgtype__))
    (folder / "spec.json").write_text(json.dumps(SPEC.to_json()))
    (folder / "mapping.yaml").write_text(MAPPING)
    return folder


def imported(folder: Path) -> Recording:
    mapping = load_mapping(folder / "mapping.yaml")
    return resample(mapping, bags.read(folder, mapping.sources))


# --- in ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["MCAP", "SQLITE3"])
def test_fields_are_resampled_to_the_robots_period(storage: str, tmp_path: Path) -> None:
    found = imported(bag_of(tmp_path / "bag", storage))
    assert found.spec == SPEC and found.robot == "nowhere:Rover"
    # from the first command on, which comes at 0.05 s
    assert found.epoch == pytest.approx(START + 0.05, abs=1e-6)
    assert len(found) == 49 and len(found.stretches()) == 1
    t = found.stamps + 0.05
    np.testing.assert_allclose(found.obs[:, 0], [angle(x) for x in t], atol=1e-4)
    np.testing.assert_allclose(found.obs[:, 1], 0.3 * np.cos(t), atol=1e-4)
    turned = (2.0 * t + math.pi) % (2 * math.pi) - math.pi
    np.testing.assert_allclose(found.obs[:, 2], turned, atol=1e-3)  # across ±π as well
    np.testing.assert_allclose(found.act[:, 0], 0.5 * np.arange(49) / 50 + 0.1)


def test_the_stamps_of_headers_count_where_there_are_any(tmp_path: Path) -> None:
    """Joint states that arrive half a second late are no half second wrong."""
    late = imported(bag_of(tmp_path / "bag", late=0.5))
    t = late.epoch - START + late.stamps
    np.testing.assert_allclose(late.obs[:, 0], np.vectorize(angle)(t), atol=1e-3)


def test_a_gap_stays_a_gap(tmp_path: Path) -> None:
    found = imported(bag_of(tmp_path / "bag", outage=(2.0, 3.01)))
    before, after = found.stretches()
    lost = found.stamps[before.stop : after.start] + 0.05
    assert lost[0] == pytest.approx(2.05) and lost[-1] == pytest.approx(2.95)
    assert np.isnan(found.obs[before.stop : after.start, 0]).all()
    assert np.isfinite(found.obs[before]).all() and np.isfinite(found.obs[after]).all()


def test_the_mapping_can_say_what_a_gap_is(tmp_path: Path) -> None:
    folder = bag_of(tmp_path / "bag", outage=(2.0, 2.4))
    assert len(imported(folder).stretches()) == 2
    with (folder / "mapping.yaml").open("a") as file:
        file.write("max_gap: 0.5\n")
    assert len(imported(folder).stretches()) == 1


def test_samples_that_go_back_in_time_are_left_out() -> None:
    found = bags._in_order("x", [(10, 1.0), (30, 2.0), (20, 3.0), (30, 4.0), (40, 5.0)])
    assert found.at.tolist() == [10, 30, 40] and found.back == 2
    assert found.values.tolist() == [1.0, 2.0, 5.0]


def test_commands_are_those_in_force_in_the_middle_of_the_period(tmp_path: Path) -> None:
    """Commands at 40 Hz: the third of four."""
    mapping = load_mapping(bag_of(tmp_path / "bag") / "mapping.yaml")
    at = START * 10**9 + np.arange(0, 4 * 10**9, 25_000_000)
    steady = Samples(at, np.zeros(len(at)), 0)
    samples = {n: steady for n in mapping.sources}
    samples["push"] = Samples(at, np.arange(len(at)) % 4.0, 0)
    found = resample(mapping, samples)
    assert set(found.act[:, 0]) == {2.0}


def test_topics_that_do_not_overlap_are_refused(tmp_path: Path) -> None:
    mapping = load_mapping(bag_of(tmp_path / "bag") / "mapping.yaml")
    at = np.arange(100) * 10**7
    samples = {n: Samples(at, np.zeros(100), 0) for n in mapping.sources}
    samples["push"] = Samples(at + 10**10, np.zeros(100), 0)
    with pytest.raises(BagError, match="do not overlap"):
        resample(mapping, samples)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("  hip:", "  hop:"), "it lacks hip"),
        (("  push:", "  pull: {topic: /x, path: y}\n  push:"), "unknown pull"),
        (("topic: /odom", "topic: /odo"), "no topic /odo; it has /commands, /joint_states, /odom"),
        (("position[hip_joint]", "position[knee]"), r"/joint_states has no position\[knee\]"),
        (("data[0]", "data[3]"), r"/commands has no data\[3\]"),
        (("linear", "linear"), ""),
        (("fields:", "fiedls:"), "is no mapping"),
        (("path: pose", "paht: pose"), "is no mapping"),
        (("spec.json", "absent.json"), "is no mapping"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(
    change: tuple[str, str], message: str, tmp_path: Path
) -> None:
    folder = bag_of(tmp_path / "bag")
    (folder / "mapping.yaml").write_text(MAPPING.replace(*change))
    if not message:
        imported(folder)
        return
    with pytest.raises(BagError, match=message):
        imported(folder)


@pytest.mark.parametrize("damage", ["absent", "half"])
def test_a_bag_that_cannot_be_read_is_refused(damage: str, tmp_path: Path) -> None:
    folder = bag_of(tmp_path / "bag")
    (data,) = folder.glob("*.mcap")
    if damage == "absent":
        data.unlink()
    else:
        data.write_bytes(data.read_bytes()[:3000])
    with pytest.raises(BagError, match="cannot be read as a bag"):
        bags.read(folder, {"x": Source(topic="/odom", path="header.stamp.sec")})


# --- out --------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_what_is_written_is_read_again(storage: Any, tmp_path: Path) -> None:
    whole = made(50, condition='wet: "very"')
    bags.write(whole, tmp_path / "bag", storage)
    found = imported(tmp_path / "bag")
    assert (found.spec, found.robot) == (whole.spec, whole.robot)
    assert found.condition == whole.condition
    np.testing.assert_allclose(found.obs, whole.obs, atol=1e-6)
    np.testing.assert_allclose(found.act, whole.act, atol=1e-6)
    assert found.epoch + found.stamps[0] == pytest.approx(whole.epoch + whole.stamps[0])
    with pytest.raises(BagError, match="exists"):
        bags.write(whole, tmp_path / "bag", storage)


def test_foxglove_s_own_reader_opens_it(tmp_path: Path) -> None:
    reader = pytest.importorskip("mcap_ros2.reader")
    whole = made(50)
    bags.write(whole, tmp_path / "bag")
    (file,) = (tmp_path / "bag").glob("*.mcap")
    found: dict[str, list[tuple[int, float]]] = {}
    for message in reader.read_ros2_messages(str(file)):
        row = message.log_time_ns, message.ros_msg.data
        found.setdefault(message.channel.topic, []).append(row)
    stamps, values = zip(*found["/obs/vx"], strict=True)
    np.testing.assert_array_equal(values, whole.obs[:, 0])
    np.testing.assert_allclose(1e-9 * np.array(stamps), whole.epoch + whole.stamps)
    _, forces = zip(*found["/act/force"], strict=True)
    np.testing.assert_array_equal(forces, whole.act[:, 0])


def test_sqlite_holds_the_tables_that_rosbag2_asks_for(tmp_path: Path) -> None:
    """By the queries of rosbag2_storage_sqlite3."""
    bags.write(made(50), tmp_path / "bag", "sqlite3")
    (file,) = (tmp_path / "bag").glob("*.db3")
    with closing(sqlite3.connect(file)) as db:
        topics = db.execute("SELECT name, type, serialization_format FROM topics").fetchall()
        assert ("/obs/vx", "std_msgs/msg/Float64", "cdr") in topics
        stamps = db.execute(
            "SELECT timestamp FROM messages JOIN topics ON messages.topic_id = topics.id "
            "WHERE topics.name = '/obs/vx' ORDER BY messages.timestamp"
        ).fetchall()
    assert len(stamps) == 50


def test_a_name_that_is_no_topic_is_refused(tmp_path: Path) -> None:
    odd = dataclasses.replace(POINTMASS, obs=(Field("v x", "m/s"), Field("pitch", "rad")))
    with pytest.raises(BagError, match="v x can be no topic"):
        bags.write(made(spec=odd), tmp_path / "bag")


# --- runs, and the commands -------------------------------------------------------------------


def run(*args: object) -> int:
    return cli.main([str(a) for a in args])


def test_a_run_is_cut_where_its_condition_changes(tmp_path: Path) -> None:
    log.save(tmp_path / "run", babble("hexapod", "friction:scale=0.3,onset=0.3", ticks=10))
    assert run("import", tmp_path / "run", "--out", tmp_path / "data") == 0
    before, after = recording.load_all(tmp_path / "data")
    assert (before.condition, len(before)) == ("", 3)
    assert (after.condition, len(after)) == ("friction:scale=0.3,onset=0.3", 7)
    whole = logs.of_run(log.load(tmp_path / "run"))
    np.testing.assert_array_equal(np.concatenate([before.obs, after.obs]), whole.obs)


def test_there_and_back_by_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.save(tmp_path / "run", babble("hexapod", ticks=10))
    assert run("export", tmp_path / "run", "--out", tmp_path / "bag", "--storage", "sqlite3") == 0
    args = ["import", tmp_path / "bag", "--out", tmp_path / "data", "--condition", "wet"]
    assert run(*args) == 0 and run(*args) == 0
    assert "minutes that can be used, 0 gaps" in capsys.readouterr().out
    first, second = recording.load_all(tmp_path / "data")
    assert first.condition == "wet" and first.robot == "hexapod"
    np.testing.assert_array_equal(first.obs, second.obs)
    whole = logs.of_run(log.load(tmp_path / "run"))
    np.testing.assert_allclose(first.obs, whole.obs, atol=1e-6)


def test_a_folder_of_another_robot_takes_no_import(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.save(tmp_path / "run", babble("hexapod", ticks=10))
    recording.save(tmp_path / "data" / "0000.episode", made())
    assert run("import", tmp_path / "run", "--out", tmp_path / "data") == 2
    assert "data is of another robot" in capsys.readouterr().err
    assert len(recording.load_all(tmp_path / "data")) == 1


def test_what_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", tmp_path / "out"]
    assert run("import", tmp_path / "nix", *out) == 2
    assert "nix does not exist" in capsys.readouterr().err
    assert run("import", tmp_path, *out) == 2
    assert "mapping.yaml does not exist: name one with --mapping" in capsys.readouterr().err
    recording.save(tmp_path / "a.episode", made())
    assert run("export", tmp_path, *out) == 2
    assert f"name one, as {tmp_path / 'a.episode'}" in capsys.readouterr().err


def test_without_the_library_the_extra_is_named(tmp_path: Path) -> None:
    recording.save(tmp_path / "a.episode", made())
    code = (
        "import sys; sys.modules['rosbags.rosbag2'] = None; from mbmrl import cli;"
        f"sys.exit(cli.main(['export', {str(tmp_path / 'a.episode')!r}, '--out', 'x']))"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'mbmrl[bags]'" in done.stderr
