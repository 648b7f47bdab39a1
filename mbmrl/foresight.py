"""How far a model can be trusted: its open-loop predictions against a recording it never saw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich import box
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from controllers.base import SamplingPlanner
from mbmrl.checkpoint import Checkpoint
from mbmrl.compose import make_planner
from mbmrl.dynamics import wrap
from mbmrl.log import whole
from mbmrl.plot import COLOURS, FAINT, INK, STYLE
from mbmrl.recording import Recording, RecordingError
from mbmrl.settings import settings_for
from mbmrl.spec import RobotSpec
from mbmrl.types import Transitions

STARTS = 512
"""From so many places at most are predictions made."""
BETTER = 0.95
"""An error of less than this share of what it is without any model is better, and no accident."""
SHOWN = 12
"""Predictions in the picture, one after the other."""

NAMES = {
    "still": "nothing changes",
    "steady": "constant velocity",
    "prior": "model, θ*",
    "adapted": "adapted, θ′",
}
"""Who predicts. The first two know no model; it is worth something where it beats both."""
INKS = {
    "still": FAINT,
    "steady": COLOURS["pooled"],
    "prior": COLOURS["frozen"],
    "adapted": COLOURS["default"],
}


@dataclass(frozen=True)
class Foresight:
    """Predictions from s places of recordings, h steps ahead, and what came.

    Attributes:
        spec: of the robot.
        start: the observation that each prediction starts from.
        truth: what came.
        predicted: what each of :data:`NAMES` foresaw.
    """

    spec: RobotSpec
    start: Float[np.ndarray, "s o"]
    truth: Float[np.ndarray, "s h o"]
    predicted: dict[str, Float[np.ndarray, "s h o"]]

    @property
    def fields(self) -> list[str]:
        """What a model has to predict: all but what the controller makes itself."""
        return [f.name for f in self.spec.obs if f.name not in self.spec.known]

    def rmse(self, who: str) -> Float[np.ndarray, "h f"]:
        """Root-mean-square error of each step ahead and field, in the field's unit."""
        error = _error(self.spec, self.predicted[who], self.truth)[
            ..., self.spec.index(self.fields)
        ]
        return np.sqrt((error**2).mean(0))

    def relative(self, who: str) -> Float[np.ndarray, "h f"]:
        """The error as a share of what the better one of the two that know no model makes."""
        best = np.minimum(self.rmse("still"), self.rmse("steady"))
        return self.rmse(who) / np.maximum(best, 1e-9)

    def trusted(self, who: str = "adapted") -> dict[str, int]:
        """For how many steps each field is foreseen better than without any model."""
        better = self.relative(who) < BETTER
        return {f: _run(better[:, i]) for i, f in enumerate(self.fields)}

    def horizon(self, who: str = "adapted") -> int:
        """For how many steps the typical field is: the geometric mean of all of them counts."""
        return _run(np.log(np.maximum(self.relative(who), 1e-9)).mean(1) < math.log(BETTER))


def _run(good: np.ndarray) -> int:
    """How many are good before the first that is not."""
    return int(len(good) if good.all() else good.argmin())


