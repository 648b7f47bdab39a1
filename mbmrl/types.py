"""The few types that every part of the project shares.

Axes: r robots, n samples (candidates), h horizon, m window, o obs, u act.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

RolloutFn = Callable[[Float[Tensor, "r o"], Float[Tensor, "r n h u"]], Float[Tensor, "r n h o"]]
"""What would happen: from each robot's obs, every candidate's next h observations."""

CostFn = Callable[[Float[Tensor, "r n h o"], Float[Tensor, "r n h u"]], Float[Tensor, "r n"]]
"""How bad each candidate is; lower is better, NaN or inf is never chosen."""


class Transitions(NamedTuple):
    """What the robot did: ``next_obs`` followed on ``obs`` under the action really sent."""

    obs: Float[Tensor, "*b m o"]
    act: Float[Tensor, "*b m u"]
    next_obs: Float[Tensor, "*b m o"]


@dataclass(frozen=True)
class Plan:
    """A planner's answer for r robots.

    Attributes:
        action: what to do now, (r, u).
        actions: the whole plan, (r, h, u).
        predicted: the observations that the model expects under it, (r, h, o).
        cost: its cost, (r,).
        spread: standard deviation of the candidates that the plan was made of, (r, h, u).
        valid: False where every candidate was invalid and the fallback stands in, (r,).
        info: further per-robot numbers for the log (adaptation, gate), each (r,).
    """

    action: Float[Tensor, "r u"]
    actions: Float[Tensor, "r h u"]
    predicted: Float[Tensor, "r h o"]
    cost: Float[Tensor, " r"]
    spread: Float[Tensor, "r h u"]
    valid: Bool[Tensor, " r"]
    info: dict[str, Tensor] = field(default_factory=dict)
