"""Films, and the scenes that they are made of."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import mujoco
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from mbmrl import checkpoint, demo, log, plot, registry, scene, video
from mbmrl.commands.common import UsageError
from mbmrl.commands.look import Render
from mbmrl.compose import task_for
from mbmrl.dynamics import Dynamics
from mbmrl.log import Run
from mbmrl.scene import NoOpenGL, Scene, painted
from robots.perturbations.base import subtree
from tests.recorded import babble

DAMAGE = "damaged_leg:leg=R0,mode=reversed,onset=0.4"
HEXAPOD = registry.load("robots", "hexapod")


@pytest.fixture(scope="module")
def opengl() -> None:
    try:
        scene.backend()
    except NoOpenGL as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def run() -> Run:
    return babble("hexapod", DAMAGE)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights."""
    learners = {}
    for name in ("bayes", "none"):
        dynamics = Dynamics(HEXAPOD.spec, (8,))
        learners[name] = (dynamics, registry.load("adapters", name)(dynamics))
    folder = tmp_path_factory.mktemp("checkpoint")
    checkpoint.Checkpoint(HEXAPOD.spec, "bayes", 8, learners).save(folder)
    return folder


def red(picture: np.ndarray) -> int:
    """How many pixels are as red as damage."""
    r, g, b = picture.astype(int).transpose(2, 0, 1)
    return int(((r > 90) & (g < 0.4 * r) & (b < 0.4 * r)).sum())


def geoms(one: Scene, kind: mujoco.mjtGeom) -> list[mujoco.MjvGeom]:
    """What is drawn of this kind besides the model."""
    there = one._scene.geoms[: one._scene.ngeom]
    return [g for g in there if g.category == mujoco.mjtCatBit.mjCAT_DECOR and g.type == kind]


def drawn(run: Run, tick: int) -> np.ndarray:
    with Scene(run, 320, 240) as one:
        return one.draw(tick).copy()


# --- scenes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["disabled", "missing"])
def test_damaged_leg_is_painted_red_and_nothing_else(mode: str) -> None:
    robot = HEXAPOD([registry.load("perturbations", "damaged_leg")(leg="R0", mode=mode)])
    sound, damaged = painted(robot, ()), painted(robot, robot.perturb)
    leg = np.isin(sound.geom_bodyid, subtree(sound, "R0"))
    assert leg.any()
    assert (damaged.geom_rgba[leg, 0] > 0.8).all()
    assert (damaged.geom_rgba[leg, 1:3] < 0.2).all()
    assert (damaged.geom_rgba[leg, 3] == (mode != "missing")).all()
    np.testing.assert_equal(damaged.geom_rgba[~leg], sound.geom_rgba[~leg])
    assert (HEXAPOD().nominal.geom_rgba[leg, 0] < 0.5).all()  # the nominal model is left alone


def test_red_shows_from_the_onset_on(opengl: None, run: Run) -> None:
    with Scene(run, 320, 240) as one:
        counts = [red(one.draw(tick)) for tick in range(8)]
        assert [bool(one.active(tick)) for tick in range(8)] == [tick >= 3 for tick in range(8)]
    assert max(counts[:3]) == 0
    assert min(counts[3:]) > 30


def test_path_is_on_the_floor(opengl: None, run: Run) -> None:
    """About as many pixels change as lie on it; without a name there is none."""
    without = dataclasses.replace(run, path="")
    changed = (drawn(run, 0) != drawn(without, 0)).any(-1)
    assert 100 < changed.sum() < 0.1 * changed.size


