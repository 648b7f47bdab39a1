"""Planners against the mathematics, and the contract that they all keep."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from controllers.base import Belief, SamplingPlanner, coloured
from controllers.cem import CEM
from controllers.icem import ICEM
from controllers.mppi import MPPI
from controllers.random_shooting import RandomShooting

LOW, HIGH, SAFE = np.array([-1.0, 0.5]), np.array([2.0, 0.7]), np.array([0.25, 0.6])
PLANNERS = [CEM, ICEM, MPPI, RandomShooting]
every_planner = pytest.mark.parametrize("planner_type", PLANNERS)
every_iterating_planner = pytest.mark.parametrize("planner_type", [CEM, ICEM, MPPI])


def make(planner_type: Callable[..., SamplingPlanner], **options: object) -> SamplingPlanner:
    """A planner with one knot per step, unless told otherwise."""
    return planner_type(LOW, HIGH, SAFE, **{"horizon": 6, "num_knots": None, **options})


class Drift:
    """A model that moves each robot by the sum of its actions, and remembers what it was asked."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self.actions: list[Tensor] = []

    def __call__(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Predict one number, the position."""
        self.actions.append(actions)
        return obs[:, None, None] + actions.sum(-1, keepdim=True).cumsum(2)


def to_origin(predicted: Tensor, actions: Tensor) -> Tensor:
    """Stay near the origin."""
    return predicted.square().sum((-1, -2))


def nowhere(predicted: Tensor, actions: Tensor) -> Tensor:
    """Every candidate is invalid."""
    return torch.full(actions.shape[:2], math.nan)


def later(actions: Tensor) -> Tensor:
    """The same plan one step later, the last action held."""
    return torch.cat([actions[:, 1:], actions[:, -1:]], 1)


# --- the contract --------------------------------------------------------------------------


@every_planner
@pytest.mark.parametrize("num_knots", [None, 3, 1])
@pytest.mark.parametrize("r", [1, 3])
def test_plan_is_what_was_evaluated(
    planner_type: type[SamplingPlanner], num_knots: int | None, r: int
) -> None:
    """The prediction and the cost of a plan are those of its actions."""
    planner = make(planner_type, num_knots=num_knots)
    planner.reset(r)
    obs = torch.arange(r).float()[:, None]
    plan = planner.plan(obs, Drift(), to_origin)
    predicted = Drift()(obs, plan.actions[:, None])
    assert plan.actions.shape == plan.spread.shape == (r, 6, 2)
    assert plan.actions.dtype == torch.float32
    assert plan.valid.tolist() == [True] * r
    torch.testing.assert_close(plan.action, plan.actions[:, 0])
    torch.testing.assert_close(plan.predicted, predicted[:, 0])
    torch.testing.assert_close(plan.cost, to_origin(predicted, plan.actions[:, None])[:, 0])


@every_planner
@pytest.mark.parametrize("num_knots", [None, 4])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_actions_never_leave_the_limits(
    planner_type: type[SamplingPlanner], num_knots: int | None, sign: float
) -> None:
    """Neither candidates nor plans do, even when the cost pulls them out."""
    wide: dict[str, object] = {} if planner_type is RandomShooting else {"init_std": 5.0}
    planner, model = make(planner_type, num_knots=num_knots, **wide), Drift()
    low, high = torch.tensor(LOW).float(), torch.tensor(HIGH).float()
    for _ in range(5):
        plan = planner.plan(torch.zeros(1, 1), model, lambda p, a: sign * a.sum((-1, -2)))
        for actions in [*model.actions, plan.actions]:
            assert ((low <= actions) & (actions <= high)).all()


@every_planner
def test_same_seed_same_plans(planner_type: type[SamplingPlanner]) -> None:
    """An episode is a function of the seed, and resetting repeats it."""

    def episode(planner: SamplingPlanner) -> Tensor:
        planner.reset()
        obs = torch.ones(1, 1)
        return torch.cat([planner.plan(obs, Drift(), to_origin).actions for _ in range(3)])

    planner = make(planner_type, seed=3)
    first = episode(planner)
    torch.rand(5)  # the global generator has no part in it
    assert torch.equal(first, episode(planner))
    assert torch.equal(first, episode(make(planner_type, seed=3)))
    assert not torch.allclose(first, episode(make(planner_type, seed=4)))


@every_planner
def test_plan_does_not_depend_on_the_rest_of_the_batch(planner_type: type[SamplingPlanner]) -> None:
    """A robot's plan in a batch of 3 equals its plan alone, over several ticks."""
    batch = torch.tensor([[-3.0], [0.0], [2.0]])
    together = make(planner_type, num_knots=3)
    together.reset(3)
    alone = [make(planner_type, num_knots=3) for _ in batch]
    for _ in range(3):
        plan = together.plan(batch, Drift(), to_origin)
        for i, planner in enumerate(alone):
            single = planner.plan(batch[i : i + 1], Drift(), to_origin)
            torch.testing.assert_close(single.actions[0], plan.actions[i], atol=1e-4, rtol=0)
            torch.testing.assert_close(single.spread[0], plan.spread[i], atol=1e-4, rtol=0)


@every_planner
def test_a_batch_of_another_size_is_refused(planner_type: type[SamplingPlanner]) -> None:
    """Rather than broadcast one robot's warm start over all."""
    with pytest.raises(ValueError, match=r"reset\(3\) first"):
        make(planner_type).plan(torch.zeros(3, 1), Drift(), to_origin)


@every_planner
@pytest.mark.parametrize(
    "options",
    [{"num_knots": 0}, {"num_knots": 7}, {"num_samples": ()}, {"num_samples": (1,)}],
)
def test_useless_options_are_refused(
    planner_type: type[SamplingPlanner], options: dict[str, object]
) -> None:
    """At construction, with the name of the option."""
    with pytest.raises(ValueError, match="num_"):
        make(planner_type, **options)
    with pytest.raises(ValueError, match="limits"):
        planner_type(HIGH, LOW, SAFE)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="safe_act"):
        planner_type(LOW, HIGH, HIGH + 1)  # type: ignore[call-arg]


