"""The controller over ROS 2, in a process of its own, against simulated robots in this one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import mujoco
import numpy as np
import torch
from rich import box
from rich.markup import escape
from rich.table import Table

from mbmrl import registry
from mbmrl.bench import tick
from mbmrl.checkpoint import for_robot
from mbmrl.compose import make_agent
from mbmrl.conditions import Condition, parse, text
from mbmrl.episode import Recorder, run_episodes
from mbmrl.loop import settle
from mbmrl.ros import env
from mbmrl.spec import Field, RobotSpec
from mbmrl.tasks import usual
from mbmrl.types import Plan
from robots.sim import Leg, SimRobot

SECONDS = 60.0
"""Timed for so long [s]."""
ROBOTS = ("hexapod", "cheetah", "cart")
"""What is timed where nothing else is asked for."""
WAIT = 60.0
"""Longest wait for the controller [s]."""


class Cart(SimRobot):
    """A cart on a rail, controlled at 100 Hz."""

    name: ClassVar[str] = "cart"
    spec = RobotSpec(
        name="cart",
        dt=0.01,
        obs=(Field("vx", "m/s"), Field("pitch", "rad")),
        act=(Field("force", "N", -1, 1),),
    )
    torso = "cart"
    legs: ClassVar[dict[str, Leg]] = {"motor": Leg("cart", ("rail",))}

    @classmethod
    def build(cls) -> mujoco.MjModel:
        """One body."""
        return mujoco.MjModel.from_xml_string("""
        <mujoco>
          <option timestep="0.005" gravity="0 0 0"/>
          <worldbody>
            <body name="cart">
              <joint name="rail" type="slide" axis="1 0 0" damping="0.5"/>
              <geom type="sphere" size="0.1" mass="1"/>
            </body>
          </worldbody>
          <actuator><motor joint="rail"/></actuator>
        </mujoco>""")

    def place(self) -> np.ndarray:
        """At rest."""
        return np.zeros(0)

    def observe(self, qpos: np.ndarray, qvel: np.ndarray, carry: np.ndarray) -> np.ndarray:
        """Its speed; it never pitches."""
        return np.concatenate([qvel, np.zeros_like(qvel)], -1)

    def controls(self, carry: np.ndarray, acts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each force is held."""
        return np.repeat(acts, self.substeps, axis=1), np.zeros((*acts.shape[:2], 0))


@dataclass(frozen=True)
class RosSpeed:
    """The control loop over topics, in real time.

    Attributes:
        robot: its name.
        rate_hz: of control [Hz].
        seconds: timed for so long [s].
        ticks: in that time.
        missed: deadlines that were.
        period_error_ms_p99: how far periods were from what they should be, 99th percentile [ms].
        tick_ms_p50: reading, adapting, planning, sending [ms].
        tick_ms_p99: its 99th percentile [ms].
        state_to_command_ms_p50: from the robot's sending a state to its having the command [ms].
        state_to_command_ms_p99: its 99th percentile [ms].
    """

    robot: str
    rate_hz: float
    seconds: float
    ticks: int
    missed: int
    period_error_ms_p99: float
    tick_ms_p50: float
    tick_ms_p99: float
    state_to_command_ms_p50: float
    state_to_command_ms_p99: float

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class RosReturn:
    """One episode, in one process and over topics.

    Attributes:
        robot: its name.
        condition: what happened to it, and when.
        seed: of its initial state.
        in_process: −Σ cost · dt.
        over_ros: the same over topics.
    """

    robot: str
    condition: str
    seed: int
    in_process: float
    over_ros: float

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


