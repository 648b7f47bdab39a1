"""Does a controller behind ROS 2 topics drive as well as the same one in the robot's process?

A damaged robot, the same episodes twice: once in one process, once with robot and controller in two
processes over real DDS, where simulated time waits for commands. Reported: the returns of each
episode, and the ratio of their means with its 95 % interval (bootstrap over episodes).

    pip install -e '.[ros]'
    python benchmarks/ros_return.py

About five minutes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from mbmrl.bench import ros


def main() -> None:
    """Drive, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--robot", default="cheetah", help="one with a shipped checkpoint")
    parser.add_argument(
        "--perturb",
        default="damaged_leg:leg=F,mode=weak,scale=0.4,onset=10",
        help="what happens, and when",
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of an episode")
    parser.add_argument("--episodes", type=int, default=10, help="with the seeds 0, 1, ...")
    parser.add_argument("--json", type=Path, help="write the rows here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = ros.returns(args.robot, args.perturb, args.seconds, args.episodes)
    for row in rows:
        print(f"seed {row.seed}: {row.in_process:8.3f} in one process, {row.over_ros:8.3f} in two")
    ratio, low, high = ros.ratio(rows)
    print(f"{args.robot}, {rows[0].condition}: ratio {ratio:.3f} [{low:.3f}, {high:.3f}]")
    if args.json:
        args.json.write_text(json.dumps([row.to_json() for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
