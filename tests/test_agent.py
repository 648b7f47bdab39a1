"""The adapting model behind the planner: its window, its gate, and what survives an episode."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from controllers.agent import Agent, TrueModel
from controllers.learned import LearnedModel
from controllers.mppi import MPPI
from mbmrl import registry
from mbmrl.adapters.base import Adapter, Recursive, State
from mbmrl.adapters.none import NoAdapter
from mbmrl.dynamics import Affine, Dynamics, Params
from mbmrl.meta import HORIZON
from mbmrl.spec import Field, RobotSpec
from mbmrl.tasks import PathTask, SpeedTask
from mbmrl.types import CostFn, Plan, RolloutFn, Transitions
from tests.carts import SPEC, driven, model

WINDOW = 8
LONG = 12
"""Ticks after which the gate has judged often enough."""


def future(rollout: RolloutFn, robots: int, seed: int = 7) -> Tensor:
    """What a rollout says about some candidates, to tell models apart."""
    g = torch.Generator().manual_seed(seed)
    return rollout(torch.randn(robots, 2, generator=g), torch.randn(robots, 4, 5, 1, generator=g))


class Stub(Adapter):
    """θ′ is what the test says; it remembers the windows and the priors that it was given."""

    def __init__(self, answer: Callable[[Dynamics, Transitions], Params]) -> None:
        super().__init__()
        self.answer = answer
        self.windows: list[Transitions] = []
        self.priors: list[Dynamics] = []

    def adapt(self, prior: Dynamics, window: Transitions) -> Params:
        self.windows.append(Transitions(*(x.clone() for x in window)))
        self.priors.append(prior)
        return self.answer(prior, window)


def as_low_rank(prior: Dynamics, target: list[Dynamics]) -> Params:
    """Every robot's own target network, as low-rank additions and biases to the prior's."""
    layers = []
    for i, layer in enumerate(prior.prior()):
        weight = torch.stack([t.weights[i] - layer.weight for t in target])
        identity = torch.eye(weight.shape[1]).expand(len(target), -1, -1)
        bias = torch.stack([t.biases[i] for t in target])[:, None]
        layers.append(Affine(layer.weight, bias, identity, weight))
    return layers


def as_weights(prior: Dynamics, target: list[Dynamics]) -> Params:
    """The same as full weights per robot."""
    return [
        Affine(
            torch.stack([t.weights[i] for t in target]),
            torch.stack([t.biases[i] for t in target])[:, None],
        )
        for i in range(len(prior.weights))
    ]


both_forms = pytest.mark.parametrize("form", [as_low_rank, as_weights])


def observed(learned: LearnedModel, ticks: list[Transitions]) -> LearnedModel:
    """Drive through the ticks as the agent does: plan, then see what happened."""
    for tick in ticks:
        learned.rollout()
        learned.observe(tick)
    return learned


# --- the window ----------------------------------------------------------------------------------


def test_the_window_slides_with_the_newest_transitions_last() -> None:
    prior = model()
    stub = Stub(lambda p, w: p.prior())
    learned = LearnedModel(prior, stub, WINDOW, gate=False)
    ticks = driven([model(1), model(2)], WINDOW + 5)
    for seen, tick in enumerate(ticks, 1):
        learned.observe(tick)
        learned.rollout()
        expected = ticks[max(0, seen - WINDOW) : seen]
        assert stub.windows[-1].act.shape[1] == min(seen, WINDOW)
        for found, wanted in zip(stub.windows[-1], zip(*expected, strict=True), strict=True):
            assert torch.equal(found, torch.cat(wanted, 1))


class Counting(Recursive):
    """θ′ is the prior with the number of transitions so far in its last bias."""

    def begin(self, prior: Dynamics, batch: tuple[int, ...]) -> State:
        return (torch.zeros(*batch, 1, 1),)

    def step(self, prior: Dynamics, state: State, newest: Transitions) -> State:
        return (state[0] + 1,)

    def params(self, prior: Dynamics, state: State) -> Params:
        *body, last = prior.prior()
        return [*body, last.plus(state[0].expand(-1, -1, last.bias.shape[-1]))]


def test_a_recursive_adapter_remembers_more_than_the_window_until_a_reset() -> None:
    prior = model()
    learned = LearnedModel(prior, Counting(), WINDOW, gate=False)
    ticks = driven([model(1), model(2)], WINDOW + 5)

    def counted() -> Tensor:
        learned.rollout()
        return learned._used[-1][-1].bias[:, 0] - prior.biases[-1]

    for _ in range(2):
        learned.rollout()
        assert torch.equal(learned._used[-1][-1].bias, prior.biases[-1])
        for seen, tick in enumerate(ticks, 1):
            learned.observe(tick)
            torch.testing.assert_close(counted(), torch.full((2, 2), float(seen)))
        learned.reset()


@pytest.mark.parametrize("name", ["rls", "recurrent"])
def test_a_transition_that_is_no_number_is_forgotten_by_a_recursive_adapter(name: str) -> None:
    """Of its own robot; the other one learns from the same tick."""
    prior = model()
    ticks = driven([model(1), model(2)], 3)
    bad = ticks[1].next_obs.clone()
    bad[0] = torch.nan

    def weights_after(*seen: Transitions) -> list[Tensor]:
        learned = LearnedModel(prior, registry.load("adapters", name)(prior), WINDOW, gate=False)
        return [x for a in observed(learned, list(seen)).adapted() for x in a if x is not None]

    torch.manual_seed(0)
    spoilt = weights_after(ticks[0], ticks[1]._replace(next_obs=bad), ticks[2])
    torch.manual_seed(0)
    without = weights_after(ticks[0], ticks[2])
    torch.manual_seed(0)
    whole = weights_after(*ticks)
    for x, missed, known in zip(spoilt, without, whole, strict=True):
        if x.dim() == 3:
            torch.testing.assert_close(x[0], missed[0])
            torch.testing.assert_close(x[1], known[1])


def test_no_history_is_the_prior() -> None:
    prior = model()
    stub = Stub(lambda p, w: pytest.fail("there is nothing to adapt to"))
    learned = LearnedModel(prior, stub, WINDOW)
    torch.testing.assert_close(
        future(learned.rollout(), 2), future(prior.rollout(prior.prior()), 2)
    )
    assert learned.info() == {}


@pytest.mark.parametrize("name", registry.names("adapters"))
def test_known_mistake_5_nothing_survives_a_reset(name: str) -> None:
    """After a reset the model is as a new one, all the while that its window fills again."""
    prior = model()
    torch.manual_seed(0)
    adapter = registry.load("adapters", name)(prior)
    used, fresh = (LearnedModel(prior, adapter, WINDOW) for _ in range(2))
    observed(used, driven([model(1)], 2 * WINDOW))
    used.reset()
    assert len(used.history) == 0 and used.info() == {}
    for tick in driven([model(2)], WINDOW, seed=5):
        assert torch.equal(future(used.rollout(), 1), future(fresh.rollout(), 1))
        used.observe(tick)
        fresh.observe(tick)
        assert used.info().keys() == fresh.info().keys()
        for key, value in used.info().items():
            assert torch.equal(value, fresh.info()[key]), key


@pytest.mark.parametrize("name", registry.names("adapters"))
def test_never_cumulative(name: str) -> None:
    """Asked twice, it says the same; the prior is the same object with the same numbers."""
    prior = model()
    torch.manual_seed(0)
    adapter = registry.load("adapters", name)(prior)
    before = copy.deepcopy([prior.state_dict(), adapter.state_dict()])
    ticks = driven([model(1)], WINDOW)
    learned = observed(LearnedModel(prior, adapter, WINDOW, gate=False), ticks)
    first = future(learned.rollout(), 1)
    for _ in range(3):
        assert torch.equal(future(learned.rollout(), 1), first)
    at_once = LearnedModel(prior, adapter, WINDOW, gate=False)
    for tick in ticks:
        at_once.observe(tick)  # nothing was planned on the way
    assert torch.equal(future(at_once.rollout(), 1), first)
    for was, now in zip(before, (prior.state_dict(), adapter.state_dict()), strict=True):
        assert all(torch.equal(was[k], now[k]) for k in was)


def test_the_adapter_is_always_given_the_prior() -> None:
    prior, stub = model(), Stub(lambda p, w: as_low_rank(p, [model(1)]))
    observed(LearnedModel(prior, stub, WINDOW), driven([model(1)], 12))
    assert len(stub.priors) > 10 and all(p is prior for p in stub.priors)


@pytest.mark.parametrize("name", registry.names("adapters"))
def test_robots_side_by_side_are_robots_one_by_one(name: str) -> None:
    prior, truths = model(), [model(1), model(2), model(0)]
    torch.manual_seed(0)
    adapter = registry.load("adapters", name)(prior)
    ticks = driven(truths, WINDOW + 2)
    together = observed(LearnedModel(prior, adapter, WINDOW), ticks)
    said = future(together.rollout(), 3)
    g = torch.Generator().manual_seed(7)
    obs, acts = torch.randn(3, 2, generator=g), torch.randn(3, 4, 5, 1, generator=g)
    for r in range(3):
        own = [Transitions(*(x[r : r + 1] for x in t)) for t in ticks]
        alone = observed(LearnedModel(prior, adapter, WINDOW), own)
        torch.testing.assert_close(
            alone.rollout()(obs[r : r + 1], acts[r : r + 1])[0], said[r], atol=1e-4, rtol=1e-4
        )
        for key, value in together.info().items():
            torch.testing.assert_close(alone.info()[key][0], value[r], atol=1e-4, rtol=1e-3)


# --- the gate ------------------------------------------------------------------------------------


@both_forms
def test_the_gate_opens_for_each_robot_by_itself(
    form: Callable[[Dynamics, list[Dynamics]], Params],
) -> None:
    """θ′ is right for robot 0, wrong for robot 1 (the prior is right there), right for robot 2."""
    prior, right, wrong = model(), model(1), model(2)
    truths, answers = [right, prior, right], [right, wrong, right]
    stub = Stub(lambda p, w: form(p, answers))
    learned = observed(LearnedModel(prior, stub, WINDOW), driven(truths, LONG))
    said = future(learned.rollout(), 3)
    assert learned.info()["gate"].tolist() == [True, False, True]
    for r, used in enumerate([right, prior, right]):
        expected = future(used.rollout(used.prior()), 3)[r]
        torch.testing.assert_close(said[r], expected, atol=1e-5, rtol=1e-5)


@both_forms
def test_the_gate_shuts_on_a_model_that_is_no_number(
    form: Callable[[Dynamics, list[Dynamics]], Params],
) -> None:
    """A failed adaptation costs its own robot the adaptation, and nobody the plan."""
    prior, right, broken = model(), model(1), model(2)
    for p in broken.parameters():
        p.fill_(torch.nan)
    stub = Stub(lambda p, w: form(p, [broken, right]))
    learned = observed(LearnedModel(prior, stub, WINDOW), driven([right, right], LONG))
    said = future(learned.rollout(), 2)
    assert learned.info()["gate"].tolist() == [False, True]
    torch.testing.assert_close(said[0], future(prior.rollout(prior.prior()), 2)[0])
    torch.testing.assert_close(said[1], future(right.rollout(right.prior()), 2)[1])


def test_what_is_judged_was_fitted_without_what_it_is_judged_by() -> None:
    """Right about every window it has seen, and wrong about the tick after it: that is no use."""
    prior, truth, wrong = model(), model(1), model(2)
    wrong.biases[-1] += 5
    outcome: dict[bytes, Dynamics] = {}

    def answer(p: Dynamics, w: Transitions) -> Params:
        newest = w.act[:, -1].numpy().tobytes()
        return as_low_rank(p, [outcome.setdefault(newest, wrong)])

    stub = Stub(answer)
    learned = observed(LearnedModel(prior, stub, WINDOW), driven([truth], LONG))
    assert not learned.info()["gate"].item()
    assert len(stub.windows) == LONG - 1  # each tick fits once, the first one knows nothing yet
    newest = stub.windows[-1].act[:, -1]
    learned.rollout()
    assert torch.equal(stub.windows[-1].act[:, -2], newest)  # and what plans has seen all


def test_the_gate_does_not_shut_at_one_bad_judgement_but_at_several() -> None:
    prior = model()
    right, wrong = copy.deepcopy(prior), copy.deepcopy(prior)
    right.biases[-1] += 0.3
    wrong.biases[-1] -= 0.06
    answer = [right]
    stub = Stub(lambda p, w: as_low_rank(p, answer))
    learned = LearnedModel(prior, stub, WINDOW)
    gates = []
    for number, tick in enumerate(driven([right], WINDOW + 20)):
        learned.observe(tick)
        learned.rollout()
        answer[0] = right if number < WINDOW else wrong
        if number >= WINDOW:
            gates.append(learned.info()["gate"].item())
    assert gates[0] and gates[1]
    assert not gates[-1]
    assert gates == sorted(gates, reverse=True)


def test_the_gate_opens_within_five_ticks_of_a_change() -> None:
    """θ′ and θ* were alike until then, and θ′ knows the new dynamics two ticks after it."""
    prior, changed = model(), model()
    changed.biases[-1] += torch.tensor([0.8, -0.5])
    answer = [prior]
    learned = LearnedModel(prior, Stub(lambda p, w: as_low_rank(p, answer)), WINDOW)
    observed(learned, driven([prior], 3 * LONG))
    assert not learned.info()["gate"].item()
    gates = []
    for number, tick in enumerate(driven([changed], 5, seed=4)):
        answer[0] = changed if number > 1 else prior
        observed(learned, [tick])
        gates.append(learned.info()["gate"].item())
    assert gates == sorted(gates) and not gates[1] and gates[-1]


def test_the_gate_is_shut_until_something_was_foreseen() -> None:
    prior, right = model(), model(1)
    stub = Stub(lambda p, w: as_low_rank(p, [right]))
    learned, ticks = LearnedModel(prior, stub, WINDOW), driven([right], LONG)
    prior_says = future(prior.rollout(prior.prior()), 1)
    for seen in range(2):
        torch.testing.assert_close(future(learned.rollout(), 1), prior_says)
        learned.observe(ticks[seen])
    observed(learned, ticks[2:])
    torch.testing.assert_close(
        future(learned.rollout(), 1), future(right.rollout(right.prior()), 1)
    )


def test_without_a_gate_the_adapted_model_is_used_from_the_first_transition() -> None:
    prior, wrong = model(), model(2)
    stub = Stub(lambda p, w: as_low_rank(p, [wrong]))
    learned = observed(LearnedModel(prior, stub, WINDOW, gate=False), driven([prior], 1))
    torch.testing.assert_close(
        future(learned.rollout(), 1), future(wrong.rollout(wrong.prior()), 1)
    )
    assert "gate" not in learned.info()


@pytest.mark.parametrize("name", ["bayes", "rls", "maml", "maml_bayes"])
def test_adapting_pays_on_a_changed_robot(name: str) -> None:
    """The real adapters through the real gate: the robot's drift is learned within a window."""
    prior = model()
    changed = copy.deepcopy(prior)
    changed.biases[-1] += torch.tensor([0.8, -0.5])
    adapter = registry.load("adapters", name)(prior)
    learned = observed(LearnedModel(prior, adapter, 20), driven([changed], 20))
    truth = future(changed.rollout(changed.prior()), 1)
    error = (future(learned.rollout(), 1) - truth).abs().mean()
    unadapted = (future(prior.rollout(prior.prior()), 1) - truth).abs().mean()
    assert learned.info()["gate"].item()
    assert error < (0.9 if name == "maml" else 0.5) * unadapted
    info = learned.info()
    assert info["pred_error_adapted"].item() < info["pred_error_prior"].item()


