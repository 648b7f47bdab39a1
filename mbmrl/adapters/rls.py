"""The last layer by recursive least squares with forgetting."""

from __future__ import annotations

from typing import ClassVar

import torch

from mbmrl.adapters.bayes import Bayes
from mbmrl.dynamics import Affine, Dynamics, Params
from mbmrl.types import Transitions


class Rls(Bayes):
    """The Bayesian last layer, recursively: one rank-one update a transition, with forgetting.

    Takes the prior, the features and the noise that ``bayes`` learned; forgetting stands in for
    its ageing of the noise. Transition by transition (Ljung 1999, eq. 11.13):
    gain = P φ / (λ + φᵀ P φ), w += gain · error, P = (P − gain φᵀ P) / λ.
    """

    name: ClassVar[str] = "rls"
    trained_as: ClassVar[str] = "bayes"
    forgetting: ClassVar[float] = 0.97

    def adapt(self, prior: Dynamics, window: Transitions) -> Params:
        """See :class:`Adapter`."""
        params = prior.prior()
        if window.act.shape[-2] == 0:
            return params
        last = params[-1]
        phi = prior.features(params, prior.inputs(window.obs, window.act))
        phi = torch.cat([phi, torch.ones_like(phi[..., :1])], -1)
        y = prior.targets(window)
        weight = torch.cat([last.weight, last.bias[None]]).expand(*y.shape[:-2], -1, -1)
        covariance = torch.diag(self.log_scale.exp() / self.log_noise.exp())
        covariance = covariance.expand(*y.shape[:-2], -1, -1)
        for row, target in zip(phi.unbind(-2), y.unbind(-2), strict=True):
            row, target = row[..., None], target[..., None, :]
            spread = covariance @ row
            gain = spread / (self.forgetting + row.mT @ spread)
            weight = weight + gain * (target - row.mT @ weight)
            covariance = (covariance - gain * spread.mT) / self.forgetting
        return [*params[:-1], Affine(weight[..., :-1, :], weight[..., -1:, :])]
