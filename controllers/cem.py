"""The cross-entropy method."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from controllers.base import Belief, Sampling, SamplingPlanner, moments

if TYPE_CHECKING:
    from typing_extensions import Unpack


class CEM(SamplingPlanner):
    """Cross-entropy method: refit a Gaussian to the best candidates.

    Source: Rubinstein 1999, "The Cross-Entropy Method for Combinatorial and Continuous
    Optimization"; smoothing as in Chua et al. 2018 (arXiv 1805.12114), kept elites as in Pinneri
    et al. 2020 (arXiv 2008.06389).
    """

    name: ClassVar[str] = "cem"
    defaults: ClassVar[Sampling] = {"num_samples": (128, 128, 128), "num_kept": 4}

    def __init__(
        self,
        low: np.ndarray,
        high: np.ndarray,
        safe_act: np.ndarray,
        *,
        num_elites: int = 16,
        momentum: float = 0.1,
        min_std: float = 0.02,
        **sampling: Unpack[Sampling],
    ) -> None:
        """Set the planner up.

        Args:
            low: lower action limits (u,).
            high: upper action limits (u,).
            safe_act: the action that does no harm (u,).
            num_elites: how many of the best candidates the Gaussian is refitted to; fewer where
                fewer have a finite cost.
            momentum: share of the old mean and standard deviation in the new ones, in [0, 1).
            min_std: floor of the standard deviation, as a fraction of half the action range.
            **sampling: see :class:`SamplingPlanner`.

        Raises:
            ValueError: an argument cannot be used.
        """
        super().__init__(low, high, safe_act, **(self.defaults | sampling))
        fewest = min(self.num_samples)
        if not 1 <= num_elites <= fewest:
            raise ValueError(f"num_elites is between 1 and {fewest}, not {num_elites}")
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
