"""Change detection, histories that are cut, and several learners at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from controllers.auto import Auto
from controllers.committee import Committee, Curious
from controllers.ensemble import Ensemble
from controllers.history import History
from controllers.learned import LearnedModel
from controllers.mppi import MPPI
from controllers.robust import Robust
from controllers.surprise import Surprise
from mbmrl import registry
from mbmrl.adapters.base import Adapter
from mbmrl.dynamics import Affine, Dynamics, Params
from mbmrl.params import take, together
from mbmrl.types import CostFn, Plan, RolloutFn, Transitions
from tests.carts import driven, model

WINDOW = 12


def tick(truths: list[Dynamics], g: torch.Generator) -> Transitions:
    """What robots do, each from anywhere, that behave as ``truths`` predict but for some noise."""
    obs, act = (
        torch.randn(len(truths), 1, 2, generator=g),
        torch.randn(len(truths), 1, 1, generator=g),
    )
    after = [t.unroll(t.prior(), obs[r], act[r][None])[:, 0] for r, t in enumerate(truths)]
    noise = 0.01 * torch.randn(len(truths), 1, 2, generator=g)
    return Transitions(obs, act, torch.stack(after) + noise)


def said(dynamics: Dynamics, params: Params, robots: int) -> Tensor:
    x = torch.randn(robots, 4, 3, generator=torch.Generator().manual_seed(5))
    return dynamics.predict(params, x)


def of(data: Transitions, robot: int) -> Transitions:
    return Transitions(*(x[robot : robot + 1] for x in data))


# --- the cumulative sum --------------------------------------------------------------------------


def errors(count: int, seed: int, robots: int = 1) -> Tensor:
    """Mean squares of four normal residuals, as one-step errors are."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, robots, 4, generator=g).square().mean(-1)


@pytest.mark.parametrize("factor", [10.0, 100.0])
def test_a_jump_that_lasts_is_found_soon_and_dated(factor: float) -> None:
    surprise, late, dated = Surprise(), [], []
    for seed in range(40):
        surprise.reset()
        level = torch.ones(120, 1)
        level[80:] = factor
        found = [int(surprise.newest(e)) for e in errors(120, seed) * level]
        alarms = [t for t, newest in enumerate(found) if newest and t >= 80]
        assert alarms, "it was never found"
        late.append(alarms[0] - 80)
        dated.append(alarms[0] - found[alarms[0]] + 1 - 80)
    assert sorted(late)[20] <= 8 and max(late) <= 20
    assert abs(sorted(dated)[20]) <= 1


def test_nothing_happens_where_nothing_changes() -> None:
    """Fewer than one false alarm in a thousand ticks."""
    surprise = Surprise()
    alarms = sum(bool(surprise.newest(e).any()) for e in errors(10_000, 1))
    assert alarms < 10


def test_one_wild_error_is_no_change() -> None:
    surprise = Surprise()
    series = errors(60, 2)
    series[40] = 1e6
    assert not any(surprise.newest(e).any() for e in series)


def test_robots_are_watched_one_by_one() -> None:
    surprise = Surprise()
    series = errors(100, 3, robots=3)
    series[60:, 1] *= 100
    found = torch.stack([surprise.newest(e) for e in series]) > 0
    assert found.any(0).tolist() == [False, True, False]


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_errors_that_are_no_numbers_do_not_break_it(bad: float) -> None:
    surprise = Surprise()
    series = errors(80, 4)
    series[20] = bad
    series[60:] *= 100
    found = [bool(surprise.newest(e).any()) for e in series]
    assert any(found[60:]) and not any(found[:20])


# --- histories that are cut ----------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.names("adapters"))
def test_robots_whose_histories_differ_adapt_as_each_would_alone(name: str) -> None:
    prior = model()
    torch.manual_seed(1)
    adapter = registry.load("adapters", name)(prior).requires_grad_(False)
    history = History(WINDOW)
    for newest in driven([model(k) for k in (1, 2, 3, 4)], WINDOW + 2):
        history.append(newest)
    history.cut(1, 5)
    history.cut(3, 5)
    history.cut(2, 1)
    params = history.adapted(adapter, prior)
    whole = history.newest(WINDOW)
    for robot, length in enumerate((WINDOW, 5, 1, 5)):
        own = Transitions(*(x[:, -length:] for x in of(whole, robot)))
        alone = said(prior, adapter.adapt(prior, own), 4)
        torch.testing.assert_close(said(prior, params, 4)[robot], alone[robot])


