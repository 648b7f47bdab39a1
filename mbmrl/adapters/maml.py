"""Gradient steps from the prior: MAML with learned inner rates, in its dual form."""

from __future__ import annotations

from collections.abc import Collection
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
    these lines gives the exact second-order meta-gradient. A further step adds another m keys.

    Args:
        dynamics: gives the sizes.
        rates: one learned rate for all, one a layer, a row × a column a layer, or one a parameter.
        initial: the rate that learning starts from.
        steps: how many, each of that rate.
        layers: which of them take the step, counted from 0; all when None.
    """

    name: ClassVar[str] = "maml"

    def __init__(
        self,
        dynamics: Dynamics,
        rates: Rates = "factored",
        initial: float = 0.15,
        *,
        steps: int = 1,
        layers: Collection[int] | None = None,
    ) -> None:
        super().__init__()
        self.rates, self.steps = rates, steps
        shapes = [tuple(layer.weight.shape) for layer in dynamics.prior()]
        self.layers = frozenset(range(len(shapes)) if layers is None else layers)
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
        for _ in range(self.steps):
            inputs, errors = self.gradient(prior, params, x, y)
            params = [
                self._step(i, layer, inputs[i], errors[i]) if i in self.layers else layer
                for i, layer in enumerate(params)
            ]
        return params

    def gradient(
        self, prior: Dynamics, params: Params, x: Tensor, y: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """:func:`backward`, which the meta-gradient flows through."""
        return backward(prior, params, x, y)

    def _step(self, i: int, layer: Affine, x: Tensor, e: Tensor) -> Affine:
        rate = self.log_rate[min(i, self.log_rate.numel() - 1)].exp()
        shift = -rate * e.sum(-2, keepdim=True)
        if self.rates in ("factored", "parameter"):
            shift = shift * self.log_bias[i].exp()
        if self.rates == "parameter":
            weight = layer.weight - rate * self.log_full[i].exp() * (x.mT @ e)
            return Affine(weight, layer.bias + shift)
        if self.rates == "factored":
            rate, e = rate * self.log_row[i].exp(), e * self.log_col[i].exp()
        return layer.plus(shift, x * -rate, e)


class MamlScalar(Maml):
    """MAML with one learned rate for all parameters."""

    name: ClassVar[str] = "maml_scalar"

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__(dynamics, "scalar")


class MamlLayer(Maml):
    """MAML with a learned rate a layer, by which it learns which layers adapt."""

    name: ClassVar[str] = "maml_layer"

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__(dynamics, "layer")


class MamlSteps(Maml):
    """MAML with three inner steps."""

    name: ClassVar[str] = "maml_steps"

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__(dynamics, steps=3)


class MetaSgd(Maml):
    """MAML with a learned rate a parameter (Meta-SGD, arXiv 1707.09835)."""

    name: ClassVar[str] = "meta_sgd"

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__(dynamics, "parameter")


def backward(
    prior: Dynamics,
    params: Params,
    x: Float[Tensor, "*b m i"],
    y: Float[Tensor, "*b m o"],
    weight: Float[Tensor, "m 1"] | float = 1.0,
) -> tuple[list[Tensor], list[Tensor]]:
    """Each layer's inputs on the window, and the inner loss's gradient at each layer's output.

    Transitions may have different weights in the loss.
    """
    inputs, slopes = [x], []
    for layer in params[:-1]:
        value, slope = prior.act_and_slope(layer(inputs[-1]))
        inputs.append(value)
        slopes.append(slope)
    residual = params[-1](inputs[-1]) - y
    error = weight * BOUND * torch.tanh(residual / BOUND) / (y.shape[-2] * y.shape[-1])
    errors = [error]
    for layer, slope in zip(params[:0:-1], slopes[::-1], strict=True):
        errors.append(layer.back(errors[-1]) * slope)
    return inputs, errors[::-1]
