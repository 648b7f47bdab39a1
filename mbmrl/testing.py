"""Does a robot's driver keep the contract? For ``mbmrl robot check``, and for its author's pytest.

>>> from mbmrl.testing import check_robot
>>> def test_my_driver():
...     check_robot(MyRobot)
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from mbmrl import doubts
from mbmrl.loop import Clock
from mbmrl.spec import RobotSpec
from robots.base import Robot, interruptible, undisturbed
from robots.shield import around_rest
from robots.sim import SimRobot

SMALL = 0.02
"""Without leave to move, actions stay within this share of the way from the safe one to limits."""
BEYOND = 0.1
"""So much of its range beyond its limits goes an action that is to be clamped."""
TICKS = 60
"""Control periods that readings and writings are timed over."""
PATIENCE = 2.0
"""So long a call may take before it is given up [s]."""
CONNECTING = 30.0
"""So long connecting and resetting may take [s]."""
PULL = 20.0
"""So long the user has for pulling the plug [s]."""


T = TypeVar("T")


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        what: was checked.
        result: ``"pass"``, ``"fail"``, ``"warn"`` or ``"skip"``.
        detail: what was seen.
    """

    what: str
    result: str
    detail: str = ""


def check_robot(
    robot: type[Robot],
    *,
    allow_motion: bool = False,
    unplug: Callable[[Robot], None] | None = None,
) -> None:
    """Raise AssertionError, with every failed check, unless the driver keeps the contract.

    Args:
        robot: its class.
        allow_motion: whether actions may leave a small range around the safe one.
        unplug: does to a connected robot what a pulled cable does.
    """
    failed = [f for f in examine(robot, allow_motion, unplug) if f.result == "fail"]
    assert not failed, "\n".join(f"{f.what}: {f.detail}" for f in failed)


def examine(
    robot: type[Robot],
    allow_motion: bool = False,
    unplug: Callable[[Robot], None] | None = None,
) -> list[Finding]:
    """Every check that there is, in the order of the report.

    The robot is stopped in the end, by Ctrl-C, SIGTERM and SIGHUP too.
    """
    checks = _Checks(robot, allow_motion, unplug)
    worker = threading.Thread(target=checks.run, daemon=True)
    with interruptible():
        try:
            worker.start()
            while worker.is_alive():
                worker.join(0.02)
                what, since, patience = checks.doing
                if time.monotonic() - since > patience and worker.is_alive():
                    checks.add(what, "fail", f"did not return within {patience:g} s; gave up")
                    break
        finally:
            with undisturbed():
                checks.end(worker)
    return list(checks.findings)


