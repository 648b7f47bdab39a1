"""Gradient steps from a prior that lies near what every condition's own training leads to."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mbmrl.adapters.maml import Maml
from mbmrl.dynamics import Dynamics
from mbmrl.types import Transitions


class Reptile(Maml):
    """Three SGD steps, and a prior that moves to where they lead (Reptile, arXiv 1803.02999).

    There is no meta-gradient: the prior follows θ* − θ′ (their algorithm 2), θ′ being three steps
    on the whole of a condition's window. The rate is given and not learned.
    """

    name: ClassVar[str] = "reptile"

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__(dynamics, "scalar", steps=3)
        self.log_rate.requires_grad_(False)

    def objective(
        self, prior: Dynamics, support: Transitions, query: Transitions
    ) -> Float[Tensor, ""]:
        """The loss of θ′, whose gradient is the mean of θ* − θ′ instead of its own."""
        whole = Transitions(*(torch.cat(x, -2) for x in zip(support, query, strict=True)))
        with torch.no_grad():
            loss = super().objective(prior, support, query)
            adapted = [layer.merged() for layer in self.adapt(prior, whole)]
        pull = loss.new_zeros(())
        for before, after in zip(prior.prior(), adapted, strict=True):
            away = before.weight.detach() - after.weight
            pull = pull + (before.weight * away.flatten(0, -3).mean(0)).sum()
            away = before.bias.detach() - after.bias
            pull = pull + (before.bias * away.flatten(0, -2).mean(0)).sum()
        return loss + pull - pull.detach()
