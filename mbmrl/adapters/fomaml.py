"""One gradient step, meta-trained to first order."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from mbmrl.adapters.maml import Maml
from mbmrl.dynamics import Dynamics, Params


class FirstOrder(Maml):
    """MAML whose meta-gradient takes the inner gradient for a constant (arXiv 1803.02999)."""

    name: ClassVar[str] = "fomaml"

    def gradient(
        self, prior: Dynamics, params: Params, x: Tensor, y: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """That of MAML, which no meta-gradient flows through."""
        inputs, errors = super().gradient(prior, params, x, y)
        return [i.detach() for i in inputs], [e.detach() for e in errors]
