"""One gradient step from the prior: MAML with learned inner rates, in its dual form."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbmrl.adapters.base import Adapter
from mbmrl.dynamics import Affine, Dynamics, Params
from mbmrl.types import Transitions

Rates = Literal["scalar", "layer", "factored", "parameter"]
BOUND = 3.0
"""Residuals in the inner loss saturate here [standard deviations]: one step must stay one step."""


class Maml(Adapter):
    """One SGD step on the window with meta-learned rates (MAML; GrBAL, arXiv 1803.11347).

    The step on the mean of ρ(f − y) over window and outputs, ρ′(e) = BOUND·tanh(e / BOUND),
    changes layer l by −rate ∘ (Xᵀ E): X its inputs on the window, E the errors propagated back
    to it. With a rate that is a product of a row and a column factor this is a rank-m addition
    (keys −X∘row, values E∘column), so per-robot weights are never built, and autograd through
    these lines gives the exact second-order meta-gradient.

    Args:
        dynamics: gives the sizes.
        rates: one learned rate for all, one a layer, a row × a column a layer, or one a parameter.
        initial: the rate that learning starts from.
        last_layer: whether the last layer takes the step too.
    """

    name: ClassVar[str] = "maml"

    def __init__(
        self,
        dynamics: Dynamics,
        rates: Rates = "factored",
        initial: float = 0.15,
        *,
        last_layer: bool = True,
    ) -> None:
        super().__init__()
        self.rates, self.last_layer = rates, last_layer
        shapes = [tuple(w.shape) for w in dynamics.weights]
        start = torch.tensor(initial).log()
        count = 1 if rates == "scalar" else len(shapes)
        self.log_rate = nn.Parameter(start.repeat(count))
        if rates == "factored":
            self.log_row = nn.ParameterList(torch.zeros(i) for i, _ in shapes)
            self.log_col = nn.ParameterList(torch.zeros(o) for _, o in shapes)
        if rates == "parameter":
            self.log_full = nn.ParameterList(torch.zeros(s) for s in shapes)
        if rates in ("factored", "parameter"):
            self.log_bias = nn.ParameterList(torch.zeros(o) for _, o in shapes)

    def adapt(self, prior: Dynamics, window: Transitions) -> Params:
        """See :class:`Adapter`."""
        params = prior.prior()
        if window.act.shape[-2] == 0:
            return params
        x, y = prior.inputs(window.obs, window.act), prior.targets(window)
        inputs, errors = backward(prior, params, x, y)
        last = len(params) - 1
        return [
            layer
            if i == last and not self.last_layer
            else self._step(i, layer, inputs[i], errors[i])
            for i, layer in enumerate(params)
        ]

    def _step(self, i: int, layer: Affine, x: Tensor, e: Tensor) -> Affine:
        rate = self.log_rate[min(i, self.log_rate.numel() - 1)].exp()
        shift = rate * e.sum(-2, keepdim=True)
        if self.rates in ("factored", "parameter"):
            shift = shift * self.log_bias[i].exp()
        if self.rates == "parameter":
            weight = layer.weight - rate * self.log_full[i].exp() * (x.mT @ e)
            return Affine(weight, layer.bias - shift)
        keys, values = -rate * x, e
        if self.rates == "factored":
            keys, values = keys * self.log_row[i].exp(), values * self.log_col[i].exp()
        return Affine(layer.weight, layer.bias - shift, keys, values)


def backward(
    prior: Dynamics,
    params: Params,
    x: Float[Tensor, "*b m i"],
    y: Float[Tensor, "*b m o"],
) -> tuple[list[Tensor], list[Tensor]]:
    """Each layer's inputs on the window, and the inner loss's gradient at each layer's output."""
    inputs, slopes = [x], []
    for layer in params[:-1]:
        z = layer(inputs[-1])
        slopes.append(prior.act_slope(z))
        inputs.append(prior.act_fn(z))
    residual = params[-1](inputs[-1]) - y
    error = BOUND * torch.tanh(residual / BOUND) / (y.shape[-2] * y.shape[-1])
    errors = [error]
    for layer, slope in zip(params[:0:-1], slopes[::-1], strict=True):
        errors.append((errors[-1] @ layer.weight.mT) * slope)
    return inputs, errors[::-1]
