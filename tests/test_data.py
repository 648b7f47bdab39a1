"""Episodes on disk, and windows of transitions whose query holds no news."""

from __future__ import annotations

import dataclasses
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbmrl.data import BRANCH_EVERY, CHANGES, Branches, Episodes, Store, Windows
from mbmrl.spec import Field, RobotSpec

SPEC = RobotSpec(
    name="crab",
    dt=0.1,
    obs=(Field("episode", "1"), Field("step", "1"), Field("left", "1"), Field("right", "1")),
    act=(Field("a", "1", -1, 1), Field("b", "1", -1, 1)),
    mirror={
        "left": ("right", -1.0),
        "right": ("left", -1.0),
        "a": ("b", 1.0),
        "b": ("a", 1.0),
    },
)


def episodes(onsets: list[int], steps: int, first: int = 0) -> Episodes:
    """Each observation says which episode and step it is of; so does each action."""
    e = len(onsets)
    obs = np.zeros((e, steps + 1, 4), dtype=np.float32)
    obs[..., 0] = first + np.arange(e)[:, None]
    obs[..., 1] = np.arange(steps + 1)
    obs[..., 2], obs[..., 3] = obs[..., 1] + 1000, obs[..., 1] + 2000
    act = np.stack([obs[:, :-1, 1] + 0.25, obs[:, :-1, 0] + 0.5], -1)
    return Episodes(obs, act, np.array(onsets), [f"c{first + k}" for k in range(e)])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def legal(onsets: list[int], steps: int, support: int, query: int) -> set[tuple[int, int]]:
    """Every (episode, start) whose query is of dynamics that its support ends with, if any."""
    found = set()
    for e, onset in enumerate(onsets):
        after = [t >= onset for t in range(steps)]
        for s in range(steps - support - query + 1):
            asked = set(after[s + support : s + support + query])
            if len(asked) == 1 and (not support or asked == {after[s + support - 1]}):
                found.add((e, s))
    return found


# --- windows -------------------------------------------------------------------------------------


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[int], int, int, int]:
    steps = draw(st.integers(2, 14))
    onsets = draw(st.lists(st.integers(0, steps), min_size=1, max_size=4))
    query = draw(st.integers(1, min(5, steps)))
    support = draw(st.integers(0, min(5, steps - query)))
    return onsets, steps, support, query


@given(layouts())
@settings(max_examples=60)
def test_queries_hold_no_news_and_windows_cover_every_legal_place(
    layout: tuple[list[int], int, int, int],
) -> None:
    onsets, steps, support, query = layout
    data, length = episodes(onsets, steps), support + query
    windows, places = Windows(data, SPEC, mirror=False), legal(onsets, steps, support, query)
    if not places:
        with pytest.raises(ValueError, match="onset"):
            windows.sample(rng(), 4, support, query)
        return
    before, after = windows.sample(rng(), 60 * len(places), support, query)
    assert before.act.shape[1] == support and after.act.shape[1] == query
    whole = [torch.cat(pair, 1) for pair in zip(before, after, strict=True)]
    obs, act, next_obs = (x.numpy() for x in whole)
    # consecutive transitions of one episode, each with the action taken there
    starts = obs[:, 0, 1]
    np.testing.assert_array_equal(obs[..., 0], np.tile(obs[:, :1, 0], length))
    np.testing.assert_array_equal(obs[..., 1], starts[:, None] + np.arange(length))
    np.testing.assert_array_equal(next_obs[..., 1], obs[..., 1] + 1)
    np.testing.assert_array_equal(next_obs[..., 0], obs[..., 0])
    np.testing.assert_array_equal(act[..., 0], obs[..., 1] + 0.25)
    np.testing.assert_array_equal(act[..., 1], obs[..., 0] + 0.5)
    drawn = set(zip(obs[:, 0, 0].astype(int).tolist(), starts.astype(int).tolist(), strict=True))
    assert drawn == places


