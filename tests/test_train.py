"""Training: collect, fit, repeat; cut off anywhere, it goes on from there and ends the same."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dummy import SPEC, SimPointMass
from rich.progress import Progress

from controllers.learned import LearnedModel
from mbmrl import checkpoint, compose, conditions, workers
from mbmrl import collect as collecting
from mbmrl import train as training
from mbmrl.collect import Job, collect
from mbmrl.compose import learned_model
from mbmrl.data import BRANCH_EVERY, Episodes, Store
from mbmrl.dynamics import Dynamics
from mbmrl.fit import FitConfig
from mbmrl.graph import GraphDynamics
from mbmrl.registry import UnknownName
from mbmrl.settings import Settings
from mbmrl.spec import SpecError
from mbmrl.train import TrainError, train

ROBOT = "dummy:SimPointMass"
TINY = Settings(
    adapter="bayes",
    hidden=(6,),
    window=6,
    plan={"horizon": 3, "num_samples": (6,), "num_knots": 2},
    true_plan={"horizon": 3, "num_samples": (6,), "num_knots": 2},
    episode_s=4.0,
    babble=12,
    expert=2,
    rounds=2,
    on_policy=6,
    lanes=5,
    fit=FitConfig(updates=4, batch=4, window=6, query=10, check_every=2),
    final=2,
)
STEPS = 40


class Another(SimPointMass):
    """Another robot with the same interface."""


BATCHES = ["0-00000", "0-00005", "0-00010", "1-00000", "1-00005", "2-00000", "2-00005"]


class Inline(Executor):
    """Runs every job at once, in this process; after ``patience`` jobs somebody hits Ctrl-C."""

    def __init__(self, patience: float = float("inf")) -> None:
        self.patience = patience
        self.jobs: list[tuple[str, tuple[Any, ...]]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if len(self.jobs) >= self.patience:
            raise KeyboardInterrupt
        self.jobs.append((fn.__name__, args))
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def in_this_process(patience: float = float("inf"), settings: Settings = TINY) -> Iterator[Inline]:
    """Settings reach spawned workers only inside the job; here they are the same for all."""
    pool, events = Inline(patience), queue.Queue()

    @contextmanager
    def in_line() -> Iterator[tuple[Executor, Progress, Any]]:
        yield pool, Progress(disable=True), events

    with pytest.MonkeyPatch.context() as m:
        m.setattr(training, "workers", in_line)
        m.setattr(workers, "_EVENTS", events)
        for module in (training, compose):
            m.setattr(module, "settings_for", lambda robot: settings)
        yield pool


@pytest.fixture(scope="module", autouse=True)
def perturbations_are_looked_up_once() -> Iterator[None]:
    """The look-up reads every installed package's entry points, for every episode."""
    kinds = conditions.kinds_for(SimPointMass())
    with pytest.MonkeyPatch.context() as m:
        m.setattr(conditions, "kinds_for", lambda robot: list(kinds))
        yield