def test_useless_options_of_one_planner_are_refused() -> None:
    """At construction, with the name of the option."""
    for options in ({"num_elites": 0}, {"num_elites": 129}, {"momentum": 1.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            make(CEM, **options)
    for options in ({"temperature": 0.0}, {"decay": 0.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            make(MPPI, **options)


@every_planner
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("good", [-1e30, 0.0, 1e30])
def test_invalid_candidate_is_never_chosen(
    planner_type: type[SamplingPlanner], bad: float, good: float
) -> None:
    """Known mistake 8: a NaN that is mapped to a number beats something."""

    def cost(predicted: Tensor, actions: Tensor) -> Tensor:
        return torch.where(actions[..., 0, 0] > 0.3, bad, good)

    plan = make(planner_type).plan(torch.zeros(1, 1), Drift(), cost)
    assert plan.valid.all()
    assert plan.action[0, 0] <= 0.3


# --- fallback and warm start ---------------------------------------------------------------


@every_planner
def test_fallback_is_the_last_plan_one_step_later_then_the_safe_action(
    planner_type: type[SamplingPlanner],
) -> None:
    """A first failure keeps to the last valid plan, a second one in a row to the safe action."""
    planner, obs = make(planner_type), torch.ones(1, 1)
    model = Drift()
    good = planner.plan(obs, model, to_origin)
    first, second = (planner.plan(obs, model, nowhere) for _ in range(2))
    assert all(actions.isfinite().all() for actions in model.actions)
    safe = torch.tensor(SAFE).float().expand(1, 6, 2)
    torch.testing.assert_close(first.actions, later(good.actions))
    torch.testing.assert_close(first.predicted, Drift()(obs, first.actions[:, None])[:, 0])
    torch.testing.assert_close(second.actions, safe)
    for plan in (first, second):
        assert not plan.valid.any()
        assert plan.cost.item() == math.inf
        assert plan.spread.count_nonzero() == 0
    assert planner.plan(obs, Drift(), to_origin).valid.all()
    planner.reset()
    torch.testing.assert_close(planner.plan(obs, Drift(), nowhere).actions, safe)


@every_planner
def test_one_robots_fallback_leaves_the_others_alone(planner_type: type[SamplingPlanner]) -> None:
    """Validity is each robot's own."""

    def cost(predicted: Tensor, actions: Tensor) -> Tensor:
        costs = to_origin(predicted, actions)
        costs[1] = math.nan
        return costs

    plans = []
    for cost_fn in (to_origin, cost):
        planner = make(planner_type)
        planner.reset(3)
        plans.append(planner.plan(torch.zeros(3, 1), Drift(), cost_fn))
    assert plans[1].valid.tolist() == [True, False, True]
    assert torch.equal(plans[0].actions[[0, 2]], plans[1].actions[[0, 2]])
    torch.testing.assert_close(plans[1].actions[1], torch.tensor(SAFE).float().expand(6, 2))


@every_iterating_planner
@pytest.mark.parametrize("broken_call", [0, 1, 2, 3])
def test_one_invalid_iteration_or_final_plan_is_enough_to_fall_back(
    planner_type: type[SamplingPlanner], broken_call: int
) -> None:
    """Three iterations, then the final plan."""
    calls = iter(range(4))

    def cost(predicted: Tensor, actions: Tensor) -> Tensor:
        return (nowhere if next(calls) == broken_call else to_origin)(predicted, actions)

    plan = make(planner_type).plan(torch.zeros(1, 1), Drift(), cost)
    assert plan.valid.tolist() == [False]
    torch.testing.assert_close(plan.actions, torch.tensor(SAFE).float().expand(1, 6, 2))


@every_iterating_planner
def test_warm_start_after_a_fallback_is_what_was_executed(
    planner_type: type[SamplingPlanner],
) -> None:
    """Rather than the plan that failed."""

    def broken_at_last(predicted: Tensor, actions: Tensor) -> Tensor:
        return (to_origin if actions.shape[1] > 2 else nowhere)(predicted, actions)

    planner, model, obs = make(planner_type), Drift(), torch.ones(1, 1)
    planner.plan(obs, Drift(), to_origin)
    executed = planner.plan(obs, Drift(), broken_at_last).actions
    planner.plan(obs, model, to_origin)
    torch.testing.assert_close(model.actions[0][:, 0], later(executed), atol=1e-5, rtol=0)


@every_iterating_planner
def test_candidates_lie_around_the_last_plan_as_wide_as_the_first_noise(
    planner_type: type[SamplingPlanner],
) -> None:
    planner = make(planner_type, init_std=0.02, num_samples=(32,))
    planner.reset(2)
    plan = planner.plan(torch.tensor([[0.5], [-3.0]]), Drift(), to_origin)
    drawn = planner.candidates(4000)
    assert drawn.shape == (2, 4000, 6, 2)
    low, high = (torch.from_numpy(x).float() for x in (LOW, HIGH))
    assert (low <= drawn).all() and (drawn <= high).all()
    std = 0.02 * (high - low) / 2
    inside = (plan.actions - low > 4 * std) & (high - plan.actions > 4 * std)
    assert inside.sum() > 12
    off = (drawn.mean(1) - plan.actions) / std
    assert off[inside].abs().max() < 0.1
    torch.testing.assert_close(
        (drawn.std(1) / std)[inside], torch.ones(int(inside.sum())), rtol=0.06, atol=0
    )


def test_random_shooting_begins_each_call_anew() -> None:
    """The safe action, held, is its first candidate, whatever was planned before."""
    planner, model, obs = make(RandomShooting), Drift(), torch.ones(1, 1)
    planner.plan(obs, Drift(), to_origin)
    planner.plan(obs, model, to_origin)
    torch.testing.assert_close(model.actions[0][0, 0], torch.tensor(SAFE).float().expand(6, 2))


# --- coloured noise, carried candidates, limits on change ------------------------------------


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("k", [15, 32])
def test_coloured_noise_has_the_spectrum_asked_for(beta: float, k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = coloured(torch.randn(20000, k, 2, generator=generator), beta)
    assert noise.square().mean().item() == pytest.approx(1.0, rel=0.02)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.02)
    power = torch.fft.rfft(noise, dim=1).abs().square().mean((0, 2))
    frequency = torch.fft.rfftfreq(k)
    slope = np.polyfit(frequency[1:].log(), power[1:].log(), 1)[0]
    assert slope == pytest.approx(-beta, abs=0.02)
    assert power[0].item() == pytest.approx(power[1].item(), rel=0.05)  # no blow-up at zero


def test_one_knot_of_coloured_noise_is_white() -> None:
    white = torch.randn(5, 1, 3)
    torch.testing.assert_close(coloured(white, 2.0), white)


@every_planner
@pytest.mark.parametrize("num_knots", [None, 3, 1])
def test_actions_change_no_faster_than_allowed(
    planner_type: type[SamplingPlanner], num_knots: int | None
) -> None:
    """Not within any candidate, and not from what was executed before to the first action."""
    change = np.array([0.3, 0.02])
    planner = make(planner_type, num_knots=num_knots, max_change=change)
    limit, before = torch.tensor(change).float() + 1e-5, torch.tensor(SAFE).float()
    for target in (5.0, -5.0, 5.0):
        model = Drift()
        plan = planner.plan(
            torch.zeros(1, 1), model, lambda p, a, to=target: (p - to).square().sum((-1, -2))
        )
        for actions in (*model.actions[:-1], plan.actions[:, None]):
            first = before.expand(*actions.shape[:2], 1, -1)
            steps = torch.cat([first, actions], 2).diff(dim=2).abs()
            assert (steps <= limit).all()
        assert plan.valid.all()
        before = plan.action[0]
    assert (plan.actions[0, :, 0].diff().abs() > 0).any() or num_knots == 1


def test_the_best_candidate_of_the_last_iteration_is_executed_where_that_was_asked_for() -> None:
    planner, model, obs = make(ICEM, noise_beta=0.5), Drift(), torch.ones(1, 1)
    plan = planner.plan(obs, model, to_origin)
    last, answers = model.actions[-2], model.actions[-1]
    costs = to_origin(Drift()(obs, last), last)
    assert answers.shape[1] == 3  # mean, best, fallback
    best = last[0, costs.argmin()]
    torch.testing.assert_close(answers[0, 1], best)
    expected = min(costs.min().item(), to_origin(Drift()(obs, answers), answers)[0, 0].item())
    assert plan.cost.item() == pytest.approx(expected)


def test_carried_candidates_are_the_best_ones_one_step_later() -> None:
    planner, model, obs = make(ICEM, num_kept=4, num_carried=2), Drift(), torch.ones(1, 1)
    planner.plan(obs, model, to_origin)
    last = model.actions[2]
    order = to_origin(Drift()(obs, last), last)[0].argsort()[:2]
    model.actions.clear()
    planner.plan(obs, model, to_origin)
    torch.testing.assert_close(
        model.actions[0][:, 1:3], later(last[0, order])[None], atol=1e-5, rtol=0
    )
    planner.reset()
    model.actions.clear()
    planner.plan(obs, model, to_origin)
    assert not torch.allclose(model.actions[0][0, 1], later(last[0, order])[0])  # forgotten


@pytest.mark.parametrize(
    "options",
    [{"num_kept": 1, "num_carried": 2}, {"max_change": np.array([0.1, 0.0])}],
)
def test_what_cannot_be_done_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="num_carried|max_change"):
        make(CEM, **options)


class Told(SamplingPlanner):
    """A planner whose only idea is the plan that it was told."""

    name = "told"
    told: Tensor

    def sample(self, belief: Belief, num: int) -> Tensor:
        """What it was told, as often as asked."""
        return self.told.expand(1, num, -1, -1)

    def update(self, belief: Belief, knots: Tensor, costs: Tensor) -> tuple[Belief, Tensor]:
        """Follow the last candidate."""
        weights = torch.zeros_like(costs)
        weights[:, -1] = 1
        return Belief(knots[:, -1], belief.std), weights


def warm_start_after(knots: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
    """The plan that follows from these knots, and the mean that the next call starts from."""
    ones = np.ones(1)
    planner = Told(
        -ones, ones, 0 * ones, horizon=horizon, num_samples=(4,), num_knots=len(knots), init_std=1.0
    )
    planner.told = knots[:, None]
    plan, model = planner.plan(torch.zeros(1, 1), Drift(), to_origin), Drift()
    planner.plan(torch.zeros(1, 1), model, to_origin)
    return plan.actions, model.actions[0][:, 0]


def test_warm_start_of_a_linear_plan_is_one_step_later() -> None:
    """With a knot per step, exactly: a(t) becomes a(t + 1), the last value held."""
    ramp = torch.linspace(-0.5, 0.6, 12)
    plan, start = warm_start_after(ramp, horizon=12)
    torch.testing.assert_close(plan[0, :, 0], ramp)
    torch.testing.assert_close(start, later(plan), atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_knots", [2, 3, 4, 7])
def test_warm_start_of_a_spline_is_the_best_fit_to_the_plan_one_step_later(num_knots: int) -> None:
    """With fewer knots, the least-squares spline."""
    steps, knots = np.arange(12), np.linspace(0, 11, num_knots)
    plan, start = warm_start_after(torch.linspace(-0.5, 0.6, num_knots), horizon=12)
    np.testing.assert_allclose(plan[0, :, 0], np.linspace(-0.5, 0.6, 12), atol=1e-6)
    basis = np.stack([np.interp(steps, knots, row) for row in np.eye(num_knots)], 1)
    target = later(plan)[0, :, 0].double().numpy()
    best = basis @ np.linalg.lstsq(basis, target, rcond=None)[0]
    np.testing.assert_allclose(start[0, :, 0], best, atol=1e-5)


@pytest.mark.parametrize("horizon", [4, 6, 12])
@pytest.mark.parametrize("limit", [0.1, 0.7])
def test_interpolation_between_knots_at_the_limit_keeps_to_it(horizon: int, limit: float) -> None:
    """To the last bit."""
    ends = limit * np.ones(1)
    planner = Told(
        -ends, ends, 0 * ends, horizon=horizon, num_samples=(6,), num_knots=3, init_std=1.0
    )
    planner.told = torch.full((3, 1), 2.0)
    model = Drift()
    planner.plan(torch.zeros(1, 1), model, to_origin)
    assert all((actions <= torch.tensor(limit)).all() for actions in model.actions)


def test_warm_start_of_a_constant_plan_is_the_same_plan() -> None:
    """Shifting in time does not change what does not change."""
    plan, start = warm_start_after(torch.full((4,), 0.3), horizon=12)
    torch.testing.assert_close(start, plan)


@every_iterating_planner
def test_mean_is_a_candidate_of_every_iteration(planner_type: type[SamplingPlanner]) -> None:
    """The first iteration holds the last plan, shifted; the next one what the first has learnt."""
    planner, model, obs = make(planner_type), Drift(), torch.ones(1, 1)
    last = planner.plan(obs, Drift(), to_origin).actions
    means: list[Tensor] = []
    update = planner.update

    def spy(belief: Belief, knots: Tensor, costs: Tensor) -> tuple[Belief, Tensor]:
        means.append(belief.mean)
        return update(belief, knots, costs)

    planner.update = spy  # type: ignore[method-assign]
    planner.plan(obs, model, to_origin)
    torch.testing.assert_close(means[0], later(last), atol=1e-5, rtol=0)
    for mean, actions in zip(means, model.actions, strict=False):
        assert (actions - mean[:, None]).abs().amax((-1, -2)).min() < 1e-6
    torch.testing.assert_close(
        torch.tensor([a.shape[1] for a in model.actions[:3]]), torch.tensor(planner.num_samples)
    )


# --- the cross-entropy method --------------------------------------------------------------

COSTS = st.lists(st.floats(width=32, allow_nan=False) | st.just(math.inf), min_size=20, max_size=20)
FEW_COSTS = st.lists(st.sampled_from([-1.0, 0.0, 2.0, math.inf]), min_size=20, max_size=20)


@settings(deadline=None)
@given(COSTS | FEW_COSTS)
@example([math.inf] * 17 + [3.0, -1.0, 2.0])
def test_elites_are_the_true_best(costs: list[float]) -> None:
    """Known mistake 1: `argsort` gives no ranks. Under ties any of the tied may be elites."""
    costs = [math.inf if c == -math.inf else c for c in costs]
    planner = make(CEM, num_samples=(20,), num_elites=5, momentum=0.0, min_std=0.0)
    knots = torch.rand(1, 20, 6, 2, generator=torch.Generator().manual_seed(0))
    belief = Belief(torch.zeros(1, 6, 2), torch.ones(1, 6, 2))
    new, weights = planner.update(belief, knots, torch.tensor([costs]))
    finite = [c for c in costs if math.isfinite(c)]
    if not finite:
        return
    elites = [i for i, w in enumerate(weights[0].tolist()) if w]
    assert sorted(costs[i] for i in elites) == sorted(finite)[:5]
    assert len({*weights[0, elites].tolist()}) == 1
    np.testing.assert_allclose(new.mean[0], knots[0, elites].numpy().mean(0), atol=1e-5)
    np.testing.assert_allclose(new.std[0], knots[0, elites].numpy().std(0), atol=1e-5)


@settings(deadline=None)
@given(st.permutations([*range(17), math.nan, math.inf, -math.inf]))
def test_plan_is_the_mean_of_the_elites_that_were_rolled_out(costs: list[float]) -> None:
    """Known mistake 2: what was rolled out is what is refitted on, after the clamping."""
    planner, model = make(CEM, num_samples=(20,), num_elites=5, momentum=0.0, init_std=3.0), Drift()

    def cost(predicted: Tensor, actions: Tensor) -> Tensor:
        return torch.tensor([costs]) if actions.shape[1] == 20 else to_origin(predicted, actions)

    plan = planner.plan(torch.zeros(1, 1), model, cost)
    rolled_out = model.actions[0][0].numpy()
    elites = [i for i, c in enumerate(costs) if c in range(5)]
    np.testing.assert_allclose(plan.actions[0], rolled_out[elites].mean(0), atol=1e-5)
    np.testing.assert_allclose(plan.spread[0], rolled_out[elites].std(0), atol=1e-5)


def test_best_candidates_are_candidates_again() -> None:
    """The next iteration holds the kept ones, bit for bit."""
    planner, model = make(CEM, num_samples=(30, 30), num_kept=3), Drift()
    obs = torch.ones(1, 1)
    planner.plan(obs, model, to_origin)
    first, second = (a[0] for a in model.actions[:2])
    best = first[to_origin(Drift()(obs, first[None]), first[None])[0].argsort()[:3]]
    for candidate in best:
        assert (second == candidate).all((-1, -2)).any()


def test_momentum_and_floor() -> None:
    """Identical candidates: a quarter of the old belief stays, and at least the floor."""
    planner = make(CEM, momentum=0.25, min_std=0.1)
    knots = torch.full((1, 128, 6, 2), 0.6)
    old = Belief(torch.zeros(1, 6, 2), torch.tensor([1.0, 0.01]).expand(1, 6, 2))
    new, _ = planner.update(old, knots, torch.zeros(1, 128))
    torch.testing.assert_close(new.mean, torch.full((1, 6, 2), 0.75 * 0.6))
    torch.testing.assert_close(new.std, torch.tensor([0.25, 0.1 * 0.1]).expand(1, 6, 2))


# --- path integrals and random shooting ----------------------------------------------------


def weights_of(costs: Tensor, temperature: float = 0.5) -> Tensor:
    """The weights that MPPI gives to these costs."""
    zeros = torch.zeros(len(costs), 6, 2)
    planner = make(MPPI, temperature=temperature)
    return planner.update(Belief(zeros, zeros), torch.zeros(*costs.shape, 6, 2), costs)[1]


@settings(deadline=None)
@given(
    st.lists(st.integers(-1000, 1000) | st.just(math.inf), min_size=2, max_size=12),
    st.sampled_from([0.05, 0.5, 3.0]),
)
def test_weights_are_a_softmax(costs: list[float], temperature: float) -> None:
    """Of the costs over the temperature times their standard deviation; invalid ones weigh 0."""
    x = np.array(costs, dtype=float)
    finite = np.isfinite(x)
    if not finite.any():
        return
    scale = temperature * x[finite].std() or 1.0
    expected = np.exp(-(x - x[finite].min()) / scale)
    weights = weights_of(torch.tensor([costs], dtype=torch.float32), temperature)
    np.testing.assert_allclose(weights[0], expected / expected.sum(), atol=1e-6)


@pytest.mark.parametrize("shift", [-500.0, 1024.0])
@pytest.mark.parametrize("scale", [2.0**-10, 1.0, 2.0**60, 2.0**110])
def test_weights_change_neither_with_shift_nor_with_scale(shift: float, scale: float) -> None:
    """Up to costs near the largest float."""
    costs = torch.tensor([[3.0, 1.0, math.inf, -2.0, 1.0, 40.0]])
    torch.testing.assert_close(weights_of((costs + shift) * scale), weights_of(costs))


def test_equal_costs_weigh_the_same() -> None:
    """No division by their standard deviation of zero."""
    torch.testing.assert_close(weights_of(torch.full((2, 8), 7.0)), torch.full((2, 8), 1 / 8))


def test_path_integral_plan_is_the_weighted_mean_of_what_was_rolled_out() -> None:
    """Known mistake 2, for MPPI; the spread is weighted too."""
    planner, model, obs = make(MPPI, num_samples=(40,), init_std=3.0), Drift(), torch.ones(1, 1)
    plan = planner.plan(obs, model, to_origin)
    actions = model.actions[0].double()
    costs = to_origin(Drift()(obs, actions), actions)[0].numpy()
    weights = np.exp(-(costs - costs.min()) / (planner.temperature * costs.std()))  # type: ignore[attr-defined]
    weights /= weights.sum()
    mean = np.einsum("n,nhu->hu", weights, actions[0])
    variance = np.einsum("n,nhu->hu", weights, (actions[0].numpy() - mean) ** 2)
    np.testing.assert_allclose(plan.actions[0], mean, atol=1e-5)
    np.testing.assert_allclose(plan.spread[0], np.sqrt(variance), atol=1e-5)


def test_noise_decays_over_the_iterations() -> None:
    """By the stated factor of the stated fraction of half the range."""
    planner, model = make(MPPI, num_samples=(4000, 4000), init_std=0.1, decay=0.5), Drift()
    planner.plan(torch.zeros(1, 1), model, to_origin)
    first, second = (a[0].std(0).mean(0) for a in model.actions[:2])
    half = (torch.tensor(HIGH - LOW) / 2).float()
    torch.testing.assert_close(first, 0.1 * half, rtol=0.03, atol=0)
    torch.testing.assert_close(second, 0.05 * half, rtol=0.03, atol=0)


def test_random_shooting_takes_the_best_of_uniform_plans() -> None:
    """The quartiles are the uniform distribution's."""
    planner, model, obs = make(RandomShooting, num_samples=(4000,)), Drift(), torch.ones(1, 1)
    plan = planner.plan(obs, model, to_origin)
    actions = model.actions[0]
    best = to_origin(Drift()(obs, actions), actions)[0].argmin()
    assert torch.equal(plan.actions[0], actions[0, best])
    quantiles = np.quantile(actions[0, 1:].numpy(), [0.25, 0.5, 0.75], axis=(0, 1))
    expected = LOW + (HIGH - LOW) * np.array([[0.25], [0.5], [0.75]])
    assert (np.abs(quantiles - expected) < 0.02 * (HIGH - LOW)).all()


# --- a problem whose solution is known -----------------------------------------------------

A, B = np.array([[1.0, 0.2], [0.0, 1.0]]), np.array([[0.02], [0.2]])
Q, R, STEPS = np.diag([1.0, 0.1]), np.array([[0.05]]), 8


def riccati(state: np.ndarray) -> tuple[float, float]:
    """Least cost of the double integrator's next steps, and the first action that attains it."""
    p = np.zeros((2, 2))
    for _ in range(STEPS):
        m = Q + p
        gain = np.linalg.solve(R + B.T @ m @ B, B.T @ m @ A)
        p = A.T @ m @ (A - B @ gain)
    return float(state @ p @ state), float(-(gain @ state)[0])


def double_integrator(obs: Tensor, actions: Tensor) -> Tensor:
    """Position [m] and velocity [m/s] under a force."""
    a, b = torch.tensor(A.T).float(), torch.tensor(B.T).float()
    states, x = [], obs[:, None].expand(-1, actions.shape[1], -1)
    for t in range(actions.shape[2]):
        x = x @ a + actions[:, :, t] @ b
        states.append(x)
    return torch.stack(states, 2)


def quadratic(predicted: Tensor, actions: Tensor) -> Tensor:
    """The cost of the states after now, and of the actions."""
    states = (torch.tensor(np.diag(Q)).float() * predicted.square()).sum((-1, -2))
    return states + float(R[0, 0]) * actions.square().sum((-1, -2))


@pytest.mark.parametrize(
    "planner",
    [
        CEM(
            np.array([-3.0]),
            np.array([3.0]),
            np.zeros(1),
            horizon=STEPS,
            num_samples=(128,) * 12,
            num_knots=None,
        ),
        MPPI(
            np.array([-3.0]),
            np.array([3.0]),
            np.zeros(1),
            horizon=STEPS,
            num_samples=(128,) * 20,
            num_knots=None,
            decay=0.8,
        ),
    ],
    ids=["cem", "mppi"],
)
def test_linear_quadratic_problem(planner: SamplingPlanner) -> None:
    """Within a thousandth of the least cost, the first action within 0.06 (limits: 3)."""
    states = np.array([[0.5, 0.2], [-0.4, 0.3], [0.0, -0.6]])
    planner.reset(3)
    plan = planner.plan(torch.tensor(states).float(), double_integrator, quadratic)
    for i, state in enumerate(states):
        least, action = riccati(state)
        assert least * (1 - 1e-5) <= plan.cost[i].item() <= least * 1.001
        assert plan.action[i].item() == pytest.approx(action, abs=0.06)


@every_iterating_planner
def test_warm_starts_converge_with_the_default_samples(
    planner_type: type[SamplingPlanner],
) -> None:
    """At rest at the goal, the plan of a few ticks is to stay there."""
    limits = np.array([3.0])
    planner = planner_type(-limits, limits, np.array([2.0]), horizon=STEPS)  # type: ignore[call-arg]
    costs = [
        planner.plan(torch.zeros(1, 2), double_integrator, quadratic).cost.item() for _ in range(8)
    ]
    held = torch.full((1, 1, STEPS, 1), 2.0)
    safe = quadratic(double_integrator(torch.zeros(1, 2), held), held).item()
    assert costs[-1] < 0.01 * safe
