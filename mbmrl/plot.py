"""Pictures of recorded runs: where the robot went, how fast, how well the model foresaw it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from mbmrl import conditions, log, registry, tasks
from mbmrl.compose import task_for
from mbmrl.log import Run
from robots.perturbations.base import Perturbation

# Okabe and Ito's palette, which colour-blind people can tell apart; red stays for damage.
COLOURS = {
    "default": "#0072B2",
    "frozen": "#E69F00",
    "pooled": "#CC79A7",
    "oracle": "#009E73",
    "nominal": "#56B4E9",
    "robust": "#000000",
    # the rest from Tol's muted colours
    "alert": "#332288",
    "auto": "#999933",
    "ensemble": "#44AA99",
    "curious": "#882255",
}
DAMAGE = "#D32F2F"
INK, FAINT = "#222222", "#9AA0A6"

TITLES = {
    "default": "adapting",
    "frozen": "frozen: adaptation off",
    "pooled": "pooled: no meta-learning",
    "oracle": "oracle: true simulator",
    "nominal": "nominal: undamaged simulator",
    "robust": "robust: any of some damages",
    "alert": "alert: forgets at a change",
    "auto": "auto: the best learner lately",
    "ensemble": "ensemble: pessimistic",
    "curious": "curious: tries after a change",
}

STYLE: Any = {
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "font.size": 10,
    "grid.color": "#E8EAED",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "xtick.color": INK,
    "ytick.color": INK,
}


def colour(agent: str) -> str:
    """The agent's colour, the same in every picture; an adapter has that of ``default``."""
    return COLOURS.get(agent, COLOURS["default"])


def title(agent: str) -> str:
    """The agent in words."""
    return TITLES.get(agent, agent)


def words(perturbation: Perturbation) -> str:
    """A perturbation, but for its times, to be read aloud."""
    text = conditions.text([perturbation])
    return text.replace("_", " ").replace("=", " ").replace(":", ": ").replace(",", ", ")


def smooth(values: Float[np.ndarray, " t"], ticks: int) -> Float[np.ndarray, " t"]:
    """The mean of the last so many values that there are; NaN where there is none."""
    there = np.isfinite(values)
    total = np.cumsum(np.where(there, values, 0.0))
    count = np.cumsum(there).astype(float)
    total[ticks:], count[ticks:] = total[ticks:] - total[:-ticks], count[ticks:] - count[:-ticks]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def followed(task: tasks.Task, run: Run) -> Iterator[Float[Tensor, "1 o"]]:
    """What was observed at each tick, with the task as it was then."""
    task.reset(torch.from_numpy(run.log.obs[0]))
    for obs in map(torch.from_numpy, run.log.obs):
        task.observe(obs)
        yield obs


def plot_run(folder: Path) -> Path:
    """Draw a run that ``mbmrl run`` wrote; returns the PNG, which lies beside it.

    Raises:
        LogError: where the run is missing or damaged.
    """
    picture = folder / "run.png"
    plot_comparison([log.load(folder)], picture)
    return picture


def plot_comparison(runs: Sequence[Run], path: Path) -> None:
    """Draw runs of one robot by several agents, the most important one first.

    Args:
        runs: with the same damage.
        path: of the PNG; its folder exists.
    """
    first = runs[0]
    panels: list[tuple[Callable[[Axes, Run], None], str]] = []
    if "vx" in first.spec.state:
        panels.append((_speed, "forward speed [m/s]"))
    if np.isfinite(first.log.cross_track).any():
        panels.append((_cross_track, "off the path [cm]"))
    elif isinstance(_task(first), tasks.ReachTask):
        panels.append((_distance, "to the target [cm]"))
    elif "pitch" in first.spec.state:
        panels.append((_pitch, "pitch [rad]"))
    if any(np.isfinite(run.info("pred_error_prior")).any() for run in runs):
        panels.append((_model_error, "model error [σ²]"))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12.5 if first.spec.pose else 9, 6.6), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(1, 2, width_ratios=(1 if first.spec.pose else 1e-3, 1.25))
        if first.spec.pose:
            _paths(figure.add_subfigure(grid[0]).subplots(), runs)
        rows = np.atleast_1d(figure.add_subfigure(grid[1]).subplots(len(panels), sharex=True))
        for axes, (draw, label) in zip(rows, panels, strict=True):
            for run in reversed(runs):
                draw(axes, run)
            axes.set_ylabel(label)
            for onset in first.onsets:
                axes.axvline(onset, color=DAMAGE, lw=1.2)
        for onset in set(first.onsets):
            _note(rows[0], onset, first)
        rows[-1].set_xlabel("time [s]")
        rows[-1].set_xlim(0, first.time[-1] + first.spec.dt)
        _legend(figure, runs)
        with log.whole(path) as part:
            figure.savefig(part, dpi=130, facecolor="white")