class Recorded:
    """What a whole training run did, step by step."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.collected: list[tuple[str, int, Path | None]] = []
        self.windows: list[tuple[Episodes, bool]] = []
        self.fits: list[dict[str, Any]] = []
        collect_, windows_, fit_ = collecting.collect, training.Windows, training.fit

        def collect(
            job: Job, kind: str, count: int, seed: Sequence[int], stage: Path | None = None
        ) -> Episodes:
            self.collected.append((kind, count, stage))
            return collect_(job, kind, count, seed, stage)

        def windows(episodes: Episodes, spec: Any, *, mirror: bool = True) -> Any:
            self.windows.append((episodes, mirror))
            return windows_(episodes, spec, mirror=mirror)

        def fit(pairs: Any, *args: Any) -> list[float]:
            ((dynamics, adapter),) = pairs
            start = {k: v.clone() for k, v in dynamics.state_dict().items()}
            self.fits.append({"adapter": adapter.name, "start": start, "config": args[2]})
            return fit_(pairs, *args)

        with in_this_process() as pool, pytest.MonkeyPatch.context() as m:
            m.setattr(collecting, "collect", collect)
            m.setattr(training, "Windows", windows)
            m.setattr(training, "fit", fit)
            assert train(ROBOT, out, seed=3) == out
        self.windows.pop()  # those that bfloat16 is judged on, after all fits
        self.jobs = pool.jobs
        self.episodes = Store(out / "data").load(SPEC)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """One run from nothing to the end."""
    return Recorded(tmp_path_factory.mktemp("train") / "new" / "whole")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


# --- the run as a whole --------------------------------------------------------------------------


def test_from_nothing_to_a_checkpoint(whole: Recorded) -> None:
    made = checkpoint.load(whole.out)
    assert set(made.learners) == {"none", "bayes"} and made.default == "bayes"
    assert (made.window, made.spec) == (6, SPEC)
    assert Store(whole.out / "data").names() == BATCHES
    assert whole.episodes.obs.shape == (12 + 2 + 6 + 6, STEPS + 1, SPEC.num_obs)
    notes = made.training
    assert notes["seed"] == 3 and "--seed 3" in notes["command"] and ROBOT in notes["command"]
    assert notes["transitions"] == 26 * STEPS
    assert notes["conditions"] == len(set(whole.episodes.condition))
    assert set(notes["validation_loss"]) == {"none", "bayes"}
    for name, curve in notes["curve"].items():  # update, loss, and both losses on held-out windows
        assert [len(row) for row in curve] == [4] * 4 and [row[0] for row in curve] == [2, 4, 6, 8]
        assert all((row[2] == row[3]) == (name == "none") for row in curve)
    assert any((whole.out / "curves").iterdir())


def test_each_round_is_driven_by_what_the_round_before_it_made(whole: Recorded) -> None:
    """First babbling and the true simulator, then the adapting controller and the pooled one."""
    stages = whole.out / "stages"
    count = {}
    for kind, number, stage in whole.collected:
        count[kind, stage] = count.get((kind, stage), 0) + number
    assert count == {
        ("babble", None): 12,
        ("expert", None): 2,
        ("default", stages / "round1"): 4,
        ("pooled", stages / "round1"): 2,
        ("default", stages / "round2"): 4,
        ("pooled", stages / "round2"): 2,
    }
    for name in ("round1", "round2"):
        assert checkpoint.load(stages / name).default == "bayes"


def test_known_mistake_3_every_fit_takes_everything_stored(whole: Recorded) -> None:
    """Rounds later than the first see the old data too, and normalise over all of it."""
    sizes = [len(a) + len(b) for (a, _), (b, _) in zip(*[iter(whole.windows)] * 2, strict=True)]
    assert sorted(set(sizes)) == [14, 20, 26] and sizes[-1] == 26
    flat = whole.episodes.transitions()
    inputs = torch.cat([flat.obs, flat.act], -1)
    made = checkpoint.load(whole.out)
    for dynamics, _ in made.learners.values():
        torch.testing.assert_close(dynamics.input_mean, inputs.mean(0))
        torch.testing.assert_close(dynamics.input_std, inputs.std(0).clamp_min(1e-4))
        torch.testing.assert_close(dynamics.target_mean, dynamics.changes(flat).mean(0))


def test_held_out_conditions_were_never_trained_on(whole: Recorded) -> None:
    """Neither in this fit nor in one that it starts from: its loss chooses the snapshot."""
    trained: set[str] = set()
    pairs = zip(*[iter(whole.windows)] * 2, strict=True)
    for (train_on, _), (judged_on, mirrored) in pairs:
        assert len(train_on) and len(judged_on) and not mirrored
        assert "" not in judged_on.condition
        trained |= set(train_on.condition)
        assert not trained & set(judged_on.condition)


def test_the_pooled_model_is_matched_update_by_update(whole: Recorded) -> None:
    """The same start, the same data and as many updates as the learner that it is compared to."""
    assert [(f["adapter"], f["config"].updates) for f in whole.fits] == [
        ("none", 4),  # the first pooled model
        *[("none", 2), ("bayes", 2)] * 2,  # of two rounds
        ("none", 8),
        ("bayes", 8),
    ]
    made = checkpoint.load(whole.out).training
    assert made["updates"] == 4 + 2 * 2 + 8
    assert made["wall_minutes"] < 60
    for pooled, learner in zip(whole.fits, whole.fits[1:], strict=False):
        if learner["adapter"] == "bayes":
            assert pooled["adapter"] == "none" and pooled["config"] == learner["config"]
            for key, value in pooled["start"].items():
                assert torch.equal(value, learner["start"][key]), key


def test_an_ensemble(whole: Recorded, tmp_path: Path) -> None:
    """The first member begins as the only one would; each goes on from its own pooled model."""
    starts: list[tuple[str, list[Any]]] = []
    fit_ = training.fit

    def fit(pairs: Any, *args: Any) -> list[float]:
        starts.append((pairs[0][1].name, [p.weights[0].detach().clone() for p, _ in pairs]))
        return fit_(pairs, *args)

    settings = replace(TINY, rounds=0, babble=5, expert=0)
    with in_this_process(settings=settings), pytest.MonkeyPatch.context() as m:
        m.setattr(training, "fit", fit)
        train(ROBOT, tmp_path, seed=3, members=3)
    made = checkpoint.load(tmp_path)
    pooled, learned = made.members("none"), made.members("bayes")
    assert len(pooled) == len(learned) == 3 and made.learner("bayes") is learned[0]
    assert len({prior.weights[0].sum().item() for prior, _ in learned}) == 3
    assert len({adapter.log_noise.item() for _, adapter in learned}) == 3
    assert "--members 3" in made.training["command"]
    assert set(made.training["validation_loss"]) == set(made.learners)
    assert torch.equal(starts[0][1][0], whole.fits[0]["start"]["weights.0"])
    base = checkpoint.load(tmp_path / "stages" / "base").members("none")
    for name, begun in starts[1:]:
        assert name in ("none", "bayes")
        assert all(torch.equal(w, p.weights[0]) for w, (p, _) in zip(begun, base, strict=True))


def test_a_network_over_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It learns as such, stage after stage, and drives as a plain network of the same function."""
    with in_this_process(settings=replace(TINY, babble=5, expert=0)):
        with pytest.raises(SpecError, match="links"):
            train(ROBOT, tmp_path / "no", network="graph")
        linked = replace(SimPointMass.spec, tree={"force": ""})
        monkeypatch.setattr(SimPointMass, "spec", linked)
        train(ROBOT, tmp_path / "yes", network="graph")
    made = checkpoint.load(tmp_path / "yes")
    assert all(isinstance(prior, GraphDynamics) for prior, _ in made.learners.values())
    assert "--network graph" in made.training["command"]
    model = learned_model("default", made)
    assert isinstance(model, LearnedModel)
    plain, learned = model.dynamics, made.learner("bayes")[0]
    assert type(plain) is Dynamics
    obs, act = torch.randn(5, linked.num_obs), torch.randn(5, linked.num_act)
    torch.testing.assert_close(plain(obs, act), learned(obs, act))


