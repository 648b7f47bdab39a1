"""What else could have happened: candidate plans, simulated from where a robot is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from controllers.base import Planner, SamplingPlanner
from mbmrl.data import BRANCH_EVERY, Branches
from mbmrl.types import CostFn, Plan, RolloutFn
from robots.sim import SimRobot


class Branching:
    """Another planner; where its candidates would lead is simulated at every other step.

    The simulator answers in a fraction of the time that planning takes.

    Args:
        planner: the one that drives.
        source: of the candidates: the one within it, or any where there is none.
        robots: as many as it drives.
        length: of a branch [control steps]; one candidate after another where they are shorter.
    """

    def __init__(
        self, planner: Planner, source: SamplingPlanner, robots: Sequence[SimRobot], length: int
    ) -> None:
        self.planner, self.source, self.robots, self.length = planner, source, robots, length
        self.reset(len(robots))

    def reset(self, num_robots: int = 1) -> None:
        """Forget the branches, too."""
        self.planner.reset(num_robots)
        self.source.reset(num_robots)
        self._tick = 0
        self._grown: list[Branches] = []

    def plan(self, obs: Float[Tensor, "r o"], rollout: RolloutFn, cost: CostFn) -> Plan:
        """The planner's plan."""
        plan = self.planner.plan(obs, rollout, cost)
        if self._tick % BRANCH_EVERY == 0:
            self._grown.append(self._branch(obs.numpy()))
        self._tick += 1
        return plan

    def branches(self) -> Branches:
        """All since the last reset."""
        return Branches(*(np.stack(x, 1) for x in zip(*self._grown, strict=True)))

    def _branch(self, told: Float[np.ndarray, "r o"]) -> Branches:
        each, own = math.ceil(self.length / self.source.horizon), torch.arange(len(told))
        # a planner draws the same noise for all robots, and here each is to have its own
        candidates = self.source.candidates(len(told) * each).unflatten(1, (-1, each))[own, own]
        act = candidates.flatten(1, 2)[:, : self.length].numpy()
        pairs = zip(self.robots, act, strict=True)
        obs = np.stack([robot.true_rollout(a[None])[0] for robot, a in pairs])
        # what faulty sensors would have said is not known
        truth = np.stack([robot.truth() for robot in self.robots])
        obs[~np.isclose(told, truth, 1e-4, 1e-4).all(1)] = np.nan
        return Branches(act, obs.astype(np.float32))
