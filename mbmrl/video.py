"""Films of recorded runs, side by side, with live curves beneath."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import imageio_ffmpeg
import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from mbmrl import log, registry
from mbmrl.compose import task_for
from mbmrl.log import Run
from mbmrl.measures import from_onset
from mbmrl.plot import DAMAGE, FAINT, INK, colour, followed, smooth, title, words
from mbmrl.scene import Scene
from mbmrl.tasks import VelocityTask
from robots.perturbations.base import Perturbation

WIDTH = 480
"""Of a side [pixels]."""
HEADER, VIEW, NUMBERS, CHARTS = 40, 360, 76, 144
"""Heights of what stands below each other [pixels]."""
HEIGHT = HEADER + VIEW + NUMBERS + CHARTS
PICTURE = 640, 480
"""Size of a picture that is no film [pixels]."""
SCALE = 2
"""Everything is drawn so much larger and then reduced: that is what smooths it."""
GRID = "#E8EAED"
ALARM_S = 1.0
"""How long the frame is red when damage strikes [s]."""


def video_run(folder: Path) -> Path:
    """Film a run that ``mbmrl run`` wrote; returns the MP4, which lies beside it.

    Raises:
        LogError: where the run is missing or damaged.
        NoOpenGL: this machine cannot render; the message says what to install.
    """
    film = folder / "run.mp4"
    render([log.load(folder)], film)
    return film


def render(runs: Sequence[Run], path: Path, watch: Callable[[int], None] = lambda f: None) -> None:
    """Film runs of equal length side by side, one picture a tick.

    The first tick has no picture: a run keeps where the robot was AFTER each tick, and a picture
    goes with the next tick's numbers.

    Args:
        runs: of one kind of robot, under the same perturbations.
        path: of the MP4; its folder exists.
        watch: told how many pictures are done.

    Raises:
        NoOpenGL: this machine cannot render; the message says what to install.
        ValueError: there is nothing to see.
    """
    size = (WIDTH * len(runs), HEIGHT)
    ticks = min(len(run.time) for run in runs)
    if ticks < 2:
        raise ValueError("no video of a single tick")
    charts = _charts(runs, ticks)
    targets = [_target(run) for run in runs]
    with ExitStack() as stack:
        scenes = [stack.enter_context(Scene(r, WIDTH * SCALE, VIEW * SCALE)) for r in runs]
        part = stack.enter_context(log.whole(path))
        writer = imageio_ffmpeg.write_frames(
            str(part), size, fps=round(1 / runs[0].spec.dt), quality=7, macro_block_size=1
        )
        stack.callback(writer.close)
        writer.send(None)
        for tick in range(1, ticks):
            page = Image.new("RGB", _point(*size), "white")
            draw = ImageDraw.Draw(page)
            _header(draw, runs[0].time[tick], scenes[0].active(tick - 1), size[0])
            for k, (run, scene) in enumerate(zip(runs, scenes, strict=True)):
                page.paste(Image.fromarray(scene.draw(tick - 1)), _point(k * WIDTH, HEADER))
                struck = from_onset(scene.perturb, run.spec.dt).start
                _numbers(draw, run, tick, k * WIDTH, struck, targets[k][tick])
            for x in range(WIDTH, size[0], WIDTH):
                draw.line(_box(x, HEADER, x, HEADER + VIEW), "white", 2 * SCALE)
            if 0 <= runs[0].time[tick] - runs[0].onset < ALARM_S:
                box = _box(1, HEADER + 1, size[0] - 2, HEADER + VIEW - 2)
                draw.rectangle(box, outline=DAMAGE, width=4 * SCALE)
            for k, chart in enumerate(charts):
                width = size[0] // len(charts)
                chart.draw(draw, tick, k * width, HEIGHT - CHARTS, width)
            writer.send(page.reduce(SCALE).tobytes())
            watch(tick)


def picture(run: Run, path: Path) -> None:
    """Write a picture of where a run ends, of the robot alone.

    Raises:
        NoOpenGL: this machine cannot render; the message says what to install.
        ValueError: the run is not of a simulated robot.
    """
    width, height = PICTURE
    with Scene(run, width * SCALE, height * SCALE, alone=True) as scene:
        drawn = Image.fromarray(scene.draw(len(run.qpos) - 1)).reduce(SCALE)
    with log.whole(path) as part:
        drawn.save(part)


def gif(film: Path, path: Path, *, width: int = 640, fps: int = 5) -> None:
    """A small copy of a film for pages that play no MP4.

    Args:
        film: the MP4.
        path: of the GIF.
        width: [pixels].
        fps: pictures a second, of the film's own speed.
    """
    palette = "split[a][b];[a]palettegen=max_colors=96[p];[b][p]paletteuse=dither=none"
    filters = f"fps={fps},scale={width}:-1:flags=area,{palette}"
    with log.whole(path) as part:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-i", film]
        subprocess.run([*command, "-vf", filters, part], check=True)


@dataclass(frozen=True)
class _Chart:
    """Curves that grow with time, one a run.

    Attributes:
        name: with the unit.
        time: of each tick [s].
        values: of each run, as drawn, which may be logarithms.
        colours: of each run.
        marks: where the vertical axis is labelled, and how.
        onset: where the red line stands [s].
        end: of the horizontal axis [s].
    """

    name: str
    time: Float[np.ndarray, " t"]
    values: Float[np.ndarray, "r t"]
    colours: list[str]
    marks: dict[float, str]
    onset: float
    end: float

    def draw(self, draw: ImageDraw.ImageDraw, tick: int, x: int, y: int, width: int) -> None:
        """Draw what is known at a tick into a box with its corner at (x, y)."""
        low, high = min(self.marks), max(self.marks)
        left, right, top, bottom = x + 44, x + width - 14, y + 28, y + CHARTS - 20

        def at(time: np.ndarray, value: np.ndarray) -> Float[np.ndarray, "k 2"]:
            across = left + (right - left) * time / self.end
            down = bottom - (bottom - top) * np.clip((value - low) / (high - low), 0, 1)
            return SCALE * np.stack(np.broadcast_arrays(across, down), -1)

        draw.text(_point(left, y + 8), self.name, INK, _font(12))
        for value, label in self.marks.items():
            height = at(self.time[[0, -1]], np.full(2, value))
            draw.line([*height.ravel()], GRID, SCALE)
            draw.text((SCALE * (left - 6), height[0, 1]), label, FAINT, _font(11), anchor="rm")
        step = next((s for s in (1, 2, 5, 10, 20, 60, 120) if self.end / s <= 6), self.end / 5)
        for second in np.arange(0, self.end + 1e-9, step):
            ((across, down),) = at(np.array([second]), np.array([low]))
            draw.text((across, down + 4 * SCALE), f"{second:.0f} s", FAINT, _font(10), anchor="ma")
        if self.onset <= self.time[tick]:
            line = at(np.full(2, self.onset), np.array([low, high]))
            draw.line([*line.ravel()], DAMAGE, 2 * SCALE)
        for row, colour_of in reversed(list(zip(self.values, self.colours, strict=True))):
            known = np.isfinite(row[: tick + 1])
            points = at(self.time[: tick + 1][known], row[: tick + 1][known])
            if len(points) > 1:
                draw.line([*points.ravel()], colour_of, 2 * SCALE, joint="curve")
                end = points[-1]
                radius = 3 * SCALE
                draw.ellipse([*(end - radius), *(end + radius)], colour_of)


def _charts(runs: Sequence[Run], ticks: int) -> list[_Chart]:
    """Distance from the path, or else speed, and the model's error."""
    first = runs[0]
    charts: list[_Chart] = []
    colours, end = [colour(run.agent) for run in runs], ticks * first.spec.dt

    def chart(name: str, values: np.ndarray, marks: dict[float, str]) -> _Chart:
        return _Chart(name, first.time[:ticks], values, colours, marks, first.onset, end)

    if all(_follows(run) for run in runs):
        off = np.stack([100 * run.log.cross_track[:ticks, 0] for run in runs])
        top = max(5.0, math.ceil(off.max() / 5) * 5)
        charts = [chart("off the path [cm]", off, {v: f"{v:g}" for v in (0.0, top / 2, top)})]
    elif "vx" in first.spec.state:
        speed = np.stack([_speed(run)[:ticks] for run in runs])
        values = MaxNLocator(3).tick_values(min(0.0, speed.min()), speed.max())
        charts = [chart("speed [m/s]", speed, {float(v): f"{v:g}" for v in values})]
    error = np.stack([_error(run)[:ticks] for run in runs])
    if np.isfinite(error).any():
        logs = np.log10(np.maximum(error, 1e-9))
        low, high = (f(np.nanpercentile(logs, q)) for f, q in ((math.floor, 2), (math.ceil, 98)))
        marks = {float(k): f"{10.0**k:g}" for k in range(low, max(high, low + 1) + 1)}
        charts.append(chart("model error", logs, marks))
    return charts


