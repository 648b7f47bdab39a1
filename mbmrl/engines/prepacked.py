"""Plain torch, but for the products: weights in oneDNN's own layout, activations fused."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mbmrl.dynamics import Dynamics, Params
from mbmrl.engines.base import Engine, EngineError, of_robot
from mbmrl.types import RolloutFn

FUSED = {"relu": "relu", "silu": "swish", "tanh": "tanh"}
"""oneDNN's names of the activations."""


class Prepacked(Engine):
    """oneDNN: prepacked weights and fused activations; needs no compiler.

    These operators are private to torch, so what they compute is looked at before they are used.
    """

    name: ClassVar[str] = "prepacked"

    def __init__(self) -> None:
        x, weight, bias = torch.randn(5, 3), torch.randn(3, 4), torch.randn(4)
        try:
            said = _linear(x, _packed(weight, 5), bias, "relu")
        except (AttributeError, RuntimeError) as error:
            raise EngineError("this torch has no prepacked linear layers") from error
        if not torch.allclose(said, (x @ weight + bias).relu(), atol=1e-5):
            raise EngineError("this torch's prepacked linear layers compute something else")

    def rollout(self, dynamics: Dynamics, params: Params) -> RolloutFn:
        """See :class:`Engine`."""
        fused = [*[FUSED[dynamics.activation]] * (len(params) - 1), "none"]
        merged = [layer.merged() for layer in params]
        packed: dict[tuple[int, int], Tensor] = {}  # by the number of candidates and the weights

        def roll(obs: Float[Tensor, "r o"], acts: Float[Tensor, "r n h u"]) -> Tensor:
            count = acts.shape[1]

            def one(r: int) -> Tensor:
                own = of_robot(merged, r)

                def predict(x: Tensor) -> Tensor:
                    for layer, act in zip(own, fused, strict=True):
                        key = count, layer.weight.data_ptr()
                        if key not in packed:
                            packed[key] = _packed(layer.weight, count)
                        x = _linear(x, packed[key], layer.bias, act)
                    return x

                return dynamics.unroll_with(predict, obs[r].expand(count, -1), acts[r])

            return torch.stack([one(r) for r in range(len(obs))])

        return roll


def _packed(weight: Float[Tensor, "i o"], rows: int) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.T.contiguous(), rows)


def _linear(x: Tensor, packed: Tensor, bias: Tensor, fused: str) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, fused, [], "")
