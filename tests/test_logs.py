"""Training from recordings alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from test_recording import made
from test_train import TINY, in_this_process

from mbmrl import checkpoint, logs, recording
from mbmrl.data import Windows
from mbmrl.recording import Recording, RecordingError
from mbmrl.settings import Settings
from mbmrl.spec import Field, RobotSpec, SpecError
from mbmrl.train import HELD_OUT, TrainError, train_from

SPEC = RobotSpec(
    name="gripper",
    dt=0.1,
    obs=(Field("row", "1"), Field("file", "1")),
    act=(Field("grip", "1", -1, 1),),
)
WINDOW = TINY.window + TINY.fit.query


def counted(rows: int, number: int = 0, condition: str = "", gap: int | None = None) -> Recording:
    """Every observation says of which row and file it is."""
    stamps = 0.1 * np.arange(rows)
    if gap:
        stamps[gap:] += 1.0
    obs = np.stack([np.arange(rows), np.full(rows, number)], 1).astype(float)
    act = np.sin(obs[:, :1])
    return Recording(
        spec=SPEC,
        robot="nowhere:Gripper",
        stamps=stamps,
        obs=obs,
        act=act,
        condition=condition,
        name=f"{number:04d}",
    )


# --- cutting ----------------------------------------------------------------------------------


def test_every_window_of_a_block_is_in_an_episode_and_none_crosses_a_gap() -> None:
    window = 6
    cut = logs.episodes([counted(131, gap=60), counted(40, 1)], window, labels=9)
    assert cut.obs.shape[1:] == (2 * window + 1, 2) and cut.act.shape[1:] == (2 * window, 1)
    places = set()
    for obs, act, name in zip(cut.obs, cut.act, cut.condition, strict=True):
        np.testing.assert_array_equal(np.diff(obs[:, 0]), 1)
        assert np.ptp(obs[:, 1]) == 0
        np.testing.assert_array_equal(act[:, 0], np.sin(obs[:-1, 0]))
        first = int(obs[0, 0])
        places |= {(int(obs[0, 1]), first + k, name) for k in range(window + 1)}
    blocks = {name: [p for p in places if p[2] == name] for name in set(cut.condition)}
    for of_block in blocks.values():
        starts = sorted(p[1] for p in of_block)
        assert starts == list(range(starts[0], starts[-1] + 1))  # all windows, side by side
    reached = {(f, s + k) for f, s, _ in places for k in range(window + 1)}
    assert reached == {(0, k) for k in range(131)} | {(1, k) for k in range(40)}
    assert not any(f == 0 and s < 60 <= s + window for f, s, _ in places)


def test_blocks_share_no_transition() -> None:
    cut = logs.episodes([counted(500)], 6, labels=9)
    seen: dict[int, str] = {}
    for obs, name in zip(cut.obs, cut.condition, strict=True):
        for row in obs[:-1, 0].astype(int):
            assert seen.setdefault(row, name) == name
    assert len(set(seen.values())) > 10


def test_many_labels_are_conditions_and_few_are_not() -> None:
    files = [counted(60, k, f"c{k}") for k in range(HELD_OUT)]
    assert set(logs.episodes(files, 6, HELD_OUT).condition) == {f"c{k}" for k in range(HELD_OUT)}
    assert len(set(logs.episodes(files[:-1], 6, HELD_OUT).condition)) > HELD_OUT


def test_too_little_is_refused_with_how_much_it_takes() -> None:
    with pytest.raises(RecordingError, match="record 5 s without a gap"):
        logs.episodes([counted(48)], 6, labels=9)
    logs.episodes([counted(49)], 6, labels=9)


# --- training ---------------------------------------------------------------------------------


def folder(path: Path, *recordings: Recording) -> Path:
    for k, r in enumerate(recordings):
        recording.save(path / f"{k:04d}.episode", r)
    return path


def test_a_robot_that_nobody_can_import_is_trained_by_the_stored_spec(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", counted(400), counted(300, 1, "ice"))
    with in_this_process():
        assert train_from(data, tmp_path / "out", seed=3) == tmp_path / "out"
    result = checkpoint.load(tmp_path / "out")
    assert result.spec == SPEC and set(result.learners) == {"none", "bayes"}
    notes = result.training
    assert (notes["transitions"], notes["conditions"]) == (399 + 299, 2)
    assert notes["updates"] == 3 * TINY.fit.updates
    assert f"--data {data}" in notes["command"] and "--seed 3" in notes["command"]


def test_it_goes_on_where_it_was_cut_off_and_ends_the_same(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", counted(400))
    with in_this_process():
        train_from(data, tmp_path / "whole")
    with in_this_process(patience=2), pytest.raises(KeyboardInterrupt):
        train_from(data, tmp_path / "out")
    with in_this_process() as pool:
        train_from(data, tmp_path / "out")
    assert len(pool.jobs) == 1
    weights = [(tmp_path / d / "weights.safetensors").read_bytes() for d in ("whole", "out")]
    assert weights[0] == weights[1]
    folder(data, counted(300))
    with in_this_process(patience=0), pytest.raises(TrainError, match="data"):
        train_from(data, tmp_path / "out")


def test_the_spec_of_the_class_counts_and_must_fit(tmp_path: Path) -> None:
    obs = np.zeros((400, 2))
    data = folder(tmp_path / "data", made(400, obs=obs, stamps=0.1 * np.arange(400)))
    with in_this_process():
        train_from(data, tmp_path / "out", robot="tests.dummy:PointMass")
    assert checkpoint.load(tmp_path / "out").spec.name == "pointmass"
    with in_this_process(), pytest.raises(SpecError, match="does not fit"):
        train_from(data, tmp_path / "other", robot="hexapod")


def test_of_two_blocks_one_is_trained_on_whatever_their_names(tmp_path: Path) -> None:
    """The names of blocks decide which are held out: here it would be both."""
    rows = 4 * 2 * WINDOW + 1

    def names(number: int) -> set[str]:
        return set(logs.episodes([counted(rows, number)], WINDOW, HELD_OUT).condition)

    number = next(
        k for k in range(9999) if all(crc32(n.encode()) % HELD_OUT == 0 for n in names(k))
    )
    assert len(names(number)) == 2
    recording.save(tmp_path / "data" / f"{number:04d}.episode", counted(rows))
    with in_this_process():
        train_from(tmp_path / "data", tmp_path / "out")
    assert checkpoint.load(tmp_path / "out").default == "bayes"


@pytest.mark.slow
def test_adapting_foretells_a_robot_whose_gain_changes_from_log_to_log(tmp_path: Path) -> None:
    """Unlabelled logs alone: after training, θ′ foresees an unseen gain better than θ* does."""
    rng = np.random.default_rng(0)

    def log(gain: float) -> Recording:
        act = np.repeat(rng.uniform(-1, 1, (40, 1)), 10, axis=0)
        speed = np.zeros((400, 1))
        for k in range(399):
            speed[k + 1] = 0.8 * speed[k] + gain * act[k]
        spec = dataclasses.replace(SPEC, obs=(Field("speed", "m/s"),))
        stamps = 0.1 * np.arange(400)
        return Recording(spec=spec, robot="nowhere", stamps=stamps, obs=speed, act=act)

    data = folder(tmp_path / "data", *(log(g) for g in (-1.5, -1.0, -0.5, 0.5, 1.0, 1.5)))
    fit = dataclasses.replace(TINY.fit, updates=250, batch=24, check_every=125)
    settings: Settings = dataclasses.replace(TINY, hidden=(16,), fit=fit)
    with in_this_process(settings=settings):
        train_from(data, tmp_path / "out")
    dynamics, adapter = checkpoint.load(tmp_path / "out").learner("bayes")
    unseen = logs.episodes([log(-0.75), log(0.75)], WINDOW, HELD_OUT)
    support, query = Windows(unseen, dynamics.spec).sample(
        torch.Generator().manual_seed(0), 64, TINY.window, TINY.fit.query
    )
    x, y = dynamics.inputs(query.obs, query.act), dynamics.targets(query)
    with torch.no_grad():
        params = adapter.adapt(dynamics, support), dynamics.prior()
        after, before = (float((dynamics.predict(p, x) - y).square().mean()) for p in params)
    assert after < 0.5 * before
