"""How fast planning is: every engine against the bare matrix products of the same plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from rich import box
from rich.table import Table
from torch import Tensor

from controllers.base import SamplingPlanner
from mbmrl import registry
from mbmrl.dynamics import Dynamics
from mbmrl.engines import base as engines
from mbmrl.engines.base import Engine, EngineError
from mbmrl.spec import Field, RobotSpec

SPEC = RobotSpec(
    name="bench",
    dt=0.05,
    obs=tuple(Field(f"x{i}", "1") for i in range(18)),
    act=tuple(Field(f"u{i}", "1", -1, 1) for i in range(6)),
)
"""As large as the cheetah of the papers."""
REPEATS = 7


@dataclass(frozen=True)
class Case:
    """One plan to be made.

    Attributes:
        planner: ``cem`` or ``mppi``.
        hidden: widths of the network.
        activation: of the network.
        candidates: per iteration.
        horizon: [control steps].
        iterations: of the planner.
    """

    planner: str
    hidden: tuple[int, ...]
    activation: str
    candidates: int
    horizon: int
    iterations: int


CASES = tuple(
    Case(planner, (width,) * 3, activation, *size)
    for planner, size, widths in (
        ("cem", (500, 30, 5), (512, 256)),
        ("mppi", (1000, 30, 1), (512,)),
    )
    for width in widths
    for activation in ("relu", "silu")
)


@dataclass(frozen=True)
class PlanSpeed:
    """One case on one engine: packing the weights and planning.

    Attributes:
        planner: its name.
        peer: the library it comes from; None for our own.
        network: as ``3x512``.
        activation: of the network.
        dtype: of the products.
        engine: that rolled the model out.
        candidates: per iteration.
        horizon: [control steps].
        iterations: of the planner.
        ms_median: [ms].
        ms_iqr: between the quartiles [ms].
        ratio_to_gemm: median of the ratios to the float32 products, each pair timed in turn.
    """

    planner: str
    peer: str | None
    network: str
    activation: str
    dtype: str
    engine: str
    candidates: int
    horizon: int
    iterations: int
    ms_median: float
    ms_iqr: float
    ratio_to_gemm: float

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


def bench(case: Case, repeats: int = REPEATS) -> list[PlanSpeed]:
    """Time a case on every engine there is, all of them and the bare products in turn."""
    torch.manual_seed(0)
    dynamics = Dynamics(SPEC, case.hidden, case.activation).requires_grad_(False)
    rivals: dict[str, Callable[[], object]] = {"": _products(dynamics, case)}
    dtypes: dict[str, str] = {}
    for name in engines.ORDER:
        try:
            engine = engines.make(name)
            rivals[name], dtypes[name] = _plan(dynamics, case, engine), engine.dtype
        except EngineError:
            continue
    seconds = _in_turn(list(rivals.values()), repeats)
    limit, found = seconds[0], []
    for name, took in zip(list(rivals)[1:], seconds[1:], strict=True):
        low, high = np.percentile(took, (25, 75))
        found.append(
            PlanSpeed(
                planner=case.planner,
                peer=None,
                network=f"{len(case.hidden)}x{case.hidden[0]}",
                activation=case.activation,
                dtype=dtypes[name],
                engine=name,
                candidates=case.candidates,
                horizon=case.horizon,
                iterations=case.iterations,
                ms_median=1e3 * float(np.median(took)),
                ms_iqr=1e3 * float(high - low),
                ratio_to_gemm=float(np.median(took / limit)),
            )
        )
    return found


def _plan(dynamics: Dynamics, case: Case, engine: Engine) -> Callable[[], object]:
    planner = _planner(case)
    obs = torch.zeros(1, SPEC.num_obs)

    def cost(predicted: Tensor, actions: Tensor) -> Tensor:
        return (predicted[..., 0] - 1).square().mean(-1) + 0.01 * actions.square().mean((-1, -2))

    return lambda: planner.plan(obs, engine.rollout(dynamics, dynamics.prior()), cost)


def _planner(case: Case) -> SamplingPlanner:
    return registry.load("planners", case.planner)(
        SPEC.act_low,
        SPEC.act_high,
        SPEC.rest,
        horizon=case.horizon,
        num_samples=(case.candidates,) * case.iterations,
        num_knots=None,
    )


def _products(dynamics: Dynamics, case: Case) -> Callable[[], object]:
    """The products of activations and weights in one plan, and nothing else."""
    inputs = [torch.randn(case.candidates, w.shape[0]) for w in dynamics.weights]
    outputs = [torch.empty(case.candidates, w.shape[1]) for w in dynamics.weights]

    def run() -> None:
        for _ in range(case.iterations * case.horizon):
            for x, weight, y in zip(inputs, dynamics.weights, outputs, strict=True):
                torch.mm(x, weight, out=y)

    return run


@torch.no_grad()
def _in_turn(rivals: Sequence[Callable[[], object]], repeats: int) -> list[np.ndarray]:
    """Seconds of each rival's runs, one run of each after the other; the first round warms up."""
    seconds = np.empty((len(rivals), repeats + 1))
    for repeat in range(repeats + 1):
        for i, run in enumerate(rivals):
            start = time.perf_counter()
            run()
            seconds[i, repeat] = time.perf_counter() - start
    return list(seconds[:, 1:])


def table(speeds: list[PlanSpeed]) -> Table:
    """One line a case and engine."""
    shown = Table(title="planning on one core", title_justify="left", box=box.SIMPLE_HEAD)
    columns = ["planner", "network", "plan", "engine", "ms (median ± IQR)", "of the products"]
    for k, column in enumerate(columns):
        shown.add_column(column, justify="right" if k > 3 else "left")
    for s in speeds:
        shown.add_row(
            s.planner,
            f"{s.network} {s.activation}",
            f"{s.candidates} × {s.horizon} × {s.iterations}",
            f"{s.engine} {s.dtype}",
            f"{s.ms_median:.0f} ± {s.ms_iqr:.0f}",
            f"{s.ratio_to_gemm:.2f}",
        )
    return shown