def _header(
    draw: ImageDraw.ImageDraw, now: float, active: Sequence[Perturbation], width: int
) -> None:
    """The time, and what is wrong with the robot."""
    middle = HEADER // 2
    draw.text(_point(14, middle), f"{now:4.1f} s", INK, _font(18, bold=True), anchor="lm")
    if not active:
        draw.text(_point(width - 14, middle), "undamaged", FAINT, _font(15), anchor="rm")
        return
    text = " + ".join(f"{words(p)}, since {p.onset:.1f} s" for p in active)
    sizes = (_font(size, bold=True) for size in range(15, 4, -1))
    font = next((f for f in sizes if f.getlength(text) < SCALE * (width - 120)), _font(5))
    place = _point(width - 20, middle)
    x0, y0, x1, y1 = draw.textbbox(place, text, font, anchor="rm")
    box = (x0 - 10 * SCALE, y0 - 5 * SCALE, x1 + 10 * SCALE, y1 + 5 * SCALE)
    draw.rounded_rectangle(box, 6 * SCALE, DAMAGE)
    draw.text(place, text, "white", font, anchor="rm")


def _numbers(
    draw: ImageDraw.ImageDraw, run: Run, tick: int, x: int, struck: int, target: float
) -> None:
    """Who drives, adapted or not, and how it is going: since it was struck, if it was."""
    top, right = HEADER + VIEW, x + WIDTH - 14
    draw.rectangle(_box(x, top, x + 6, top + NUMBERS), colour(run.agent))
    draw.text(_point(x + 18, top + 8), title(run.agent), INK, _font(16, bold=True))
    gate, speed, error = run.info("gate")[tick], _speed(run)[tick], _error(run)[tick]
    if math.isfinite(gate):
        state, ink = ("adapted", INK) if gate > 0.5 else ("not adapted", FAINT)
        draw.text(_point(right, top + 8), state, ink, _font(15), anchor="ra")
    parts = []
    if math.isfinite(speed):
        digits = 3 if 0 < target < 0.1 else 2  # some swim slowly
        wanted = f" of {target:.{digits}f}" if math.isfinite(target) else ""
        parts.append(f"speed {speed:.{digits}f}{wanted} m/s")
    if _follows(run):
        parts.append(f"off the path {100 * run.log.cross_track[tick, 0]:4.1f} cm")
    draw.text(_point(x + 18, top + 31), "    ".join(parts), INK, _font(13))
    parts = []
    if math.isfinite(error):
        parts.append(f"model error {error:4.2f}")
    damaged = bool(run.onsets) and tick >= struck
    score = run.log.gain[struck if damaged else 0 : tick + 1, 0].mean()
    parts.append(f"score{' since damage' if damaged else ''} {score:4.2f}")
    draw.text(_point(x + 18, top + 51), "    ".join(parts), INK, _font(13))