class Desk:
    """A simulated robot's node in this process, and the controller's process.

    Args:
        robot: its name.
        settings: of the controller, NAME=VALUE.
        real_time: whether the robot keeps to the wall clock.
    """

    def __init__(self, robot: str, settings: Sequence[str] = (), *, real_time: bool = True) -> None:
        env.prepare()
        # nothing of this is for robots of this network to hear
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(env.CONFIG / "fastdds.xml")
        domain = 215 + os.getpid() % 17  # the highest ones there are, that hardly anybody uses
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.context import Context
        from rclpy.executors import MultiThreadedExecutor

        from mbmrl.ros.robot import SimulatedRobot

        class Watched(SimulatedRobot):
            """Tells what it does."""

            watch: Callable[[np.ndarray, np.ndarray], None] = staticmethod(lambda obs, act: None)
            latency: list[float]
            published = 0.0

            def _publish(self) -> None:
                self.published = time.perf_counter()
                super()._publish()

            def _take(self, message: Any) -> None:  # noqa: ANN401
                super()._take(message)
                if self.published:
                    self.latency.append(time.perf_counter() - self.published)
                    self.published = 0.0

            def step(self, act: np.ndarray) -> None:
                """One period."""
                self.watch(self.robot.read(), act)
                super().step(act)

        Watched.latency = []
        self.context = Context()
        flags = [f"robot:={robot}", f"real_time:={str(real_time).lower()}"]
        args = ["--ros-args", *(x for flag in flags for x in ("-p", flag))]
        rclpy.init(args=args, context=self.context, domain_id=domain)
        self.node = Watched(context=self.context)
        self.told: dict[str, str] = {}
        self.news = threading.Condition()
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._hear, 10)
        self.executor = MultiThreadedExecutor(num_threads=2, context=self.context)
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()
        pairs = [*settings, f"use_sim_time={str(not real_time).lower()}", "look_ahead=false"]
        sets = [x for pair in pairs for x in ("--set", pair)]
        settle()
        self.controller = subprocess.Popen(
            [sys.executable, "-m", "mbmrl", "ros", "controller", *sets],
            env={**os.environ, "ROS_DOMAIN_ID": str(domain)},
        )

    def close(self) -> None:
        """End it all."""
        import rclpy

        self.controller.terminate()
        self.controller.wait(WAIT)
        self.node.halt()
        self.executor.shutdown()
        self.thread.join()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def driving(self) -> dict[str, str]:
        """Wait for the next report of a controller that drives.

        Raises:
            RuntimeError: it does not.
        """
        with self.news:
            self.told = {}
            if not self.news.wait_for(lambda: self.told.get("state") == "driving", WAIT):
                raise RuntimeError(f"the controller does not drive: {self.told or 'it is silent'}")
            return dict(self.told)

    def _hear(self, message: Any) -> None:  # noqa: ANN401
        with self.news:
            self.told = {v.key: v.value for v in message.status[0].values}
            self.news.notify_all()


@contextmanager
def desk(robot: str, *settings: str, real_time: bool = True) -> Iterator[Desk]:
    """A :class:`Desk` that is cleared up in the end."""
    made = Desk(robot, settings, real_time=real_time)
    try:
        yield made
    finally:
        made.close()


def speed(robot: str, seconds: float = SECONDS) -> RosSpeed:
    """Time the default controller of a robot; ``cart`` is the one for 100 Hz."""
    with tempfile.TemporaryDirectory() as folder:
        if robot == "cart":
            tick.untrained(Cart.spec).save(Path(folder))
            robot = f"{__name__}:Cart"
            settings = [f"checkpoint={folder}", "task=speed", "horizon=8", "samples=[32]"]
        else:
            settings = [f"robot={robot}"]
        spec = registry.load("robots", robot).spec
        with desk(robot, *settings) as made:
            before = made.driving()
            made.node.latency.clear()
            time.sleep(seconds)
            after = made.driving()
            latency = 1e3 * np.percentile(made.node.latency, (50, 99))
    return RosSpeed(
        robot=spec.name,
        rate_hz=1 / spec.dt,
        seconds=seconds,
        ticks=int(after["ticks"]) - int(before["ticks"]),
        missed=int(after["missed deadlines"]) - int(before["missed deadlines"]),
        period_error_ms_p99=float(after["period error p99 [ms]"]),
        tick_ms_p50=float(after["tick p50 [ms]"]),
        tick_ms_p99=float(after["tick p99 [ms]"]),
        state_to_command_ms_p50=float(latency[0]),
        state_to_command_ms_p99=float(latency[1]),
    )


