"""Several learners at once: each robot is driven by whichever foresaw it best lately."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from controllers.learned import LearnedModel
from controllers.several import Several
from mbmrl.params import take
from mbmrl.types import RolloutFn

CLEARLY = 0.8
"""Another learner's error must be so much smaller to take over: every change costs the planner."""


class Auto(Several):
    """Learned models side by side, of which each robot's plans use one.

    Args:
        models: the first one drives until another has foreseen clearly better. They need a gate,
            whose judgement is what they are compared by.
    """

    def __init__(self, models: Sequence[LearnedModel]) -> None:
        if not all(model.gate for model in models):
            raise ValueError("learners without a gate are judged by nobody")
        super().__init__(models)
        self._chosen: Int[Tensor, " r"] | None = None

    def reset(self) -> None:
        """Forget the robots' histories."""
        super().reset()
        self._chosen = None

    def rollout(self) -> RolloutFn:
        """Every learner adapts; each robot's future is told by the one that was chosen for it."""
        adapted = [model.adapted() for model in self.models]
        chosen = self._choose()
        if chosen is None:
            return self.models[0].engine.rollout(self.models[0].dynamics, adapted[0])
        parts = []
        for i, (model, params) in enumerate(zip(self.models, adapted, strict=True)):
            (robots,) = torch.nonzero(chosen == i, as_tuple=True)
            if len(robots):
                roll = model.engine.rollout(model.dynamics, take(params, robots))
                parts.append((robots, roll))
        order = torch.cat([robots for robots, _ in parts]).argsort()

        def all_of(obs: Float[Tensor, "r o"], acts: Float[Tensor, "r n h u"]) -> Tensor:
            return torch.cat([roll(obs[robots], acts[robots]) for robots, roll in parts])[order]

        return all_of

    def info(self) -> dict[str, Tensor]:
        """What the chosen ones tell, and which they are."""
        told = [model.info() for model in self.models]
        if self._chosen is None:
            return told[0]
        shared = [key for key in told[0] if all(key in one for one in told)]
        picked = {
            key: torch.stack([one[key] for one in told]).gather(0, self._chosen[None])[0]
            for key in shared
        }
        return picked | {"learner": self._chosen.float()}

    def _choose(self) -> Int[Tensor, " r"] | None:
        """Whoever has erred least lately, where that is clear; None until that was judged."""
        doubts = [doubt for model in self.models if (doubt := model.doubt()) is not None]
        if len(doubts) < len(self.models):
            return None
        errors = torch.stack(doubts)
        before = torch.zeros_like(errors[0]).long() if self._chosen is None else self._chosen
        least, best = errors.min(0)
        kept = errors.gather(0, before[None])[0]
        self._chosen = torch.where(least < CLEARLY * kept, best, before)
        return self._chosen
