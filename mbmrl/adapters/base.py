"""What every learner-to-adapt is: a pure function of the prior and a window of transitions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from mbmrl.dynamics import Dynamics, Params
from mbmrl.types import Transitions


class Adapter(nn.Module, ABC):
    """Turns the last m transitions into adapted layers, always from the prior, never cumulative.

    The same code runs in meta-training, where gradients flow through it into the prior and
    into the adapter's own parameters (learned rates, noise), and at every control tick.
    """

    name: ClassVar[str]
    trained_as: ClassVar[str] = ""
    """The learner whose prior it takes, where it has none of its own."""

    @abstractmethod
    def adapt(self, prior: Dynamics, window: Transitions) -> Params:
        """θ* → θ′ on a window of (*b, m) transitions, oldest first; m = 0 gives θ*."""
