"""Model-predictive path integral control."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from controllers.base import Belief, Sampling, SamplingPlanner, moments

if TYPE_CHECKING:
    from typing_extensions import Unpack


class MPPI(SamplingPlanner):
    """Model-predictive path integral control: weigh every candidate by its cost.

    The weights are ``softmax(-cost / (temperature * std(cost)))``. In units of the standard
    deviation of the finite costs, one temperature serves every task: the weights change neither
    with the scale nor with the shift of the cost, nor as the costs shrink near the goal.

    Source: Williams et al. 2017 (arXiv 1707.02342), without its control-cost term; the noise that
    decays over the iterations is from DIAL-MPC, Xue et al. 2024 (arXiv 2409.15610).
    """

    name: ClassVar[str] = "mppi"
    defaults: ClassVar[Sampling] = {"horizon": 12, "num_samples": (96, 64, 48)}

    def __init__(
        self,
        low: np.ndarray,
        high: np.ndarray,
        safe_act: np.ndarray,
        *,
        temperature: float = 0.1,
        decay: float = 0.6,
        **sampling: Unpack[Sampling],
    ) -> None:
        """Set the planner up.

        Args:
            low: lower action limits (u,).
            high: upper action limits (u,).
            safe_act: the action that does no harm (u,).
            temperature: in standard deviations of the costs; small for the best candidate alone,
                large for the mean of all.
            decay: factor of the noise's standard deviation from iteration to iteration, in (0, 1].
            **sampling: see :class:`SamplingPlanner`.

        Raises:
            ValueError: an argument cannot be used.
        """
        super().__init__(low, high, safe_act, **(self.defaults | sampling))
        if not (temperature > 0 and 0 < decay <= 1):
            raise ValueError(f"temperature > 0 and decay in (0, 1], not {temperature} and {decay}")
        self.temperature = temperature
        self.decay = decay

    def sample(self, belief: Belief, num: int) -> Float[Tensor, "r num k u"]:
        """Perturb the mean."""
        return belief.mean[:, None] + belief.std[:, None] * self.noise(num)

    def update(
        self, belief: Belief, knots: Float[Tensor, "r n k u"], costs: Float[Tensor, "r n"]
    ) -> tuple[Belief, Float[Tensor, "r n"]]:
        """Average the candidates by their weights, and shrink the noise."""
        # Doubles, because the square of a large float cost may overflow.
        above = costs.double() - costs.amin(1, keepdim=True)
        finite = above.isfinite()
        count = finite.sum(1, keepdim=True)
        mean = above.where(finite, 0).sum(1, keepdim=True) / count
        variance = (above - mean).where(finite, 0).square().sum(1, keepdim=True) / count
        scale = self.temperature * variance.sqrt().clamp(min=torch.finfo(torch.float64).tiny)
        weights = torch.softmax(-above / scale, 1).float()
        return Belief(moments(knots, weights)[0], belief.std * self.decay), weights