@pytest.mark.parametrize("robot", ["swimmer", "fish"])
def test_who_reaches_for_something_is_seen_with_it(opengl: None, robot: str) -> None:
    """A ball as large as what counts as near; and the next one, once the robot was there."""
    run = babble(robot)
    task = task_for(registry.load("robots", robot), [run.path])
    task.reset(torch.from_numpy(run.log.obs[0]))
    first, second = task.targets[0, :2].numpy()
    moved = run.log.obs.copy()
    fields = ("x", "y", "z")[: len(first)]
    moved[4:, 0, run.spec.index(fields)] = first
    with Scene(
        dataclasses.replace(run, log=dataclasses.replace(run.log, obs=moved)), 320, 240
    ) as s:
        places = s._targets[:, : len(first)]
        np.testing.assert_allclose(places, [first] * 4 + [second] * 4, atol=1e-6)
        r, g, b = s.draw(0).astype(int).transpose(2, 0, 1)
        width = np.ptp(np.flatnonzero(((g > 90) & (r < 0.5 * g) & (b < 0.7 * g)).any(0))) + 1
        away = np.linalg.norm(s._targets[0] - s._scene.camera[0].pos)
        camera = s._scene.camera[0]
        scale = 240 / 2 * camera.frustum_near / camera.frustum_top  # pixels to a radian
        assert width == pytest.approx(2 * task.NEAR * task.size / away * scale, rel=0.15)


def test_what_a_robot_stands_on_is_no_part_of_it(opengl: None) -> None:
    with Scene(babble("pier"), 64, 48) as pier, Scene(babble("cheetah"), 64, 48) as cheetah:
        assert pier._radius == pytest.approx(cheetah._radius, rel=0.1)


def test_slope_tilts_the_camera(opengl: None) -> None:
    """The pose is the same: what changes is what is up."""
    run = babble("hexapod")
    tilted = dataclasses.replace(run, perturbations=("slope:angle=0.2",), onsets=(0.0,))
    level = drawn(run, 7).astype(int)
    assert np.abs(level - drawn(tilted, 7)).mean() > 5
    with Scene(tilted, 64, 48) as one:
        assert one._upright[7].magnitude() == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize("direction", [-2.0, 0.0, 1.5, 3.0])
def test_slope_is_seen_from_the_side(opengl: None, direction: float) -> None:
    """From the side that is nearer, and not from above."""
    run = babble("hexapod")
    slope = f"slope:angle=0.2,direction={direction}"
    sloping = dataclasses.replace(run, perturbations=(slope,), onsets=(0.0,))
    with Scene(run, 64, 48) as level, Scene(sloping, 64, 48) as one:
        aside = one._azimuth - math.degrees(direction)
        np.testing.assert_allclose(np.cos(np.radians(aside)), 0.0, atol=0.01)
        assert np.abs(one._azimuth - level._azimuth).max() < 91
        np.testing.assert_allclose(one._elevation, scene.ACROSS)
        np.testing.assert_allclose(level._elevation, scene.ON_ITS_COURSE[1])


@pytest.mark.parametrize(("robot", "leg"), [("hexapod", "L1"), ("ant", "FR"), ("cheetah", "F")])
def test_where_a_leg_was_lost_is_red(opengl: None, robot: str, leg: str) -> None:
    run = babble(robot, f"damaged_leg:leg={leg},mode=missing")
    assert red(drawn(run, 7)) > 20
    assert red(drawn(dataclasses.replace(run, perturbations=(), onsets=()), 7)) == 0


def test_leg_that_is_still_there_leaves_no_mark(opengl: None, run: Run) -> None:
    with Scene(run, 64, 48, alone=True) as one:
        one.draw(7)
        assert geoms(one, mujoco.mjtGeom.mjGEOM_SPHERE) == []


@pytest.mark.parametrize("robot", ["hexapod", "rover", "cheetah"])
def test_payload_lies_on_the_robot(opengl: None, robot: str) -> None:
    """Red, at its place, and not within the torso."""
    run = babble(robot, "payload:mass=2,x=0.05")
    with Scene(run, 320, 240, alone=True) as one:
        assert red(one.draw(7)) > 100
        (ball,) = geoms(one, mujoco.mjtGeom.mjGEOM_SPHERE)
        torso = one._data.body(one.robot.torso)
        ahead, left, up = torso.xmat.reshape(3, 3).T @ (ball.pos - torso.xpos)
        assert (ahead, left) == pytest.approx((0.05, 0.0), abs=1e-6)
        assert up > ball.size[0] > 0.02


