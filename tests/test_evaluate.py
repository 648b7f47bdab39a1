"""The harness and its intervals: pairing, onsets, coverage, and what a report shows."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from controllers.agent import Agent, TrueModel
from controllers.scripted import Babble
from mbmrl import conditions, evaluate, registry, report, settings, tasks
from mbmrl.bench import tick
from mbmrl.checkpoint import CheckpointError
from mbmrl.compose import task_for
from mbmrl.conditions import Condition
from mbmrl.drive import Drive
from mbmrl.episode import Log, run_episodes
from mbmrl.evaluate import Evaluation, Interval, Row, bootstrap, recovery
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
    assert evaluate.from_onset(perturb, SPEC.dt).start == differs.index(True)


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


# --- rows -------------------------------------------------------------------------------------


def row(agent: str, perturbation: str = "none", seed: int = 0, **values: object) -> Row:
    numbers = {
        f.name: 0.0
        for f in dataclasses.fields(Row)
        if f.name not in ("robot", "perturbation", "agent", "path", "seed")
    }
    known = {"fell": False, "mirror_trained": False, "episode": 0, "missed_deadlines": 0}
    return Row(
        robot="hexapod",
        perturbation=perturbation,
        agent=agent,
        path="eight",
        seed=seed,
        **{**numbers, **known, **values},
    )


def test_rows_survive_json() -> None:
    before = row("maml", WEAK, seed=3, return_=-2.5, score=0.5, cross_track_m=math.nan)
    text = json.dumps(before.to_json(), allow_nan=False)
    assert json.loads(text)["return"] == -2.5
    assert json.loads(text)["cross_track_m"] is None
    assert Row.from_json(json.loads(text)).to_json() == before.to_json()


def test_the_issue_names_every_column() -> None:
    named = """robot perturbation agent episode seed return return_after_onset score cross_track_m
    fell tick_ms_p50 tick_ms_p99 missed_deadlines pred_error_prior pred_error_adapted"""
    assert set(named.split()) <= set(row("maml").to_json())


# --- intervals --------------------------------------------------------------------------------


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Conditions and episodes both scatter; the mean over all conditions there might be is 1."""
    rng = np.random.default_rng(0)
    covered = 0
    for k in range(300):
        between = rng.normal(1.0, 0.5, (25, 1, 1))
        values = between + rng.normal(0.0, 0.5, (25, 4, 1))
        found = bootstrap(values, seed=k, resamples=300)
        covered += found.low <= 1.0 <= found.high
    assert 0.90 <= covered / 300 <= 0.99


def test_resampling_episodes_alone_would_be_too_sure() -> None:
    """The interval is as wide as the scatter of conditions demands, however many episodes."""
    rng = np.random.default_rng(1)
    values = rng.normal(0.0, 1.0, (20, 1, 1)) + rng.normal(0.0, 0.01, (20, 50, 1))
    found = bootstrap(values)
    expected = 1.96 * values.mean(1).std() / math.sqrt(20)
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.1)


def test_a_difference_is_paired() -> None:
    """The conditions differ by far more than the agents: pairing takes that out."""
    rng = np.random.default_rng(2)
    hard = rng.normal(0.0, 10.0, (20, 3))
    values = np.stack([hard + 1.0 + rng.normal(0, 0.1, hard.shape), hard], -1)
    found = bootstrap(values, lambda m: m[:, 0] - m[:, 1])
    assert 0.9 < found.low < 1.0 < found.high < 1.1


def test_of_one_condition_the_episodes_make_the_interval() -> None:
    values = np.random.default_rng(3).normal(0.0, 1.0, (1, 100, 1))
    found = bootstrap(values)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * values.std() / 10, rel=0.1)


def test_of_one_episode_there_is_no_interval() -> None:
    found = bootstrap(np.full((1, 1, 1), 0.7))
    assert found.estimate == 0.7
    assert math.isnan(found.low) and math.isnan(found.high)
    assert found.text() == "0.70"


def test_equal_episodes_have_an_interval_without_width() -> None:
    assert bootstrap(np.full((4, 3, 1), 0.5)) == Interval(0.5, 0.5, 0.5)


def test_an_interval_is_the_same_every_time() -> None:
    values = np.random.default_rng(4).normal(size=(6, 2, 1))
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values, seed=1) != bootstrap(values)


def test_what_does_not_apply_is_a_dash() -> None:
    assert bootstrap(np.full((2, 2, 1), np.nan)).text() == "–"


def test_rows_are_paired_by_condition_path_and_seed() -> None:
    """In whatever order they come; here the difference is the same everywhere."""
    rows = [
        row(agent, f"friction:scale={c}", seed=s, score=c + s + (1.0 if agent == "a" else 0.0))
        for agent in ("a", "b")
        for c in range(3)
        for s in range(4)
    ]
    np.random.default_rng(0).shuffle(rows)
    assert evaluate.difference(rows, "score", "a", "b") == pytest.approx((1.0, 1.0, 1.0))
    assert evaluate.mean(rows, "score", "b").estimate == pytest.approx(2.5)
    assert evaluate.ratio(rows, "score", "a", "b").estimate == pytest.approx(3.5 / 2.5)


