"""A recurrent network whose hidden state carries what the robot is like now."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from mbmrl.adapters.base import Recursive, State
from mbmrl.adapters.blackbox import BlackBox, gru, seen, width
from mbmrl.dynamics import Dynamics, Params
from mbmrl.types import Transitions

HIDDEN = 64


class Recurrent(Recursive, BlackBox):
    """A GRU reads the transitions; its hidden state is told to the dynamics.

    The recurrence-based learner of arXiv 1803.11347 (ReBAL), as a black box (RL², 1611.02779).
    """

    name: ClassVar[str] = "recurrent"

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__(dynamics, HIDDEN)
        self.cell = nn.GRUCell(width(dynamics), HIDDEN)

    def begin(self, prior: Dynamics, batch: tuple[int, ...]) -> State:
        """A hidden state of zeros (*b, h)."""
        return (self.told.new_zeros(*batch, HIDDEN),)

    def step(self, prior: Dynamics, state: State, newest: Transitions) -> State:
        """See :class:`Recursive`."""
        (hidden,) = state
        rows, batch = seen(prior, newest)[..., 0, :], hidden.shape[:-1]
        after = gru(self.cell, rows.reshape(-1, rows.shape[-1]).mT, hidden.reshape(-1, HIDDEN).mT)
        return (after.mT.reshape(*batch, HIDDEN),)

    def params(self, prior: Dynamics, state: State) -> Params:
        """See :class:`Recursive`."""
        return self.params_told(prior, state[0])
