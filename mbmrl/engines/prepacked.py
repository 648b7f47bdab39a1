"""Plain torch, but for the products: weights in oneDNN's own layout, activations fused."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mbmrl.dynamics import Dynamics, Params
from mbmrl.engines import base
from mbmrl.engines.base import Engine, EngineError, of_robot
from mbmrl.types import RolloutFn

FUSED = {"relu": "relu", "silu": "swish", "tanh": "tanh"}
"""oneDNN's names of the activations."""


class Prepacked(Engine):
    """oneDNN: prepacked weights and fused activations; needs no compiler.

    These operators are private to torch: a torch without them has no such engine.
    """

    name: ClassVar[str] = "prepacked"

    def __init__(self) -> None:
        if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
            raise EngineError("this torch has no prepacked linear layers")
        self.type = getattr(torch, self.dtype)

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
                            packed[key] = _packed(layer.weight.to(self.type), count)
                        x = _linear(x.to(self.type), packed[key], layer.bias.to(self.type), act)
                    return x.float()

                return dynamics.unroll_with(predict, obs[r].expand(count, -1), acts[r])

            return torch.stack([one(r) for r in range(len(obs))])

        return roll


class PrepackedBfloat16(Prepacked):
    """The same with weights and activations in bfloat16; the state is summed up in float32."""

    name: ClassVar[str] = "prepacked_bfloat16"
    dtype: ClassVar[str] = "bfloat16"

    def __init__(self) -> None:
        super().__init__()
        base.require_bfloat16()


def _packed(weight: Float[Tensor, "i o"], rows: int) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.T.contiguous(), rows)


def _linear(x: Tensor, packed: Tensor, bias: Tensor, fused: str) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, fused, [], "")
