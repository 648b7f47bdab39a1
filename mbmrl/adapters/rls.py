"""The last layer by recursive least squares with forgetting."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mbmrl.adapters.base import Recursive, State
from mbmrl.adapters.bayes import Bayes
from mbmrl.adapters.maml import BOUND
from mbmrl.dynamics import Affine, Dynamics, Params
from mbmrl.types import Transitions


class Rls(Recursive, Bayes):
    """The Bayesian last layer, recursively: O(d²) a transition, with forgetting.

    Takes the prior, the features and the noise that ``bayes`` learned; forgetting stands in for
    its ageing of the noise. What is forgotten goes back to the prior: from one transition to the
    next w ← w* + √λ (w − w*) and P ← λ P + (1 − λ) P*, which neither runs away where nothing new is
    seen, as P / λ does, nor loses what the prior knew. Then, as ever (Ljung 1999, eq. 11.13 with
    λ = 1), gain = P φ / (1 + φᵀ P φ), w += gain · error, P −= gain φᵀ P.
    """

    name: ClassVar[str] = "rls"
    trained_as: ClassVar[str] = "bayes"
    forgetting: ClassVar[float] = 0.97

    def begin(self, prior: Dynamics, batch: tuple[int, ...]) -> State:
        """The last layer (*b, d + 1, t), its bias last, and its covariance in units of noise."""
        weight, covariance = self._known(prior)
        return weight.expand(*batch, -1, -1), covariance.expand(*batch, -1, -1)

    def step(self, prior: Dynamics, state: State, newest: Transitions) -> State:
        """See :class:`Recursive`."""
        (weight, covariance), (known, doubt) = state, self._known(prior)
        weight = known + self.forgetting**0.5 * (weight - known)
        covariance = self.forgetting * covariance + (1 - self.forgetting) * doubt
        phi = prior.features(prior.prior(), prior.inputs(newest.obs, newest.act))
        row = torch.cat([phi, torch.ones_like(phi[..., :1])], -1).mT
        spread = covariance @ row
        gain = spread / (1 + row.mT @ spread)
        error = (prior.targets(newest) - row.mT @ weight).clamp(-BOUND, BOUND)
        return weight + gain * error, covariance - gain * spread.mT

    def params(self, prior: Dynamics, state: State) -> Params:
        """See :class:`Recursive`."""
        weight, _ = state
        return [*prior.prior()[:-1], Affine(weight[..., :-1, :], weight[..., -1:, :])]

    def _known(self, prior: Dynamics) -> tuple[Tensor, Tensor]:
        """What is known before anything was seen: w* and P*."""
        last = prior.prior()[-1]
        doubt = torch.diag(self.log_scale.exp() / self.log_noise.exp())
        return torch.cat([last.weight, last.bias[None]]), doubt