def _follows(run: Run) -> bool:
    """Whether there is a path to be off."""
    return bool(np.isfinite(run.log.cross_track).all())


def _speed(run: Run) -> Float[np.ndarray, " t"]:
    """Over the ground [m/s]; with a sign where it is forward only, NaN where nobody measures it."""
    if "vx" not in run.spec.state:
        return np.full(len(run.time), math.nan)
    forward = run.obs("vx")
    return np.hypot(forward, run.obs("vy")) if "vy" in run.spec.state else forward


def _target(run: Run) -> Float[np.ndarray, " t"]:
    """The speed that was wanted at each tick [m/s]; NaN where the task has none."""
    task = task_for(registry.load("robots", run.robot), [run.path])
    if isinstance(task, VelocityTask):
        return np.array([float(task.command[0, :2].norm()) for _ in followed(task, run)])
    return np.full(len(run.time), getattr(task, "speed", math.nan))


def _error(run: Run) -> Float[np.ndarray, " t"]:
    """Of the model that planned, the mean of a second."""
    return smooth(run.info("pred_error_adapted"), round(1 / run.spec.dt))


def _point(x: float, y: float) -> tuple[int, int]:
    """In pixels of the large page."""
    return round(SCALE * x), round(SCALE * y)


def _box(x0: float, y0: float, x1: float, y1: float) -> tuple[int, int, int, int]:
    """From corner to corner, in pixels of the large page."""
    return *_point(x0, y0), *_point(x1, y1)


@cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font that matplotlib brings."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts/ttf" / name, SCALE * size)
