"""The command line: what it says, what it writes, and its exit status."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from mbmrl import (
    __version__,
    cli,
    conditions,
    evaluate,
    log,
    recording,
    registry,
    scene,
    settings,
    video,
)
from mbmrl.bench import meta, plan, tick
from mbmrl.commands.common import write_whole
from mbmrl.engines.base import availability
from mbmrl.evaluate import Evaluation
from mbmrl.rows import Row
from mbmrl.scene import NoOpenGL
from tests.dummy import SETTINGS, SPEC, Deaf, SimPointMass
from tests.recorded import babble
from tests.test_recording import made

ROOT = Path(__file__).parent.parent
REAL, SIM = "tests.dummy:PointMass", "tests.dummy:SimPointMass"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(settings.SETTINGS, "pointmass", SETTINGS)
    monkeypatch.setattr(evaluate, "TIMED", 2)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of random weights."""
    tick.untrained(SPEC).save(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def command(*args: object) -> int:
    return cli.main([str(a) for a in args])


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """The one line that a user's mistake gets, with exit status 2."""
    assert command(*args) == 2
    told = capsys.readouterr()
    assert told.err.startswith("mbmrl: ") and told.err.count("\n") == 1
    return told.err


# --- help -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [cli.command_name(c) for c in cli.COMMANDS])
def test_every_command_teaches_by_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command(name, "--help")
    told = capsys.readouterr().out
    assert end.value.code == 0
    assert f"  mbmrl {name}" in told.partition("For example:")[2]


@pytest.mark.parametrize("args", [[], ["-h"], ["--help"]])
def test_help_names_every_command(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command(*args)
    assert end.value.code == 0
    told = capsys.readouterr().out
    assert all(f"\n  {cli.command_name(c)}" in told for c in cli.COMMANDS)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("train", "robot out minutes seed adapter"),
        ("run", "robot checkpoint perturb adapter planner seconds seed out video real-time"),
        ("eval", "robot checkpoint perturb suite agents episodes seconds seed json"),
    ],
)
def test_the_issue_names_every_flag(
    name: str, flags: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command(name, "--help")
    told = capsys.readouterr().out
    assert [f for f in flags.split() if f"--{f} " not in told] == []


def test_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command("--version")
    assert end.value.code == 0
    assert capsys.readouterr().out == f"mbmrl {__version__}\n"


def test_help_waits_for_no_heavy_import() -> None:
    code = "import sys, mbmrl.cli as c; print([m for m in ('torch', 'mujoco') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


# --- mistakes ---------------------------------------------------------------------------------


def test_a_mistake_in_a_process_of_its_own() -> None:
    args = [sys.executable, "-m", "mbmrl", "run", "--robot", "hexapot"]
    done = subprocess.run(args, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("mbmrl: no robot is named 'hexapot'; did you mean 'hexapod'?")
    assert done.stderr.count("\n") == 1


def test_an_unknown_renderer_is_told_in_one_line() -> None:
    args = [sys.executable, "-m", "mbmrl", "list", "robots"]
    env = os.environ | {"MUJOCO_GL": "nonsense"}
    done = subprocess.run(args, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert "MUJOCO_GL: nonsense" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_full_disk_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "rows.json")

    monkeypatch.setattr(cli.List, "__call__", full)
    assert command("list") == 1
    told = capsys.readouterr().err
    assert told.startswith("mbmrl: the disk is full: ")
    assert "rows.json" in told


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["rum"], "no command is named 'rum'; did you mean 'run'?"),
        (["run", "--seconds", -1], "--seconds is a positive number, not -1.0"),
        (["run", "--seconds", "nan"], "--seconds is a positive number"),
        (["run", "--seconds", 0.01], "less than one control period of 0.1 s"),
        (["run", "--seed", -1], "--seed is between 0 and"),
        (["run", "--perturb", "damaged_lag:leg=L0"], "did you mean 'damaged_leg'"),
        (["run", "--perturb", "friction:scael=2"], "friction takes"),
        (["run", "--perturb", "friction:scale=2,onset=20"], "begins at 20 s"),
        (["run", "--perturb", "friction"], "friction needs scale="),
        (["run", "--perturb", "none", "--perturb", "friction:scale=2"], "excludes every other"),
        (["run", "--path", "eigth"], "no path is named 'eigth'; did you mean 'eight'?"),
        (["run", "--path", "eight,zigzag"], "no path is named 'eight,zigzag'"),
        (["eval", "--paths", "eight,tour"], "are of several tasks: path, velocity"),
        (["run", "--robot", "cheetah", "--path", "eight"], "cheetah follows no path"),
        (["run", "--robot", REAL, "--perturb", "friction:scale=2"], "is not simulated"),
        (["run", "--robot", REAL, "--adapter", "oracle"], "needs a simulated robot"),
        (["run", "--robot", SIM, "--checkpoint", "absent"], "no checkpoint in absent"),
        (["run", "--adapter", "zero", "--planner", "nosuch"], "no planner is named 'nosuch'"),
        (["run", "--adapter", "zero", "--out", __file__], "test_cli.py: this is no folder"),
        (["eval", "--robot", REAL], "is not simulated"),
        (["eval", "--episodes", 0], "--episodes is a positive number"),
        (["eval", "--jobs", 0], "--jobs is a positive number"),
        (["discriminate", "--per-kind", 0], "--per-kind is a positive number"),
        (["eval", "--agents", ","], "names nothing"),
        (["eval", "--agents", "zero,oracel"], "oracel"),
        (["eval", "--suite", "test", "--perturb", "none"], "exclude each other"),
        (["eval", "--json", "absent/rows.json"], "there is no folder"),
        (["eval", "--json", "."], "this is no file that could be replaced"),
        (["eval", "--json", "/dev/null"], "this is no file that could be replaced"),
        (["demo", "--seconds", 0.01], "less than one control period"),
        (["train", "--out", "x", "--minutes", 0], "--minutes is a positive number"),
        (["train", "--out", "x", "--members", 0], "--members is a positive number"),
        (["train", "--out", "x", "--robot", REAL], "is not simulated"),
        (["bench", "--robot", REAL], "is not simulated"),
        (["bench", "--json", "absent/bench.json"], "there is no folder"),
        (["bench", "--plan", "--robot", SIM], "leave --robot out"),
        (["bench", "--plan", "--meta"], "at a time"),
        (["plot", "absent"], "no recorded run in absent"),
        (["render", "--out", "x.png"], "either folders of recorded runs or --robot"),
        (["render", "run", "--robot", SIM, "--out", "x.png"], "either folders of recorded runs or"),
        (["render", "absent", "--out", "x.png"], "no recorded run in absent"),
        (["render", "run", "--agent", "zero", "--out", "x.png"], "a recorded run has its own"),
        (["render", "--robot", SIM, "--out", "x.gif"], "it ends in .png or .mp4"),
        (["render", "--robot", SIM, "--out", "absent/x.png"], "--out absent/x.png: there is no"),
        (["render", "--robot", REAL, "--out", "x.png"], "is not simulated"),
        (["discriminate", "--robot", REAL], "is not simulated"),
        (["discriminate", "--episodes", 0], "--episodes is a positive number"),
        (["discriminate", "--json", "absent/gaps.json"], "there is no folder"),
        (["discriminate", "--markdown", "absent/gaps.md"], "--markdown absent/gaps.md: there is"),
    ],
)
def test_a_users_mistake_gets_one_line_and_status_2(
    args: list[object],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *args)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("args", [["run", "--sed", "1"], ["eval", "--seed", "x"], ["train"]])
