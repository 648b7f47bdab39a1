"""Run in a direction of the world."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mbmrl.dynamics import wrap
from mbmrl.spec import RobotSpec
from mbmrl.tasks.base import Task, named, pose_of


class DirectionTask(Task):
    """Run at a target speed in a direction of the world, facing anywhere.

    Args:
        spec: of a robot with a pose and the fields ``vx`` and ``vy`` [m/s]; ``vz`` [m/s], ``roll``
            and ``pitch`` [rad] count too where there are any.
        directions: names of :data:`DIRECTIONS`, one a robot.
        speed: target [m/s].
    """

    def __init__(
        self, spec: RobotSpec, directions: Sequence[str] = ("ahead",), speed: float = 1.0
    ) -> None:
        super().__init__(spec)
        self.speed = speed
        self.directions = torch.tensor([named("direction", n, DIRECTIONS) for n in directions])
        self._yaw = pose_of(spec)[2]
        self._vx, self._vy = spec.index(["vx", "vy"])

    def cost(
        self, obs: Float[Tensor, "r n h o"], act: Float[Tensor, "r n h u"]
    ) -> Float[Tensor, "r n"]:
        """Squared relative velocity error, tilt, hopping [m/s] and a little effort."""
        off = self._off(obs, self.directions[:, None, None])
        tilt = (wrap(obs[..., self._tilt]) ** 2).sum(-1)
        hop = (obs[..., self._vz] ** 2).sum(-1)
        return (off + tilt + 0.1 * hop + 0.02 * self.effort(act)).mean(-1)

    def gain(self, obs: Float[Tensor, "r o"]) -> Float[Tensor, " r"]:
        """1 at the target velocity, falling to 0 at an error as large as it; 0 when fallen."""
        return (1 - self._off(obs, self.directions).sqrt()).clamp_min(0) * ~self.fell(obs)

    def _off(
        self, obs: Float[Tensor, "*b o"], directions: Float[Tensor, "*c"]
    ) -> Float[Tensor, "*b"]:
        """Squared distance of the velocity from the wanted one, in shares of the target speed."""
        angle = directions - obs[..., self._yaw]
        vx, vy = obs[..., self._vx] / self.speed, obs[..., self._vy] / self.speed
        return (vx - torch.cos(angle)) ** 2 + (vy - torch.sin(angle)) ** 2


DIRECTIONS: dict[str, float] = {
    "back": math.pi,
    "right": -math.pi / 2,
    "left": math.pi / 2,
    "ahead": 0.0,
}
"""From the world's x axis [rad]."""