def test_windows_are_put_where_the_dynamics_change() -> None:
    """So often as is said, as soon after the onset as not, and never where nothing happens then."""
    data = dataclasses.replace(episodes([30, 30, 0], 60), condition=["a", "", "b"])
    support, query = Windows(data, SPEC, mirror=False).sample(rng(), 30000, 10, 5)
    news = 30 - support.obs[:, 0, 1]  # transitions before the onset
    change = (support.obs[:, 0, 0] == 0) & (news > 0) & (news < 10)
    by_chance = 9 / 46 / 3  # of as many places, in one of three episodes
    assert change.float().mean().item() == pytest.approx(CHANGES + 0.7 * by_chance, abs=0.03)
    assert (query.obs[change][:, 0, 1] > 30).all()
    _, counts = np.unique(news[change].numpy(), return_counts=True)
    np.testing.assert_allclose(counts, counts.mean(), rtol=0.2)
    still = (support.obs[:, 0, 0] == 1) & (news > 0) & (news < 10)
    assert still.float().mean().item() < 0.1


def test_legal_places_are_drawn_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """An episode with an onset in its middle is not drawn more often for having been refused."""
    monkeypatch.setattr("mbmrl.data.CHANGES", 0.0)
    data = episodes([0, 10], 20)
    support, _ = Windows(data, SPEC, mirror=False).sample(rng(), 30000, 2, 4)
    places = legal([0, 10], 20, 2, 4)
    _, counts = np.unique(
        support.obs[:, 0, :2].numpy() @ [100, 1], return_counts=True
    )  # episode and start as one number
    assert len(counts) == len(places)
    np.testing.assert_allclose(counts, 30000 / len(places), rtol=0.2)


def test_a_batch_is_spread_over_the_conditions() -> None:
    """Each has its share of every batch, give or take the two windows that straddle its ends."""
    data = dataclasses.replace(
        episodes([0] * 40, 12), condition=[c for _ in range(2) for c in "abbbbbaccccccccccccc"]
    )
    share = {c: data.condition.count(c) / 40 for c in "abc"}
    windows = Windows(data, SPEC, mirror=False)
    for seed in range(50):
        support, _ = windows.sample(rng(seed), 20, 2, 4)
        drawn = [data.condition[int(e)] for e in support.obs[:, 0, 0]]
        for c in "abc":
            assert abs(drawn.count(c) - 20 * share[c]) < 2
        assert set(drawn) == set("abc")


def test_no_episode_comes_twice_in_a_batch_while_there_are_others() -> None:
    windows = Windows(episodes([0] * 30, 12), SPEC, mirror=False)
    for seed in range(50):
        support, _ = windows.sample(rng(seed), 15, 2, 4)
        assert len(set(support.obs[:, 0, 0].tolist())) == 15


def test_windows_longer_than_the_episodes_are_refused() -> None:
    windows = Windows(episodes([0], 10), SPEC)
    windows.sample(rng(), 1, 4, 6)
    with pytest.raises(ValueError, match="episodes of 10 steps hold no window of 11"):
        windows.sample(rng(), 1, 5, 6)


def test_sampling_is_a_function_of_the_generator() -> None:
    windows = Windows(episodes([0, 5, 3], 20), SPEC)
    first, again, other = (windows.sample(rng(s), 16, 3, 4) for s in (1, 1, 2))
    for a, b in zip((*first[0], *first[1]), (*again[0], *again[1]), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first[0].obs, other[0].obs)


def test_half_of_the_windows_are_mirrored_each_as_a_whole() -> None:
    data = episodes([0] * 3, 12)
    windows = Windows(data, SPEC)
    stored = windows.obs.clone(), windows.act.clone()
    support, query = windows.sample(rng(), 4000, 3, 4)
    flipped = support.obs[:, 0, 2] < 0
    assert 0.46 < flipped.float().mean() < 0.54
    for part in (support, query):
        step, episode = part.obs[..., 1], part.obs[..., 0]
        for obs, at in ((part.obs, step), (part.next_obs, step + 1)):
            left, right = obs[..., 2], obs[..., 3]
            torch.testing.assert_close(left[~flipped], at[~flipped] + 1000)
            torch.testing.assert_close(right[~flipped], at[~flipped] + 2000)
            torch.testing.assert_close(left[flipped], -at[flipped] - 2000)
            torch.testing.assert_close(right[flipped], -at[flipped] - 1000)
        first, second = step + 0.25, episode + 0.5
        torch.testing.assert_close(part.act[~flipped], torch.stack([first, second], -1)[~flipped])
        torch.testing.assert_close(part.act[flipped], torch.stack([second, first], -1)[flipped])
    assert torch.equal(windows.obs, stored[0]) and torch.equal(windows.act, stored[1])


