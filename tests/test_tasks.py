"""What the robots are asked to do: geometry of the paths, costs, and the measures of reports."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from controllers.agent import Agent, TrueModel
from controllers.scripted import Rest
from mbmrl import tasks
from mbmrl.compose import task_for
from mbmrl.episode import run_episodes
from mbmrl.registry import UnknownName
from mbmrl.spec import Field, RobotSpec
from mbmrl.tasks import PATHS, DirectionTask, PathTask, ReachTask, SpeedTask, Task, VelocityTask
from robots.ant import Ant
from robots.cheetah import Cheetah
from robots.fish import Fish
from robots.hexapod import Hexapod
from robots.quadruped import Quadruped
from robots.sim import SimRobot

ALL = tuple(PATHS)
WALKER, RUNNER = Hexapod.spec, Cheetah.spec


def obs_with(spec: RobotSpec, shape: tuple[int, ...] = (1,), **fields: float | Tensor) -> Tensor:
    """Observations that are zero but for some fields."""
    obs = torch.zeros(*shape, spec.num_obs)
    for name, value in fields.items():
        obs[..., spec.index(name)[0]] = torch.as_tensor(value, dtype=torch.float32)
    return obs


def on_path(task: PathTask, progress: float, aside: float = 0.0) -> Tensor:
    """Every robot that far along its path, and so far to its left [m]."""
    x, y, heading = task.path[:, round(progress / task.STEP)].T
    return obs_with(
        task.spec,
        (len(task.names),),
        x=x - aside * torch.sin(heading),
        y=y + aside * torch.cos(heading),
        yaw=heading,
    )


def follow(
    task: PathTask, speed: float, aside: float = 0.0, ticks: int = 300
) -> tuple[Tensor, Tensor]:
    """Mean gain and largest cross-track error of points that glide along the paths."""
    task.reset(on_path(task, 0.0))
    gains, errors = [], []
    for tick in range(1, ticks + 1):
        obs = on_path(task, speed * task.spec.dt * tick, aside)
        task.observe(obs)
        gains.append(task.gain(obs))
        errors.append(task.cross_track(obs))
    return torch.stack(gains).mean(0), torch.stack(errors).amax(0)


# --- paths ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_paths_begin_at_the_origin_along_x_and_bend_gently(name: str) -> None:
    x, y, heading = PathTask(WALKER, (name,)).path[0, :2000].double().T
    step = PathTask.STEP
    assert math.hypot(x[0], y[0]) <= 1.01 * step
    assert abs(heading[0]) < 0.05
    moves = torch.stack([x.diff(), y.diff()])
    torch.testing.assert_close(moves.norm(dim=0), torch.full_like(x[1:], step), atol=1e-5, rtol=0)
    assert heading.diff().abs().max() <= step / 0.29  # no turn tighter than 29 cm
    along = torch.stack([torch.cos(heading[1:]), torch.sin(heading[1:])])
    torch.testing.assert_close(moves, step * along, atol=1e-5, rtol=0)


def test_paths_are_what_they_are_called() -> None:
    task = PathTask(WALKER, ALL)
    paths = dict(zip(ALL, task.path, strict=True))
    assert paths["straight"][:, 1].abs().max() == 0
    assert paths["arc"][:, 2].diff().min() > 0
    assert paths["zigzag"][:, 2].abs().max() < math.radians(33)
    turns = paths["zigzag"][:, 2].diff().sign()
    assert set(turns[turns.nonzero()[:, 0]].unique().tolist()) == {-1.0, 1.0}
    circle = round(2 * math.pi * 0.8 / task.STEP)
    for lap in (circle, 2 * circle):  # one circle to the left, one to the right
        assert paths["eight"][lap, :2].norm() < 0.05
    assert paths["eight"][circle // 2, 1] == pytest.approx(1.6, abs=0.02)
    assert paths["eight"][circle + circle // 2, 1] == pytest.approx(-1.6, abs=0.05)


def test_unknown_tasks_and_paths_are_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="straight, arc, zigzag, eight"):
        PathTask(WALKER, ("spiral",))
    with pytest.raises(ValueError, match="forward, turns"):
        VelocityTask(WALKER, ("sideways",))
    with pytest.raises(ValueError, match="back, right, left, ahead"):
        DirectionTask(WALKER, ("north",))
    with pytest.raises(ValueError, match=", ".join(tasks.COURSES)):
        tasks.make("dance", WALKER, ALL)


@pytest.mark.parametrize("task", tasks.COURSES)
def test_every_course_can_be_made_and_the_usual_ones_are_some_of_them(task: str) -> None:
    spec = {"speed": RUNNER}.get(task, WALKER)
    every = tasks.COURSES[task] or [""]
    assert tasks.make(task, spec, every).cost(
        torch.zeros(len(every), 1, 1, spec.num_obs), torch.zeros(len(every), 1, 1, spec.num_act)
    ).shape == (len(every), 1)
    assert set(tasks.usual(task, 2)) <= set(every)
    assert tasks.usual(task) == (every[-1],)


def test_a_robot_may_have_a_target_speed_of_its_own() -> None:
    for task, spec in (("path", WALKER), ("speed", RUNNER), ("velocity", WALKER)):
        courses = tasks.usual(task)
        assert vars(tasks.make(task, spec, courses, speed=0.7))["speed"] == 0.7
        assert vars(tasks.make(task, spec, courses))["speed"] != 0.7


def test_a_robot_can_be_given_the_courses_of_every_task_it_measures_enough_for() -> None:
    assert tasks.offered("speed", RUNNER) == {"": "speed"}
    walks = tasks.offered("velocity", WALKER)
    assert next(iter(walks)) == next(iter(tasks.COMMANDS))
    assert {walks["tour"], walks["eight"], walks["left"]} == {"velocity", "path", "direction"}
    assert tasks.offered("reach", WALKER)["eight"] == "reach"
    with pytest.raises(ValueError, match="cheetah has no pose"):
        tasks.make("path", RUNNER, ["eight"])


def test_a_course_of_another_task_makes_that_task_and_two_tasks_are_none() -> None:
    assert isinstance(task_for(Quadruped, ["tour"]), VelocityTask)
    following = task_for(Quadruped, ["eight", "arc"])
    assert isinstance(following, PathTask)
    assert following.names == ("eight", "arc")
    assert following.speed == Quadruped.speed
    with pytest.raises(ValueError, match="eight, tour are of several tasks: path, velocity"):
        task_for(Quadruped, ["eight", "tour"])
    with pytest.raises(UnknownName, match="did you mean 'eight'"):
        task_for(Quadruped, ["eigth"])
    with pytest.raises(ValueError, match="cheetah follows no path"):
        task_for(Cheetah, ["eight"])


# --- following a path -------------------------------------------------------------------------


def test_on_the_path_at_the_target_speed_all_is_gained() -> None:
    task = PathTask(WALKER, ALL)
    gain, error = follow(task, task.speed)
    torch.testing.assert_close(gain, torch.ones(len(ALL)), atol=0.01, rtol=0)
    assert (error < task.STEP).all()


def test_a_path_is_still_there_after_minutes() -> None:
    task = PathTask(WALKER, ALL)
    gain, error = follow(task, task.speed, ticks=1500)
    torch.testing.assert_close(gain, torch.ones(len(ALL)), atol=0.01, rtol=0)
    assert (error < task.STEP).all()
    hour = 3600 * task.speed
    assert (task.path.shape[1] * task.STEP > hour) and task.path.isfinite().all()


def test_at_half_the_speed_half_is_gained() -> None:
    task = PathTask(WALKER, ALL)
    gain, error = follow(task, task.speed / 2)
    torch.testing.assert_close(gain, 0.5 * torch.ones(len(ALL)), atol=0.03, rtol=0)
    assert (error < task.STEP).all()


@pytest.mark.parametrize("aside", [0.1, -0.1])
def test_beside_the_path_nothing_is_gained(aside: float) -> None:
    task = PathTask(WALKER, ALL)
    gain, error = follow(task, task.speed, aside)
    assert (gain == 0).all()
    assert ((error > 0.09) & (error < 0.12)).all()


def test_faster_than_asked_gains_no_more() -> None:
    task = PathTask(WALKER, ("straight",))
    gain, _ = follow(task, 1.5 * task.speed, ticks=200)
    assert gain <= 1.0


def test_standing_still_gains_nothing_once_the_schedule_waits() -> None:
    task = PathTask(WALKER, ("eight",))
    obs = on_path(task, 0.0)
    task.reset(obs)
    gains = []
    for _ in range(50):
        task.observe(obs)
        gains.append(float(task.gain(obs)))
    assert sum(gains[10:]) == 0
    assert task.schedule <= task.progress + task.LEAD_S * task.speed + 1e-6


def test_a_robot_held_up_is_not_told_to_cut_corners() -> None:
    """Where it stands after a wait, going on along the path costs least."""
    task = PathTask(WALKER, ("eight",))
    obs = on_path(task, 2.0)
    task.reset(obs)
    task.progress[:] = task.schedule[:] = 2.0
    for _ in range(30):
        task.observe(obs)
    steps = [2.0 + task.LEAD_S * task.speed + 0.02 * (k + 1) for k in range(10)]
    along = torch.stack([on_path(task, s)[0] for s in steps])
    end, far = along[-1], on_path(task, 2.6)[0]
    cut = torch.stack([along[0].lerp(far, k / 9) for k in range(10)])
    cost = task.cost(torch.stack([along, cut, end.expand(10, -1)])[None], torch.zeros(1, 3, 10, 6))
    assert cost.argmin() == 0


def test_a_robot_too_weak_for_the_speed_is_not_told_to_cut_corners_either() -> None:
    """At a third of the speed, round a bend: the path, not the chord to where it should be."""
    task = PathTask(WALKER, ("eight",))
    task.progress[:] = task.schedule[:] = 1.0
    steps = torch.arange(1, 21) * task.speed * WALKER.dt
    along = torch.stack([on_path(task, 1.0 + float(s) / 3)[0] for s in steps])
    here, far = on_path(task, 1.0)[0], on_path(task, 1.0 + float(steps[-1]))[0]
    way = (far - here)[:2].norm()
    chord = torch.stack([here.lerp(far, float(s / 3 / way)) for s in steps])
    cost = task.cost(torch.stack([along, chord])[None], torch.zeros(1, 2, 20, 6))
    assert cost[0, 0] < cost[0, 1]


@pytest.mark.parametrize("size", [1.0, 2.0])
def test_facing_astray_costs_what_it_leads_to(size: float) -> None:
    """On the path but turned aside, as much as so far beside it as that leads to."""
    task = PathTask(WALKER, ("eight",), size=size)
    task.progress[:] = task.schedule[:] = 1.0
    turned = on_path(task, 1.0)
    beside = on_path(task, 1.0, aside=task.AHEAD * size * math.sin(0.3))
    turned[:, WALKER.index("yaw")] += 0.3
    futures = torch.stack([turned, beside, on_path(task, 1.0)], 1)[:, :, None]
    cost = task.cost(futures, torch.zeros(1, 3, 1, 6))[0]
    assert float(cost[0] - cost[2]) == pytest.approx(float(cost[1] - cost[2]), rel=0.1)
    assert cost[0] > cost[2] + 0.5


def test_being_faster_is_always_worth_it_up_to_the_target_speed() -> None:
    task = PathTask(WALKER, ("eight",))
    task.progress[:] = task.schedule[:] = 1.0
    shares = [-0.2, 0.0, 0.1, 0.3, 0.6, 0.9, 1.0]
    ways = [
        torch.stack([on_path(task, 1.0 + share * task.speed * WALKER.dt * k)[0] for k in range(21)])
        for share in shares
    ]
    cost = task.cost(torch.stack(ways)[None, :, 1:], torch.zeros(1, len(ways), 20, 6))[0]
    assert (cost.diff() < 0).all()
    assert cost[-1] < 0.02


def test_reset_begins_the_paths_anew() -> None:
    task = PathTask(WALKER, ALL)
    first = follow(task, task.speed, ticks=20)
    torch.testing.assert_close(follow(task, task.speed, ticks=20), first)


def test_each_robot_has_its_own_path() -> None:
    task, straight = PathTask(WALKER, ("straight", "arc")), PathTask(WALKER, ("straight",))
    obs = on_path(PathTask(WALKER, ("straight", "straight")), 1.0)
    for t in (task, straight):
        t.reset(obs[: len(t.names)])
        for step in range(60):
            t.observe(on_path(t, min(0.02 * step, 1.0)))
    future, act = obs[:, None, None].expand(2, 1, 5, -1), torch.zeros(2, 1, 5, 6)
    costs = task.cost(future, act)[:, 0]
    torch.testing.assert_close(costs[:1], straight.cost(future[:1], act[:1])[0])
    assert costs[1] > costs[0] + 1


# --- reaching targets -----------------------------------------------------------------------------


def swim(task: ReachTask, places: Tensor) -> Tensor:
    """What is gained, tick by tick, at these places (t, 2 or 3)."""
    names = (*task.spec.pose[:2], "z")[: places.shape[1]]
    gains = []
    for place in places:
        obs = obs_with(task.spec, **dict(zip(names, place.tolist(), strict=True)))
        task.observe(obs)
        gains.append(float(task.gain(obs)))
    return torch.tensor(gains)


def through(task: ReachTask, speed: float, seconds: float) -> Tensor:
    """The places of a point that goes straight from target to target."""
    corners = torch.cat([torch.zeros(1, task.targets.shape[2]), task.targets[0]])
    way = torch.arange(1, round(seconds / task.spec.dt) + 1) * speed * task.spec.dt
    lengths = corners.diff(dim=0).norm(dim=1)
    ends = lengths.cumsum(0)
    leg = torch.searchsorted(ends, way)
    share = 1 - (ends[leg] - way) / lengths[leg]
    return corners[leg].lerp(corners[leg + 1], share[:, None])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [0.5, 2.0])
def test_going_from_target_to_target_at_the_target_speed_gains_all(name: str, size: float) -> None:
    for share in (1.0, 0.5):
        task = ReachTask(WALKER, (name,), speed=0.2, size=size)
        gains = swim(task, through(task, share * 0.2, 25))
        assert gains.mean() == pytest.approx(share, abs=0.05)
        assert gains.max() <= 1 + 1e-3
        assert task.at > 25 * share * 0.2 / (ReachTask.SPACING * size) - 1.5


def test_the_next_target_comes_when_one_is_reached() -> None:
    task = ReachTask(WALKER, ("straight",), size=0.5)
    first = task.targets[0, 0]
    for place, at in ((first * 0.7, 0), (first * 0.9, 1), (first * 0.7, 1)):
        swim(task, place[None])
        assert task.at == at
    task.reset(obs_with(WALKER))
    assert task.at == 0


@pytest.mark.parametrize("to_and_fro", [[0.1, 0.0], [0.1, -0.1], [0.0, 0.0]])
def test_swinging_to_and_fro_gains_nothing(to_and_fro: list[float]) -> None:
    task = ReachTask(WALKER, ("straight",))
    places = torch.tensor([[x, 0.0] for x in to_and_fro * 50])
    assert swim(task, places)[20:].sum() == 0


def test_swimming_past_a_target_gains_nothing_more() -> None:
    task = ReachTask(WALKER, ("straight",), speed=0.2)
    past = torch.stack([0.02 * torch.arange(150), torch.full((150,), 0.3)], 1)
    assert swim(task, past)[60:].sum() == 0
    assert task.at == 0


def test_a_fish_is_sent_up_and_down_from_where_it_is() -> None:
    task = ReachTask(Fish.spec, ("straight",), size=0.2)
    task.reset(obs_with(Fish.spec, z=0.7))
    height = task.targets[0, :4, 2]
    torch.testing.assert_close(height, 0.7 + 0.02 * torch.tensor([1.0, -1, 1, -1]))
    below = task.targets[0, 0] - torch.tensor([0, 0, 0.05])
    assert task.at == 0
    swim(task, below[None])
    assert task.at == 0  # as far away as a target beside it
    swim(task, task.targets[:, 0])
    assert task.at == 1


def test_towards_the_target_at_the_target_speed_costs_least() -> None:
    task = ReachTask(WALKER, ("straight",), speed=0.2)
    task.reset(obs_with(WALKER))

    def cost(speed: float, aside: float = 0.0, act: float = 0.0, **fields: float) -> float:
        way = torch.arange(1, 6) * WALKER.dt
        obs = obs_with(WALKER, (1, 1, 5), x=speed * way, y=aside * way, **fields)
        return float(task.cost(obs, torch.full((1, 1, 5, 6), act)))

    assert cost(0.2) == pytest.approx(0, abs=1e-9)
    worse = [cost(0.0), cost(0.3), cost(0.0, 0.2), cost(0.2, roll=0.5), cost(0.2, act=1.0)]
    assert min(worse) > 0.01
    assert cost(-0.2) > cost(0.0, 0.2) > cost(0.15)


@pytest.mark.parametrize("size", [0.5, 2.0])
def test_a_path_of_another_size_is_the_same_path(size: float) -> None:
    """Seen from as much farther away."""
    hexapods, other = (PathTask(WALKER, ALL, size=s) for s in (1.0, size))
    step = hexapods.STEP
    for share in (0.1, 0.5, 0.9):
        here = hexapods.path[:, round(12 * share / step)]
        there = other.path[:, round(12 * share * size / step)]
        torch.testing.assert_close(there[:, :2], size * here[:, :2], atol=0.02, rtol=0)
        torch.testing.assert_close(there[:, 2], here[:, 2], atol=0.05, rtol=0)
    for aside, gained in ((0.06, 1.0), (0.1, 0.0)):
        gain, _ = follow(other, other.speed, aside * size, ticks=200)
        torch.testing.assert_close(gain, torch.full_like(gain, gained), atol=0.03, rtol=0)


# --- running at a speed -----------------------------------------------------------------------


def test_the_target_speed_is_worth_one_and_none_or_twice_of_it_nothing() -> None:
    task = SpeedTask(RUNNER, speed=2.0)
    vx = torch.tensor([2.0, 1.0, 3.0, 0.0, 4.0, 6.0, -2.0])
    gain = task.gain(obs_with(RUNNER, vx.shape, vx=vx))
    torch.testing.assert_close(gain, torch.tensor([1.0, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0]))


def test_running_on_the_back_is_worth_nothing() -> None:
    task = SpeedTask(RUNNER)
    upright, back = (obs_with(RUNNER, vx=task.speed, pitch=p) for p in (0.2, math.pi))
    assert task.gain(upright) == 1
    assert task.gain(back) == 0
    assert torch.isnan(task.cross_track(upright)).all()


def test_upright_at_the_target_speed_costs_least() -> None:
    task = SpeedTask(RUNNER)

    def cost(act: float = 0.0, **fields: float) -> float:
        obs = obs_with(RUNNER, (1, 1, 4), **{"vx": task.speed, **fields})
        return float(task.cost(obs, torch.full((1, 1, 4, 6), act)))

    assert cost() == 0
    for worse in ({"vx": 0.0}, {"vx": 5.0}, {"pitch": 0.3}, {"pitch": -0.3}, {"vz": 1.0}):
        assert cost(**worse) > 0.01
    assert cost(act=1.0) > 0
    assert cost(vx=0.0) < cost(pitch=math.pi)  # lying on its back is never worth the speed
    assert cost(pitch=2 * math.pi) == pytest.approx(0, abs=1e-9)


def test_a_robot_that_does_not_leap_may_lack_vz() -> None:
    spec = RobotSpec(
        "cart", 0.1, (Field("vx", "m/s"), Field("pitch", "rad")), (Field("f", "N", -1, 1),)
    )
    task = SpeedTask(spec)
    assert task.cost(torch.tensor([[[[task.speed, 0.0]]]]), torch.zeros(1, 1, 1, 1)) == 0


# --- tracking a velocity ------------------------------------------------------------------------


def drive_at(task: VelocityTask, seconds: float, **velocity: float) -> tuple[Tensor, Tensor]:
    """The command and what is gained, tick by tick, at a steady velocity from rest on."""
    task.reset(obs_with(WALKER))
    obs, commands, gains = obs_with(WALKER, **velocity), [], []
    for _ in range(round(seconds / WALKER.dt)):
        task.observe(obs)
        commands.append(task.command[0])
        gains.append(task.gain(obs)[0])
    return torch.stack(commands), torch.stack(gains)


def test_commands_change_when_they_are_due_and_come_round_again() -> None:
    task = VelocityTask(WALKER, ("square",), speed=2.0)
    each = round(tasks.COMMAND_S / WALKER.dt)
    commands, _ = drive_at(task, 5 * tasks.COMMAND_S)
    expected = torch.tensor(tasks.COMMANDS["square"]) * torch.tensor([2.0, 2.0, task.TURN])
    for k in range(5):
        section = commands[k * each : (k + 1) * each]
        torch.testing.assert_close(section, expected[k % 4].expand(each, 3))


def obey(commands: str, judged: str, rounds: int = 1) -> tuple[Tensor, Tensor]:
    """Pose tick by tick, x, y and yaw, of who does at once as told; and the gain, where judged."""
    task, other = (VelocityTask(WALKER, (name,), 0.5) for name in (commands, judged))
    ticks = round(rounds * len(tasks.COMMANDS[commands]) * tasks.COMMAND_S / WALKER.dt)
    x = y = yaw = 0.0
    poses, gains = [(x, y, yaw)], []
    for _ in range(ticks):
        task.observe(obs_with(WALKER))
        vx, vy, yaw_rate = task.command[0].tolist()
        obs = obs_with(WALKER, vx=vx, vy=vy, yaw_rate=yaw_rate)
        other.observe(obs)
        gains.append(other.gain(obs)[0])
        yaw += yaw_rate * WALKER.dt / 2
        x += (vx * math.cos(yaw) - vy * math.sin(yaw)) * WALKER.dt
        y += (vx * math.sin(yaw) + vy * math.cos(yaw)) * WALKER.dt
        yaw += yaw_rate * WALKER.dt / 2
        poses.append((x, y, yaw))
    return torch.tensor(poses, dtype=torch.float64), torch.stack(gains)


@pytest.mark.parametrize("name", tasks.COMMANDS)
def test_who_obeys_gains_all_but_while_a_command_is_new(name: str) -> None:
    """Each one's last tick, many strides after it came; who obeys others gains less."""
    _, gains = obey(name, name, rounds=2)
    each = round(tasks.COMMAND_S / WALKER.dt)
    assert gains[each - 1 :: each].min() > 0.995
    assert gains.mean() > 0.8
    for other in tasks.COMMANDS:
        if other != name:
            assert obey(other, name, rounds=10)[1].mean() < gains.mean() - 0.1


