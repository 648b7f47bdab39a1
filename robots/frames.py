"""How robots report where they are, how they are turned and how they move, in the body's frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

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


def numbers(array: Float[np.ndarray, "*b k"]) -> list[Any]:
    """What lies along the last axis: plain numbers of one state, arrays of many.

    The same lines serve both: with so few numbers Python's own arithmetic is the fast one.
    """
    return array.tolist() if array.ndim == 1 else list(np.moveaxis(array, -1, 0))


def together(parts: Sequence[Any]) -> Float[np.ndarray, "*b k"]:
    """The inverse of :func:`numbers`."""
    return np.stack(parts, -1) if isinstance(parts[0], np.ndarray) else np.array(parts)


def rotation(quat: Float[np.ndarray, "*b 4"]) -> Float[np.ndarray, "*b 3 3"]:
    """Body-to-world rotation of a unit quaternion (w, x, y, z)."""
    return together(_rotation(numbers(quat))).reshape(*quat.shape[:-1], 3, 3)


def roll_pitch_yaw(rotation: Float[np.ndarray, "*b 3 3"]) -> Float[np.ndarray, "*b 3"]:
    """Angles about x, then y, then z of the world [rad]."""
    entries = rotation.reshape(*rotation.shape[:-2], 9)
    return together(_roll_pitch_yaw(numbers(entries), functions(entries)))


def observe_body(
    qpos: Float[np.ndarray, "*b q"], qvel: Float[np.ndarray, "*b v"], *left_out: str
) -> Float[np.ndarray, "*b o"]:
    """The fields of :func:`without` these, of a robot whose first joint is free."""
    x, y, z, *quat = numbers(qpos[..., :7])
    vx, vy, vz, *rates = numbers(qvel[..., :6])
    turned = xx, xy, xz, yx, yy, yz, zx, zy, zz = _rotation(quat)
    roll, pitch, yaw = _roll_pitch_yaw(turned, functions(qpos))
    ahead = xx * vx + yx * vy + zx * vz
    left = xy * vx + yy * vy + zy * vz
    up = xz * vx + yz * vy + zz * vz
    body = [x, y, yaw, z, ahead, left, up, roll, pitch, *rates]
    if left_out:
        body = [part for part, f in zip(body, BODY, strict=True) if f.name not in left_out]
    return together(body)


def functions(array: Float[np.ndarray, "*b k"]) -> ModuleType:
    """Whose functions take its :func:`numbers`."""
    return math if array.ndim == 1 else np


def _rotation(quat: list[Any]) -> list[Any]:
    """Row after row."""
    w, x, y, z = quat
    return [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]


def _roll_pitch_yaw(rotation: list[Any], of: ModuleType) -> list[Any]:
    xx, _, _, yx, _, _, zx, zy, zz = rotation
    return [of.atan2(zy, zz), of.atan2(-zx, of.hypot(zy, zz)), of.atan2(yx, xx)]
