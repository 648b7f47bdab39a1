"""Orientation as robots report it: roll, pitch and yaw, and velocities in the body frame."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


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
