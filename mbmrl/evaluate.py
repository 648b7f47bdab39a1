"""Robot × condition × agent × episode on paired seeds, and the intervals that reports quote."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import multiprocessing
import signal
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float

from controllers.agent import Agent
from controllers.learned import LearnedModel
from controllers.several import Several
from mbmrl import checkpoint as checkpoints
from mbmrl import conditions, registry
from mbmrl.checkpoint import Checkpoint
from mbmrl.compose import AGENTS, ON_THE_SIMULATOR, SCRIPTED, make_agent
from mbmrl.conditions import Condition
from mbmrl.episode import Log, run_episodes
from mbmrl.spec import RobotSpec, SpecError
from robots.perturbations.base import Perturbation
from robots.sim import SimRobot

LANES = 32
"""Episodes that run side by side."""
LANES_TRUE = 4
"""The same for agents that plan on the simulator, which gain nothing by it."""
WITHOUT_MODEL = (*ON_THE_SIMULATOR, *SCRIPTED)
"""Agents that need no checkpoint."""
TIMED = 60
"""Ticks that the decision times come from."""
TIMED_TRUE = 10
"""The same for the true simulator as the model, which is slow and no real controller."""
SMOOTH_S, SHOWS_S = 0.5, 3.0
"""Over how long gains are averaged, and how soon a loss shows, where recovery is timed [s]."""
MODEL_ERRORS = (
    "pred_error_prior",
    "pred_error_adapted",
    "open_loop_error_prior",
    "open_loop_error_adapted",
)
"""Columns of the log, and of :class:`Row`, that say how well a learned model foresaw."""
LEG_AND_MOTOR = ("damaged_leg", "damaged_joint", "motor_strength")

Lane: TypeAlias = tuple[Condition, str]
"""What happens to a robot, and the path that it is to follow."""
Watch = Callable[[int], None]
"""Told how many more ticks of a robot are done."""


@dataclass(frozen=True)
class Row:
    """One episode; "after the onset" is every tick whose observation the condition shaped.

    Attributes:
        robot: its name.
        perturbation: the condition as text; ``none`` for the undamaged robot.
        mirror_trained: whether its side or its name alone kept the condition out of training.
        agent: what drove.
        path: that was to be followed; empty where there is none.
        episode: its number among those of the same condition, path and agent.
        seed: of the planner and, together with condition and path, of the robot's initial state.
        return_: −Σ cost · dt with the planner's own cost; ``return`` in JSON.
        return_after_onset: the same after the onset.
        score: mean gain after the onset, 1 as wanted.
        cross_track_m: mean distance from the path after the onset [m]; NaN where there is none.
        fell: whether the robot ever fell.
        tick_ms_p50: median time of a decision [ms], see :func:`time_alone`.
        tick_ms_p99: its 99th percentile.
        missed_deadlines: how many of the timed decisions took longer than the control period.
        pred_error_prior: mean squared normalised one-step error of θ* after the onset; NaN without
            a learned model.
        pred_error_adapted: the same of the model that planned.
        open_loop_error_prior: mean squared normalised error of θ* over the ten steps it predicts
            open loop.
        open_loop_error_adapted: the same of the model that planned.
        recovery_s: how long after the onset it was back to what it then kept up, see
            :func:`recovery` [s]; NaN where nothing happened, or too late to tell.
    """

    robot: str
    perturbation: str
    mirror_trained: bool
    agent: str
    path: str
    episode: int
    seed: int
    return_: float
    return_after_onset: float
    score: float
    cross_track_m: float
    fell: bool
    tick_ms_p50: float
    tick_ms_p99: float
    missed_deadlines: int
    pred_error_prior: float
    pred_error_adapted: float
    open_loop_error_prior: float
    open_loop_error_adapted: float
    recovery_s: float = math.nan

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; null where a number does not apply."""
        return {
            name.rstrip("_"): None if isinstance(v, float) and not math.isfinite(v) else v
            for name, v in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        """The inverse of :meth:`to_json`."""
        values: dict[str, Any] = {k: math.nan if v is None else v for k, v in data.items()}
        return cls(return_=values.pop("return"), **values)


def read_rows(files: Iterable[Path]) -> list[Row]:
    """The rows in files of ``mbmrl eval --json``.

    Raises:
        ValueError: where one cannot be read as such, or all are empty.
    """
    rows: list[Row] = []
    for file in files:
        try:
            rows += [Row.from_json(row) for row in json.loads(file.read_text())]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} holds no rows of `mbmrl eval --json` ({error!r})") from error
    if not rows:
        raise ValueError("no rows: name files of `mbmrl eval --json`")
    return rows


