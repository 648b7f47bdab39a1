"""How fast one robot's control loop is on this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from rich import box
from rich.markup import escape
from rich.table import Table

from controllers.base import SamplingPlanner
from mbmrl import checkpoint as checkpoints
from mbmrl import registry, tasks
from mbmrl.bench.turns import in_turn, products
from mbmrl.checkpoint import Checkpoint
from mbmrl.compose import make_agent
from mbmrl.dynamics import Dynamics
from mbmrl.episode import run_episodes
from mbmrl.settings import settings_for
from mbmrl.spec import RobotSpec, SpecError
from robots.sim import SimRobot

TICKS = 200
REPEATS = 20


@dataclass(frozen=True)
class Speed:
    """Medians, but for the 99th percentile of the whole tick.

    Attributes:
        robot: its name.
        weights: ``shipped``, or ``random`` where no checkpoint is: they cost the same.
        period_ms: control period [ms].
        adapt_ms: θ* → θ′ [ms].
        plan_ms: judging θ′, and planning with it [ms].
        tick_ms_p50: a whole decision [ms].
        tick_ms_p99: its 99th percentile [ms].
        products_ms: nothing but the matrix products of one plan [ms].
    """

    robot: str
    weights: str
    period_ms: float
    adapt_ms: float
    plan_ms: float
    tick_ms_p50: float
    tick_ms_p99: float
    products_ms: float

    @property
    def of_period(self) -> float:
        """The slow decisions as a share of the control period."""
        return self.tick_ms_p99 / self.period_ms

    @property
    def of_products(self) -> float:
        """A plan as a multiple of its matrix products."""
        return self.plan_ms / self.products_ms

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self) | {"of_period": self.of_period, "of_products": self.of_products}


def simulated() -> list[str]:
    """Names of the robots that can be timed."""
    return [r for r in registry.names("robots") if issubclass(registry.load("robots", r), SimRobot)]


def bench(name: str) -> Speed:
    """Time the default agent of a simulated robot, undamaged, its history full.

    Raises:
        UnknownName: there is no such robot.
        SpecError: it is not simulated.
    """
    cls = registry.load("robots", name)
    if not issubclass(cls, SimRobot):
        raise SpecError(f"{name} is not simulated: nothing but a simulation runs without a robot")
    shipped = cls.spec.name in checkpoints.shipped()
    checkpoint = checkpoints.for_robot(cls.spec, None) if shipped else untrained(cls.spec)
    robot = cls()
    with robot:
        agent = make_agent("default", [robot], checkpoint, tasks.usual(cls.task))
        warm_up = checkpoint.window
        log = run_episodes([robot], agent, (warm_up + TICKS) * cls.spec.dt)
    took = 1e3 * log.took[warm_up:]
    adapt = 1e3 * log.info["adapt_s"][warm_up:, 0]
    p50, p99 = np.percentile(took, (50, 99))
    assert isinstance(agent.planner, SamplingPlanner)
    return Speed(
        robot=cls.spec.name,
        weights="shipped" if shipped else "random",
        period_ms=1e3 * cls.spec.dt,
        adapt_ms=float(np.median(adapt)),
        plan_ms=float(np.median(took - adapt)),
        tick_ms_p50=float(p50),
        tick_ms_p99=float(p99),
        products_ms=_products_ms(checkpoint.learner(checkpoint.default)[0].dense(), agent.planner),
    )


def untrained(spec: RobotSpec, seed: int = 0) -> Checkpoint:
    """A checkpoint of random weights: as fast as a trained one, and as large."""
    settings = settings_for(spec.name)
    torch.manual_seed(seed)
    learners = {}
    for adapter in ("none", settings.adapter):
        dynamics = Dynamics(spec, settings.hidden, settings.activation)
        learners[adapter] = dynamics, registry.load("adapters", adapter)(dynamics)
    return Checkpoint(spec, settings.adapter, settings.window, learners)


def _products_ms(dynamics: Dynamics, planner: SamplingPlanner) -> float:
    """The products of activations and weights in one plan, and nothing else [ms]."""
    rows = (*planner.num_samples, 2)
    works = [products(list(dynamics.weights), n, planner.horizon) for n in rows]
    return in_turn({"": lambda: [work() for work in works]}, REPEATS)[""].ms_median


def table(speeds: list[Speed]) -> Table:
    """One line a robot."""
    shown = Table(title="one robot, one core", title_justify="left", box=box.SIMPLE_HEAD)
    columns = ["robot", "weights", "adapt [ms]", "plan [ms]", "tick p50 / p99 [ms]"]
    for column in [*columns, "p99 of the period", "plan of its matrix products"]:
        shown.add_column(escape(column), justify="left" if column == "robot" else "right")
    for s in speeds:
        shown.add_row(
            s.robot,
            s.weights,
            f"{s.adapt_ms:.1f}",
            f"{s.plan_ms:.1f}",
            f"{s.tick_ms_p50:.1f} / {s.tick_ms_p99:.1f}",
            f"{s.of_period:.2f} of {s.period_ms:.0f} ms",
            f"{s.of_products:.1f} × {s.products_ms:.1f} ms",
        )
    return shown
