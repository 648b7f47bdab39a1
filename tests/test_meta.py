"""The meta-objective, open-loop errors, and which snapshot fitting ends on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mbmrl import fit as fitting
from mbmrl import registry
from mbmrl.adapters.base import Adapter
from mbmrl.adapters.bayes import Bayes
from mbmrl.adapters.none import NoAdapter
from mbmrl.data import Episodes, Windows
from mbmrl.dynamics import Affine, Dynamics, Params, integrate, wrap
from mbmrl.fit import FitConfig, Look, Members, OuterStep, Pair, fit, un_adapted, validation
from mbmrl.meta import HORIZON, STRIDE, meta_loss, open_loop_error
from mbmrl.spec import Field, RobotSpec
from mbmrl.types import Transitions

SPEC = RobotSpec(
    name="crab",
    dt=0.1,
    obs=(
        Field("amp", "1"),
        Field("x", "m"),
        Field("y", "m"),
        Field("yaw", "rad"),
        Field("vx", "m/s"),
        Field("vy", "m/s"),
    ),
    act=(Field("stride", "1", -1, 1),),
    pose=("x", "y", "yaw"),
    known={"amp": {"amp": 0.5, "stride": 0.5}},
)
CART = RobotSpec(name="cart", dt=0.1, obs=(Field("v", "m/s"),), act=(Field("f", "N", -1, 1),))


def model(spec: RobotSpec = SPEC, seed: int = 0) -> Dynamics:
    torch.manual_seed(seed)
    dynamics = Dynamics(spec, (8,), "tanh")
    g = torch.Generator().manual_seed(1)
    for name, buffer in dynamics.named_buffers():
        if name.endswith("_std"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=g))
        elif name.endswith("_mean"):
            buffer.copy_(0.1 * torch.randn(buffer.shape, generator=g))
    return dynamics.requires_grad_(False)


def driven(truth: Dynamics, batch: int = 3, k: int = 18, seed: int = 2) -> Transitions:
    """What a robot does that behaves as ``truth`` predicts."""
    g = torch.Generator().manual_seed(seed)
    start = torch.randn(batch, truth.spec.num_obs, generator=g)
    acts = torch.rand(batch, k, truth.spec.num_act, generator=g) * 2 - 1
    future = truth.unroll(truth.prior(), start[:, None], acts[:, None])[:, 0]
    obs = torch.cat([start[:, None], future], 1)
    return Transitions(obs[:, :-1], acts, obs[:, 1:])


def softly(error: Tensor) -> float:
    return torch.log(torch.cosh(error.double())).mean().item()


class Fixed(Adapter):
    """θ′ is what the test says, whatever the window; it remembers what it was shown."""

    def __init__(self, params: Callable[[Dynamics, Transitions], Params]) -> None:
        super().__init__()
        self.params = params
        self.shown: list[Transitions] = []

    def adapt(self, prior: Dynamics, window: Transitions) -> Params:
        self.shown.append(window)
        return self.params(prior, window)


# --- the loss ------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [SPEC, CART], ids=lambda s: s.name)
def test_a_perfect_model_has_no_loss(spec: RobotSpec) -> None:
    truth = model(spec)
    query = driven(truth)
    error = open_loop_error(truth, truth.prior(), query, HORIZON)
    torch.testing.assert_close(error, torch.zeros_like(error), atol=2e-4, rtol=0)
    assert meta_loss(truth, NoAdapter(truth), query, query).item() < 1e-6


def test_the_loss_falls_towards_the_truth() -> None:
    truth = model()
    query = driven(truth)
    losses = []
    for share in (1.0, 0.5, 0.25, 0.0):
        wrong = model(seed=9)
        for mine, right in zip(wrong.parameters(), truth.parameters(), strict=True):
            mine.copy_(right + share * (mine - right))
        losses.append(meta_loss(wrong, NoAdapter(wrong), query, query).item())
    assert losses == sorted(losses, reverse=True) and losses[0] > 10 * losses[-1]


def test_the_loss_is_the_one_of_the_adapted_model() -> None:
    """The prior is wrong and θ′ right: no loss. What adapts is shown the support, not the query."""
    truth, prior = model(), model(seed=9)
    query, support = driven(truth), driven(truth, k=7, seed=3)
    right = Fixed(lambda _, window: truth.prior())
    assert meta_loss(prior, right, support, query).item() < 1e-6
    assert meta_loss(prior, NoAdapter(prior), support, query).item() > 0.01
    assert [w is support for w in right.shown] == [True]


def test_the_loss_by_hand() -> None:
    truth, wrong = model(), model(seed=9)
    query = driven(truth)
    y = wrong.predict(wrong.prior(), wrong.inputs(query.obs, query.act))
    one_step = softly(y - wrong.targets(query))
    open_loop = softly(open_loop_error(wrong, wrong.prior(), query, HORIZON))
    found = meta_loss(wrong, NoAdapter(wrong), query, query).item()
    assert found == pytest.approx(one_step + 0.5 * open_loop, rel=1e-4)


def test_no_window_rules_the_batch() -> None:
    """An outlier's gradient is bounded, and its loss grows no faster than it does."""
    dynamics = model(CART).requires_grad_(True)
    query = driven(dynamics, k=12)
    query = Transitions(*(x.detach() for x in query))

    def loss(outlier: float) -> tuple[float, float]:
        after = query.next_obs.clone()
        after[0, 5] += outlier
        value = meta_loss(dynamics, NoAdapter(dynamics), query, query._replace(next_obs=after))
        grads = torch.autograd.grad(value, list(dynamics.parameters()))
        return value.item(), sum(g.norm().item() for g in grads)

    (small, gradient), (large, same_gradient) = loss(1e4), loss(1e6)
    assert large / small == pytest.approx(100, rel=0.01)
    assert same_gradient == pytest.approx(gradient, rel=0.01)
    assert math.isfinite(loss(1e30)[0])


