"""The harness: pairing, onsets, times, mistakes."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from controllers.agent import Agent, TrueModel
from controllers.scripted import Babble
from mbmrl import conditions, evaluate, registry, settings, tasks
from mbmrl.bench import tick
from mbmrl.checkpoint import CheckpointError
from mbmrl.compose import task_for
from mbmrl.conditions import Condition
from mbmrl.drive import Drive
from mbmrl.episode import Log, run_episodes
from mbmrl.evaluate import Evaluation
from mbmrl.measures import from_onset
from mbmrl.rows import Row
from mbmrl.spec import SpecError
from mbmrl.tasks import SpeedTask
from robots.perturbations.base import PerturbationError
from robots.sim import SimRobot
from tests.dummy import SETTINGS, SPEC, SimPointMass

ROBOT = "tests.dummy:SimPointMass"
WEAK, REVERSED = "motor_strength:scale=0.2", "damaged_joint:joint=rail,mode=reversed"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.SETTINGS, "pointmass", SETTINGS)
    monkeypatch.setattr(evaluate, "TIMED", 3)
    monkeypatch.setattr(evaluate, "TIMED_TRUE", 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of random weights."""
    tick.untrained(SPEC).save(tmp_path)
    return tmp_path


def condition(*texts: str, onset: float = 0.4) -> Condition:
    return tuple(conditions.parse(text, onset) for text in texts)


def some(folder: Path, **changes: object) -> Evaluation:
    what = Evaluation(
        robot=ROBOT,
        conditions=(condition(WEAK), condition(REVERSED), ()),
        agents=("default", "zero"),
        paths=("",),
        episodes=2,
        seconds=1.2,
        seed=5,
        checkpoint=folder,
    )
    return dataclasses.replace(what, **changes)


def untimed(rows: list[Row]) -> list[Row]:
    """Rows without what differs from one call to the next."""
    return [dataclasses.replace(r, tick_ms_p50=0, tick_ms_p99=0, missed_deadlines=0) for r in rows]


# --- the harness ------------------------------------------------------------------------------


def test_every_condition_agent_and_seed_is_driven_once(folder: Path) -> None:
    ticks = []
    rows = evaluate.evaluate(some(folder), watch=ticks.append)
    told = [(r.agent, r.episode, r.seed, r.perturbation) for r in rows]
    assert told == [
        (agent, episode, 5 + episode, text)
        for agent in ("default", "zero")
        for episode in (0, 1)
        for text in (WEAK, REVERSED, "none")
    ]
    assert sum(ticks) == evaluate.left(some(folder)) == 2 * 2 * 3 * 12
    assert {r.robot for r in rows} == {"pointmass"}
    assert all(r.tick_ms_p99 >= r.tick_ms_p50 > 0 for r in rows)
    adapting, resting = rows[0], rows[6]
    assert adapting.pred_error_prior > 0 and adapting.pred_error_adapted > 0
    assert math.isnan(resting.pred_error_prior) and math.isnan(resting.cross_track_m)
    assert math.isnan(rows[2].recovery_s)  # from nothing


def test_a_row_is_the_same_whatever_else_is_evaluated(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = untimed(evaluate.evaluate(some(folder, agents=("default",), episodes=1)))
    monkeypatch.setattr(evaluate, "LANES", 2)
    split = untimed(evaluate.evaluate(some(folder, agents=("default",), episodes=1)))
    for one, other in zip(together, split, strict=True):
        assert (one.perturbation, one.fell) == (other.perturbation, other.fell)
        for name in ("return_", "return_after_onset", "score", "pred_error_prior"):
            assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-3), name


def test_two_processes_give_the_same_rows(folder: Path) -> None:
    ticks = []
    what = some(folder, agents=("zero",))
    alone = evaluate.evaluate(what)
    shared = evaluate.evaluate(what, jobs=2, watch=ticks.append)
    assert [r.to_json() for r in untimed(alone)] == [r.to_json() for r in untimed(shared)]
    assert sum(ticks) == evaluate.left(what)


