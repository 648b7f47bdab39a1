"""Checkpoints: bit-exact round trips, and a helpful error for everything that is none."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from controllers.learned import LearnedModel
from controllers.several import Several
from mbmrl import checkpoint as checkpoints
from mbmrl import registry
from mbmrl.adapters.none import NoAdapter
from mbmrl.adapters.rls import Rls
from mbmrl.checkpoint import Checkpoint, CheckpointError, for_robot, load
from mbmrl.compose import learned_model
from mbmrl.dynamics import Dynamics
from mbmrl.registry import UnknownName
from mbmrl.spec import Field, RobotSpec
from mbmrl.types import Transitions

SPEC = RobotSpec(
    name="crab",
    dt=0.1,
    obs=(
        Field("x", "m"),
        Field("y", "m"),
        Field("yaw", "rad"),
        Field("vx", "m/s"),
        Field("amp", "1", -1, 1),
    ),
    act=(Field("stride", "1", -1, 1),),
    pose=("x", "y", "yaw"),
    known={"amp": {"amp": 0.5, "stride": 0.5}},
    mirror={"y": ("y", -1.0), "yaw": ("yaw", -1.0)},
)


def make(*names: str, hidden: tuple[int, ...] = (5, 4), seed: int = 0, **more: Any) -> Checkpoint:
    """Learners with random numbers everywhere, none of them what they start from."""
    torch.manual_seed(seed)
    learners = {}
    for name in names or ("none", "bayes", "maml", "maml_bayes"):
        dynamics = Dynamics(SPEC, hidden, "tanh")
        adapter = registry.load("adapters", name)(dynamics)
        with torch.no_grad():
            for value in (*dynamics.state_dict().values(), *adapter.state_dict().values()):
                value.copy_(torch.rand(value.shape) + 0.1)
        learners[name] = (dynamics, adapter)
    fields = {"default": next(iter(learners)), "window": 9, **more}
    return Checkpoint(SPEC, learners=learners, **fields)


def window(m: int = 6) -> Transitions:
    g = torch.Generator().manual_seed(1)
    return Transitions(*(torch.randn(2, m, k, generator=g) for k in (5, 1, 5)))


def states(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {
        f"{name}/{i}/{key}": value
        for name, pair in checkpoint.learners.items()
        for i, module in enumerate(pair)
        for key, value in module.state_dict().items()
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good checkpoint, to be damaged."""
    make().save(tmp_path / "good")
    return tmp_path / "good"


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# --- the round trip ------------------------------------------------------------------------------


def test_round_trip_is_bit_exact(tmp_path: Path) -> None:
    training = {"seed": 3, "validation_loss": {"maml": 0.125}, "command": "mbmrl train"}
    saved = make(default="maml", training=training)
    saved.save(tmp_path / "deep" / "down")
    back = load(tmp_path / "deep" / "down")
    assert back.spec == SPEC and back.training == training
    assert (back.default, back.window) == ("maml", 9)
    mine, theirs = states(saved), states(back)
    assert mine.keys() == theirs.keys() and len(mine) > 30
    for key, value in mine.items():
        assert torch.equal(value, theirs[key]) and value.dtype == theirs[key].dtype, key
    for name in saved.learners:
        predictions = []
        for checkpoint in (saved, back):
            dynamics, adapter = checkpoint.learner(name)
            data = window()
            params = adapter.adapt(dynamics, data)
            acts = data.act[:, None]
            predictions.append(dynamics.rollout(params)(data.obs[:, 0], acts))
        assert torch.equal(*predictions)


def test_saving_again_replaces(folder: Path) -> None:
    again = make("none", hidden=(3,), seed=7)
    again.save(folder)
    back = load(folder)
    assert set(back.learners) == {"none"} and back.learners["none"][0].hidden == (3,)
    assert torch.equal(back.learners["none"][0].weights[0], again.learners["none"][0].weights[0])
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "weights.safetensors"]


def test_both_files_may_be_read_by_whoever_may_read_the_other(folder: Path) -> None:
    modes = {path.stat().st_mode for path in folder.iterdir()}
    assert len(modes) == 1


