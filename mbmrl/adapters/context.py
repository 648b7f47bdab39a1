"""An encoder of the window whose context conditions the dynamics."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbmrl.adapters.blackbox import BlackBox, seen, width
from mbmrl.dynamics import Dynamics, Params
from mbmrl.types import Transitions

SIZE, HIDDEN = 16, 128
BACKWARD = 0.5
"""Weight of the loss of predicting backwards in time, beside the one of predicting forwards."""


class Context(BlackBox):
    """The context is the mean of what an encoder makes of each transition (CaDM, arXiv 2005.06800).

    A second network, needed in training only, predicts from the context what was before each
    transition of the query: a context that helps both ways tells of the dynamics, not of the state.
    Theirs reads a window of fixed length in one piece; a mean takes windows of any length.
    """

    name: ClassVar[str] = "context"

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__(dynamics, SIZE)
        inputs, targets = dynamics.input_mean.numel(), dynamics.target_mean.numel()
        self.encoder = nn.Sequential(
            nn.Linear(width(dynamics), HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, SIZE)
        )
        self.before = nn.Sequential(
            nn.Linear(inputs + SIZE, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, targets)
        )

    def adapt(self, prior: Dynamics, window: Transitions) -> Params:
        """See :class:`Adapter`."""
        if window.act.shape[-2] == 0:
            return prior.prior()
        return self.params_told(prior, self.encode(prior, window))

    def encode(self, prior: Dynamics, window: Transitions) -> Float[Tensor, "*b c"]:
        """The context of a window; of an empty one, zeros."""
        return self.encoder(seen(prior, window)).sum(-2) / max(1, window.act.shape[-2])

    def objective(
        self, prior: Dynamics, support: Transitions, query: Transitions
    ) -> Float[Tensor, ""]:
        """See :class:`Adapter`."""
        from mbmrl.meta import soft

        context = self.encode(prior, support)[..., None, :]
        after = prior.inputs(query.next_obs, query.act)
        known = torch.cat([after, context.expand(*after.shape[:-1], -1)], -1)
        backwards = soft(self.before(known) - prior.targets(query))
        return super().objective(prior, support, query) + BACKWARD * backwards