def _error(spec: RobotSpec, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    error = predicted - truth
    turns = spec.index(spec.turns)
    error[..., turns] = (error[..., turns] + math.pi) % (2 * math.pi) - math.pi
    return error


def planned(spec: RobotSpec) -> int:
    """How many steps the robot's planner looks ahead."""
    planner = make_planner(spec, settings_for(spec.name))
    assert isinstance(planner, SamplingPlanner)
    return planner.horizon


def places(
    recordings: Sequence[Recording], window: int, horizon: int, most: int = STARTS
) -> list[tuple[Recording, int]]:
    """Rows with a whole window of history before them and so many steps after, spread evenly.

    Raises:
        RecordingError: where there is none.
    """
    every = [
        (r, row)
        for r in recordings
        for s in r.stretches()
        for row in range(s.start + window, s.stop - horizon)
    ]
    if not every:
        seconds = (window + horizon + 1) * recordings[0].spec.dt
        raise RecordingError(f"no {seconds:.1f} s without a gap: that much is needed")
    return [every[i] for i in np.linspace(0, len(every) - 1, min(most, len(every))).astype(int)]


@torch.no_grad()
def foresee(
    checkpoint: Checkpoint, chosen: Sequence[tuple[Recording, int]], horizon: int
) -> Foresight:
    """Predict from each place under the actions that were sent, with and without adapting.

    Args:
        checkpoint: its default adapter adapts to the window before each place.
        chosen: from :func:`places`.
        horizon: steps ahead.
    """
    spec, m = checkpoint.spec, checkpoint.window
    dynamics, adapter = checkpoint.learner(checkpoint.default)

    def rows(name: str, first: int, end: int) -> Float[Tensor, "s t k"]:
        return torch.from_numpy(
            np.stack([getattr(r, name)[row + first : row + end] for r, row in chosen])
        ).float()

    window = Transitions(rows("obs", -m, 0), rows("act", -m, 0), rows("obs", 1 - m, 1))
    start, acts = rows("obs", 0, 1), rows("act", 0, horizon)
    steps = torch.arange(1, horizon + 1)[:, None]
    change = start - rows("obs", -1, 0)
    yaw = spec.index(spec.pose[2:])
    change[..., yaw] = wrap(change[..., yaw])
    futures = {
        "still": start.expand(-1, horizon, -1),
        "steady": start + steps * change,
        **{
            name: dynamics.unroll(params, start, acts[:, None])[:, 0]
            for name, params in (
                ("prior", dynamics.prior()),
                ("adapted", adapter.adapt(dynamics, window)),
            )
        },
    }
    return Foresight(
        spec,
        start[:, 0].double().numpy(),
        rows("obs", 1, horizon + 1).double().numpy(),
        {name: future.double().numpy() for name, future in futures.items()},
    )


# --- telling it -------------------------------------------------------------------------------


def verdict(found: Foresight, planned: int) -> str:
    """In plain words, how far the model can be trusted, and whether the planner looks further."""
    dt, h, far = found.spec.dt, found.horizon(), found.truth.shape[1]
    never = [f for f, steps in found.trusted().items() if steps == 0]
    if h == 0:
        return (
            "Do not drive with this model: even one step ahead it foresees no more than who "
            "expects nothing to change, or everything to go on as it did."
        )
    reach = "at least " if h == far else ""
    text = [f"Trust it for {reach}{h} steps ({h * dt:.2g} s)"]
    text[0] += f"; without adapting, for {found.horizon('prior')}."
    if never:
        text.append(f"It foresees nothing of {', '.join(never)}.")
    if h < min(planned, far):
        text.append(f"The planner looks {planned} steps ahead: further than can be trusted.")
    return " ".join(text)


def table(found: Foresight) -> Table:
    """Errors of every field one step ahead and at the end, in its unit."""
    far = found.truth.shape[1]
    made = Table(
        title=f"open-loop error (RMS) on {len(found.start)} predictions",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    made.add_column("")
    made.add_column("unit")
    for steps in (1, far):
        for name in NAMES.values():
            made.add_column(f"{steps}: {name}", justify="right")
    made.add_column("better than\nno model for", justify="right")
    rmse, trusted = {who: found.rmse(who) for who in NAMES}, found.trusted()
    units = {f.name: f.unit for f in found.spec.obs}
    for i, name in enumerate(found.fields):
        errors = [f"{rmse[who][at, i]:.3g}" for at in (0, far - 1) for who in NAMES]
        steps = f"{trusted[name]} steps" if trusted[name] < far else f"all {far}"
        made.add_row(escape(name), escape(units[name]), *errors, steps)
    return made


def plot(
    checkpoint: Checkpoint, recordings: Sequence[Recording], found: Foresight, path: Path
) -> None:
    """Draw predictions over the truth, and how their errors grow."""
    horizon = found.truth.shape[1]
    longest = max(
        ((r, s) for r in recordings for s in r.stretches()), key=lambda x: x[1].stop - x[1].start
    )
    r, stretch = longest
    first = stretch.start + checkpoint.window
    rows = list(range(first, stretch.stop - horizon, horizon))[:SHOWN]
    shown = foresee(checkpoint, [(r, row) for row in rows], horizon)
    fields = found.fields
    across = 3
    deep = -(-len(fields) // across)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13, 1.9 * deep + 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(deep + 1, across, height_ratios=[1] * deep + [1.5])
        for i, name in enumerate(fields):
            axes = figure.add_subplot(grid[i // across, i % across])
            _traces(axes, r, shown, rows, name)
        _growth(figure.add_subplot(grid[deep, :]), found)
        with whole(path) as part:
            figure.savefig(part, dpi=110, facecolor="white")


def _traces(axes: Axes, r: Recording, shown: Foresight, rows: Sequence[int], name: str) -> None:
    (at,), horizon, dt = r.spec.index(name), shown.truth.shape[1], r.spec.dt
    span = slice(rows[0], rows[-1] + horizon + 1)
    t = dt * np.arange(span.start, span.stop)
    axes.plot(t, r.obs[span, at], color=INK, lw=1.0)
    for k, row in enumerate(rows):
        ahead = dt * (row + np.arange(horizon + 1))
        for who, style in (("prior", ":"), ("adapted", "-")):
            path = np.r_[shown.start[k, at], shown.predicted[who][k, :, at]]
            axes.plot(ahead, path, color=INKS[who], ls=style, lw=1.6, alpha=0.9)
        axes.plot(ahead[0], shown.start[k, at], ".", color=INK, ms=4)
    low, high = r.obs[span, at].min(), r.obs[span, at].max()
    room = 0.35 * (high - low) + 1e-6
    axes.set_ylim(low - room, high + room)  # a prediction that runs away must not hide the rest
    unit = r.spec.obs[at].unit
    axes.set_title(f"{name} [{unit}]", size=9, color=INK)


def _growth(axes: Axes, found: Foresight) -> None:
    far = found.truth.shape[1]
    steps = np.arange(1, far + 1)
    for who in NAMES:
        typical = np.exp(np.log(np.maximum(found.relative(who), 1e-9)).mean(1))
        axes.plot(steps, typical, color=INKS[who], label=NAMES[who], lw=2)
    axes.axhline(BETTER, color=INK, lw=1, ls="--")
    h = found.horizon()
    if 0 < h < far:
        axes.axvline(h, color=INKS["adapted"], lw=1)
    axes.set(
        xlabel="steps ahead",
        ylabel="error / error without a model",
        title="above: black the truth, blue adapted, orange dotted not adapted; "
        "below: the typical field's error, trusted while below the line",
    )
    axes.set_ylim(0, 2.5)
    axes.legend(ncols=4)