def test_known_mistake_7_two_plain_files_and_no_pickle(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte is JSON or a number; reading it never unpickles."""
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "weights.safetensors"]
    json.loads((folder / "config.json").read_text())
    raw = (folder / "weights.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    spans = sorted(v["data_offsets"] for k, v in header.items() if k != "__metadata__")
    assert spans[0][0] == 0 and spans[-1][1] == len(raw) - 8 - size
    assert all(a[1] == b[0] for a, b in zip(spans, spans[1:], strict=False))

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("unpickled")

    for module, name in (
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch, "load"),
    ):
        monkeypatch.setattr(module, name, refuse)
    load(folder)


# --- learners by name ----------------------------------------------------------------------------


def test_rls_borrows_what_bayes_learned() -> None:
    checkpoint = make("none", "bayes")
    dynamics, rls = checkpoint.learner("rls")
    trained, bayes = checkpoint.learners["bayes"]
    assert isinstance(rls, Rls) and dynamics is trained
    for key, value in bayes.state_dict().items():
        assert torch.equal(rls.state_dict()[key], value)
    assert "rls" not in checkpoint.learners


def test_members_of_an_ensemble(tmp_path: Path) -> None:
    """They come back in their order, more than ten of them too; the first stands for them all."""
    made = make("none", "bayes", default="bayes")
    for i in range(1, 12):
        made.learners[f"bayes#{i}"] = make("bayes", seed=i).learners["bayes"]
    made.save(tmp_path)
    back = load(tmp_path)
    members = back.members("bayes")
    assert len(members) == 12 and len(back.members("none")) == 1
    assert back.learner("bayes") is members[0]
    for i, (dynamics, adapter) in enumerate(members):
        own = made.learners[f"bayes#{i}" if i else "bayes"]
        for saved, loaded in zip(own, (dynamics, adapter), strict=True):
            for key, value in saved.state_dict().items():
                assert torch.equal(value, loaded.state_dict()[key]), (i, key)
    for (dynamics, bayes), (same, rls) in zip(members, back.members("rls"), strict=True):
        assert same is dynamics and isinstance(rls, Rls)
        assert torch.equal(rls.state_dict()["log_scale"], bayes.state_dict()["log_scale"])
    assert [prior for prior, _ in back.frozen()] == [prior for prior, _ in members]
    for agent, count in (("default", 12), ("frozen", 12), ("rls", 12), ("auto", 1)):
        model = learned_model(agent, back)
        assert isinstance(model, Several) and len(model.models) == count
    assert isinstance(learned_model("pooled", back), LearnedModel)
    with pytest.raises(CheckpointError, match="no learner for adapter 'maml'"):
        back.members("maml")


def test_a_learner_that_was_not_trained() -> None:
    with pytest.raises(CheckpointError, match="'maml'.*bayes, none.*--adapter maml"):
        make("none", "bayes").learner("maml")
    # rls cannot be trained itself: the advice is one that `train` will take
    with pytest.raises(CheckpointError, match="'rls'.*--adapter bayes"):
        make("none", "maml").learner("rls")
    with pytest.raises(UnknownName, match="did you mean 'bayes'"):
        make().learner("bayse")


def test_frozen_is_the_default_prior_un_adapted() -> None:
    checkpoint = make(default="maml")
    ((dynamics, adapter),) = checkpoint.frozen()
    assert dynamics is checkpoint.learners["maml"][0] and isinstance(adapter, NoAdapter)
    borrowed = make("none", "bayes", default="rls")
    assert borrowed.frozen()[0][0] is borrowed.learners["bayes"][0]


# --- what is no checkpoint -----------------------------------------------------------------------


def test_no_folder(tmp_path: Path) -> None:
    missing = tmp_path / "nothing"
    with pytest.raises(
        CheckpointError, match=f"no checkpoint in {missing}.*train --robot NAME --out"
    ):
        load(missing)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load(tmp_path / "file")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_weights(folder: Path, share: float) -> None:
    path = folder / "weights.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(CheckpointError, match=f"{folder} is damaged"):
        load(folder)


def test_weights_missing_or_of_another_kind(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.unlink()
    with pytest.raises(CheckpointError, match="weights.safetensors"):
        load(folder)
    torch.save({"none/prior/weights.0": torch.ones(3)}, path)
    with pytest.raises(CheckpointError, match="damaged"):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"3", b"\xff\xfe\x00", b'{"a": 1}'])
def test_a_garbage_config(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{folder} is damaged"):
        load(folder)


@given(share=st.floats(0, 0.999))
@settings(max_examples=25)
def test_a_truncated_config(share: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("cut")
    make("none").save(folder)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text[: int(share * len(text))])
    with pytest.raises(CheckpointError):
        load(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"spec": None},
        {"spec": {}},
        {"spec": "crab"},
        {"default": None},
        {"default": "maml_bays"},
        {"window": None},
        {"window": "long"},
        {"hidden": None},
        {"hidden": [5]},
        {"hidden": [5, 4, 3]},
        {"hidden": ["5", "4"]},
        {"activation": "gelu"},
        {"activation": None},
        {"learners": None},
        {"learners": []},
        {"learners": ["none", "bayes", "maml", "maml_bayes", "rls"]},
        {"training": None},
    ],
    ids=str,
)
def test_a_config_with_something_wrong_in_it(folder: Path, change: dict[str, Any]) -> None:
    edit(folder, **change)
    with pytest.raises(CheckpointError):
        load(folder)


@pytest.mark.parametrize(
    "key", ["format", "spec", "default", "window", "hidden", "activation", "learners"]
)
def test_a_config_without_a_key(folder: Path, key: str) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config[key]
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=key):
        load(folder)


def test_another_format(folder: Path) -> None:
    edit(folder, format=checkpoints.FORMAT + 1)
    with pytest.raises(CheckpointError, match="has format 2, this version reads 1"):
        load(folder)


def test_an_adapter_that_does_not_exist(folder: Path) -> None:
    edit(folder, learners=["none", "wizard"])
    with pytest.raises(CheckpointError, match="wizard.*there are.*bayes"):
        load(folder)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["bayes/prior/weights.1", "bayes/adapter/log_noise"])
def test_weights_that_are_no_numbers(folder: Path, key: str, bad: float) -> None:
    path = folder / "weights.safetensors"
    tensors = load_file(path)
    tensors[key] = tensors[key].clone().fill_(bad)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=f"damaged: {key} is not finite"):
        load(folder)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    path = folder / "weights.safetensors"
    tensors = load_file(path)
    del tensors["maml/prior/input_std"]
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="input_std"):
        load(folder)


# --- a kill between the two writes ---------------------------------------------------------------


def killed_between(checkpoint: Checkpoint, folder: Path, after: int) -> None:
    """Save, and be killed after so many renames."""
    with pytest.MonkeyPatch.context() as m:
        replace, done = os.replace, []

        def cut_off(source: Path, target: Path) -> None:
            if len(done) == after:
                raise KeyboardInterrupt
            replace(source, target)
            done.append(target)

        m.setattr(os, "replace", cut_off)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(folder)


def test_a_first_save_that_was_cut_off_is_no_checkpoint(tmp_path: Path) -> None:
    for after in (0, 1):
        killed_between(make(), tmp_path / str(after), after)
        with pytest.raises(CheckpointError, match="no checkpoint"):
            load(tmp_path / str(after))


def test_a_save_that_was_cut_off_before_it_renamed_leaves_the_old_files(folder: Path) -> None:
    old = states(load(folder))
    killed_between(make("none", hidden=(3,), seed=7), folder, 0)
    assert all(torch.equal(v, old[k]) for k, v in states(load(folder)).items())


def test_files_of_two_networks_are_no_checkpoint(folder: Path, tmp_path: Path) -> None:
    """Weights of one save, config of another: refused where they are of different networks."""
    killed_between(make(hidden=(6, 4), seed=7), folder, 1)
    with pytest.raises(CheckpointError, match="damaged"):
        load(folder)
    make("none", "maml").save(tmp_path / "other")
    make("none", "bayes").save(folder)
    shutil.copy(tmp_path / "other" / "weights.safetensors", folder)
    with pytest.raises(CheckpointError, match="damaged"):
        load(folder)


# --- for this robot? -----------------------------------------------------------------------------


def test_a_checkpoint_for_the_robot(folder: Path) -> None:
    assert for_robot(SPEC, folder).spec == SPEC
    with pytest.raises(CheckpointError, match="no checkpoint.*mbmrl record.*mbmrl train --data"):
        for_robot(SPEC, folder / "elsewhere")
    rover = registry.load("robots", "rover").spec
    with pytest.raises(CheckpointError, match="no checkpoint.*mbmrl train --robot rover --out"):
        for_robot(rover, folder / "elsewhere")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"obs": (*SPEC.obs[:3], Field("vy", "m/s"), SPEC.obs[4])}, r"vy \[m/s\].*vx \[m/s\]"),
        ({"obs": (*SPEC.obs[:3], Field("vx", "km/h"), SPEC.obs[4])}, r"vx \[km/h\].*vx \[m/s\]"),
        ({"act": (Field("stride", "rad", -1, 1),)}, r"stride \[rad\].*stride \[1\]"),
        ({"dt": 0.05}, r"dt = 0\.1 s, 'lobster' runs at 0\.05 s"),
    ],
)
def test_a_checkpoint_of_another_robot(folder: Path, change: dict[str, Any], says: str) -> None:
    mine = dataclasses.replace(SPEC, name="lobster", **change)
    with pytest.raises(CheckpointError, match=says):
        for_robot(mine, folder)


def test_nothing_is_shipped_for_a_robot_of_ones_own() -> None:
    with pytest.raises(CheckpointError, match="shipped for 'crab'.*mbmrl train --data"):
        for_robot(SPEC, None)


@pytest.mark.parametrize("robot", checkpoints.shipped())
def test_what_is_shipped_fits_its_robot(robot: str) -> None:
    """And is small, complete and honest about its making."""
    checkpoint = for_robot(registry.load("robots", robot).spec, None)
    assert {"none", checkpoint.default} <= set(checkpoint.learners)
    assert {"command", "seed"} <= set(checkpoint.training)
    files = list((checkpoints.SHIPPED / robot).iterdir())
    assert sum(f.stat().st_size for f in files) < 3 * 2**20
    assert sorted(f.name for f in files) == ["config.json", "weights.safetensors"]
