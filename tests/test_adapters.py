"""Adapters against the mathematics, and the contract that every registered one keeps."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mbmrl import registry
from mbmrl.adapters.anil import Anil
from mbmrl.adapters.base import Adapter, Recursive
from mbmrl.adapters.bayes import Bayes
from mbmrl.adapters.blackbox import gru, seen
from mbmrl.adapters.context import Context
from mbmrl.adapters.fomaml import FirstOrder
from mbmrl.adapters.latent import REACH, Latent
from mbmrl.adapters.latent_bayes import LatentBayes
from mbmrl.adapters.learned_optimizer import LearnedOptimizer
from mbmrl.adapters.maml import BOUND, Maml, Rates
from mbmrl.adapters.maml_bayes import MamlBayes
from mbmrl.adapters.memory import LENGTH as MEMORY_LENGTH
from mbmrl.adapters.memory import Memory
from mbmrl.adapters.none import NoAdapter
from mbmrl.adapters.priors import Priors
from mbmrl.adapters.recurrent import Recurrent
from mbmrl.adapters.reptile import Reptile
from mbmrl.adapters.rls import Rls
from mbmrl.data import Episodes, Windows
from mbmrl.dynamics import Affine, Dynamics, Params
from mbmrl.fit import FitConfig, fit
from mbmrl.meta import meta_loss
from mbmrl.spec import Field, RobotSpec
from mbmrl.types import Transitions

LONGEST = 9
SPEC = RobotSpec(
    name="crab",
    dt=0.1,
    obs=(
        Field("x", "m"),
        Field("y", "m"),
        Field("yaw", "rad"),
        Field("vx", "m/s"),
        Field("amp", "1"),
    ),
    act=(Field("stride", "1", -1, 1), Field("turn", "1", -1, 1)),
    pose=("x", "y", "yaw"),
    known={"amp": {"amp": 0.5, "stride": 0.5}},
)
CART = RobotSpec(
    name="cart",
    dt=0.1,
    obs=(Field("p", "m"), Field("v", "m/s")),
    act=(Field("f", "N", -1, 1),),
)


def model(hidden: tuple[int, ...] = (6, 5), activation: str = "silu") -> Dynamics:
    torch.manual_seed(0)
    dynamics = Dynamics(SPEC, hidden, activation)
    for bias in dynamics.biases:
        torch.nn.init.normal_(bias, std=0.3)
    dynamics.double().fit_normaliser(window(200, seed=1))
    return dynamics


def window(*shape: int, seed: int = 2, scale: float = 1.0) -> Transitions:
    g = torch.Generator().manual_seed(seed)
    sizes = (SPEC.num_obs, SPEC.num_act, SPEC.num_obs)
    rows = [torch.randn(*shape, k, generator=g, dtype=torch.float64) for k in sizes]
    return Transitions(rows[0], rows[1], rows[0] + scale * rows[2])


def make(cls: type[Adapter], dynamics: Dynamics) -> Adapter:
    """An adapter whose learned numbers are not those it starts from."""
    adapter = cls(dynamics).double()
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in adapter.parameters():
            p += 0.3 * torch.randn(p.shape, generator=g, dtype=p.dtype)
    return adapter


def predicted(dynamics: Dynamics, params: Params, *shape: int) -> Tensor:
    data = window(*shape, seed=4)
    return dynamics.predict(params, dynamics.inputs(data.obs, data.act))


def row(data: Transitions, at: int) -> Transitions:
    return Transitions(*(x[at] for x in data))


def explicit(layer: Affine) -> tuple[Tensor, Tensor]:
    """Weights and bias, multiplied out."""
    merged = layer.merged()
    return merged.weight, merged.bias


# --- the contract of every registered adapter ----------------------------------------------------


@pytest.fixture(params=registry.names("adapters"))
def dynamics_and_adapter(request: pytest.FixtureRequest) -> tuple[Dynamics, Adapter]:
    dynamics = model()
    return dynamics, make(registry.load("adapters", request.param), dynamics)


Pair = tuple[Dynamics, Adapter]


def test_contract_pure(dynamics_and_adapter: Pair) -> None:
    """The same window, the same θ′: prior, adapter and window are left as they were."""
    dynamics, adapter = dynamics_and_adapter
    data = window(2, LONGEST)
    things = [dict(dynamics.state_dict()), dict(adapter.state_dict()), data._asdict()]
    before = copy.deepcopy(things)
    first = predicted(dynamics, adapter.adapt(dynamics, data), 2, 4)
    adapter.adapt(dynamics, window(3, 5, seed=8))
    again = predicted(dynamics, adapter.adapt(dynamics, data), 2, 4)
    assert torch.equal(first, again)
    for was, is_ in zip(before, things, strict=True):
        assert all(torch.equal(was[k], is_[k]) for k in was)


def test_contract_no_history_no_change(dynamics_and_adapter: Pair) -> None:
    dynamics, adapter = dynamics_and_adapter
    for shape in ((0,), (2, 0)):
        params = adapter.adapt(dynamics, window(*shape))
        prior = predicted(dynamics, dynamics.prior(), 2, 4)
        torch.testing.assert_close(predicted(dynamics, params, 2, 4), prior)


def test_contract_nothing_to_learn_where_the_prior_is_right(dynamics_and_adapter: Pair) -> None:
    dynamics, adapter = dynamics_and_adapter
    if not adapter.corrects:
        pytest.skip("reads the window with a network of its own")
    data = window(2, LONGEST)
    after = dynamics.unroll(dynamics.prior(), data.obs, data.act[:, :, None])[:, :, 0]
    params = adapter.adapt(dynamics, data._replace(next_obs=after))
    prior = predicted(dynamics, dynamics.prior(), 2, 4)
    torch.testing.assert_close(predicted(dynamics, params, 2, 4), prior)


@pytest.mark.parametrize("m", range(1, LONGEST + 1))
def test_contract_a_batch_is_its_robots_one_by_one(dynamics_and_adapter: Pair, m: int) -> None:
    """At every partial length of the window."""
    dynamics, adapter = dynamics_and_adapter
    data, query = window(3, m), window(3, 4, seed=4)
    together = dynamics.predict(
        adapter.adapt(dynamics, data), dynamics.inputs(query.obs, query.act)
    )
    assert together.isfinite().all()
    for r in range(3):
        params = adapter.adapt(dynamics, row(data, r))
        alone = dynamics.predict(params, dynamics.inputs(query.obs[r], query.act[r]))
        torch.testing.assert_close(together[r], alone)


def test_contract_finite_on_absurd_windows(dynamics_and_adapter: Pair) -> None:
    """A fall, a collision, a glitch: 1000 standard deviations in what it saw, or in all of it."""
    dynamics, adapter = dynamics_and_adapter
    dynamics.float(), adapter.float()
    calm = Transitions(*(x.float() for x in window(LONGEST)))
    jolt = calm.next_obs.clone()
    jolt[4] += 1e3
    for data in (
        calm._replace(next_obs=jolt),
        Transitions(*(1e3 * x for x in calm)),
        Transitions(*(x[:1].expand(LONGEST, -1) for x in calm)),  # one transition, repeated
        Transitions(*(torch.zeros_like(x) for x in calm)),
    ):
        query = window(4, seed=4)
        x = dynamics.inputs(query.obs.float(), query.act.float())
        assert dynamics.predict(adapter.adapt(dynamics, data), x).isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_contract_a_window_that_is_no_number_harms_no_other_robot(
    dynamics_and_adapter: Pair, bad: float
) -> None:
    dynamics, adapter = dynamics_and_adapter
    data = window(2, LONGEST)
    data.obs[0, 3], data.next_obs[0, 3] = bad, bad
    query = dynamics.inputs(*window(2, 4, seed=4)[:2])
    both = dynamics.predict(adapter.adapt(dynamics, data), query)
    alone = dynamics.predict(adapter.adapt(dynamics, row(data, 1)), query[1])
    torch.testing.assert_close(both[1], alone)


def test_contract_differentiable(dynamics_and_adapter: Pair) -> None:
    """Meta-training reaches every parameter of the prior, and the adapter's own."""
    dynamics, adapter = dynamics_and_adapter
    adapter.objective(dynamics, window(3, LONGEST), window(3, 12, seed=5)).backward()
    for name, p in dynamics.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.any(), name
    own = [p for p in adapter.parameters() if p.requires_grad]
    grads = [p.grad for p in own if p.grad is not None]
    assert all(g.isfinite().all() for g in grads)
    assert any(g.any() for g in grads) == bool(own)


