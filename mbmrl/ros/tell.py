"""What the controller tells of itself, and what it asks of the others."""

from __future__ import annotations

import math

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from trajectory_msgs.msg import JointTrajectory

from mbmrl.types import Plan
from robots.ros2 import Topics


def plan_message(plan: Plan, robot: Topics, now: Time) -> Path | JointTrajectory:
    """Where it will be, in the frame ``odom``; of a robot without a pose what it will send."""
    spec = robot.spec
    if spec.pose:
        path = Path()
        path.header.stamp, path.header.frame_id = now.to_msg(), "odom"
        for k, (x, y, yaw) in enumerate(plan.predicted[0, :, spec.index(spec.pose)].tolist()):
            pose = PoseStamped()
            pose.header.frame_id = "odom"
            pose.header.stamp = (now + Duration(seconds=(k + 1) * spec.dt)).to_msg()
            pose.pose.position.x, pose.pose.position.y = x, y
            pose.pose.orientation.z, pose.pose.orientation.w = math.sin(yaw / 2), math.cos(yaw / 2)
            path.poses.append(pose)
        return path
    commands = np.stack([robot.output.command(a) for a in plan.actions[0].double().numpy()])
    trajectory = robot.output.trajectory_of(commands, spec.dt * np.arange(len(commands)))
    trajectory.header.stamp = now.to_msg()
    return trajectory


def diagnostics(
    node: Node, level: bytes, message: str, report: dict[str, float | str]
) -> DiagnosticArray:
    """One status, for ``/diagnostics``."""
    status = DiagnosticStatus(level=level, name=f"{node.get_name()}: control", message=message)
    status.values = [
        KeyValue(key=k, value=v if isinstance(v, str) else f"{v:g}") for k, v in report.items()
    ]
    array = DiagnosticArray(status=[status])
    array.header.stamp = node.get_clock().now().to_msg()
    return array


def other_publishers(node: Node, topic: str) -> list[str]:
    """Full names of the nodes that publish there besides this one."""
    own = node.get_fully_qualified_name()
    names = [
        f"{info.node_namespace.rstrip('/')}/{info.node_name}"
        for info in node.get_publishers_info_by_topic(topic)
    ]
    if own in names:
        names.remove(own)
    return names
