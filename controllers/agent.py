"""The agent: a model of the robot as it is right now, and a planner that plans with it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from controllers.base import Planner
from mbmrl.adapters.base import Adapter, Recursive, State
from mbmrl.dynamics import Affine, Dynamics, Params, wrap
from mbmrl.engines.base import Engine
from mbmrl.engines.plain import Plain
from mbmrl.meta import HORIZON, normalised
from mbmrl.tasks import Task
from mbmrl.types import Plan, RolloutFn, Transitions

GATE_MEMORY = 0.8
"""Share of its record that the gate keeps from tick to tick: a model that comes and goes with every
noisy judgement is hard to plan with."""
GATE_MARGIN = 0.7
"""θ′ must foresee clearly better: where it is as good as θ*, θ* is the steadier one."""
DELAY_GAIN = 0.1
"""Weight of the newest decision in the running mean of what decisions take."""
WORST = 10.0
"""Normalised errors count so many deviations at most: a tumble must not outweigh an episode."""


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


class LearnedModel:
    """The dynamics model, adapted anew at every tick, always from the prior.

    A recursive adapter's state is kept from tick to tick; any other one reads the window.

    The gate: θ′ is used for a robot only where, fitted WITHOUT the newest transitions, it
    predicts these open loop clearly better than θ*, on the average over the last ticks.

    Args:
        dynamics: the prior θ*.
        adapter: window → θ′.
        window: length of the history m.
        held_back: how many of the newest transitions judge θ′; 0 switches the gate off.
        engine: rolls θ′ out; plain torch where none is given.

    Attributes:
        looks_back: whether :meth:`info` has the errors over the last :data:`HORIZON` steps too,
            which takes longer than adapting: for reports, not for a robot.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        adapter: Adapter,
        window: int = 32,
        held_back: int = 6,
        engine: Engine | None = None,
    ) -> None:
        self.dynamics, self.adapter = dynamics, adapter
        self.held_back, self.engine = held_back, engine or Plain()
        self.looks_back = False
        self.history: deque[Transitions] = deque(maxlen=window)
        self._info: dict[str, Tensor] = {}
        self._record: Tensor | None = None
        self._state: State | None = None
        self._used: deque[Params] = deque(maxlen=HORIZON)
        self._fitted: deque[Params] = deque(maxlen=held_back + 1)

    def reset(self) -> None:
        """Clear the window: nothing survives into the next episode, or over a gap."""
        self.history.clear()
        self._used.clear()
        self._fitted.clear()
        self._info, self._record, self._state = {}, None, None

    def observe(self, transition: Transitions) -> None:
        """Add to the window, and ask how well the transition was foreseen."""
        self.history.append(transition)
        self._info = self._foreseen()
        if isinstance(self.adapter, Recursive):
            self._remember(self.adapter, transition)

    @torch.no_grad()
    def _remember(self, adapter: Recursive, transition: Transitions) -> None:
        if self._state is None:
            self._state = adapter.begin(self.dynamics, (len(transition.act),))
        self._state = adapter.step(self.dynamics, self._state, transition)

    @torch.no_grad()
    def rollout(self) -> RolloutFn:
        """Adapt and roll out."""
        adapted = self._adapted()
        self._used.append(adapted)
        return self.engine.rollout(self.dynamics, adapted)

    def info(self) -> dict[str, Tensor]:
        """Errors of prior and adapted model on the newest transitions; the gate's state.

        One step ahead; where it looks back, open loop over the last steps with the model of then.
        """
        return self._info

    def _adapted(self) -> Params:
        prior = self.dynamics.prior()
        if not self.history:
            return prior
        if isinstance(self.adapter, Recursive) and self._state is not None:
            adapted = self.adapter.params(self.dynamics, self._state)
        else:
            adapted = self.adapter.adapt(self.dynamics, self._newest(len(self.history)))
        if not self.held_back:
            return adapted
        self._fitted.append(adapted)
        if len(self._fitted) <= self.held_back:
            return prior
        judged = self._fitted[0]  # all of the newest transitions came after it
        newest = self._newest(self.held_back)
        twice = Transitions(*(torch.cat([x, x]) for x in newest))
        errors = self._error(_and_prior(judged, prior), twice).unflatten(0, (2, -1))
        gate = self._info["gate"] = self._judge(errors.nan_to_num(WORST**2))
        return _gated(prior, adapted, gate)

    def _judge(self, errors: Float[Tensor, "2 r"]) -> Bool[Tensor, " r"]:
        """Whether the first model has erred less than the second lately, by a margin."""
        before = errors if self._record is None else self._record
        self._record = GATE_MEMORY * before + (1 - GATE_MEMORY) * errors
        return self._record[0] < GATE_MARGIN * self._record[1]

    def _error(self, params: Params, stretch: Transitions) -> Float[Tensor, " r"]:
        """Open loop from the first observation of a stretch to the end of it."""
        roll = self.engine.rollout(self.dynamics, params)
        future = roll(stretch.obs[:, 0], stretch.act[:, None])
        error = normalised(self.dynamics, future, stretch.next_obs[:, None])
        return _mean_square(error[:, 0])

    @torch.no_grad()
    def _foreseen(self) -> dict[str, Tensor]:
        if not self._used:
            return {}
        prior, newest = self.dynamics.prior(), self.history[-1]
        x, y = self.dynamics.inputs(newest.obs, newest.act), self.dynamics.targets(newest)
        both = _and_prior(self._used[-1], prior)
        said = self.dynamics.predict(both, torch.cat([x, x])).unflatten(0, (2, -1))
        adapted, unadapted = (_mean_square(s - y) for s in said)
        errors = {"pred_error_prior": unadapted, "pred_error_adapted": adapted}
        if self.looks_back and len(self.history) >= len(self._used) == HORIZON:
            stretch = self._newest(HORIZON)
            for which, params in (("prior", prior), ("adapted", self._used[0])):
                errors[f"open_loop_error_{which}"] = self._error(params, stretch)
        return errors

    def _newest(self, count: int) -> Transitions:
        parts = list(self.history)[-count:]
        return Transitions(*(torch.cat(xs, 1) for xs in zip(*parts, strict=True)))


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


