"""Random shooting."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from controllers.base import Belief, Sampling, SamplingPlanner, moments

if TYPE_CHECKING:
    from typing_extensions import Unpack


class RandomShooting(SamplingPlanner):
    """Random shooting: the best of many uniformly random plans.

    The baseline of the other planners, without memory: each call begins anew. Source: Nagabandi
    et al. 2017 (arXiv 1708.02596).
    """

    name: ClassVar[str] = "random"
    warm_start: ClassVar[bool] = False
    defaults: ClassVar[Sampling] = {"num_samples": (384,), "init_std": 1.0}

    def __init__(
        self,
        low: np.ndarray,
        high: np.ndarray,
        safe_act: np.ndarray,
        **sampling: Unpack[Sampling],
    ) -> None:
        """Set the planner up.

        Args:
            low: lower action limits (u,).
            high: upper action limits (u,).
            safe_act: the action that does no harm (u,); held, it is a candidate too.
            **sampling: see :class:`SamplingPlanner`; of ``num_samples`` one iteration does, a
                second one draws more.

        Raises:
            ValueError: an argument cannot be used.
        """
        super().__init__(low, high, safe_act, **(self.defaults | sampling))

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
