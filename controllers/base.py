"""The planner contract, and the loop that every sampling planner shares.

Axes: r robots, n candidates, h horizon [control steps], k spline knots, o obs, u act.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple, Protocol, TypedDict, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mbmrl.types import CostFn, Plan, RolloutFn


@runtime_checkable
class Planner(Protocol):
    """Whatever turns observations, a model and a cost into plans."""

    def reset(self, num_robots: int = 1) -> None:
        """Forget the past: the next call to :meth:`plan` begins an episode of r robots."""

    def plan(self, obs: Float[Tensor, "r o"], rollout: RolloutFn, cost: CostFn) -> Plan:
        """Plan from ``obs`` with the model ``rollout`` to make ``cost`` small."""


class Belief(NamedTuple):
    """Where good plans are thought to lie, in knots, in the units of the actions."""

    mean: Float[Tensor, "r k u"]
    std: Float[Tensor, "r k u"]


def moments(
    x: Float[Tensor, "r n t u"], weights: Float[Tensor, "r n"]
) -> tuple[Float[Tensor, "r t u"], Float[Tensor, "r t u"]]:
    """Mean and standard deviation over the candidates, whose weights sum to one."""
    w = weights[:, :, None, None]
    mean = (w * x).sum(1)
    return mean, (w * (x - mean[:, None]).square()).sum(1).sqrt()


def coloured(white: Float[Tensor, "*b k u"], beta: float) -> Float[Tensor, "*b k u"]:
    """White noise along k, filtered to a power that falls with frequency^−beta; unit variance.

    The constant part counts as the lowest frequency. Source: Timmer & König 1995, "On generating
    power law noise", as in Pinneri et al. 2020 (arXiv 2008.06389).
    """
    k = white.shape[-2]
    frequency = torch.fft.rfftfreq(k).clamp(min=1 / k)
    gain = frequency ** (-beta / 2)
    twice = torch.full_like(gain, 2.0)  # every frequency but the first, and the last of an even k
    twice[0] = 1.0
    if k % 2 == 0:
        twice[-1] = 1.0
    gain = gain / ((twice * gain.square()).sum() / k).sqrt()
    return torch.fft.irfft(torch.fft.rfft(white, dim=-2) * gain[:, None], n=k, dim=-2)


class Sampling(TypedDict, total=False):
    """What every sampling planner can be told, see :class:`SamplingPlanner`."""

    horizon: int
    num_samples: tuple[int, ...]
    num_knots: int | None
    init_std: float
    num_kept: int
    num_carried: int
    noise_beta: float
    max_change: np.ndarray | None
    execute: Literal["mean", "best"]
    seed: int


class SamplingPlanner(ABC):
    """Draw candidate plans, roll them out, move towards the good ones, a few times over.

    A subclass writes :meth:`sample` and :meth:`update` only. A plan is a linear spline of k knots
    over h steps; the knots are clamped to the action limits before anything else, so what is
    rolled out, what is refitted on and what is executed are the same actions, all within limits.
    The current mean is always a candidate; at the start of a call it is the previous plan one
    control period later, or the safe action after :meth:`reset`. What is executed is the last
    mean, unless asked for the best candidate, which owes most to the errors of the model.

    The random numbers are drawn once for all robots of a batch (common random numbers), so a
    robot's plan does not depend on who else is in the batch.

    Where the cost of a candidate is not finite, the candidate is never chosen. Where an iteration
    leaves a robot without a candidate, or its final plan has no finite cost, it falls back to its
    previous plan one control period later; if that was a fallback itself, or there is none, to the
    safe action. Such a robot's plan has ``valid=False``.
    """

    name: ClassVar[str]
    warm_start: ClassVar[bool] = True

    def __init__(
        self,
        low: np.ndarray,
        high: np.ndarray,
        safe_act: np.ndarray,
        *,
        horizon: int = 16,
        num_samples: tuple[int, ...] = (128, 128, 128),
        num_knots: int | None = 4,
        init_std: float = 0.5,
        num_kept: int = 0,
        num_carried: int = 0,
        noise_beta: float = 0.0,
        max_change: np.ndarray | None = None,
        execute: Literal["mean", "best"] = "mean",
        seed: int = 0,
    ) -> None:
        """Set the planner up.

        Args:
            low: lower action limits (u,).
            high: upper action limits (u,).
            safe_act: the action that does no harm (u,), within the limits.
            horizon: length of a plan [control steps].
            num_samples: candidates per iteration, one entry an iteration; they include the mean and
                the kept ones.
            num_knots: knots of the spline; None for one per step.
            init_std: standard deviation of the first noise, as a fraction of half the action range.
            num_kept: best candidates of an iteration that are candidates of the next one too.
            num_carried: how many of them, one control period later, the next call begins with.
            noise_beta: the noise's power falls with frequency^−β from knot to knot: 0 for white.
            max_change: largest change of each action from one control step to the next (u,), also
                from the action executed before; None for no limit.
            execute: the last mean, or the best candidate of the last iteration if that costs less.
            seed: of the planner's own random numbers; :meth:`reset` begins them anew.

        Raises:
            ValueError: the limits, ``safe_act``, ``num_knots`` or ``num_samples`` cannot be used.
        """
        num_knots = horizon if num_knots is None else num_knots
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
            raise ValueError(f"action limits are finite and low < high, not {low} and {high}")
        if not ((low <= safe_act) & (safe_act <= high)).all():
            raise ValueError(f"safe_act {safe_act} is outside the limits {low} and {high}")
        if not 1 <= num_knots <= horizon:
            raise ValueError(f"num_knots is between 1 and horizon = {horizon}, not {num_knots}")
        if not 0 <= num_carried <= num_kept:
            raise ValueError(f"num_carried is between 0 and num_kept = {num_kept}")
        if not num_samples or min(num_samples) < num_kept + 2:
            raise ValueError(f"num_samples is {num_kept + 2} or more each, not {num_samples}")
        if max_change is not None and not (np.asarray(max_change) > 0).all():
            raise ValueError(f"max_change is positive, not {max_change}")
        self.low, self.high, self.safe = (
            torch.as_tensor(a, dtype=torch.float32) for a in (low, high, safe_act)
        )
        self.horizon = horizon
        self.num_samples = num_samples
        self.num_kept, self.num_carried = num_kept, num_carried
        self.noise_beta = noise_beta
        self.execute = execute
        self.seed = seed
        self.generator = torch.Generator()
        self._init_std = init_std * (self.high - self.low) / 2

        # Hat functions at evenly spaced knots: row t interpolates the action of step t.
        at = torch.arange(horizon, dtype=torch.float64) * (num_knots - 1) / max(horizon - 1, 1)
        basis = (1 - (at[:, None] - torch.arange(num_knots)).abs()).clamp(min=0)
        later = torch.cat([basis[1:], basis[-1:]])
        self._basis = basis.float()
        self._shift = (torch.linalg.pinv(basis) @ later).float()
        self._changes: list[Tensor] = []
        if max_change is not None:
            change = torch.as_tensor(max_change).float()
            spacing = (horizon - 1) / max(num_knots - 1, 1)  # [steps]
            self._changes = [change, *[change * spacing] * (num_knots - 1)]
        self.reset()

    @abstractmethod
    def sample(self, belief: Belief, num: int) -> Float[Tensor, "r num k u"]:
        """Draw ``num`` candidates from :attr:`generator`; they need not be within the limits."""

    @abstractmethod
    def update(
        self, belief: Belief, knots: Float[Tensor, "r n k u"], costs: Float[Tensor, "r n"]
    ) -> tuple[Belief, Float[Tensor, "r n"]]:
        """Move the belief towards the cheap candidates.

        Args:
            belief: what the candidates were drawn from.
            knots: the candidates that were rolled out.
            costs: theirs; +inf, and never NaN or -inf, for one that must not be chosen. Where all
                of a robot's are +inf, whatever is returned for it is ignored, NaN included.

        Returns:
            The new belief, and each candidate's weight in it (they sum to one for each robot).
        """

    def reset(self, num_robots: int = 1) -> None:
        """Forget the previous plan and begin the random numbers anew, for r robots."""
        self.generator.manual_seed(self.seed)
        self._last = self.safe.expand(num_robots, self._basis.shape[1], -1)
        self._sent = self.safe.expand(num_robots, 1, -1)
        self._carried = self._last[:, None][:, :0]
        self._was_valid = torch.zeros(num_robots, dtype=torch.bool)

    @torch.no_grad()
    def plan(self, obs: Float[Tensor, "r o"], rollout: RolloutFn, cost: CostFn) -> Plan:
        """Plan for every robot at once.

        Args:
            obs: each robot's observation now.
            rollout: the model; each robot may have its own.
            cost: of the candidates; lower is better.

        Returns:
            The plan, in the units of the actions. Where it is a fallback, ``valid`` is False,
            ``predicted`` and ``cost`` are the fallback's (the cost may be +inf), ``spread`` is 0.

        Raises:
            ValueError: ``obs`` holds another number of robots than :meth:`reset` was told.
        """
        if len(obs) != len(self._last):
            raise ValueError(f"reset({len(obs)}) first: this planner plans for {len(self._last)}")

        def evaluate(
            knots: Float[Tensor, "r n k u"],
        ) -> tuple[Float[Tensor, "r n h u"], Float[Tensor, "r n h o"], Float[Tensor, "r n"]]:
            actions = self._actions(knots)
            predicted = rollout(obs, actions)
            costs = cost(predicted, actions).float()
            return actions, predicted, torch.where(costs.isfinite(), costs, torch.inf)

        shifted = (self._shift @ self._last).clamp(self.low, self.high)
        fallback = torch.where(self._was_valid[:, None, None], shifted, self.safe)
        start = shifted if self.warm_start else self.safe.expand_as(shifted)
        belief = Belief(start, self._init_std.expand_as(start))
        kept = self._shift @ self._carried
        valid = torch.ones(len(obs), dtype=torch.bool)
        for num in self.num_samples:
            fresh = self.sample(belief, num - 1 - kept.shape[1])
            knots = self._limited(torch.cat([belief.mean[:, None], kept, fresh], 1))
            actions, _, costs = evaluate(knots)
            some = costs.isfinite().any(1)
            new, weights = self.update(belief, knots, costs)
            belief = Belief(
                *(torch.where(some[:, None, None], *pair) for pair in zip(new, belief, strict=True))
            )
            best = costs.topk(max(self.num_kept, 1), largest=False).indices
            ranked = knots.take_along_dim(best[:, :, None, None], 1)
            kept = ranked[:, : self.num_kept]
            valid = valid & some
        spread = moments(actions, weights)[1]
        self._carried = kept[:, : self.num_carried]

        # The fallback is rolled out beside the rest, so that `predicted` fits what is executed.
        answers = (
            [belief.mean, ranked[:, 0], fallback]
            if self.execute == "best"
            else [belief.mean, fallback]
        )
        knots = torch.stack(answers, 1)
        actions, predicted, costs = evaluate(knots)
        least, which = costs[:, :-1].min(1)
        valid = valid & least.isfinite()
        chosen = torch.arange(len(obs)), torch.where(valid, which, len(answers) - 1)
        self._last, self._was_valid = knots[chosen], valid
        self._sent = actions[chosen][:, :1]
        return Plan(
            action=actions[chosen][:, 0],
            actions=actions[chosen],
            predicted=predicted[chosen],
            cost=costs[chosen],
            spread=torch.where(valid[:, None, None], spread, 0.0),
            valid=valid,
        )

    def candidates(self, num: int) -> Float[Tensor, "r num h u"]:
        """Plans such as a call tries first: its widest noise around what was planned last."""
        around = Belief(self._last, self._init_std.expand_as(self._last))
        return self._actions(self._limited(self.sample(around, num)))

    def noise(self, num: int) -> Float[Tensor, "1 num k u"]:
        """Knots of unit variance, the same for all robots; coloured where that was asked for."""
        white = torch.randn(1, num, *self._last.shape[1:], generator=self.generator)
        return coloured(white, self.noise_beta) if self.noise_beta else white

    def _actions(self, knots: Float[Tensor, "r n k u"]) -> Float[Tensor, "r n h u"]:
        """Interpolate; that keeps to the limits but for its last bit, which the clamp removes."""
        actions = torch.einsum("hk,rnku->rnhu", self._basis, knots)  # ten times as fast as @
        return actions.clamp(self.low, self.high)

    def _limited(self, knots: Float[Tensor, "r n k u"]) -> Float[Tensor, "r n k u"]:
        """Within the action limits, and changing no faster than the actions may."""
        knots = knots.clamp(self.low, self.high)
        if not self._changes:
            return knots
        before, limited = self._sent, []
        for knot, change in zip(knots.unbind(2), self._changes, strict=True):
            before = knot.clamp(before - change, before + change)
            limited.append(before)
        return torch.stack(limited, 2)
