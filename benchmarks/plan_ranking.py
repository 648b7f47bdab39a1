"""Does a model order candidate plans as the robot itself would?

A controller is as good as its model's order of the plans that it is offered, and a model that
foresees what was done may still order badly what could be done. Here the first checkpoint's default
agent drives a robot under drawn damage of the training ranges (`mbmrl eval --suite validation`).
Twice a second, its planner's candidates are asked for; the simulator says what each of them would
have cost, and every learner of every checkpoint what it thinks, before and after adapting to the
last transitions.

    python benchmarks/plan_ranking.py --robot ant --checkpoint runs/ant runs/other

**order** is Spearman's rank correlation of the costs. **choice** is what choosing by the model is
worth: 1 for the best candidate, 0 for any; chosen is as MPPI does, the weighted mean.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from controllers.base import SamplingPlanner
from controllers.learned import LearnedModel
from controllers.several import Several
from mbmrl import checkpoint, conditions, registry, tasks
from mbmrl.checkpoint import Learner
from mbmrl.compose import make_agent
from mbmrl.episode import run_episodes
from robots.sim import SimRobot

CANDIDATES, TEMPERATURE = 48, 0.2
ONSET, SECONDS, EVERY = 1.0, 8.0, 0.5  # [s]
LANES = 8
SEED = 1000
RESAMPLES = 2000

Scores = dict[str, list[np.ndarray]]
"""Model → (order, choice) of every robot, at every time that it was asked."""


def ranks(costs: Tensor) -> Tensor:
    """Of each robot's candidates, centred."""
    found = costs.argsort(-1).argsort(-1).double()
    return found - found.mean(-1, keepdim=True)


def judge(said: Tensor, true: Tensor) -> np.ndarray:
    """Order and choice (r, 2) from costs (r, n)."""
    said, true = said.double(), true.double()
    a, b = ranks(said), ranks(true)
    order = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    above = said - said.amin(-1, keepdim=True)
    weights = torch.softmax(-above / (TEMPERATURE * said.std(-1, keepdim=True)), -1)
    mean, best = true.mean(-1), true.amin(-1)
    choice = (mean - (weights * true).sum(-1)) / (mean - best)
    return torch.stack([order, choice], -1).numpy()


def drive(
    robots: list[SimRobot], driver: checkpoint.Checkpoint, learners: dict[str, Learner], seed: int
) -> Scores:
    """Ask every learner about the candidates of one drive."""
    spec = robots[0].spec
    courses = tasks.COURSES[robots[0].task] or [""]
    paths = [courses[i % len(courses)] for i in range(len(robots))]
    agent = make_agent("default", robots, driver, paths, seed=seed)
    planner, model = agent.planner, agent.model
    if isinstance(model, Several):
        model = model.models[0]
    assert isinstance(planner, SamplingPlanner) and isinstance(model, LearnedModel)
    scores: Scores = defaultdict(list)
    act, every = agent.act, round(EVERY / spec.dt)
    first = round(ONSET / spec.dt) + driver.window

    @torch.no_grad()
    def asked(obs: np.ndarray) -> object:
        plan = act(obs)
        tick = len(ticks)
        ticks.append(tick)
        if tick < first or tick % every:
            return plan
        now, plans = torch.from_numpy(obs).float(), planner.candidates(CANDIDATES)
        pairs = zip(robots, plans.double().numpy(), strict=True)
        futures = torch.from_numpy(np.stack([r.true_rollout(p) for r, p in pairs])).float()
        true = agent.task.cost(futures, plans)
        window = model.history.newest(driver.window)
        for name, (dynamics, adapter) in learners.items():
            for which, params in (
                ("θ*", dynamics.prior()),
                ("θ′", adapter.adapt(dynamics, window)),
            ):
                said = agent.task.cost(dynamics.rollout(params)(now, plans), plans)
                scores[f"{name} {which}"].append(judge(said, true))
        return plan

    ticks: list[int] = []
    agent.act = asked  # type: ignore[method-assign, assignment]
    run_episodes(robots, agent, SECONDS)
    return scores


def main() -> None:
    """Drive, ask, and show."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--robot", default="ant")
    parser.add_argument("--checkpoint", nargs="+", type=Path, help="folders; else the shipped one")
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        cls = registry.load("robots", args.robot)
        found = {
            str(f or "shipped"): checkpoint.for_robot(cls.spec, f)
            for f in args.checkpoint or [None]
        }
    except (checkpoint.CheckpointError, registry.UnknownName) as error:
        parser.error(str(error))
    learners = {
        f"{folder} {name}": (pair[0].dense(), pair[1])
        for folder, made in found.items()
        for name, pair in made.learners.items()
    }
    suite = conditions.validation_suite(cls())
    scores: Scores = defaultdict(list)
    for k in range(0, len(suite), LANES):
        robots = [
            cls(conditions.starting(c, ONSET), seed=SEED + k + i)
            for i, c in enumerate(suite[k : k + LANES])
        ]
        for robot in robots:
            robot.connect()
        asked = drive(robots, next(iter(found.values())), learners, SEED + k)
        for name, times in asked.items():
            scores[name] += list(np.nanmean(times, 0))  # of each condition
    table = Table(box=box.SIMPLE_HEAD, title=f"{args.robot}, {len(suite)} drawn conditions")
    for column in ("model", "order", "choice", "choice: θ′ − θ*"):
        table.add_column(column, justify="left" if column == "model" else "right")
    rng = np.random.default_rng(0)
    draws = rng.integers(len(suite), size=(RESAMPLES, len(suite)))

    def interval(x: np.ndarray) -> str:
        low, high = np.percentile(x[draws].mean(1), (2.5, 97.5))
        return f"{x.mean():.2f} [{low:.2f}, {high:.2f}]"

    for name, each in scores.items():
        order, choice = np.array(each).T
        before = np.array(scores[name.replace("θ′", "θ*")])[:, 1]
        gain = interval(choice - before) if "θ′" in name else ""
        table.add_row(name, interval(order), interval(choice), gain)
    Console(width=None if Console().is_terminal else 160).print(table)


if __name__ == "__main__":
    main()