def test_what_was_cut_grows_again_up_to_the_window() -> None:
    history = History(WINDOW)
    prior, seen = model(), []

    class Watching(Adapter):
        def adapt(self, prior: Dynamics, window: Transitions) -> Params:
            seen.append(window.act.shape[:2])
            return prior.prior()

    for k, newest in enumerate(driven([model(1), model(2)], 3 * WINDOW)):
        history.append(newest)
        if k == WINDOW:
            kept = history.cut(0, 2)
            assert kept.act.shape[:2] == (1, 2)
            assert torch.equal(kept.act[0, -1], newest.act[0, 0])
        seen.clear()
        history.adapted(Watching(), prior)
        full, cut = min(k + 1, WINDOW), min(k - WINDOW + 2, WINDOW)
        same = k < WINDOW or cut == full
        assert seen == ([(2, full)] if same else [(1, cut), (1, full)])


def test_parameters_are_picked_and_put_together_again() -> None:
    prior = model()
    window = [torch.cat(x, 1) for x in zip(*driven([model(k) for k in range(4)], 6), strict=True)]
    for name in ("maml", "bayes", "meta_sgd", "rls", "none"):
        adapter = registry.load("adapters", name)(prior).requires_grad_(False)
        params = adapter.adapt(prior, Transitions(*window))
        groups = [torch.tensor([3, 1]), torch.tensor([0]), torch.tensor([2])]
        again = together([(robots, take(params, robots)) for robots in groups])
        torch.testing.assert_close(said(prior, again, 4), said(prior, params, 4))
        two = take(params, torch.tensor([2, 0]))
        both = said(prior, two, 2)
        x = torch.randn(4, 4, 3, generator=torch.Generator().manual_seed(5))
        assert both.shape == (2, 4, 2)
        expected = prior.predict(params, torch.stack([x[0], x[1], x[0], x[1]]))
        assert expected.isfinite().all()


@pytest.mark.parametrize("name", ["bayes", "rls", "recurrent"])
def test_the_history_is_cut_where_the_robot_changes_and_for_that_robot_alone(name: str) -> None:
    """After the alarm θ′ is fitted to what came after the change, and to nothing before it."""
    prior, changed = model(), model()
    changed.biases[-1] += torch.tensor([6.0, -6.0])
    torch.manual_seed(1)
    adapter = registry.load("adapters", name)(prior).requires_grad_(False)
    learned = LearnedModel(prior, adapter, WINDOW, gate=False, cuts=True)
    g = torch.Generator().manual_seed(8)
    alarms: list[list[bool]] = []
    since = []
    for t in range(80):
        learned.rollout()
        newest = tick([prior, changed if t >= 40 else prior], g)
        learned.observe(newest)
        alarms.append(learned.info()["changed"].tolist())
        if t >= 40:
            since.append(newest)
        if alarms[-1][1]:
            break
    assert not any(one for one, _ in alarms) and not any(other for _, other in alarms[:40])
    assert alarms[-1][1] and len(since) < 12
    window = Transitions(*(torch.cat(x, 1) for x in zip(*since, strict=True)))
    expected = said(prior, adapter.adapt(prior, of(window, 1)), 2)[1]
    learned.rollout()
    torch.testing.assert_close(said(prior, learned._used[-1], 2)[1], expected)


# --- several learners ----------------------------------------------------------------------------


class Answer(Adapter):
    """θ′ is a given network, for every robot."""

    def __init__(self, target: Dynamics) -> None:
        super().__init__()
        self.target = target

    def adapt(self, prior: Dynamics, window: Transitions) -> Params:
        r = len(window.act)
        return [
            Affine(w.expand(r, -1, -1), b.expand(r, 1, -1))
            for w, b in zip(self.target.weights, self.target.biases, strict=True)
        ]


def test_each_robot_is_driven_by_the_learner_that_foresees_it() -> None:
    prior, first, second = model(), model(1), model(2)
    auto = Auto([LearnedModel(prior, Answer(m), WINDOW) for m in (first, second)])
    g = torch.Generator().manual_seed(7)
    obs, acts = torch.randn(3, 2, generator=g), torch.randn(3, 4, 5, 1, generator=g)
    truths = [second, first, second]
    auto.rollout()
    for newest in driven(truths, 12):
        auto.observe(newest)
        roll = auto.rollout()
    told = roll(obs, acts)
    assert auto.info()["learner"].tolist() == [1.0, 0.0, 1.0]
    for r, truth in enumerate(truths):
        expected = truth.rollout(truth.prior())(obs, acts)[r]
        torch.testing.assert_close(told[r], expected, atol=1e-5, rtol=1e-4)
    auto.reset()
    assert auto.info() == {}
    first_again = auto.rollout()(obs, acts)
    torch.testing.assert_close(first_again, prior.rollout(prior.prior())(obs, acts))