def test_who_weaves_swings_from_side_to_side_and_goes_on_along_a_line() -> None:
    """Two arcs of one radius and angle: aslant at the end of one, straight again at the other's."""
    poses, _ = obey("weave", "weave")
    angle = 0.6 * VelocityTask.TURN * tasks.COMMAND_S
    radius = 0.5 / (0.6 * VelocityTask.TURN)
    middle, end = poses[len(poses) // 2], poses[-1]
    arc = [radius * math.sin(angle), radius * (1 - math.cos(angle))]
    assert middle.tolist() == pytest.approx([*arc, angle], abs=2e-3)
    assert end.tolist() == pytest.approx([2 * arc[0], 2 * arc[1], 0.0], abs=4e-3)
    assert angle < math.pi / 2  # never back


def test_a_tour_has_all_that_can_be_commanded_and_ends_at_rest() -> None:
    poses, _ = obey("tour", "tour")
    each = round(tasks.COMMAND_S / WALKER.dt)
    ahead, curve, aside, back, rest = (
        poses[(k + 1) * each] - poses[k * each] for k in range(len(tasks.COMMANDS["tour"]))
    )
    assert ahead.tolist() == pytest.approx([0.5 * tasks.COMMAND_S, 0.0, 0.0], abs=1e-6)
    assert curve[2] == pytest.approx(0.7 * VelocityTask.TURN * tasks.COMMAND_S)
    heading = float(poses[2 * each, 2])
    sideways = 0.25 * tasks.COMMAND_S
    left = [-sideways * math.sin(heading), sideways * math.cos(heading), 0.0]
    assert aside.tolist() == pytest.approx(left, abs=1e-6)
    assert back[2] == pytest.approx(-curve[2])
    assert rest.abs().max() == 0.0


def test_nobody_is_commanded_more_than_all() -> None:
    for commands in tasks.COMMANDS.values():
        assert torch.tensor(commands).abs().max() <= 1.0


def test_as_commanded_all_is_gained_and_standing_still_nothing() -> None:
    task = VelocityTask(WALKER, ("forward",), speed=0.5)
    for velocity, gained in (
        ({"vx": 0.5}, 1.0),
        ({"vx": 0.25}, 0.5),
        ({}, 0.0),
        ({"vx": 1.0}, 0.0),
    ):
        _, gains = drive_at(task, 3.0, **velocity)
        assert gains[-1] == pytest.approx(gained, abs=0.01)
    _, gains = drive_at(task, 3.0, vx=0.5, yaw_rate=task.TURN / 2)
    assert gains[-1] == pytest.approx(0.5, abs=0.01)
    _, gains = drive_at(task, 3.0, vx=0.5, roll=1.5)
    assert gains[-1] == 0  # lying on the side


def test_what_is_gained_is_the_mean_over_a_stride() -> None:
    """Swaying about the command costs, but loses little of the gain."""
    task = VelocityTask(WALKER, ("forward",), speed=0.5)
    gains = []
    for tick in range(40):
        obs = obs_with(WALKER, vx=0.5 + 0.3 * (-1) ** tick)
        task.observe(obs)
        gains.append(float(task.gain(obs)))
    assert sum(gains[20:]) / 20 > 0.85


def test_the_commanded_velocity_costs_least() -> None:
    task = VelocityTask(WALKER, ("turns",), speed=0.5)
    task.observe(obs_with(WALKER))
    vx, vy, yaw_rate = (float(c) for c in task.command[0])

    def cost(act: float = 0.0, **fields: float) -> float:
        obs = obs_with(WALKER, (1, 1, 4), **{"vx": vx, "vy": vy, "yaw_rate": yaw_rate, **fields})
        return float(task.cost(obs, torch.full((1, 1, 4, 6), act)))

    assert cost() == pytest.approx(0, abs=1e-9)
    assert vx > 0 and yaw_rate > 0
    for worse in ({"vx": 0.0}, {"vy": 0.2}, {"yaw_rate": 0.0}, {"roll": 0.3}, {"pitch": -0.3}):
        assert cost(**worse) > 0.05
    assert cost(vz=0.5) > 0.01
    assert cost(act=1.0) > 0
    assert cost(vx=0.0, yaw_rate=0.0) < cost(roll=math.pi)


# --- running in a direction -----------------------------------------------------------------------


@pytest.mark.parametrize("direction", tasks.DIRECTIONS)
@pytest.mark.parametrize("yaw", [0.0, 0.7, -2.5, math.pi])
def test_it_may_face_anywhere_but_must_run_in_the_direction(direction: str, yaw: float) -> None:
    task = DirectionTask(WALKER, (direction,), speed=1.5)
    angle = tasks.DIRECTIONS[direction]

    def moving(speed: float, way: float) -> Tensor:
        """With a velocity of the world, as the robot measures it."""
        vx, vy = speed * math.cos(way - yaw), speed * math.sin(way - yaw)
        return obs_with(WALKER, (1, 1, 1), vx=vx, vy=vy, yaw=yaw)

    def cost_and_gain(obs: Tensor) -> tuple[float, float]:
        return float(task.cost(obs, torch.zeros(1, 1, 1, 6))), float(task.gain(obs[0, 0]))

    assert cost_and_gain(moving(1.5, angle)) == pytest.approx((0, 1), abs=1e-3)
    assert cost_and_gain(moving(0.75, angle)) == pytest.approx((0.25, 0.5), abs=1e-3)
    assert cost_and_gain(moving(0.0, angle)) == pytest.approx((1, 0), abs=1e-3)
    assert cost_and_gain(moving(1.5, angle + math.pi / 2)) == pytest.approx((2, 0), abs=1e-3)


def test_who_lies_or_hops_or_tilts_does_not_run_well() -> None:
    task = DirectionTask(WALKER, ("ahead",), speed=1.0)
    assert task.gain(obs_with(WALKER, vx=1.0, roll=1.5)) == 0

    def cost(act: float = 0.0, **fields: float) -> float:
        obs = obs_with(WALKER, (1, 1, 2), vx=1.0, **fields)
        return float(task.cost(obs, torch.full((1, 1, 2, 6), act)))

    assert cost() == pytest.approx(0, abs=1e-9)
    assert min(cost(vz=1.0), cost(roll=0.4), cost(pitch=0.4), cost(act=1.0)) > 0.01


# --- every task -------------------------------------------------------------------------------

TASKS = [
    ("path", WALKER),
    ("speed", RUNNER),
    ("velocity", WALKER),
    ("direction", WALKER),
    ("reach", Fish.spec),
]


def some_task(which: int, robots: int) -> Task:
    name, spec = TASKS[which]
    courses = tasks.COURSES[name] or [""]
    return tasks.make(name, spec, (courses * robots)[:robots])


@pytest.mark.parametrize("which", range(len(TASKS)))
def test_costs_of_a_batch_are_those_of_each_alone(which: int) -> None:
    generator = torch.Generator().manual_seed(0)
    together, robots, candidates, horizon = some_task(which, 3), 3, 4, 5
    spec = together.spec
    now = 0.1 * torch.randn(robots, spec.num_obs, generator=generator)
    obs = torch.randn(robots, candidates, horizon, spec.num_obs, generator=generator)
    act = torch.rand(robots, candidates, horizon, spec.num_act, generator=generator)
    together.reset(now)
    together.observe(now)
    batched = together.cost(obs, act)
    assert batched.shape == (robots, candidates)
    for r in range(robots):
        name = TASKS[which][0]
        alone = tasks.make(name, spec, (tasks.COURSES[name] or [""] * robots)[r : r + 1])
        alone.reset(now[r : r + 1])
        alone.observe(now[r : r + 1])
        torch.testing.assert_close(together.gain(now)[r], alone.gain(now[r : r + 1])[0])
        for n in range(candidates):
            one = alone.cost(obs[r, n][None, None], act[r, n][None, None])
            torch.testing.assert_close(batched[r, n], one[0, 0])


@pytest.mark.parametrize(
    ("which", "field"),
    [
        *((0, name) for name in ("x", "yaw", "roll")),
        *((1, name) for name in ("vx", "pitch", "vz")),
        *((2, name) for name in ("vx", "vy", "yaw_rate", "pitch", "vz")),
        *((3, name) for name in ("vx", "vy", "yaw", "roll", "vz")),
        *((4, name) for name in ("x", "z", "roll")),
    ],
)
def test_a_future_with_a_hole_has_no_cost(which: int, field: str) -> None:
    task = some_task(which, 1)
    obs = torch.zeros(1, 3, 4, task.spec.num_obs)
    obs[0, 1, 2, task.spec.index(field)] = torch.nan
    cost = task.cost(obs, torch.zeros(1, 3, 4, task.spec.num_act))
    assert cost.isnan().tolist() == [[False, True, False]]


@pytest.mark.parametrize("which", range(len(TASKS)))
def test_beyond_a_radian_of_tilt_it_has_fallen(which: int) -> None:
    task = some_task(which, 1)
    pitch = torch.tensor([0.0, 0.9, -0.9, 1.1, -1.1, 3.1, 2 * math.pi + 0.1])
    fell = task.fell(obs_with(task.spec, pitch.shape, pitch=pitch))
    assert fell.tolist() == [False, False, False, True, True, True, False]


def test_rolling_over_is_falling_too() -> None:
    assert some_task(0, 1).fell(obs_with(WALKER, roll=-1.2))


@pytest.mark.parametrize("robot", [Hexapod, Cheetah, Quadruped, Ant, Fish])
def test_reports_hold_the_cost_that_planners_minimise(robot: type[SimRobot]) -> None:
    def task() -> Task:
        return task_for(robot, tasks.usual(robot.task))

    log = run_episodes([robot()], Agent(TrueModel([]), Rest(robot.spec), task()), 0.5)
    again = task()
    obs, act = torch.from_numpy(log.obs).float(), torch.from_numpy(log.act).float()
    again.reset(obs[0])
    for t in range(len(obs)):
        again.observe(obs[t])
        expected = again.cost(obs[t][:, None, None], act[t][:, None, None])[:, 0]
        torch.testing.assert_close(torch.from_numpy(log.cost[t]), expected)
