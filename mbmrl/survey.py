"""What is in a folder of recordings: minutes, coverage of every field, gaps, suspicious numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich import box
from rich.markup import escape
from rich.table import Table

from mbmrl import doubts
from mbmrl.log import whole
from mbmrl.plot import COLOURS, DAMAGE, FAINT, INK, STYLE
from mbmrl.recording import Recording, RecordingError
from mbmrl.spec import Field

BINS = 20
"""A field's range is covered where a bin of it, of so many, was visited."""


@dataclass(frozen=True)
class Gap:
    """A place where a recording cannot be taken for one motion.

    Attributes:
        recording: its name.
        at: how long after the first stamp [s].
        seconds: how long nothing usable was read [s]; negative where the clock went back.
    """

    recording: str
    at: float
    seconds: float


def gaps(recording: Recording) -> list[Gap]:
    """Every gap, in order."""
    inside = recording.stretches()
    ends = [s.stop - 1 for s in inside]
    starts = [s.start for s in inside]
    pairs = list(zip(ends, starts[1:], strict=False))
    if not inside:
        pairs = [(0, len(recording) - 1)] if len(recording) > 1 else []
    t = recording.stamps
    return [Gap(recording.name, float(t[a] - t[0]), float(t[b] - t[a])) for a, b in pairs]


def seconds(recording: Recording) -> float:
    """How much of it can be used [s]."""
    return sum(s.stop - 1 - s.start for s in recording.stretches()) * recording.spec.dt


def coverage(field: Field, values: Float[np.ndarray, " t"]) -> float:
    """The share of the field's range that was visited; NaN where it has no limits."""
    if not (np.isfinite(field.low) and np.isfinite(field.high)):
        return float("nan")
    counts, _ = np.histogram(values[np.isfinite(values)], BINS, (field.low, field.high))
    return float((counts > 0).mean())


def suspicious(recordings: Sequence[Recording]) -> list[str]:
    """Doubts about the spec and the numbers."""
    spec = recordings[0].spec
    columns = [values for _, values in _columns(recordings)]
    obs, acts = np.stack(columns[: spec.num_obs], 1), columns[spec.num_obs :]
    of_acts = [d for f, v in zip(spec.act, acts, strict=True) for d in doubts.of_field(f, v)]
    every = [*doubts.of_spec(spec), *doubts.of_readings(spec, obs), *of_acts]
    return [doubt.text for doubt in every]


def tables(recordings: Sequence[Recording]) -> list[Table]:
    """Conditions, and fields."""
    first = recordings[0]
    by = _table(
        f"{first.robot}: {len(recordings)} recordings at {1 / first.spec.dt:g} Hz",
        ["condition", "episodes", "minutes", "gaps"],
    )
    for condition in sorted({r.condition for r in recordings}):
        own = [r for r in recordings if r.condition == condition]
        minutes = sum(seconds(r) for r in own) / 60
        count = sum(len(gaps(r)) for r in own)
        by.add_row(escape(condition) or "–", str(len(own)), f"{minutes:.1f}", str(count))
    fields = _table(
        "fields", ["", "unit", "least", "median", "most", "limits", "visited of the range"]
    )
    fields.columns[1].justify = "left"
    for field, values in _columns(recordings):
        low, middle, high = np.nanpercentile(values, (0, 50, 100))
        bounded = np.isfinite([field.low, field.high]).any()
        visited = coverage(field, values)
        fields.add_row(
            escape(field.name),
            escape(field.unit),
            *(f"{x:.3g}" for x in (low, middle, high)),
            f"{field.low:.3g} to {field.high:.3g}" if bounded else "–",
            f"{visited:.0%}" if np.isfinite(visited) else "–",
        )
    return [by, fields]


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    return table


def _columns(recordings: Sequence[Recording]) -> list[tuple[Field, Float[np.ndarray, " t"]]]:
    """Every field with all its values; raises :class:`RecordingError` where there are none."""
    spec = recordings[0].spec
    if sum(len(r) for r in recordings) < 2:
        raise RecordingError("the recordings are empty")
    obs, act = (np.concatenate([getattr(r, k) for r in recordings]) for k in ("obs", "act"))
    return [*zip(spec.obs, obs.T, strict=True), *zip(spec.act, act.T, strict=True)]


def plot(recordings: Sequence[Recording], path: Path) -> None:
    """Draw how often every field had which value; below, what was recorded when, and the gaps."""
    columns = _columns(recordings)
    across = 4
    rows = -(-len(columns) // across)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 1.5 * rows + 1.8), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(rows + 1, across, height_ratios=[1] * rows + [0.9])
        acts = {f.name for f in recordings[0].spec.act}
        for i, (field, values) in enumerate(columns):
            axes = figure.add_subplot(grid[i // across, i % across])
            colour = COLOURS["frozen"] if field.name in acts else COLOURS["default"]
            finite = values[np.isfinite(values)]
            if len(finite):
                axes.hist(finite, BINS * 2, color=colour)
            for limit in (field.low, field.high):
                if np.isfinite(limit):
                    axes.axvline(limit, color=FAINT, lw=1, ls="--")
            axes.set_title(f"{field.name} [{field.unit}]", size=9, color=INK)
            axes.set_yticks([])
        axes = figure.add_subplot(grid[rows, :])
        at = 0.0
        for r in recordings:
            t = (r.stamps - r.stamps[0]) / 60 if len(r) else np.zeros(0)
            for stretch in r.stretches():
                ends = at + t[[stretch.start, stretch.stop - 1]]
                axes.plot(ends, [0, 0], color=COLOURS["oracle"], lw=7, solid_capstyle="butt")
            for gap in gaps(r):
                axes.plot(at + gap.at / 60, 0, "|", color=DAMAGE, ms=16, mew=2)
            axes.axvline(at, color=FAINT, lw=0.8)
            at += float(t.max(initial=0.0))
        axes.set(xlabel="time recorded [min], one episode after the other", yticks=[])
        axes.set_ylim(-1, 1)
        axes.set_title(
            "red: gaps · above: blue observations, orange actions, dashed limits", size=9
        )
        with whole(path) as part:
            figure.savefig(part, dpi=110, facecolor="white")
