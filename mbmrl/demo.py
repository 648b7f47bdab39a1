"""The demo: a walking robot breaks and adapts, beside one that does not."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from mbmrl import conditions, plot, registry, video
from mbmrl.compose import AGENTS, checkpoint_for, make_agent
from mbmrl.episode import Recorder
from mbmrl.log import Run
from mbmrl.loop import Clock, Loop, run
from mbmrl.measures import from_onset, phase
from mbmrl.scene import NoOpenGL
from mbmrl.types import Plan
from robots.sim import SimRobot

ROBOT, PATH = "hexapod", "eight"
DAMAGE = "damaged_leg:leg=R0,mode=reversed"
"""Held out of training, on either side."""
ONSET = 0.33
"""When it strikes, as a share of the run."""
LEARNED = ("default", "frozen", "pooled")
RUNS = 3
"""Of each of them, each from another initial state."""
TRUE = ("oracle", "nominal")
"""They plan on the simulator itself, ten times as slowly: one run of each, in another process."""
FILMED = ("default", "frozen")
"""In the film, side by side."""

Tell = Callable[[str, str], None]
"""Told every tick: which agent, and its newest numbers."""


@dataclass(frozen=True)
class _Job:
    """What every process needs to know."""

    seed: int
    seconds: float
    checkpoint: Path | None

    def robot(self, seed: int) -> SimRobot:
        """A robot that will be damaged."""
        cls = registry.load("robots", ROBOT)
        onset = round(ONSET * self.ticks) * cls.spec.dt
        damage: SimRobot = cls([conditions.parse(DAMAGE, onset)], seed)
        return damage

    @property
    def ticks(self) -> int:
        """Of a run."""
        return round(self.seconds / registry.load("robots", ROBOT).spec.dt)


def demo(out: Path, seed: int = 0, seconds: float = 20.0, checkpoint: Path | None = None) -> None:
    """Break a hexapod on its path, and show who copes: live, as a table, a picture and a film.

    Args:
        out: folder of ``demo.png``, ``demo.mp4`` and ``demo.gif``; made when absent.
        seed: of the first run.
        seconds: per run [s].
        checkpoint: its folder; None for the shipped one.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    console = Console()
    job = _Job(seed, seconds, checkpoint)
    robot = job.robot(seed)
    (damage,) = robot.perturb
    for agent in LEARNED:
        checkpoint_for(agent, robot.spec, checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    console.print(
        f"A hexapod walks along a figure of eight. After {damage.onset:.1f} s of {seconds:g} s "
        f"it suffers what no training run had: [bold red]{plot.words(damage)}[/].\n"
    )
    columns = TextColumn("{task.description:8}"), BarColumn(24), TextColumn("{task.fields[note]}")
    with Progress(*columns, console=console) as progress, _elsewhere(job) as pipe:
        live = _Live(progress, pipe, job.ticks)
        runs = {a: [_drive(job, a, seed + k, live.tell) for k in range(RUNS)] for a in LEARNED}
        plot.plot_comparison([done[0] for done in runs.values()], out / "demo.png")
        missing = _film([runs[agent][0] for agent in FILMED], out, progress)
        runs |= live.true_runs()
    console.print(_table(runs))
    console.print(missing or f"The film: {out / 'demo.mp4'}", soft_wrap=True, markup=False)
    console.print(f"The figure: {out / 'demo.png'}", soft_wrap=True, markup=False)


def _drive(job: _Job, agent: str, seed: int, tell: Tell) -> Run:
    """One run, told about tick by tick."""
    robot = job.robot(seed)
    dt = robot.spec.dt
    checkpoint = checkpoint_for(agent, robot.spec, job.checkpoint)
    driver = make_agent(agent, [robot], checkpoint, [PATH], seed=seed)
    recorder, qpos = Recorder(driver.task), []

    def sink(obs: np.ndarray, plan: Plan, sent: np.ndarray, took: float) -> None:
        recorder(obs, plan, sent, took)
        qpos.append(robot.data.qpos.copy())
        gain, off = (np.mean([row[k] for row in recorder.rows[-round(1 / dt) :]]) for k in (2, 4))
        state = "[red]damaged[/]" if robot.active else "undamaged"
        note = f"{robot.time:4.1f} s  off the path {100 * off:4.1f} cm  score {gain:4.2f}  {state}"
        tell(agent, note)

    with robot:
        run(Loop(robot, driver, sink), job.ticks, Clock(dt, real_time=False))
    return Run(
        spec=robot.spec,
        robot=ROBOT,
        agent=agent,
        path=PATH,
        perturbations=tuple(conditions.text([p], timing=True) for p in robot.perturb),
        onsets=tuple(p.onset for p in robot.perturb),
        seed=seed,
        log=recorder.log(),
        qpos=np.array(qpos),
    )


def _film(runs: list[Run], out: Path, progress: Progress) -> str:
    """Make the MP4 and a GIF of it; returns what is missing for that, if anything is."""
    pictures = len(runs[0].time) - 1
    bar = progress.add_task("film", total=pictures, note="")

    def watch(done: int) -> None:
        progress.update(bar, completed=done, note=f"{done} of {pictures} pictures")

    try:
        video.render(runs, out / "demo.mp4", watch)
    except NoOpenGL as error:
        progress.update(bar, visible=False)
        return str(error)
    video.gif(out / "demo.mp4", out / "demo.gif")
    return ""


def _table(runs: dict[str, list[Run]]) -> Table:
    """How everybody did once the damage had struck."""
    table = Table(
        title="after the damage: mean (smallest–largest)",
        caption="\n".join(f"{agent}: {AGENTS[agent]}" for agent in runs),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("", no_wrap=True)
    for name in ("runs", "score", "off path [cm]", "model error", "p50/p99 [ms]"):
        table.add_column(Text(f" {name}"), justify="right", no_wrap=True)
    for agent, done in runs.items():
        damage = tuple(conditions.parse(text) for text in done[0].perturbations)
        after, dt = from_onset(damage, done[0].spec.dt), done[0].spec.dt
        parts = [phase(each.log, 0, after, dt) for each in done]
        p50, p99 = 1e3 * np.percentile(np.concatenate([each.log.took for each in done]), (50, 99))
        table.add_row(
            agent,
            str(len(done)),
            _spread([part.score for part in parts], 2),
            _spread([100 * part.cross_track_m for part in parts], 1),
            _spread([part.pred_error_adapted for part in parts], 2),
            f"{p50:.0f}/{p99:.0f}",
        )
    return table


def _spread(values: list[float], digits: int) -> str:
    """Mean and range; a dash where there is nothing to tell."""
    if not np.isfinite(values).all():
        return "–"
    mean, low, high = (f"{f(values):.{digits}f}" for f in (np.mean, np.min, np.max))
    return mean if len(values) == 1 else f"{mean} ({low}–{high})"


# --- the agents that plan on the simulator, in a process of their own --------------------------


@contextmanager
def _elsewhere(job: _Job) -> Iterator[Connection]:
    """Start their process, whose news come through the pipe, and end it in any case."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_true_runs, args=(job, TRUE, there), daemon=True)
    # Ctrl-C is for this process alone, which ends the other one itself.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    process.start()
    signal.signal(signal.SIGINT, handler)
    there.close()
    try:
        yield here
    finally:
        process.terminate()
        process.join()
        here.close()


def _true_runs(job: _Job, agents: Sequence[str], pipe: Connection) -> None:
    """What that process does."""
    torch.set_num_threads(1)
    for agent in agents:
        pipe.send(_drive(job, agent, job.seed, lambda *news: pipe.send(news)))


class _Live:
    """The bars, of what runs here and of what runs in the other process."""

    def __init__(self, progress: Progress, pipe: Connection, ticks: int) -> None:
        self.progress, self.pipe = progress, pipe
        self.bars = {
            agent: progress.add_task(agent, total=count * ticks, note="waits")
            for agents, count in ((LEARNED, RUNS), (TRUE, 1))
            for agent in agents
        }
        self.finished: dict[str, list[Run]] = {}

    def tell(self, agent: str, note: str) -> None:
        """One more tick of an agent that runs here."""
        self.progress.update(self.bars[agent], advance=1, note=note)
        while len(self.finished) < len(TRUE) and self.pipe.poll():
            self._listen()

    def true_runs(self) -> dict[str, list[Run]]:
        """The runs from the other process, once it is done."""
        while len(self.finished) < len(TRUE):
            self._listen()
        return self.finished

    def _listen(self) -> None:
        try:
            news = self.pipe.recv()
        except EOFError:
            raise RuntimeError("the process of oracle and nominal ended early") from None
        if isinstance(news, Run):
            self.finished[news.agent] = [news]
        else:
            agent, note = news
            self.progress.update(self.bars[agent], advance=1, note=note)