class Timing(NamedTuple):
    """How long one robot's decisions take."""

    tick_ms_p50: float
    tick_ms_p99: float
    missed_deadlines: int


@dataclass(frozen=True)
class Evaluation:
    """What is to be evaluated.

    Attributes:
        robot: a simulated robot's name, or ``package.module:Class``.
        conditions: each with its own onset; an empty one is the undamaged robot.
        agents: names of agents or adapters.
        paths: each condition is driven along every one of them.
        episodes: per condition, path and agent.
        seconds: per episode [s].
        seed: of episode 0; episode i of every condition, path and agent has ``seed + i``.
        checkpoint: its folder; None for the shipped one.
        planner: another than the robot's own.
    """

    robot: str
    conditions: tuple[Condition, ...]
    agents: tuple[str, ...]
    paths: tuple[str, ...]
    episodes: int
    seconds: float
    seed: int = 0
    checkpoint: Path | None = None
    planner: str | None = None

    @property
    def ticks(self) -> int:
        """Of one episode."""
        return round(self.seconds / float(registry.load("robots", self.robot).spec.dt))

    def robots(self, lanes: Sequence[Lane], seed: int) -> list[SimRobot]:
        """One robot a condition and path, in a start of its own.

        A robot that falls before anything happens to it would else fall so under every condition.

        Raises:
            UnknownName: there is no such robot.
            SpecError: it is not simulated.
            PerturbationError: a condition makes no sense on it.
        """
        cls = registry.load("robots", self.robot)
        if not issubclass(cls, SimRobot):
            raise SpecError(f"{self.robot} is not simulated: only `mbmrl run` can drive it")
        return [
            cls(condition, zlib.crc32(f"{seed} {_name(condition)} {path}".encode()))
            for condition, path in lanes
        ]

    def agent(
        self, name: str, robots: Sequence[SimRobot], paths: Sequence[str], seed: int
    ) -> Agent:
        """An agent for these robots, see :func:`make_agent`."""
        checkpoint = checkpoint_for(name, robots[0].spec, self.checkpoint)
        return make_agent(name, robots, checkpoint, paths, planner=self.planner, seed=seed)


class _Batch(NamedTuple):
    """Episodes of one agent and one seed, side by side."""

    agent: str
    episode: int
    lanes: list[Lane]


def checkpoint_for(agent: str, spec: RobotSpec, folder: Path | None) -> Checkpoint | None:
    """The checkpoint that an agent needs, if it needs one.

    Raises:
        UnknownName: neither an agent nor an adapter has this name.
        CheckpointError: there is none, or it is damaged or does not fit.
    """
    known = [*AGENTS, *registry.names("adapters")]
    if agent not in known:
        raise registry.unknown("agent or adapter", agent, known)
    return None if agent in WITHOUT_MODEL else checkpoints.for_robot(spec, folder)


def evaluate(what: Evaluation, *, jobs: int = 1, watch: Watch = lambda ticks: None) -> list[Row]:
    """The rows of :func:`evaluated`, all of them."""
    return [row for rows in evaluated(what, jobs=jobs, watch=watch) for row in rows]