def test_learners_change_only_where_another_is_clearly_better() -> None:
    prior, truth = model(), model(1)
    off = [model(1) for _ in range(2)]
    for wrong, shift in zip(off, (0.1, 0.095), strict=True):
        wrong.biases[-1] += shift
    auto = Auto([LearnedModel(prior, Answer(m), WINDOW) for m in off])
    auto.rollout()
    for newest in driven([truth], 18):
        auto.observe(newest)
        auto.rollout()
    first, second = (model.doubt() for model in auto.models)
    assert first is not None and second is not None and second < first
    assert auto.info()["learner"].tolist() == [0.0]


def test_learners_that_nobody_judges_are_refused() -> None:
    with pytest.raises(ValueError, match="without a gate"):
        Auto([LearnedModel(model(), Answer(model(1)), WINDOW, gate=False)])


# --- ensembles -----------------------------------------------------------------------------------


class First:
    """A planner that says what the candidates cost it, and takes the first."""

    def __init__(self, acts: Tensor) -> None:
        self.acts, self.costs = acts, torch.zeros(0)

    def reset(self, num_robots: int = 1) -> None:
        pass

    def plan(self, obs: Tensor, rollout: RolloutFn, cost: CostFn) -> Plan:
        predicted = rollout(obs, self.acts)
        self.costs = cost(predicted, self.acts)
        actions = self.acts[:, 0]
        valid = torch.ones(len(obs), dtype=torch.bool)
        return Plan(actions[:, 0], actions, predicted[:, 0], self.costs[:, 0], actions, valid)


def speed_cost(future: Tensor, acts: Tensor) -> Tensor:
    return future[..., 0].mean(-1)


def candidates(robots: int) -> Tensor:
    return torch.randn(robots, 5, 4, 1, generator=torch.Generator().manual_seed(2))


def members(seeds: Sequence[int]) -> list[LearnedModel]:
    priors = [model(k) for k in seeds]
    made = [registry.load("adapters", "bayes")(p).requires_grad_(False) for p in priors]
    pairs = zip(priors, made, strict=True)
    return [LearnedModel(p, a, WINDOW, gate=False, cuts=True) for p, a in pairs]


def test_members_tell_the_future_by_turns_each_as_it_would_alone() -> None:
    obs, acts, truth = torch.randn(1, 2), candidates(1), model(7)
    together, alone = Ensemble(members([1, 2])), members([1, 2])
    for newest in driven([truth], WINDOW):
        for one in (together, *alone):
            one.rollout()
            one.observe(newest)
    first, second = (one.rollout()(obs, acts) for one in alone)
    assert not torch.allclose(first, second)
    told = together.rollout()
    for expected in (first, second, first):
        torch.testing.assert_close(told(obs, acts), expected)
    torch.testing.assert_close(together.rollout()(obs, acts), first)
    assert together.info().keys() == alone[0].info().keys()
    together.reset()
    prior = alone[0].dynamics.prior()
    expected = alone[0].dynamics.rollout(prior)(obs, acts)
    torch.testing.assert_close(together.rollout()(obs, acts), expected)


def test_what_one_member_alone_believes_does_not_survive_the_search() -> None:
    """One takes a push for a jump ahead that the other knows not to come: the plan keeps off it."""
    low, high, rest = -np.ones(1), np.ones(1), np.zeros(1)

    def plan(models: list[LearnedModel]) -> float:
        planner = MPPI(low, high, rest, horizon=4, num_samples=(64,) * 4, init_std=1.0)
        planner.reset()
        model = models[0] if len(models) == 1 else Ensemble(models)
        return float(planner.plan(torch.zeros(1, 2), model.rollout(), ahead_cost).actions.mean())

    def ahead_cost(future: Tensor, acts: Tensor) -> Tensor:
        return -future[..., 0].mean(-1)

    def believing(gain: float) -> LearnedModel:
        def roll(obs: Tensor, acts: Tensor) -> Tensor:
            ahead = gain * acts.clamp(min=0.5) + (0.8 - acts).abs().neg()
            return torch.cat([ahead, ahead], -1)

        one = members([1])[0]
        one.rollout = lambda: roll  # type: ignore[method-assign]
        return one

    fooled, right = believing(5.0), believing(-1.0)
    assert plan([fooled]) > 0.9 > plan([fooled, right]) > 0.3