# --- the figures ---------------------------------------------------------------------------------


def test_errors_are_those_of_the_models_that_were_in_use() -> None:
    """Of the θ′ that planned the tick, before it saw the tick's outcome."""
    prior, wrong, right = model(), model(2), model(1)
    in_use = [wrong]
    learned = LearnedModel(prior, Stub(lambda p, w: as_low_rank(p, in_use)), WINDOW, gate=False)
    first, second, third = driven([right], 3)
    learned.observe(first)
    assert learned.info() == {}  # nothing was predicted yet
    learned.rollout()
    in_use[0] = right  # too late for the second tick
    learned.observe(second)

    def error(params: Dynamics, tick: Transitions) -> float:
        x, y = prior.inputs(tick.obs, tick.act), prior.targets(tick)
        return (prior.predict(params.prior(), x) - y).square().mean().item()

    assert learned.info()["pred_error_adapted"].item() == pytest.approx(error(wrong, second))
    assert learned.info()["pred_error_prior"].item() == pytest.approx(error(prior, second))
    learned.rollout()
    learned.observe(third)
    assert learned.info()["pred_error_adapted"].item() == pytest.approx(0, abs=1e-9)


def test_open_loop_errors_are_those_of_the_model_that_was_in_use_when_the_stretch_began() -> None:
    prior, wrong, right = model(), model(2), model(1)
    in_use = [right]
    learned = LearnedModel(
        prior, Stub(lambda p, w: as_low_rank(p, in_use)), 2 * HORIZON, gate=False
    )
    learned.look_back()
    ticks = driven([right], HORIZON + 2)
    learned.observe(ticks[0])
    for number, tick in enumerate(ticks[1:], 1):
        learned.rollout()
        in_use[0] = wrong  # from the second plan on
        learned.observe(tick)
        info = learned.info()
        assert ("open_loop_error_adapted" in info) == (number >= HORIZON)
        if number == HORIZON:
            assert info["open_loop_error_adapted"].item() == pytest.approx(0, abs=1e-6)
            assert info["open_loop_error_prior"].item() > 0.01
    assert info["open_loop_error_adapted"].item() > 0.01