# --- open-loop errors ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "horizon", "stretches"), [(10, 10, 1), (13, 10, 1), (14, 10, 2), (18, 10, 3), (6, 6, 1)]
)
def test_stretches_lie_all_along_the_query(k: int, horizon: int, stretches: int) -> None:
    """Stretch n starts at step n·STRIDE, from the observation there, under the actions there."""
    truth, wrong = model(), model(seed=9)
    query = driven(truth, k=k)
    error = open_loop_error(wrong, wrong.prior(), query, horizon)
    outputs = len(SPEC.pose) + len(SPEC.predicted)
    assert error.shape == (3, stretches, horizon, outputs)
    assert stretches == (k - horizon) // STRIDE + 1
    for n in range(stretches):
        part = slice(n * STRIDE, n * STRIDE + horizon)
        alone = open_loop_error(
            wrong, wrong.prior(), Transitions(*(x[:, part] for x in query)), horizon
        )
        torch.testing.assert_close(error[:, n], alone[:, 0])


def test_open_loop_error_by_hand() -> None:
    """The state in its deviations, the pose after t steps in √t deviations of one step's motion."""
    truth, wrong = model(), model(seed=9)
    query = driven(truth, k=10)
    found = open_loop_error(wrong, wrong.prior(), query, 10)[:, 0]
    future = wrong.unroll(wrong.prior(), query.obs[:, :1], query.act[:, None])[:, 0]
    miss = future - query.next_obs
    # amp is known, so it is no error; vx and vy are the network's inputs 1 and 2
    torch.testing.assert_close(found[..., 3:], miss[..., 4:] / wrong.input_std[1:3])
    root = torch.arange(1, 11).sqrt()
    plane = wrong.target_std[:2].norm()
    torch.testing.assert_close(found[..., :2], miss[..., 1:3] / (root[:, None] * plane))
    torch.testing.assert_close(found[..., 2], wrap(miss[..., 3]) / (root * wrong.target_std[2]))


def test_a_turn_of_the_whole_robot_changes_no_error() -> None:
    """Poses are compared with the yaw wrapped: ±π is no cliff."""
    truth, wrong = model(), model(seed=9)
    g = torch.Generator().manual_seed(4)
    acts = torch.rand(2, 10, 1, generator=g) * 2 - 1
    start = torch.randn(2, SPEC.num_obs, generator=g)
    sizes = []
    for yaw in (0.0, math.pi - 1e-3, -math.pi + 1e-3, 100.0):
        start[:, 3] = yaw
        future = truth.unroll(truth.prior(), start[:, None], acts[:, None])[:, 0]
        future[..., 3] = wrap(future[..., 3])  # as a robot measures it
        obs = torch.cat([start[:, None], future], 1)
        query = Transitions(obs[:, :-1], acts, obs[:, 1:])
        error = open_loop_error(wrong, wrong.prior(), query, 10)
        sizes.append((error[..., 2], error[..., :2].norm(dim=-1)))
    for turn, away in sizes[1:]:
        torch.testing.assert_close(turn, sizes[0][0], atol=1e-3, rtol=0)
        torch.testing.assert_close(away, sizes[0][1], atol=1e-3, rtol=0)


