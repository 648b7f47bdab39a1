"""Several models that learned the same apart: what the errors of one promise, the next denies."""

from __future__ import annotations

from itertools import cycle

from jaxtyping import Float
from torch import Tensor

from controllers.several import Several
from mbmrl.types import RolloutFn


class Ensemble(Several):
    """Members that adapt side by side and tell the future by turns.

    A planner searches in several iterations. Each asks the next member, so that a plan which owes
    its cost to the errors of one is dropped in the iteration after; and the search takes no longer
    than with one member, where to ask all of them about every candidate takes as many times as
    long.
    """

    def rollout(self) -> RolloutFn:
        """Every member adapts; each call is answered by the next one, the first one first."""
        turns = cycle([member.rollout() for member in self.models])

        def by_turns(
            obs: Float[Tensor, "r o"], acts: Float[Tensor, "r n h u"]
        ) -> Float[Tensor, "r n h o"]:
            return next(turns)(obs, acts)

        return by_turns