# --- cut off and resumed -------------------------------------------------------------------------


def test_a_run_that_is_cut_off_again_and_again_ends_as_the_whole_one(
    whole: Recorded, tmp_path: Path
) -> None:
    """Three jobs at a time: none is done twice, and the result is the same, bit by bit."""
    jobs: list[tuple[str, tuple[Any, ...]]] = []
    for _ in range(20):
        with in_this_process(patience=3) as pool:
            try:
                train(ROBOT, tmp_path, seed=3)
                break
            except KeyboardInterrupt:
                assert not (tmp_path / "config.json").exists()
            finally:
                jobs += pool.jobs
    assert len(jobs) == len(whole.jobs)
    assert [n for n, _ in jobs] == [n for n, _ in whole.jobs]
    assert contents(tmp_path)["weights.safetensors"] == contents(whole.out)["weights.safetensors"]
    resumed = Store(tmp_path / "data").load(SPEC)
    for name in ("obs", "act", "onset"):
        mine, theirs = getattr(resumed, name), getattr(whole.episodes, name)
        np.testing.assert_array_equal(mine, theirs)
    assert resumed.condition == whole.episodes.condition
    # how long it took in all nobody knows
    assert "wall_minutes" not in checkpoint.load(tmp_path).training


@pytest.mark.parametrize("where", ["data", "stages/final/bayes", "."])
def test_a_kill_in_mid_write_is_made_good(where: str, whole: Recorded, tmp_path: Path) -> None:
    """The half file is there at the second start, and harms nobody."""
    out = tmp_path / "out"
    shutil.copytree(whole.out, out)
    (out / "config.json").unlink()
    if where != ".":
        shutil.rmtree(out / "stages" / "final")
    if where == "data":
        (out / "data" / f"{BATCHES[-1]}.npz").unlink()
    replace_ = os.replace

    def cut_off(source: Path, target: Path) -> None:
        if source.parent == out / where:
            raise KeyboardInterrupt
        replace_(source, target)

    with in_this_process(), pytest.MonkeyPatch.context() as m:
        m.setattr(os, "replace", cut_off)
        with pytest.raises(KeyboardInterrupt):
            train(ROBOT, out, seed=3)
    assert list((out / where).glob(".*.part")) and not (out / "config.json").exists()
    with in_this_process() as pool:
        train(ROBOT, out, seed=3)
    assert len(pool.jobs) == {"data": 3, "stages/final/bayes": 1, ".": 0}[where]
    assert contents(out)["weights.safetensors"] == contents(whole.out)["weights.safetensors"]


