"""Track a velocity command that changes every few seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mbmrl.dynamics import wrap
from mbmrl.spec import RobotSpec, view
from mbmrl.tasks.base import Task, named


class VelocityTask(Task):
    """Track a velocity command that changes every few seconds, as from somebody with a joystick.

    Nobody tells the planner what will be commanded next. Its cost is of the velocity at every tick;
    what is gained, of the velocity over a stride or so (:data:`STRIDE_S`), as every step sways.

    Args:
        spec: of a robot with the fields ``vx``, ``vy`` [m/s] and ``yaw_rate`` [rad/s]; ``vz``
            [m/s], ``roll`` and ``pitch`` [rad] count too where there are any.
        commands: names of :data:`COMMANDS`, one a robot.
        speed: of a full command [m/s].
    """

    TURN = 0.8  # yaw rate of a full command [rad/s]
    STRIDE_S = 0.4  # time constant of the mean velocity that is judged [s]

    def __init__(
        self, spec: RobotSpec, commands: Sequence[str] = ("tour",), speed: float = 0.5
    ) -> None:
        super().__init__(spec)
        self.speed = speed
        self.full = torch.tensor([speed, speed, self.TURN])
        self.schedules = [torch.tensor(named("command", n, COMMANDS)) for n in commands]
        self._velocity = view(spec.index(["vx", "vy", "yaw_rate"]))
        self.reset(torch.zeros(len(commands), spec.num_obs))

    def reset(self, obs: Float[Tensor, "r o"]) -> None:
        """Begin with the first command."""
        self._tick = -1
        self.command = torch.zeros(len(obs), 3)
        self._lately = obs[:, self._velocity]

    def observe(self, obs: Float[Tensor, "r o"]) -> None:
        """The command now, and the velocity lately."""
        share = 1 - math.exp(-self.spec.dt / self.STRIDE_S)
        self._lately = self._lately + share * (obs[:, self._velocity] - self._lately)
        self._tick += 1
        now = int(self._tick * self.spec.dt / COMMAND_S + 1e-6)
        self.command = torch.stack([s[now % len(s)] for s in self.schedules]) * self.full

    def cost(
        self, obs: Float[Tensor, "r n h o"], act: Float[Tensor, "r n h u"]
    ) -> Float[Tensor, "r n"]:
        """Squared error in shares of a full command, tilt, hopping [m/s] and a little effort."""
        off = (obs[..., self._velocity] - self.command[:, None, None]) / self.full
        tilt = (wrap(obs[..., self._tilt]) ** 2).sum(-1)
        hop = (obs[..., self._vz] ** 2).sum(-1)
        return ((off**2).sum(-1) + tilt + 0.1 * hop + 0.02 * self.effort(act)).mean(-1)

    def gain(self, obs: Float[Tensor, "r o"]) -> Float[Tensor, " r"]:
        """1 as commanded, falling to 0 at an error as large as a full command; 0 when fallen."""
        off = (self._lately - self.command) / self.full
        return (1 - off.norm(dim=-1)).clamp_min(0) * ~self.fell(obs)


COMMANDS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "forward": ((1, 0, 0),),
    "turns": ((0.5, 0, 1), (0.5, 0, -1)),
    "square": ((1, 0, 0), (0, 0.5, 0), (-0.6, 0, 0), (0, -0.5, 0)),
    "weave": ((1, 0, 0.6), (1, 0, -0.6)),
    "tour": ((1, 0, 0), (0.7, 0, 0.7), (0, 0.5, 0), (0.8, 0, -0.7), (0, 0, 0)),
}
"""One after the other, again and again: vx, vy and yaw rate as shares of a full command."""

COMMAND_S = 3.0
"""How long a command stands [s]."""
