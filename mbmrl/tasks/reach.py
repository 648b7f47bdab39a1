"""Reach targets, one after another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mbmrl.spec import RobotSpec
from mbmrl.tasks.base import Task, pose_of
from mbmrl.tasks.path import PathTask, polyline


class ReachTask(Task):
    """Reach targets, one after another, at a target speed.

    The targets lie along a path and, for a robot with a height, above and below it in turn. A
    robot that comes near one is given the next. Its progress is the least way that it ever had
    left; as on a path, a schedule runs at the target speed and waits for it, so that neither
    swinging to and fro nor swimming past a target is worth anything.

    Args:
        spec: of a robot with a pose; ``z`` [m] counts too where there is one.
        paths: names of :data:`PATHS`, one a robot.
        speed: towards the target [m/s].
        size: of the path, and of what counts as near, as for :class:`PathTask`.
    """

    SPACING = 0.6  # of the targets along the path [m]
    NEAR = 0.1  # a target counts as reached [m]
    LEAD_S = 0.3  # how far the schedule runs ahead of the robot at most [s]
    RISE = 0.1  # of the targets above and below the height that the robot has at first [m]

    def __init__(
        self,
        spec: RobotSpec,
        paths: Sequence[str] = ("eight",),
        speed: float = 0.2,
        size: float = 1.0,
    ) -> None:
        super().__init__(spec)
        self.names, self.speed, self.size = tuple(paths), speed, size
        every = round(self.SPACING * size / PathTask.STEP)
        path = torch.stack([polyline(name, PathTask.STEP, size) for name in paths])
        targets = path[:, every::every, :2]
        self._place = pose_of(spec)[:2]
        if "z" in spec.state:
            self._place += spec.index("z")
            height = self.RISE * size * (-1.0) ** torch.arange(targets.shape[1])
            targets = torch.cat([targets, height.expand(len(paths), -1)[..., None]], -1)
        self._offsets = targets
        self.reset(torch.zeros(len(paths), spec.num_obs))

    def reset(self, obs: Float[Tensor, "r o"]) -> None:
        """Paths begin at the world's origin, along x, at the height of the robot."""
        start = torch.zeros(len(obs), 1, len(self._place))
        start[..., 2:] = obs[:, None, self._place[2:]]
        self.targets = start + self._offsets
        legs = torch.cat([start, self.targets], 1).diff(dim=1).norm(dim=-1)
        self._way = legs.cumsum(1)
        self.at = torch.zeros(len(obs), dtype=torch.long)
        self.progress = self.schedule = self._kept = torch.zeros(len(obs))

    def observe(self, obs: Float[Tensor, "r o"]) -> None:
        """A target may be reached, progress made; the schedule moves on, or waits."""
        near = self.distance(obs[:, None])[:, 0] < self.NEAR * self.size
        self.at = (self.at + near).clamp(max=self.targets.shape[1] - 1)
        here = self._until() - self.distance(obs[:, None])[:, 0]
        self.progress = torch.maximum(self.progress, here)
        before, step = self.schedule, self.speed * self.spec.dt
        moved = torch.minimum(before + step, self.progress + self.LEAD_S * self.speed)
        self.schedule = torch.maximum(before, moved)
        self._kept = (self.schedule - before) / step

    def cost(
        self, obs: Float[Tensor, "r n h o"], act: Float[Tensor, "r n h u"]
    ) -> Float[Tensor, "r n"]:
        """Squared lag behind the schedule [5 cm · size], tilt and a little effort."""
        r, n, h, o = obs.shape
        ahead = torch.arange(1, h + 1) * (self.speed * self.spec.dt)
        left = (self._until()[:, None] - self.schedule[:, None] - ahead).clamp_min(0)[:, None]
        distance = self.distance(obs.reshape(r, n * h, o)).view(r, n, h)
        late = (distance - left) ** 2 / (0.05 * self.size) ** 2
        tilt = (obs[..., self._tilt] ** 2).sum(-1)
        return (late + 0.5 * tilt + 0.05 * self.effort(act)).mean(-1)

    def gain(self, obs: Float[Tensor, "r o"]) -> Float[Tensor, " r"]:
        """How much of its step the schedule moved on."""
        return self._kept

    def distance(self, obs: Float[Tensor, "r k o"]) -> Float[Tensor, "r k"]:
        """To the target that is the robot's next [m]."""
        target = self.targets[torch.arange(len(self.at)), self.at]
        return (obs[..., self._place] - target[:, None]).norm(dim=-1)

    def _until(self) -> Float[Tensor, " r"]:
        """Length of the way through all targets up to the next [m]."""
        return self._way.gather(1, self.at[:, None])[:, 0]
