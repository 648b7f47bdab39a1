"""Sensors that are off, that tremble, that fall silent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from robots.perturbations.base import Magnitude, Perturbation, PerturbationError, Split, in_range

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot


BIAS = Magnitude(mild=(0.05, 0.3), test=(0.4, 0.6), harsh=(0.8, 1.0))
NOISE = Magnitude(mild=(0.03, 0.15), test=(0.2, 0.3), harsh=(0.4, 0.5))
DROPOUT = Magnitude(mild=(0.05, 0.25), test=(0.3, 0.45), harsh=(0.55, 0.7))


@dataclass(frozen=True, kw_only=True)
class SensorNoise(Perturbation):
    """Every measured field is off by a constant, noisy, or holds its last value at times.

    Amounts are shares of the spread that a field has while the undamaged robot moves at random,
    so that one number means the same for metres and for radians.

    Attributes:
        bias: standard deviation of the constants, one a field, drawn as it begins.
        noise: standard deviation of what is drawn for each field at each control step.
        dropout: probability that a field holds what it told last, for each at each control step.
    """

    name: ClassVar[str] = "sensor_noise"
    magnitudes: ClassVar[Mapping[str, float]] = {"bias": 0.0, "noise": 0.0, "dropout": 0.0}

    bias: float = 0.0
    noise: float = 0.0
    dropout: float = 0.0

    def check(self, robot: SimRobot) -> None:
        """See :class:`Perturbation`."""
        in_range("bias", self.bias, 0.0, 10.0)
        in_range("noise", self.noise, 0.0, 10.0)
        in_range("dropout", self.dropout, 0.0, 1.0)
        if not (self.bias or self.noise or self.dropout):
            raise PerturbationError("sensor_noise needs a bias=, a noise= or a dropout=")

    def sensor_memory(self, robot: SimRobot) -> Float[np.ndarray, " c"]:
        """Each field's spread, its constant, and what it told last."""
        spread = _spread(type(robot))
        constant = spread * robot.noise.normal(size=spread.size)
        return np.concatenate([spread, constant, robot.measured()])

    def sense(
        self,
        memory: Float[np.ndarray, " c"],
        obs: Float[np.ndarray, " o"],
        rng: np.random.Generator,
    ) -> tuple[Float[np.ndarray, " o"], Float[np.ndarray, " c"]]:
        """See :class:`Perturbation`."""
        spread, constant, last = np.split(memory, 3)
        told = obs + self.bias * constant + self.noise * spread * rng.normal(size=obs.size)
        told = np.where(rng.random(obs.size) < self.dropout, last, told)
        return told, np.concatenate([spread, constant, told])

    @classmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """A :data:`BIAS`, a :data:`NOISE` or a :data:`DROPOUT`."""
        kind, how_much = (("bias", BIAS), ("noise", NOISE), ("dropout", DROPOUT))[rng.integers(3)]
        return cls(**{kind: round(how_much.draw(rng, split), 3)})


@cache
def _spread(robot: type[SimRobot]) -> Float[np.ndarray, " o"]:
    """How far each measured field of the undamaged robot strays from its mean at random actions."""
    probe, rng, seen = robot(), np.random.default_rng(0), []
    probe.reset()
    for _ in range(100):
        probe.write(rng.uniform(probe.spec.act_low, probe.spec.act_high))
        seen.append(probe.measured())
    return np.std(seen, axis=0)
