"""A slow link: what is sent or measured comes late."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from robots.perturbations.base import (
    Magnitude,
    Perturbation,
    PerturbationError,
    Split,
    in_range,
    one_of,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot


STEPS = Magnitude(mild=(1.0, 1.0), test=(2.0, 3.0), harsh=(4.0, 4.0))
MOST = 20
OF = ("actions", "sensors", "both")


@dataclass(frozen=True, kw_only=True)
class Delay(Perturbation):
    """Commands reach the actuators late, or measurements the controller.

    As it begins, what came last holds until the delay has passed.

    Attributes:
        steps: how late [control steps]; while it grows, the nearest whole number of them.
        of: ``actions``, ``sensors`` or ``both``.
    """

    name: ClassVar[str] = "delay"
    magnitudes: ClassVar[Mapping[str, float]] = {"steps": 0.0}

    steps: float
    of: str = "actions"

    def check(self, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        in_range("steps", self.steps, 0.0, MOST)
        if self.steps != round(self.steps):
            raise PerturbationError(f"steps is a whole number of control steps, not {self.steps:g}")
        one_of("of", self.of, OF)

    def actuator_memory(self, robot: SimRobot) -> Float[np.ndarray, " c"] | None:
        """The simulation steps of a control step, and the commands under way, oldest first."""
        if self.of == "sensors":
            return None
        under_way = np.tile(robot.data.ctrl, round(self.steps) * robot.substeps)
        return np.r_[float(robot.substeps), under_way]

    def actuate(
        self, memory: Float[np.ndarray, "n c"], ctrl: Float[np.ndarray, "n s a"]
    ) -> tuple[Float[np.ndarray, "n s a"], Float[np.ndarray, "n c"]]:
        """See :class:`Perturbation`."""
        n, now, a = ctrl.shape
        line = np.concatenate([memory[:, 1:].reshape(n, -1, a), ctrl], 1)
        oldest = line.shape[1] - now - round(self.steps) * int(memory[0, 0])
        kept = line[:, now:].reshape(n, -1)
        return line[:, oldest : oldest + now], np.concatenate([memory[:, :1], kept], 1)

    def sensor_memory(self, robot: SimRobot) -> Float[np.ndarray, " c"] | None:
        """What was measured so far, oldest first."""
        return None if self.of == "actions" else np.tile(robot.measured(), round(self.steps))

    def sense(
        self,
        memory: Float[np.ndarray, " c"],
        obs: Float[np.ndarray, " o"],
        rng: np.random.Generator,
    ) -> tuple[Float[np.ndarray, " o"], Float[np.ndarray, " c"]]:
        """See :class:`Perturbation`."""
        line = np.concatenate([memory, obs]).reshape(-1, obs.size)
        return line[-1 - round(self.steps)], line[1:].ravel()

    @classmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """Some :data:`STEPS`, of actions or of sensors."""
        return cls(steps=float(round(STEPS.draw(rng, split))), of=str(rng.choice(OF)))
