"""Plain torch: any machine."""

from __future__ import annotations

from typing import ClassVar

from mbmrl.dynamics import Dynamics, Params
from mbmrl.engines.base import Engine
from mbmrl.types import RolloutFn


class Plain(Engine):
    """Plain torch, one step of all candidates after the other: the reference of the others."""

    name: ClassVar[str] = "plain"

    def rollout(self, dynamics: Dynamics, params: Params) -> RolloutFn:
        """See :class:`Engine`."""
        return dynamics.rollout(params)
