"""How far a model can be trusted, judged on a recording."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mbmrl import cli, foresight, recording, registry
from mbmrl.bench import tick
from mbmrl.checkpoint import Checkpoint
from mbmrl.foresight import NAMES, Foresight, foresee, places, verdict
from mbmrl.recording import Recording, RecordingError
from mbmrl.spec import Field, RobotSpec

SPEC = RobotSpec(
    name="cart",
    dt=0.1,
    obs=(
        Field("x", "m"),
        Field("y", "m"),
        Field("yaw", "rad", -math.pi, math.pi),
        Field("v", "m/s"),
        Field("phase", "1"),
    ),
    act=(Field("push", "1", -1, 1),),
    pose=("x", "y", "yaw"),
    known={"phase": {"phase": 0.5}},
)


def model(drift: tuple[float, ...] = (0, 0, 0, 0), adapter: str = "none") -> Checkpoint:
    """A model that predicts the same change always: forward, left, turn, v."""
    made = tick.untrained(SPEC)
    dynamics, _ = made.learner("none")
    with torch.no_grad():
        for p in dynamics.parameters():
            p.zero_()
    dynamics.target_mean.copy_(torch.tensor(drift))
    made.learners[adapter] = dynamics, registry.load("adapters", adapter)(dynamics)
    made.default = adapter
    return made


def drive(ticks: int = 80, speed: float = 1.0, turn: float = 0.0, brake: float = 0.0) -> Recording:
    """Forward along a circle, each step 0.1 m at a speed of 1 m/s."""
    k = np.arange(ticks)
    v = speed * np.ones(ticks) - brake * k
    yaw = turn * k
    step = SPEC.dt * speed
    x = np.cumsum(np.r_[0, step * np.cos(yaw[:-1])])
    y = np.cumsum(np.r_[0, step * np.sin(yaw[:-1])])
    wrapped = (yaw + math.pi) % (2 * math.pi) - math.pi
    obs = np.stack([x, y, wrapped, v, 0.5**k], 1)
    act = np.zeros((ticks, 1))
    return Recording(
        spec=SPEC, robot="nowhere", stamps=0.1 * k, obs=obs, act=act, name=f"{speed}/{turn}"
    )


def look(checkpoint: Checkpoint, *recordings: Recording, horizon: int = 6) -> Foresight:
    return foresee(checkpoint, places(recordings, checkpoint.window, horizon), horizon)


def column(found: Foresight, name: str) -> int:
    return found.fields.index(name)


# --- errors -----------------------------------------------------------------------------------


def test_errors_are_in_the_units_of_the_fields() -> None:
    """A model that moves 0.07 m a step, on a robot that moves 0.1 m: 0.03 m a step wrong."""
    found = look(model((0.07, 0, 0, 0)), drive())
    ahead = np.arange(1, 7)
    np.testing.assert_allclose(found.rmse("adapted")[:, 0], 0.03 * ahead, atol=1e-5)
    np.testing.assert_allclose(found.rmse("still")[:, 0], 0.1 * ahead, atol=1e-5)
    np.testing.assert_allclose(found.rmse("steady"), 0, atol=1e-4)
    assert found.fields == ["x", "y", "yaw", "v"]  # what the controller makes itself is no feat


def test_angles_are_compared_round_the_circle() -> None:
    circling = drive(turn=0.4)
    found = look(model((0.1, 0, 0.4, 0)), circling)
    np.testing.assert_allclose(found.rmse("adapted"), 0, atol=1e-4)
    yaw = column(found, "yaw")
    np.testing.assert_allclose(found.rmse("steady")[:, yaw], 0, atol=1e-4)
    np.testing.assert_allclose(found.rmse("still")[:, yaw], 0.4 * np.arange(1, 7), atol=1e-4)


def test_the_adapted_model_is_the_one_of_the_window_before() -> None:
    """A learner whose prior expects no change learns the drift from the window."""
    made = model((0, 0, 0, 0), "bayes")
    dynamics, adapter = made.learner("bayes")
    with torch.no_grad():
        for p in dynamics.parameters():
            p.zero_()
        adapter.log_noise.fill_(-8.0)
        adapter.log_scale.fill_(2.0)
    found = look(made, drive(turn=0.2, brake=0.01))
    prior, adapted = found.rmse("prior"), found.rmse("adapted")
    np.testing.assert_allclose(prior[:, 3], 0.01 * np.arange(1, 7), atol=1e-5)
    assert (adapted[:, 2:] < 0.05 * prior[:, 2:]).all()


def test_no_prediction_crosses_a_gap_or_lacks_its_history() -> None:
    whole = drive(200)
    stamps = whole.stamps.copy()
    stamps[90:] += 5.0
    broken = Recording(
        spec=SPEC, robot="", stamps=stamps, obs=whole.obs, act=whole.act, name="broken"
    )
    rows = [row for _, row in places([broken], 32, 6)]
    assert rows == [*range(32, 84), *range(90 + 32, 194)]
    assert len(places([broken], 32, 6, most=10)) == 10
    with pytest.raises(RecordingError, match=r"no 12\.1 s without a gap"):
        places([broken], 90, 30)


# --- the verdict ------------------------------------------------------------------------------


def judged(errors: dict[str, list[float]]) -> Foresight:
    """Of one field, with these errors at each step."""
    spec = RobotSpec(name="one", dt=0.1, obs=(Field("v", "m/s"),), act=SPEC.act)
    truth = np.zeros((3, len(errors["still"]), 1))
    told = {w: np.tile(np.array(errors[w])[:, None], (3, 1, 1)) for w in NAMES}
    return Foresight(spec, np.zeros((3, 1)), truth, told)


def test_trust_ends_where_knowing_no_model_is_as_good() -> None:
    found = judged(
        {
            "still": [1.0, 2.0, 3.0, 4.0],
            "steady": [2.0, 1.5, 1.5, 1.5],
            "prior": [0.9, 1.6, 0.1, 0.1],
            "adapted": [0.5, 1.0, 1.6, 0.1],
        }
    )
    assert (found.horizon(), found.horizon("prior")) == (2, 1)
    assert found.trusted() == {"v": 2}
    told = verdict(found, planned=3)
    assert "Trust it for 2 steps (0.2 s); without adapting, for 1" in told
    assert "looks 3 steps ahead: further than can be trusted" in told
    assert "further" not in verdict(found, planned=2)


def test_a_model_that_is_never_better_is_not_to_be_driven_with() -> None:
    errors = {w: [1.0, 1.0] for w in NAMES}
    assert verdict(judged(errors), planned=2).startswith("Do not drive")


def test_a_model_that_is_better_to_the_end_may_be_better_still() -> None:
    errors = {w: [1.0, 1.0] for w in NAMES} | {"adapted": [0.5, 0.5]}
    assert "at least 2 steps" in verdict(judged(errors), planned=9)


# --- the command ------------------------------------------------------------------------------


def command(*args: object) -> int:
    return cli.main([str(a) for a in args])


def test_a_reference_checkpoint_is_trusted_on_a_new_recording(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--robot", "hexapod", "--seconds", 8, "--seed", 5, "--out", tmp_path]
    assert command("record", *args) == 0
    assert command("check-model", tmp_path) == 0
    told = capsys.readouterr().out
    trusted = re.search(r"Trust it for at least (\d+) steps", told)
    assert trusted and int(trusted[1]) >= 12 and "rad/s" in told
    assert (tmp_path / "check.png").stat().st_size > 10_000


def test_an_untrained_model_is_not_and_the_status_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording.save(tmp_path / "a.episode", drive(turn=0.1))
    untrained = tick.untrained(SPEC)
    untrained.default = "none"
    untrained.save(tmp_path / "model")
    args = ["--checkpoint", tmp_path / "model", "--horizon", 5, "--png", tmp_path / "x.png"]
    assert command("check-model", tmp_path, *args) == 1
    told = capsys.readouterr()
    assert "Do not drive with this model" in told.out and "foresees nothing" in told.err
    assert (tmp_path / "x.png").exists()


def test_a_model_of_another_robot_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording.save(tmp_path / "a.episode", drive())
    tick.untrained(SPEC).save(tmp_path / "model")
    assert command("check-model", tmp_path) == 2
    assert "no reference checkpoint is shipped for 'cart'" in capsys.readouterr().err


def test_the_planners_own_horizon_is_what_is_looked_at() -> None:
    assert foresight.planned(SPEC) == 12