def returns(robot: str, condition: str, seconds: float, episodes: int) -> list[RosReturn]:
    """The same episodes in one process and over topics, where the simulation waits for commands.

    Args:
        robot: its name; one with a shipped checkpoint.
        condition: what happens to it, as text, with its onset.
        seconds: per episode [simulated s].
        episodes: of the seeds 0, 1, ….
    """
    cls = registry.load("robots", robot)
    perturb: Condition = (parse(condition),)
    ticks = round(seconds / cls.spec.dt)
    rows = []
    checkpoint = for_robot(cls.spec, None)
    with desk(robot, f"robot={robot}", real_time=False) as made:
        made.driving()
        for seed in range(episodes):
            agent = make_agent("default", [cls()], checkpoint, usual(cls.task))
            alone = run_episodes([cls(perturb, seed)], agent, seconds)
            recorder, whole = Recorder(agent.task), threading.Event()
            fresh = cls(perturb, seed)
            agent.task.reset(torch.zeros(1, cls.spec.num_obs))

            def watch(
                obs: np.ndarray,
                act: np.ndarray,
                recorder: Recorder = recorder,
                whole: threading.Event = whole,
                fresh: SimRobot = fresh,
            ) -> None:
                if made.node.robot is fresh and not whole.is_set():
                    recorder(obs, NO_PLAN, act, 0.0)
                    if len(recorder.rows) == ticks:
                        whole.set()

            made.node.watch = watch
            made.node.restart(fresh)
            if not whole.wait(WAIT + 10 * seconds):
                raise RuntimeError("the episode does not end")
            dt = cls.spec.dt
            rows.append(
                RosReturn(
                    robot=robot,
                    condition=text(perturb, timing=True),
                    seed=seed,
                    in_process=-float(alone.cost.sum()) * dt,
                    over_ros=-float(recorder.log().cost.sum()) * dt,
                )
            )
    return rows


_one = torch.zeros(1, 1)
NO_PLAN = Plan(_one, _one[None], _one[None], _one[0], _one[None], _one[0] > 0)
"""Whoever looks at the robot alone knows of no plan."""


def ratio(rows: Sequence[RosReturn]) -> tuple[float, float, float]:
    """Return over topics / in one process, of the means, and its 95 % interval (bootstrap)."""
    pairs = np.array([(r.over_ros, r.in_process) for r in rows])
    rng = np.random.default_rng(0)
    draws = pairs[rng.integers(0, len(pairs), (4000, len(pairs)))].mean(1)
    low, high = np.percentile(draws[:, 0] / draws[:, 1], (2.5, 97.5))
    over, alone = pairs.mean(0)
    return float(over / alone), float(low), float(high)


def table(speeds: list[RosSpeed]) -> Table:
    """One line a robot."""
    shown = Table(title="over ROS 2, two processes", title_justify="left", box=box.SIMPLE_HEAD)
    columns = ["robot", "rate [Hz]", "missed of ticks", "period error p99 [ms]"]
    for column in [*columns, "tick p50 / p99 [ms]", "state to command p50 / p99 [ms]"]:
        shown.add_column(escape(column), justify="left" if column == "robot" else "right")
    for s in speeds:
        shown.add_row(
            s.robot,
            f"{s.rate_hz:.0f}",
            f"{s.missed} of {s.ticks + s.missed}",
            f"{s.period_error_ms_p99:.2f}",
            f"{s.tick_ms_p50:.1f} / {s.tick_ms_p99:.1f}",
            f"{s.state_to_command_ms_p50:.1f} / {s.state_to_command_ms_p99:.1f}",
        )
    return shown
