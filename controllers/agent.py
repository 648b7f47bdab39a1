"""The agent: a model of the robot as it is right now, and a planner that plans with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from controllers.base import Planner
from mbmrl.dynamics import wrap
from mbmrl.tasks import Task
from mbmrl.types import Plan, RolloutFn, Transitions

DELAY_GAIN = 0.1
"""Weight of the newest decision in the running mean of what decisions take."""


@runtime_checkable
class Model(Protocol):
    """Whatever can say what the robot would do."""

    def reset(self) -> None:
        """Forget the robot's history."""

    def observe(self, transition: Transitions) -> None:
        """Take in what the robot just did, (r, 1) transitions."""

    def rollout(self) -> RolloutFn:
        """The robot's future as known now."""

    def info(self) -> dict[str, Tensor]:
        """Per-robot numbers for the log."""


class TrueModel:
    """The simulator itself as the model: the bound that no learned model passes.

    Args:
        rollouts: one for each robot, (n, h, u) actions → (n, h, o) observations.
    """

    def __init__(self, rollouts: Sequence[Callable[[np.ndarray], np.ndarray]]) -> None:
        self.rollouts = rollouts

    def reset(self) -> None:
        """Nothing to forget."""

    def observe(self, transition: Transitions) -> None:
        """Nothing to learn."""

    def rollout(self) -> RolloutFn:
        """Simulate every candidate."""

        def roll(obs: Tensor, acts: Tensor) -> Tensor:
            futures = [f(a) for f, a in zip(self.rollouts, acts.double().numpy(), strict=True)]
            return torch.from_numpy(np.stack(futures)).float()

        return roll

    def info(self) -> dict[str, Tensor]:
        """Nothing to tell."""
        return {}


class Agent:
    """A model and a planner, after one task, for one robot or several at once.

    Args:
        model: says what would happen.
        planner: chooses.
        task: says what is wanted.

    Attributes:
        looks_ahead: whether it plans from where the robot will be once the plan is ready, as the
            model foresees it under the action sent last. A simulation waits for its plan; a robot
            does not.
        delay_s: what a decision took lately [s].
    """

    def __init__(self, model: Model, planner: Planner, task: Task) -> None:
        self.model, self.planner, self.task = model, planner, task
        self.looks_ahead = False
        self.delay_s = 0.0
        self._sent: Tensor | None = None

    def reset(self, obs: Float[np.ndarray, "*r o"]) -> None:
        """Begin an episode: no history, no plan to warm-start from."""
        first = _batch(obs)
        self.forget(len(first))
        self.task.reset(first)

    def forget(self, num_robots: int = 1) -> None:
        """No history and no plan: what was before a gap says nothing about what comes after it."""
        self.model.reset()
        self.planner.reset(num_robots)
        self._sent = None

    def observe(
        self,
        obs: Float[np.ndarray, "*r o"],
        act: Float[np.ndarray, "*r u"],
        next_obs: Float[np.ndarray, "*r o"],
    ) -> None:
        """Learn from what the robot did under the action really sent."""
        self._sent = _batch(act)
        self.model.observe(Transitions(*(_batch(x)[:, None] for x in (obs, act, next_obs))))

    @torch.no_grad()
    def act(self, obs: Float[np.ndarray, "*r o"]) -> Plan:
        """θ* → θ′ → plan."""
        now = _batch(obs)
        self.task.observe(now)
        start = time.perf_counter()
        rollout = self.model.rollout()
        adapt_s = torch.full(now.shape[:1], time.perf_counter() - start)
        plan = self.planner.plan(self._ahead(now, rollout), rollout, self.task.cost)
        took = time.perf_counter() - start
        self.delay_s += (took - self.delay_s) * (DELAY_GAIN if self.delay_s else 1.0)
        return replace(plan, info={"adapt_s": adapt_s, **self.model.info()})

    def _ahead(self, now: Float[Tensor, "r o"], rollout: RolloutFn) -> Float[Tensor, "r o"]:
        """Where the robot will be once the plan is ready; ``now`` where nothing can be said."""
        if not self.looks_ahead or self._sent is None:
            return now
        share = min(1.0, self.delay_s / self.task.spec.dt)
        change = rollout(now, self._sent[:, None, None])[:, 0, 0] - now
        headings = self.task.spec.index(self.task.spec.pose[2:])
        change[:, headings] = wrap(change[:, headings])
        return now + share * change.nan_to_num(0.0, 0.0, 0.0)


def _batch(x: np.ndarray) -> Float[Tensor, "r k"]:
    return torch.from_numpy(np.atleast_2d(x)).float()
