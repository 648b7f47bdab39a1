"""The intervals that reports quote: bootstraps over conditions first, then over episodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mbmrl.rows import Row

Statistic = Callable[[Float[np.ndarray, "n k"]], Float[np.ndarray, " n"]]
"""From the means of k columns to one number, for n resamples at once."""


class Interval(NamedTuple):
    """An estimate and its 95 % interval; NaN at both ends where one episode is all there is."""

    estimate: float
    low: float
    high: float

    def text(self, *, scale: float = 1.0, digits: int = 2, interval: bool = True) -> str:
        """``0.84 [0.79, 0.88]``."""
        if not math.isfinite(self.estimate):
            return "–"
        shown = f"{scale * self.estimate:.{digits}f}"
        if not interval or not math.isfinite(self.low + self.high):
            return shown
        return f"{shown} [{scale * self.low:.{digits}f}, {scale * self.high:.{digits}f}]"


def bootstrap(
    values: Iterable[Float[np.ndarray, "_ k"]],
    statistic: Statistic = lambda means: means[:, 0],
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> Interval:
    """Hierarchical percentile bootstrap: conditions are resampled first, episodes within them.

    Columns stay together, so what is compared stays paired. With a single condition the interval
    is for that condition; with one episode each, for the conditions alone.

    Args:
        values: of each condition k columns, with a row an episode; every condition counts alike.
        statistic: of the columns' means; the first column's mean when left out.
        seed: of the resampling.
        resamples: how many.
    """
    found = [np.asarray(v) for v in values]
    count = np.array([len(v) for v in found])
    c, e = len(found), count.max()
    filled = np.stack([np.pad(v, ((0, e - len(v)), (0, 0))) for v in found])
    driven = np.arange(e) < count[:, None]
    estimate = float(statistic(_means(filled, driven)[None])[0])
    if count.sum() == 1 or not math.isfinite(estimate):
        return Interval(estimate, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    which = rng.integers(c, size=(resamples, c))
    episodes = rng.integers(math.lcm(*count.tolist()), size=(resamples, c, e))
    some = filled[which[..., None], episodes % count[which][..., None]]
    resampled = statistic(_means(some, driven[which]))
    return Interval(estimate, *(float(q) for q in np.quantile(resampled, (0.025, 0.975))))


def _means(
    values: Float[np.ndarray, "*b c e k"], driven: Bool[np.ndarray, "*b c e"]
) -> Float[np.ndarray, "*b k"]:
    """Over the episodes of each condition that were driven, then over the conditions."""
    of_each = (values * driven[..., None]).sum(-2) / driven.sum(-1)[..., None]
    mean: Float[np.ndarray, "*b k"] = of_each.mean(-2)
    return mean


def mean(rows: Sequence[Row], column: str, agent: str) -> Interval:
    """An agent's mean of one of the columns of :class:`Row`."""
    return bootstrap(_pivot(rows, column, [agent]))


def difference(rows: Sequence[Row], column: str, agent: str, other: str) -> Interval:
    """How much more one agent has than another, paired by condition, path and seed."""
    return bootstrap(_pivot(rows, column, [agent, other]), lambda m: m[:, 0] - m[:, 1])


def ratio(rows: Sequence[Row], column: str, agent: str, other: str) -> Interval:
    """One agent's mean as a fraction of another's, paired by condition, path and seed."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return bootstrap(_pivot(rows, column, [agent, other]), lambda m: m[:, 0] / m[:, 1])


def gap_closed(rows: Sequence[Row], agent: str) -> Interval:
    """How much of what the oracle scores above the frozen prior an agent gets, paired likewise."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return bootstrap(
            _pivot(rows, "score", [agent, "frozen", "oracle"]),
            lambda m: (m[:, 0] - m[:, 1]) / (m[:, 2] - m[:, 1]),
        )


def _pivot(
    rows: Sequence[Row], column: str, agents: Sequence[str]
) -> list[Float[np.ndarray, "_ k"]]:
    """Of each condition a value for each episode and agent; NaN where they have none in common.

    What one of them did not drive on a path is left out for all. An agent that drove fewer
    episodes than another (the oracle is slow) stands beside each of the other's with its mean on
    the same condition and path.
    """
    cells: dict[tuple[str, str], dict[str, list[float]]] = {}
    # a stable sort, so that rows of several checkpoints are paired in the order they came
    for row in sorted(rows, key=lambda r: r.seed):
        cell = cells.setdefault((row.perturbation, row.path), {a: [] for a in agents})
        if row.agent in cell:
            cell[row.agent].append(getattr(row, column))
    by_condition: dict[str, list[Float[np.ndarray, "e k"]]] = {}
    for (name, _), cell in sorted(cells.items()):
        if not all(cell.values()):
            continue
        most = max(len(values) for values in cell.values())
        values = [cell[a] for a in agents]
        columns = [v if len(v) == most else [float(np.mean(v))] * most for v in values]
        by_condition.setdefault(name, []).append(np.array(columns, float).T)
    nothing = np.full((1, len(agents)), math.nan)
    return [np.concatenate(parts) for parts in by_condition.values()] or [nothing]
