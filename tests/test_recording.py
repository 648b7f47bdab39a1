"""Recordings: what a kill leaves, what a folder holds, what is suspicious in it."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from controllers.agent import Agent
from mbmrl import cli, doubts, record, recording, registry, survey, tasks
from mbmrl.compose import task_for
from mbmrl.recording import Recording, RecordingError
from mbmrl.spec import Field, RobotSpec
from robots.shield import around_rest
from tests.dummy import SPEC, Deaf, PointMass

REAL, SIM = "tests.dummy:PointMass", "tests.dummy:SimPointMass"
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("mbmrl.loop.time.sleep", lambda seconds: None)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def made(ticks: int = 30, seed: int = 0, **changes: object) -> Recording:
    rng = np.random.default_rng(seed)
    values = dict(
        spec=SPEC,
        robot=REAL,
        stamps=5.0 + 0.1 * np.arange(ticks),
        obs=rng.normal(size=(ticks, 2)),
        act=rng.uniform(-1, 1, (ticks, 1)),
        condition="on ice",
        epoch=1e9,
    )
    return Recording(**values | changes)  # type: ignore[arg-type]


def command(*args: object) -> int:
    return cli.main([str(a) for a in args])


# --- files ------------------------------------------------------------------------------------


def test_a_recording_comes_back_as_it_was(tmp_path: Path) -> None:
    recording.save(tmp_path / "a.episode", made())
    found = recording.load(tmp_path / "a.episode")
    assert found.name == "a"
    for field in dataclasses.fields(Recording):
        if field.name != "name":
            np.testing.assert_equal(getattr(found, field.name), getattr(made(), field.name))
    assert [p.name for p in tmp_path.iterdir()] == ["a.episode"]


def test_cut_anywhere_it_opens_with_every_whole_row(tmp_path: Path) -> None:
    path, whole = tmp_path / "a.episode", made(5)
    recording.save(path, whole)
    data, row = path.read_bytes(), 8 * 4
    head = len(data) - 5 * row
    for cut in range(head, len(data)):
        path.write_bytes(data[:cut])
        found = recording.load(path)
        assert len(found) == (cut - head) // row
        np.testing.assert_array_equal(found.obs, whole.obs[: len(found)])


@pytest.mark.parametrize("text", [b"", b"{}\n", b'{"format": 2}\n', b"\xff\x00", b"[]\n"])
def test_anything_else_is_no_recording(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.episode").write_bytes(text)
    with pytest.raises(RecordingError, match=r"a\.episode is no recording"):
        recording.load_all(tmp_path)


def test_a_folder_is_of_one_robot(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="mbmrl record"):
        recording.load_all(tmp_path)
    recording.save(tmp_path / "a.episode", made())
    slow = dataclasses.replace(SPEC, dt=0.2)
    recording.save(tmp_path / "b.episode", made(spec=slow))
    with pytest.raises(RecordingError, match=r"b\.episode is not of the same robot"):
        recording.load_all(tmp_path)


def test_stretches_end_at_gaps_in_time_and_at_numbers_that_are_none() -> None:
    whole = made(12)
    assert whole.stretches() == [slice(0, 12)]
    stamps = whole.stamps.copy()
    stamps[4:] += 0.06  # a period and 60 % of one
    stamps[9:] -= 5.0  # the clock was set back
    obs = whole.obs.copy()
    obs[6, 1] = np.nan
    broken = dataclasses.replace(whole, stamps=stamps, obs=obs)
    # row 6 is lost, hence rows 4 and 5 are a stretch, and 7 and 8; then 9 to 11
    assert broken.stretches() == [slice(0, 4), slice(4, 6), slice(7, 9), slice(9, 12)]
    lost = survey.gaps(broken)
    assert [(round(g.at, 2), round(g.seconds, 2)) for g in lost] == [
        (0.3, 0.16),
        (0.56, 0.2),
        (0.86, -4.9),
    ]
    assert survey.seconds(broken) == pytest.approx(0.7)


def test_a_jitter_of_less_than_half_a_period_is_no_gap() -> None:
    rng = np.random.default_rng(0)
    stamps = 0.1 * np.arange(100) + rng.uniform(-0.024, 0.024, 100)
    assert made(100, stamps=stamps).stretches() == [slice(0, 100)]


# --- recording --------------------------------------------------------------------------------


def test_records_what_was_read_and_what_was_really_sent(tmp_path: Path) -> None:
    robot = PointMass()
    agent = record.policy("babble", robot)
    (path,) = record.record(robot, agent, tmp_path, name=REAL, seconds=3.0, condition="ice")
    assert robot.stopped == 1
    found = recording.load(path)
    assert (found.robot, found.condition, found.spec, len(found)) == (REAL, "ice", SPEC, 30)
    np.testing.assert_allclose(np.diff(found.obs[:, 0]), 0.1 * found.act[:-1, 0], atol=1e-12)
    assert (np.diff(found.stamps) > 0).all()


@pytest.mark.parametrize("name", ["hexapod", "cheetah", "ant", "quadruped", "swimmer"])
def test_an_agent_is_given_something_to_do_whatever_the_robots_task(name: str) -> None:
    robot = registry.load("robots", name)()
    agent = record.policy("nominal", robot)
    assert isinstance(agent, Agent)
    assert type(agent.task) is type(task_for(type(robot), tasks.usual(robot.task)))


def test_a_simulation_is_stamped_by_its_own_clock(tmp_path: Path) -> None:
    assert command("record", "--robot", SIM, "--seconds", 2, "--out", tmp_path) == 0
    found = recording.load(tmp_path / "0000.episode")
    np.testing.assert_allclose(found.stamps, 0.1 * np.arange(20), atol=1e-9)


def test_the_condition_perturbs_a_simulated_robot(tmp_path: Path) -> None:
    half = "motor_strength:scale=0.5 + payload:mass=1"
    args = ["record", "--robot", SIM, "--seconds", 2, "--out", tmp_path]
    assert command(*args, "--condition", half) == 0
    found = recording.load(tmp_path / "0000.episode")
    assert found.condition == half
    change = np.diff(found.obs[:, 0])
    np.testing.assert_allclose(change, 0.1 * 0.5 / 2 * found.act[:-1, 0], rtol=0.01, atol=1e-6)


def test_actions_stay_within_the_share_of_the_range(tmp_path: Path) -> None:
    args = ["record", "--robot", REAL, "--seconds", 20, "--out", tmp_path]
    assert command(*args, "--share", 0.2) == 0
    sent = recording.load(tmp_path / "0000.episode").act
    assert 0.15 < np.abs(sent).max() <= 0.2
    shifted = dataclasses.replace(SPEC, safe_act=(0.5,))
    low, high = around_rest(shifted, 0.2)
    assert (low, high) == (pytest.approx(0.2), pytest.approx(0.6))


def lever(seconds: float, obs: np.ndarray) -> np.ndarray:
    """Forward for a second, then brake."""
    return np.array([0.5 if seconds < 0.99 else -obs[0]])


def test_a_script_decides(tmp_path: Path) -> None:
    args = ["record", "--robot", REAL, "--policy", "tests.test_recording:lever", "--seconds", 2]
    assert command(*args, "--out", tmp_path) == 0
    found = recording.load(tmp_path / "0000.episode")
    np.testing.assert_allclose(found.act[:10, 0], 0.5)
    np.testing.assert_allclose(found.act[10:, 0], -found.obs[10:, 0], atol=1e-6)


def test_no_condition_can_be_asked_for_by_name(tmp_path: Path) -> None:
    args = ["record", "--robot", SIM, "--condition", "none", "--seconds", 1, "--out", tmp_path]
    assert command(*args) == 0
    assert recording.load(tmp_path / "0000.episode").condition == "none"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--policy", "babbel"], "babbel"),
        (["--policy", "tests.dummy:SPEC"], "is no function"),
        (["--policy", "tests.test_recording:two"], "the script gives (2,) actions"),
        (["--share", 0], "--share is above 0"),
        (["--share", 1.1], "--share is above 0"),
        (["--episodes", 0], "--episodes is a positive number"),
        (["--robot", "absent"], "no robot is named 'absent'"),
        (
            ["--robot", SIM, "--condition", "motor_strength:scale=0.5,onset=9", "--seconds", 2],
            "motor_strength begins at 9 s: the end is at 2 s",
        ),
    ],
)
def test_mistakes(
    args: list[object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("record", "--robot", REAL, "--out", tmp_path / "new", *args) == 2
    assert message in capsys.readouterr().err


def two(seconds: float, obs: np.ndarray) -> np.ndarray:
    return np.zeros(2)


def test_a_folder_gets_the_episodes_that_it_lacks(tmp_path: Path) -> None:
    args = ["record", "--robot", REAL, "--seconds", 1, "--out", tmp_path]
    assert command(*args, "--episodes", 2) == 0
    half = tmp_path / "0001.episode"
    half.write_bytes(half.read_bytes()[:-40])  # as a kill leaves it
    assert command(*args, "--episodes", 3) == 0
    assert [p.stem for p in recording.files(tmp_path)] == ["0000", "0001", "0002", "0003"]
    assert [len(r) for r in recording.load_all(tmp_path)] == [10, 8, 10, 10]
    assert command(*args, "--episodes", 3) == 0
    assert len(recording.files(tmp_path)) == 4
    assert command(*args, "--condition", "ice") == 0
    assert len(recording.files(tmp_path)) == 5
    acts = [r.act[:8] for r in recording.load_all(tmp_path)]
    assert not any(np.array_equal(a, b) for a, b in zip(acts, acts[1:], strict=False))


def test_a_folder_of_another_robot_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording.save(tmp_path / "0000.episode", made(spec=dataclasses.replace(SPEC, dt=0.2)))
    assert command("record", "--robot", REAL, "--seconds", 1, "--out", tmp_path) == 2
    assert "another robot" in capsys.readouterr().err
    assert len(recording.files(tmp_path)) == 1


def test_a_failing_robot_is_stopped_and_what_it_did_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("record", "--robot", "tests.dummy:Deaf", "--out", tmp_path) == 1
    assert "no finite vx" in capsys.readouterr().err
    assert Deaf.last.stopped == 1
    assert len(recording.load(tmp_path / "0000.episode")) == 9


KILLED = """
import dataclasses, os, random, signal, sys, time
from pathlib import Path
from mbmrl import record
from tests.dummy import SPEC, PointMass