@pytest.mark.parametrize(
    ("robot", "perturbation", "direction"),
    [
        ("quadruped", "wind:force=20", 0.5),
        ("cheetah", "wind:force=20", math.pi),
        ("swimmer", "medium:current=1", 2.0),
    ],
)
def test_arrow_shows_the_way_it_blows_or_flows(
    opengl: None, robot: str, perturbation: str, direction: float
) -> None:
    run = babble(robot)
    blown = dataclasses.replace(
        run, perturbations=(f"{perturbation},direction={direction},onset=0.1",), onsets=(0.1,)
    )
    with Scene(blown, 320, 240) as one:
        one.draw(0)
        assert bool(geoms(one, mujoco.mjtGeom.mjGEOM_ARROW)) == bool(one.active(0))
        assert red(one.draw(7)) > 50
        (arrow,) = geoms(one, mujoco.mjtGeom.mjGEOM_ARROW)
        way = [math.cos(direction), math.sin(direction), 0]
        np.testing.assert_allclose(arrow.mat[:, 2], way, atol=1e-6)


def test_what_does_not_flow_has_no_arrow(opengl: None) -> None:
    with Scene(babble("hexapod", "medium:density=300"), 64, 48) as one:
        one.draw(7)
        assert geoms(one, mujoco.mjtGeom.mjGEOM_ARROW) == []


def test_arrow_comes_and_goes_with_the_gusts(opengl: None) -> None:
    """It is as long as the model's own push is strong."""
    with Scene(babble("hexapod", "wind:force=2,period=0.7,onset=0.2"), 64, 48) as one:
        long, strong = [], []
        for tick in range(1, 8):
            one.draw(tick)
            (arrow,) = geoms(one, mujoco.mjtGeom.mjGEOM_ARROW)
            long.append(arrow.size[2])
            model = one.model(tick)
            strong.append(model.jnt_stiffness[0] * model.qpos_spring[0])
    assert long[0] == pytest.approx(0.0, abs=1e-6) and max(long) > 0.1
    np.testing.assert_allclose(
        np.divide(long, max(long)), np.divide(strong, max(strong)), atol=1e-6
    )


@pytest.mark.parametrize(
    "perturbation",
    [
        "medium:density=500,level=0.15",
        "medium:density=500",
        "terrain:roughness=0.2,bump=0.4",
        "friction:scale=0.2,patch=0.2",
    ],
)
def test_water_hills_and_ice_are_seen(opengl: None, perturbation: str) -> None:
    run = babble("hexapod")
    changed = dataclasses.replace(run, perturbations=(f"{perturbation},onset=0.4",), onsets=(0.4,))
    with Scene(run, 160, 120) as one, Scene(changed, 160, 120) as other:
        apart = [
            np.abs(one.draw(tick).astype(int) - other.draw(tick).astype(int)).mean()
            for tick in range(8)
        ]
    assert max(apart[:3]) == 0
    assert min(apart[3:]) > 1


def test_hills_are_drawn_where_they_are_stood_upon(opengl: None) -> None:
    """Flat and as high as the floor was, where the robot was as they began."""
    with Scene(babble("hexapod", "terrain:roughness=0.2,bump=0.4"), 64, 48) as one:
        one.draw(7)
        assert one._ground(*one._places[7][:2]) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", registry.names("robots"))
def test_robot_alone_fills_its_picture(opengl: None, name: str) -> None:
    """And all of it is in there: what differs when its bodies are hidden."""
    with Scene(babble(name), 160, 120, alone=True) as one:
        shown, model = one.draw(7).copy(), one.model(7)
        model.geom_rgba[np.isin(model.geom_bodyid, subtree(model, one.robot.torso)), 3] = 0.0
        rows, columns = np.nonzero((shown != one.draw(7)).any(-1))
    assert max(np.ptp(rows) / 120, np.ptp(columns) / 160) > 0.4
    assert min(rows) > 0 and max(rows) < 119 and min(columns) > 0 and max(columns) < 159


def test_planar_robot_is_seen_from_the_side(opengl: None) -> None:
    run = babble("cheetah", "damaged_joint:joint=bthigh,onset=0.2")
    assert red(drawn(run, 0)) == 0
    assert red(drawn(run, 7)) > 100