def evaluated(
    what: Evaluation,
    *,
    jobs: int = 1,
    watch: Watch = lambda ticks: None,
    done: Collection[Row] = (),
) -> Iterator[list[Row]]:
    """Drive every episode; what is done is yielded as it comes, so that nobody loses it.

    All planners of a seed draw the same random numbers, however many robots are side by side, so
    that a row does not depend on what else is evaluated.

    Args:
        what: to evaluate.
        jobs: processes to share the work.
        watch: told about progress.
        done: rows of an earlier call, which are not driven again.

    Yields:
        Rows by agent; all episodes of a few conditions, then of the next few.

    Raises:
        UnknownName, SpecError, PerturbationError, CheckpointError: before anything is driven.
        Diverged: a simulation blew up.
    """
    probe = what.robots([(c, "") for c in what.conditions], what.seed)[:1]
    for agent in what.agents:
        what.agent(agent, probe, what.paths[:1], what.seed)
    batches = list(_batches(what, done))
    timing = {agent: time_alone(what, agent) for agent in {b.agent: () for b in batches}}
    if jobs == 1:
        for b in batches:
            yield _drive(what, b, timing[b.agent], watch)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _start_worker) as pool:
        futures = {pool.submit(_drive, what, b, timing[b.agent]): b for b in batches}
        try:
            for future, batch in futures.items():
                yield future.result()
                watch(len(batch.lanes) * what.ticks)
        except BaseException:  # Ctrl-C above all: nobody waits for what is still being driven
            for process in list(pool._processes.values()):
                process.terminate()
            raise


def left(what: Evaluation, done: Collection[Row] = ()) -> int:
    """How many ticks of a robot there are to do."""
    return what.ticks * sum(len(batch.lanes) for batch in _batches(what, done))


def _batches(what: Evaluation, done: Collection[Row]) -> Iterator[_Batch]:
    """What is left to drive."""
    known = {(r.robot, r.agent, r.seed, r.perturbation, r.path) for r in done}
    robot = registry.load("robots", what.robot).spec.name
    every = list(itertools.product(what.conditions, what.paths))
    for agent in what.agents:
        lanes = LANES_TRUE if agent in ON_THE_SIMULATOR else LANES
        # all episodes of some conditions, then the next: so who is cut off has some whole
        for k, episode in itertools.product(range(0, len(every), lanes), range(what.episodes)):
            left = [
                (condition, path)
                for condition, path in every[k : k + lanes]
                if (robot, agent, what.seed + episode, _name(condition), path) not in known
            ]
            if left:
                yield _Batch(agent, episode, left)


def _name(condition: Condition) -> str:
    """As a row has it."""
    return conditions.text(condition) or "none"