def test_an_agent_that_drove_less_stands_beside_each_episode_with_its_mean() -> None:
    rows = [row("a", seed=s, score=float(s)) for s in range(4)]
    rows += [row("oracle", seed=s, score=s + 1.0) for s in range(2)]
    assert evaluate.difference(rows, "score", "a", "oracle").estimate == pytest.approx(0.0)


def test_a_ratio_to_nothing_is_a_dash() -> None:
    rows = [row(agent, seed=s, score=0.0) for agent in "ab" for s in range(2)]
    assert evaluate.ratio(rows, "score", "a", "b").text() == "–"


def test_the_gap_closed_is_paired_from_frozen_to_oracle() -> None:
    scores = {"default": (0.5, 0.9), "frozen": (0.2, 0.4), "oracle": (0.8, 1.0)}
    rows = [row(a, seed=s, score=x) for a, both in scores.items() for s, x in enumerate(both)]
    found = evaluate.gap_closed(rows, "default")
    assert found.estimate == pytest.approx(0.8 / 1.2)  # of the means, not the mean of 0.5 and 0.83
    assert (found.low, found.high) == pytest.approx((0.3 / 0.6, 0.5 / 0.6))
    no_gap = [row(a, seed=s, score=0.5) for a in scores for s in range(2)]
    assert evaluate.gap_closed(no_gap, "default").text() == "–"


def test_groups_of_a_suite() -> None:
    leg, slip, both = "damaged_leg:leg=L1", "friction:scale=0.1", "slope:angle=0.2 + " + WEAK
    rows = [row("a", leg, mirror_trained=True), row("a", slip), row("a", both)]
    found = {title: [r.perturbation for r in some] for title, some in evaluate.groups(rows).items()}
    assert found == {
        "all": [leg, slip, both],
        "leg and motor damage": [leg],
        "mirror image trained": [leg],
        "mirror image not trained": [slip, both],
        "without damaged_leg": [slip, both],
        "without friction": [leg, both],
        "without motor_strength": [leg, slip],
        "without slope": [leg, slip],
    }
    assert list(evaluate.groups(rows[:1])) == ["all"]


def test_rows_of_several_checkpoints_are_reported_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(2):
        rows = [row(a, WEAK, seed=s, score=0.5 + 0.2 * k) for a in "ab" for s in range(3)]
        (tmp_path / f"{k}.json").write_text(json.dumps([r.to_json() for r in rows]))
    report.main([str(tmp_path / "0.json"), str(tmp_path / "1.json")])
    told = capsys.readouterr().out
    assert "0.60 [" in told and " 6 " in told


@pytest.mark.parametrize("held", ["[]", '[{"a": 1}]', '{"seconds": 4}', "[1]", "cut off"])
def test_a_report_of_no_rows_says_so(held: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(held)
    with pytest.raises(SystemExit, match="no rows"):
        report.main([str(file)])
    with pytest.raises(SystemExit, match="no rows"):
        report.main([str(tmp_path / "missing.json")])


def test_tables_tell_agents_apart() -> None:
    rows = [
        row(agent, text, seed=s, score=score, cross_track_m=0.02, fell=agent == "frozen")
        for agent, score in (("default", 0.8), ("frozen", 0.4), ("oracle", 1.0))
        for text in (WEAK, "damaged_leg:leg=L1")
        for s in range(2)
    ]
    console = Console(width=180, record=True)
    console.print(report.agents_table(rows))
    console.print(report.comparison_table(rows))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    told = " ".join(lines)
    assert "default 0.80 [0.80, 0.80] 0.80 [0.80, 0.80] 0.67 [0.67, 0.67] 2.0 [2.0, 2.0]" in told
    slow = "frozen 0.40 [0.40, 0.40] 0.40 [0.40, 0.40] 0.00 [0.00, 0.00]"
    assert f"{slow} 2.0 [2.0, 2.0] 0.0 [0.0, 0.0] 4" in told
    assert "all 2 frozen 0.40 [0.40, 0.40] 2.00 [2.00, 2.00] 1.00 [1.00, 1.00]" in lines
    assert "oracle -0.20 [-0.20, -0.20] 0.80 [0.80, 0.80] 1.00 [1.00, 1.00]" in lines


# --- how soon it recovers ------------------------------------------------------------------------


def gains(*parts: tuple[float, float]) -> np.ndarray:
    """Constant gains, each (seconds, gain), at 10 Hz."""
    return np.concatenate([np.full(round(10 * seconds), gain) for seconds, gain in parts])


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(10, 1.0)], 0.0),  # nothing lost
        ([(0.3, 1.0), (1.2, 0.1), (8.5, 0.8)], 2.0),  # at once again, seen over half a second
        ([(2, 1.0), (1, 0.0), (7, 0.5)], 3.5),  # it shows late
        ([(10, 0.0)], 10.0),  # it reaches nothing
        ([(10, -0.5)], 10.0),
        ([(2, 0.9), (8, 0.3)], 0.0),  # worse later than at first: that is what it reaches
        ([(5.9, 1.0)], math.nan),  # too short to say
    ],
)
def test_how_long_until_it_is_back(parts: list[tuple[float, float]], expected: float) -> None:
    assert recovery(gains(*parts), 0.1) == pytest.approx(expected, abs=0.05, nan_ok=True)
