"""The last layer by Bayesian linear regression, with meta-learned features, prior and noise."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbmrl.adapters.base import Adapter
from mbmrl.adapters.maml import BOUND
from mbmrl.dynamics import Affine, Dynamics, Params
from mbmrl.types import Transitions

FLOOR = 100.0
"""Least noise, in roundings of the window's prior variance: with less of it than numbers can tell
from none, the system has no Cholesky factor."""


class Bayes(Adapter):
    """Bayesian ridge on the last layer from the learned prior (ALPaCA, arXiv 1807.08912).

    The weights have the matrix-normal prior N(W*, S, Σ) and the targets the noise ν·Σ, so that
    all outputs share one system. S = diag(s) is learned per feature; ν is learned and grows with
    a transition's age. The posterior mean W* + S Φᵀ (Φ S Φᵀ + diag(ν))⁻¹ (Y − Φ W*) is a rank-m
    addition to the last layer.
    """

    name: ClassVar[str] = "bayes"

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__()
        features = dynamics.prior()[-1].weight.shape[0]
        self.log_scale = nn.Parameter(torch.full((features + 1,), -3.0))
        self.log_noise = nn.Parameter(torch.tensor(-1.0))
        self.log_ageing = nn.Parameter(torch.tensor(-3.0))

    def adapt(self, prior: Dynamics, window: Transitions) -> Params:
        """See :class:`Adapter`."""
        params = prior.prior()
        if window.act.shape[-2] == 0:
            return params
        x, y = prior.inputs(window.obs, window.act), prior.targets(window)
        phi = prior.features(params, x)
        return [*params[:-1], self.regress(params[-1], phi, y)]

    def regress(
        self, last: Affine, phi: Float[Tensor, "*b m d"], y: Float[Tensor, "*b m o"]
    ) -> Affine:
        """The posterior mean of the last layer; no numbers for a window that is none.

        Residuals count up to :data:`BOUND` deviations: one wild reading must not drown the others.
        """
        keys = phi * self.log_scale[:-1].exp()
        offset = self.log_scale[-1].exp()
        known = keys @ phi.mT + offset
        floor = FLOOR * torch.finfo(known.dtype).eps * known.diagonal(dim1=-2, dim2=-1).sum(-1)
        system = known + torch.diag_embed(self.noise(phi.shape[-2]) + floor[..., None])
        factor, failed = torch.linalg.cholesky_ex(system)
        residual = (y - last(phi)).clamp(-BOUND, BOUND)
        values = torch.cholesky_solve(residual, factor)
        values = values.masked_fill((failed != 0)[..., None, None], torch.nan)
        return last.plus(offset * values.sum(-2, keepdim=True), keys, values)

    def noise(self, m: int) -> Float[Tensor, " m"]:
        """Noise ν at each place of the window, oldest first."""
        age = torch.arange(m - 1, -1, -1, dtype=self.log_noise.dtype)
        return (self.log_noise + self.log_ageing.exp() * age).exp()