def test_flags_that_cannot_be_read_end_with_status_2(args: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command(*args)
    assert end.value.code == 2


def test_a_damaged_checkpoint_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    told = refused(capsys, "run", "--robot", SIM, "--checkpoint", folder)
    assert f"the checkpoint in {folder} is damaged" in told


def test_a_checkpoint_of_another_robot_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(capsys, "eval", "--robot", "hexapod", "--checkpoint", folder)
    assert "the checkpoint is for robot 'pointmass' and does not fit 'hexapod'" in told


# --- run --------------------------------------------------------------------------------------


def test_run_records_what_happened(folder: Path, tmp_path: Path) -> None:
    args = ["--robot", SIM, "--checkpoint", folder, "--seconds", 2, "--seed", 3]
    assert command("run", *args, "--out", tmp_path / "run") == 0
    assert (tmp_path / "run" / "run.png").stat().st_size > 1000
    found = log.load(tmp_path / "run")
    assert (found.robot, found.agent, found.seed, found.spec) == (SIM, "default", 3, SPEC)
    assert found.log.obs.shape == (20, 1, 2)
    assert found.qpos.shape == (20, 1)
    assert np.isfinite(found.log.info["pred_error_adapted"][1:]).all()
    robot = SimPointMass(seed=3)
    robot.connect()
    robot.reset()
    np.testing.assert_allclose(found.log.obs[0, 0], robot.read(), rtol=1e-6)


def test_known_mistake_9_a_run_without_perturb_is_perturbed_all_the_same(tmp_path: Path) -> None:
    args = ["run", "--robot", SIM, "--adapter", "zero", "--seconds", 1]
    assert command(*args, "--out", tmp_path / "some") == 0
    assert command(*args, "--perturb", "none", "--out", tmp_path / "none") == 0
    assert log.load(tmp_path / "some").perturbations == ("damaged_leg:leg=motor,onset=0.3",)
    assert log.load(tmp_path / "none").perturbations == ()


def test_several_perturbations_begin_when_they_say_or_at_30_percent(tmp_path: Path) -> None:
    args = ["run", "--robot", SIM, "--adapter", "zero", "--seconds", 1, "--out", tmp_path]
    given = ["--perturb", "payload:mass=0.5", "--perturb", "motor_strength:scale=0.5,onset=0.6"]
    assert command(*args, *given) == 0
    assert log.load(tmp_path).onsets == (0.3, 0.6)


def test_a_real_robot_is_driven_in_real_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept = []
    monkeypatch.setattr("mbmrl.loop.time.sleep", slept.append)
    args = ["--robot", REAL, "--adapter", "zero", "--seconds", 0.5, "--out", tmp_path]
    assert command("run", *args) == 0
    assert len(slept) == 5
    assert "deadlines were missed" in capsys.readouterr().out
    assert log.load(tmp_path).qpos.shape == (5, 0)


@pytest.mark.parametrize(
    ("robot", "status", "message"),
    [("Deaf", 1, "reads no finite vx"), ("Interrupted", 130, "interrupted")],
)
def test_however_a_run_ends_the_robot_is_stopped_and_the_record_kept(
    robot: str,
    status: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("mbmrl.loop.time.sleep", lambda seconds: None)
    args = ["--robot", f"tests.dummy:{robot}", "--adapter", "zero", "--out", tmp_path]
    assert command("run", *args) == status
    assert message in capsys.readouterr().err
    assert Deaf.last.stopped == 1
    assert sorted(f.name for f in tmp_path.iterdir()) == ["run.json", "run.npz"]
    assert len(log.load(tmp_path).log.gain) == 9  # the reset reads, too


def test_a_robot_that_is_gone_is_a_clear_error_and_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mbmrl.loop.time.sleep", lambda seconds: None)
    robot = ["--robot", "tests.dummy:Unplugged", "--adapter", "zero"]
    assert command("run", *robot, "--out", tmp_path) == 1
    assert "the robot cannot be reached: the cable is out" in capsys.readouterr().err
    assert Deaf.last.stopped == 1
    assert len(log.load(tmp_path).log.gain) == 9


def test_what_nobody_foresaw_is_raised_and_the_robot_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(robot: Deaf, act: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError("a mistake in the driver")

    monkeypatch.setattr(Deaf, "write", write)
    with pytest.raises(ZeroDivisionError):
        command("run", "--robot", "tests.dummy:Deaf", "--adapter", "zero", "--out", tmp_path)
    assert Deaf.last.stopped == 1


class Odd(Deaf):
    """A driver that cannot be used as it is."""


class Specless(Odd):
    spec = None


class Aimless(Odd):
    task = "sped"


class Shy(Odd):
    def __init__(self, port: str) -> None:
        super().__init__()


class Late(Odd):
    """A driver whose bus fails as it drives."""

    def write(self, act: np.ndarray) -> np.ndarray:
        raise OSError("[Errno 5] the bus is gone")


BROKEN = {"slip": "class Mine(:", "lacking": "import nothing_of_the_kind"}


@pytest.mark.parametrize("what", ["run", "record"])
@pytest.mark.parametrize(
    ("robot", "message"),
    [
        ("tests.test_cli:Specless", "has no spec: it is None"),
        ("tests.test_cli:Aimless", "has the task 'sped'; there are: path, "),
        ("tests.test_cli:Shy", "fails: TypeError: "),
        ("tests.test_cli:Late", "fails: OSError: [Errno 5] the bus is gone"),
        ("slip:Mine", "fails: SyntaxError: invalid syntax (slip.py, line 1)"),
        ("lacking:Mine", "fails: ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
    ],
)
def test_what_a_driver_gets_wrong_is_one_line(
    what: str,
    robot: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, code in BROKEN.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    how = ["--adapter", "zero"] if what == "run" else []
    assert command(what, "--robot", robot, *how, "--out", tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert told.startswith(f"mbmrl: the driver {robot} ") and message in told
    assert told.count("\n") == 1
    if "Late" in robot:
        assert Deaf.last.stopped


def test_what_cannot_be_written_in_the_end_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mbmrl.commands.common.os.access", lambda *args: False)
    monkeypatch.setattr("mbmrl.drive.Drive", None)
    run = ["run", "--robot", SIM, "--adapter", "zero", "--out", tmp_path]
    assert "nobody may write to" in refused(capsys, *run)
    assert "nobody may write to" in refused(capsys, "eval", "--json", tmp_path / "rows.json")


def test_a_file_that_is_not_written_leaves_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("mbmrl.commands.common.os.replace", full)
    with pytest.raises(OSError, match="no space"):
        write_whole(tmp_path / "rows.json", "[]")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_kill_ends_a_command_as_ctrl_c_does(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mbmrl.about.machine", lambda: signal.raise_signal(number))
    before = signal.signal(number, signal.SIG_DFL)  # under nohup it is ignored, and stays so
    try:
        assert command("info") == 130
        assert "interrupted" in capsys.readouterr().err
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


# --- eval -------------------------------------------------------------------------------------


def test_known_mistake_9_eval_without_perturb_drives_the_whole_test_suite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.json"
    args = ["--robot", SIM, "--agents", "zero", "--seconds", 0.5, "--json", file]
    assert command("eval", *args) == 0
    suite = [conditions.text(c) for c in conditions.test_suite(SimPointMass())]
    assert [row["perturbation"] for row in json.loads(file.read_text())] == suite
    assert "zero" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [file]


def test_an_evaluation_that_is_cut_off_keeps_what_it_drove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, driven = tmp_path / "rows.json", []
    drive = evaluate._drive

    def cut_off(what: Evaluation, batch: Any, *rest: Any) -> list[Row]:
        if driven:
            raise KeyboardInterrupt
        driven.append(batch.agent)
        return drive(what, batch, *rest)

    monkeypatch.setattr(evaluate, "_drive", cut_off)
    args = ["--robot", SIM, "--perturb", "none", "--agents", "zero,oracle", "--seconds", 0.3]
    assert command("eval", *args, "--json", file) not in (0, 2)
    assert [row["agent"] for row in json.loads(file.read_text())] == driven == ["zero"]


def test_eval_compares_the_first_agent_with_the_others(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.json"
    perturb = ["--perturb", "payload:mass=0.5", "--perturb", "motor_strength:scale=0.5"]
    args = ["--robot", SIM, "--checkpoint", folder, *perturb, "--episodes", 2, "--seed", 7]
    agents = ["--agents", "default, pooled,oracle", "--seconds", 1]
    assert command("eval", *args, *agents, "--json", file) == 0
    rows = json.loads(file.read_text())
    assert [(r["agent"], r["seed"]) for r in rows] == [
        (agent, seed) for agent in ("default", "pooled", "oracle") for seed in (7, 8)
    ]
    assert {r["perturbation"] for r in rows} == {"payload:mass=0.5 + motor_strength:scale=0.5"}
    assert "default against the others" in capsys.readouterr().out


def test_eval_drives_every_path(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    args = ["--agents", "zero", "--seconds", 0.5, "--perturb", "none", "--json", file]
    assert command("eval", "--robot", "hexapod", *args) == 0
    assert [row["path"] for row in json.loads(file.read_text())] == ["eight", "zigzag"]


# --- render -----------------------------------------------------------------------------------


@pytest.fixture
def opengl() -> None:
    try:
        scene.backend()
    except NoOpenGL as error:
        pytest.skip(str(error))


def red(picture: np.ndarray) -> int:
    r, g, b = picture.astype(int).transpose(2, 0, 1)
    return int(((r > 90) & (g < 0.4 * r) & (b < 0.4 * r)).sum())


def test_render_draws_a_robot_by_its_name(opengl: None, tmp_path: Path) -> None:
    args = ["render", "--robot", "cheetah", "--seconds", 0.2]
    assert command(*args, "--out", tmp_path / "sound.png") == 0
    damage = ["--perturb", "damaged_leg:leg=F"]
    assert command(*args, *damage, "--out", tmp_path / "lame.png") == 0
    sound, lame = (np.asarray(Image.open(tmp_path / f"{f}.png")) for f in ("sound", "lame"))
    assert sound.shape == lame.shape == (480, 640, 3)
    assert red(sound) == 0 and red(lame) > 1000
    assert sorted(f.name for f in tmp_path.iterdir()) == ["lame.png", "sound.png"]


def test_render_films_a_robot_that_babbles(opengl: None, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    assert command("render", "--robot", "cheetah", "--seconds", 0.3, "--out", film) == 0
    frames = imageio_ffmpeg.read_frames(str(film))
    assert next(frames)["size"] == (video.WIDTH, video.HEIGHT)
    first, *_, last = (np.frombuffer(f, np.uint8) for f in frames)
    assert not np.array_equal(first, last)


def test_render_puts_recorded_runs_side_by_side(
    opengl: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / name for name in ("a", "b", "other")]
    for folder, damage in zip(folders, ("F", "F", "B"), strict=True):
        log.save(folder, babble("cheetah", f"damaged_leg:leg={damage},onset=0.1", ticks=4))
    film = tmp_path / "film.mp4"
    assert command("render", *folders[:2], "--out", film) == 0
    assert next(imageio_ffmpeg.read_frames(str(film)))["size"] == (2 * video.WIDTH, video.HEIGHT)
    assert command("render", folders[0], "--out", tmp_path / "end.png") == 0
    assert red(np.asarray(Image.open(tmp_path / "end.png"))) > 1000
    capsys.readouterr()
    assert "under the same perturbations" in refused(capsys, "render", *folders, "--out", film)
    both = ["render", *folders[:2], "--out", tmp_path / "both.png"]
    assert "several go into an .mp4" in refused(capsys, *both)


def test_render_without_opengl_drives_nothing_and_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MUJOCO_GL", "nothing_of_the_kind")
    scene.backend.cache_clear()
    monkeypatch.setattr("mbmrl.drive.Drive", None)
    args = ["render", "--robot", SIM, "--out", tmp_path / "x.png"]
    assert command(*args) == 1
    scene.backend.cache_clear()
    assert "apt install libegl1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# --- the others -------------------------------------------------------------------------------


def test_list_shows_everything_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("list") == 0
    told = capsys.readouterr().out
    for kind in registry.KINDS:
        assert all(f" {name} " in told for name in registry.names(kind))
    assert " oracle " in told


def test_list_tells_the_drivers_that_take_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("list", "robots") == 0
    told = capsys.readouterr().out
    assert " dynamixel=FILE " in told and " replay=FILE " in told


def test_list_tells_the_keys_of_perturbations(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("list", "perturbations") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "side=both" in told and "gravcomp=" in told
    assert "oracle" not in told


def test_info_tells_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("info") == 0
    told = capsys.readouterr().out
    assert all(word in told for word in ("mbmrl", "torch", "mujoco", "OpenGL", "checkpoints"))


def test_bench_writes_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tick, "TICKS", 3)
    file = tmp_path / "bench.json"
    assert command("bench", "--robot", SIM, "--json", file) == 0
    (speed,) = json.loads(file.read_text())
    assert speed["robot"] == "pointmass" and speed["weights"] == "random"
    assert speed["of_period"] == pytest.approx(speed["tick_ms_p99"] / 100)
    assert speed["plan_ms"] > 0 and speed["products_ms"] > 0


def test_bench_times_every_engine_on_the_same_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = (plan.Case("cem", (8, 8), "relu", 40, 3, 2), plan.Case("mppi", (8,), "silu", 50, 2, 1))
    monkeypatch.setattr(plan, "CASES", cases)
    file = tmp_path / "plan.json"
    assert command("bench", "--plan", "--json", file) == 0
    rows = json.loads(file.read_text())
    here = [name for name, found in availability().items() if found == "yes"]
    assert [(r["planner"], r["engine"]) for r in rows] == [
        (planner, engine) for planner in ("cem", "mppi") for engine in here
    ]
    assert all("thread" in row.pop("machine") for row in rows)
    named = """planner peer network activation dtype engine candidates horizon iterations ms_median
    ms_iqr ratio_to_gemm"""
    assert set(named.split()) == set(rows[0])
    assert rows[0]["network"] == "2x8" and rows[0]["peer"] is None
    assert all(r["ms_median"] > 0 and r["ratio_to_gemm"] > 0 for r in rows)


def test_bench_times_adapting_and_meta_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meta, "CASES", (meta.Case((8, 8), "relu"),))
    file = tmp_path / "meta.json"
    assert command("bench", "--meta", "--json", file) == 0
    ours = [row for row in json.loads(file.read_text()) if row["peer"] is None]
    timed = {(row["step"], row["adapter"]) for row in ours}
    adapters = set(registry.names("adapters")) - {"none"}
    trained = {("train", a) for a in adapters - {"rls"}}
    assert timed == {("adapt", a) for a in adapters} | {("meta", "maml")} | trained
    assert all(row["ms_median"] > 0 and row["ratio_to_gemm"] > 0 for row in ours)


TRAINED = tuple(a for a in registry.names("adapters") if a not in ("none", "rls"))


@pytest.mark.parametrize(
    ("flag", "adapters", "members", "network"),
    [
        ([], (), None, None),
        (["--adapter", "maml"], ("maml",), None, None),
        (["--adapter", "bayes,maml", "--members", 4], ("bayes", "maml"), 4, None),
        (["--network", "graph"], (), None, "graph"),
        (["--adapter", "all"], TRAINED, None, None),
    ],
)
def test_train_passes_on_what_to_train(
    flag: list[str],
    adapters: tuple[str, ...],
    members: int | None,
    network: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr("mbmrl.train.train", lambda *args: asked.append(args) or args[1])
    assert command("train", "--robot", SIM, "--out", tmp_path, "--minutes", 2, *flag) == 0
    assert asked == [(SIM, tmp_path, 2.0, 0, adapters, members, network)]


def test_train_tells_what_was_there_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mbmrl.train.train", lambda *args: args[1])
    (tmp_path / "config.json").touch()
    assert command("train", "--robot", SIM, "--out", tmp_path) == 0
    assert "was there already" in capsys.readouterr().out


def test_train_tells_how_to_drive_what_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mbmrl.train.train", lambda *args: args[1])
    monkeypatch.setattr("mbmrl.train.train_from", lambda *args: args[1])
    recording.save(tmp_path / "0000.episode", made())
    for args, robot in (
        (["--robot", SIM], SIM),
        ([], "hexapod"),
        (["--data", tmp_path], made().robot),
    ):
        assert command("train", "--out", "x", *args) == 0
        assert f"try `mbmrl run --robot {robot} --checkpoint x`" in capsys.readouterr().out
