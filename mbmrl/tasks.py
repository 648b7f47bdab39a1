"""What a robot should do: batched costs by field name, and the measures that reports use."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mbmrl.dynamics import wrap
from mbmrl.spec import RobotSpec, SpecError, view

T = TypeVar("T")

FALLEN = 1.0
"""A robot that rolls or pitches beyond this has fallen [rad]."""
LENGTH = 1200.0
"""Of a hexapod's path [m]: an hour and a half at its speed."""


class Task(ABC):
    """The sole definition of what is wanted: the planner's cost and the report's measures.

    Batched over r robots, each with its own place on its own path.

    Args:
        spec: of the robot; the task takes its fields by name.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self.spec = spec
        fields = {f.name: i for i, f in enumerate(spec.obs)}
        self._tilt = view([fields[n] for n in ("roll", "pitch") if n in fields])
        self._vz = view([fields[n] for n in ("vz",) if n in fields])
        self._rest = torch.from_numpy(spec.rest).float()
        self._reach = torch.from_numpy((spec.act_high - spec.act_low) / 2).float()

    def reset(self, obs: Float[Tensor, "r o"]) -> None:  # noqa: B027, a task may have no memory
        """Begin an episode at these observations."""

    def observe(self, obs: Float[Tensor, "r o"]) -> None:  # noqa: B027
        """Take note of where the robots are now; called once a tick before planning."""

    @abstractmethod
    def cost(
        self, obs: Float[Tensor, "r n h o"], act: Float[Tensor, "r n h u"]
    ) -> Float[Tensor, "r n"]:
        """Cost of what h next observations and actions would be; lower is better."""

    @abstractmethod
    def gain(self, obs: Float[Tensor, "r o"]) -> Float[Tensor, " r"]:
        """How well the last tick went: 1 as wanted, 0 worthless. Its mean is the score."""

    def effort(self, act: Float[Tensor, "*b u"]) -> Float[Tensor, "*b"]:
        """Mean square of how far the actions are from rest, in halves of their ranges."""
        return (((act - self._rest) / self._reach) ** 2).mean(-1)

    def cross_track(self, obs: Float[Tensor, "r o"]) -> Float[Tensor, " r"]:
        """Distance from the path [m]; NaN where there is none."""
        return torch.full(obs.shape[:1], math.nan)

    def fell(self, obs: Float[Tensor, "r o"]) -> Bool[Tensor, " r"]:
        """Whether the robot lies on its side or back."""
        return (wrap(obs[:, self._tilt]).abs() > FALLEN).any(-1)


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
        self.path = torch.stack([_path(name, self.STEP, size) for name in paths])
        self._pose = _pose(spec)
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
        path = torch.stack([_path(name, PathTask.STEP, size) for name in paths])
        targets = path[:, every::every, :2]
        self._place = _pose(spec)[:2]
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
        self.schedules = [torch.tensor(_named("command", n, COMMANDS)) for n in commands]
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
        self.directions = torch.tensor([_named("direction", n, DIRECTIONS) for n in directions])
        self._yaw = _pose(spec)[2]
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


def _pose(spec: RobotSpec) -> list[int]:
    """Where x, y and yaw stand among the observations."""
    if not spec.pose:
        raise SpecError(f"{spec.name} has no pose: it cannot tell where it is")
    return spec.index(spec.pose)


@cache
def _path(name: str, step: float, size: float) -> Float[Tensor, "p 3"]:
    """x, y [m] and heading [rad] every ``step`` metres, from the origin along x."""
    s = np.arange(0, LENGTH, step)
    curvature = _named("path", name, PATHS)(s)
    heading = np.cumsum(curvature) * step
    x = np.cumsum(np.cos(heading)) * step
    y = np.cumsum(np.sin(heading)) * step
    at = np.arange(0, LENGTH * size, step) / size
    rows = [np.interp(at, s, column) for column in (size * x, size * y, heading)]
    return torch.tensor(np.stack(rows, -1), dtype=torch.float32)


def _named(what: str, name: str, known: Mapping[str, T]) -> T:
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}: choose from {', '.join(known)}")
    return known[name]


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

DIRECTIONS: dict[str, float] = {
    "back": math.pi,
    "right": -math.pi / 2,
    "left": math.pi / 2,
    "ahead": 0.0,
}
"""From the world's x axis [rad]."""

COURSES: dict[str, list[str]] = {
    "path": list(PATHS),
    "reach": list(PATHS),
    "velocity": list(COMMANDS),
    "direction": list(DIRECTIONS),
    "speed": [],
}
"""Every task, and what it can be told by name to do."""


def usual(task: str, count: int = 1) -> tuple[str, ...]:
    """What is to be done where nobody says, the last courses first; one empty name for none."""
    return tuple(COURSES.get(task, [])[::-1][:count]) or ("",)


def offered(own: str, spec: RobotSpec) -> dict[str, str]:
    """Every course that a robot can be given, with its task: first those of the task of its own.

    Args:
        own: its task, one of :data:`COURSES`.
        spec: tells what it measures; a model of how it moves serves every task.
    """
    found = dict.fromkeys(COURSES[own] or [""], own)
    for task in COURSES:
        if task != own and _fits(task, spec):
            found |= {course: task for course in COURSES[task] if course not in found}
    return found


def _fits(task: str, spec: RobotSpec) -> bool:
    """Whether the robot measures what the task is about."""
    try:
        make(task, spec, usual(task))
    except SpecError:
        return False
    return True


def make(
    name: str,
    spec: RobotSpec,
    courses: Sequence[str],
    speed: float | None = None,
    size: float = 1.0,
) -> Task:
    """The task of that name for as many robots as there are courses.

    Args:
        name: one of :data:`COURSES`.
        spec: of the robots.
        courses: names from :data:`COURSES`, one a robot; empty ones for a task that has none.
        speed: target [m/s]; the task's own where there is none.
        size: of paths, in that of a hexapod's.
    """
    target = {} if speed is None else {"speed": speed}
    if name == "path":
        return PathTask(spec, courses, size=size, **target)
    if name == "reach":
        return ReachTask(spec, courses, size=size, **target)
    if name == "velocity":
        return VelocityTask(spec, courses, **target)
    if name == "direction":
        return DirectionTask(spec, courses, **target)
    if name == "speed":
        return SpeedTask(spec, **target)
    raise ValueError(f"unknown task {name!r}: choose from {', '.join(COURSES)}")