def _start_worker() -> None:
    """Ctrl-C reaches every process of a terminal; the one that the user started deals with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def time_alone(what: Evaluation, agent: str) -> Timing:
    """Time an agent's decisions (adapt and plan) for a single, undamaged robot.

    Episodes run side by side, which says nothing about the latency of one robot; so this is a run
    of its own, once an agent, after a warm-up that fills the history.
    """
    (robot,) = what.robots([((), "")], what.seed)
    true = agent in ON_THE_SIMULATOR
    checkpoint = checkpoint_for(agent, robot.spec, what.checkpoint)
    warm_up, timed = checkpoint.window if checkpoint else 3, TIMED_TRUE if true else TIMED
    with robot:
        driven = what.agent(agent, [robot], what.paths[:1], what.seed)
        log = run_episodes([robot], driven, (warm_up + timed) * robot.spec.dt)
    took = log.took[warm_up:]
    p50, p99 = 1e3 * np.percentile(took, (50, 99))
    return Timing(float(p50), float(p99), int((took > robot.spec.dt).sum()))


def _drive(
    what: Evaluation, batch: _Batch, timing: Timing, watch: Watch = lambda ticks: None
) -> list[Row]:
    seed = what.seed + batch.episode
    robots = what.robots(batch.lanes, seed)
    paths = [path for _, path in batch.lanes]
    with ExitStack() as stack:
        for robot in robots:
            stack.enter_context(robot)
        agent = what.agent(batch.agent, robots, paths, seed)
        if isinstance(agent.model, LearnedModel | Several):
            agent.model.look_back()
        log = run_episodes(robots, agent, what.seconds, lambda tick: watch(len(robots)))
    dt = robots[0].spec.dt
    rows = []
    for lane, (robot, path) in enumerate(zip(robots, paths, strict=True)):
        whole = phase(log, lane, slice(None), dt)
        after = phase(log, lane, from_onset(robot.perturb, dt), dt)
        rows.append(
            Row(
                robot=robot.spec.name,
                perturbation=_name(robot.perturb),
                mirror_trained=conditions.mirror_trained(robot, robot.perturb),
                agent=batch.agent,
                path=path,
                episode=batch.episode,
                seed=seed,
                return_=whole.return_,
                return_after_onset=after.return_,
                score=after.score,
                cross_track_m=after.cross_track_m,
                fell=whole.fell,
                recovery_s=recovery(log.gain[from_onset(robot.perturb, dt), lane], dt)
                if robot.perturb
                else math.nan,
                **timing._asdict(),
                **{name: getattr(after, name) for name in MODEL_ERRORS},
            )
        )
    return rows


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


# --- intervals --------------------------------------------------------------------------------

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
    values: Float[np.ndarray, "c e k"],
    statistic: Statistic = lambda means: means[:, 0],
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> Interval:
    """Hierarchical percentile bootstrap: conditions are resampled first, episodes within them.

    Columns stay together, so what is compared stays paired. With a single condition the interval
    is for that condition; with one episode each, for the conditions alone.

    Args:
        values: c conditions, e episodes of each, k columns.
        statistic: of the columns' means; the first column's mean when left out.
        seed: of the resampling.
        resamples: how many.
    """
    c, e, _ = values.shape
    estimate = float(statistic(values.mean((0, 1))[None])[0])
    if c * e == 1 or not math.isfinite(estimate):
        return Interval(estimate, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    some_conditions = rng.integers(c, size=(resamples, c, 1))
    some_episodes = rng.integers(e, size=(resamples, c, e))
    resampled = statistic(values[some_conditions, some_episodes].mean((1, 2)))
    return Interval(estimate, *(float(q) for q in np.quantile(resampled, (0.025, 0.975))))


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


def _pivot(rows: Sequence[Row], column: str, agents: Sequence[str]) -> Float[np.ndarray, "c e k"]:
    """A value for each condition, episode and agent.

    An agent that drove fewer episodes than another (the oracle is slow) stands beside each of the
    other's with its mean on the same condition and path.
    """
    cells: dict[tuple[str, str], dict[str, list[float]]] = {}
    # a stable sort, so that rows of several checkpoints are paired in the order they came
    for row in sorted(rows, key=lambda r: r.seed):
        cell = cells.setdefault((row.perturbation, row.path), {a: [] for a in agents})
        if row.agent in cell:
            cell[row.agent].append(getattr(row, column))
    by_condition: dict[str, list[Float[np.ndarray, "e k"]]] = {}
    for (name, _), cell in sorted(cells.items()):
        most = max(len(values) for values in cell.values())
        values = [cell[a] for a in agents]
        columns = [v if len(v) == most else [float(np.mean(v))] * most for v in values]
        by_condition.setdefault(name, []).append(np.array(columns, float).T)
    return np.stack([np.concatenate(parts) for parts in by_condition.values()])


def groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The parts of a suite that a report shows apart, all of it first; none of them empty."""
    kinds = {row.perturbation: _kinds(row.perturbation) for row in rows}
    chosen = {
        "all": kinds,
        "leg and motor damage": [n for n, k in kinds.items() if k <= set(LEG_AND_MOTOR)],
        "mirror image trained": {r.perturbation for r in rows if r.mirror_trained},
        "mirror image not trained": {r.perturbation for r in rows if not r.mirror_trained},
        **{f"without {k}": [n for n in kinds if k not in kinds[n]] for k in _all(kinds)},
    }
    found = {title: [r for r in rows if r.perturbation in some] for title, some in chosen.items()}
    return {t: some for t, some in found.items() if some and (t == "all" or len(some) < len(rows))}


def _kinds(perturbation: str) -> set[str]:
    return {part.partition(":")[0] for part in perturbation.split(" + ")}


def _all(kinds: dict[str, set[str]]) -> list[str]:
    return sorted(set().union(*kinds.values()))
