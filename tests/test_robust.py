"""Planning for several things that a robot may be, and which these are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from controllers.cem import CEM
from controllers.robust import Robust
from mbmrl import conditions, registry
from mbmrl.compose import FAULTS, faults, make_agent
from mbmrl.types import Plan, RolloutFn
from robots.sim import SimRobot
from tests.dummy import SimPointMass

SIMULATED = [
    name for name in registry.names("robots") if issubclass(registry.load("robots", name), SimRobot)
]


def cart(gain: float) -> RolloutFn:
    """Where the actions lead that are so well obeyed."""
    return lambda obs, acts: obs[:, None, None] + gain * acts.cumsum(2)


def planned(*others: RolloutFn) -> Plan:
    """For one robot that is to be at 1 after a single step, and is obedient."""
    one = np.ones(1)
    cem = CEM(-one, one, 0 * one, horizon=1, num_knots=1, num_samples=(64,) * 6, min_std=0.001)
    planner = Robust(cem, lambda: others)
    planner.reset(1)

    def cost(obs: Tensor, acts: Tensor) -> Tensor:
        return (obs - 1).square().mean((-1, -2))

    return planner.plan(torch.zeros(1, 1), cart(1.0), cost)


def test_without_others_it_is_the_planner_itself() -> None:
    assert planned().action.item() == pytest.approx(1.0, abs=0.01)


def test_the_cost_is_the_mean_over_all_that_the_robot_may_be() -> None:
    """Of gains g the best action is Σ g / Σ g²: 0 for 1 and −1."""
    assert planned(cart(-1.0)).action.item() == pytest.approx(0.0, abs=0.01)
    gains = np.array([1.0, 0.5, -0.25])
    best = gains.sum() / (gains**2).sum()
    plan = planned(*(cart(g) for g in gains[1:]))
    assert plan.action.item() == pytest.approx(best, abs=0.01)
    assert plan.predicted.item() == pytest.approx(plan.action.item())  # by the first of them
    cost = np.mean((gains * best - 1) ** 2)
    assert plan.cost.item() == pytest.approx(cost, abs=0.01)


def test_what_breaks_one_of_them_is_never_chosen() -> None:
    def fragile(obs: Tensor, acts: Tensor) -> Tensor:
        return torch.where(acts > 0.3, math.nan, acts)

    plan = planned(fragile)
    assert plan.valid.all()
    assert 0.2 < plan.action.item() <= 0.3


@pytest.mark.parametrize("name", SIMULATED)
def test_faults_are_single_ones_of_the_training_range_each_elsewhere(name: str) -> None:
    robot = registry.load("robots", name)()
    found = faults(robot)
    assert len(found) == FAULTS
    assert found == faults(registry.load("robots", name)())
    singles = [fault for (fault,) in found]
    assert len({f.marked_bodies(robot) or (f.name,) for f in singles}) == FAULTS
    assert not any(f.held_out(robot) for f in singles)
    tested = {conditions.text(c) for c in conditions.test_suite(robot)}
    assert not tested & {conditions.text(c) for c in found}


def test_the_robust_agent_gives_up_speed_where_the_motor_may_be_reversed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reversed_ = (conditions.parse("damaged_joint:joint=rail,mode=reversed"),)
    monkeypatch.setattr("mbmrl.compose.faults", lambda robot: [reversed_])
    actions = {}
    for name in ("nominal", "robust", "oracle"):
        robot = SimPointMass(reversed_)
        robot.reset()
        agent = make_agent(name, [robot], None, [""])
        agent.reset(robot.read())
        actions[name] = agent.act(robot.read()).action.item()
    assert actions["nominal"] > 0.5
    assert actions["oracle"] < -0.5
    assert abs(actions["robust"]) < 0.2
