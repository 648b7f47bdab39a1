"""An ensemble that is asked as a whole: where its members differ, they do not know."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from controllers.base import Planner
from controllers.learned import LearnedModel
from controllers.robust import Robust
from controllers.several import Several
from mbmrl.types import RolloutFn, Transitions

FADES = 0.9
"""Share of the curiosity that is left after a tick: half of it after seven."""
USUAL = 0.05
"""Weight of the newest disagreement in what is usual."""
MOST = 3.0
"""More than so many times the usual disagreement is no more interesting."""


class Committee(Several):
    """Members that adapt side by side; the first one's future is the plan's.

    Attributes:
        curiosity: 1 where a robot has just changed, falling to 0 from then on, (r,); None before
            anything was seen. Only a first member that looks out for changes ever raises it.
    """

    def __init__(self, models: Sequence[LearnedModel]) -> None:
        super().__init__(models)
        self.curiosity: Float[Tensor, " r"] | None = None
        self._futures: list[RolloutFn] = []

    def reset(self) -> None:
        """Forget the robots' histories."""
        super().reset()
        self.curiosity = None

    def observe(self, transition: Transitions) -> None:
        """Every member learns."""
        super().observe(transition)
        changed = self.info().get("changed", torch.zeros(len(transition.act), dtype=torch.bool))
        before = torch.zeros(len(changed)) if self.curiosity is None else self.curiosity
        self.curiosity = torch.where(changed, 1.0, FADES * before)

    def rollout(self) -> RolloutFn:
        """Every member adapts; this is the first one's future, :meth:`others` are the rest."""
        first, *self._futures = (member.rollout() for member in self.models)
        return first

    def others(self) -> list[RolloutFn]:
        """What the other members foresee, as of the last :meth:`rollout`."""
        return self._futures


class Curious(Robust):
    """A planner that, right after a change, likes to do what its models do not agree about.

    A candidate is worth as many deviations of the candidates' costs as the members' futures under
    it lie apart, in multiples of how far they usually do, times the curiosity, times a bonus. It
    stays within the limits of the actions, as every candidate does.

    Args:
        planner: the one that chooses.
        committee: whose members foresee.
        scale: of each observation (o,), by which futures are compared.
        bonus: for the usual disagreement [standard deviations of the cost].
        pessimism: see :class:`Robust`.
    """

    def __init__(
        self,
        planner: Planner,
        committee: Committee,
        scale: Float[Tensor, " o"],
        bonus: float,
        pessimism: float = 0.0,
    ) -> None:
        super().__init__(planner, committee.others, pessimism)
        self.committee, self.scale, self.bonus = committee, scale, bonus
        self._usual: Float[Tensor, " r"] | None = None

    def reset(self, num_robots: int = 1) -> None:
        """Forget how far apart the members usually are."""
        super().reset(num_robots)
        self._usual = None

    def weigh(
        self, futures: Float[Tensor, "k r n h o"], costs: Float[Tensor, "k r n"]
    ) -> Float[Tensor, "r n"]:
        """See :class:`Robust`."""
        weighed, curiosity = super().weigh(futures, costs), self.committee.curiosity
        apart = (futures / self.scale).std(0, correction=0).mean((-2, -1))
        mean = apart.nan_to_num(0.0, 0.0, 0.0).mean(1)
        self._usual = mean if self._usual is None else torch.lerp(self._usual, mean, USUAL)
        if curiosity is None or not curiosity.any():
            return weighed
        spread = weighed.nan_to_num(0.0, 0.0, 0.0).std(1, correction=0, keepdim=True)
        interest = (apart / self._usual[:, None].clamp_min(1e-9)).clamp(max=MOST)
        return weighed - self.bonus * curiosity[:, None] * interest * spread
