"""Random shooting."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from controllers.base import Belief, SamplingPlanner, moments


class RandomShooting(SamplingPlanner):
    """Random shooting: the best of many uniformly random plans.

    The baseline of the other planners, without memory: each call begins anew. Source: Nagabandi
    et al. 2017 (arXiv 1708.02596).
    """

    name: ClassVar[str] = "random"
    warm_start: ClassVar[bool] = False

    def __init__(
        self,
        low: np.ndarray,
        high: np.ndarray,
        safe_act: np.ndarray,
        *,
        horizon: int = 16,
        num_samples: tuple[int, ...] = (384,),
        num_knots: int | None = 4,
        seed: int = 0,
    ) -> None:
        """Set the planner up.

        Args:
            low: lower action limits (u,).
            high: upper action limits (u,).
            safe_act: the action that does no harm (u,); held, it is a candidate too.
            horizon: length of a plan [control steps].
            num_samples: candidates per iteration; one iteration does, a second one draws more.
            num_knots: knots of the spline; None for one per step.
            seed: of the random numbers.

        Raises:
            ValueError: an argument cannot be used.
        """
        super().__init__(
            low,
            high,
            safe_act,
            horizon=horizon,
            num_samples=num_samples,
            num_knots=num_knots,
            init_std=1.0,
            seed=seed,
        )

    def sample(self, belief: Belief, num: int) -> Float[Tensor, "r num k u"]:
        """Draw uniformly between the limits."""
        r, k, u = belief.mean.shape
        uniform = torch.rand(1, num, k, u, generator=self.generator)
        return (self.low + (self.high - self.low) * uniform).expand(r, -1, -1, -1)

    def update(
        self, belief: Belief, knots: Float[Tensor, "r n k u"], costs: Float[Tensor, "r n"]
    ) -> tuple[Belief, Float[Tensor, "r n"]]:
        """Take the best candidate."""
        weights = torch.zeros_like(costs).scatter(1, costs.argmin(1, keepdim=True), 1.0)
        return Belief(*moments(knots, weights)), weights
