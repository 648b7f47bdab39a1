"""The cross-entropy method."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from controllers.base import Belief, SamplingPlanner, moments


class CEM(SamplingPlanner):
    """Cross-entropy method: refit a Gaussian to the best candidates.

    Source: Rubinstein 1999, "The Cross-Entropy Method for Combinatorial and Continuous
    Optimization"; smoothing as in Chua et al. 2018 (arXiv 1805.12114), kept elites as in Pinneri
    et al. 2020 (arXiv 2008.06389).
    """

    name: ClassVar[str] = "cem"

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
        num_elites: int = 16,
        num_kept: int = 4,
        momentum: float = 0.1,
        min_std: float = 0.02,
        seed: int = 0,
    ) -> None:
        """Set the planner up.

        Args:
            low: lower action limits (u,).
            high: upper action limits (u,).
            safe_act: the action that does no harm (u,).
            horizon: length of a plan [control steps].
            num_samples: candidates per iteration.
            num_knots: knots of the spline; None for one per step.
            init_std: standard deviation of the first noise, as a fraction of half the action range.
            num_elites: how many of the best candidates the Gaussian is refitted to; fewer where
                fewer have a finite cost.
            num_kept: how many of them are candidates of the next iteration too.
            momentum: share of the old mean and standard deviation in the new ones, in [0, 1).
            min_std: floor of the standard deviation, as a fraction of half the action range.
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
            init_std=init_std,
            num_kept=num_kept,
            seed=seed,
        )
        if not 1 <= num_elites <= min(num_samples):
            raise ValueError(f"num_elites is between 1 and {min(num_samples)}, not {num_elites}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is in [0, 1), not {momentum}")
        self.num_elites = num_elites
        self.momentum = momentum
        self.min_std = min_std * (self.high - self.low) / 2

    def sample(self, belief: Belief, num: int) -> Float[Tensor, "r num k u"]:
        """Draw from the Gaussian."""
        return belief.mean[:, None] + belief.std[:, None] * self.noise(num)

    def update(
        self, belief: Belief, knots: Float[Tensor, "r n k u"], costs: Float[Tensor, "r n"]
    ) -> tuple[Belief, Float[Tensor, "r n"]]:
        """Refit the Gaussian to the elites, who all weigh the same."""
        best = costs.topk(self.num_elites, largest=False)
        weights = torch.zeros_like(costs).scatter(1, best.indices, best.values.isfinite().float())
        weights = weights / weights.sum(1, keepdim=True)
        mean, std = moments(knots, weights)
        mean = mean.lerp(belief.mean, self.momentum)
        std = std.lerp(belief.std, self.momentum).maximum(self.min_std)
        return Belief(mean, std), weights
