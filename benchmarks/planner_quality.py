"""Do these planners plan as well as other libraries' with the same number of evaluations?

The cheetah runs at its target speed; every planner sees the same true simulator, cost and episode
seeds, and simulates EVALUATIONS candidates a control step, HORIZON steps each. The return is minus
the task's cost, summed over what really happened; the score is the task's own measure.

    pip install -e '.[bench]' && pip install --no-deps mbrl==0.2.0
    python benchmarks/planner_quality.py --json planner_quality.json

The free settings of every planner (noise, temperature, smoothing) are chosen first, each from its
own few values and on seeds of their own; then all of them run on the seeds that are reported.
About 40 minutes on two cores; a library that is not installed is left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mujoco import MjData
from mujoco import rollout as mj_rollout
from rich import box
from rich.console import Console
from rich.table import Table
from scipy import stats

from controllers.base import SamplingPlanner
from controllers.icem import ICEM
from controllers.mppi import MPPI
from mbmrl.tasks import SpeedTask
from robots.cheetah import Cheetah

EVALUATIONS, ITERATIONS, HORIZON = 180, 3, 16
SIZE = EVALUATIONS // ITERATIONS
SECONDS = 6.0  # of an episode
TUNING_SEEDS, SEEDS = (100, 101), (0, 1, 2, 3, 4)

Act = Callable[[], np.ndarray]
"""What one planner does next."""


def judge(robot: Cheetah, task: SpeedTask, acts: torch.Tensor) -> torch.Tensor:
    """Costs (n,) of action sequences (n, h, u) from the state that the robot is in."""
    future = torch.from_numpy(robot.true_rollout(acts.double().numpy())).float()
    return task.cost(future[None], acts[None])[0]


class Stepwise:
    """The simulator as the step function that some libraries ask for: state, action → state."""

    def __init__(self, robot: Cheetah, task: SpeedTask) -> None:
        self.robot, self.task, self.data = robot, task, MjData(robot.nominal)
        self.size = robot.nominal.nq + robot.nominal.nv

    def state(self) -> torch.Tensor:
        """The robot's, (q + v,)."""
        return torch.from_numpy(np.concatenate([self.robot.data.qpos, self.robot.data.qvel]))

    def step(self, state: torch.Tensor, act: torch.Tensor) -> torch.Tensor:
        """One control period of n robots."""
        start = np.concatenate([np.zeros((len(state), 1)), state.double().numpy()], 1)
        acts = np.clip(act.double().numpy(), -1, 1)[:, None]
        ctrl, _ = self.robot.controls(np.zeros((len(state), 0)), acts)
        ctrl = np.repeat(ctrl, self.robot.substeps // ctrl.shape[1], axis=1)
        states, _ = mj_rollout.rollout(self.robot.model, self.data, start, ctrl)
        return torch.from_numpy(states[:, -1, 1 : 1 + self.size])

    def cost(self, state: torch.Tensor, act: torch.Tensor) -> torch.Tensor:
        """Of n single steps, as a share of the horizon."""
        q = self.robot.nominal.nq
        x = state.double().numpy()
        obs = self.robot.observe(x[..., :q], x[..., q:], np.zeros((*x.shape[:-1], 0)))
        seen = torch.from_numpy(obs).float()[None, :, None]
        return self.task.cost(seen, act.float()[None, :, None])[0].double() / HORIZON


# --- ours -----------------------------------------------------------------------------------------


def ours(
    kind: type[SamplingPlanner], options: dict[str, Any], robot: Cheetah, task: SpeedTask, seed: int
) -> Act:
    """A planner of this project."""
    spec = robot.spec
    # the last two evaluations go to the plan itself and its fallback
    sizes = {"horizon": HORIZON, "num_samples": (*(SIZE,) * (ITERATIONS - 1), SIZE - 2)}
    planner = kind(spec.act_low, spec.act_high, spec.rest, seed=seed, **sizes, **options)

    def roll(obs: torch.Tensor, acts: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(robot.true_rollout(acts[0].double().numpy())).float()[None]

    def act() -> np.ndarray:
        obs = torch.from_numpy(robot.read()).float()[None]
        return planner.plan(obs, roll, task.cost).action[0].numpy()

    return act


# --- other libraries ------------------------------------------------------------------------------


def mbrl(kind: str, options: dict[str, Any], robot: Cheetah, task: SpeedTask, seed: int) -> Act:
    """An optimiser of mbrl-lib, warm-started as its own agent does."""
    from mbrl.planning import trajectory_opt

    torch.manual_seed(seed)
    planner = getattr(trajectory_opt, kind)(
        num_iterations=ITERATIONS,
        population_size=SIZE,
        lower_bound=[[-1.0] * 6] * HORIZON,
        upper_bound=[[1.0] * 6] * HORIZON,
        device=torch.device("cpu"),
        **options,
    )
    last = torch.zeros(HORIZON, 6)

    def act() -> np.ndarray:
        nonlocal last
        plan = planner.optimize(lambda acts: -judge(robot, task, acts), x0=last)
        last = plan.roll(-1, dims=0)
        last[-1] = 0.0
        return plan[0].numpy()

    return act


def pytorch_icem(options: dict[str, Any], robot: Cheetah, task: SpeedTask, seed: int) -> Act:
    """pytorch-icem; sizes are set afterwards, since version 0.1.0 refuses more than one action."""
    from pytorch_icem import iCEM
    from pytorch_icem.icem import accumulate_running_cost

    torch.manual_seed(seed)
    np.random.seed(seed)
    true, sigma = Stepwise(robot, task), options["sigma"]
    planner = iCEM(
        true.step,
        accumulate_running_cost(true.cost, 0.0),
        true.size,
        1,
        num_samples=SIZE,
        horizon=HORIZON,
        warmup_iters=ITERATIONS,
        online_iters=ITERATIONS,
        **options,
    )
    planner.nu, planner.sigma = 6, torch.full((6,), sigma, dtype=torch.double)
    planner.dtype = torch.double
    planner.reset()
    return lambda: planner.command(true.state()).numpy()


def pytorch_mppi(options: dict[str, Any], robot: Cheetah, task: SpeedTask, seed: int) -> Act:
    """pytorch-mppi, which refines once a step: all evaluations at once."""
    import pytorch_mppi as library

    torch.manual_seed(seed)
    true = Stepwise(robot, task)
    planner = library.MPPI(
        true.step,
        true.cost,
        true.size,
        options["sigma"] ** 2 * torch.eye(6, dtype=torch.double),
        num_samples=EVALUATIONS,
        horizon=HORIZON,
        u_min=-torch.ones(6, dtype=torch.double),
        u_max=torch.ones(6, dtype=torch.double),
        lambda_=options["lambda_"],
    )
    return lambda: planner.command(true.state()).numpy()


RIVALS: dict[str, tuple[Callable[..., Act], dict[str, list[Any]]]] = {
    "icem": (partial(ours, ICEM), {"init_std": [0.5, 1.0]}),
    "mppi": (
        partial(ours, MPPI),
        {
            "temperature": [0.03, 0.1],
            "init_std": [1.0],
            "num_knots": [None],
            "noise_beta": [1.0, 2.0],
        },
    ),
    "mbrl CEM": (
        partial(mbrl, "CEMOptimizer"),
        {"elite_ratio": [0.1], "alpha": [0.1], "clipped_normal": [False, True]},
    ),
    "mbrl iCEM": (
        partial(mbrl, "ICEMOptimizer"),
        {
            "elite_ratio": [0.1],
            "alpha": [0.1],
            "population_decay_factor": [1.0],
            "colored_noise_exponent": [2.0, 3.0],
            "keep_elite_frac": [0.3],
        },
    ),
    "mbrl MPPI": (
        partial(mbrl, "MPPIOptimizer"),
        {"gamma": [10.0, 30.0], "sigma": [0.5, 1.0], "beta": [0.6, 0.9]},
    ),
    "pytorch-icem": (
        pytorch_icem,
        {"num_elites": [6], "noise_beta": [2.0, 3.0], "sigma": [0.5, 1.0]},
    ),
    "pytorch-mppi": (pytorch_mppi, {"lambda_": [0.01, 0.03, 0.1], "sigma": [0.5, 1.0]}),
}
"""What makes each planner, and the values that its settings are chosen from."""


# --- the comparison -------------------------------------------------------------------------------


def episode(name: str, options: dict[str, Any], seed: int) -> tuple[float, float]:
    """Return and score of one run."""
    torch.set_num_threads(1)
    make, _ = RIVALS[name]
    with Cheetah(seed=seed) as robot:
        task = SpeedTask(robot.spec)
        act = make(options, robot, task, seed)
        costs, gains = [], []
        for _ in range(round(SECONDS / robot.spec.dt)):
            sent = torch.from_numpy(robot.write(act())).float()
            obs = torch.from_numpy(robot.read()).float()
            costs.append(float(task.cost(obs[None, None, None], sent[None, None, None])))
            gains.append(float(task.gain(obs[None])))
    return -sum(costs), float(np.mean(gains))


def combinations(name: str) -> list[dict[str, Any]]:
    """Every setting of a planner that there is to choose from."""
    values = RIVALS[name][1]
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def installed(name: str) -> bool:
    """Whether its library is there."""
    library = name.split()[0].replace("-", "_")
    return library in ("icem", "mppi") or find_spec(library) is not None


def interval(x: np.ndarray) -> str:
    """Mean and its 95 % interval (Student's t)."""
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return f"{x.mean():.1f} [{x.mean() - half:.1f}, {x.mean() + half:.1f}]"


def main() -> None:
    """Choose settings, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every episode here")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes")
    arguments = parser.parse_args()
    names = [name for name in RIVALS if installed(name)]
    table = Table("planner", "settings", "return", "score", "return below icem's", box=box.SIMPLE)
    rows = []
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:

        def run(name: str, options: dict[str, Any], seeds: tuple[int, ...]) -> list[Any]:
            return [pool.submit(episode, name, options, seed) for seed in seeds]

        tried = {n: [(o, run(n, o, TUNING_SEEDS)) for o in combinations(n)] for n in names}
        final = {}
        for name, options in tried.items():
            best = max(options, key=lambda tried: sum(f.result()[0] for f in tried[1]))[0]
            final[name] = best, run(name, best, SEEDS)
        returns: dict[str, np.ndarray] = {}
        for name, (best, futures) in final.items():
            found = [f.result() for f in futures]
            returns[name], scores = (np.array(x) for x in zip(*found, strict=True))
            rows += [
                {"planner": name, "settings": best, "seed": s, "return": r, "score": g}
                for s, (r, g) in zip(SEEDS, found, strict=True)
            ]
            table.add_row(
                name,
                " ".join(f"{k}={v}" for k, v in best.items()),
                interval(returns[name]),
                f"{scores.mean():.2f}",
                interval(returns["icem"] - returns[name]) if name != "icem" else "",
            )
    Console(width=140).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
