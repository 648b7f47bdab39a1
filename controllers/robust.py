"""A planner for a robot of which it is not known what it is: several models, one plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from controllers.base import Planner
from mbmrl.types import CostFn, Plan, RolloutFn


class Robust:
    """Another planner, to whom a candidate costs the mean over all that the robot may be.

    Args:
        planner: the one that chooses.
        others: what the robot may be besides the model to plan with, asked for at every plan; all
            are as likely.
        pessimism: how much more a candidate costs for every standard deviation in which they
            differ about its cost.
    """

    def __init__(
        self, planner: Planner, others: Callable[[], Sequence[RolloutFn]], pessimism: float = 0.0
    ) -> None:
        self.planner, self.others, self.pessimism = planner, others, pessimism

    def reset(self, num_robots: int = 1) -> None:
        """Reset the planner."""
        self.planner.reset(num_robots)

    def plan(self, obs: Float[Tensor, "r o"], rollout: RolloutFn, cost: CostFn) -> Plan:
        """Its plan for the cost weighed; what is predicted is what the first model foresees."""
        others = self.others()

        def weighed(
            predicted: Float[Tensor, "r n h o"], acts: Float[Tensor, "r n h u"]
        ) -> Float[Tensor, "r n"]:
            futures = [predicted, *(other(obs, acts) for other in others)]
            costs = torch.stack([cost(future, acts) for future in futures])
            return self.weigh(torch.stack(futures), costs)

        return self.planner.plan(obs, rollout, weighed)

    def weigh(
        self, futures: Float[Tensor, "k r n h o"], costs: Float[Tensor, "k r n"]
    ) -> Float[Tensor, "r n"]:
        """What each candidate costs in all, from what it would cost each of the k."""
        mean = costs.mean(0)
        return mean + self.pessimism * costs.std(0, correction=0) if self.pessimism else mean