def test_a_finished_run_has_nothing_left_to_do(whole: Recorded) -> None:
    before = contents(whole.out)["weights.safetensors"]
    with in_this_process(patience=0) as pool:
        train(ROBOT, whole.out, seed=3)
    assert not pool.jobs and contents(whole.out)["weights.safetensors"] == before


CHILD = """
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    # whose parent runs in the background would ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from mbmrl import train as training
    from mbmrl.fit import FitConfig
    from mbmrl.settings import Settings

    training.settings_for = lambda robot: {settings}
    training.train({robot!r}, Path(sys.argv[1]), seed=3)
"""


@pytest.mark.slow
def test_ctrl_c_ends_every_process_and_the_next_run_goes_on(tmp_path: Path) -> None:
    """With real workers: what they stored before Ctrl-C is not collected again."""
    settings = replace(TINY, rounds=0, babble=12, expert=0, lanes=1, episode_s=8.0)
    script, out = tmp_path / "child.py", tmp_path / "out"
    script.write_text(CHILD.format(settings=settings, robot=ROBOT))
    here = Path(__file__).parent
    child = subprocess.Popen(
        [sys.executable, str(script), str(out)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent), str(here)])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        patience = time.monotonic() + 300
        while not list(out.glob("data/*.npz")):
            assert child.poll() is None, child.communicate()[1]
            assert time.monotonic() < patience
            time.sleep(0.005)
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does
        child.communicate(timeout=60)
        assert child.returncode != 0
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.killpg(child.pid, 0)  # workers, too, are gone
            time.sleep(0.05)
    stored = {p.name: p.stat().st_mtime_ns for p in out.glob("data/*.npz")}
    assert 0 < len(stored) < 12
    with in_this_process(settings=settings) as pool:
        train(ROBOT, out, seed=3)
    done = [name for name, _ in pool.jobs]
    assert done == ["_collect_batch"] * (12 - len(stored)) + ["_fit_one"] * 3
    assert all((out / "data" / n).stat().st_mtime_ns == t for n, t in stored.items())
    assert len(Store(out / "data").names()) == 12


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["seed", "settings", "robot", "minutes"])
def test_a_folder_of_another_run_is_refused_and_left_alone(other: str, whole: Recorded) -> None:
    before = contents(whole.out)
    settings = replace(TINY, window=5) if other == "settings" else TINY
    with in_this_process(patience=0, settings=settings), pytest.raises(TrainError) as caught:
        if other == "robot":
            train("test_train:Another", whole.out, seed=3)
        else:
            minutes = 2.0 if other == "minutes" else None
            train(ROBOT, whole.out, minutes, seed=4 if other == "seed" else 3)
    assert str(whole.out) in str(caught.value) and "--out" in str(caught.value)
    assert contents(whole.out) == before


