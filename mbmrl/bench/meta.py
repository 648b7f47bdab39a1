"""How fast adapting and a meta-training step are, against their matrix products and two peers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from rich import box
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from mbmrl import registry
from mbmrl.adapters.base import Adapter
from mbmrl.adapters.maml import Maml
from mbmrl.bench.plan import SPEC
from mbmrl.bench.turns import Work, in_turn
from mbmrl.dynamics import Dynamics
from mbmrl.types import Transitions

TASKS, SUPPORT, QUERY = 24, 32, 18
REPEATS = 9
INNER_LR = 0.05


@dataclass(frozen=True)
class Case:
    """One network.

    Attributes:
        hidden: widths of its layers.
        activation: ``relu``, ``silu`` or ``tanh``.
    """

    hidden: tuple[int, ...]
    activation: str


CASES = (Case((256, 256), "silu"), Case((512,) * 3, "relu"))


@dataclass(frozen=True)
class MetaSpeed:
    """One learner's speed.

    Attributes:
        step: ``adapt`` (one robot, one window) or ``meta`` (a step of meta-training, without the
            optimiser's own).
        adapter: what adapts.
        peer: the library it comes from; None for our own.
        network: as ``3x512``.
        activation: of the network.
        tasks: windows at once.
        support: transitions adapted on.
        query: transitions predicted after adapting.
        ms_median: [ms].
        ms_iqr: between the quartiles [ms].
        ratio_to_gemm: median of the ratios to the float32 products that cannot be avoided, each
            pair timed in turn.
    """

    step: str
    adapter: str
    peer: str | None
    network: str
    activation: str
    tasks: int
    support: int
    query: int
    ms_median: float
    ms_iqr: float
    ratio_to_gemm: float

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


def bench(case: Case, repeats: int = REPEATS) -> list[MetaSpeed]:
    """Time every adapter, at run time and in meta-training, and the peers that are installed."""
    torch.manual_seed(0)
    return _adapt(case, repeats) + _meta(case, repeats)


def _adapt(case: Case, repeats: int) -> list[MetaSpeed]:
    """Beside the least that one gradient step takes: a product forward and one back each layer."""
    dynamics = Dynamics(SPEC, case.hidden, case.activation)
    window = _transitions(1, SUPPORT)
    rivals: dict[str, Work] = {"": _unavoidable(dynamics, [(SUPPORT, 2)])}
    for name, adapter in _adapters(dynamics).items():
        rivals[name] = torch.no_grad()(partial(adapter.adapt, dynamics, window))
    return _rows("adapt", case, rivals, {}, (1, 0), 20 * repeats)


def _meta(case: Case, repeats: int) -> list[MetaSpeed]:
    """Beside the products that an exact second-order step cannot avoid.

    On the query three a layer: forward, back to its inputs, back to its weights. On the support
    six: forward and back through the layer (its weights' gradient is never built), and each of the
    two differentiated by both of its factors.
    """
    dynamics = Dynamics(SPEC, case.hidden, case.activation)
    support, query = _transitions(TASKS, SUPPORT), _transitions(TASKS, QUERY)
    limit = _unavoidable(dynamics, [(TASKS * SUPPORT, 6), (TASKS * QUERY, 3)])
    rivals: dict[str, Work] = {"": limit}
    for name, adapter in _adapters(dynamics).items():
        if not adapter.trained_as:
            rivals[name] = _ours(dynamics, adapter, support, query)
    data = [
        f(x).detach()
        for x in (support, query)
        for f in (lambda x: dynamics.inputs(x.obs, x.act), dynamics.targets)
    ]
    peers: dict[str, str] = {}
    for peer, make in PEERS.items():
        try:
            rivals[peer] = make(_network(dynamics), data)
        except ImportError:
            continue
        peers[peer] = Maml.name
    return _rows("meta", case, rivals, peers, (TASKS, QUERY), repeats)


def _adapters(dynamics: Dynamics) -> dict[str, Adapter]:
    names = [name for name in registry.names("adapters") if name != "none"]
    return {name: registry.load("adapters", name)(dynamics) for name in names}


def _rows(
    step: str,
    case: Case,
    rivals: dict[str, Work],
    peers: dict[str, str],
    size: tuple[int, int],
    repeats: int,
) -> list[MetaSpeed]:
    return [
        MetaSpeed(
            step=step,
            adapter=peers.get(name, name),
            peer=name if name in peers else None,
            network=f"{len(case.hidden)}x{case.hidden[0]}",
            activation=case.activation,
            tasks=size[0],
            support=SUPPORT,
            query=size[1],
            ms_median=took.ms_median,
            ms_iqr=took.ms_iqr,
            ratio_to_gemm=took.ratio,
        )
        for name, took in in_turn(rivals, repeats).items()
        if name
    ]


def _transitions(tasks: int, length: int) -> Transitions:
    shape = (tasks, length)
    return Transitions(
        *(torch.randn(*shape, k) for k in (SPEC.num_obs, SPEC.num_act, SPEC.num_obs))
    )


def _unavoidable(dynamics: Dynamics, work: list[tuple[int, int]]) -> Work:
    """Products of so many rows with each layer's weights, so many times each."""
    pairs = [
        (torch.randn(rows, w.shape[0]), w.detach(), times)
        for w in dynamics.weights
        for rows, times in work
    ]
    return lambda: [torch.mm(x, w) for x, w, times in pairs for _ in range(times)]


def _ours(dynamics: Dynamics, adapter: Adapter, support: Transitions, query: Transitions) -> Work:
    both = nn.ModuleList([dynamics, adapter])

    def work() -> None:
        both.zero_grad()
        params = adapter.adapt(dynamics, support)
        said = dynamics.predict(params, dynamics.inputs(query.obs, query.act))
        (said - dynamics.targets(query)).square().mean().backward()

    return work


# --- peers: one SGD step a task, differentiated through, on a network of the same size ------------

ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


def _network(dynamics: Dynamics) -> nn.Module:
    layers: list[nn.Module] = []
    for weight in dynamics.weights:
        layers += [nn.Linear(*weight.shape), ACTIVATIONS[dynamics.activation]()]
    return nn.Sequential(*layers[:-1])


def _higher(network: nn.Module, data: Sequence[Tensor]) -> Work:
    import higher

    optimiser = torch.optim.SGD(network.parameters(), INNER_LR)

    def work() -> None:
        network.zero_grad()
        for x, y, next_x, next_y in zip(*data, strict=True):
            copy = {"copy_initial_weights": False}  # gradients reach the network itself
            with higher.innerloop_ctx(network, optimiser, **copy) as (adapted, inner):
                inner.step(mse_loss(adapted(x), y))
                (mse_loss(adapted(next_x), next_y) / TASKS).backward()

    return work


def _torchopt(network: nn.Module, data: Sequence[Tensor]) -> Work:
    import torchopt

    inner = torchopt.MetaSGD(network, INNER_LR)

    def work() -> None:
        network.zero_grad()
        start = torchopt.extract_state_dict(network, by="reference")
        inner_start = torchopt.extract_state_dict(inner, by="reference")
        for x, y, next_x, next_y in zip(*data, strict=True):
            inner.step(mse_loss(network(x), y))
            (mse_loss(network(next_x), next_y) / TASKS).backward()
            torchopt.recover_state_dict(network, start)
            torchopt.recover_state_dict(inner, inner_start)

    return work


PEERS: dict[str, Callable[[nn.Module, Sequence[Tensor]], Work]] = {
    "higher": _higher,
    "torchopt": _torchopt,
}


def table(speeds: list[MetaSpeed]) -> Table:
    """One line a network and learner."""
    shown = Table(title="adapting, on one core", title_justify="left", box=box.SIMPLE_HEAD)
    columns = ["step", "network", "tasks × (support, query)", "learner", "ms (median ± IQR)"]
    for k, column in enumerate([*columns, "of the products"]):
        shown.add_column(column, justify="right" if k > 3 else "left")
    for s in speeds:
        shown.add_row(
            s.step,
            f"{s.network} {s.activation}",
            f"{s.tasks} × ({s.support}, {s.query})",
            f"{s.adapter} by {s.peer}" if s.peer else s.adapter,
            f"{s.ms_median:.1f} ± {s.ms_iqr:.1f}",
            f"{s.ratio_to_gemm:.2f}",
        )
    return shown