# --- the agent -----------------------------------------------------------------------------------


class Told:
    """A planner that remembers what it was told, and rests."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def reset(self, num_robots: int = 1) -> None:
        self.calls.append(num_robots)

    def plan(self, obs: Tensor, rollout: RolloutFn, cost: CostFn) -> Plan:
        self.calls.append(obs)
        r = len(obs)
        predicted = rollout(obs, torch.zeros(r, 1, 2, 1))
        return Plan(
            action=torch.zeros(r, 1),
            actions=torch.zeros(r, 2, 1),
            predicted=predicted[:, 0],
            cost=cost(predicted, torch.zeros(r, 1, 2, 1))[:, 0],
            spread=torch.zeros(r, 2, 1),
            valid=torch.ones(r, dtype=torch.bool),
        )


def agent(planner: Any = None) -> Agent:
    prior = model()
    learned = LearnedModel(prior, registry.load("adapters", "bayes")(prior), WINDOW)
    return Agent(learned, planner or Told(), SpeedTask(SPEC))


def test_it_plans_from_where_the_robot_will_be_when_the_plan_is_ready() -> None:
    """At a quarter of the period, a quarter of the step foreseen; the heading wrapped."""
    spec = RobotSpec(
        name="boat",
        dt=0.1,
        obs=(Field("x", "m"), Field("y", "m"), Field("yaw", "rad"), Field("v", "m/s")),
        act=(Field("f", "N", -1, 1),),
        pose=("x", "y", "yaw"),
    )
    step = torch.tensor([1.0, 2.0, 0.4 - 2 * torch.pi, 4.0])

    class Foresees(TrueModel):
        def rollout(self) -> RolloutFn:
            return lambda obs, acts: obs[:, None, None] + acts[..., :1] * step

    class Rests(Told):
        def plan(self, obs: Tensor, rollout: RolloutFn, cost: CostFn) -> Plan:
            return super().plan(obs, rollout, lambda p, a: a.sum((-1, -2)))

    told, now = Rests(), np.array([[0.0, 0.0, 3.0, 1.0]])
    driver = Agent(Foresees([]), told, PathTask(spec))
    driver.reset(now)
    driver.looks_ahead, driver.delay_s = True, 0.025
    driver.act(now)
    assert torch.equal(told.calls[-1], torch.tensor(now).float())  # nothing was sent yet
    assert 0 < driver.delay_s < 0.025
    driver.observe(now, np.array([[1.0]]), now)
    for delay, share in ((0.025, 0.25), (3.0, 1.0)):
        driver.delay_s = delay
        driver.act(now)
        expected = torch.tensor(now).float() + share * torch.tensor([1.0, 2.0, 0.4, 4.0])
        torch.testing.assert_close(told.calls[-1], expected)
    driver.looks_ahead = False
    driver.act(now)
    assert torch.equal(told.calls[-1], torch.tensor(now).float())


@pytest.mark.parametrize("shape", [(2,), (1, 2), (3, 2)], ids=str)
def test_one_robot_or_several(shape: tuple[int, ...]) -> None:
    """A robot's own vector, or a fleet's matrix: what comes in decides."""
    rng = np.random.default_rng(0)
    small = {"horizon": 4, "num_samples": (8,), "num_knots": 2}
    driver = agent(MPPI(SPEC.act_low, SPEC.act_high, SPEC.rest, **small))
    obs = rng.normal(size=shape)
    driver.reset(obs)
    robots = 1 if len(shape) == 1 else shape[0]
    expected: set[str] = {"adapt_s"}
    for _ in range(5):
        plan = driver.act(obs)
        assert plan.action.shape == (robots, 1)
        assert set(plan.info) == expected
        assert all(v.shape == (robots,) for v in plan.info.values())
        assert not plan.action.requires_grad
        act, after = rng.uniform(-1, 1, (*shape[:-1], 1)), obs + rng.normal(size=shape)
        driver.observe(obs, act, after)
        obs = after
        expected = {"adapt_s", "pred_error_prior", "pred_error_adapted", "gate"}


def test_an_agent_is_reset_as_a_whole() -> None:
    planner = Told()
    driver = agent(planner)
    obs = np.array([[0.1, 0.2], [0.3, 0.4]])
    driver.reset(obs)
    driver.act(obs)
    driver.observe(obs, np.zeros((2, 1)), obs)
    assert len(driver.model.history) == 1
    driver.reset(obs[:1])
    assert len(driver.model.history) == 0
    assert planner.calls[0] == 2 and planner.calls[-1] == 1


def test_the_window_holds_what_the_agent_was_told_was_sent() -> None:
    driver = agent()
    obs, sent, after = np.array([1.0, 2.0]), np.array([-0.25]), np.array([3.0, 4.0])
    driver.reset(obs)
    driver.observe(obs, sent, after)
    sent[:] = 9  # the driver's own array may be filled again
    kept = driver.model.history.newest(1)
    assert [x.flatten().tolist() for x in kept] == [[1.0, 2.0], [-0.25], [3.0, 4.0]]


def test_the_true_model_asks_each_robots_own_simulator() -> None:
    asked: list[np.ndarray] = []

    def simulator(offset: float) -> Callable[[np.ndarray], np.ndarray]:
        def roll(acts: np.ndarray) -> np.ndarray:
            asked.append(acts)
            return np.concatenate([acts + offset, acts - offset], -1)

        return roll

    truth = TrueModel([simulator(1.0), simulator(2.0)])
    acts = torch.arange(2 * 3 * 4.0).reshape(2, 3, 4, 1)
    said = truth.rollout()(torch.zeros(2, 2), acts)
    assert said.shape == (2, 3, 4, 2) and said.dtype == torch.float32
    torch.testing.assert_close(said[1, ..., :1], acts[1] + 2)
    assert all(a.dtype == np.float64 for a in asked)
    truth.observe(Transitions(*(torch.zeros(2, 1, k) for k in (2, 1, 2))))
    truth.reset()
    assert truth.info() == {}


def test_frozen_is_the_prior_whatever_happens() -> None:
    prior = model()
    frozen = observed(
        LearnedModel(prior, NoAdapter(prior), WINDOW, gate=False), driven([model(1)], 12)
    )
    torch.testing.assert_close(future(frozen.rollout(), 1), future(prior.rollout(prior.prior()), 1))
    info = frozen.info()
    assert torch.equal(info["pred_error_prior"], info["pred_error_adapted"])
