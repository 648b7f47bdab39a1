"""Run forward at a target speed."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from mbmrl.dynamics import wrap
from mbmrl.spec import RobotSpec
from mbmrl.tasks.base import Task


class SpeedTask(Task):
    """Run forward at a target speed, upright and without leaping.

    Args:
        spec: of a robot with the fields ``vx`` [m/s] and ``pitch`` [rad]; ``vz`` [m/s] counts too
            where there is one.
        speed: target [m/s].
    """

    def __init__(self, spec: RobotSpec, speed: float = 2.5) -> None:
        super().__init__(spec)
        self.speed = speed
        self._vx, self._pitch = spec.index(["vx", "pitch"])

    def cost(
        self, obs: Float[Tensor, "r n h o"], act: Float[Tensor, "r n h u"]
    ) -> Float[Tensor, "r n"]:
        """Squared relative speed error, pitch and rise, and a little effort."""
        slow = (obs[..., self._vx] / self.speed - 1) ** 2
        tilt = wrap(obs[..., self._pitch]) ** 2
        leap = (obs[..., self._vz] ** 2).sum(-1)
        return (slow + tilt + 0.1 * leap + 0.02 * self.effort(act)).mean(-1)

    def gain(self, obs: Float[Tensor, "r o"]) -> Float[Tensor, " r"]:
        """1 at the target speed, falling to 0 at none or twice of it; 0 when fallen."""
        near = (1 - (obs[:, self._vx] / self.speed - 1).abs()).clamp_min(0)
        return near * ~self.fell(obs)
