"""The control loop: what it learns from, what it resets, how it keeps time, how it ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from controllers.agent import Agent
from controllers.base import Planner
from controllers.cem import CEM
from controllers.learned import LearnedModel
from mbmrl.adapters.base import Adapter
from mbmrl.adapters.bayes import Bayes
from mbmrl.adapters.none import NoAdapter
from mbmrl.dynamics import Dynamics
from mbmrl.episode import Log, Recorder, run_episodes
from mbmrl.loop import BadObservation, Clock, Loop, run
from mbmrl.tasks import SpeedTask
from mbmrl.types import CostFn, Plan, RolloutFn
from tests.dummy import DT, SPEC, Deaf, PointMass, SimPointMass, Unplugged

TARGET = 2.0  # of SpeedTask [m/s]


def exact_model() -> Dynamics:
    """The linear model of an undamaged point mass."""
    dynamics = Dynamics(SPEC, hidden=())
    with torch.no_grad():
        dynamics.weights[0].copy_(torch.tensor([[0.0, 0.0], [0.0, 0.0], [DT, 0.0]]))
    return dynamics


class Grid:
    """Tries every force on a grid, held for a while: no chance in it."""

    def __init__(self, horizon: int) -> None:
        self.candidates = torch.linspace(-1, 1, 401)[None, :, None, None].expand(1, -1, horizon, 1)

    def reset(self, num_robots: int = 1) -> None: ...

    def plan(self, obs: Tensor, rollout: RolloutFn, cost: CostFn) -> Plan:
        futures = rollout(obs, self.candidates)
        costs = cost(futures, self.candidates)
        i = int(costs.argmin())
        actions = self.candidates[:, i]
        valid = torch.ones(1, dtype=torch.bool)
        return Plan(actions[:, 0], actions, futures[:, i], costs[:, i], 0 * actions, valid)


def make_agent(adapter: type[Adapter] = NoAdapter, planner: Planner | None = None) -> Agent:
    """Its ridge, where it has one, trusts the data rather than the prior."""
    dynamics = exact_model()
    adapts = adapter(dynamics)
    if isinstance(adapts, Bayes):
        adapts.log_noise.data.fill_(-12.0)
    model = LearnedModel(dynamics, adapts, window=8, gate=False)
    return Agent(model, planner or Grid(1), SpeedTask(SPEC, TARGET))


def drive(robot: PointMass, agent: Agent, ticks: int, watch: Callable[[int], None] = id) -> Log:
    recorder = Recorder(agent.task)

    def sink(obs: np.ndarray, plan: Plan, sent: np.ndarray, took: float) -> None:
        recorder(obs, plan, sent, took)
        watch(len(recorder.rows))

    run(Loop(robot, agent, sink), ticks, Clock(DT, real_time=False))
    return recorder.log()


# --- a golden run ---------------------------------------------------------------------------


def test_with_the_exact_model_the_run_is_the_analytic_one() -> None:
    """One step ahead, the best force minimises ((v + dt·u) / V − 1)² + w·u²."""
    step = DT / TARGET
    at_target = torch.tensor([[[[TARGET, 0.0]]]])
    w = SpeedTask(SPEC, TARGET).cost(at_target, torch.ones(1, 1, 1, 1)).item()
    speeds, v = [], 0.0
    for _ in range(40):
        speeds.append(v)
        best = step * (1 - v / TARGET) / (step**2 + w)
        v += DT * float(np.clip(best, -1, 1))
    log = drive(PointMass(), make_agent(), 40)
    np.testing.assert_allclose(log.act[:11, 0, 0], 1.0)  # 1.1 m/s to go, all out
    np.testing.assert_allclose(log.obs[:, 0, 0], speeds, atol=0.002)
    np.testing.assert_allclose(log.gain[:, 0], np.array(speeds) / TARGET, atol=0.001)
    np.testing.assert_allclose(log.cross_track, np.nan)
    assert not log.fell.any()


def test_adapting_saves_a_robot_whose_motor_turns_round() -> None:
    """Reversed at tick 30: the exact model of before is now exactly wrong."""
    robots = {adapter: PointMass() for adapter in (NoAdapter, Bayes)}
    last = {}
    for adapter, robot in robots.items():

        def reverse(tick: int, robot: PointMass = robot) -> None:
            robot.gain = -1.0 if tick >= 30 else 1.0

        log = drive(robot, make_agent(adapter), 60, reverse)
        assert log.obs[29, 0, 0] == pytest.approx(TARGET, abs=0.2)
        last[adapter] = float(log.obs[-1, 0, 0])
    assert last[Bayes] == pytest.approx(TARGET, abs=0.1)
    assert last[NoAdapter] < TARGET / 2


# --- known mistakes ---------------------------------------------------------------------------


def test_known_mistake_5_nothing_adapted_survives_a_reset() -> None:
    """After a reset an agent plans exactly as a fresh one, at its first tick and later on."""
    cem = partial(CEM, SPEC.act_low, SPEC.act_high, SPEC.rest, num_samples=(24,))
    used, fresh = (make_agent(Bayes, cem()) for _ in range(2))
    broken = PointMass()
    broken.gain = -1.0
    drive(broken, used, 20)
    first, again = (drive(PointMass(), agent, 5) for agent in (fresh, used))
    np.testing.assert_array_equal(first.act, again.act)
    np.testing.assert_array_equal(first.cost, again.cost)


def test_a_reset_forgets_what_was_adapted_before_any_new_transition() -> None:
    agent = make_agent(Bayes)
    broken = PointMass()
    broken.gain = -1.0
    drive(broken, agent, 20)
    obs, acts = torch.zeros(1, 2), torch.ones(1, 1, 1, 1)
    adapted = agent.model.rollout()(obs, acts)
    agent.reset(np.zeros(2))
    assert adapted[..., 0].item() < 0.0
    assert agent.model.rollout()(obs, acts)[..., 0].item() == pytest.approx(DT)


def test_known_mistake_6_what_is_reported_is_what_was_planned_for() -> None:
    """The recorded cost is the very function that the planner minimises."""
    agent = make_agent()
    given = []
    plan = agent.planner.plan

    def spy(obs: Tensor, rollout: RolloutFn, cost: CostFn) -> Plan:
        given.append(cost)
        return plan(obs, rollout, cost)

    agent.planner.plan = spy  # type: ignore[method-assign]
    robot = SimPointMass()
    log = run_episodes([robot], agent, 1.0)
    assert set(given) == {agent.task.cost}
    obs, act = (torch.from_numpy(x).float()[:, :, None, None] for x in (log.obs, log.act))
    for k in range(10):
        np.testing.assert_array_equal(log.cost[k], given[0](obs[k], act[k])[:, 0])


def test_known_mistake_10_the_history_holds_what_was_really_sent() -> None:
    """The robot clips, and fills one array again and again."""
    seen = []

    class TooStrong:
        def reset(self, obs: np.ndarray) -> None: ...

        def forget(self, num_robots: int = 1) -> None: ...

        def observe(self, obs: np.ndarray, act: np.ndarray, next_obs: np.ndarray) -> None:
            seen.append((obs, act, next_obs))

        def act(self, obs: np.ndarray) -> Plan:
            action = torch.tensor([[5.0]])
            nothing = torch.zeros(1)
            return Plan(action, action[None], action[None], nothing, action[None], nothing > 0)

    def sink(*tick: object) -> None: ...

    run(Loop(PointMass(), TooStrong(), sink), 4, Clock(DT, real_time=False))
    assert [act.item() for _, act, _ in seen] == [1.0, 1.0, 1.0]
    assert [obs[0] for obs, _, _ in seen] == pytest.approx([0.0, 0.1, 0.2])
    assert [after[0] for _, _, after in seen] == pytest.approx([0.1, 0.2, 0.3])


# --- keeping time -----------------------------------------------------------------------------


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A wall clock that only moves when told, or when somebody sleeps."""
    now = [100.0]

    def sleep(seconds: float) -> None:
        assert seconds >= 0
        now[0] += seconds

    monkeypatch.setattr("mbmrl.loop.time.monotonic", lambda: now[0])
    monkeypatch.setattr("mbmrl.loop.time.sleep", sleep)
    return now


