"""What every task defines: the planner's cost, and the measures that reports use."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mbmrl.dynamics import wrap
from mbmrl.spec import RobotSpec, SpecError, view

T = TypeVar("T")

FALLEN = 1.0
"""A robot that rolls or pitches beyond this has fallen [rad]."""


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


def pose_of(spec: RobotSpec) -> list[int]:
    """Where x, y and yaw stand among the observations."""
    if not spec.pose:
        raise SpecError(f"{spec.name} has no pose: it cannot tell where it is")
    return spec.index(spec.pose)


def named(what: str, name: str, known: Mapping[str, T]) -> T:
    """The one of that name; raises :class:`ValueError` with the names there are."""
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}: choose from {', '.join(known)}")
    return known[name]