def test_a_folder_that_does_not_say_whose_it_is_is_named(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text("")
    with in_this_process(patience=0), pytest.raises(TrainError, match="training.json is damaged"):
        train(ROBOT, tmp_path)


def test_what_cannot_be_trained(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(TrainError, match="dummy:PointMass is not simulated"):
        train("dummy:PointMass", out)
    with pytest.raises(UnknownName, match="there are.*hexapod"):
        train("hexapodd", out)
    with pytest.raises(TrainError, match="'rls' has no learner of its own"):
        train(ROBOT, out, adapters=["rls"])
    with pytest.raises(UnknownName, match="there are.*bayes"):
        train(ROBOT, out, adapters=["bayse"])
    for minutes in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="minutes"):
            train(ROBOT, out, minutes)
    assert not out.exists()


def test_minutes_scale_the_work() -> None:
    full = replace(
        TINY, minutes=10.0, babble=400, expert=40, on_policy=200, fit=FitConfig(updates=3000)
    )
    half = full.scaled(5.0)
    assert (half.babble, half.on_policy, half.fit.updates) == (200, 100, 1500)
    assert (half.rounds, half.window, half.hidden) == (full.rounds, full.window, full.hidden)
    assert full.scaled(10.0) == full
    least = full.scaled(1e-6)
    assert min(least.babble, least.on_policy, least.fit.updates) > 0
    assert replace(full, expert=0).scaled(5.0).expert == 0


# --- the data ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def babbled() -> Episodes:
    job = Job(ROBOT, Path("unused"), 0, TINY, SPEC)
    return collect(job, "babble", 240, [0, 0, 0])


def test_known_mistake_9_the_data_are_of_many_perturbations(babbled: Episodes) -> None:
    """Most episodes are perturbed, few alike, some by several things at once; a few are nominal."""
    texts = babbled.condition
    at_once = [len(t.split(" + ")) if t else 0 for t in texts]
    assert 0 < at_once.count(0) < 0.25 * len(texts)
    assert {1, 2} <= set(at_once)
    assert len(set(texts)) > 0.6 * len(texts)
    names = {part.partition(":")[0] for t in texts if t for part in t.split(" + ")}
    assert names == {cls.name for cls in conditions.kinds_for(SimPointMass())}
    mid = babbled.onset > 0
    assert 0.15 < mid.mean() < 0.6
    assert (babbled.onset[mid] >= STEPS // 6).all() and (babbled.onset <= STEPS // 2).all()


def test_an_onset_is_the_first_step_that_goes_otherwise(babbled: Episodes) -> None:
    """1 kg without friction: before the onset, force is mass times acceleration."""
    speed, force = babbled.obs[..., 0], babbled.act[..., 0]
    response = np.diff(speed, axis=1) / SPEC.dt / np.where(np.abs(force) > 0.05, force, np.nan)
    changed = 0
    for r, onset, text in zip(response, babbled.onset, babbled.condition, strict=True):
        np.testing.assert_allclose(r[:onset][np.isfinite(r[:onset])], 1.0, rtol=1e-4)
        if text.startswith("motor_strength") and "+" not in text:
            scale = float(text.partition("scale=")[2].partition(",")[0])
            np.testing.assert_allclose(r[onset:][np.isfinite(r[onset:])], scale, rtol=1e-4)
            changed += onset > 0
    assert changed


def test_branches_are_what_the_robot_would_have_done(babbled: Episodes) -> None:
    """Of every other step; unknown only where a sensor lies."""
    assert babbled.branches
    act, obs = babbled.branches.act[..., 0], babbled.branches.obs[..., 0]
    assert act.shape == (240, STEPS // BRANCH_EVERY + 1, TINY.fit.query)
    told = babbled.obs[:, ::BRANCH_EVERY, :1]
    response = np.diff(np.concatenate([told, obs], 2)) / SPEC.dt
    response /= np.where(np.abs(act) > 0.05, act, np.nan)
    lying = np.array([any(k in t for k in ("sensor", "of=both")) for t in babbled.condition])
    assert np.isfinite(obs[~lying]).all() and np.isnan(obs[lying]).any()
    at = BRANCH_EVERY * np.arange(act.shape[1])
    weak = 0
    for r, onset, text in zip(response, babbled.onset, babbled.condition, strict=True):
        if not text or (text.startswith("motor_strength") and "+" not in text):
            scale = float(text.partition("scale=")[2].partition(",")[0] or 1.0)
            for now, left in ((at < onset, 1.0), (at >= onset, scale)):
                found = r[now][np.isfinite(r[now])]
                np.testing.assert_allclose(found, left, rtol=2e-3)
            weak += bool(text)
    assert weak
    # nobody drove so, and no two candidates are the same
    assert len({a.tobytes() for e in act for a in e}) > 0.99 * act[..., 0].size
    assert act.std() > 0.2


def test_collecting_is_a_function_of_the_seed(babbled: Episodes) -> None:
    job = Job(ROBOT, Path("unused"), 0, TINY, SPEC)
    first, again, other = (collect(job, "babble", 3, s) for s in ([1, 0], [1, 0], [2, 0]))
    np.testing.assert_array_equal(first.obs, again.obs)
    np.testing.assert_array_equal(first.act, again.act)
    assert first.branches and again.branches
    np.testing.assert_array_equal(first.branches.obs, again.branches.obs)
    assert first.condition == again.condition and first.condition != other.condition
    assert not np.array_equal(first.act, other.act)
    # nor do robots side by side do the same
    assert len({a.tobytes() for a in babbled.act}) == len(babbled)


def test_what_the_folder_says_about_itself(whole: Recorded) -> None:
    told = json.loads((whole.out / "training.json").read_text())
    assert told["robot"] == ROBOT and told["seed"] == 3
