"""One gradient step of the last layer alone."""

from __future__ import annotations

from typing import ClassVar

from mbmrl.adapters.maml import Maml
from mbmrl.dynamics import Dynamics


class Anil(Maml):
    """MAML whose last layer alone takes the step (ANIL, arXiv 1909.09157)."""

    name: ClassVar[str] = "anil"

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__(dynamics, layers=[len(dynamics.hidden)])
