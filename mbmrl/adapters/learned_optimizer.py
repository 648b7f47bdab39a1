"""A recurrent network that turns gradients into updates, coordinate by coordinate."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbmrl.adapters.base import Adapter
from mbmrl.adapters.blackbox import gru
from mbmrl.adapters.maml import BOUND
from mbmrl.dynamics import Affine, Dynamics, Params
from mbmrl.types import Transitions

STEPS, HIDDEN = 3, 4
SCALE = 7.0
"""Gradients are told as their logarithms, of which this many make one."""


class LearnedOptimizer(Adapter):
    """The last layer's update Δ ← f ∘ Δ − i ∘ ∇, the gates by a recurrent network.

    The meta-learner of Ravi & Larochelle 2017 (eq. 2 to 4, there an LSTM whose cell is the
    parameters): one small GRU, shared by all coordinates, reads each one's gradient and says how
    much of its update so far to keep, f, and how far to follow the gradient, i. A step is taken on
    each third of the window, oldest first. What f keeps is the update and not the parameter, so
    that where nothing is wrong nothing changes.
    """

    name: ClassVar[str] = "learned_optimizer"

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__()
        self.cell = nn.GRUCell(2, HIDDEN)
        self.gates = nn.Linear(HIDDEN, 2)
        with torch.no_grad():
            self.gates.bias.copy_(torch.tensor([4.0, 0.0]))  # keep what was learned, to begin with
        self.log_rate = nn.Parameter(torch.tensor(0.02).log())

    def adapt(self, prior: Dynamics, window: Transitions) -> Params:
        """See :class:`Adapter`."""
        params = prior.prior()
        if window.act.shape[-2] == 0:
            return params
        phi = prior.features(params, prior.inputs(window.obs, window.act))
        phi = torch.cat([phi, torch.ones_like(phi[..., :1])], -1)
        last = torch.cat([params[-1].weight, params[-1].bias[None]])
        y = prior.targets(window)
        update = last.new_zeros(*phi.shape[:-2], *last.shape)
        hidden = last.new_zeros(HIDDEN, update.numel())
        for rows, target in zip(*(x.tensor_split(STEPS, -2) for x in (phi, y)), strict=True):
            if rows.shape[-2]:
                slope = _slope(rows, rows @ (last + update) - target)
                hidden = gru(self.cell, _told(slope), hidden)
                gates = self.gates.weight @ hidden + self.gates.bias[:, None]
                keep, follow = gates.sigmoid().reshape(2, *update.shape)
                update = keep * update - 2 * self.log_rate.exp() * follow * slope
        adapted = last + update
        return [*params[:-1], Affine(adapted[..., :-1, :], adapted[..., -1:, :])]


def _slope(rows: Tensor, residual: Tensor) -> Tensor:
    """Gradient of the saturating loss of the last layer, the mean over transitions."""
    return rows.mT @ (BOUND * torch.tanh(residual / BOUND)) / rows.shape[-2]


def _told(slope: Tensor) -> Float[Tensor, "2 n"]:
    """A gradient's size and sign, for a network; no meta-gradient flows through what it is told."""
    flat = slope.detach().flatten()
    return torch.stack([flat.abs().clamp_min(1e-6).log() / SCALE, flat.sign()])