class Fast(PointMass):
    spec = dataclasses.replace(SPEC, dt=0.002)

folder, random_ = Path(sys.argv[1]), random.Random(0)
for turn in range(20):
    child = os.fork()
    if not child:
        robot = Fast()
        record.record(robot, record.policy("babble", robot), folder, name="fast", seconds=60.0,
                      episodes=99)
        os._exit(1)
    time.sleep(random_.uniform(0.0, 0.5))
    at = time.monotonic()
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    names = sorted(p.name for p in folder.glob("*.episode"))
    print(names[-1] if names else "-", at, flush=True)
"""


@pytest.mark.slow
def test_killed_20_times_at_random_moments_every_file_opens(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    kills = dict(line.split() for line in done.stdout.splitlines())
    found = {r.name + recording.SUFFIX: r for r in recording.load_all(tmp_path)}
    assert len(found) > 10 and set(found) <= set(kills)
    lost = [float(kills[name]) - r.stamps[-1] for name, r in found.items() if len(r)]
    assert len(lost) > 10 and max(lost) < 1.0
    assert all((np.diff(r.stamps) > 0).all() and np.isfinite(r.obs).all() for r in found.values())


# --- what is in it ----------------------------------------------------------------------------

ARM = RobotSpec(
    name="arm",
    dt=0.05,
    obs=(Field("hip", "rad", -2, 2), Field("hip_rate", "rad/s"), Field("z", "m")),
    act=(Field("torque", "N m", -1, 1),),
)


def swing(ticks: int = 400) -> np.ndarray:
    """A joint that swings with its rate, and a height."""
    t = ARM.dt * np.arange(ticks)
    return np.stack([1.2 * np.sin(2 * t), 2.4 * np.cos(2 * t), 0.2 + 0.01 * np.sin(t)], 1)


def test_good_readings_raise_no_doubt() -> None:
    assert doubts.of_spec(ARM) == doubts.of_readings(ARM, swing()) == []


def test_an_angle_that_wraps_raises_no_doubt() -> None:
    free = dataclasses.replace(ARM, obs=(Field("hip", "rad"), *ARM.obs[1:]))
    t = ARM.dt * np.arange(400)
    turning = np.stack([(3 * t + math.pi) % (2 * math.pi) - math.pi, 0 * t + 3 + 1e-3 * t, t], 1)
    assert doubts.of_readings(free, turning) == []


@pytest.mark.parametrize(
    ("column", "factor", "message"),
    [
        (1, 180 / math.pi, "degrees for radians"),
        (0, 180 / math.pi, "degrees for radians"),
        (0, 1000.0, "milli for whole units"),
        (1, 1000.0, "milli for whole units"),
        (1, -1.0, "moves against hip_rate"),
        (2, 0.0, "z never changes from 0 m"),
        (2, np.nan, "z is not finite in 100.0%"),
        (0, 2.0, "hip leaves its limits of -2 to 2 rad"),
        (2, 1e6, "z reaches"),
    ],
)
def test_what_is_wrong_is_named(column: int, factor: float, message: str) -> None:
    readings = swing()
    readings[:, column] *= factor
    assert any(message in doubt.text for doubt in doubts.of_readings(ARM, readings))


def test_readings_that_repeat_are_stale() -> None:
    slow = np.repeat(swing(100), 4, axis=0)
    (doubt,) = [d for d in doubts.of_readings(ARM, slow) if "stale" in d.text]
    assert "75%" in doubt.text and not doubt.sure


@pytest.mark.parametrize("unit", ["deg", "deg/s", "mm", "rpm", "°"])
def test_a_unit_that_is_none_of_si_is_named(unit: str) -> None:
    spec = dataclasses.replace(ARM, obs=(Field("knee", unit), *ARM.obs))
    (doubt,) = doubts.of_spec(spec)
    assert "knee" in doubt.text and unit in doubt.text and doubt.sure


def test_a_safe_action_outside_the_limits_is_named() -> None:
    (doubt,) = doubts.of_spec(dataclasses.replace(ARM, safe_act=(1.5,)))
    assert "torque" in doubt.text


def test_coverage_is_the_share_of_the_range_that_was_visited() -> None:
    field = Field("hip", "rad", 0, 1)
    assert survey.coverage(field, np.linspace(0, 0.499, 1000)) == 0.5
    assert survey.coverage(field, np.zeros(9)) == 1 / survey.BINS
    assert math.isnan(survey.coverage(Field("x", "m"), np.zeros(9)))


def test_data_tells_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording.save(tmp_path / "a.episode", made(301))
    stamps = made(301).stamps.copy()
    stamps[100:] += 2.0
    recording.save(tmp_path / "b.episode", made(301, seed=1, stamps=stamps, condition=""))
    recording.save(tmp_path / "c.episode", made(0))
    assert command("data", tmp_path) == 0
    told = capsys.readouterr().out
    assert "on ice" in told and "gap: b at 9.90 s, 2.100 s long" in told
    assert (tmp_path / "data.png").stat().st_size > 1000


def test_data_ends_with_status_1_where_something_is_suspicious(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    act = np.full((30, 1), 0.5)
    recording.save(tmp_path / "a.episode", made(act=act))
    assert command("data", tmp_path / "a.episode", "--png", tmp_path / "x.png") == 1
    assert "suspicious: force never changes from 0.5 N" in capsys.readouterr().out
    assert (tmp_path / "x.png").exists()


def test_data_without_a_reading_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording.save(tmp_path / "a.episode", made(0))
    assert command("data", tmp_path) == 2
    assert "empty" in capsys.readouterr().err
