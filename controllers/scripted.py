"""Planners that look at no model: rest, babbling, scripts, and exploring around another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from controllers.base import Planner
from mbmrl.spec import RobotSpec
from mbmrl.types import CostFn, Plan, RolloutFn


class Rest:
    """The safe action, always: the agent ``zero``."""

    def __init__(self, spec: RobotSpec) -> None:
        self.action = torch.from_numpy(spec.rest).float()

    def reset(self, num_robots: int = 1) -> None:
        """Nothing to forget."""

    def plan(self, obs: Float[Tensor, "r o"], rollout: RolloutFn, cost: CostFn) -> Plan:
        """Rest."""
        return _just(obs, self.action.expand(len(obs), -1))


class Babble:
    """Random actions that a robot can follow, to learn its dynamics from.

    Each robot holds a random action for a while, with filtered noise on top; half of the held
    actions push all inputs the same way, since random ones seldom get a robot moving.

    Args:
        spec: of the robot.
        seed: of the random numbers.
        hold_s: mean time an action is held [s].
        noise: standard deviation of the filtered noise, as a fraction of half the action range.
    """

    def __init__(
        self, spec: RobotSpec, seed: int = 0, hold_s: float = 1.0, noise: float = 0.3
    ) -> None:
        self.low, self.high, self.rest = spec.act_low, spec.act_high, spec.rest
        self.rng = np.random.default_rng(seed)
        self.change, self.noise = spec.dt / hold_s, noise
        self.reset()

    def reset(self, num_robots: int = 1) -> None:
        """Start from rest."""
        self.held = np.tile(self.rest, (num_robots, 1))
        self.filtered = np.zeros_like(self.held)

    def plan(self, obs: Float[Tensor, "r o"], rollout: RolloutFn, cost: CostFn) -> Plan:
        """The next random action."""
        rng, (r, u) = self.rng, self.held.shape
        middle, half = (self.high + self.low) / 2, (self.high - self.low) / 2
        fresh = rng.uniform(-1, 1, (r, u))
        together = rng.uniform(-0.4, 1, (r, 1)) + 0.3 * fresh
        fresh = middle + half * np.where(rng.random((r, 1)) < 0.5, together, fresh)
        self.held = np.where(rng.random((r, 1)) < self.change, fresh, self.held)
        self.filtered += 0.4 * (rng.normal(0, 1, (r, u)) - self.filtered)
        action = np.clip(self.held + 2 * self.noise * half * self.filtered, self.low, self.high)
        return _just(obs, torch.from_numpy(action).float())


class Script:
    """What somebody's function says: a script, or an operator with a joystick.

    Args:
        spec: of the robot.
        function: time since the episode began [s] and observation → action.
    """

    def __init__(
        self, spec: RobotSpec, function: Callable[[float, np.ndarray], np.ndarray]
    ) -> None:
        self.spec, self.function = spec, function
        self.reset()

    def reset(self, num_robots: int = 1) -> None:
        """Start the clock anew."""
        self.ticks = 0

    def plan(self, obs: Float[Tensor, "r o"], rollout: RolloutFn, cost: CostFn) -> Plan:
        """Ask the function, for each robot."""
        time = self.ticks * self.spec.dt
        self.ticks += 1
        acts = np.array([self.function(time, row) for row in obs.double().numpy()], dtype=float)
        if acts.shape != (len(obs), self.spec.num_act):
            raise ValueError(
                f"the script gives {acts.shape[1:]} actions, {self.spec.name} takes "
                f"{self.spec.num_act}"
            )
        return _just(obs, torch.from_numpy(acts).float())


class Explore:
    """Another planner, with filtered noise on what it does: data around the driven states.

    Args:
        planner: the one that steers.
        spec: of the robot.
        seed: of the random numbers.
        noise: standard deviation, as a fraction of half the action range; robot i of r gets the
            share i / (r − 1) of it, so that clean and noisy runs lie side by side.
    """

    def __init__(
        self, planner: Planner, spec: RobotSpec, seed: int = 0, noise: float = 0.4
    ) -> None:
        self.planner, self.noise = planner, noise
        self.low, self.high = (torch.from_numpy(x).float() for x in (spec.act_low, spec.act_high))
        self.generator = torch.Generator().manual_seed(seed)
        self.filtered = torch.zeros(1, len(self.low))

    def reset(self, num_robots: int = 1) -> None:
        """Reset the planner and the noise."""
        self.planner.reset(num_robots)
        self.filtered = torch.zeros(num_robots, len(self.low))

    def plan(self, obs: Float[Tensor, "r o"], rollout: RolloutFn, cost: CostFn) -> Plan:
        """The planner's plan, its first action disturbed."""
        plan = self.planner.plan(obs, rollout, cost)
        fresh = torch.randn(self.filtered.shape, generator=self.generator)
        self.filtered = self.filtered + 0.5 * (fresh - self.filtered)
        share = torch.linspace(0, 1, len(obs))[:, None] * self.noise * (self.high - self.low)
        action = (plan.action + share * self.filtered).clamp(self.low, self.high)
        return replace(plan, action=action)


def _just(obs: Tensor, action: Tensor) -> Plan:
    r, u = action.shape
    return Plan(
        action=action,
        actions=action[:, None],
        predicted=obs[:, None],
        cost=torch.zeros(r),
        spread=torch.zeros(r, 1, u),
        valid=torch.ones(r, dtype=torch.bool),
    )