def test_robot_that_is_not_simulated_has_no_film(run: Run) -> None:
    with pytest.raises(ValueError, match="simulated"):
        Scene(dataclasses.replace(run, qpos=np.zeros((8, 0))), 64, 48)


# --- films -------------------------------------------------------------------------------------


def test_film_has_a_picture_a_tick(opengl: None, run: Run, tmp_path: Path) -> None:
    other = dataclasses.replace(run, agent="frozen")
    told: list[int] = []
    video.render([run, other], tmp_path / "film.mp4", told.append)
    frames = imageio_ffmpeg.read_frames(str(tmp_path / "film.mp4"))
    about = next(frames)
    assert about["size"] == (2 * video.WIDTH, video.HEIGHT)
    assert about["fps"] == 10
    pictures = [np.frombuffer(f, np.uint8).reshape(video.HEIGHT, -1, 3) for f in frames]
    assert len(pictures) == 7
    assert told == [1, 2, 3, 4, 5, 6, 7]
    header = [red(picture[: video.HEADER]) for picture in pictures]
    assert max(header[:3]) == 0, "undamaged"
    assert min(header[3:]) > 1000, "the banner says what struck"
    assert [p.name for p in tmp_path.iterdir()] == ["film.mp4"]

    video.gif(tmp_path / "film.mp4", tmp_path / "film.gif", width=320)
    assert Image.open(tmp_path / "film.gif").size[0] == 320


