"""How fast adapting and meta-training are, against their matrix products and other ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from rich import box
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import mse_loss

from mbmrl import registry
from mbmrl.adapters.base import Adapter, Recursive
from mbmrl.adapters.maml import Maml
from mbmrl.bench.plan import SPEC
from mbmrl.bench.turns import Work, in_turn
from mbmrl.dynamics import Dynamics
from mbmrl.fit import FitConfig, Members, OuterStep
from mbmrl.meta import HORIZON, STRIDE
from mbmrl.types import Transitions

REPEATS = 5
INNER_LR = 0.05


@dataclass(frozen=True)
class Case:
    """One network, and what a step of its meta-training sees.

    Attributes:
        hidden: widths of its layers.
        activation: ``relu``, ``silu`` or ``tanh``.
        tasks: windows at once.
        support: transitions of each that are adapted on.
        query: those that follow.
    """

    hidden: tuple[int, ...]
    activation: str
    tasks: int = 24
    support: int = 32
    query: int = 18


CASES = (
    Case((256, 256), "silu"),
    Case((512,) * 3, "relu"),
    Case((512,) * 3, "silu", tasks=64, support=16, query=16),
)


@dataclass(frozen=True)
class MetaSpeed:
    """One learner's speed.

    Attributes:
        step: ``adapt`` (one robot, one window), ``meta`` (the gradient of the loss one step ahead,
            which the peers take too) or ``train`` (all of a step of meta-training: the adapter's
            whole objective, and the optimiser).
        adapter: what adapts.
        peer: the library or the way that it is done by; None for our own.
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
    return _adapt(case, repeats) + _meta(case, repeats) + _train(case, repeats)


def _adapt(case: Case, repeats: int) -> list[MetaSpeed]:
    """Beside the least that one gradient step takes: a product forward and one back each layer."""
    dynamics = Dynamics(SPEC, case.hidden, case.activation)
    window = _transitions(1, case.support)
    rivals: dict[str, Work] = {"": _unavoidable(dynamics, [(case.support, 2)])}
    for name, adapter in _adapters(dynamics).items():
        rivals[name] = torch.no_grad()(_tick(adapter, dynamics, window))
    return _rows("adapt", case, rivals, {}, (1, 0), 20 * repeats)


def _tick(adapter: Adapter, dynamics: Dynamics, window: Transitions) -> Work:
    """What adapting takes at every tick; what remembers takes in the newest transition alone."""
    if not isinstance(adapter, Recursive):
        return partial(adapter.adapt, dynamics, window)
    known = adapter.follow(dynamics, window)
    newest = Transitions(*(x[:, -1:] for x in window))
    return lambda: adapter.params(dynamics, adapter.step(dynamics, known, newest))


def _meta(case: Case, repeats: int) -> list[MetaSpeed]:
    """Beside the products that an exact second-order step cannot avoid.

    On the query three a layer: forward, back to its inputs, back to its weights. On the support
    six: forward and back through the layer (its weights' gradient is never built), and each of the
    two differentiated by both of its factors.
    """
    dynamics = Dynamics(SPEC, case.hidden, case.activation)
    support, query = (_transitions(case.tasks, n) for n in (case.support, case.query))
    rivals: dict[str, Work] = {"": _unavoidable(dynamics, _second_order(case))}
    rivals[Maml.name] = _ours(dynamics, Maml(dynamics), support, query)
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
    return _rows("meta", case, rivals, peers, (case.tasks, case.query), repeats)


def _train(case: Case, repeats: int) -> list[MetaSpeed]:
    """Beside the same products, and those that the open-loop predictions need as well."""
    dynamics = Dynamics(SPEC, case.hidden, case.activation)
    windows = [_transitions(case.tasks, n) for n in (case.support, case.query)]
    stretches = (case.query - HORIZON) // STRIDE + 1
    work = [*_second_order(case), (case.tasks * stretches, 3 * HORIZON)]
    rivals: dict[str, Work] = {"": _unavoidable(dynamics, work)}
    for name, adapter in _adapters(dynamics).items():
        if not adapter.trained_as:
            rivals[name] = partial(OuterStep(Members([(dynamics, adapter)]), FitConfig()), *windows)
    return _rows("train", case, rivals, {}, (case.tasks, case.query), repeats)


def _second_order(case: Case) -> list[tuple[int, int]]:
    return [(case.tasks * case.support, 6), (case.tasks * case.query, 3)]


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
            support=case.support,
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


def _loop(network: nn.Module, data: Sequence[Tensor]) -> Work:
    """Task by task, as it is written down."""
    params: dict[str, Tensor] = dict(network.named_parameters())

    def work() -> None:
        network.zero_grad()
        for x, y, next_x, next_y in zip(*data, strict=True):
            inner = mse_loss(functional_call(network, params, (x,)), y)
            slopes = torch.autograd.grad(inner, list(params.values()), create_graph=True)
            adapted = {
                n: p - INNER_LR * g for (n, p), g in zip(params.items(), slopes, strict=True)
            }
            said = functional_call(network, adapted, (next_x,))
            (mse_loss(said, next_y) / len(data[0])).backward()

    return work


def _vmap(network: nn.Module, data: Sequence[Tensor]) -> Work:
    """All tasks at once, each with adapted weights of its own."""
    params: dict[str, Tensor] = dict(network.named_parameters())

    def loss(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return mse_loss(functional_call(network, params, (x,)), y)

    def task(x: Tensor, y: Tensor, next_x: Tensor, next_y: Tensor) -> Tensor:
        slopes = grad(loss)(params, x, y)
        return loss({n: p - INNER_LR * slopes[n] for n, p in params.items()}, next_x, next_y)

    def work() -> None:
        network.zero_grad()
        vmap(task)(*data).mean().backward()

    return work


def _higher(network: nn.Module, data: Sequence[Tensor]) -> Work:
    import higher

    optimiser = torch.optim.SGD(network.parameters(), INNER_LR)

    def work() -> None:
        network.zero_grad()
        for x, y, next_x, next_y in zip(*data, strict=True):
            copy = {"copy_initial_weights": False}  # gradients reach the network itself
            with higher.innerloop_ctx(network, optimiser, **copy) as (adapted, inner):
                inner.step(mse_loss(adapted(x), y))
                (mse_loss(adapted(next_x), next_y) / len(data[0])).backward()

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
            (mse_loss(network(next_x), next_y) / len(data[0])).backward()
            torchopt.recover_state_dict(network, start)
            torchopt.recover_state_dict(inner, inner_start)

    return work


PEERS: dict[str, Callable[[nn.Module, Sequence[Tensor]], Work]] = {
    "a loop": _loop,
    "vmap": _vmap,
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
