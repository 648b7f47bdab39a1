"""The ROS 2 nodes over real DDS, each in a process of its own.

``MBMRL_ROS_REPEATS=20`` repeats every safety test so often.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mbmrl.bench import ros
from mbmrl.ros import env
from tests import sled
from tests.peer import LONG, STALE, Peer, eventually, own_domain
from tests.sled import DT, PUSH, SAFE

from lifecycle_msgs.msg import Transition  # isort: skip, needs what tests.peer prepares
from geometry_msgs.msg import Twist
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

REPEATS = int(os.environ.get("MBMRL_ROS_REPEATS", "2"))
SLACK = 0.5
"""What a busy machine may add to a deadline [s]; deadlines are counted in commands too."""
CONTROLLER = "/mbmrl_controller"
COMMANDS = "/forward_command_controller/commands"
repeated = pytest.mark.parametrize("repeat", range(REPEATS))


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    sled.save(tmp_path / "checkpoint")
    with own_domain() as domain:
        peer = Peer(tmp_path, domain)
        peer.speaking.set()
        try:
            yield peer
        finally:
            peer.close()
            assert all(np.isfinite(c).all() for _, c in peer.commands)  # always


def test_it_drives_and_tells_how(peer: Peer) -> None:
    process = peer.controller("Tiny")
    peer.next_command()
    peer.wait(lambda: len(peer.commands) > 60)
    told = peer.next_diagnostics()
    assert told["state"] == "driving"
    assert 0 < float(told["tick p50 [ms]"]) < 1e3 * DT
    assert float(told["pred_error_prior"]) >= 0
    assert {len(c) for _, c in peer.commands} == {2}
    assert peer.call(SetBool, f"{CONTROLLER}/adapt", data=False).success
    assert peer.next_diagnostics()["adapting"] == "False"
    value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=3)
    answer = peer.call(
        SetParameters,
        f"{CONTROLLER}/set_parameters",
        parameters=[Parameter(name="seed", value=value)],
    )
    assert "deactivate and clean it up first" in answer.results[0].reason
    assert process.kill(signal.SIGTERM) == 0


def test_states_are_matched_by_name_in_any_order(peer: Peer) -> None:
    """A joint more, and all of them in another order every time."""

    def shuffle(messages: dict[str, Any]) -> None:
        state = messages["joint_states"]
        state.name = [*state.name, "gripper"]
        state.position, state.velocity = [*state.position, 9.0], [*state.velocity, 9.0]
        order = np.random.default_rng(time.monotonic_ns()).permutation(3)
        for part in ("name", "position", "velocity"):
            values = list(getattr(state, part))
            setattr(state, part, [values[i] for i in order])

    peer.lie = shuffle
    peer.controller("Tiny", "position_max=[1.0]")
    peer.next_command()
    peer.wait(lambda: len(peer.commands) > 30)
    assert peer.next_diagnostics()["state"] == "driving"


def test_the_plan_can_be_watched(peer: Peer) -> None:
    """A robot without a pose shows its actions: the horizon, a period apart, for its joints."""
    plans: list[JointTrajectory] = []
    peer.node.create_subscription(JointTrajectory, f"{CONTROLLER}/plan", plans.append, 1)
    peer.controller("Tiny")
    eventually(lambda: len(plans) > 3)
    plan = plans[-1]
    assert list(plan.joint_names) == ["torque_a", "torque_b"]
    times = [p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in plan.points]
    np.testing.assert_allclose(times, DT * np.arange(len(times)), atol=1e-6)
    efforts = np.array([p.effort for p in plan.points])
    assert efforts.shape == (len(times), 2) and len(times) > 1
    assert np.isfinite(efforts).all()


def test_a_twist_steers_and_a_trajectory_comes_out(peer: Peer) -> None:
    """An old twist is none."""
    seen: list[JointTrajectory] = []
    plans: list[JointTrajectory] = []
    topic = "/forward_command_controller/joint_trajectory"
    peer.node.create_subscription(JointTrajectory, topic, seen.append, 1)
    peer.node.create_subscription(JointTrajectory, f"{CONTROLLER}/plan", plans.append, 1)
    twists = peer.node.create_publisher(Twist, "/cmd_vel", 1)
    settings = ("task=twist", "trajectory=true", "interface=velocity", "max_speed=0.5")
    peer.controller("Tiny", *settings, "joints=[b,a]", "actions=[torque_a=a,torque_b=b]")
    peer.wait(lambda: peer.diagnostics.get("state") == "driving")
    assert peer.diagnostics["wanted vx"] == "0"

    def steered() -> bool:
        twist = Twist()
        twist.linear.x = 0.25
        twists.publish(twist)
        return peer.diagnostics["wanted vx"] == "0.25"

    eventually(steered)
    peer.wait(lambda: peer.diagnostics["wanted vx"] == "0")
    eventually(lambda: bool(plans))
    for message in (seen[-1], plans[-1]):
        assert message.joint_names == ["b", "a"]
        assert len(message.points[0].velocities) == 2 and not message.points[0].effort


# --- safety -----------------------------------------------------------------------------------


def test_a_stale_state_brings_the_safe_command_and_a_fresh_one_recovers(peer: Peer) -> None:
    process = peer.controller()
    peer.next_command(PUSH)
    for topic in (*peer.out, "all"):
        for _ in range(REPEATS):
            silent = list(peer.out) if topic == "all" else [topic]

            def silence(messages: dict[str, Any], silent: list[str] = silent) -> None:
                for name in silent:
                    del messages[name]

            peer.lie = silence
            since, first = time.monotonic(), len(peer.commands)
            at, _ = peer.next_command(SAFE)
            assert at - since < (STALE + 2) * DT + SLACK  # the last sample, and one period
            pushes = [np.allclose(c, PUSH) for _, c in peer.commands[first:]].index(False)
            assert pushes <= STALE + 2
            first = len(peer.commands)
            peer.wait(lambda first=first: len(peer.commands) > first + 3)  # type: ignore[misc]
            assert all(np.allclose(c, SAFE) for _, c in peer.commands[first:])
            peer.lie = lambda messages: None
            since = time.monotonic()
            at, _ = peer.next_command(PUSH)
            assert at - since < 3 * DT + SLACK
    told = peer.next_diagnostics()
    assert int(told["gaps"]) >= 4 * REPEATS
    assert process.told.count("s old") <= int(told["gaps"])  # throttled: not one a period


def test_nan_in_is_counted_and_only_many_in_a_row_bring_the_safe_command(peer: Peer) -> None:
    def poison(messages: dict[str, Any]) -> None:
        messages["joint_states"].position = [np.nan, np.inf]

    def empty(messages: dict[str, Any]) -> None:
        messages["joint_states"].velocity = []

    peer.controller("Pusher", "max_bad=4")
    peer.next_command(PUSH)
    for lie in (poison, empty):
        for _ in range(REPEATS):
            first = len(peer.commands)
            left = [1]

            def once(messages: dict[str, Any], lie: Any = lie, left: list[int] = left) -> None:
                if left[0] > 0:
                    left[0] -= 1
                    lie(messages)

            peer.lie = once
            peer.wait(lambda first=first: len(peer.commands) > first + 8)  # type: ignore[misc]
            assert all(np.allclose(c, PUSH) for _, c in peer.commands[first:])
            peer.lie = lie
            peer.next_command(SAFE)
            peer.lie = lambda messages: None
            peer.next_command(PUSH)
    assert int(peer.next_diagnostics()["bad states and plans"]) >= 2 * REPEATS * (1 + 4)


def test_nan_from_the_planner_is_never_sent(peer: Peer) -> None:
    peer.controller("Poisoned", "max_bad=4")
    for _ in range(REPEATS):
        peer.next_command(PUSH)
        peer.next_command(SAFE)
    sent = np.array([c for _, c in peer.commands])
    assert np.isfinite(sent).all()
    assert int(peer.next_diagnostics()["bad states and plans"]) >= REPEATS * 8


def test_rates_and_ranges_hold_always(peer: Peer) -> None:
    rate = 2.0
    peer.controller("Pusher", f"command_rate=[{rate}]", "command_max=[0.6]", "command_min=[-0.3]")
    for _ in range(REPEATS):
        peer.next_command((0.6, PUSH[1]))
        peer.speaking.clear()
        peer.next_command(SAFE)
        peer.speaking.set()
    sent = np.array([c for _, c in peer.commands])
    assert np.abs(np.diff(sent, axis=0)).max() <= rate * DT + 1e-9
    assert sent.max() <= 0.6 and sent.min() >= -0.3


def test_a_joint_outside_its_envelope_brings_the_safe_command(peer: Peer) -> None:
    process = peer.controller(
        "Pusher",
        *("position_max=[1.0]", "position_min=[-1.0]", "velocity_max=[2.0]", "effort_max=[3.0]"),
        *("joints=[a,b]", "actions=[torque_a=a,torque_b=b]"),
    )
    outside = [("position", 1.5), ("position", -1.5), ("velocity", -2.5), ("effort", 3.5)]
    for part, value in outside * REPEATS:

        def break_out(messages: dict[str, Any], part: str = part, value: float = value) -> None:
            setattr(messages["joint_states"], part, [0.0, value])

        peer.next_command(PUSH)
        peer.lie = break_out
        peer.next_command(SAFE)
        assert f"the {part} of b is {value}" in peer.next_diagnostics()["state"]
        peer.lie = lambda messages: None
    assert "over its limit" in process.told


def settled(peer: Peer) -> np.ndarray:
    """The last command there is, once no more come."""
    count = -1
    while count != len(peer.commands):
        count = len(peer.commands)
        time.sleep(0.2)
    return peer.commands[-1][1]


@repeated
def test_a_signal_ends_in_a_stop_that_is_received(peer: Peer, repeat: int) -> None:
    process = peer.controller()
    peer.next_command(PUSH)
    assert process.kill((signal.SIGTERM, signal.SIGINT, signal.SIGHUP)[repeat % 3]) == 0
    peer.wait(lambda: bool(np.allclose(peer.commands[-1][1], SAFE)), 2.0)
    np.testing.assert_allclose(settled(peer), SAFE)


@repeated
def test_an_exception_ends_in_a_stop_that_is_received(peer: Peer, repeat: int) -> None:
    process = peer.controller("Raising")
    peer.next_command(PUSH)
    assert process.popen.wait(LONG) == 1
    peer.wait(lambda: bool(np.allclose(peer.commands[-1][1], SAFE)), 2.0)
    assert "KeyError: 'a bug'" in process.told


def change(peer: Peer, what: int) -> bool:
    answer = peer.call(ChangeState, f"{CONTROLLER}/change_state", transition=Transition(id=what))
    return bool(answer.success)


def test_deactivating_stops_and_activating_goes_on(peer: Peer) -> None:
    peer.controller("Pusher", "autostart=false")
    assert change(peer, Transition.TRANSITION_CONFIGURE)
    for _ in range(REPEATS):
        assert change(peer, Transition.TRANSITION_ACTIVATE)
        peer.next_command(PUSH)
        assert change(peer, Transition.TRANSITION_DEACTIVATE)
        np.testing.assert_allclose(settled(peer), SAFE)
    assert change(peer, Transition.TRANSITION_CLEANUP)
    assert change(peer, Transition.TRANSITION_CONFIGURE)


def test_a_stop_is_latched(peer: Peer) -> None:
    peer.controller()
    peer.next_command(PUSH)
    for _ in range(REPEATS):
        assert peer.call(Trigger, f"{CONTROLLER}/stop").success
        peer.next_command(SAFE)
        first = len(peer.commands)
        peer.wait(lambda first=first: len(peer.commands) > first + 20)  # type: ignore[misc]
        assert all(np.allclose(c, SAFE) for _, c in peer.commands[first + 1 :])
        assert peer.call(Trigger, f"{CONTROLLER}/reset").success
        peer.next_command(PUSH)


def test_a_stop_holds_until_it_is_released_whatever_becomes_active(peer: Peer) -> None:
    peer.controller("Pusher", "autostart=false")
    assert peer.call(Trigger, f"{CONTROLLER}/stop").success  # before there is anything to stop
    assert change(peer, Transition.TRANSITION_CONFIGURE)
    for _ in range(REPEATS):
        assert change(peer, Transition.TRANSITION_ACTIVATE)
        first = len(peer.commands)
        peer.wait(lambda first=first: len(peer.commands) > first + 10)  # type: ignore[misc]
        assert all(np.allclose(c, SAFE) for _, c in peer.commands[first:])
        assert change(peer, Transition.TRANSITION_DEACTIVATE)
    assert change(peer, Transition.TRANSITION_ACTIVATE)
    assert peer.call(Trigger, f"{CONTROLLER}/reset").success
    peer.next_command(PUSH)


def test_a_transition_that_there_is_not_is_refused_and_the_node_lives(peer: Peer) -> None:
    process = peer.controller()
    peer.next_command(PUSH)
    for what in (Transition.TRANSITION_CLEANUP, Transition.TRANSITION_CONFIGURE, 99):
        assert not change(peer, what)
    assert peer.call(Trigger, f"{CONTROLLER}/stop").success
    peer.next_command(SAFE)
    assert "Traceback" not in process.told


def test_who_was_shut_down_leaves_the_robot_to_others(peer: Peer) -> None:
    peer.controller("Pusher", "autostart=false")
    assert change(peer, Transition.TRANSITION_CONFIGURE)
    eventually(lambda: peer.node.count_publishers(COMMANDS) == 1)
    assert change(peer, Transition.TRANSITION_INACTIVE_SHUTDOWN)
    eventually(lambda: peer.node.count_publishers(COMMANDS) == 0)


def test_commands_that_nobody_hears_are_told(peer: Peer) -> None:
    peer.controller("Pusher", "command_topic=/typo/commands")
    peer.wait(lambda: peer.diagnostics.get("") == "nobody listens to /typo/commands")


def test_states_that_come_too_seldom_are_told(peer: Peer) -> None:
    spoken: list[object] = []

    def half(messages: dict[str, Any]) -> None:
        spoken.append(messages)
        if len(spoken) % 2:
            del messages["odom"]

    peer.controller()
    peer.next_command(PUSH)
    peer.wait(lambda: peer.diagnostics.get("") == "driving")
    peer.lie = half
    peer.wait(lambda: "slower than one in" in peer.diagnostics.get("", ""))
    peer.lie = lambda messages: None
    peer.wait(lambda: peer.diagnostics.get("") == "driving")


def test_where_simulated_time_stands_still_the_robot_is_stopped(peer: Peer) -> None:
    clock = peer.node.create_publisher(Clock, "/clock", 1)
    ticking = threading.Event()
    ticking.set()

    def tick(messages: dict[str, Any]) -> None:
        if ticking.is_set():
            clock.publish(Clock(clock=messages["imu"].header.stamp))

    peer.lie = tick
    peer.controller("Pusher", "use_sim_time=true")
    for _ in range(REPEATS):
        peer.next_command(PUSH)
        ticking.clear()
        peer.next_command(SAFE)
        assert "simulated time stands still" in peer.next_diagnostics()["state"]
        ticking.set()


def test_without_a_clock_simulated_time_is_refused(peer: Peer) -> None:
    process = peer.controller("Pusher", "use_sim_time=true", "state_timeout=5.0")
    assert process.popen.wait(LONG) == 1
    assert "no /clock came within 5 s" in process.told


@pytest.mark.parametrize("autostart", [True, False])
def test_a_signal_ends_the_wait_for_the_robot(peer: Peer, autostart: bool) -> None:
    peer.speaking.clear()
    waits = ("state_timeout=600.0", f"autostart={str(autostart).lower()}")
    process = peer.controller("Pusher", *waits)
    if not autostart:
        client = peer.node.create_client(ChangeState, f"{CONTROLLER}/change_state")
        assert client.wait_for_service(LONG)
        configure = Transition(id=Transition.TRANSITION_CONFIGURE)
        client.call_async(ChangeState.Request(transition=configure))
    eventually(lambda: peer.node.count_subscribers("/imu") == 1)
    assert process.kill(signal.SIGTERM) == 0
    assert "interrupted while it waited" in process.told


def test_what_is_set_wins_over_every_section_of_a_file(peer: Peer) -> None:
    file = peer.folder / "it.yaml"
    file.write_text("""
        /**: {ros__parameters: {robot: rover}}
        mbmrl_robot: {ros__parameters: {robot: hexapod}}
        lead: {ros__parameters: {robot: hexapod}}
        """)
    for renamed in ([], ["--remap", "__node=lead"]):
        process = peer.start("robot", "--params", str(file), "--set", "robot=nix", *renamed)
        assert process.popen.wait(LONG) == 2
        assert "no robot is named 'nix'" in process.told


@repeated
def test_the_watchdog_speaks_when_the_controller_was_killed(peer: Peer, repeat: int) -> None:
    timeout = 0.1
    watchdog = peer.start(
        "watchdog", "--set", f"timeout={timeout}", "--set", f"safe_command=[{SAFE[0]},{SAFE[1]}]"
    )
    controller = peer.controller("Pusher", "command_topic=/mbmrl_watchdog/commands")
    peer.next_command(PUSH)
    killed = time.monotonic()
    controller.kill(signal.SIGKILL)
    at, _ = peer.next_command(SAFE)
    assert at - killed < timeout + SLACK
    assert watchdog.kill(signal.SIGTERM) == 0
    np.testing.assert_allclose(settled(peer), SAFE)


def test_the_watchdog_holds_back_what_is_no_command(peer: Peer) -> None:
    peer.start("watchdog", "--set", "safe_command=[0.0,0.0]")
    raw = peer.node.create_publisher(Float64MultiArray, "/mbmrl_watchdog/commands", 1)
    eventually(lambda: raw.get_subscription_count() > 0)

    def relayed() -> bool:
        raw.publish(Float64MultiArray(data=[0.5, 0.5]))
        return bool(peer.commands)

    eventually(relayed)
    for data in ([np.nan, 0.0], [0.0, np.inf], [1.0], []):
        raw.publish(Float64MultiArray(data=data))
    peer.next_command((0.0, 0.0))
    assert {tuple(c) for _, c in peer.commands} == {(0.5, 0.5), (0.0, 0.0)}


def test_a_watchdog_does_not_listen_to_itself(peer: Peer) -> None:
    flags = ["--set", "safe_command=[0.0]", "--set", "controller=mbmrl_watchdog"]
    process = peer.start("watchdog", *flags)
    assert process.popen.wait(LONG) == 2
    assert "/mbmrl_watchdog/commands" in process.told


def test_another_publisher_is_named_and_activation_refused(peer: Peer) -> None:
    peer.controller("Pusher", "autostart=false")
    assert change(peer, Transition.TRANSITION_CONFIGURE)
    for _ in range(REPEATS):
        rogue = peer.node.create_publisher(Float64MultiArray, COMMANDS, 1)
        eventually(lambda: peer.node.count_publishers(COMMANDS) == 2)
        time.sleep(0.3)  # what one node knows of itself, the other one has yet to hear
        assert not change(peer, Transition.TRANSITION_ACTIVATE)
        peer.node.destroy_publisher(rogue)
        eventually(lambda: change(peer, Transition.TRANSITION_ACTIVATE))
        assert change(peer, Transition.TRANSITION_DEACTIVATE)
    assert f"/peer publishes on {COMMANDS} too" in peer.processes[0].told


def test_what_does_not_fit_is_refused_with_what_to_change(peer: Peer) -> None:
    process = peer.controller("Pusher", "autostart=false", "state_timeout=5.0")
    strings, doubles, text = (
        ParameterType.PARAMETER_STRING_ARRAY,
        ParameterType.PARAMETER_DOUBLE_ARRAY,
        ParameterType.PARAMETER_STRING,
    )

    def put(name: str, kind: int, value: Any) -> None:
        field = {
            strings: "string_array_value",
            doubles: "double_array_value",
            text: "string_value",
        }[kind]
        parameter = Parameter(name=name, value=ParameterValue(type=kind, **{field: value}))
        answer = peer.call(SetParameters, f"{CONTROLLER}/set_parameters", parameters=[parameter])
        assert answer.results[0].successful, answer.results[0].reason

    cases: list[tuple[str, int, Any, Any, str]] = [
        ("joints", strings, ["a"], [], "'torque_b', but the parameter joints names a"),
        ("sources", strings, ["a=position/elbow"], [], "add 'a=PLACE' to the parameter sources"),
        ("sources", strings, ["a=odom/w"], [], "no place in a message: choose from"),
        ("safe_command", doubles, [0.0] * 3, [], "one for each of 2 joints"),
        ("safe_command", doubles, [9.0, 0.0], [], "is outside"),
        ("command_rate", doubles, [-1.0], [], "rates of change are positive"),
        ("interface", text, "torque", "effort", "effort, position, velocity"),
        ("robot", text, "hexapod", "", "the checkpoint is for robot 'sled' and does not fit"),
        ("checkpoint", text, "/nowhere", str(peer.folder / "checkpoint"), "no checkpoint in"),
    ]
    for name, kind, bad, good, message in cases:
        put(name, kind, bad)
        assert not change(peer, Transition.TRANSITION_CONFIGURE)
        assert message in process.told
        put(name, kind, good)
    peer.speaking.clear()
    assert not change(peer, Transition.TRANSITION_CONFIGURE)
    assert "is the robot there" in process.told
    peer.speaking.set()
    assert change(peer, Transition.TRANSITION_CONFIGURE)


def test_a_state_that_is_late_at_first_is_waited_for(peer: Peer) -> None:
    """Joint states come alone and grow old, then all else comes, then all come."""
    began: list[float] = []

    def late(messages: dict[str, Any]) -> None:
        if not began and peer.out["joint_states"][1].get_subscription_count():
            began.append(time.monotonic())
        waited = time.monotonic() - began[0] if began else 0.0
        if waited < 0.5 + 2 * STALE * DT:
            del messages["imu"], messages["odom"]
        if 0.5 < waited < 1.5 + 2 * STALE * DT:
            del messages["joint_states"]

    peer.lie = late
    process = peer.controller("Tiny", "autostart=false")
    assert change(peer, Transition.TRANSITION_CONFIGURE), process.told
    assert time.monotonic() - began[0] > 1.5


def test_a_failed_start_is_an_exit_status(peer: Peer) -> None:
    """2 for what is wrong whatever the robot does, and 1 for what is not."""
    peer.speaking.clear()
    silent = peer.controller("Pusher", "state_timeout=0.1")
    assert silent.popen.wait(LONG) == 1
    assert "is the robot there" in silent.told


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("joints=[x]", "the parameter joints names x"),
        ("max_bad=0", "out of range"),
        ("robot=nix", "no robot is named 'nix'"),
        ("agent=nix", "'nix'"),
        ("planner=cemm", "no planner is named 'cemm'; did you mean 'cem'?"),
        ("task=twisst", "no task is named 'twisst'; did you mean 'twist'?"),
        ("comand_max=[0.1]", "'comand_max'; did you mean 'command_max'?"),
        ("command_max=[0.1", "command_max:=[0.1"),
        ("command_topic=bad topic", "Invalid topic name"),
        ("use_sim_time=maybe", "use_sim_time"),
        ("position_max=[-1e9]\nposition_min=[0.0]", "nothing lies between positions"),
    ],
)
def test_what_the_parameters_alone_tell_is_told_at_once(
    peer: Peer, setting: str, message: str
) -> None:
    """Nobody waits for a robot that is not there."""
    peer.speaking.clear()
    process = peer.controller("Tiny", "state_timeout=600.0", *setting.splitlines())
    assert process.popen.wait(LONG) == 2
    assert message in process.told
    assert "Traceback" not in process.told


def test_a_wrong_path_is_told_at_once(peer: Peer) -> None:
    peer.speaking.clear()
    settings = ("robot=rover", "task=path", "path=eigth", "state_timeout=600.0")
    process = peer.start("controller", *(x for s in settings for x in ("--set", s)))
    assert process.popen.wait(LONG) == 2
    assert "unknown path 'eigth'" in process.told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("my_controller: {ros__parameters: {command_max: [0.1]}}", "says nothing to /mbmrl_robot"),
        ("a: [b", "Couldn't parse params file"),
        ("/**: {ros__parameters: {robott: rover}}", "'robott'; did you mean 'robot'?"),
        ("mbmrl_robot: {ros__parameters: {robot: nix}}", "no robot is named 'nix'"),
    ],
)
def test_a_parameter_file_that_is_none_is_refused(peer: Peer, text: str, message: str) -> None:
    file = peer.folder / "it.yaml"
    file.write_text(text)
    process = peer.start("robot", "--params", str(file))
    assert process.popen.wait(LONG) == 2
    *of_ros, line = process.told.splitlines()
    assert line.startswith("mbmrl: ") and message in line
    assert all("[rcl]" in x for x in of_ros)


def test_what_is_said_to_others_and_to_ros_itself_is_no_mistake(peer: Peer) -> None:
    file = peer.folder / "it.yaml"
    file.write_text("""
        /**: {ros__parameters: {robot: hexapod, use_sim_time: false}}
        mbmrl_watchdog:
          ros__parameters:
            safe_command: [0.0, 0.0]
            qos_overrides: {/parameter_events: {publisher: {depth: 10}}}
        my_controller: {ros__parameters: {command_max: [0.1]}}
        """)
    process = peer.start("watchdog", "--params", str(file))
    eventually(lambda: "mbmrl_watchdog" in peer.node.get_node_names())
    assert "/my_controller is not /mbmrl_watchdog: not read" in process.told
    assert process.kill(signal.SIGTERM) == 0


# --- with the simulated robot -----------------------------------------------------------------


@pytest.mark.parametrize("how", ["real_time=true", "real_time=false"])
def test_the_robot_process_restarts_and_control_resumes(peer: Peer, how: str) -> None:
    """With ``/clock`` too, which goes back by as much as the robot had lived."""
    peer.speaking.clear()
    robot = ("robot", "--set", "robot=tests.sled:Sled", "--set", how)
    peer.start(*robot)
    peer.controller("Tiny", f"use_sim_time={'true' if how.endswith('false') else 'false'}")
    peer.next_command()
    for _ in range(REPEATS):
        peer.wait(lambda n=len(peer.commands): len(peer.commands) > n + 30)  # type: ignore[misc]
        peer.processes[-1 if len(peer.processes) > 2 else 0].kill(signal.SIGKILL)
        peer.next_command(SAFE)
        peer.start(*robot)
        peer.diagnostics = {}
        peer.wait(lambda: peer.diagnostics.get("state") == "driving")
    assert int(peer.next_diagnostics()["gaps"]) >= REPEATS


def test_a_perturbation_is_switched_while_the_robot_runs(peer: Peer) -> None:
    peer.speaking.clear()
    robot = peer.start(
        "robot",
        *("--set", "robot=tests.sled:Sled", "--set", "perturb=['motor_strength:scale=0.5']"),
        *("--set", "perturbed=false"),
    )
    for on in (True, False):
        assert peer.call(SetBool, "/mbmrl_robot/perturb", data=on).success
        word = "motor_strength:scale=0.5" if on else "no"
        eventually(lambda word=word: f"perturbed: {word}" in robot.told)  # type: ignore[misc]
    text = ParameterValue(
        type=ParameterType.PARAMETER_STRING_ARRAY, string_array_value=["rust:much=1"]
    )
    answer = peer.call(
        SetParameters,
        "/mbmrl_robot/set_parameters",
        parameters=[Parameter(name="perturb", value=text)],
    )
    assert "no perturbation is named 'rust'" in answer.results[0].reason


def test_returns_over_topics_are_those_in_one_process() -> None:
    """The simulation waits for its commands: the very same episode, damage and all."""
    (row,) = ros.returns("cheetah", "damaged_leg:leg=F,mode=weak,scale=0.4,onset=1", 2.0, 1)
    assert row.over_ros == pytest.approx(row.in_process, rel=0.01)


def test_the_loop_over_topics_is_timed() -> None:
    took = ros.speed("cart", 1.0)
    assert took.rate_hz == pytest.approx(100)
    assert 0 < took.ticks + took.missed
    assert 0 < took.tick_ms_p50 <= took.tick_ms_p99
    assert 0 < took.state_to_command_ms_p50 <= took.state_to_command_ms_p99


# --- the documents ----------------------------------------------------------------------------


def test_every_parameter_is_described_and_the_files_name_no_other() -> None:
    yaml = pytest.importorskip("yaml")
    from mbmrl.ros import build, robot, watchdog

    params = {
        "mbmrl_controller": build.PARAMS,
        "mbmrl_robot": robot.PARAMS,
        "mbmrl_watchdog": watchdog.PARAMS,
    }
    known = {node: {p.name for p in each} for node, each in params.items()}
    known["/**"] = {p.name for p in robot.ROBOT_PARAMS}
    for each in params.values():
        assert all(p.about.endswith((".", "]")) for p in each)
    for file in sorted(env.CONFIG.glob("*.yaml")):
        for node, content in yaml.safe_load(file.read_text()).items():
            assert set(content["ros__parameters"]) <= known[node], file
    told = (env.CONFIG / "template.yaml").read_text()
    assert not [n for n in known["mbmrl_controller"] if f" {n}:" not in told]
    told = told.partition("mbmrl_watchdog:\n")[2]
    assert not [n for n in known["mbmrl_watchdog"] if f" {n}:" not in told]
    told = (Path(env.CONFIG).parents[2] / "docs" / "ros2.md").read_text()
    assert not [n for n in known["mbmrl_robot"] if f"`{n}`" not in told]
