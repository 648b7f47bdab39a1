"""Several priors: the likeliest on the window is where the gradient step begins."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbmrl.adapters.latent import Latent
from mbmrl.adapters.maml import BOUND
from mbmrl.dynamics import Dynamics, Params
from mbmrl.types import Transitions

COUNT = 8


class Priors(Latent):
    """Learned codes, each with the weight that the window gives it, then a gradient step.

    FAMLE (arXiv 2003.04663) trains an embedding for every training condition and takes the
    likeliest one; these share theirs among all conditions, and their mixture by likelihood can be
    learned end to end.
    """

    name: ClassVar[str] = "priors"
    corrects: ClassVar[bool] = False

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__(dynamics, steps=1)
        self.codes = nn.Parameter(0.5 * torch.randn(COUNT, self.size))
        self.log_sharpness = nn.Parameter(torch.zeros(()))

    def adapt(self, prior: Dynamics, window: Transitions) -> Params:
        """See :class:`Adapter`."""
        if window.act.shape[-2] == 0:
            return prior.prior()
        likeliest = self.likelihoods(prior, window).softmax(-1) @ self.codes
        return self.decode(prior, self.improved(prior, window, likeliest))

    def likelihoods(self, prior: Dynamics, window: Transitions) -> Float[Tensor, "*b k"]:
        """Of each prior on the window, as logarithms."""
        each = self.codes.reshape(COUNT, *(1,) * (window.act.dim() - 2), self.size)
        x = prior.inputs(window.obs, window.act)
        each = each.expand(COUNT, *x.shape[:-2], -1)
        said = prior.predict(self.decode(prior, each), x.expand(COUNT, *x.shape))
        errors = (said - prior.targets(window)).clamp(-BOUND, BOUND).square().mean(-1).sum(-1)
        return -self.log_sharpness.exp() * errors.movedim(0, -1)