def _mean_square(error: Float[Tensor, "r m t"]) -> Float[Tensor, " r"]:
    return error.clamp(-WORST, WORST).square().mean((-2, -1))


def _batch(x: np.ndarray) -> Float[Tensor, "r k"]:
    return torch.from_numpy(np.atleast_2d(x)).float()


def _and_prior(adapted: Params, prior: Params) -> Params:
    """θ′ of every robot, then θ* for each: one unroll of twice as many takes half as long."""

    def both(after: Tensor, before: Tensor) -> Tensor:
        return before if after is before else torch.cat([after, before.expand_as(after)])

    def one(after: Affine, before: Affine) -> Affine:
        weight, bias = both(after.weight, before.weight), both(after.bias, before.bias)
        if after.keys is None or after.values is None:
            return Affine(weight, bias)
        added = (torch.cat([x, torch.zeros_like(x)]) for x in (after.keys, after.values))
        return Affine(weight, bias, *added)

    return [one(a, b) for a, b in zip(adapted, prior, strict=True)]


def _gated(prior: Params, adapted: Params, gate: Bool[Tensor, " r"]) -> Params:
    """θ′ for the robots whose gate is open, θ* for the others."""
    open_ = gate[:, None, None]

    def pick(before: Tensor, after: Tensor) -> Tensor:
        # never a product with 0: where the gate is shut, θ′ may be no number at all
        return before if after is before else torch.where(open_, after, before)

    def one(before: Affine, after: Affine) -> Affine:
        weight, bias = pick(before.weight, after.weight), pick(before.bias, after.bias)
        if after.keys is None or after.values is None:
            return Affine(weight, bias)
        keys, values = (torch.where(open_, x, 0.0) for x in (after.keys, after.values))
        return Affine(weight, bias, keys, values)

    return [one(b, a) for b, a in zip(prior, adapted, strict=True)]
