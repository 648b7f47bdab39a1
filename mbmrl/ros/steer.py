"""Velocity commands from an operator or from Nav2."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from mbmrl.dynamics import wrap
from mbmrl.spec import RobotSpec, view
from mbmrl.tasks import Task


class TwistTask(Task):
    """Move as the newest velocity command says, upright; stand while there is none.

    What counts is the mean velocity over the plan: within a stride, a legged robot's velocity
    swings by more than the command.

    Args:
        spec: of a robot with the field ``vx`` [m/s]; ``vy`` [m/s] and ``yaw_rate`` [rad/s] count
            too where there are any.
        max_speed: commands are kept within it [m/s].
        max_turn: the same of turning [rad/s].
    """

    def __init__(self, spec: RobotSpec, max_speed: float, max_turn: float) -> None:
        super().__init__(spec)
        spec.index("vx")
        limits = {"vx": max_speed, "vy": max_speed, "yaw_rate": max_turn}
        self.fields = [n for n in limits if n in spec.state]
        self._index = view(spec.index(self.fields))
        self._limit = torch.tensor([limits[n] for n in self.fields])
        self.target = torch.zeros(len(self.fields))

    def steer(self, vx: float, vy: float, yaw_rate: float) -> None:
        """The next plans are for this velocity [m/s, m/s, rad/s]."""
        wanted = {"vx": vx, "vy": vy, "yaw_rate": yaw_rate}
        target = torch.tensor([wanted[n] for n in self.fields])
        self.target = target.clamp(-self._limit, self._limit)

    def cost(
        self, obs: Float[Tensor, "r n h o"], act: Float[Tensor, "r n h u"]
    ) -> Float[Tensor, "r n"]:
        """Squared error of the mean velocity [of its limits], tilt and a little effort."""
        off = (obs[..., self._index].mean(-2) - self.target) / self._limit
        tilt = (wrap(obs[..., self._tilt]) ** 2).sum(-1).mean(-1)
        return (off**2).sum(-1) + tilt + 0.02 * self.effort(act).mean(-1)

    def gain(self, obs: Float[Tensor, "r o"]) -> Float[Tensor, " r"]:
        """1 at the command, falling to 0 where the robot is off by the limit; 0 when fallen."""
        off = ((obs[:, self._index] - self.target) / self._limit).norm(dim=-1)
        return (1 - off).clamp_min(0) * ~self.fell(obs)
