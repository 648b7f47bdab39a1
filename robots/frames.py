"""How robots report where they are, how they are turned and how they move, in the body's frame."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from mbmrl.spec import Field

POSE = ("x", "y", "yaw")
BODY = (
    Field("x", "m"),
    Field("y", "m"),
    Field("yaw", "rad", -math.pi, math.pi),
    Field("z", "m"),
    Field("vx", "m/s"),
    Field("vy", "m/s"),
    Field("vz", "m/s"),
    Field("roll", "rad", -math.pi, math.pi),
    Field("pitch", "rad", -math.pi / 2, math.pi / 2),
    Field("roll_rate", "rad/s"),
    Field("pitch_rate", "rad/s"),
    Field("yaw_rate", "rad/s"),
)
"""Pose, and what an inertial unit and kinematics or odometry tell of a body."""
BODY_MIRROR = {n: (n, -1.0) for n in ("y", "yaw", "vy", "roll", "roll_rate", "yaw_rate")}
"""What changes its sign in the left-right mirror."""


def without(*names: str) -> tuple[Field, ...]:
    """:data:`BODY` but for these fields."""
    return tuple(f for f in BODY if f.name not in names)


def rotation(quat: Float[np.ndarray, "*b 4"]) -> Float[np.ndarray, "*b 3 3"]:
    """Body-to-world rotation of a unit quaternion (w, x, y, z)."""
    w, x, y, z = np.moveaxis(quat, -1, 0)
    return np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
            np.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
            np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
        ],
        -2,
    )


def roll_pitch_yaw(rotation: Float[np.ndarray, "*b 3 3"]) -> Float[np.ndarray, "*b 3"]:
    """Angles about x, then y, then z of the world [rad]."""
    roll = np.arctan2(rotation[..., 2, 1], rotation[..., 2, 2])
    pitch = -np.arcsin(np.clip(rotation[..., 2, 0], -1, 1))
    yaw = np.arctan2(rotation[..., 1, 0], rotation[..., 0, 0])
    return np.stack([roll, pitch, yaw], -1)


def in_body(
    rotation: Float[np.ndarray, "*b 3 3"], vector: Float[np.ndarray, "*b 3"]
) -> Float[np.ndarray, "*b 3"]:
    """A vector of the world in the body's frame."""
    return np.einsum("...ji,...j->...i", rotation, vector)


def observe_body(
    qpos: Float[np.ndarray, "*b q"], qvel: Float[np.ndarray, "*b v"], *left_out: str
) -> Float[np.ndarray, "*b o"]:
    """The fields of :func:`without` these, of a robot whose first joint is free."""
    turned = rotation(qpos[..., 3:7])
    angles = roll_pitch_yaw(turned)
    velocity = in_body(turned, qvel[..., :3])
    parts = (qpos[..., :2], angles[..., 2:], qpos[..., 2:3], velocity, angles[..., :2])
    body = np.concatenate([*parts, qvel[..., 3:6]], -1)
    if not left_out:
        return body
    return body[..., [i for i, f in enumerate(BODY) if f.name not in left_out]]
