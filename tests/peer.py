"""The other end of the controller's topics: a process of its own that listens, speaks and lies."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from mbmrl.ros import env
from robots.topics import Layout
from tests import sled

ROOT = Path(__file__).parent.parent
LONG = 30.0
"""No wait is longer [s]; none is expected to be near it."""
STALE = 6
"""States older than so many periods are stale: more than usual, for machines that are busy."""

try:
    env.prepare()
except env.NoRos as error:
    pytest.skip(str(error), allow_module_level=True)

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(env.CONFIG / "fastdds.xml")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rclpy.client import Client
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64MultiArray


@contextmanager
def own_domain() -> Iterator[int]:
    """A ROS domain that no other test on this machine uses now."""
    for domain in range(1, 100):
        lock: IO[str] = open(f"/tmp/mbmrl-test-domain-{domain}", "w")  # noqa: SIM115
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        try:
            yield domain
        finally:
            lock.close()
        return
    raise RuntimeError("every ROS domain is taken")


def eventually(what: Callable[[], bool], seconds: float = LONG) -> None:
    """Wait for what nobody announces."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


class Process:
    """A node in a process of its own."""

    def __init__(self, folder: Path, domain: int, *args: str) -> None:
        self.log = folder / f"{args[0]}-{time.monotonic_ns()}.log"
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "mbmrl", "ros", *args],
            cwd=ROOT,
            env={**os.environ, "ROS_DOMAIN_ID": str(domain), "PYTHONPATH": str(ROOT)},
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
        )

    @property
    def told(self) -> str:
        return self.log.read_text()

    def kill(self, number: int = signal.SIGKILL) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        return self.popen.wait(LONG)


class Peer:
    """A sled that publishes what it is told to, and keeps every command that reaches it."""

    def __init__(self, folder: Path, domain: int) -> None:
        self.folder, self.domain = folder, domain
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("peer", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.moved = threading.Condition()
        self.commands: list[tuple[float, np.ndarray]] = []
        self.diagnostics: dict[str, str] = {}
        self.node.create_subscription(
            Float64MultiArray, "/forward_command_controller/commands", self._command, 10
        )
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnose, 10)
        self.layout = Layout(sled.SPEC)
        kinds = {"joint_states": JointState, "imu": Imu, "odom": Odometry}
        self.out = {t: (k, self.node.create_publisher(k, t, 1)) for t, k in kinds.items()}
        self.obs = np.zeros(6)
        self.lie: Callable[[dict[str, Any]], None] = lambda messages: None
        self.speaking = threading.Event()
        self.ending = threading.Event()
        self.processes: list[Process] = []
        self.clients: dict[str, Client] = {}
        self.threads = [
            threading.Thread(target=f, daemon=True) for f in (self.executor.spin, self._speak)
        ]
        for thread in self.threads:
            thread.start()

    def start(self, *args: str) -> Process:
        process = Process(self.folder, self.domain, *args)
        self.processes.append(process)
        return process

    def controller(self, planner: str = "Pusher", *settings: str) -> Process:
        """With the checkpoint of the folder."""
        pairs = [
            f"checkpoint={self.folder / 'checkpoint'}",
            f"planner=tests.sled:{planner}",
            "task=speed",
            f"stale_periods={STALE:.1f}",
            *settings,
        ]
        return self.start("controller", *(x for pair in pairs for x in ("--set", pair)))

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        self.ending.set()
        self.speaking.set()
        self.executor.shutdown()
        for thread in self.threads:
            thread.join(LONG)
        self.node.destroy_node()  # in order, not whenever garbage is collected
        rclpy.shutdown(context=self.context)

    def wait(self, what: Callable[[], bool], seconds: float = LONG) -> None:
        with self.moved:
            if not self.moved.wait_for(what, seconds):
                logs = "\n".join(p.told for p in self.processes)
                raise AssertionError(f"waited {seconds} s for nothing; {self.diagnostics}\n{logs}")

    def next_command(self, like: object = None, seconds: float = LONG) -> tuple[float, np.ndarray]:
        """The first command from now on; or the first that is like this one."""
        first = len(self.commands)
        found: list[tuple[float, np.ndarray]] = []

        def come() -> bool:
            found[:] = [
                c for c in self.commands[first:] if like is None or np.allclose(c[1], like)
            ][:1]
            return bool(found)

        self.wait(come, seconds)
        return found[0]

    def next_diagnostics(self) -> dict[str, str]:
        with self.moved:
            self.diagnostics = {}
        self.wait(lambda: bool(self.diagnostics))
        return dict(self.diagnostics)

    def call(self, kind: type[Any], name: str, **fields: object) -> Any:
        new = name not in self.clients
        if new:
            self.clients[name] = self.node.create_client(kind, name)
        client = self.clients[name]
        assert client.wait_for_service(LONG), f"no service {name}"
        if new:  # whoever has yet to hear of a client answers in vain
            time.sleep(0.5)
        future = client.call_async(kind.Request(**fields))
        eventually(future.done)
        return future.result()

    def _command(self, message: Float64MultiArray) -> None:
        with self.moved:
            self.commands.append((time.monotonic(), np.array(message.data)))
            self.moved.notify_all()

    def _diagnose(self, message: DiagnosticArray) -> None:
        with self.moved:
            status = message.status[0]
            self.diagnostics = {v.key: v.value for v in status.values} | {"": status.message}
            self.moved.notify_all()

    def _speak(self) -> None:
        deadline = time.monotonic()
        while not self.ending.is_set():
            self.speaking.wait()
            deadline = max(deadline + sled.DT, time.monotonic() - sled.DT)
            messages = {topic: kind() for topic, (kind, _) in self.out.items()}
            self.layout.write(self.obs, messages)
            stamp = self.node.get_clock().now().to_msg()
            for message in messages.values():
                message.header.stamp = stamp
            self.lie(messages)
            for topic, message in messages.items():
                self.out[topic][1].publish(message)
            self.spoke = time.monotonic()
            time.sleep(max(0.0, deadline - time.monotonic()))