def test_deadlines_are_absolute(wall: list[float]) -> None:
    clock = Clock(0.1)
    for k in range(1, 6):
        wall[0] += 0.07
        clock.wait()
        assert wall[0] == pytest.approx(100 + 0.1 * k)
    assert clock.missed == 0


def test_whole_periods_are_skipped_and_never_made_up_for(wall: list[float]) -> None:
    clock = Clock(0.1)
    ticks = []
    for took in (0.05, 0.35, 0.01, 0.05):
        wall[0] += took
        clock.wait()
        ticks.append(wall[0] - 100)
    assert ticks == pytest.approx([0.1, 0.5, 0.6, 0.7])
    assert clock.missed == 3


def test_the_clock_starts_after_the_reset(wall: list[float]) -> None:
    class Slow(PointMass):
        def reset(self) -> None:
            wall[0] += 60.0
            super().reset()

    clock = Clock(0.1)
    run(Loop(Slow(), make_agent(), lambda *tick: None), 3, clock)
    assert clock.missed == 0
    assert wall[0] == pytest.approx(160.3)


def test_a_simulation_waits_for_nobody(wall: list[float]) -> None:
    clock = Clock(0.1, real_time=False)
    wall[0] += 5
    clock.wait()
    assert wall[0] == 105
    assert clock.missed == 0


# --- how it ends ------------------------------------------------------------------------------


def test_a_broken_sensor_ends_the_run_before_anything_is_planned_from_it() -> None:
    with pytest.raises(BadObservation, match="no finite vx"), Deaf() as robot:
        drive(robot, make_agent(), 20)
    assert robot.stopped == 1
    assert robot.sent == pytest.approx([1.0])


def test_a_reading_too_large_to_plan_with_is_none() -> None:
    class Far(PointMass):
        def read(self) -> np.ndarray:
            return np.array([0.0, 1e39])

    with pytest.raises(BadObservation, match="no finite pitch"):
        drive(Far(), make_agent(), 1)


def test_a_reading_of_the_wrong_length_is_named() -> None:
    class Short(PointMass):
        def read(self) -> np.ndarray:
            return np.zeros(1)

    with pytest.raises(BadObservation, match=r"\(1,\) numbers, its spec has 2"):
        drive(Short(), make_agent(), 1)


def test_a_robot_that_raises_is_stopped() -> None:
    with pytest.raises(ConnectionError, match="the cable is out"), Unplugged() as robot:
        drive(robot, make_agent(), 20)
    assert robot.stopped == 1