def report(name: str, findings: list[Finding]) -> Table:
    """The findings as a table."""
    count = {r: sum(f.result == r for f in findings) for r in ("fail", "warn", "skip", "pass")}
    told = ", ".join(f"{n} {r}" for r, n in count.items() if n)
    table = Table(title=f"{name}: {told}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column("checked")
    table.add_column("seen", overflow="fold")
    colour = {"fail": "red", "warn": "yellow", "skip": "dim", "pass": "green"}
    for f in findings:
        table.add_row(f"[{colour[f.result]}]{f.result}[/]", escape(f.what), escape(f.detail))
    return table


def _stop_within(robot: Robot, seconds: float) -> str:
    """Stop from a thread of its own; what went wrong, if anything did."""
    problems: list[str] = []

    def stop() -> None:
        try:
            robot.stop()
        except BaseException as error:  # it is somebody else's code: whatever it raises
            problems.append(f"raised {error!r}")

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return f"did not return within {seconds:g} s"
    return "".join(problems)


class _Failed(Exception):
    """What was found makes further checks senseless."""


class _Checks:
    """The checks, run in a thread that may be given up.

    Attributes:
        doing: what is being done, since when [s], and how long it may take [s].
        made: the robot, once there is one.
        over: nothing more is to be done.
    """

    def __init__(
        self, cls: type[Robot], allow_motion: bool, unplug: Callable[[Robot], None] | None
    ) -> None:
        self.cls, self.allow_motion, self.unplug = cls, allow_motion, unplug
        self.findings: list[Finding] = []
        self.made: Robot | None = None
        self.over = threading.Event()
        self.doing = ("the spec", time.monotonic(), PATIENCE)

    def add(self, what: str, result: str, detail: str = "") -> None:
        """One result."""
        self.findings.append(Finding(what, result, detail))

    def judge(self, what: str, problem: str, good: str = "") -> None:
        """Passed where there is no problem."""
        self.add(what, "fail" if problem else "pass", problem or good)

    def run(self) -> None:
        """All of them, until one makes the rest senseless."""
        try:
            self._spec()
            robot = self.made = self._call("making one, disconnected", self.cls)
            self._call("stop() before connect()", robot.stop)
            self.add("stop() before connect()", "pass")
            self._connect(robot, "connect()")
            self.add("connect()", "pass")
            seen, sent = self._drive(robot)
            self._readings(robot.spec, seen, sent)
            self._limits(robot)
            self._stopping(robot)
            self._unplugging(robot)
        except _Failed:
            self.add("the rest", "skip", "not checked")

    def end(self, worker: threading.Thread) -> None:
        """Stop the robot from this thread, whatever the worker is in or hangs in."""
        self.over.set()
        busy = worker.is_alive()
        if self.made is not None:
            _stop_within(self.made, PATIENCE)
        if busy and self.made is not None:  # what it was in may have undone that
            worker.join(PATIENCE)
            _stop_within(self.made, PATIENCE)

    def _call(self, what: str, call: Callable[..., T], *args: object, wait: float = PATIENCE) -> T:
        """Somebody else's code: timed, and whatever it raises is a finding."""
        if self.over.is_set():
            raise _Failed
        self.doing = (what, time.monotonic(), wait)
        try:
            return call(*args)
        except BaseException as error:
            self.add(what, "fail", f"raised {error!r}")
            raise _Failed from error
        finally:
            self.doing = ("checking", time.monotonic(), math.inf)

    # --- the checks, in order -----------------------------------------------------------------

    def _spec(self) -> None:
        spec = getattr(self.cls, "spec", None)
        if not isinstance(spec, RobotSpec):
            self.add("the spec", "fail", f"{self.cls.__name__}.spec is {spec!r}, no RobotSpec")
            raise _Failed
        problem = "" if spec.obs and spec.act else "it has no obs or no act fields"
        if RobotSpec.from_json(spec.to_json()) != spec:
            problem = "it does not survive to_json and from_json"
        if spec.stale_after < spec.dt:
            problem = f"stale_after of {spec.stale_after:g} s is shorter than dt"
        size = f"{spec.num_obs} obs, {spec.num_act} act, {1 / spec.dt:g} Hz"
        self.judge("the spec, readable on the class", problem, size)
        if not spec.obs or not spec.act:
            raise _Failed
        self._doubts("the spec's units and safe action", doubts.of_spec(spec))

    def _connect(self, robot: Robot, what: str) -> None:
        self._call(what, robot.connect, wait=CONNECTING)
        if self.allow_motion:
            self._call("reset()", robot.reset, wait=CONNECTING)

    def _read(self, robot: Robot) -> np.ndarray:
        obs = np.array(self._call("read()", robot.read), dtype=float)
        if obs.shape != (robot.spec.num_obs,):
            told = f"an array of {obs.shape}, the spec names {robot.spec.num_obs} fields"
            self.add("read() returns", "fail", told)
            raise _Failed
        return obs

    def _write(self, robot: Robot, act: np.ndarray) -> np.ndarray:
        sent = self._call("write()", robot.write, act.copy())
        if sent is None or np.shape(sent) != act.shape:
            told = f"{sent!r}, not the {len(act)} numbers that were really sent"
            self.add("write() returns", "fail", told)
            raise _Failed
        return np.array(sent, dtype=float)

    def _drive(self, robot: Robot) -> tuple[np.ndarray, np.ndarray]:
        """Read and write for a while; returns what was read and sent."""
        spec, simulated = robot.spec, isinstance(robot, SimRobot)
        clock = Clock(spec.dt, real_time=not simulated)
        seen, asked, sent, ages, stamps, took = [], [], [], [], [], []
        for k in range(TICKS):
            start = time.perf_counter()
            seen.append(self._read(robot))
            middle = time.perf_counter()
            if robot.stamp is not None:
                stamps.append(robot.stamp)
                ages.append(time.monotonic() - robot.stamp)
            asked.append(wiggle(spec, k))
            written = time.perf_counter()
            sent.append(self._write(robot, asked[-1]))
            took.append((middle - start, time.perf_counter() - written))
            clock.wait()
        for name, times in zip(("read()", "write()"), np.array(took).T, strict=True):
            self._timing(name, times, spec.dt, simulated)
        self._freshness(spec, np.array(seen), np.array(stamps), np.array(ages), simulated)
        self._returned(spec, np.array(asked), np.array(sent))
        return np.array(seen), np.array(sent)

    def _timing(self, name: str, times: np.ndarray, dt: float, simulated: bool) -> None:
        p50, p99 = 1e3 * np.percentile(times, (50, 99))
        told = f"p50 {p50:.2f} ms, p99 {p99:.2f} ms; the period is {1e3 * dt:.0f} ms"
        late = 0.0 if simulated else p99 / (1e3 * dt)  # a simulation's time waits
        self.add(f"{name} takes", "fail" if late > 1 else "warn" if late > 0.5 else "pass", told)

    def _freshness(
        self,
        spec: RobotSpec,
        seen: np.ndarray,
        stamps: np.ndarray,
        ages: np.ndarray,
        simulated: bool,
    ) -> None:
        same = int((seen[1:] == seen[:-1]).all(1).sum())
        stuck = f"all {TICKS} are the same" if same == TICKS - 1 else ""
        self.judge("readings are new", stuck, f"{same} of {TICKS} are the one before again")
        if not len(stamps):
            told = "the simulation's own clock" if simulated else "the driver gives none"
            self.add("stamps", "skip", told)
            return
        problem = ""
        if (np.diff(stamps) < 0).any():
            problem = "they go back"
        elif len(stamps) < TICKS:
            problem = f"only {len(stamps)} of {TICKS} readings have one"
        elif ages.min() < -1e-3:
            problem = f"{-ages.min():.3g} s in the future: they are not of time.monotonic()"
        elif np.ptp(stamps) == 0:
            problem = "they never move on"
        elif ages.max() > spec.stale_after:
            limit = f"{spec.stale_after:g} s of stale_after"
            problem = f"a reading is {ages.max():.3g} s old, more than the {limit}"
        elif ages.max() > 1e3:
            problem = f"they are {ages.max():.3g} s old: they are not of time.monotonic()"
        self.judge("stamps", problem, f"readings are {1e3 * ages.max():.1f} ms old at most")

    def _returned(self, spec: RobotSpec, asked: np.ndarray, sent: np.ndarray) -> None:
        problem = _outside(spec, sent)
        step = 2e-3 * (spec.act_high - spec.act_low)  # motors take whole steps
        same = (np.abs(asked - sent) <= step).all()
        if not problem and not same and (np.abs(np.sort(asked) - np.sort(sent)) <= step).all():
            problem = "the numbers that it was given, in another order"
        if problem or same:
            self.judge("write() returns", problem, "what it was given")
        else:
            self.add("write() returns", "warn", "another action than it was given, within limits")

    def _readings(self, spec: RobotSpec, seen: np.ndarray, sent: np.ndarray) -> None:
        self._doubts("readings are plausible", doubts.of_readings(spec, seen))
        names = [f.name for f in (*spec.obs, *spec.act)]
        before = np.concatenate([seen, sent], 1)[:-1]
        wrong = []
        for field, row in spec.known.items():
            expected = sum(c * before[:, names.index(source)] for source, c in row.items())
            if not np.allclose(seen[1:, names.index(field)], expected, rtol=1e-3, atol=1e-3):
                wrong.append(field)
        if spec.known:
            problem = f"{', '.join(wrong)} does not do what the spec knows of it" if wrong else ""
            self.judge("known fields", problem)

    def _limits(self, robot: Robot) -> None:
        """What is out of limits or no number goes to the driver only where motion is allowed."""
        if not self.allow_motion:
            for what in ("an action beyond its limits", "an action that is no number"):
                self.add(what, "skip", "needs leave to move: --allow-motion")
            return
        spec, problem = robot.spec, ""
        room = BEYOND * (spec.act_high - spec.act_low)
        for act in (spec.act_high + room, spec.act_low - room):
            problem = problem or _outside(spec, self._write(robot, act)[None])
            time.sleep(0.0 if isinstance(robot, SimRobot) else spec.dt)
        self.judge("an action beyond its limits", problem, "clamped")
        self.doing = ("write(nan)", time.monotonic(), PATIENCE)
        try:
            sent = np.array(robot.write(np.full(spec.num_act, np.nan)), dtype=float)
            good = np.isfinite(sent).all()
            self.judge("an action that is no number", "" if good else "was sent", "replaced")
        except Exception as error:
            self.add("an action that is no number", "pass", f"refused: {error}")
        self._write(robot, spec.rest)

    def _stopping(self, robot: Robot) -> None:
        start = time.perf_counter()
        self._call("stop()", robot.stop)
        self.add("stop()", "pass", f"took {1e3 * (time.perf_counter() - start):.1f} ms")
        self._call("stop() again", robot.stop)
        self.add("stop() again", "pass")
        self._connect(robot, "connect() after stop()")
        problems: list[str] = []
        stopper = threading.Thread(
            target=lambda: problems.append(_stop_within(robot, PATIENCE)), daemon=True
        )
        clock = Clock(robot.spec.dt, real_time=not isinstance(robot, SimRobot))
        self.doing = ("read() and write() while stop() is called", time.monotonic(), 2 * PATIENCE)
        for k in range(8):
            if k == 4:
                stopper.start()
            try:
                robot.read()
                robot.write(robot.spec.rest)
            except Exception:
                break  # it was stopped: to say so is right
            clock.wait()
        stopper.join(2 * PATIENCE)
        self.judge("stop() from another thread", problems[0] if problems else "is still at it")
        self._call("stop() again", robot.stop)
        self._connect(robot, "connect() after stop()")
        finite = np.isfinite(self._read(robot)).all()
        self.judge("connect() after stop()", "" if finite else "reads numbers that are none")

    def _unplugging(self, robot: Robot) -> None:
        what = "read() or write() without the robot"
        if self.unplug is None:
            self.add(what, "skip", "nobody pulled the plug: --unplug")
            return
        self._call("pulling the plug", self.unplug, robot, wait=PULL)
        self.doing = (what, time.monotonic(), 2 * PATIENCE)
        end, error = time.monotonic() + PATIENCE, None
        while error is None and time.monotonic() < end:
            try:
                robot.read()
                robot.write(robot.spec.rest)
                time.sleep(robot.spec.dt)
            except Exception as raised:
                error = raised
        if error is None:
            self.add(what, "fail", f"raised nothing within {PATIENCE:g} s: nobody would notice")
        else:
            self.add(what, "pass" if str(error) else "warn", f"raised {error!r}")
        self._call("stop() without the robot", robot.stop)
        self.add("stop() without the robot", "pass")

    def _doubts(self, what: str, found: list[doubts.Doubt]) -> None:
        """Those that are sure fail; the others warn."""
        for doubt in found:
            self.add(what, "fail" if doubt.sure else "warn", doubt.text)
        if not found:
            self.add(what, "pass")


def wiggle(spec: RobotSpec, tick: int) -> np.ndarray:
    """An action near the safe one, of another size for each joint, that changes with time (u,)."""
    low, high = around_rest(spec, SMALL)
    rest = np.clip(spec.rest, spec.act_low, spec.act_high)
    size = np.linspace(0.5, 1.0, spec.num_act)
    wave = size * np.sin(2 * math.pi * tick / 20)
    return rest + np.where(wave > 0, high - rest, rest - low) * wave


def _outside(spec: RobotSpec, sent: np.ndarray) -> str:
    """What is wrong with actions that are said to have been sent."""
    if not np.isfinite(sent).all():
        return "numbers that are not finite"
    slack = 1e-6 * (spec.act_high - spec.act_low)
    out = (sent < spec.act_low - slack) | (sent > spec.act_high + slack)
    names = [f.name for i, f in enumerate(spec.act) if out[:, i].any()]
    return f"{', '.join(names)} beyond the limits of the spec" if names else ""
