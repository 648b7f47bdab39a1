"""How fast robots are simulated: one, many at once, and their twins in dm_control's suite."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from mbmrl import registry
from mbmrl.bench.turns import Work, seconds_in_turn
from robots.batch import SimBatch
from robots.sim import SimRobot

TWINS = {
    "cheetah": ("cheetah", "run"),
    "fish": ("fish", "swim"),
    "quadruped": ("quadruped", "run"),
    "swimmer": ("swimmer", "swimmer6"),
}
"""Domain and task of the suite for the robots that have the like of them there."""
BATCH = 64
STEPS = 50
REPEATS = 15


@dataclass(frozen=True)
class SimSpeed:
    """Control steps of random actions, all observed, on one thread.

    Attributes:
        robot: its name.
        through: ``robot``, ``batch of N``, or ``dm_env`` for its twin in the suite, whose control
            period is made the robot's own.
        steps_per_s_median: control steps of a robot [1/s].
        steps_per_s_iqr: between the quartiles [1/s].
        ratio_to_dm_env: median of the ratios to the twin's rate, each pair timed in turn; None
            where there is no twin.
    """

    robot: str
    through: str
    steps_per_s_median: float
    steps_per_s_iqr: float
    ratio_to_dm_env: float | None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


def bench(name: str, repeats: int = REPEATS) -> list[SimSpeed]:
    """Time a robot every way there is, all of them in turn."""
    cls = registry.load("robots", name)
    rivals = {"robot": (1, _robot(cls())), f"batch of {BATCH}": (BATCH, _batch(cls))}
    if name in TWINS:
        rivals["dm_env"] = 1, _twin(name, cls.spec.dt)
    seconds = seconds_in_turn([run for _, run in rivals.values()], repeats)
    rates = {
        through: robots * STEPS / took
        for (through, (robots, _)), took in zip(rivals.items(), seconds, strict=True)
    }
    twin = rates.get("dm_env")
    found = []
    for through, rate in rates.items():
        low, high = np.percentile(rate, (25, 75))
        found.append(
            SimSpeed(
                robot=name,
                through=through,
                steps_per_s_median=float(np.median(rate)),
                steps_per_s_iqr=float(high - low),
                ratio_to_dm_env=None if twin is None else float(np.median(rate / twin)),
            )
        )
    return found


def _robot(robot: SimRobot) -> Work:
    acts = _actions(robot.spec.act_low, robot.spec.act_high)
    robot.reset()

    def run() -> None:
        for act in acts:
            robot.write(act)
            robot.read()

    return run


def _batch(cls: type[SimRobot]) -> Work:
    batch = SimBatch([cls(seed=seed) for seed in range(BATCH)])
    acts = _actions(*(np.tile(x, (BATCH, 1)) for x in (cls.spec.act_low, cls.spec.act_high)))
    batch.reset()

    def run() -> None:
        for act in acts:
            batch.write(act)
            batch.read()

    return run


def _twin(name: str, dt: float) -> Work:
    """As long as it is asked for: an episode that ends takes time for another one's start."""
    from dm_control import suite
    from dm_control.rl import control

    loaded = suite.load(*TWINS[name], task_kwargs={"random": 0})
    env = control.Environment(loaded.physics, loaded.task, math.inf, control_timestep=dt)
    spec = env.action_spec()
    acts = _actions(spec.minimum, spec.maximum)
    env.reset()

    def run() -> None:
        for act in acts:
            env.step(act)

    return run


def _actions(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, (STEPS, *low.shape))


def table(speeds: list[SimSpeed]) -> Table:
    """One line a robot and way."""
    shown = Table(title="simulation on one thread", title_justify="left", box=box.SIMPLE_HEAD)
    columns = ["robot", "through", "control steps a second (median ± IQR)", "of dm_env's rate"]
    for k, column in enumerate(columns):
        shown.add_column(column, justify="right" if k > 1 else "left")
    for s in speeds:
        ratio = "–" if s.ratio_to_dm_env is None else f"{s.ratio_to_dm_env:.2f}"
        rate = f"{s.steps_per_s_median:.0f} ± {s.steps_per_s_iqr:.0f}"
        shown.add_row(s.robot, s.through, rate, ratio)
    return shown