def test_adapting_is_switched_off_and_on_again_for_all() -> None:
    obs, acts, truth = torch.randn(1, 2), candidates(1), model(7)
    for name in ("bayes", "rls"):
        adapter = registry.load("adapters", name)(model()).requires_grad_(False)
        several = Ensemble([LearnedModel(model(), adapter, WINDOW, gate=False) for _ in range(2)])
        prior = model().rollout(model().prior())(obs, acts)
        for newest in driven([truth], WINDOW):
            several.observe(newest)
        adapted = several.rollout()(obs, acts)
        several.switch(False)
        torch.testing.assert_close(several.rollout()(obs, acts), prior)
        several.switch(True)
        torch.testing.assert_close(several.rollout()(obs, acts), adapted)
        assert not torch.allclose(adapted, prior)


def committee(seeds: Sequence[int]) -> Committee:
    return Committee(members(seeds))


def test_an_ensemble_plans_for_the_mean_and_shuns_what_it_disagrees_about() -> None:
    obs, acts = torch.randn(2, 2), candidates(2)
    asked = committee([1, 2, 3])
    for pessimism in (0.0, 0.7):
        first = First(acts)
        Robust(first, asked.others, pessimism).plan(obs, asked.rollout(), speed_cost)
        each = torch.stack(
            [
                speed_cost(m.dynamics.rollout(m.dynamics.prior())(obs, acts), acts)
                for m in asked.models
            ]
        )
        expected = each.mean(0) + pessimism * each.std(0, correction=0)
        torch.testing.assert_close(first.costs, expected)


def test_a_member_that_foresees_no_number_rules_a_candidate_out() -> None:
    first, acts = First(candidates(1)), candidates(1)

    def broken(obs: Tensor, acts: Tensor) -> Tensor:
        future = model(2).rollout(model(2).prior())(obs, acts)
        future[:, 3] = torch.nan
        return future

    good = model(1).rollout(model(1).prior())
    Robust(first, lambda: [broken], 0.5).plan(torch.zeros(1, 2), good, speed_cost)
    assert first.costs.isfinite().tolist() == [[True, True, True, False, True]]
    assert acts.isfinite().all()


def test_curiosity_rises_at_a_change_and_fades() -> None:
    truth, changed = model(1), model(1)
    changed.biases[-1] += torch.tensor([6.0, -6.0])
    asked = committee([1, 2])
    g = torch.Generator().manual_seed(4)
    curious = []
    for t in range(80):
        asked.rollout()
        asked.observe(tick([truth, changed if t >= 40 else truth], g))
        assert asked.curiosity is not None
        curious.append(asked.curiosity.clone())
    told = torch.stack(curious)
    assert not told[:40].any() and not told[:, 0].any()
    top = int(told[:, 1].argmax())
    assert told[top, 1] == 1.0 and 40 <= top < 55
    assert (told[top + 1 : 75, 1] < told[top:74, 1]).all()
    asked.reset()
    assert asked.curiosity is None


def test_the_curious_prefer_what_their_models_differ_about_and_only_then() -> None:
    obs, acts = torch.zeros(2, 2), candidates(2)
    asked = committee([1, 2])
    first = First(acts)
    planner = Curious(first, asked, torch.ones(2), bonus=0.5)
    planner.reset(2)
    asked.curiosity = torch.zeros(2)
    planner.plan(obs, asked.rollout(), speed_cost)
    calm = first.costs
    asked.curiosity = torch.tensor([0.0, 1.0])
    planner.plan(obs, asked.rollout(), speed_cost)
    futures = torch.stack([m.dynamics.rollout(m.dynamics.prior())(obs, acts) for m in asked.models])
    apart = futures.std(0, correction=0).mean((-2, -1))
    torch.testing.assert_close(first.costs[0], calm[0])
    gained = calm[1] - first.costs[1]
    worth = (apart[1] / apart[1].mean()).clamp(max=3.0) * 0.5 * calm[1].std(correction=0)
    torch.testing.assert_close(gained, worth)
