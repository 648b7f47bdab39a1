"""Is a model trained from ROS 2 bags as good as one trained from our own recordings?

A simulated robot babbles under EPISODES drawn conditions: once recorded by `mbmrl record`, once
behind ROS 2 topics, where a process of its own sends the actions and writes what goes over the
topics to a bag (rosbag2, MCAP). The bags are imported, both are trained on alike, and both
controllers drive the robot's whole test suite. Reported: mean score and return of either, and the
ratio of the scores with its 95 % interval (bootstrap over conditions, paired by path and seed).

    pip install -e '.[ros,bags]'
    python benchmarks/bag_training.py --out runs/bags

About an hour on two cores. What is in --out already is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from controllers.scripted import Babble
from mbmrl import conditions, registry
from mbmrl.record import Blind
from mbmrl.ros import env
from mbmrl.spec import RobotSpec
from robots.topics import ANGLES, IMU, JOINT_STATES, ODOM, PLACE, RATES, SPEED, Layout

ROBOT = "hexapod"
EPISODES = 30
SECONDS = 80.0
"""Of each episode [s]."""
MINUTES = 8.0
"""Of training, on two cores."""
DOMAIN = "213"
COMMANDS = "/forward_command_controller/commands"
PATHS = {
    JOINT_STATES: {part: f"{part}[{{}}]" for part in ("position", "velocity", "effort")},
    IMU: {a: f"orientation.{a}" for a in ANGLES}
    | {rate: f"angular_velocity.{axis}" for rate, axis in zip(RATES, PLACE, strict=True)},
    ODOM: {a: f"pose.pose.orientation.{a}" for a in ANGLES}
    | {p: f"pose.pose.position.{p}" for p in PLACE}
    | {v: f"twist.twist.linear.{v[1]}" for v in SPEED},
}
"""Where a mapping finds what :class:`Layout` calls by its part."""


def mbmrl(*args: object) -> None:
    """One command of ours."""
    subprocess.run([sys.executable, "-m", "mbmrl.cli", *map(str, args)], check=True)


def mapping(spec: RobotSpec) -> str:
    """YAML for `mbmrl import`."""
    lines = [f"robot: {spec.name}", "fields:"]
    for field, source in zip(spec.obs, Layout(spec).sources, strict=True):
        path = PATHS[source.topic][source.part].format(source.joint)
        lines.append(f'  {field.name}: {{topic: /{source.topic}, path: "{path}"}}')
    for i, field in enumerate(spec.act):
        lines.append(f'  {field.name}: {{topic: {COMMANDS}, path: "data[{i}]"}}')
    return "\n".join([*lines, ""])


def drawn() -> list[str]:
    """The condition of each episode."""
    probe, rng = registry.load("robots", ROBOT)(), np.random.default_rng(1)
    return [conditions.text(conditions.sample(probe, rng, "train", k % 3)) for k in range(EPISODES)]


def native(out: Path, texts: Iterable[str]) -> None:
    """Our own recordings."""
    for text, count in Counter(texts).items():
        args = ["--robot", ROBOT, "--condition", text, "--seconds", SECONDS, "--episodes", count]
        mbmrl("record", *args, "--out", out / "native")


def over_ros(out: Path, texts: Iterable[str]) -> None:
    """A bag an episode, each written by a process of its own, then imported."""
    (out / "mapping.yaml").write_text(mapping(registry.load("robots", ROBOT).spec))
    for seed, text in enumerate(texts):
        bag = out / "bags" / f"{seed:02d}"
        if not bag.exists():
            parts = [part for part in text.split(" + ") if part]
            sets = [f"robot={ROBOT}", f"seed={seed}", "real_time=false", f"perturb={parts}"]
            args = [x for pair in sets for x in ("--set", pair)]
            robot = subprocess.Popen([sys.executable, "-m", "mbmrl.cli", "ros", "robot", *args])
            try:
                babbler = [sys.executable, __file__, "--babble-to", str(bag), "--seed", str(seed)]
                subprocess.run(babbler, check=True)
            finally:
                robot.terminate()
                robot.wait(30)
        if not (out / "imported" / f"{seed:04d}.episode").exists():
            args = [bag, "--mapping", out / "mapping.yaml", "--condition", text]
            mbmrl("import", *args, "--out", out / "imported")


def babble_to(bag: Path, seed: int) -> None:
    """Send an action for every state, and keep every message."""
    import rclpy
    from nav_msgs.msg import Odometry
    from rclpy.serialization import deserialize_message, serialize_message
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import Imu, JointState
    from std_msgs.msg import Float64MultiArray

    rclpy.init()
    here, store = rclpy.create_node("babbler"), get_typestore(Stores.ROS2_JAZZY)
    kinds = {"/joint_states": JointState, "/imu": Imu, "/odom": Odometry, "/clock": Clock}
    policy = Blind(Babble(registry.load("robots", ROBOT).spec, seed))
    policy.reset(np.zeros(1))
    speak = here.create_publisher(Float64MultiArray, COMMANDS, 1)
    kept: list[tuple[str, int, bytes]] = []
    now = 0

    def hear(topic: str, raw: bytes) -> None:
        nonlocal now
        if topic == "/clock":
            stamp = deserialize_message(raw, Clock).clock
            now = stamp.sec * 10**9 + stamp.nanosec
            act = policy.act(np.zeros(1)).action[0].double().tolist()
            message = Float64MultiArray(data=act)
            speak.publish(message)
            kept.append((COMMANDS, now, serialize_message(message)))
        kept.append((topic, now, raw))

    for topic, kind in kinds.items():
        here.create_subscription(kind, topic, lambda m, t=topic: hear(t, m), 10, raw=True)
    end = time.monotonic() + 300
    while now < 1e9 * SECONDS and time.monotonic() < end:
        rclpy.spin_once(here, timeout_sec=0.5)
    rclpy.shutdown()
    if now < 1e9 * SECONDS:
        raise SystemExit(f"only {now / 1e9:.1f} s came over the topics")
    names = {t: k.__module__.split(".")[0] + "/msg/" + k.__name__ for t, k in kinds.items()}
    names[COMMANDS] = "std_msgs/msg/Float64MultiArray"
    part = bag.with_name(f".{bag.name}.part")
    with Writer(part, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        ways = {t: writer.add_connection(t, name, typestore=store) for t, name in names.items()}
        for topic, stamp, raw in kept:
            writer.write(ways[topic], stamp, raw)
    part.rename(bag)


def compare(out: Path) -> dict[str, Any]:
    """Scores of both controllers over the test suite."""
    rows, returns = {}, {}
    for name in ("native", "imported"):
        data, runs, json_file = out / name, out / f"trained-{name}", out / f"{name}.json"
        mbmrl("train", "--data", data, "--out", runs, "--minutes", MINUTES)
        if not json_file.exists():
            flags = ["--checkpoint", runs, "--agents", "default", "--json", json_file]
            mbmrl("eval", "--robot", ROBOT, *flags)
        found = json.loads(json_file.read_text())
        returns[name] = float(np.mean([r["return"] for r in found]))
        rows[name] = {(r["perturbation"], r["path"], r["seed"]): r["score"] for r in found}
    keys = sorted(rows["native"])
    texts = sorted({text for text, _, _ in keys})
    of = {t: np.array([[rows[n][k] for n in rows] for k in keys if k[0] == t]) for t in texts}
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(4000):
        mean = np.concatenate([of[texts[i]] for i in rng.integers(0, len(texts), len(texts))])
        draws.append(mean.mean(0))
    every = np.concatenate(list(of.values())).mean(0)
    low, high = np.percentile(np.array(draws)[:, 1] / np.array(draws)[:, 0], (2.5, 97.5))
    return {
        "score native": round(float(every[0]), 3),
        "score imported": round(float(every[1]), 3),
        "return native": round(returns["native"], 1),
        "return imported": round(returns["imported"], 1),
        "ratio": round(float(every[1] / every[0]), 3),
        "interval": [round(float(low), 3), round(float(high), 3)],
        "conditions": len(texts),
        "episodes": len(keys),
    }


def main() -> None:
    """Record, train, drive, tell."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/bags"))
    parser.add_argument("--babble-to", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    env.prepare()
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(env.CONFIG / "fastdds.xml")
    os.environ["ROS_DOMAIN_ID"] = DOMAIN
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if args.babble_to:
        babble_to(args.babble_to, args.seed)
        return
    for folder in ("bags", "imported"):
        (args.out / folder).mkdir(parents=True, exist_ok=True)
    texts = drawn()
    native(args.out, texts)
    over_ros(args.out, texts)
    print(json.dumps(compare(args.out), indent=1))


if __name__ == "__main__":
    main()
