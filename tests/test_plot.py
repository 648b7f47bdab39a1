"""Recorded runs on disk, and their pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from PIL import Image

from mbmrl import conditions, log, plot, tasks
from mbmrl.compose import AGENTS
from tests.recorded import babble

DAMAGE = "damaged_leg:leg=R0,mode=reversed,onset=0.4"


def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    run = babble("hexapod", DAMAGE)
    log.save(tmp_path / "run", run)
    found = log.load(tmp_path / "run")
    for field in dataclasses.fields(log.Run):
        if field.name not in ("log", "qpos"):
            assert getattr(found, field.name) == getattr(run, field.name)
    np.testing.assert_equal(found.qpos, run.qpos)
    np.testing.assert_equal(dataclasses.asdict(found.log), dataclasses.asdict(run.log))
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["run.json", "run.npz"]


@pytest.mark.parametrize("damage", ["folder", "json", "numbers", "half", "foreign"])
def test_a_damaged_run_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    log.save(tmp_path, babble("hexapod"))
    if damage == "folder":
        (tmp_path / "run.json").unlink()
    elif damage == "json":
        (tmp_path / "run.json").write_text("{")
    elif damage == "numbers":
        (tmp_path / "run.npz").unlink()
    elif damage == "half":
        whole = (tmp_path / "run.npz").read_bytes()
        (tmp_path / "run.npz").write_bytes(whole[: len(whole) // 2])
    else:
        np.savez(tmp_path / "run.npz", something=np.zeros(3))
    with pytest.raises(log.LogError, match=str(tmp_path)):
        log.load(tmp_path)


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    with pytest.raises(KeyboardInterrupt), log.whole(target) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with log.whole(target) as part:
        part.write_text("all")
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize(
    ("robot", "perturbations"),
    [
        ("hexapod", [DAMAGE]),
        ("hexapod", []),
        ("hexapod", ["friction:scale=0.2,onset=0.1", "slope:angle=0.1,onset=0.7,until=0.75"]),
        ("cheetah", ["damaged_joint:joint=bfoot,onset=0.2"]),
        ("fish", ["damaged_joint:joint=tail1,onset=0.2"]),
    ],
)
def test_comparison_is_drawn(tmp_path: Path, robot: str, perturbations: list[str]) -> None:
    runs = [babble(robot, *perturbations, agent=agent) for agent in ("default", "oracle")]
    runs[1].log.info.clear()
    plot.plot_comparison(runs, tmp_path / "some.png")
    picture = np.asarray(Image.open(tmp_path / "some.png").convert("RGB"))
    assert picture.shape[0] > 600
    for agent in ("default", "oracle"):
        wanted = np.array([int(plot.colour(agent)[i : i + 2], 16) for i in (1, 3, 5)])
        assert (np.abs(picture - wanted).max(-1) < 8).sum() > 100


@pytest.mark.parametrize("robot", ["swimmer", "fish"])
def test_targets_are_drawn_as_they_were_given(robot: str) -> None:
    """The first, and the second once the robot was there, as large as what counts as near."""
    run = babble(robot)
    task = plot._task(run)
    assert isinstance(task, tasks.ReachTask)
    task.reset(torch.from_numpy(run.log.obs[0]))
    first, second = task.targets[0, :2].numpy()
    fields = ("x", "y", "z")[: len(first)]
    run.log.obs[4:, 0, run.spec.index(fields)] = first
    figure, near = Figure(), task.NEAR * task.size
    plot._paths(above := figure.add_subplot(), [run])
    circles = [patch for patch in above.patches if isinstance(patch, Circle)]
    np.testing.assert_allclose([c.center for c in circles], [first[:2], second[:2]], atol=1e-6)
    assert [c.radius for c in circles] == pytest.approx([near, near])
    assert [label.get_text() for label in above.texts] == ["1", "2"]

    plot._distance(beside := figure.add_subplot(), run)
    away, limit = (line.get_ydata() for line in beside.lines)
    start = run.log.obs[0, 0, run.spec.index(fields)]
    assert away[0] == pytest.approx(100 * np.linalg.norm(first - start), abs=1e-3)
    assert away[4:] == pytest.approx(100 * np.linalg.norm(second - first), abs=1e-3)
    assert limit[0] == pytest.approx(100 * near)


@pytest.mark.parametrize(
    ("robot", "named"), [("hexapod", "path"), ("fish", "target"), ("ant", None)]
)
def test_legend_names_what_is_there_to_do(robot: str, named: str | None) -> None:
    figure = Figure()
    plot._legend(figure, [babble(robot)])
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    for word in ("path", "target"):
        assert any(word in text for text in said) == (word == named)


def test_nobody_leaves_the_picture() -> None:
    """However far from the path the last to be drawn is."""
    axes = Figure().subplots()
    for off in (0.01, 0.2, 0.05):
        run = babble("hexapod")
        run.log.cross_track[:] = off
        plot._cross_track(axes, run)
    assert axes.get_ylim()[0] == 0
    assert 20 < axes.get_ylim()[1] < 25


def test_run_is_drawn_where_it_lies(tmp_path: Path) -> None:
    log.save(tmp_path, babble("hexapod", DAMAGE, agent="rls"))
    assert plot.plot_run(tmp_path) == tmp_path / "run.png"
    assert (tmp_path / "run.png").stat().st_size > 10_000


def test_no_two_agents_look_alike() -> None:
    compared = [agent for agent in AGENTS if agent not in ("random", "zero", "babble")]
    assert len({plot.colour(agent) for agent in compared}) == len(compared)
    assert len({plot.title(agent) for agent in compared}) == len(compared)


def test_perturbation_in_words() -> None:
    assert plot.words(conditions.parse(DAMAGE)) == "damaged leg: leg R0, mode reversed"


def test_smooth_is_the_mean_of_what_there_is_lately() -> None:
    values = np.array([np.nan, 1.0, 3.0, np.nan, 5.0, 7.0])
    expected = [np.nan, 1.0, 2.0, 3.0, 5.0, 6.0]
    np.testing.assert_allclose(plot.smooth(values, 2), expected)