def test_an_interrupt_waits_for_no_process(folder: Path) -> None:
    def interrupt(ticks: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(some(folder, agents=("zero",), episodes=20), jobs=2, watch=interrupt)
    assert multiprocessing.active_children() == []


def test_agents_meet_the_same_robots(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []
    run_episodes = evaluate.run_episodes

    def spy(robots: list[SimPointMass], *rest: object) -> Log:
        log = run_episodes(robots, *rest)
        if len(robots) == 3:
            starts.append(log.obs[0].tolist())
        return log

    monkeypatch.setattr(evaluate, "run_episodes", spy)
    evaluate.evaluate(some(folder))
    default, default_next, zero, zero_next = starts
    assert default == zero != default_next == zero_next
    # one unlucky start must not count under every condition
    assert len({tuple(start) for start in default + default_next}) == 6


def test_the_return_is_the_cost_integrated(folder: Path) -> None:
    """At rest: −Σ (v / V − 1)² · dt, as v is constant and nothing else costs anything."""
    what = some(folder, agents=("zero",), conditions=(condition(WEAK),), episodes=1)
    (row,) = evaluate.evaluate(what)
    (robot,) = what.robots([(condition(WEAK), "")], 5)
    robot.connect()
    robot.reset()
    cost = (robot.read()[0] / SpeedTask(SPEC).speed - 1) ** 2
    assert row.return_ == pytest.approx(-12 * 0.1 * cost, rel=1e-5)
    # onset 0.4 s: ticks 5 to 11 show it
    assert row.return_after_onset == pytest.approx(-7 * 0.1 * cost, rel=1e-5)
    assert row.score == pytest.approx(max(0.0, 1 - cost**0.5), abs=1e-6)


@pytest.mark.parametrize("onset", [0.0, 0.1, 0.25, 0.3, 0.7])
def test_after_the_onset_is_what_the_condition_shaped(onset: float) -> None:
    perturb = condition(WEAK, onset=onset)
    whole, broken = SimPointMass(seed=1), SimPointMass(perturb, seed=1)
    differs = []
    for robot in (whole, broken):
        robot.reset()
    for _ in range(12):
        differs.append(not np.array_equal(whole.read(), broken.read()))
        for robot in (whole, broken):
            robot.write(np.ones(1))
    assert from_onset(perturb, SPEC.dt).start == differs.index(True)


@pytest.mark.parametrize("robot", ["cheetah", "hexapod", "quadruped", "fish"])
@pytest.mark.parametrize("fault", ["sensor_noise:bias=3,noise=2", "delay:steps=5,of=sensors"])
def test_no_faulty_sensor_says_how_well_it_did(robot: str, fault: str) -> None:
    """At actions that no reading changes, all is measured as with sound sensors."""
    cls = registry.load("robots", robot)
    faulty = tuple(cls(condition(fault, onset=0.2), seed) for seed in (0, 1))
    sound = tuple(cls((), seed) for seed in (0, 1))

    def measured(robots: Sequence[SimRobot]) -> Log:
        task = task_for(cls, tasks.usual(cls.task) * 2)
        return run_episodes(robots, Agent(TrueModel([]), Babble(cls.spec, 0), task), 2.0)

    told, true = measured(faulty), measured(sound)
    np.testing.assert_array_equal(told.act, true.act)
    assert (told.obs[10:] != true.obs[10:]).any(-1).all()
    for name in ("gain", "cost", "cross_track", "fell"):
        np.testing.assert_array_equal(getattr(told, name), getattr(true, name))
    assert np.ptp(true.cost) > 0.01


def test_one_that_is_driven_is_judged_by_the_truth_too() -> None:
    cls = registry.load("robots", "cheetah")

    def measured(*perturb: str) -> Log:
        robot = cls(condition(*perturb, onset=0.2))
        agent = Agent(TrueModel([]), Babble(cls.spec, 0), task_for(cls, [""]))
        drive = Drive(robot, agent, real_time=False)
        drive.run(1.0)
        return drive.recorder.log()

    np.testing.assert_array_equal(measured("sensor_noise:bias=3").cost, measured().cost)


def test_times_come_from_a_robot_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4 warm-up ticks nothing counts; two of the four after it miss the period of 100 ms."""
    driven = []
    run_episodes = evaluate.run_episodes

    def slow(robots: list[SimPointMass], *rest: object) -> Log:
        driven.append(len(robots))
        log = run_episodes(robots, *rest)
        took = np.array([9.0] * 4 + [0.01, 0.02, 0.2, 0.3])
        return dataclasses.replace(log, took=took)

    monkeypatch.setattr(evaluate, "run_episodes", slow)
    monkeypatch.setattr(evaluate, "TIMED", 4)
    timing = evaluate.time_alone(some(folder), "default")
    assert driven == [1]
    assert timing.tick_ms_p50 == pytest.approx(110.0)
    assert timing.tick_ms_p99 == pytest.approx(297.0)
    assert timing.missed_deadlines == 2


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"robot": "tests.dummy:PointMass"}, SpecError, "not simulated"),
        ({"robot": "hexapot"}, registry.UnknownName, "did you mean 'hexapod'"),
        ({"agents": ("zero", "oracel")}, registry.UnknownName, "oracel"),
        ({"agents": ("zero", "rls", "maml")}, CheckpointError, "no learner for adapter 'maml'"),
        ({"checkpoint": Path("absent")}, CheckpointError, "no checkpoint in absent"),
        ({"checkpoint": None}, CheckpointError, "no reference checkpoint is shipped"),
        ({"planner": "cemm"}, registry.UnknownName, "did you mean 'cem'"),
        ({"conditions": (condition("damaged_leg:leg=L9"),)}, PerturbationError, "not one of motor"),
    ],
)
def test_mistakes_are_found_before_anything_is_driven(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr(evaluate, "run_episodes", None)
    with pytest.raises(error, match=message):
        evaluate.evaluate(some(folder, **changes))


@pytest.mark.parametrize(
    ("texts", "trained"),
    [
        (["damaged_leg:leg=R1,mode=missing"], True),
        (["damaged_leg:leg=L1,mode=missing"], False),
        (["damaged_leg:leg=R1,mode=missing", "friction:scale=0.1"], True),
        (["damaged_leg:leg=R1,mode=missing", "damaged_leg:leg=L0"], False),
        (["damaged_leg:leg=R1,mode=missing", "damaged_joint:joint=R1_lift"], False),
        (["friction:scale=0.1,side=left"], False),
        ([], False),
    ],
)
def test_a_mirror_image_counts_as_trained_where_only_the_side_was_held_out(
    texts: list[str], trained: bool
) -> None:
    hexapod = registry.load("robots", "hexapod")()
    assert conditions.mirror_trained(hexapod, condition(*texts)) == trained
