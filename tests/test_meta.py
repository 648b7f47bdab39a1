"""The meta-objective, open-loop errors, and which snapshot fitting ends on."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mbmrl import fit as fitting
from mbmrl.adapters.base import Adapter
from mbmrl.adapters.none import NoAdapter
from mbmrl.data import Episodes, Windows
from mbmrl.dynamics import Affine, Dynamics, Params, integrate, wrap
from mbmrl.fit import FitConfig, fit, validation
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

    def scripted(d: Dynamics, a: Adapter, batches: list) -> float:
        seen.append(torch.cat([weights(d), weights(a)]))
        return losses[len(seen) - 1]

    monkeypatch.setattr(fitting, "validation", scripted)
    reported: list[tuple[int, float, float]] = []
    best = fit(
        dynamics,
        adapter,
        some_windows(),
        some_windows(1),
        CONFIG,
        seed=0,
        report=lambda *r: reported.append(r),
    )
    assert best == losses[best_at]
    assert torch.equal(torch.cat([weights(dynamics), weights(adapter)]), seen[best_at])
    assert len({tuple(s.tolist()) for s in seen}) == len(losses)  # the snapshots did differ
    assert [update for update, _, _ in reported] == [1, 2, 3, 4, 5, 6]
    assert [val for _, _, val in reported] == pytest.approx(losses[1:], nan_ok=True)


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
    un_adapted_a = validation(dynamics, NoAdapter(dynamics), batch)
    adapted_a = validation(dynamics, adapter, batch)
    become("B")
    un_adapted_b = validation(dynamics, NoAdapter(dynamics), batch)
    adapted_b = validation(dynamics, adapter, batch)
    assert un_adapted_a < un_adapted_b  # watching this would choose A
    assert adapted_b < adapted_a and adapted_b == pytest.approx(0, abs=1e-6)

    # through fit: the training "steps" are A, B, A
    become("A")
    snapshots = iter(["B", "A"])

    class Scripted(torch.optim.SGD):
        def step(self, closure: None = None) -> None:
            become(next(snapshots))

    monkeypatch.setattr(fitting.torch.optim, "Adam", lambda groups: Scripted(groups, lr=0.0))
    config = FitConfig(updates=2, batch=2, window=4, query=10, check_every=1)
    assert fit(dynamics, adapter, pushed, pushed, config, seed=0) == pytest.approx(0, abs=1e-6)
    assert dynamics.biases[-1].item() == 0.0


def test_fit_improves_and_is_reproducible() -> None:
    def once(seed: int) -> tuple[float, Tensor]:
        torch.manual_seed(0)
        dynamics = Dynamics(CART, (8,))
        config = FitConfig(updates=30, batch=4, window=4, query=10, lr=1e-2, check_every=10)
        return fit(
            dynamics, NoAdapter(dynamics), some_windows(), some_windows(1), config, seed
        ), weights(dynamics)

    first, again, other = once(0), once(0), once(1)
    assert first[0] == again[0] and torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    torch.manual_seed(0)
    start = Dynamics(CART, (8,))
    rngs = [torch.Generator().manual_seed(99 + k) for k in range(2)]
    judge = [some_windows(1).sample(rng, 256, 4, 10) for rng in rngs]
    assert first[0] < validation(start, NoAdapter(start), judge)
