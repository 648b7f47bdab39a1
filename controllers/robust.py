"""A planner for a robot of which nobody knows what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from controllers.base import Planner
from mbmrl.types import CostFn, Plan, RolloutFn


class Robust:
    """Another planner, to whom a candidate costs the mean over all that the robot may be.

    Args:
        planner: the one that chooses.
        others: what the robot may be besides the model to plan with; all are as likely.
    """

    def __init__(self, planner: Planner, others: Sequence[RolloutFn]) -> None:
        self.planner, self.others = planner, others

    def reset(self, num_robots: int = 1) -> None:
        """Reset the planner."""
        self.planner.reset(num_robots)

    def plan(self, obs: Float[Tensor, "r o"], rollout: RolloutFn, cost: CostFn) -> Plan:
        """Its plan for the mean cost; what is predicted is what the first model foresees."""

        def mean_cost(
            predicted: Float[Tensor, "r n h o"], acts: Float[Tensor, "r n h u"]
        ) -> Float[Tensor, "r n"]:
            futures = [predicted, *(other(obs, acts) for other in self.others)]
            return torch.stack([cost(future, acts) for future in futures]).mean(0)

        return self.planner.plan(obs, rollout, mean_cost)
