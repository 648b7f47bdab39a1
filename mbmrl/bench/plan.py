"""How fast planning is: every engine against the bare matrix products of the same plan."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from rich import box
from rich.table import Table
from torch import Tensor

from mbmrl import registry
from mbmrl.bench import peers
from mbmrl.bench.turns import Work, in_turn, products
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
    """Time a case on every engine there is and with every peer that is installed, all in turn."""
    torch.manual_seed(0)
    dynamics = Dynamics(SPEC, case.hidden, case.activation).requires_grad_(False)
    weights = list(dynamics.weights)
    limit = products(weights, case.candidates, case.iterations * case.horizon)
    rivals: dict[str, Work] = {"": limit}
    made: dict[str, tuple[str | None, str]] = {}  # peer and type, by the rival's name
    for name in engines.ORDER:
        try:
            engine = engines.make(name)
        except EngineError:
            continue
        rivals[name], made[name] = _plan(dynamics, case, engine), (None, engine.dtype)
    for peer, work in peers.installed(case, dynamics, running_cost).items():
        rivals[peer], made[peer] = work, (peer, "float32")
    return [
        PlanSpeed(
            planner=case.planner,
            peer=made[name][0],
            network=f"{len(case.hidden)}x{case.hidden[0]}",
            activation=case.activation,
            dtype=made[name][1],
            engine=name if made[name][0] is None else "plain",
            candidates=case.candidates,
            horizon=case.horizon,
            iterations=case.iterations,
            ms_median=took.ms_median,
            ms_iqr=took.ms_iqr,
            ratio_to_gemm=took.ratio,
        )
        for name, took in in_turn(rivals, repeats).items()
        if name
    ]


def running_cost(obs: Float[Tensor, "*b o"], act: Float[Tensor, "*b u"]) -> Float[Tensor, "*b"]:
    """Of one step: the first field is wanted at one, with a little effort."""
    return (obs[..., 0] - 1).square() + 0.01 * act.square().mean(-1)


def _plan(dynamics: Dynamics, case: Case, engine: Engine) -> Work:
    planner = registry.load("planners", case.planner)(
        SPEC.act_low,
        SPEC.act_high,
        SPEC.rest,
        horizon=case.horizon,
        num_samples=(case.candidates,) * case.iterations,
        num_knots=None,
    )
    obs = torch.zeros(1, SPEC.num_obs)

    def cost(predicted: Tensor, actions: Tensor) -> Tensor:
        return running_cost(predicted, actions).mean(-1)

    return lambda: planner.plan(obs, engine.rollout(dynamics, dynamics.prior()), cost)


def table(speeds: list[PlanSpeed]) -> Table:
    """One line a case and engine."""
    shown = Table(title="planning on one core", title_justify="left", box=box.SIMPLE_HEAD)
    columns = [
        "planner",
        "network",
        "plan",
        "engine or peer",
        "ms (median ± IQR)",
        "of the products",
    ]
    for k, column in enumerate(columns):
        shown.add_column(column, justify="right" if k > 3 else "left")
    for s in speeds:
        shown.add_row(
            s.planner,
            f"{s.network} {s.activation}",
            f"{s.candidates} × {s.horizon} × {s.iterations}",
            s.peer or f"{s.engine} {s.dtype}",
            f"{s.ms_median:.0f} ± {s.ms_iqr:.0f}",
            f"{s.ratio_to_gemm:.2f}",
        )
    return shown