@pytest.mark.parametrize("symmetric", [True, False])
def test_nothing_is_mirrored_unasked_or_without_a_symmetry(symmetric: bool) -> None:
    spec = SPEC if symmetric else RobotSpec("snail", 0.1, SPEC.obs, SPEC.act)
    windows = Windows(episodes([0], 12), spec, mirror=not symmetric)
    support, _ = windows.sample(rng(), 200, 3, 4)
    assert (support.obs[..., 2] > 0).all()


# --- episodes ------------------------------------------------------------------------------------


def test_transitions_pair_what_came_before_and_after() -> None:
    data = episodes([0, 2, 4], 6)
    flat = data.transitions()
    assert (len(data), data.num_transitions, len(flat.act)) == (3, 18, 18)
    torch.testing.assert_close(flat.next_obs[:, 1], flat.obs[:, 1] + 1)
    torch.testing.assert_close(flat.next_obs[:, 0], flat.obs[:, 0])
    torch.testing.assert_close(flat.act[:, 0], flat.obs[:, 1] + 0.25)


def test_pick() -> None:
    data = episodes([0, 2, 4], 6)
    some = data.pick(np.array([True, False, True]))
    assert some.condition == ["c0", "c2"] and some.onset.tolist() == [0, 4]
    np.testing.assert_array_equal(some.obs, data.obs[[0, 2]])
    np.testing.assert_array_equal(some.act, data.act[[0, 2]])


def branched(data: Episodes, length: int) -> Episodes:
    """With branches whose numbers say, below zero, from which episode and step they grow."""
    e, steps = len(data), np.arange(0, data.act.shape[1] + 1, BRANCH_EVERY)
    obs = np.zeros((e, len(steps), length, 4), dtype=np.float32)
    obs[..., 0] = -data.obs[:, 0, 0, None, None]
    obs[..., 1] = -steps[:, None] - np.arange(1, length + 1) / 100
    return dataclasses.replace(data, branches=Branches(obs[..., 1:3], obs))


def test_a_query_is_what_else_could_have_happened_where_that_is_known() -> None:
    data = branched(episodes([0, 6], 24), 5)
    assert data.branches
    data.branches.obs[1, 5, 2, 0] = np.nan
    support, query = Windows(data, SPEC, mirror=False).sample(rng(), 2000, 3, 4)
    # a support is always what happened, and a query begins where it ends
    assert (support.next_obs[..., 1] - support.obs[..., 1] == 1).all()
    assert torch.equal(query.obs[:, 0], support.next_obs[:, -1])
    episode, end = query.obs[:, 0, 0], query.obs[:, 0, 1]
    known = (end % BRANCH_EVERY == 0) & ~((episode == 1) & (end == 5 * BRANCH_EVERY))
    assert 0.35 < known.float().mean() < 0.6
    happened, branch = query.next_obs[~known], query.next_obs[known]
    assert torch.equal(happened[..., 1], end[~known, None] + torch.arange(1, 5))
    torch.testing.assert_close(branch[..., 1], -end[known, None] - torch.arange(1, 5) / 100)
    assert torch.equal(branch[..., 0], -episode[known, None].expand(-1, 4))
    assert torch.equal(query.act[known][..., 0], branch[..., 1])
    assert torch.equal(query.obs[:, 1:], query.next_obs[:, :-1])
    # what was stored is as it was, and a query longer than a branch is what happened
    assert (data.obs >= 0).all()
    longer = Windows(data, SPEC, mirror=False).sample(rng(), 100, 3, 6)[1]
    assert (longer.next_obs[..., 1] > 0).all()


# --- the store -----------------------------------------------------------------------------------


def test_store_round_trip_in_the_order_of_names(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "data")
    first, second = episodes([0, 3], 6), episodes([5], 6, first=2)
    store.save("1-00000", second)
    store.save("0-00048", first)
    assert store.names() == ["0-00048", "1-00000"]
    back = Store(store.folder).load(SPEC)
    assert back.condition == ["c0", "c1", "c2"] and back.onset.tolist() == [0, 3, 5]
    np.testing.assert_array_equal(back.obs, np.concatenate([first.obs, second.obs]))
    np.testing.assert_array_equal(back.act, np.concatenate([first.act, second.act]))


