"""How a part of an episode went: score, errors, falls, and how soon a robot recovered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mbmrl.episode import Log
from robots.perturbations.base import Perturbation

SMOOTH_S, SHOWS_S = 0.5, 3.0
"""Over how long gains are averaged, and how soon a loss shows, where recovery is timed [s]."""
MODEL_ERRORS = (
    "pred_error_prior",
    "pred_error_adapted",
    "open_loop_error_prior",
    "open_loop_error_adapted",
)
"""Columns of the log, and of :class:`Row`, that say how well a learned model foresaw."""


class Phase(NamedTuple):
    """How a part of an episode went; the fields are those of :class:`Row`."""

    return_: float
    score: float
    cross_track_m: float
    fell: bool
    pred_error_prior: float
    pred_error_adapted: float
    open_loop_error_prior: float
    open_loop_error_adapted: float


def phase(log: Log, lane: int, ticks: slice, dt: float) -> Phase:
    """Measure one robot over some ticks."""

    def mean_of(values: Float[np.ndarray, "t r"] | None) -> float:
        if values is None:
            return math.nan
        there = values[ticks, lane]
        there = there[~np.isnan(there)]
        return float(there.mean()) if there.size else math.nan

    return Phase(
        return_=-float(log.cost[ticks, lane].sum() * dt),
        score=mean_of(log.gain),
        cross_track_m=mean_of(log.cross_track),
        fell=bool(log.fell[ticks, lane].any()),
        **{name: mean_of(log.info.get(name)) for name in MODEL_ERRORS},
    )


def recovery(gain: Float[np.ndarray, " t"], dt: float) -> float:
    """How long after an onset a robot was back to nine tenths of what it reaches in the end [s].

    Gains are averaged over :data:`SMOOTH_S`; what it reaches in the end is the mean of the last
    half. The loss shows as their least value within :data:`SHOWS_S`, and the time counts until they
    are back: 0 where they were never below, all the time there was where they never come back or
    nothing is reached.

    Args:
        gain: from the onset on.
        dt: control period [s].

    Returns:
        [s]; NaN for less than twice the time in which a loss shows.
    """
    width, shows = max(1, round(SMOOTH_S / dt)), round(SHOWS_S / dt)
    if len(gain) < 2 * shows:
        return math.nan
    wanted = 0.9 * gain[len(gain) // 2 :].mean()
    mean = np.convolve(gain, np.full(width, 1 / width), "valid")
    lowest = int(mean[:shows].argmin())
    if mean[lowest] >= wanted > 0:
        return 0.0
    back = np.flatnonzero(mean[lowest:] >= wanted)
    if wanted <= 0 or not back.size:
        return len(gain) * dt
    return float((lowest + back[0] + width) * dt)


def from_onset(condition: Sequence[Perturbation], dt: float) -> slice:
    """The ticks whose observations a condition shaped: what happens at one shows at the next."""
    onset = min((p.onset for p in condition), default=0.0)
    return slice(math.ceil(onset / dt - 1e-6) + 1, None)
