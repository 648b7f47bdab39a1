"""The meta-objective, and one meta-training step."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from mbmrl.adapters.base import Adapter
from mbmrl.dynamics import Dynamics, Params, wrap
from mbmrl.types import Transitions

HORIZON = 10
"""Steps of an open-loop prediction in the meta-objective."""
STRIDE = 4
"""Steps between the starts of two such predictions."""


def meta_loss(
    dynamics: Dynamics, adapter: Adapter, support: Transitions, query: Transitions
) -> Float[Tensor, ""]:
    """Post-adaptation loss on the query: one step ahead, and open loop over stretches of it.

    Adapt on the support (*b, m), then predict the k transitions that followed it. Residuals
    count as log cosh, so that no window rules the batch.
    """
    params = adapter.adapt(dynamics, support)
    one_step = dynamics.predict(params, dynamics.inputs(query.obs, query.act))
    loss = soft(one_step - dynamics.targets(query))
    return loss + 0.5 * soft(open_loop_error(dynamics, params, query, HORIZON))


def open_loop_error(
    dynamics: Dynamics, params: Params, query: Transitions, horizon: int
) -> Float[Tensor, "*b n h t"]:
    """Normalised errors of open-loop predictions, h steps long, started all along the query."""
    acts, truth = (x.unfold(-2, horizon, STRIDE).mT for x in (query.act, query.next_obs))
    start = query.obs[..., : query.obs.shape[-2] - horizon + 1 : STRIDE, :]
    return normalised(dynamics, dynamics.unroll(params, start, acts), truth)


def normalised(
    dynamics: Dynamics, future: Float[Tensor, "*b n h o"], truth: Float[Tensor, "*b n h o"]
) -> Float[Tensor, "*b n h t"]:
    """Errors of h steps foreseen.

    The state's are in its standard deviations; the pose's after t steps in √t standard
    deviations of one step's motion.
    """
    poses = len(dynamics.pose_at)
    scale = dynamics.input_std[: len(dynamics.state_at)][dynamics.predicted_view]
    state = dynamics.apart(future, truth) / scale
    if not poses:
        return state
    pose = (future - truth)[..., dynamics.pose_view]
    pose = torch.cat([pose[..., :2], wrap(pose[..., 2:])], -1)
    steps = torch.arange(1, future.shape[-2] + 1, dtype=pose.dtype).sqrt()
    spread = dynamics.target_std[:poses].clone()
    spread[:2] = spread[:2].norm()
    return torch.cat([pose / (steps[:, None] * spread), state], -1)


def soft(error: Tensor) -> Float[Tensor, ""]:
    """Mean log cosh: quadratic near zero, linear far out, without overflow."""
    size = error.abs()
    return (size + torch.nn.functional.softplus(-2 * size) - 0.6931472).mean()