def test_a_pose_error_that_grows_like_a_random_walk_keeps_its_size() -> None:
    dynamics = model()
    for p in dynamics.parameters():
        p.zero_()  # predicts the mean motion
    g = torch.Generator().manual_seed(0)
    motion = dynamics.target_mean[:3] + dynamics.target_std[:3] * torch.randn(
        4000, 16, 3, generator=g
    )
    motion[..., 2] = dynamics.target_mean[2]  # the same heading, so that errors just add up
    obs = torch.zeros(4000, 17, SPEC.num_obs)
    obs[:, 1:, 1:4] = integrate(torch.zeros(4000, 3), motion)
    query = Transitions(obs[:, :-1], torch.zeros(4000, 16, 1), obs[:, 1:])
    error = open_loop_error(dynamics, dynamics.prior(), query, 16)[:, 0, :, :2]
    size = error.square().sum(-1).mean(0).sqrt()
    torch.testing.assert_close(size, torch.ones(16), atol=0.05, rtol=0)


def test_each_robot_is_predicted_with_its_own_parameters() -> None:
    truth = model()
    query = driven(truth)
    last = truth.prior()[-1]
    wrong = torch.tensor([0.0, 1.0, 2.0])[:, None, None] * torch.ones(1, 1, last.bias.shape[0])
    params = [*truth.prior()[:-1], Affine(last.weight, last.bias + wrong)]
    size = open_loop_error(truth, params, query, HORIZON).abs().mean((1, 2, 3))
    assert size[0] < 1e-4 < size[1] < size[2]


# --- which snapshot is kept ----------------------------------------------------------------------


def some_windows(seed: int = 0) -> Windows:
    rng = np.random.default_rng(seed)
    obs, act = rng.normal(size=(4, 31, 1)), rng.uniform(-1, 1, (4, 30, 1))
    return Windows(Episodes(obs, act, np.zeros(4, dtype=int), ["a", "b", "c", "d"]), CART)


CONFIG = FitConfig(updates=6, batch=2, window=4, query=10, check_every=1)