def _note(axes: Axes, onset: float, run: Run) -> None:
    """Write what began then, on the side of the line that has more room."""
    began = [p for p, start in zip(run.perturbations, run.onsets, strict=True) if start == onset]
    late = onset > 0.6 * run.time[-1]
    axes.annotate(
        " + ".join(words(conditions.parse(p)) for p in began),
        (onset, 1.0),
        (-4 if late else 4, 3),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right" if late else "left",
        va="bottom",
        color=DAMAGE,
        weight="bold",
    )


def _legend(figure: Figure, runs: Sequence[Run]) -> None:
    lines = [Line2D([], [], color=colour(r.agent), lw=3, label=title(r.agent)) for r in runs]
    task = _task(runs[0])
    if isinstance(task, tasks.PathTask):
        lines.append(Line2D([], [], color=FAINT, lw=3, alpha=0.6, label="the path"))
    if isinstance(task, tasks.ReachTask):
        near = "targets in order, and how near counts as reached"
        lines.append(Line2D([], [], color=FAINT, ls="", marker="o", ms=11, alpha=0.5, label=near))
    figure.legend(handles=lines, loc="outside upper left", ncols=len(lines), fontsize=11)


def _paths(axes: Axes, runs: Sequence[Run]) -> None:
    """Seen from above: the path or the targets, and where everybody went."""
    first = runs[0]
    x, y, _ = first.spec.pose
    task = _task(first)
    if isinstance(task, tasks.PathTask):
        length = task.speed * (first.time[-1] + first.spec.dt)
        points = task.path[0, : math.ceil(length / task.STEP)].numpy()
        axes.plot(points[:, 0], points[:, 1], color=FAINT, alpha=0.5, lw=7, solid_capstyle="round")
    if isinstance(task, tasks.ReachTask):
        given = max(int(task.at) for run in runs for _ in followed(task, run))
        for k, (across, along, *_) in enumerate(task.targets[0, : given + 1].tolist()):
            axes.add_patch(
                Circle((across, along), task.NEAR * task.size, color=FAINT, alpha=0.5, lw=0)
            )
            axes.annotate(str(k + 1), (across, along), ha="center", va="center", color=INK)
    for run in reversed(runs):
        axes.plot(run.obs(x), run.obs(y), color=colour(run.agent))
        axes.plot(run.obs(x)[-1], run.obs(y)[-1], "o", color=colour(run.agent), ms=7)
        for onset in run.onsets:
            k = min(round(onset / run.spec.dt), len(run.time) - 1)
            axes.plot(run.obs(x)[k], run.obs(y)[k], "X", color=DAMAGE, mec="white", ms=11, zorder=5)
    axes.set(xlabel="x [m]", ylabel="y [m]", title="from above (✕ damage strikes, ● the end)")
    axes.set_aspect("equal", adjustable="datalim")


def _speed(axes: Axes, run: Run) -> None:
    speed = smooth(run.obs("vx"), round(1 / run.spec.dt))
    axes.plot(run.time, speed, color=colour(run.agent))
    task = _task(run)
    if isinstance(task, tasks.PathTask | tasks.SpeedTask):
        axes.axhline(task.speed, color=INK, lw=1, ls=":")


def _cross_track(axes: Axes, run: Run) -> None:
    off = 100 * run.log.cross_track[:, 0]
    axes.plot(run.time, off, color=colour(run.agent))
    axes.set_ylim(0, max(axes.get_ylim()[1], 1.05 * off.max()))


def _distance(axes: Axes, run: Run) -> None:
    """To the target that was the robot's next; dotted, how near counts as reached."""
    task = _task(run)
    assert isinstance(task, tasks.ReachTask)
    away = [100 * float(task.distance(obs[:, None])) for obs in followed(task, run)]
    axes.plot(run.time, away, color=colour(run.agent))
    axes.axhline(100 * task.NEAR * task.size, color=INK, lw=1, ls=":")
    axes.set_ylim(0, max(axes.get_ylim()[1], 1.05 * max(away)))


def _pitch(axes: Axes, run: Run) -> None:
    axes.plot(run.time, run.obs("pitch"), color=colour(run.agent))


def _model_error(axes: Axes, run: Run) -> None:
    """Of the prior, dotted, and of the model that planned; a bar where the gate was open."""
    second = round(1 / run.spec.dt)
    prior, adapted = (smooth(run.info(f"pred_error_{w}"), second) for w in ("prior", "adapted"))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.plot(run.time, adapted, color=colour(run.agent))
    gate = run.info("gate")
    if np.isfinite(gate).any():
        axes.plot(run.time, prior, color=colour(run.agent), lw=1.2, ls=":")
        open_ = np.nan_to_num(gate) > 0.5
        band = axes.get_xaxis_transform()
        axes.fill_between(
            run.time, 0, 0.035, where=open_, transform=band, color=colour(run.agent), lw=0
        )
        axes.set_title("dotted: without adapting · bar below: gate open", size=9, color=INK)


def _task(run: Run) -> tasks.Task:
    """What the robot was to do."""
    return task_for(registry.load("robots", run.robot), [run.path])