def test_contract_in_use_no_state_is_kept(dynamics_and_adapter: Pair) -> None:
    """Adapting twice on a window is adapting once: never from the last θ′."""
    dynamics, adapter = dynamics_and_adapter
    with torch.no_grad():
        data = window(1, LONGEST)
        results = [predicted(dynamics, adapter.adapt(dynamics, data), 1, 4) for _ in range(5)]
    assert all(torch.equal(r, results[0]) for r in results)


# --- MAML ----------------------------------------------------------------------------------------


class PlainMaml(Adapter):
    """The same step by plain autograd, window by window: the reference for the dual form."""

    def __init__(self, maml: Maml) -> None:
        super().__init__()
        self.maml = maml

    def adapt(self, prior: Dynamics, window: Transitions) -> Params:
        weights, biases = list(prior.weights), list(prior.biases)
        tasks = []
        for r in range(len(window.act)):
            x, y = prior.inputs(window.obs[r], window.act[r]), prior.targets(row(window, r))
            residual = self._net(prior, weights, biases, x) - y
            loss = (BOUND**2 * torch.log(torch.cosh(residual / BOUND))).mean()
            grads = torch.autograd.grad(loss, [*weights, *biases], create_graph=True)
            rates = self._rates(weights)
            stepped = [
                p - rate * g for p, rate, g in zip([*weights, *biases], rates, grads, strict=True)
            ]
            tasks.append(stepped)
        stacked = [torch.stack(p) for p in zip(*tasks, strict=True)]
        k = len(weights)
        return [Affine(w, b[:, None]) for w, b in zip(stacked[:k], stacked[k:], strict=True)]

    @staticmethod
    def _net(prior: Dynamics, weights: list[Tensor], biases: list[Tensor], x: Tensor) -> Tensor:
        for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
            x = x @ w + b
            x = prior.act_fn(x) if i < len(weights) - 1 else x
        return x

    def _rates(self, weights: list[Tensor]) -> list[Tensor]:
        maml, count = self.maml, len(weights)
        base = [maml.log_rate[0 if maml.rates == "scalar" else i].exp() for i in range(count)]
        if maml.rates == "factored":
            pairs = zip(maml.log_row, maml.log_col, strict=True)
            own = [torch.outer(r.exp(), c.exp()) for r, c in pairs]
        elif maml.rates == "parameter":
            own = [full.exp() for full in maml.log_full]
        else:
            own = [torch.ones_like(w) for w in weights]
        if maml.rates in ("factored", "parameter"):
            bias = [b.exp() for b in maml.log_bias]
        else:
            bias = [torch.ones(()) for _ in weights]
        step_last = [float(i in maml.layers) for i in range(count)]
        return [
            *(s * r * o for s, r, o in zip(step_last, base, own, strict=True)),
            *(s * r * b for s, r, b in zip(step_last, base, bias, strict=True)),
        ]


