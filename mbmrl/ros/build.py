"""A controller from its parameters; every mistake is an error that says what to change."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from controllers.agent import Agent
from mbmrl import checkpoint as checkpoints
from mbmrl import registry, tasks
from mbmrl.checkpoint import Checkpoint
from mbmrl.compose import asking, learned_model, make_planner, task_for
from mbmrl.loop import settle
from mbmrl.ros.params import ROBOT_PARAMS, Param, per_joint
from mbmrl.ros.steer import TwistTask
from mbmrl.safety import Envelope, Guard, Limits
from mbmrl.settings import settings_for
from mbmrl.spec import RobotSpec
from robots.base import Robot
from robots.ros2 import INTERFACES, Output, Topics, output
from robots.topics import Layout

PARAMS = (
    *ROBOT_PARAMS,
    Param("checkpoint", str, "", "Folder of the trained model; empty: the one shipped for robot."),
    Param("agent", str, "default", "Any that learned: default, frozen, an adapter, auto."),
    Param("planner", str, "", "From `mbmrl list planners`; empty: the robot's own."),
    Param("horizon", int, 0, "Length of a plan [control steps]; 0: the robot's own.", 0, 1000),
    Param("samples", list[int], [], "Candidates of each iteration; none: the robot's own."),
    Param("seed", int, 0, "Of the planner's random numbers.", 0, 2**31 - 1),
    Param("task", str, "", "path, speed, … or twist; empty: that of path or robot, or twist."),
    Param("path", str, "", "What to follow, see `mbmrl run --help`; empty: the task's last."),
    Param("max_speed", float, 0.3, "Largest velocity command [m/s].", 1e-3, 100.0),
    Param("max_turn", float, 1.0, "Largest turning command [rad/s].", 1e-3, 100.0),
    Param("stamped_cmd_vel", bool, False, "Whether cmd_vel is a TwistStamped."),
    Param("cmd_vel_timeout", float, 0.5, "An older velocity command is none [s].", 0.01, 60.0),
    Param("command_topic", str, "", "Instead of CONTROLLER/commands, e.g. the watchdog's input."),
    Param("trajectory", bool, False, "JointTrajectory to CONTROLLER/joint_trajectory."),
    Param("interface", str, "effort", "What a command is: effort, position or velocity."),
    Param("command_min", list[float], [], "Smallest commands; one value, or one a joint."),
    Param("command_max", list[float], [], "Largest commands."),
    Param(
        "command_rate",
        list[float],
        [],
        "Largest change a second; none: the checkpoint's.",
    ),
    Param("safe_command", list[float], [], "What does no harm; none: the checkpoint's own."),
    Param("position_min", list[float], [], "Smallest measured position [rad or m]."),
    Param("position_max", list[float], [], "Largest measured position [rad or m]."),
    Param("velocity_max", list[float], [], "Largest measured speed [rad/s or m/s]."),
    Param("effort_max", list[float], [], "Largest measured effort [N·m or N]."),
    Param("stale_periods", float, 3.0, "Older states are stale [periods].", 1.0, 100.0),
    Param("max_bad", int, 3, "So many bad states or plans in a row: safe command.", 1, 1000, True),
    Param("adapt", bool, True, "Whether to adapt; see ~/adapt.", live=True),
    Param("look_ahead", bool, True, "Plan from where the robot will be once the plan is ready."),
    Param("state_timeout", float, 10.0, "How long to wait for the robot [s].", 0.1, 600.0),
    Param("stop_seconds", float, 1.0, "Longest way to the safe command [s].", 0.0, 60.0),
    Param("autostart", bool, True, "Configure and activate by itself; exit where that fails."),
)


def command_path(spec: RobotSpec, p: dict[str, Any], topic: str = "") -> tuple[Output, Guard]:
    """From actions to commands, and the guard on the way; raises where they do not fit."""
    u, trajectory = spec.num_act, p["trajectory"]
    if p["interface"] not in INTERFACES:
        raise ValueError(f"interface is one of {', '.join(INTERFACES)}, not {p['interface']!r}")
    scale = per_joint(p["scale"], u, 1.0, "scale")
    if not (np.isfinite(scale).all() and scale.all()):
        raise ValueError(f"scale is finite and not 0, not {scale}")
    out = output(
        spec,
        p["joints"],
        p["actions"],
        scale,
        per_joint(p["offset"], u, 0.0, "offset"),
        topic=topic or f"{p['controller']}/{'joint_trajectory' if trajectory else 'commands'}",
        interface=p["interface"],
        trajectory=trajectory,
    )
    ends = np.stack([out.command(spec.act_low), out.command(spec.act_high)])
    low, high = ends.min(0), ends.max(0)
    limits = Limits(
        low=np.maximum(low, per_joint(p["command_min"], u, -math.inf, "command_min")),
        high=np.minimum(high, per_joint(p["command_max"], u, math.inf, "command_max")),
        rate=np.minimum(
            np.abs(out.scale) * spec.act_rate[list(out.order)],
            per_joint(p["command_rate"], u, math.inf, "command_rate"),
        ),
    )
    rest = out.command(spec.rest)
    given = p["safe_command"]
    safe = (
        per_joint(given, u, 0.0, "safe_command")
        if given
        else np.clip(rest, limits.low, limits.high)
    )
    return out, Guard(limits, safe, spec.dt)


def checkpoint_for(robot: str, folder: str) -> Checkpoint:
    """The trained model, checked to fit the robot where one is named."""
    where = Path(folder) if folder else None
    if robot:
        return checkpoints.for_robot(registry.load("robots", robot).spec, where)
    if where is None:
        raise ValueError("say which robot it is (robot), or give its trained model (checkpoint)")
    return checkpoints.load(where)


def agent_for(checkpoint: Checkpoint, p: dict[str, Any]) -> Agent:
    """Model, planner and task, as the parameters say.

    Raises:
        ValueError: a name leads nowhere, or the checkpoint does not have what it asks for.
    """
    spec = checkpoint.spec
    robot = registry.load("robots", p["robot"]) if p["robot"] else Robot
    name = p["task"] or (robot.task if p["robot"] else "twist")
    if name not in (known := [*tasks.COURSES, "twist"]):
        raise registry.unknown("task", name, known)
    courses = [p["path"] or tasks.usual(name)[0]]
    task: tasks.Task
    if name == "twist":
        task = TwistTask(spec, p["max_speed"], p["max_turn"])
    elif p["task"]:
        task = tasks.make(name, spec, courses, robot.speed, robot.size)
    else:
        task = task_for(robot, courses)
    settings = settings_for(spec.name)
    size = {"horizon": p["horizon"], "num_samples": tuple(p["samples"])}
    plan = {**settings.plan, **{k: v for k, v in size.items() if v}}
    settings = dataclasses.replace(settings, plan=plan)
    planner = make_planner(spec, settings, p["planner"] or None, seed=p["seed"])
    model = learned_model(p["agent"], checkpoint)
    return Agent(model, asking(model, planner, p["agent"]), task)


def robot_for(node: Any, spec: RobotSpec, p: dict[str, Any]) -> Topics:  # noqa: ANN401
    """The robot behind the node's topics; raises ValueError where the parameters do not fit it."""
    out, guard = command_path(spec, p, p["command_topic"])
    u, inf = spec.num_act, math.inf
    low, high, fast, strong = (
        per_joint(p[name], u, default, name)
        for name, default in (
            ("position_min", -inf),
            ("position_max", inf),
            ("velocity_max", inf),
            ("effort_max", inf),
        )
    )
    simulated = node.get_parameter("use_sim_time").value
    stale = p["stale_periods"] * spec.dt
    return Topics(
        node,
        Layout(spec, p["sources"]),
        out,
        guard,
        Envelope(position=np.stack([low, high]), velocity=fast, effort=strong),
        # simulated time may pass as slowly as it likes
        stale_s=max(1.0, stale) if simulated else stale,
        sync_s=0.1 if simulated else 0.2 * spec.dt,
        stop_s=p["stop_seconds"],
    )


def warm_up(agent: Agent, robot: Topics) -> None:
    """The first decisions of a process are slow: let them be none of the robot's."""
    obs = robot.layout.read(robot.messages)
    obs = np.nan_to_num(obs)
    agent.reset(obs)
    rest = robot.spec.rest
    for _ in range(12):
        agent.observe(obs, rest, obs)
        agent.act(obs)
    agent.delay_s = 0.0
    agent.forget()
    torch.set_num_threads(1)
    settle()
