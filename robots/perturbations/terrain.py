"""Ground that is no longer flat."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import mujoco
import numpy as np
from jaxtyping import Float

from robots.perturbations.base import (
    TERRAIN,
    TERRAIN_CELLS,
    Magnitude,
    Perturbation,
    PerturbationError,
    Split,
    floors,
    in_range,
    reach,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from robots.sim import SimRobot


ROUGHNESS = Magnitude(mild=(0.2, 0.6), test=(0.8, 1.0), harsh=(1.2, 1.4))  # of the torso's height
PER_BUMP = 6  # points of the height field from one hill to the next
MARGIN = 1.5  # how far the height field reaches at least, of how far the robot does


@dataclass(frozen=True, kw_only=True)
class Terrain(Perturbation):
    """The floor turns into smooth hills without end, but for a disc under the robot as it begins.

    Attributes:
        roughness: from the lowest hollow to the highest hill [m].
        bump: about how far it is from one hill to the next [m]; the field reaches eight of them.
        seed: which hills; a whole number.
    """

    name: ClassVar[str] = "terrain"
    magnitudes: ClassVar[Mapping[str, float]] = {"roughness": 0.0}

    roughness: float
    bump: float = 0.5
    seed: float = 0.0

    def check(self, robot: SimRobot) -> None:
        """See :class:`Perturbation`; where bumps are too small, the field ends before the feet."""
        in_range("roughness [m]", self.roughness, 0.0, 2.0)
        in_range("seed", self.seed, 0.0, 1e6)
        if self.seed != round(self.seed):
            raise PerturbationError(f"seed is a whole number, not {self.seed:g}")
        if not robot.nominal.nhfield:
            raise PerturbationError(f"{robot.spec.name} stands on no floor that could get rough")
        least = MARGIN * reach(type(robot)) / (TERRAIN_CELLS // 2) * PER_BUMP
        in_range("bump [m]", self.bump, max(0.05, math.ceil(100 * least) / 100), 20.0)

    @property
    def changing(self) -> bool:
        """The height field, which is finite, goes with the robot."""
        return True

    def apply(self, model: mujoco.MjModel, robot: SimRobot) -> None:
        """Hand over from the floor to the height field, whose points stay where they are."""
        cell, half = self.bump / PER_BUMP, TERRAIN_CELLS // 2
        place = robot.data.body(robot.torso).xpos[:2]
        middle = np.round(place / cell).astype(int)
        across, along = (at + np.arange(-half, half + 1) for at in middle)
        hills = _hills(int(self.seed))
        heights = hills[np.ix_(along % len(hills), across % len(hills))]
        x, y = robot.came.get(self.onset, place)
        away = np.hypot(cell * across - x, (cell * along - y)[:, None]) / reach(type(robot))
        heights = 0.5 + np.clip(away - 1, 0, 1) * (heights - 0.5)

        ground = model.geom(TERRAIN).id
        model.hfield_data[:] = heights.ravel()
        model.hfield_size[0] = [half * cell, half * cell, max(self.roughness, 1e-6), 1.0]
        model.geom_pos[ground] = [*(cell * middle), -self.roughness / 2]
        for floor in floors(model):
            if floor != ground:
                for field in (model.geom_contype, model.geom_conaffinity, model.geom_rgba):
                    field[ground] = field[floor]
                model.geom_contype[floor] = model.geom_conaffinity[floor] = 0
                model.geom_rgba[floor, 3] = 0.0

    @classmethod
    def sample(cls, robot: SimRobot, rng: np.random.Generator, split: Split) -> Self:
        """A :data:`ROUGHNESS`; hills about as wide as the robot; any of a thousand seeds."""
        height = float(robot.nominal.body(robot.torso).pos[2])
        return cls(
            roughness=round(ROUGHNESS.draw(rng, split) * height, 3),
            bump=round(float(rng.uniform(0.8, 1.6)) * reach(type(robot)), 2),
            seed=float(rng.integers(1000)),
        )


@cache
def _hills(seed: int) -> Float[np.ndarray, "n n"]:
    """Smooth periodic heights from 0 to 1: white noise without what is shorter than a hill."""
    n = TERRAIN_CELLS - 1
    waves = np.fft.fft2(np.random.default_rng(seed).normal(size=(n, n)))
    k = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(n, 1 / PER_BUMP)]))
    heights = np.fft.ifft2(waves * np.exp(-2 * k**2)).real
    return (heights - heights.min()) / np.ptp(heights)
