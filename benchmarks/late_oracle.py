"""How soon must a controller know what has happened to its robot?

The oracle plans on the true simulator; here it takes the robot for undamaged until it is told, so
many seconds after the damage. Whoever learns from motion is late: this bounds what can be reached.

    python benchmarks/late_oracle.py --robot quadruped --perturb damaged_leg:leg=RR

About two minutes a lateness on one core. For robots that are simulated.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from controllers.agent import TrueModel
from mbmrl import conditions, registry, tasks
from mbmrl.compose import make_agent
from mbmrl.episode import run_episodes
from robots.sim import SimRobot

ONSET, SECONDS = 2.0, 7.0  # [s]


def drive(kind: type[SimRobot], damage: str, late: float, seed: int) -> float:
    """Score after the onset of an oracle that is told ``late`` seconds after it."""
    robot = kind((conditions.parse(damage, ONSET),), seed)
    robot.connect()

    def roll(acts: np.ndarray) -> np.ndarray:
        return robot.true_rollout(acts, robot.nominal if robot.time < ONSET + late else None)

    agent = make_agent("oracle", [robot], None, tasks.usual(kind.task), seed=seed)
    agent.model = TrueModel([roll])
    gain = run_episodes([robot], agent, SECONDS).gain[:, 0]
    return float(gain[round(ONSET / kind.spec.dt) :].mean())


def main() -> None:
    """Print the scores."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--robot", default="quadruped", help="a simulated one")
    parser.add_argument("--perturb", default="damaged_leg:leg=RR", help="as for `mbmrl run`")
    parser.add_argument("--late", default="0,0.2,0.4,0.6,1", help="seconds, with commas between")
    parser.add_argument("--episodes", type=int, default=3, help="a lateness, from seed 0 on")
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        kind = registry.load("robots", args.robot)
        lates = [float(late) for late in args.late.split(",")]
        kind((conditions.parse(args.perturb, ONSET),))
    except ValueError as error:
        parser.error(str(error))
    shown = Table("told after [s]", "score after the damage", title=f"{args.robot}, {args.perturb}")
    for late in lates:
        scores = [drive(kind, args.perturb, late, seed) for seed in range(args.episodes)]
        shown.add_row(f"{late:g}", ", ".join(f"{score:.2f}" for score in scores))
    Console().print(shown)


if __name__ == "__main__":
    main()