def test_branches_are_stored_picked_and_joined_with_their_episodes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save("0", branched(episodes([0, 3], 6), 2))
    store.save("1", branched(episodes([5], 6, first=2), 2))
    back = store.load(SPEC).pick(np.array([False, True, True]))
    assert back.branches
    np.testing.assert_array_equal(back.branches.obs[:, 0, 0, 0], [-1, -2])
    assert back.branches.act.shape[:3] == back.branches.obs.shape[:3] == (2, 4, 2)
    store.save("1", episodes([5], 6))
    with pytest.raises(ValueError, match="only 1 of 2 parts have branches"):
        store.load(SPEC)


def test_an_empty_store(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no episodes in {tmp_path}"):
        Store(tmp_path).load(SPEC)


def test_a_kill_in_mid_write_leaves_what_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.save("0", episodes([0], 6))
    whole = np.savez_compressed

    def cut_off(file: object, **arrays: np.ndarray) -> None:
        whole(file, **dict(list(arrays.items())[:2]))
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(np, "savez_compressed", cut_off)
        for name in ("0", "1"):
            with pytest.raises(KeyboardInterrupt):
                store.save(name, episodes([1], 6))
    assert store.names() == ["0"]
    assert store.load(SPEC).onset.tolist() == [0]
    assert list(tmp_path.glob(".*.part"))
    store.save("1", episodes([1], 6))
    assert store.load(SPEC).onset.tolist() == [0, 1]


def test_a_file_appears_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is renamed into place can be read already."""
    store, replace = Store(tmp_path), os.replace

    def checked(source: Path, target: Path) -> None:
        with np.load(source, allow_pickle=False) as file:
            assert file["onset"].tolist() == [3]
        replace(source, target)

    monkeypatch.setattr(os, "replace", checked)
    store.save("0", episodes([3], 6))
    assert store.names() == ["0"]


class Bomb:
    """Whoever unpickles it knows."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize(
    "damage", ["empty", "text", "truncated", "flipped", "pickle", "no act", "conditions", "folder"]
)
def test_a_damaged_file_is_named(damage: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    good = episodes([0, 3], 6)
    store.save("0", good)
    store.save("1", good)
    path = tmp_path / "1.npz"
    whole = path.read_bytes()
    fields = {"obs": good.obs, "act": good.act, "onset": good.onset, "condition": '["", ""]'}
    if damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "pickle":
        np.savez(path, **{**fields, "obs": np.array([Bomb()], dtype=object)})
    elif damage == "no act":
        np.savez(path, **{k: v for k, v in fields.items() if k != "act"})
    elif damage == "conditions":
        np.savez(path, **{**fields, "condition": "friction:scale=0.3"})
    else:
        middle = len(whole) // 3
        path.write_bytes(
            {
                "empty": b"",
                "text": b"obs,act\n1,2\n",
                "truncated": whole[: 2 * middle],
                "flipped": whole[:middle] + bytes(255 - b for b in whole[middle:-middle]),
            }[damage]
        )
    with pytest.raises(ValueError, match=r"1\.npz"):
        store.load(SPEC)


def test_a_pickle_is_not_an_episode_file(tmp_path: Path) -> None:
    (tmp_path / "0.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"0\.npz"):
        Store(tmp_path).load(SPEC)


@pytest.mark.parametrize(
    "foreign", ["other robot", "steps", "onsets", "too few conditions", "no numbers"]
)
def test_arrays_that_do_not_fit_are_refused(foreign: str, tmp_path: Path) -> None:
    good = episodes([0, 3], 6)
    fields = {"obs": good.obs, "act": good.act, "onset": good.onset, "condition": '["", ""]'}
    fields |= {
        "other robot": {"obs": good.obs[..., :3]},
        "steps": {"obs": good.obs[:, :-1]},
        "onsets": {"onset": good.onset[:1]},
        "too few conditions": {"condition": '[""]'},
        "no numbers": {"obs": np.full_like(good.obs, np.nan)},
    }[foreign]
    np.savez(tmp_path / "0.npz", **fields)
    with pytest.raises(ValueError, match=r"0\.npz"):
        Store(tmp_path).load(SPEC)
