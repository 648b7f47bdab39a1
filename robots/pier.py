"""The cheetah on a pier: a row of floating blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import mujoco
import numpy as np

from robots.cheetah import Cheetah

BLOCKS = 20  # two behind the start, the rest for 15 s at the task's speed
LENGTH, WIDTH, HEIGHT = 2.4, 0.1, 0.3  # of a block [m]
GAP = 0.02  # between blocks [m]
BEHIND = 3.0  # where the pier begins, behind the robot's start [m]
DENSITY = 1000.0  # of the water [kg/m³]
WOOD = 400.0  # of the blocks [kg/m³]
DAMPING = (0.0, 10.0)  # of a block's heave, drawn block by block [N s/m]
GRAVITY = 9.81  # [m/s²]


class Pier(Cheetah):
    """The half-cheetah on floating blocks, each held up by buoyancy; action: torques, 20 Hz.

    A prism that floats upright is pushed back by ρ g A for each metre that it is immersed deeper,
    A being its area in the waterline, as long as it is neither awash nor out of the water: so a
    vertical slide with that stiffness is its buoyancy, exactly. At rest the blocks' tops are level,
    at a height of 0; a block sinks 6 cm under the robot's weight. Nothing tells the robot how the
    blocks move.

    Source: Nagabandi et al. 2018 (arXiv 1803.11347), whose pier has 8 blocks with a damping drawn
    from U(0, 10). Here there are enough blocks for 15 s, and each one's damping is drawn once and
    for all.
    """

    name: ClassVar[str] = "pier"
    spec = replace(Cheetah.spec, name="pier")

    @classmethod
    def surround(cls, spec: mujoco.MjSpec) -> None:
        """Blocks instead of the ground."""
        ground = spec.geom("ground")
        area = LENGTH * WIDTH
        damping = np.random.default_rng(0).uniform(*DAMPING, BLOCKS)
        for i in range(BLOCKS):
            block = spec.worldbody.add_body(
                name=f"block{i}",
                pos=[i * (LENGTH + GAP) - BEHIND + LENGTH / 2, 0.0, -HEIGHT / 2],
                gravcomp=1.0,  # afloat: the water carries what it weighs
            )
            block.add_joint(
                name=f"heave{i}",
                type=mujoco.mjtJoint.mjJNT_SLIDE,
                axis=[0.0, 0.0, 1.0],
                stiffness=DENSITY * GRAVITY * area,
                damping=damping[i],
            )
            block.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX,
                size=[LENGTH / 2, WIDTH / 2, HEIGHT / 2],
                mass=WOOD * area * HEIGHT,
                contype=1,
                conaffinity=0,
                friction=ground.friction,
                rgba=[0.55, 0.4, 0.25, 1.0],
            )
        spec.delete(ground)

    def place(self) -> np.ndarray:
        """As the cheetah, and then wait for a moment of rest: the blocks go on heaving for long."""
        carry = super().place()
        self.data.qvel[:] = 0.0
        return carry