def weights(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


@pytest.mark.parametrize(
    ("losses", "best_at"),
    [
        ([9.0, 8.0, 3.0, 5.0, 6.0, 7.0, 8.0], 2),
        ([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0], 6),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 0),
        ([9.0, math.nan, 4.0, math.nan, math.inf, math.nan, 5.0], 2),
    ],
    ids=["in between", "the last", "the warm start", "amid NaN"],
)
def test_fit_ends_on_the_best_snapshot(
    losses: list[float], best_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on the last; the warm start is one of those to choose from."""
    dynamics = Dynamics(CART, (4,))
    adapter = Counter()
    seen: list[Tensor] = []

    def scripted(members: Members, batches: list, loss: Any = meta_loss) -> Tensor:
        if loss is un_adapted:
            return torch.tensor([0.5])  # would be the best, if it counted
        seen.append(torch.cat([p.detach().flatten() for p in members.stacked.values()]))
        return torch.tensor([losses[len(seen) - 1]])

    monkeypatch.setattr(fitting, "validation", scripted)
    looks: list[Look] = []
    pairs = [(dynamics, adapter)]
    best = fit(pairs, some_windows(), some_windows(1), CONFIG, seed=0, report=looks.append)
    assert best == [losses[best_at]]
    assert torch.equal(torch.cat([weights(dynamics), weights(adapter)]), seen[best_at])
    assert len({tuple(s.tolist()) for s in seen}) == len(losses)  # the snapshots did differ
    assert [look.update for look in looks] == [1, 2, 3, 4, 5, 6]
    assert [look.validation for look in looks] == pytest.approx(losses[1:], nan_ok=True)
    assert {look.validation_prior for look in looks} == {0.5}


class Counter(Adapter):
    """Has one parameter of its own, a shift of the output."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def adapt(self, prior: Dynamics, window: Transitions) -> Params:
        *body, last = prior.prior()
        return [*body, Affine(last.weight, last.bias + self.shift)]


def test_known_mistake_4_validation_is_the_loss_after_adapting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two snapshots: the one with the better prior adapts worse. The one that adapts better wins.

    The robot is a constant push of 1. Snapshot A predicts it un-adapted, and its adapter spoils
    it; snapshot B predicts nothing, and its adapter makes up for it.
    """
    dynamics = Dynamics(CART, (4,))
    adapter = Counter()

    def become(snapshot: str) -> None:
        with torch.no_grad():
            for p in dynamics.parameters():
                p.zero_()
            dynamics.biases[-1].fill_(1.0 if snapshot == "A" else 0.0)
            adapter.shift.fill_(1.0)

    v = torch.arange(31.0).numpy()[None, :, None]
    pushed = Windows(Episodes(v, np.zeros((1, 30, 1)), np.zeros(1, dtype=int), ["push"]), CART)
    batch = [pushed.sample(torch.Generator().manual_seed(0), 8, 4, 12)]
    become("A")
    un_adapted_a, adapted_a = (judged(dynamics, a, batch) for a in (NoAdapter(dynamics), adapter))
    become("B")
    un_adapted_b, adapted_b = (judged(dynamics, a, batch) for a in (NoAdapter(dynamics), adapter))
    assert un_adapted_a < un_adapted_b  # watching this would choose A
    assert adapted_b < adapted_a and adapted_b == pytest.approx(0, abs=1e-6)

    # through fit: the training "steps" are A, B, A
    become("A")
    snapshots = iter(["B", "A"])

    class Scripted(torch.optim.SGD):
        def step(self, closure: None = None) -> None:
            become(next(snapshots))
            stacked = [p for group in self.param_groups for p in group["params"]]
            with torch.no_grad():
                for p, own in zip(stacked, [*dynamics.parameters(), adapter.shift], strict=True):
                    p.copy_(own[None])

    monkeypatch.setattr(fitting.torch.optim, "Adam", lambda groups, **how: Scripted(groups, lr=0.0))
    config = FitConfig(updates=2, batch=2, window=4, query=10, check_every=1)
    best = fit([(dynamics, adapter)], pushed, pushed, config, seed=0)
    assert best == pytest.approx([0], abs=1e-6)
    assert dynamics.biases[-1].item() == 0.0


def judged(
    dynamics: Dynamics, adapter: Adapter, batches: list[tuple[Transitions, Transitions]]
) -> float:
    return validation(Members([(dynamics, adapter)]), batches).item()


@pytest.mark.parametrize("k", [1, 3])
def test_the_prior_is_judged_on_the_same_windows(k: int) -> None:
    """By its contract an adapter that is shown nothing gives the prior."""
    pairs = ensemble("bayes", k, CART)
    looks: list[Look] = []
    config = dataclasses.replace(CONFIG, updates=1)
    fit(
        pairs, some_windows(), some_windows(1), dataclasses.replace(config, lr=0.0), 0, looks.append
    )
    rngs = [torch.Generator().manual_seed(99 + k) for k in range(2)]
    judge = [some_windows(1).sample(rng, 256, 4, 10) for rng in rngs]
    adapted = [judged(d, a, judge) for d, a in pairs]
    prior = [judged(d, NoAdapter(d), judge) for d, _ in pairs]
    assert looks[0].validation == pytest.approx(np.mean(adapted), rel=1e-5)
    assert looks[0].validation_prior == pytest.approx(np.mean(prior), rel=1e-5)
    assert abs(looks[0].validation - looks[0].validation_prior) > 1e-3


def test_fit_improves_and_is_reproducible() -> None:
    def once(seed: int) -> tuple[float, Tensor]:
        torch.manual_seed(0)
        dynamics = Dynamics(CART, (8,))
        config = FitConfig(updates=30, batch=4, window=4, query=10, lr=1e-2, check_every=10)
        pairs = [(dynamics, NoAdapter(dynamics))]
        best = fit(pairs, some_windows(), some_windows(1), config, seed)
        return best[0], weights(dynamics)

    first, again, other = once(0), once(0), once(1)
    assert first[0] == again[0] and torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    torch.manual_seed(0)
    start = Dynamics(CART, (8,))
    rngs = [torch.Generator().manual_seed(99 + k) for k in range(2)]
    judge = [some_windows(1).sample(rng, 256, 4, 10) for rng in rngs]
    assert first[0] < judged(start, NoAdapter(start), judge)


# --- members of an ensemble, side by side ---------------------------------------------------------


def ensemble(adapter: str, k: int, spec: RobotSpec = SPEC) -> list[Pair]:
    """Different from the start, on the same scales."""
    pairs = []
    for i in range(k):
        dynamics = model(spec, seed=i).requires_grad_(True)
        pairs.append((dynamics, registry.load("adapters", adapter)(dynamics)))
    return pairs


def tasks(n: int, m: int, seed: int) -> Transitions:
    g = torch.Generator().manual_seed(seed)
    sizes = (SPEC.num_obs, SPEC.num_act, SPEC.num_obs)
    return Transitions(*(torch.randn(n, m, size, generator=g) for size in sizes))


TRAINED = [a for a in registry.names("adapters") if not registry.load("adapters", a).trained_as]


@pytest.mark.parametrize("adapter", TRAINED)
def test_members_learn_as_each_would_alone(adapter: str) -> None:
    """One batched pass a step, and nothing of one member gets into another.

    In double precision: some adapters make much of a rounding error.
    """
    together, alone = (
        [(d.double(), a.double()) for d, a in ensemble(adapter, 3)] for _ in range(2)
    )
    with torch.no_grad():  # its gradient must be clipped, and no other's for its sake
        for pairs in (together, alone):
            pairs[1][0].weights[-1].mul_(30)
    config = FitConfig(lr=0.0)  # Adam would make steps of rounding errors
    joint = OuterStep(Members(together), config)
    steps = [OuterStep(Members([pair]), config) for pair in alone]
    support, query = (Transitions(*(x.double() for x in tasks(3 * 4, m, seed=m))) for m in (6, 11))
    losses = joint(support, query)
    assert len(set(losses.tolist())) == 3
    for i, step in enumerate(steps):
        own = [Transitions(*(x[i::3] for x in part)) for part in (support, query)]
        torch.testing.assert_close(step(*own)[0], losses[i], rtol=1e-8, atol=1e-10)
        for name, p in step.members.stacked.items():
            both = joint.members.stacked[name].grad, p.grad
            assert (both[0] is None) == (both[1] is None), name
            if both[0] is not None and both[1] is not None:
                torch.testing.assert_close(both[0][i], both[1][0], rtol=1e-6, atol=1e-9)


def test_gradients_are_clipped_member_by_member() -> None:
    members = Members(ensemble("bayes", 2))
    for name, p in members.stacked.items():
        p.grad = torch.zeros_like(p)
        if name.endswith("biases.0"):
            p.grad[0], p.grad[1] = 3.0, 0.01
        if name.endswith("log_noise"):
            p.grad[0] = 4.0
    before = {n: p.grad.clone() for n, p in members.stacked.items()}
    norms = members.clip_gradients(torch.tensor([1.0, 2.0]))
    lengths = [(8 * 3.0**2 + 4.0**2) ** 0.5, (8 * 0.01**2) ** 0.5]  # its layer has 8 units
    torch.testing.assert_close(norms, torch.tensor(lengths), check_dtype=False)
    for name, p in members.stacked.items():
        torch.testing.assert_close(p.grad[0], before[name][0] / lengths[0])
        assert torch.equal(p.grad[1], before[name][1])


@pytest.mark.parametrize("absurd", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_none(absurd: float) -> None:
    members = Members(ensemble("bayes", 2))
    for p in members.stacked.values():
        p.grad = torch.full_like(p, 0.1)
    members.stacked[next(iter(members.stacked))].grad[0].view(-1)[0] = absurd
    norms = members.clip_gradients(torch.full((2,), 100.0))
    assert norms[0].isinf()
    assert norms[1].isfinite()
    for p in members.stacked.values():
        assert (p.grad[0] == 0).all()
        torch.testing.assert_close(p.grad[1], torch.full_like(p.grad[1], 0.1))


def test_one_absurd_batch_does_not_throw_training_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """After some usual ones: Adam alone would take a step that is many times as long."""
    pairs = ensemble("bayes", 1)
    members = Members(pairs)
    step = OuterStep(members, FitConfig(updates=1000))
    loud = 1.0
    plain = members.losses

    def losses(*args: Any, **kwargs: Any) -> Tensor:
        return loud * plain(*args, **kwargs)

    monkeypatch.setattr(members, "losses", losses)
    batch = tasks(4, 8, seed=1), tasks(4, 12, seed=2)
    moved = []
    for k in range(120):
        loud = 1e4 if k == 100 else 1.0
        before = members.snapshot()
        step(*batch)
        after = members.snapshot()
        moved.append(max((after[n] - before[n]).abs().max().item() for n in before))
    assert max(moved[100:110]) < 3 * max(moved[90:100])


def test_each_member_ends_on_its_own_best_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one of them is lost, it keeps what it began with, and the others do not notice."""
    losses = [[9.0, 9.0, 9.0], [8.0, math.nan, 9.5], [7.0, math.nan, 5.0], [7.5, math.nan, 6.0]]
    seen: list[dict[str, Tensor]] = []

    def scripted(members: Members, batches: list, loss: Any = meta_loss) -> Tensor:
        if loss is not un_adapted:
            seen.append({n: p.detach().clone() for n, p in members.stacked.items()})
        return torch.tensor(losses[len(seen) - 1])

    monkeypatch.setattr(fitting, "validation", scripted)
    pairs = [(d, Counter()) for d, _ in ensemble("none", 3, CART)]
    config = dataclasses.replace(CONFIG, updates=3)
    assert fit(pairs, some_windows(), some_windows(1), config, seed=0) == [7.0, 9.0, 5.0]
    for i, ((dynamics, adapter), best_at) in enumerate(zip(pairs, (2, 0, 2), strict=True)):
        own = torch.cat([p[i].flatten() for p in seen[best_at].values()])
        assert torch.equal(torch.cat([weights(dynamics), weights(adapter)]), own)


def test_a_member_that_is_lost_harms_no_other() -> None:
    pairs, sound = ensemble("maml", 3, CART), ensemble("maml", 3, CART)
    with torch.no_grad():
        pairs[1][0].weights[0].fill_(math.nan)
    config = dataclasses.replace(CONFIG, lr=1e-3)
    found, expected = (
        fit(p, some_windows(), some_windows(1), config, seed=0) for p in (pairs, sound)
    )
    assert math.isnan(found[1])
    assert [found[0], found[2]] == [expected[0], expected[2]]
    assert all(torch.equal(weights(pairs[i][0]), weights(sound[i][0])) for i in (0, 2))


class Remembers(Counter):
    """Keeps how many windows it has been trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.seen: Tensor

    def objective(self, prior: Dynamics, support: Transitions, query: Transitions) -> Tensor:
        self.seen += len(support.act)
        return super().objective(prior, support, query)


@pytest.mark.parametrize("k", [1, 3])
def test_what_an_adapter_remembers_is_kept_with_what_it_learned(
    k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of the best snapshot, which is the second of three."""
    losses = iter([9.0, 8.0, 7.0, 8.0])

    def scripted(members: Members, batches: list, loss: Any = meta_loss) -> Tensor:
        return torch.full((k,), 9.0 if loss is un_adapted else next(losses))

    monkeypatch.setattr(fitting, "validation", scripted)
    pairs = [(d, Remembers()) for d, _ in ensemble("none", k, CART)]
    fit(pairs, some_windows(), some_windows(1), dataclasses.replace(CONFIG, updates=3), seed=0)
    assert [adapter.seen.item() for _, adapter in pairs] == [2 * CONFIG.batch] * k


def test_members_learn_from_windows_of_their_own() -> None:
    """The same to begin with, they part."""
    pairs = [ensemble("bayes", 1, CART)[0] for _ in range(2)]
    fit(pairs, some_windows(), some_windows(1), dataclasses.replace(CONFIG, lr=1e-2), seed=0)
    (one, first), (other, second) = pairs
    assert isinstance(first, Bayes) and isinstance(second, Bayes)
    assert not torch.equal(weights(one), weights(other))
    assert not torch.equal(weights(first), weights(second))