def said(run: Run, tick: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What stands below the robot, as of a run that is struck at its third tick."""
    texts: list[str] = []
    draw = ImageDraw.Draw(Image.new("RGB", (8, 8)))
    monkeypatch.setattr(draw, "text", lambda place, text, *how, **so: texts.append(text))
    video._numbers(draw, run, tick, 0, 3, video._target(run)[tick])
    return texts


def test_numbers_tell_whether_the_robot_is_adapted(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert np.round(run.info("gate")).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert said(run, 3, monkeypatch)[:2] == ["adapting", "not adapted"]
    assert said(run, 4, monkeypatch)[:2] == ["adapting", "adapted"]
    info = {name: values for name, values in run.log.info.items() if name != "gate"}
    frozen = dataclasses.replace(run.log, info=info)
    words = said(dataclasses.replace(run, agent="frozen", log=frozen), 4, monkeypatch)
    assert words[0] == "frozen: adaptation off"
    assert "adapted" not in " ".join(words[1:])


def test_state_has_room_beside_every_title() -> None:
    longest = max(video._font(16, bold=True).getlength(t) for t in plot.TITLES.values())
    state = video._font(15).getlength("not adapted")
    assert longest + state < video.SCALE * (video.WIDTH - 18 - 14 - 12)


@pytest.mark.parametrize(
    ("robot", "wanted"),
    [("hexapod", "0.20"), ("ant", "1.00"), ("cheetah", "2.50"), ("quadruped", "0.40")],
)
def test_numbers_tell_speed_and_target(
    robot: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the ground, wherever a robot that has a left side faces."""
    run = babble(robot)
    run.log.obs[5, 0, run.spec.index("vx")] = -0.3
    if sideways := "vy" in run.spec.state:
        run.log.obs[5, 0, run.spec.index("vy")] = 0.4
    numbers = " ".join(said(run, 5, monkeypatch))
    assert f"speed {'0.50' if sideways else '-0.30'} of {wanted} m/s" in numbers
    assert ("off the path" in numbers) == (robot == "hexapod")


@pytest.mark.parametrize("paths", [("eight", "tour"), ("tour", "eight")])
def test_runs_of_two_tasks_beside_each_other_show_what_both_have(paths: tuple[str, str]) -> None:
    runs = [babble("rover", path=path) for path in paths]
    assert [chart.name for chart in video._charts(runs, 8)] == ["speed [m/s]", "model error"]
    assert video._charts([runs[paths.index("eight")]], 8)[0].name == "off the path [cm]"


def test_slow_swimmer_has_digits_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "of 0.080 m/s" in " ".join(said(babble("swimmer"), 5, monkeypatch))


def test_target_changes_with_the_command() -> None:
    """Its speed is that of the whole command, here at first a full one."""
    run = babble("quadruped", ticks=82)
    target = video._target(run)
    assert target[0] == pytest.approx(0.4)
    assert target[-1] == pytest.approx(0.7 * 0.4)


def test_film_refuses_what_it_would_not_show(tmp_path: Path) -> None:
    film, never = tmp_path / "film.mp4", "damaged_leg:leg=L1,onset=10"
    with pytest.raises(UsageError, match=r"begins at 10 s: the end is at 0.3 s"):
        Render(film, robot="hexapod", perturb=(never,), seconds=0.3)()
    with pytest.raises(UsageError, match="none excludes every other"):
        Render(film, robot="hexapod", perturb=("none", "payload:mass=1"), seconds=0.3)()
    assert list(tmp_path.iterdir()) == []


def test_picture_shows_a_perturbation_whenever_it_acts(opengl: None, tmp_path: Path) -> None:
    def reds(*perturb: str) -> int:
        Render(tmp_path / "still.png", robot="hexapod", perturb=perturb, seconds=0.2)()
        return red(np.asarray(Image.open(tmp_path / "still.png")))

    assert reds() == reds("none") == 0
    leg = "damaged_leg:leg=R1"
    assert reds(f"{leg},onset=10") == reds(leg) == reds(f"{leg},until=0.1") > 100


def test_film_begins_with_what_has_no_onset(opengl: None, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    Render(film, robot="hexapod", perturb=("damaged_leg:leg=R1,until=0.2",), seconds=0.4)()
    frames = imageio_ffmpeg.read_frames(str(film))
    next(frames)
    shown = [np.frombuffer(f, np.uint8).reshape(video.HEIGHT, -1, 3) for f in frames]
    banners = [red(picture[: video.HEADER]) > 1000 for picture in shown]
    assert banners == [True, False, False]


def test_recorded_run_is_filmed_where_it_lies(opengl: None, tmp_path: Path) -> None:
    run = babble("cheetah", agent="oracle", ticks=3)
    run.log.info.clear()
    log.save(tmp_path, run)
    film = video.video_run(tmp_path)
    assert film == tmp_path / "run.mp4"
    assert imageio_ffmpeg.count_frames_and_secs(str(film))[0] == 2


def test_interrupted_film_leaves_nothing(opengl: None, run: Run, tmp_path: Path) -> None:
    def interrupt(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        video.render([run], tmp_path / "film.mp4", interrupt)
    assert list(tmp_path.iterdir()) == []


# --- without OpenGL, and the whole demo ---------------------------------------------------------


@pytest.fixture
def no_opengl(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MUJOCO_GL", "nothing_of_the_kind")
    scene.backend.cache_clear()
    yield
    scene.backend.cache_clear()


def test_without_opengl_it_says_what_to_install(no_opengl: None, run: Run, tmp_path: Path) -> None:
    with pytest.raises(NoOpenGL, match="apt install libegl1 libgl1-mesa-dri"):
        video.render([run], tmp_path / "film.mp4")
    assert list(tmp_path.iterdir()) == []


def test_demo_without_opengl_does_all_else(
    no_opengl: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(demo, "TRUE", ())
    monkeypatch.setattr(demo, "RUNS", 1)
    demo.demo(tmp_path, seconds=0.4, checkpoint=tiny)
    assert [p.name for p in tmp_path.iterdir()] == ["demo.png"]
    said = capsys.readouterr().out
    assert "libegl1" in said
    assert "off path [cm]" in said


def test_demo(
    opengl: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(demo, "RUNS", 1)
    demo.demo(tmp_path / "new", seconds=0.4, checkpoint=tiny)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "demo.gif",
        "demo.mp4",
        "demo.png",
    ]
    said = capsys.readouterr().out
    for words in ("reversed", "default", "frozen", "pooled", "oracle", "nominal", "demo.mp4"):
        assert words in said


def test_interrupted_demo_ends_its_other_process(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    import multiprocessing

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_drive", interrupt)
    with pytest.raises(KeyboardInterrupt):
        demo.demo(tmp_path, seconds=0.6, checkpoint=tiny)
    assert multiprocessing.active_children() == []
    assert list(tmp_path.iterdir()) == []
