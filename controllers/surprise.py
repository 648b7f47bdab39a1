"""Has the robot just become another? Page's cumulative sum, on how badly it was foreseen."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

SLACK, ALARM = 1.0, 6.0
"""Errors must lie so many deviations above what is usual, and by so much in all."""
MEMORY = 0.02
"""Weight of the newest error in what is usual."""
FIRST = 20
"""Errors until it is known what is usual."""
LEAST_SPREAD, MOST = 0.5, 3.0
"""Logarithms of errors spread at least so much; one alone counts so many deviations at most."""


class Surprise:
    """Watches each robot's one-step errors for a jump that lasts.

    S ← max(0, S + z − slack) on z, the standardised logarithm of the error; S > alarm is a change,
    and the dynamics changed where S last left nought (Page 1954, "Continuous inspection schemes").
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what is usual."""
        self._mean: Tensor | None = None

    def newest(self, errors: Float[Tensor, " r"]) -> Int[Tensor, " r"]:
        """How many of the newest transitions, this one too, came after a change; 0 for none.

        Args:
            errors: of each robot's newest transition, as it was foreseen by the model in use.
        """
        log = errors.clamp(1e-6, 1e6).nan_to_num(1e6).log()
        if self._mean is None:
            self._mean, self._variance = log.clone(), torch.ones_like(log)
            self._sum, self._since, self._seen = (torch.zeros_like(log) for _ in range(3))
        spread = self._variance.sqrt().clamp_min(LEAST_SPREAD)
        early, z = self._seen < FIRST, (log - self._mean) / spread
        z = torch.where(early, z, z.clamp(-MOST, MOST))
        self._sum = torch.where(early, 0.0, (self._sum + z - SLACK).clamp_min(0))
        self._since = torch.where(self._sum > 0, self._since + 1, 0.0)
        self._seen = self._seen + 1
        weight = torch.maximum(1 / self._seen, torch.tensor(MEMORY))
        away = z * spread
        self._mean = self._mean + weight * away
        self._variance = (1 - weight) * (self._variance + weight * away.square())
        changed = self._sum > ALARM
        found = torch.where(changed, self._since, 0.0).long()
        for record in (self._sum, self._since, self._seen):
            record[changed] = 0.0
        return found
