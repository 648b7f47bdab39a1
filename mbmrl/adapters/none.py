"""No adaptation: the prior as it is."""

from __future__ import annotations

from typing import ClassVar

from mbmrl.adapters.base import Adapter
from mbmrl.dynamics import Dynamics, Params
from mbmrl.types import Transitions


class NoAdapter(Adapter):
    """The prior as it is; trained this way, the pooled model of all conditions."""

    name: ClassVar[str] = "none"

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__()

    def adapt(self, prior: Dynamics, window: Transitions) -> Params:
        """θ*."""
        return prior.prior()
