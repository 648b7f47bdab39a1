"""Gradient steps in a low-dimensional code that modulates all layers."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbmrl.adapters.base import Adapter
from mbmrl.adapters.maml import backward
from mbmrl.dynamics import Dynamics, Params
from mbmrl.types import Transitions

REACH = 10.0
"""Codes lie within this distance of nought, each number of them."""


class Latent(Adapter):
    """Gradient steps of a code z, decoded to W + U diag(z) V and b + z B in every layer.

    The idea of LEO (arXiv 1807.05960), adapting where there are few numbers to adapt, with a
    decoder that is linear in z, so that its gradient is exact and the addition has z's rank:
    ∂L/∂z = Σ over layers and window of (x Uᵀ) ∘ (e Vᵀ) + e Bᵀ, for inputs x and errors e. In L a
    transition counts the less, the older it is; how much less is learned.

    Args:
        dynamics: gives the sizes.
        size: of the code.
        steps: how many.
    """

    name: ClassVar[str] = "latent"

    def __init__(self, dynamics: Dynamics, size: int = 16, steps: int = 3) -> None:
        super().__init__()
        self.size, self.steps = size, steps
        shapes = [tuple(layer.weight.shape) for layer in dynamics.prior()]
        self.down = nn.ParameterList(torch.randn(size, i) / i**0.5 for i, _ in shapes)
        self.up = nn.ParameterList(torch.randn(size, o) / size**0.5 for _, o in shapes)
        self.shift = nn.ParameterList(torch.randn(size, o) / size**0.5 for _, o in shapes)
        self.log_rate = nn.Parameter(torch.zeros(size))
        self.log_ageing = nn.Parameter(torch.tensor(-3.0))

    def adapt(self, prior: Dynamics, window: Transitions) -> Params:
        """See :class:`Adapter`."""
        if window.act.shape[-2] == 0:
            return prior.prior()
        return self.decode(prior, self.improved(prior, window))

    def decode(self, prior: Dynamics, code: Float[Tensor, "*b z"]) -> Params:
        """The prior's layers as the code modulates them."""
        layers, batch = zip(prior.prior(), self.down, self.up, self.shift, strict=True), code.shape
        return [
            layer.plus(
                (code @ shift)[..., None, :], code[..., None] * down, up.expand(*batch[:-1], -1, -1)
            )
            for layer, down, up, shift in layers
        ]

    def improved(
        self, prior: Dynamics, window: Transitions, code: Float[Tensor, "*b z"] | None = None
    ) -> Float[Tensor, "*b z"]:
        """The code after gradient steps on the window, from nought where none is given."""
        x, y = prior.inputs(window.obs, window.act), prior.targets(window)
        rate, weight = self.log_rate.exp(), self.weight(x.shape[-2])
        params = prior.prior() if code is None else self.decode(prior, code)
        if code is None:
            code = rate.new_zeros(*x.shape[:-2], self.size)
        for step in range(self.steps):
            if step:
                params = self.decode(prior, code)
            inputs, errors = backward(prior, params, x, y, weight)
            slope = torch.zeros_like(code)
            layers = zip(inputs, errors, self.down, self.up, self.shift, strict=True)
            for i, e, down, up, shift in layers:
                slope = slope + ((i @ down.mT) * (e @ up.mT) + e @ shift.mT).sum(-2)
            code = REACH * torch.tanh((code - rate * slope) / REACH)
        return code

    def weight(self, m: int) -> Float[Tensor, "m 1"]:
        """What each place of the window counts, oldest first; 1 on average."""
        age = torch.arange(m - 1, -1, -1, dtype=self.log_ageing.dtype)
        return m * torch.softmax(-self.log_ageing.exp() * age, 0)[:, None]
