"""Whether bfloat16 does a model any harm: do candidate plans keep their order?"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mbmrl import tasks
from mbmrl.checkpoint import Checkpoint
from mbmrl.compose import make_planner, task_for
from mbmrl.data import Windows
from mbmrl.dynamics import Dynamics, Params
from mbmrl.engines.base import Engine
from mbmrl.settings import settings_for
from mbmrl.types import RolloutFn
from robots.base import Robot

STATES = 64
CANDIDATES = 128


class Rounded(Engine):
    """Plain torch with weights and activations rounded to bfloat16 before each product.

    Slow, but it runs on any machine and says what the engines in bfloat16 would say elsewhere.
    """

    name: ClassVar[str] = "rounded"
    dtype: ClassVar[str] = "bfloat16"

    def rollout(self, dynamics: Dynamics, params: Params) -> RolloutFn:
        """See :class:`Engine`."""
        layers = [(_rounded(p.weight), p.bias) for p in (layer.merged() for layer in params)]

        def predict(x: Tensor) -> Tensor:
            for i, (weight, bias) in enumerate(layers):
                x = _rounded(x) @ weight + bias
                x = dynamics.act_fn(x) if i + 1 < len(layers) else x
            return x

        def roll(obs: Float[Tensor, "r o"], acts: Float[Tensor, "r n h u"]) -> Tensor:
            every = obs[:, None].expand(-1, acts.shape[1], -1)
            return dynamics.unroll_with(predict, every, acts)

        return roll


def _rounded(x: Tensor) -> Tensor:
    return x.bfloat16().float()


@torch.no_grad()
def rank_correlation(checkpoint: Checkpoint, windows: Windows, robot: type[Robot]) -> float:
    """Spearman's correlation of candidates' costs in float32 and in bfloat16.

    The mean over :data:`STATES` recorded states, each with the model adapted to its window, of
    :data:`CANDIDATES` plans as the robot's planner draws them first.

    Args:
        checkpoint: its default learner is judged.
        windows: of recorded transitions.
        robot: whose task's cost is ranked; a path begins where the robot is.
    """
    spec, rng = checkpoint.spec, torch.Generator().manual_seed(0)
    support, _ = windows.sample(rng, STATES, checkpoint.window, 1)
    dynamics, adapter = checkpoint.learner(checkpoint.default)
    params = adapter.adapt(dynamics, support)
    obs = support.next_obs[:, -1].clone()
    obs[:, spec.index(spec.pose)] = 0.0
    wanted = task_for(robot, tasks.usual(robot.task) * STATES)
    wanted.reset(obs)
    settings = settings_for(spec.name)
    settings = replace(settings, plan=settings.plan | {"num_samples": (CANDIDATES,)})
    planner = make_planner(spec, settings)
    planner.reset(STATES)
    exact, rounded = dynamics.rollout(params), Rounded().rollout(dynamics, params)
    costs: list[tuple[Tensor, Tensor]] = []

    def judged(obs: Tensor, acts: Tensor) -> Tensor:
        futures = exact(obs, acts), rounded(obs, acts)
        costs.append((wanted.cost(futures[0], acts), wanted.cost(futures[1], acts)))
        return futures[0]

    planner.plan(obs, judged, wanted.cost)
    ranks = [x.argsort(-1).argsort(-1).double() for x in costs[0]]
    return float(
        torch.stack([torch.corrcoef(torch.stack(r))[0, 1] for r in zip(*ranks, strict=True)]).mean()
    )
