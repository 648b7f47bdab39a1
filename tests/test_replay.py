"""A recorded log as a robot."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mbmrl import cli, log, recording, registry
from mbmrl.bench import tick
from mbmrl.recording import Recording, RecordingError
from mbmrl.registry import UnknownName
from tests.dummy import SPEC
from tests.test_recording import made


def gappy(tmp_path: Path) -> tuple[Path, Recording]:
    """Rows 0 to 11, and 12 to 29."""
    whole = made(30)
    stamps = whole.stamps.copy()
    stamps[12:] += 3.0
    whole = dataclasses.replace(whole, stamps=stamps)
    recording.save(tmp_path / "a.episode", whole)
    return tmp_path / "a.episode", whole


def test_it_does_again_what_it_did(tmp_path: Path) -> None:
    path, whole = gappy(tmp_path)
    cls = registry.load("robots", f"replay={path}")
    assert cls.spec == SPEC
    with cls() as robot:
        for rows in (range(12), range(12, 30), range(12)):
            for row in rows:
                np.testing.assert_array_equal(robot.read(), whole.obs[row])
                sent = robot.write(np.array([0.3]))  # whatever it is told
                np.testing.assert_array_equal(sent, whole.act[row])
            with pytest.raises(RecordingError, match=f"ends after {len(rows) * 0.1:.2f} s"):
                robot.read()
            robot.reset()


def test_the_recording_is_nobodys_to_change(tmp_path: Path) -> None:
    path, whole = gappy(tmp_path)
    robot = registry.load("robots", f"replay={path}")()
    robot.connect()
    robot.read()[:] = 7.0
    np.testing.assert_array_equal(robot.read(), whole.obs[0])


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("replay=absent", RecordingError, "absent is no recording"),
        ("repaly=x", UnknownName, "did you mean 'replay'"),
        ("tests.dummy:PointMass=x", UnknownName, "no method from_file"),
    ],
)
def test_mistakes(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        registry.load("robots", name)


def test_a_recording_without_two_rows_in_a_row_is_no_robot(tmp_path: Path) -> None:
    recording.save(tmp_path / "a.episode", made(1))
    with pytest.raises(RecordingError, match="no two readings"):
        registry.load("robots", f"replay={tmp_path}")


def test_an_agent_that_drives_a_replay_learns_from_what_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's log holds the recording; the model's errors on it are the same every time."""
    monkeypatch.setattr("mbmrl.loop.time.sleep", lambda seconds: None)
    whole = made(60)
    recording.save(tmp_path / "a.episode", whole)
    tick.untrained(SPEC).save(tmp_path / "model")
    errors = []
    for turn in "12":
        args = ["--robot", f"replay={tmp_path / 'a.episode'}", "--checkpoint", tmp_path / "model"]
        out = tmp_path / turn
        assert cli.main(["run", *map(str, args), "--seconds", "5.9", "--out", str(out)]) == 0
        found = log.load(out)
        np.testing.assert_allclose(found.log.obs[:, 0], whole.obs[:59], rtol=1e-6)
        np.testing.assert_allclose(found.log.act[:, 0], whole.act[:59], rtol=1e-6)
        errors.append(found.info("pred_error_adapted"))
    np.testing.assert_array_equal(*errors)
    assert np.isfinite(errors[0][1:]).all()
