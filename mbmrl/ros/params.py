"""Parameters of the nodes: each with a type, a range and a sentence."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore  # it comes with rclpy
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.parameter import Parameter

from mbmrl import registry

KINDS = {
    bool: Parameter.Type.BOOL,
    int: Parameter.Type.INTEGER,
    float: Parameter.Type.DOUBLE,
    str: Parameter.Type.STRING,
    list[str]: Parameter.Type.STRING_ARRAY,
    list[int]: Parameter.Type.INTEGER_ARRAY,
    list[float]: Parameter.Type.DOUBLE_ARRAY,
}


@dataclass(frozen=True)
class Param:
    """One parameter.

    Attributes:
        name: of the parameter.
        kind: of :data:`KINDS`.
        default: its value unless told otherwise.
        about: one sentence, with the unit.
        low: smallest value, for numbers.
        high: largest value, for numbers.
        live: whether it may change while the node works.
    """

    name: str
    kind: Any
    default: Any
    about: str
    low: float | None = None
    high: float | None = None
    live: bool = False


def declare(
    node: Any,  # noqa: ANN401
    params: Sequence[Param],
    others: Sequence[Param] = (),
) -> None:
    """Declare them all.

    Args:
        node: whose parameters they are.
        params: to declare.
        others: what may be said too, and is not for this node.

    Raises:
        ValueError: a value is not of the parameter's type or range.
        UnknownName: something is said that is no parameter; ROS would ignore it.
    """
    for p in params:
        descriptor = ParameterDescriptor(
            description=p.about, type=KINDS[p.kind].value, dynamic_typing=False
        )
        if p.low is not None and p.high is not None:
            if p.kind is int:
                span = IntegerRange(from_value=int(p.low), to_value=int(p.high), step=0)
                descriptor.integer_range = [span]
            else:
                ends = FloatingPointRange(from_value=float(p.low), to_value=float(p.high), step=0.0)
                descriptor.floating_point_range = [ends]
        # of an empty list nobody can tell the type: such a parameter is not set, but has one
        value = KINDS[p.kind] if p.default == [] else p.default
        try:
            node.declare_parameter(p.name, value, descriptor)
        except Exception as error:
            raise ValueError(f"parameter {p.name} ({p.about}): {error}") from error
    for name in set(node._parameter_overrides) - {p.name for p in others}:
        if not node.has_parameter(name) and not name.startswith("qos_overrides."):
            known = [p.name for p in params]
            raise registry.unknown(f"parameter of {node.get_name()}", name, known)


def unread(file: Path, node: str, ours: Collection[str]) -> list[str]:
    """Sections of a parameter file that are for no node of ours.

    Args:
        file: of the parameters, which ROS could read.
        node: full name of the node that reads it.
        ours: full names of all the nodes.

    Raises:
        ValueError: the file says nothing to the node, nor to another one of ours.
    """
    try:
        said = _sections(yaml.safe_load(file.read_text()))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no YAML: {' '.join(str(error).split())}") from error
    lost = [name for name in said if not any(_names(name, n) for n in (node, *ours))]
    if len(lost) == len(said):
        raise ValueError(
            f"{file} says nothing to {node}: its sections are {', '.join(lost) or 'none'}"
        )
    return lost


def _sections(said: Any, above: str = "") -> list[str]:  # noqa: ANN401
    """Names of nodes, which may lie in namespaces."""
    if not isinstance(said, dict):
        return []
    if "ros__parameters" in said:
        return [above]
    deeper = ((f"{above}/{str(name).strip('/')}", each) for name, each in said.items())
    return [name for path, each in deeper for name in _sections(each, path)]


def _names(section: str, node: str) -> bool:
    """Whether ROS takes the section for the node: ``*`` is a name, ``**`` any number of them."""
    parts = {"**": r"(/\w+)*", "*": r"/\w+"}
    pattern = "".join(parts.get(p, f"/{re.escape(p)}") for p in section.strip("/").split("/"))
    return re.fullmatch(pattern, node) is not None


def values(node: Any, params: Sequence[Param]) -> dict[str, Any]:  # noqa: ANN401
    """What they are now, as plain Python."""
    now = {p.name: node.get_parameter_or(p.name).value for p in params}
    return {
        p.name: list(now[p.name] or []) if isinstance(p.default, list) else now[p.name]
        for p in params
    }


def per_joint(given: list[float], count: int, default: float, name: str) -> np.ndarray:
    """One value a joint."""
    if len(given) not in (0, 1, count):
        raise ValueError(f"{name} has one value, or one for each of {count} joints: {given}")
    array = np.array(given or [default], dtype=float)
    if np.isnan(array).any():
        raise ValueError(f"{name} has a value that is no number: {given}")
    return np.broadcast_to(array, (count,)).copy()


ROBOT_PARAMS = (
    Param("robot", str, "", "From `mbmrl list robots`, or package.module:Class."),
    Param("controller", str, "forward_command_controller", "Commands go to CONTROLLER/commands."),
    Param("joints", list[str], [], "Joints in the order of the commands; none: the actions."),
    Param("actions", list[str], [], "ACTION=JOINT, for actions whose joint has another name."),
    Param(
        "scale", list[float], [], "Command = scale · action + offset; one value, or one a joint."
    ),
    Param("offset", list[float], [], "See scale; none: 0."),
    Param(
        "sources", list[str], [], "FIELD=PLACE, e.g. pitch=imu/pitch or knee=position/knee_joint."
    ),
)
"""Which the robot node has too, so that one file serves both."""