def maml_and_reference(
    rates: Rates, activation: str = "silu", *, last_layer: bool = True
) -> tuple[Dynamics, Maml, PlainMaml]:
    dynamics = model(activation=activation)
    layers = None if last_layer else range(len(dynamics.hidden))
    maml = Maml(dynamics, rates, initial=0.4, layers=layers).double()
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in maml.parameters():
            p += 0.5 * torch.randn(p.shape, generator=g, dtype=p.dtype)
    return dynamics, maml, PlainMaml(maml)


VARIANTS = [
    ("scalar", "silu", True),
    ("layer", "silu", True),
    ("factored", "silu", True),
    ("parameter", "silu", True),
    ("factored", "tanh", True),
    ("factored", "relu", True),
    ("factored", "silu", False),
    ("parameter", "silu", False),
]
every_variant = pytest.mark.parametrize(("rates", "activation", "last_layer"), VARIANTS)


@every_variant
def test_the_dual_form_takes_exactly_one_gradient_step(
    rates: Rates, activation: str, last_layer: bool
) -> None:
    dynamics, maml, plain = maml_and_reference(rates, activation, last_layer=last_layer)
    data = window(3, LONGEST, scale=4.0)  # some residuals are well beyond the bound
    dual = [explicit(layer) for layer in maml.adapt(dynamics, data)]
    reference = [explicit(layer) for layer in plain.adapt(dynamics, data)]
    for i, ((w, b), (w_ref, b_ref)) in enumerate(zip(dual, reference, strict=True)):
        torch.testing.assert_close(w.expand_as(w_ref), w_ref, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(b.expand_as(b_ref), b_ref, rtol=1e-10, atol=1e-12)
        moved = (w_ref - dynamics.weights[i]).abs().max()
        assert moved > 1e-3 if i < len(dual) - 1 or last_layer else moved == 0


@every_variant
def test_the_dual_form_has_the_exact_second_order_meta_gradient(
    rates: Rates, activation: str, last_layer: bool
) -> None:
    """Of the prior's weights and biases and of the learned rates, through the multi-step loss."""
    dynamics, maml, plain = maml_and_reference(rates, activation, last_layer=last_layer)
    support, query = window(3, LONGEST, scale=4.0), window(3, 14, seed=5)
    wanted = {**dict(dynamics.named_parameters()), **dict(maml.named_parameters())}
    losses, grads = [], []
    for adapter in (maml, plain):
        loss = meta_loss(dynamics, adapter, support, query)
        losses.append(loss.item())
        grads.append(torch.autograd.grad(loss, list(wanted.values()), allow_unused=True))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    for name, mine, reference in zip(wanted, *grads, strict=True):
        if mine is None or reference is None:  # the rates of a last layer that takes no step
            assert not last_layer and name.endswith(".2")
            assert all(g is None or not g.any() for g in (mine, reference))
            continue
        assert reference.any(), name
        assert (mine - reference).norm() <= 1e-8 * reference.norm(), name


def test_first_order_is_not_enough() -> None:
    """FOMAML takes the very step of MAML, and another meta-gradient."""
    dynamics, maml, _ = maml_and_reference("factored")
    first_order = FirstOrder(dynamics).double()
    first_order.load_state_dict(maml.state_dict())
    support, query = window(3, LONGEST), window(3, 14, seed=5)
    params, losses, grads = list(dynamics.parameters()), [], []
    for adapter in (maml, first_order):
        losses.append(meta_loss(dynamics, adapter, support, query))
        grads.append(torch.autograd.grad(losses[-1], params))
    torch.testing.assert_close(*losses)
    assert any((a - b).norm() > 1e-2 * a.norm() for a, b in zip(*grads, strict=True))


def test_three_steps_are_three_times_one_step() -> None:
    """Each from where the last one ended, by plain autograd."""
    dynamics = model()
    several = Maml(dynamics, "layer", initial=0.4, steps=3).double()
    data = window(LONGEST, scale=4.0)
    x, y = dynamics.inputs(data.obs, data.act), dynamics.targets(data)
    params = [p.detach().clone() for p in (*dynamics.weights, *dynamics.biases)]
    rate = several.log_rate[0].exp().item()
    count = len(dynamics.weights)
    for _ in range(3):
        params = [p.requires_grad_() for p in params]
        residual = PlainMaml._net(dynamics, params[:count], params[count:], x) - y
        loss = (BOUND**2 * torch.log(torch.cosh(residual / BOUND))).mean()
        grads = torch.autograd.grad(loss, params)
        params = [(p - rate * g).detach() for p, g in zip(params, grads, strict=True)]
    adapted = [explicit(layer) for layer in several.adapt(dynamics, data)]
    for (w, b), w_ref, b_ref in zip(adapted, params[:count], params[count:], strict=True):
        torch.testing.assert_close(w, w_ref, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(b[0], b_ref, rtol=1e-10, atol=1e-12)


def test_anil_moves_the_last_layer_alone() -> None:
    dynamics = model()
    adapted = Anil(dynamics).double().adapt(dynamics, window(LONGEST))
    moved = [
        not torch.equal(layer.merged().weight, w)
        for layer, w in zip(adapted, dynamics.weights, strict=True)
    ]
    assert moved == [False, False, True]


def test_reptile_pulls_the_prior_towards_what_each_window_leads_to() -> None:
    """The gradient is θ* minus the mean of θ′, and the loss told is that of θ′."""
    dynamics = model()
    reptile = Reptile(dynamics).double()
    support, query = window(3, LONGEST), window(3, 14, seed=5)
    whole = Transitions(*(torch.cat(x, 1) for x in zip(support, query, strict=True)))
    loss = reptile.objective(dynamics, support, query)
    torch.testing.assert_close(loss, meta_loss(dynamics, reptile, support, query))
    loss.backward()
    tasks = [[explicit(a) for a in reptile.adapt(dynamics, row(whole, r))] for r in range(3)]
    for i, (w, b) in enumerate(zip(dynamics.weights, dynamics.biases, strict=True)):
        mean_w = torch.stack([t[i][0] for t in tasks]).mean(0)
        mean_b = torch.stack([t[i][1][0] for t in tasks]).mean(0)
        torch.testing.assert_close(w.grad, (w - mean_w).detach())
        torch.testing.assert_close(b.grad, (b - mean_b).detach())
        assert w.grad is not None and w.grad.any()


# --- recursive learners --------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [Rls, Recurrent])
def test_a_state_kept_over_ticks_is_the_window_so_far(cls: type[Recursive]) -> None:
    dynamics = model()
    adapter = make(cls, dynamics)
    assert isinstance(adapter, Recursive)
    data = window(2, LONGEST)
    state = adapter.begin(dynamics, (2,))
    for t in range(LONGEST):
        state = adapter.step(dynamics, state, Transitions(*(x[:, t : t + 1] for x in data)))
        so_far = adapter.adapt(dynamics, Transitions(*(x[:, : t + 1] for x in data)))
        torch.testing.assert_close(
            predicted(dynamics, adapter.params(dynamics, state), 2, 4),
            predicted(dynamics, so_far, 2, 4),
        )


def test_rls_bears_minutes_of_the_same() -> None:
    """Forgetting with nothing new to see: no feature ends up less certain than it was at first."""
    dynamics = model().float()
    rls = make(Rls, dynamics).float()
    assert isinstance(rls, Rls)
    still = Transitions(*(x.float() for x in window(1, 1)))
    with torch.no_grad():
        state = rls.begin(dynamics, (1,))
        first = state[1].diagonal(dim1=1, dim2=2)
        for _ in range(5_000):
            state = rls.step(dynamics, state, still)
        _, covariance = state
        assert (covariance.diagonal(dim1=1, dim2=2) <= first * 1.0001).all()
        assert torch.linalg.eigvalsh(covariance.double()).min() > 0
        moving = Transitions(*(x.float() for x in window(1, 1, seed=9)))
        x, y = dynamics.inputs(moving.obs, moving.act), dynamics.targets(moving)
        before = (dynamics.predict(rls.params(dynamics, state), x) - y).norm()
        adapted = rls.params(dynamics, rls.step(dynamics, state, moving))
        assert (dynamics.predict(adapted, x) - y).norm() < before


# --- learners with a network or a code of their own -----------------------------------------------


def test_a_context_is_as_good_as_a_further_input() -> None:
    dynamics = model()
    adapter = make(Context, dynamics)
    assert isinstance(adapter, Context)
    data, query = window(2, LONGEST), window(2, 4, seed=4)
    context = adapter.encode(dynamics, data)
    x = dynamics.inputs(query.obs, query.act)
    wider = torch.cat([x, context[:, None].expand(-1, 4, -1)], -1)
    first, *rest = dynamics.prior()
    layers = [Affine(torch.cat([first.weight, adapter.told]), first.bias), *rest]
    torch.testing.assert_close(
        dynamics.predict(adapter.adapt(dynamics, data), x), dynamics.predict(layers, wider)
    )


def test_the_order_of_a_window_matters_to_what_is_recurrent_or_ages() -> None:
    dynamics, data = model(), window(2, LONGEST)
    backwards = Transitions(*(x.flip(1) for x in data))
    """To what counts older transitions less, too."""
    for cls, matters in ((Recurrent, True), (Latent, True), (Context, False), (Maml, False)):
        adapter = make(cls, dynamics)
        once, again = (
            predicted(dynamics, adapter.adapt(dynamics, d), 2, 4) for d in (data, backwards)
        )
        assert torch.allclose(once, again) != matters


def test_the_steps_in_the_code_are_gradient_steps() -> None:
    """Of the same saturating loss, by plain autograd through the decoder."""
    dynamics = model()
    latent = make(Latent, dynamics)
    assert isinstance(latent, Latent)
    data = window(LONGEST, scale=4.0)
    x, y = dynamics.inputs(data.obs, data.act), dynamics.targets(data)
    weight = torch.exp(-latent.log_ageing.exp() * torch.arange(LONGEST).flip(0))[:, None]
    weight = weight / weight.mean()
    code = torch.zeros(latent.size, dtype=torch.float64)
    for _ in range(latent.steps):
        code = code.detach().requires_grad_()
        residual = dynamics.predict(latent.decode(dynamics, code), x) - y
        loss = (weight * BOUND**2 * torch.log(torch.cosh(residual / BOUND))).mean()
        (slope,) = torch.autograd.grad(loss, code)
        code = REACH * torch.tanh((code - latent.log_rate.exp() * slope) / REACH)
    found = latent.improved(dynamics, data)
    torch.testing.assert_close(latent.improved(dynamics, data, torch.zeros_like(code)), found)
    torch.testing.assert_close(found, code)
    assert found.abs().max() > 1e-3


def test_it_begins_with_the_likeliest_prior() -> None:
    """A window that one of its priors made: that one is taken, and another window another."""
    dynamics = model()
    priors = make(Priors, dynamics)
    assert isinstance(priors, Priors)
    with torch.no_grad():
        priors.codes *= 0.3  # nothing is foreseen that is out of reach, and held back there
    data = window(LONGEST)
    for k in range(3):
        own = priors.decode(dynamics, priors.codes[k])
        after = dynamics.unroll(own, data.obs, data.act[:, None])[:, 0]
        likelihood = priors.likelihoods(dynamics, data._replace(next_obs=after))
        assert likelihood.argmax() == k
        torch.testing.assert_close(likelihood[k], torch.zeros_like(likelihood[k]))


def test_the_memory_recalls_what_was_kept_with_windows_like_this_one() -> None:
    dynamics = model()
    memory = make(Memory, dynamics)
    assert isinstance(memory, Memory)
    windows = window(3, MEMORY_LENGTH)
    rows = seen(dynamics, windows)
    assert not memory.recalled(rows).any()  # nothing was met
    memory.objective(dynamics, windows, window(3, 12, seed=5))
    assert memory.met == 3 and torch.equal(memory.kept[:3], rows.to(memory.kept.dtype))
    with torch.no_grad():
        for p in memory.encoder.parameters():
            p *= 30.0  # far apart: attention then picks one
        embedded = memory.encoder(rows).mean(-2)
        nearest = (embedded @ embedded.mT).argmax(-1)
        expected = memory.recall(embedded)[nearest]
        torch.testing.assert_close(memory.recalled(rows), expected, rtol=1e-3, atol=1e-3)


def test_the_memory_keeps_the_newest_windows() -> None:
    dynamics = model()
    memory = Memory(dynamics).double()
    for k in range(30):
        memory.objective(dynamics, window(3, MEMORY_LENGTH, seed=k), window(3, 12, seed=5))
    assert memory.met == len(memory.kept)
    newest = seen(dynamics, window(3, MEMORY_LENGTH, seed=29))
    torch.testing.assert_close(memory.kept[:3], newest)


def test_the_learned_optimizer_with_open_gates_is_gradient_descent() -> None:
    """Gates that say: keep everything, follow the gradient."""
    dynamics = model()
    learner = LearnedOptimizer(dynamics).double()
    with torch.no_grad():
        learner.gates.weight.zero_()
        learner.gates.bias.copy_(torch.tensor([40.0, 0.0]))
    data = window(8)
    phi, y, last = problem(dynamics, data)
    last = last.clone()
    for rows, target in zip(phi.tensor_split(3), y.tensor_split(3), strict=True):
        residual = rows @ last - target
        last = last - 0.02 * rows.mT @ (BOUND * torch.tanh(residual / BOUND)) / len(rows)
    torch.testing.assert_close(last_layer(learner.adapt(dynamics, data)), last)


def test_a_gru_written_out_is_torchs() -> None:
    cell = torch.nn.GRUCell(2, 4)
    told, hidden = torch.randn(2, 7), torch.randn(4, 7)
    torch.testing.assert_close(gru(cell, told, hidden).mT, cell(told.mT, hidden.mT))


def test_the_size_of_the_step_saturates() -> None:
    """One wild transition is one step like any other, not a thousand."""
    dynamics, maml, _ = maml_and_reference("layer")
    data = window(LONGEST)

    def step(offset: float) -> Tensor:
        """How the last layer's bias moves when every target is ``offset`` deviations away."""
        after = data.obs.clone()
        after[:, :3] = data.next_obs[:, :3]
        after[:, 3] += dynamics.target_mean[3] + offset * dynamics.target_std[3]
        adapted = maml.adapt(dynamics, data._replace(next_obs=after))
        return (adapted[-1].bias - dynamics.biases[-1])[0, 3]

    rate = maml.log_rate[-1].exp()
    torch.testing.assert_close(step(1e3), rate * BOUND / 4, rtol=1e-6, atol=0)
    torch.testing.assert_close(step(1e6), step(1e3), rtol=1e-6, atol=0)
    torch.testing.assert_close(step(-1e6), -step(1e6), rtol=1e-6, atol=0)


def test_small_residuals_are_least_squares() -> None:
    """Near the prior the inner loss is half the mean square: the bound is not felt there."""
    dynamics, maml, _ = maml_and_reference("layer")
    data = window(LONGEST)
    x, y = dynamics.inputs(data.obs, data.act), dynamics.targets(data)
    close = dynamics.predict(dynamics.prior(), x) + 1e-4 * y
    target = close * dynamics.target_std + dynamics.target_mean
    after = dynamics.unroll(dynamics.prior(), data.obs, data.act[:, None])[:, 0]
    after[:, 3] = data.obs[:, 3] + target[:, 3]
    stepped = maml.adapt(dynamics, data._replace(next_obs=after))[-1].bias
    expected = dynamics.biases[-1].clone()
    expected[3] += maml.log_rate[-1].exp() * 1e-4 * y[:, 3].mean() / 4
    torch.testing.assert_close(stepped[0], expected, rtol=0, atol=1e-9)


# --- Bayes, RLS ----------------------------------------------------------------------------------


def problem(
    dynamics: Dynamics, data: Transitions, params: Params | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Features with a constant, targets, and the prior's last layer with its bias below."""
    params = params or dynamics.prior()
    phi = dynamics.features(params, dynamics.inputs(data.obs, data.act))
    phi = torch.cat([phi, torch.ones_like(phi[:, :1])], -1)
    return phi, dynamics.targets(data), torch.cat([params[-1].weight, params[-1].bias[None]])


def ridge(phi: Tensor, y: Tensor, prior: Tensor, precision: Tensor, weights: Tensor) -> Tensor:
    """argmin over W of Σ weightsᵢ |yᵢ − φᵢ W|² + Σ precisionⱼ |Wⱼ − priorⱼ|²."""
    left = phi.T @ (weights[:, None] * phi) + torch.diag(precision)
    return torch.linalg.solve(left, phi.T @ (weights[:, None] * y) + precision[:, None] * prior)


def last_layer(params: Params) -> Tensor:
    weight, bias = explicit(params[-1])
    return torch.cat([weight, bias.reshape(1, -1)])


@pytest.mark.parametrize("m", [1, 4, 30])
def test_bayes_is_the_posterior_mean_in_closed_form(m: int) -> None:
    """With noise that grows with a transition's age: the newest, the last, has the least."""
    dynamics = model()
    bayes = make(Bayes, dynamics)
    assert isinstance(bayes, Bayes)
    with torch.no_grad():
        bayes.log_ageing.fill_(math.log(0.2))
    data = window(m, scale=0.5)
    phi, y, prior = problem(dynamics, data)
    age = torch.arange(m - 1, -1, -1, dtype=torch.float64)
    noise = bayes.log_noise.exp() * (0.2 * age).exp()
    expected = ridge(phi, y, prior, (-bayes.log_scale).exp(), 1 / noise)
    params = bayes.adapt(dynamics, data)
    torch.testing.assert_close(last_layer(params), expected, rtol=1e-8, atol=1e-10)
    for layer, before in zip(params[:-1], dynamics.prior(), strict=False):
        assert layer.merged().weight is before.weight and layer.bias is before.bias


def test_bayes_with_endless_noise_is_the_prior_and_with_none_least_squares() -> None:
    dynamics = model()
    bayes = make(Bayes, dynamics)
    assert isinstance(bayes, Bayes)
    data = window(40, scale=0.5)
    phi, y, prior = problem(dynamics, data)
    with torch.no_grad():
        bayes.log_ageing.fill_(-30.0)
        bayes.log_noise.fill_(40.0)
        torch.testing.assert_close(last_layer(bayes.adapt(dynamics, data)), prior)
        bayes.log_noise.fill_(-20.0)
        exact = torch.linalg.lstsq(phi, y).solution
        torch.testing.assert_close(
            last_layer(bayes.adapt(dynamics, data)), exact, rtol=1e-4, atol=1e-5
        )
        assert (exact - prior).abs().max() > 0.1


def test_bayes_without_noise_goes_through_a_window_shorter_than_its_features() -> None:
    dynamics = model()
    bayes = make(Bayes, dynamics)
    assert isinstance(bayes, Bayes)
    data = window(3, scale=0.5)
    with torch.no_grad():
        bayes.log_noise.fill_(-25.0)
        params = bayes.adapt(dynamics, data)
        fitted = dynamics.predict(params, dynamics.inputs(data.obs, data.act))
    torch.testing.assert_close(fitted, dynamics.targets(data), rtol=1e-5, atol=1e-5)


def test_bayes_bears_a_window_of_the_same_that_is_said_to_hold_no_noise() -> None:
    """In single precision, as on a robot: its Gram matrix has one rank, and huge numbers."""
    dynamics = model().float()
    bayes = make(Bayes, dynamics).float()
    assert isinstance(bayes, Bayes)
    one = Transitions(*(x.float() for x in window(1, scale=0.5)))
    data = Transitions(*(x.expand(32, -1) for x in one))
    with torch.no_grad():
        bayes.log_scale.fill_(12.0)
        bayes.log_noise.fill_(-12.0)
        params = bayes.adapt(dynamics, data)
        fitted = dynamics.predict(params, dynamics.inputs(one.obs, one.act))
    torch.testing.assert_close(fitted, dynamics.targets(one), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["bayes", "rls", "latent_bayes", "maml_bayes"])
def test_a_wild_reading_counts_no_more_than_a_fall(name: str) -> None:
    """A thousand deviations off move the last layer as far as the bound does."""
    dynamics = model()
    adapter, data = make(registry.load("adapters", name), dynamics), window(8, scale=0.5)

    def glitch(size: float) -> Transitions:
        wild = data.next_obs.clone()
        wild[5, 3] += size
        return data._replace(next_obs=wild)

    far, farther = (predicted(dynamics, adapter.adapt(dynamics, glitch(s)), 4) for s in (99, 1e3))
    torch.testing.assert_close(far, farther, rtol=1e-3, atol=1e-3)
    assert (far - predicted(dynamics, adapter.adapt(dynamics, data), 4)).abs().max() < BOUND


@pytest.mark.parametrize("cls", [Bayes, Rls])
def test_the_newest_transitions_count_most(cls: type[Adapter]) -> None:
    """Half a window from before a damage, half from after: the same numbers, the other order."""
    dynamics = model()
    adapter, one = make(cls, dynamics), window(1)
    push = torch.eye(5, dtype=torch.float64)[3]
    low, high = (one._replace(next_obs=one.next_obs + s * push) for s in (-1.0, 1.0))

    def after(first: Transitions, then: Transitions) -> float:
        data = Transitions(
            *(torch.cat([a] * 6 + [b] * 6) for a, b in zip(first, then, strict=True))
        )
        with torch.no_grad():
            params = adapter.adapt(dynamics, data)
            return dynamics.predict(params, dynamics.inputs(one.obs, one.act))[0, 3].item()

    assert after(low, high) > after(high, low) + 0.05


@pytest.mark.parametrize("m", [1, 4, 30])
def test_rls_is_the_posterior_of_weights_that_wander_about_the_prior(m: int) -> None:
    """In closed form: weights of covariance P* then as now, of which √λ^age is shared."""
    dynamics = model()
    rls = make(Rls, dynamics)
    assert isinstance(rls, Rls)
    data = window(m, scale=0.5)
    phi, y, prior = problem(dynamics, data)
    age = torch.arange(m - 1, -1, -1, dtype=torch.float64)
    shared = Rls.forgetting ** (age / 2)
    together = Rls.forgetting ** ((age[:, None] - age).abs() / 2)
    doubt = torch.diag(rls.log_scale.exp())
    system = together * (phi @ doubt @ phi.T) + rls.log_noise.exp() * torch.eye(
        m, dtype=torch.float64
    )
    keys = shared[:, None] * (phi @ doubt)
    expected = prior + keys.T @ torch.linalg.solve(system, y - phi @ prior)
    torch.testing.assert_close(
        last_layer(rls.adapt(dynamics, data)), expected, rtol=1e-8, atol=1e-10
    )


def test_rls_that_forgets_nothing_is_bayes_that_does_not_age(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Rls, "forgetting", 1.0)
    dynamics = model()
    bayes, rls = make(Bayes, dynamics), make(Rls, dynamics)
    assert isinstance(bayes, Bayes)
    with torch.no_grad():
        bayes.log_ageing.fill_(-40.0)
    data = window(2, 12)
    assert Rls.trained_as == Bayes.name
    torch.testing.assert_close(
        predicted(dynamics, rls.adapt(dynamics, data), 2, 4),
        predicted(dynamics, bayes.adapt(dynamics, data), 2, 4),
    )


@pytest.mark.parametrize("cls", [MamlBayes, LatentBayes])
def test_a_step_then_the_ridge_on_the_features_that_it_gives(cls: type[MamlBayes]) -> None:
    dynamics = model()
    both = make(cls, dynamics)
    assert isinstance(both, cls)
    data = window(LONGEST, scale=0.5)
    found = both.adapt(dynamics, data)

    stepped = both.body.adapt(dynamics, data)
    moved = copy.deepcopy(dynamics).requires_grad_(False)
    for i, layer in enumerate(stepped):
        weight, bias = explicit(layer)
        moved.weights[i].copy_(weight), moved.biases[i].copy_(bias.reshape(-1))
    expected = both.head.adapt(moved, data)
    for mine, theirs in zip(found, expected, strict=True):
        for a, b in zip(explicit(mine), explicit(theirs), strict=True):
            torch.testing.assert_close(a.reshape(b.shape), b)
    assert (explicit(found[0])[0] - dynamics.weights[0]).abs().max() > 1e-3


def test_the_step_of_maml_bayes_leaves_the_last_layer_to_the_ridge() -> None:
    dynamics = model()
    both = make(MamlBayes, dynamics)
    assert isinstance(both, MamlBayes)
    stepped = both.body.adapt(dynamics, window(LONGEST, scale=0.5))
    assert torch.equal(explicit(stepped[-1])[0], dynamics.weights[-1])


# --- meta-training -------------------------------------------------------------------------------


def linear_robots(tasks: int, seed: int) -> Windows:
    """Each episode is another robot: another response to its force, another drag, another wind."""
    rng = np.random.default_rng(seed)
    steps = 40
    (gain, wind), drag = rng.normal(0, 1, (2, tasks)), rng.uniform(0.1, 0.9, tasks)
    obs, act = np.zeros((tasks, steps + 1, 2)), rng.uniform(-1, 1, (tasks, steps, 1))
    obs[:, 0] = rng.normal(0, 0.5, (tasks, 2))
    for t in range(steps):
        p, v = obs[:, t].T
        push = gain * act[:, t, 0] + 0.3 * wind
        obs[:, t + 1] = np.stack([0.8 * p + 0.2 * v, (1 - drag) * v + push], -1)
    names = [f"robot={k}" for k in range(tasks)]
    return Windows(Episodes(obs, act, np.zeros(tasks, dtype=int), names), CART)


def trained(name: str) -> tuple[Dynamics, Adapter]:
    train, held_out = linear_robots(150, seed=0), linear_robots(60, seed=1)
    torch.manual_seed(0)
    dynamics = Dynamics(CART, (32,), "tanh")
    everything = train.obs[:, :-1], train.act, train.obs[:, 1:]
    dynamics.fit_normaliser(Transitions(*(x.flatten(0, 1) for x in everything)))
    adapter = registry.load("adapters", name)(dynamics)
    config = FitConfig(updates=80, batch=16, window=16, query=12, lr=5e-3, check_every=80)
    fit([(dynamics, adapter)], train, held_out, config, seed=0)
    return dynamics, adapter


@torch.no_grad()
def held_out_loss(dynamics: Dynamics, adapter: Adapter) -> float:
    windows = linear_robots(60, seed=2)
    support, query = windows.sample(torch.Generator().manual_seed(5), 200, 16, 12)
    return meta_loss(dynamics, adapter, support, query).item()


@pytest.fixture(scope="module")
def pooled_loss() -> float:
    return held_out_loss(*trained("none"))


@pytest.mark.parametrize("name", ["maml", "bayes", "maml_bayes", "latent_bayes"])
def test_meta_training_learns_to_adapt(name: str, pooled_loss: float) -> None:
    """Robots that differ in everything: after training, a window of 16 says which one it is."""
    dynamics, adapter = trained(name)
    adapted = held_out_loss(dynamics, adapter)
    assert adapted < 0.5 * held_out_loss(dynamics, NoAdapter(dynamics))
    assert adapted < 0.5 * pooled_loss
