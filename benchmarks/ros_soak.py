"""Does the controller node survive a bad half hour?

A simulated robot is killed and started again every KILL_S seconds, and meanwhile messages that no
robot should send come on its topics. Reported: whether the controller still runs and drives,
commands that are not finite, and how its memory grew.

    pip install -e '.[ros]'
    python benchmarks/ros_soak.py --minutes 30 --json soak.json

Exits with 1 if the controller ended, if it does not drive in the end, or if a command that is not
finite was ever sent.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mbmrl.ros import env

env.prepare()
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(env.CONFIG / "fastdds.xml")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64MultiArray

KILL_S = 20.0
"""A robot lives so long [s]."""
GARBAGE_S = 0.5
"""Between two pieces of garbage [s]."""
SETTLED_S = 120.0
"""Memory is compared with what it was then [s]."""
COMMANDS = "/forward_command_controller/commands"
DOMAIN = "214"


def node(*args: str) -> subprocess.Popen[bytes]:
    """A node of ours as a process."""
    sets = [x for pair in args[1:] for x in ("--set", pair)]
    return subprocess.Popen([sys.executable, "-m", "mbmrl.cli", "ros", args[0], *sets])


def garbage(rng: random.Random) -> Any:  # noqa: ANN401
    """A message that no robot should send."""
    bad = rng.choice([math.nan, math.inf, -math.inf, 1e308, -1e308])
    kind = rng.choice([JointState, Imu, Odometry])
    message = kind()
    message.header.stamp.sec = rng.choice([0, 1, int(time.time()), 2**31 - 1])
    if kind is JointState:
        message.name = rng.choice([[], ["nobody"], ["gait_sin"] * 3, [""]])
        message.position = [bad] * rng.randrange(4)
        message.velocity = [bad] * rng.randrange(4)
    elif kind is Imu:
        message.orientation.w = rng.choice([bad, 0.0])
        message.angular_velocity.z = bad
    else:
        message.pose.pose.position.x = bad
        message.twist.twist.linear.x = bad
    return message


def memory_mb(process: subprocess.Popen[bytes]) -> float:
    """What a process holds in memory [MB]."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (resident,) = (line.split()[1] for line in lines if line.startswith("VmRSS"))
    return int(resident) / 1024


def main() -> int:
    """Soak, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--robot", default="hexapod")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.environ["ROS_DOMAIN_ID"] = DOMAIN
    rclpy.init()
    here, rng = rclpy.create_node("soak"), random.Random(0)
    told: dict[str, str] = {}
    count = {"commands": 0, "not_finite": 0, "garbage": 0, "robots": 0}

    def hear(message: Float64MultiArray) -> None:
        count["commands"] += 1
        count["not_finite"] += not all(map(math.isfinite, message.data))

    def listen(message: DiagnosticArray) -> None:
        told.update({v.key: v.value for v in message.status[0].values})
        told["state"] = message.status[0].message

    here.create_subscription(Float64MultiArray, COMMANDS, hear, 10)
    here.create_subscription(DiagnosticArray, "/diagnostics", listen, 10)
    topics = {JointState: "joint_states", Imu: "imu", Odometry: "odom"}
    speak = {kind: here.create_publisher(kind, topic, 1) for kind, topic in topics.items()}
    robot = node("robot", f"robot={args.robot}")
    controller = node("controller", f"robot={args.robot}", "look_ahead=false")
    start = time.monotonic()
    killed = spoken = start
    first, most = math.nan, 0.0
    try:
        while (now := time.monotonic()) < start + 60 * args.minutes and controller.poll() is None:
            rclpy.spin_once(here, timeout_sec=0.05)
            if now > spoken + GARBAGE_S and now > start + 10:
                message = garbage(rng)
                speak[type(message)].publish(message)
                spoken, count["garbage"] = now, count["garbage"] + 1
            if now > killed + KILL_S:
                robot.kill()
                robot.wait()
                robot = node("robot", f"robot={args.robot}")
                killed, count["robots"] = now, count["robots"] + 1
                holds = memory_mb(controller)
                first = holds if now < start + SETTLED_S or math.isnan(first) else first
                most = max(most, holds)
                print(f"{(now - start) / 60:5.1f} min  {holds:6.1f} MB  {told.get('state')}")
        end = time.monotonic() + 15  # without garbage it must drive
        told.clear()
        while time.monotonic() < end and told.get("state") != "driving":
            rclpy.spin_once(here, timeout_sec=0.05)
        alive, drives = controller.poll() is None, told.get("state") == "driving"
    finally:
        controller.terminate()
        robot.kill()
        status = controller.wait(30)
        rclpy.shutdown()
    result = {
        "minutes": args.minutes,
        **count,
        "alive": alive,
        "drives": drives,
        "exit_status": status,
        "growth_mb": round(most - first, 1),
    }
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if alive and drives and not count["not_finite"] and status == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
