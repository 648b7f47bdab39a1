"""The parameter files that are shipped: every robot has one, and it fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from mbmrl import checkpoint as checkpoints
from mbmrl import registry, tasks
from mbmrl.ros.build import PARAMS, agent_for, command_path
from mbmrl.ros.env import CONFIG
from mbmrl.ros.params import ROBOT_PARAMS, unread
from robots.topics import Layout

ROBOTS = registry.names("robots")


def parameters(robot: str, node: str) -> dict[str, Any]:
    said = YAML(typ="safe", pure=True).load((CONFIG / f"{robot}.yaml").read_text())
    return {**said["/**"]["ros__parameters"], **said[node]["ros__parameters"]}


@pytest.mark.parametrize("name", ROBOTS)
def test_it_fits_the_robot(name: str) -> None:
    robot, said = registry.load("robots", name), parameters(name, "mbmrl_controller")
    known = {p.name: p.default for p in PARAMS}
    assert not set(said) - set(known)
    p = known | said
    assert p["robot"] == name and p["task"] == robot.task
    if p["path"]:
        assert p["path"] in tasks.COURSES[p["task"]]
    assert "checkpoint" in said or (CONFIG.parents[1] / "checkpoints" / name).is_dir()
    Layout(robot.spec, p["sources"])
    out, guard = command_path(robot.spec, p)
    np.testing.assert_allclose(out.action(guard.safe), robot.spec.rest, atol=1e-9)


@pytest.mark.parametrize("name", ROBOTS)
def test_the_watchdogs_safe_command_is_the_controllers(name: str) -> None:
    robot, said = registry.load("robots", name), parameters(name, "mbmrl_watchdog")
    p = {x.name: x.default for x in PARAMS} | parameters(name, "mbmrl_controller")
    _, guard = command_path(robot.spec, p)
    np.testing.assert_allclose(said["safe_command"], guard.safe)
    assert robot.spec.dt < said["timeout"] <= 5 * robot.spec.dt


@pytest.mark.parametrize("name", ROBOTS)
def test_the_simulated_robot_reads_the_same_file(name: str) -> None:
    shared = YAML(typ="safe", pure=True).load((CONFIG / f"{name}.yaml").read_text())["/**"]
    assert not set(shared["ros__parameters"]) - {p.name for p in ROBOT_PARAMS}


@pytest.mark.parametrize(
    ("section", "names"),
    [
        ("n", "/n"),
        ("/n", "/n"),
        ("/**", "/n /r/n /r/s/n"),
        ("/*", "/n"),
        ("/**/n", "/n /r/n /r/s/n"),
        ("/r/*", "/r/n"),
        ("r/n", "/r/n"),
        ("m", ""),
    ],
)
def test_sections_are_for_the_nodes_that_ros_takes_them_for(
    section: str, names: str, tmp_path: Path
) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(f"{section}: {{ros__parameters: {{a: 1}}}}")
    for node in ("/n", "/r/n", "/r/s/n"):
        if node in names.split():
            assert unread(file, node, []) == []
        else:
            with pytest.raises(ValueError, match="says nothing to"):
                unread(file, node, [])


def test_a_section_in_a_namespace_and_one_for_somebody_else(tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text("r: {n: {ros__parameters: {a: 1}}}\ncamera: {ros__parameters: {a: 1}}")
    assert unread(file, "/r/n", []) == ["/camera"]
    assert unread(file, "/r/m", ["/r/n"]) == ["/camera"]


@pytest.mark.parametrize("name", ["default", "frozen", "pooled", "maml", "auto", "curious"])
def test_whatever_plans_in_a_simulation_plans_on_topics(name: str) -> None:
    asked = {p.name: p.default for p in PARAMS} | {"robot": "rover", "agent": name}
    made = checkpoints.load(checkpoints.SHIPPED / "rover")
    if name == "curious":
        with pytest.raises(checkpoints.CheckpointError, match="needs an ensemble"):
            agent_for(made, asked)
        made.learners[f"{made.default}#1"] = made.learner(made.default)
    agent, spec = agent_for(made, asked), made.spec
    rest = np.zeros(spec.num_obs)
    agent.reset(rest)
    assert agent.act(rest).action.isfinite().all()


def test_a_path_brings_its_task_unless_another_is_asked_for() -> None:
    asked = {p.name: p.default for p in PARAMS} | {"robot": "rover", "agent": "frozen"}
    made = checkpoints.load(checkpoints.SHIPPED / "rover")
    for said, task in (
        ({}, tasks.PathTask),
        ({"path": "tour"}, tasks.VelocityTask),
        ({"path": "left"}, tasks.DirectionTask),
        ({"path": "eight", "task": "reach"}, tasks.ReachTask),
    ):
        assert type(agent_for(made, asked | said).task) is task
    with pytest.raises(ValueError, match="unknown command 'eight'"):
        agent_for(made, asked | {"path": "eight", "task": "velocity"})
    with pytest.raises(registry.UnknownName, match="did you mean 'tour'"):
        agent_for(made, asked | {"path": "tuor"})
