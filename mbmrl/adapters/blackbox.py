"""What learners share that read the window with a network, and tell the dynamics what they read."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbmrl.adapters.base import Adapter
from mbmrl.dynamics import CLAMP, Dynamics, Params
from mbmrl.types import Transitions


def seen(prior: Dynamics, window: Transitions) -> Float[Tensor, "*b m s"]:
    """What a transition looks like to a network: its inputs and its targets, both clamped."""
    targets = prior.targets(window).clamp(-CLAMP, CLAMP)
    return torch.cat([prior.inputs(window.obs, window.act), targets], -1)


def width(dynamics: Dynamics) -> int:
    """How many numbers :func:`seen` tells of a transition."""
    return dynamics.input_mean.numel() + dynamics.target_mean.numel()


def gru(
    cell: nn.GRUCell, told: Float[Tensor, "i n"], hidden: Float[Tensor, "h n"]
) -> Float[Tensor, "h n"]:
    """What the cell remembers of n things that lie side by side in memory.

    Written out: members of an ensemble go through it in one pass, which torch's own cell cannot,
    and of many small ones it takes half the time.
    """
    new = torch.addmm(cell.bias_ih[:, None], cell.weight_ih, told)
    old = torch.addmm(cell.bias_hh[:, None], cell.weight_hh, hidden)
    size = len(hidden)
    reset, keep = (new[:-size] + old[:-size]).sigmoid().chunk(2)
    fresh = torch.tanh(new[-size:] + reset * old[-size:])
    return fresh + keep * (hidden - fresh)


class BlackBox(Adapter):
    """Tells the dynamics a context c, as if c were a further input of the network.

    What a further input adds to the first layer is c C, a shift of its bias: the engines need not
    know. No window, c = 0.

    Args:
        dynamics: gives the sizes.
        size: of the context.
    """

    corrects: ClassVar[bool] = False

    def __init__(self, dynamics: Dynamics, size: int) -> None:
        super().__init__()
        first = dynamics.prior()[0].weight.shape[1]
        self.told = nn.Parameter(torch.randn(size, first) / size**0.5)

    def params_told(self, prior: Dynamics, context: Float[Tensor, "*b c"]) -> Params:
        """The prior's layers, the first of them shifted by the context."""
        first, *rest = prior.prior()
        return [first.plus((context @ self.told)[..., None, :]), *rest]
