"""An episodic memory of windows met in training, whose nearest give where to begin."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbmrl.adapters.blackbox import seen, width
from mbmrl.adapters.latent import Latent
from mbmrl.dynamics import Dynamics, Params
from mbmrl.types import Transitions

WINDOWS, LENGTH = 64, 16
"""How many windows it keeps, and how many transitions of each."""
EMBEDDING, HIDDEN = 32, 64


class Memory(Latent):
    """Attention over windows met before gives a code, from which the gradient step is taken.

    A window is embedded as the mean of what an encoder makes of its transitions; the memory's
    windows are weighed by their embeddings' likeness to this one's, as in matching networks (arXiv
    1606.04080). What each brings along is a code that is read off its embedding.
    """

    name: ClassVar[str] = "memory"
    corrects: ClassVar[bool] = False

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__(dynamics, steps=1)
        self.encoder = nn.Sequential(
            nn.Linear(width(dynamics), HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, EMBEDDING)
        )
        self.recall = nn.Linear(EMBEDDING, self.size, bias=False)
        self.register_buffer("kept", torch.zeros(WINDOWS, LENGTH, width(dynamics)))
        self.register_buffer("met", torch.zeros((), dtype=torch.long))
        self.kept: Tensor
        self.met: Tensor

    def adapt(self, prior: Dynamics, window: Transitions) -> Params:
        """See :class:`Adapter`."""
        if window.act.shape[-2] == 0:
            return prior.prior()
        code = self.recalled(seen(prior, window))
        return self.decode(prior, self.improved(prior, window, code))

    def recalled(self, rows: Float[Tensor, "*b m s"]) -> Float[Tensor, "*b z"]:
        """The code that windows like this one suggest; nought where none was met."""
        query = self.encoder(rows).mean(-2)
        keys = self.encoder(self.kept.clone()).mean(-2)  # it changes before the gradient is taken
        met = torch.arange(WINDOWS) < self.met
        likeness = (query @ keys.mT / EMBEDDING**0.5).masked_fill(~met, -1e9)
        return (likeness.softmax(-1) * met) @ self.recall(keys)

    def objective(
        self, prior: Dynamics, support: Transitions, query: Transitions
    ) -> Float[Tensor, ""]:
        """See :class:`Adapter`; the newest windows are kept afterwards, in place of the oldest."""
        loss = super().objective(prior, support, query)
        with torch.no_grad():
            rows = seen(prior, support)
            if rows.shape[-2] >= LENGTH:
                fresh = rows.flatten(0, -3)[:, -LENGTH:]
                self.kept.copy_(torch.cat([fresh, self.kept])[:WINDOWS])
                self.met.copy_((self.met + len(fresh)).clamp(max=WINDOWS))
        return loss
