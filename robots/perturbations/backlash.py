"""Play in the gears."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from robots.perturbations.base import Magnitude, Perturbation, Split, in_range, servo_range

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot


GAP = Magnitude(mild=(0.02, 0.07), test=(0.1, 0.15), harsh=(0.2, 0.25))


@dataclass(frozen=True, kw_only=True)
class Backlash(Perturbation):
    """What an actuator drives follows its command only once the gap is crossed.

    Attributes:
        gap: of the range of each command.
    """

    name: ClassVar[str] = "backlash"
    magnitudes: ClassVar[Mapping[str, float]] = {"gap": 0.0}

    gap: float

    def check(self, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        in_range("gap", self.gap, 0.0, 1.0)
        servo_range(robot)

    def actuator_memory(self, robot: SimRobot) -> Float[np.ndarray, " c"]:
        """The range of each actuator, and where it is: in the middle of its gap."""
        return np.concatenate([servo_range(robot), robot.data.ctrl])

    def actuate(
        self, memory: Float[np.ndarray, "n c"], ctrl: Float[np.ndarray, "n s a"]
    ) -> tuple[Float[np.ndarray, "n s a"], Float[np.ndarray, "n c"]]:
        """See :class:`Perturbation`."""
        span, at = np.split(memory, 2, axis=1)
        play = self.gap / 2 * span
        followed = np.empty_like(ctrl)
        for step in range(ctrl.shape[1]):
            at = np.clip(at, ctrl[:, step] - play, ctrl[:, step] + play)
            followed[:, step] = at
        return followed, np.concatenate([span, at], 1)

    @classmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """A :data:`GAP`."""
        return cls(gap=round(GAP.draw(rng, split), 3))
