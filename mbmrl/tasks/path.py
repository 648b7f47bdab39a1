"""Follow a path at a target speed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbmrl.spec import RobotSpec
from mbmrl.tasks.base import Task, named, pose_of

LENGTH = 1200.0
"""Of a hexapod's path [m]: an hour and a half at its speed."""


class PathTask(Task):
    """Follow a path at a target speed.

    A schedule runs along the path at the target speed, and waits for a robot that is held up:
    it is never more than :data:`LEAD_S` ahead of the robot's own progress, so that a late robot
    goes on from where it is instead of cutting corners to catch up.

    Args:
        spec: of a robot with a pose.
        paths: names of :data:`PATHS`, one a robot.
        speed: along the path [m/s].
        size: of the path, and of what is near it, in that of a hexapod's.
    """

    STEP = 0.01  # spacing of the polyline [m]
    LEAD_S = 0.3  # how far the schedule runs ahead of the robot at most [s]
    AHEAD = 0.16  # a heading counts as what it leads to so far on, for a hexapod [m]
    TOLERANCE = 0.08  # the schedule counts only while the robot is this near the path [m]

    def __init__(
        self,
        spec: RobotSpec,
        paths: Sequence[str] = ("eight",),
        speed: float = 0.2,
        size: float = 1.0,
    ) -> None:
        super().__init__(spec)
        self.names, self.speed, self.size = tuple(paths), speed, size
        self.path = torch.stack([polyline(name, self.STEP, size) for name in paths])
        self._pose = pose_of(spec)
        self.reset(torch.zeros(len(paths), spec.num_obs))

    def reset(self, obs: Float[Tensor, "r o"]) -> None:
        """Paths begin at the world's origin, along x."""
        self.progress = torch.zeros(obs.shape[0])
        self.schedule = torch.zeros(obs.shape[0])
        self._kept = torch.zeros(obs.shape[0])

    def observe(self, obs: Float[Tensor, "r o"]) -> None:
        """Progress to the nearest point around where it was; the schedule moves on, or waits."""
        near = self.progress[:, None] + torch.arange(-0.05, 0.25 * self.size, self.STEP)
        distance = (self._at(near)[..., :2] - obs[:, None, self._pose[:2]]).norm(dim=-1)
        self.progress = near.gather(1, distance.argmin(1, keepdim=True))[:, 0].clamp_min(0)
        before, step = self.schedule, self.speed * self.spec.dt
        moved = torch.minimum(before + step, self.progress + self.LEAD_S * self.speed)
        self.schedule = torch.maximum(before, moved)
        self._kept = (self.schedule - before) / step

    def cost(
        self, obs: Float[Tensor, "r n h o"], act: Float[Tensor, "r n h u"]
    ) -> Float[Tensor, "r n"]:
        """Squared distance from the path, lag and heading [5 cm · size], tilt, a little effort.

        Lag counts along the path, and beyond 2.5 cm only in proportion: a robot that is too weak
        for the target speed keeps to its path, and cuts no corners to be near where it should be.
        A wrong heading counts as where it leads to: a slow robot gets nowhere within the horizon.
        """
        r, n, h, _ = obs.shape
        near, step = 0.05 * self.size, self.speed * self.spec.dt
        reach = torch.arange(-near, near + self.LEAD_S * self.speed + h * step, self.STEP)
        x, y, heading = self._at(self.progress[:, None] + reach)[..., None].unbind(-2)
        place = obs[..., self._pose].reshape(r, 1, n * h, -1)
        squared, at = ((place[..., 0] - x) ** 2 + (place[..., 1] - y) ** 2).min(1)
        turned = place[:, 0, :, 2] - heading[..., 0].gather(1, at)
        astray = 2.0 * (1 - torch.cos(turned)) * (self.AHEAD * self.size) ** 2
        off = ((squared + astray) / near**2).view(r, n, h)
        made = (self.progress[:, None] + reach[at]).view(r, n, h)
        lag = (self.schedule[:, None, None] + torch.arange(1, h + 1) * step - made) / near
        late = 2.0 * nn.functional.huber_loss(
            lag, torch.zeros_like(lag), reduction="none", delta=0.5
        )
        tilt = (obs[..., self._tilt] ** 2).sum(-1)
        return (off + late + 2.0 * tilt + 0.05 * self.effort(act)).mean(-1)

    def gain(self, obs: Float[Tensor, "r o"]) -> Float[Tensor, " r"]:
        """How much of its step the schedule moved on, while the robot was within the tolerance."""
        return self._kept * (self.cross_track(obs) < self.TOLERANCE * self.size)

    def cross_track(self, obs: Float[Tensor, "r o"]) -> Float[Tensor, " r"]:
        """See :class:`Task`."""
        here = self._at(self.progress[:, None])[:, 0, :2]
        return (obs[:, self._pose[:2]] - here).norm(dim=-1)

    def _at(self, progress: Float[Tensor, "r k"]) -> Float[Tensor, "r k 3"]:
        index = (progress / self.STEP).round().long().clamp(0, self.path.shape[1] - 1)
        return self.path[torch.arange(len(index))[:, None], index]


@cache
def polyline(name: str, step: float, size: float) -> Float[Tensor, "p 3"]:
    """x, y [m] and heading [rad] every ``step`` metres, from the origin along x."""
    s = np.arange(0, LENGTH, step)
    curvature = named("path", name, PATHS)(s)
    heading = np.cumsum(curvature) * step
    x = np.cumsum(np.cos(heading)) * step
    y = np.cumsum(np.sin(heading)) * step
    at = np.arange(0, LENGTH * size, step) / size
    rows = [np.interp(at, s, column) for column in (size * x, size * y, heading)]
    return torch.tensor(np.stack(rows, -1), dtype=torch.float32)


def _zigzag(s: np.ndarray) -> np.ndarray:
    """Turns of ±60°, one a metre, each on an arc of 30 cm radius, after a half-turn of 30°."""
    arc = math.radians(60) * 0.3
    phase = np.mod(s, 1.0)
    sign = np.where(np.floor(s) % 2 == 0, -1.0, 1.0)
    first = np.where(s < arc / 2, 1 / 0.3, 0.0)
    turning = (phase > 1 - arc) * sign / 0.3
    return first + turning


PATHS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "straight": lambda s: np.zeros_like(s),
    "arc": lambda s: np.full_like(s, 1 / 1.2),
    "zigzag": _zigzag,
    "eight": lambda s: np.where(np.floor(s / (2 * math.pi * 0.8)) % 2 == 0, 1.0, -1.0) / 0.8,
}
"""Curvature [1/m] along each path."""
