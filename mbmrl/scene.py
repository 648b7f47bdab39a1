"""A recorded run in three dimensions: the robot, its damage, its path, and a camera that follows.

The only module that needs OpenGL. It needs no display.
"""

from __future__ import annotations

import copy
import importlib
import itertools
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.colors import to_rgba
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from mbmrl import conditions, registry, tasks
from mbmrl.compose import task_for
from mbmrl.log import Run
from mbmrl.plot import DAMAGE, colour, followed
from robots.perturbations.base import TERRAIN, Perturbation, subtree
from robots.sim import SimRobot

if TYPE_CHECKING:
    from typing_extensions import Self

BACKENDS = {"Darwin": ("cgl",), "Windows": ("glfw",)}.get(platform.system(), ("egl", "osmesa"))

# the camera's distance, in radii of the robot, its elevation and azimuth from behind it [degrees]
ON_ITS_COURSE = 4.4, -44.0, 45.0
ALONE = 2.7, -25.0, 60.0
PLANAR = 2.7, -10.0, 90.0
ACROSS = -25.0  # its elevation where the floor slopes: it then looks across the slope [degrees]
LOOK_S, TURN_S, TILT_S = 0.5, 2.0, 0.3  # how smoothly the camera moves, turns and tilts [s]
TRAIL_S = 30.0  # how far back the robot's way is drawn [s]
AHEAD_S = 2.0  # how far ahead the target is marked [s]
MORE = 0.8  # of the path, beyond what the run has time for [m]
MARK, MARK_HEIGHT = 0.025, 0.04  # radius of that mark, and how high it hovers [m]
STRIDE = 5  # points of the path to one tile
SKY = 100.0  # above all terrain [m]
STUMP = 0.13  # radius of the mark where a limb was lost, in radii of the robot
STONE = 2500.0  # a load is drawn as large as so much stone [kg/m³]
ARROW, ARROW_HEIGHT, ARROW_WIDTH = 1.2, 0.6, 0.05  # in radii of the robot, above its middle
DOWN = np.array([0.0, 0.0, -1.0])

PROBE = """
import importlib, sys, mujoco
context = importlib.import_module("mujoco." + sys.argv[1]).GLContext(8, 8)
context.make_current()
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), 100).free()
context.free()
"""


class NoOpenGL(RuntimeError):
    """This machine cannot render without a display."""


@cache
def backend() -> str:
    """The first way to OpenGL that works here, or the one that ``MUJOCO_GL`` names.

    Each is tried in a process of its own: PyOpenGL decides for one once and for all, and some
    drivers end the process rather than raise.

    Raises:
        NoOpenGL: there is none; the message says what to install.
    """
    wanted = os.environ.get("MUJOCO_GL")
    tried = (wanted,) if wanted else BACKENDS
    for name in tried:
        if subprocess.run([sys.executable, "-c", PROBE, name], capture_output=True).returncode == 0:
            return name
    raise NoOpenGL(
        f"no video without OpenGL (tried {', '.join(tried)}): "
        "on Debian and Ubuntu, `apt install libegl1 libgl1-mesa-dri`"
    )


def painted(
    robot: SimRobot, active: Sequence[Perturbation], paint: str = "white"
) -> mujoco.MjModel:
    """The robot's model under these perturbations, with what they damage in red.

    Args:
        robot: whose nominal model is copied; where it is and its time count for some of them.
        active: the perturbations.
        paint: colour of the torso.
    """
    model = copy.copy(robot.nominal)
    torso = np.flatnonzero(model.geom_bodyid == model.body(robot.torso).id)
    largest = torso[np.argsort(model.geom_rbound[torso])[-1:]]
    model.geom_rgba[largest], model.geom_matid[largest] = to_rgba(paint), -1
    model.vis.headlight.ambient *= 0.75
    model.vis.headlight.diffuse *= 0.75
    model.light_mode[:] = mujoco.mjtCamLight.mjCAMLIGHT_TRACK
    model.light_bodyid[:] = model.body(robot.torso).id
    for perturbation in (p.at(robot.time) for p in active):
        perturbation.apply(model, robot)
        for body in perturbation.marked_bodies(robot):
            marked = np.isin(model.geom_bodyid, subtree(model, body))
            model.geom_rgba[marked, :3] = to_rgba(DAMAGE)[:3]
            model.geom_matid[marked] = -1
    mujoco.mj_setConst(model, mujoco.MjData(model))  # what was moved is drawn where it is now
    return model


class Scene:
    """Draws one run, tick by tick. A context manager: leaving it frees OpenGL.

    Args:
        run: of a simulated robot.
        width: of the pictures [pixels].
        height: of the pictures [pixels].
        alone: the robot from nearby, without its path, its trail and its target.

    Raises:
        NoOpenGL: this machine cannot draw.
        ValueError: the run is not of a simulated robot.
    """

    def __init__(self, run: Run, width: int, height: int, *, alone: bool = False) -> None:
        if not run.qpos.size:
            raise ValueError(f"no video of {run.robot}: only of a simulated robot")
        gl: Any = importlib.import_module(f"mujoco.{backend()}")
        self.run = run
        self.perturb = tuple(conditions.parse(p) for p in run.perturbations)
        self.robot: SimRobot = registry.load("robots", run.robot)(self.perturb, run.seed)
        self._shown: tuple[object, mujoco.MjModel] = (None, self.robot.nominal)
        self._data = mujoco.MjData(self.robot.nominal)
        self._view = PLANAR if not run.spec.pose else ALONE if alone else ON_ITS_COURSE
        self._places, self._middles, self._yaw = self._follow()
        self._look, self._azimuth, self._elevation, self._upright = self._plan_camera()
        self._radius = self._reach()
        self._trail = bool(run.spec.pose) and not alone
        self._task = task_for(type(self.robot), [run.path]) if run.path and not alone else None
        self._path, self._targets, self._near = self._path_and_targets()

        canvas = self.model(0)
        canvas.vis.global_.offwidth, canvas.vis.global_.offheight = width, height
        canvas.vis.quality.offsamples, canvas.vis.quality.shadowsize = 0, 1024
        canvas.stat.extent = 2 * self._radius  # sharp shadows, and of this robot alone
        self._gl = gl.GLContext(width, height)
        self._gl.make_current()
        self._context = mujoco.MjrContext(canvas, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(canvas, 4000)
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._pixels = np.empty((height, width, 3), np.uint8)

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Free OpenGL's memory."""
        self._gl.make_current()
        self._context.free()
        self._gl.free()

    def active(self, tick: int) -> tuple[Perturbation, ...]:
        """What acts on the robot after a tick."""
        now = (tick + 1) * self.run.spec.dt + 1e-9
        return tuple(p for p in self.perturb if p.onset <= now < p.until)

    def model(self, tick: int) -> mujoco.MjModel:
        """The robot's model after a tick, red where it is damaged."""
        robot, active = self.robot, self.active(tick)
        robot.data.time = (tick + 1) * self.run.spec.dt
        grown = tuple(p.at(robot.time) for p in active)
        key = (grown, tick if any(p.changing for p in grown) else 0)
        if key != self._shown[0]:
            robot.data.qpos[:] = self.run.qpos[tick]
            mujoco.mj_kinematics(robot.nominal, robot.data)
            for p in active:
                robot.came[p.onset] = self._places[self._struck(p)][:2]
            self._shown = key, painted(robot, grown, colour(self.run.agent))
        return self._shown[1]

    def _struck(self, perturbation: Perturbation) -> int:
        """The tick at whose end it began."""
        return max(0, round(perturbation.onset / self.run.spec.dt) - 1)

    def draw(self, tick: int) -> UInt8[np.ndarray, "h w 3"]:
        """The robot after a tick; the array is written over by the next call."""
        model, scene = self.model(tick), self._scene
        self._pose(tick, model)
        mujoco.mjv_updateScene(
            model,
            self._data,
            mujoco.MjvOption(),
            None,
            self._camera(tick),
            mujoco.mjtCatBit.mjCAT_ALL,
            scene,
        )
        self._tilt_camera(tick)
        self._draw_ground(tick)
        self._draw_causes(tick)
        self._gl.make_current()
        for field in range(model.nhfield):
            mujoco.mjr_uploadHField(model, self._context, field)
        mujoco.mjr_render(self._rect, scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._context)
        return self._pixels[::-1]

    # --- the camera, planned over the whole run, so that it neither jerks nor lags --------------

    def _pose(self, tick: int, model: mujoco.MjModel) -> None:
        self._data.qpos[:] = self.run.qpos[tick]
        mujoco.mj_kinematics(model, self._data)
        mujoco.mj_comPos(model, self._data)
        mujoco.mj_camlight(model, self._data)

    def _follow(
        self,
    ) -> tuple[Float[np.ndarray, "t 3"], Float[np.ndarray, "t 3"], Float[np.ndarray, " t"]]:
        """Where torso and centre of mass were after each tick, and the torso's heading [rad]."""
        places, middles, yaw = [], [], []
        for tick in range(len(self.run.qpos)):
            self._pose(tick, self.robot.nominal)
            torso = self._data.body(self.robot.torso)
            places.append(torso.xpos.copy())
            middles.append(torso.subtree_com.copy())
            yaw.append(np.arctan2(torso.xmat[3], torso.xmat[0]))
        return np.array(places), np.array(middles), np.unwrap(yaw)

    def _reach(self) -> float:
        """How far the robot reaches from its centre of mass [m]."""
        self._pose(0, self.robot.nominal)
        nominal = self.robot.nominal
        own = np.isin(nominal.geom_bodyid, subtree(nominal, self.robot.torso))
        reach = np.linalg.norm(self._data.geom_xpos[own] - self._middles[0], axis=1)
        return float((reach + nominal.geom_rbound[own]).max())

    def _plan_camera(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, Rotation]:
        """What it looks at, from which side and how high [degrees], what is up, after each tick."""
        per_second = 1 / self.run.spec.dt
        look = gaussian_filter1d(self._middles, LOOK_S * per_second, axis=0, mode="nearest")
        yaw = self._yaw if self.run.spec.pose else np.zeros(len(look))
        turned = gaussian_filter1d(yaw, TURN_S * per_second, mode="nearest")
        azimuth = np.degrees(turned) + self._view[2]
        gravity = np.array([self.model(k).opt.gravity for k in range(len(look))])
        down_x, down_y, _ = gravity.T
        slopes = (np.hypot(down_x, down_y) > 1e-6) & bool(self.run.spec.pose)
        across = np.degrees(np.arctan2(down_y, down_x)) + 90 - azimuth
        aside = np.unwrap(np.r_[0.0, slopes * across], period=180)[1:]  # from the nearer side
        aside = np.stack([aside, np.full(len(look), ACROSS - self._view[1])])
        aside = gaussian_filter1d(slopes * aside, LOOK_S * per_second, mode="nearest")
        gravity = gaussian_filter1d(gravity, TILT_S * per_second, axis=0, mode="nearest")
        gravity += 1e-6 * DOWN  # where nothing is left of it
        upright = [Rotation.align_vectors(g[None], DOWN[None])[0] for g in gravity]
        return look, azimuth + aside[0], self._view[1] + aside[1], Rotation.concatenate(upright)

    def _camera(self, tick: int) -> mujoco.MjvCamera:
        camera = mujoco.MjvCamera()
        camera.lookat[:] = self._look[tick]
        camera.azimuth, camera.elevation = self._azimuth[tick], self._elevation[tick]
        camera.distance = self._radius * self._view[0]
        return camera

    def _tilt_camera(self, tick: int) -> None:
        """Keep the camera level in the true vertical, so that a slope looks like one."""
        turn, centre = self._upright[tick], self._look[tick]
        for eye in self._scene.camera:
            eye.pos = centre + turn.apply(eye.pos - centre)
            eye.forward, eye.up = turn.apply(eye.forward), turn.apply(eye.up)

    # --- what is drawn on the floor --------------------------------------------------------------

    def _path_and_targets(
        self,
    ) -> tuple[Float[np.ndarray, "p 3"], Float[np.ndarray, "t 3"], float]:
        """Tiles of the path (x, y, heading); where the robot is to be, and how near that is."""
        run, task, nothing = self.run, self._task, np.empty((0, 3))
        if isinstance(task, tasks.PathTask):
            soon = np.array([float(task.schedule[0]) for _ in followed(task, run)])
            at = np.round((soon + AHEAD_S * task.speed) / task.STEP).astype(int)
            points = task.path[0].double().numpy()
            length = task.speed * len(soon) * run.spec.dt + MORE
            targets = points[at.clip(max=len(points) - 1)]
            targets[:, 2] = MARK_HEIGHT
            return points[: round(length / task.STEP) : STRIDE], targets, MARK
        if isinstance(task, tasks.ReachTask):
            targets = self._places.copy()  # as high as the robot, where it cannot rise
            for place, _ in zip(targets, followed(task, run), strict=True):
                target = task.targets[0, task.at[0]].numpy()
                place[: len(target)] = target
            return nothing, targets, task.NEAR * task.size
        return nothing, nothing, MARK

    def _draw_ground(self, tick: int) -> None:
        """The path, the way so far, where damage struck, and where the robot should be."""
        for x, y, heading in self._path:
            self._tile((x, y), heading, (0.026, 0.018), 0.0003, to_rgba("#70757A"))
        if self._trail:
            self._draw_trail(tick)
        for perturbation in self.active(tick):
            for box in perturbation.boxes(*self._places[tick][:2].tolist()):
                self._add(mujoco.mjtGeom.mjGEOM_BOX, box.size, box.place, 0.0, box.rgba)
        for perturbation in self.perturb:
            struck = round(perturbation.onset / self.run.spec.dt) - 1
            if self._trail and 0 <= struck <= tick:
                size, place = (0.04, 0.003, 0.0), (*self._places[struck][:2], 0.003)
                self._add(mujoco.mjtGeom.mjGEOM_CYLINDER, size, place, 0.0, to_rgba(DAMAGE))
        if len(self._targets):
            size, place = (self._near, 0.0, 0.0), tuple(self._targets[tick])
            self._add(mujoco.mjtGeom.mjGEOM_SPHERE, size, place, 0.0, to_rgba("#00C853"))

    def _draw_causes(self, tick: int) -> None:
        """What no paint shows: where a limb was lost, a load, what blows or flows."""
        model, now = self._shown[1], (tick + 1) * self.run.spec.dt
        for cause in (p.at(now) for p in self.active(tick)):
            for body in cause.marked_bodies(self.robot):
                limb = np.isin(model.geom_bodyid, subtree(model, body))
                if not model.geom_rgba[limb, 3].any():
                    hinge = np.isin(model.jnt_bodyid, subtree(model, body)).argmax()
                    self._ball(self._data.xanchor[hinge], STUMP * self._radius)
            if load := cause.load():
                self._load(*load)
            if arrow := cause.arrow(now):
                self._arrow(tick, *arrow)

    def _load(self, mass: float, x: float, y: float) -> None:
        """It lies on top of the torso, or hangs beside it."""
        radius = (mass / STONE * 3 / (4 * np.pi)) ** (1 / 3)
        torso = self._data.body(self.robot.torso)
        turned = torso.xmat.reshape(3, 3)
        above = self._radius * turned[:, 2]
        place = torso.xpos + turned @ (x, y, 0.0)
        share = mujoco.mj_ray(self._shown[1], self._data, place + above, -above, None, 0, -1, None)
        if share >= 0:
            place += (1 - share + radius / self._radius) * above
        self._ball(place, radius)

    def _ball(self, place: Float[np.ndarray, " 3"], radius: float) -> None:
        ball = mujoco.mjtGeom.mjGEOM_SPHERE
        self._add(ball, (radius, 0.0, 0.0), tuple(place), 0.0, to_rgba(DAMAGE))

    def _arrow(self, tick: int, direction: float, share: float) -> None:
        """Above the robot, of a share of its full size."""
        size = share * self._radius
        half = ARROW / 2 * size * np.array([np.cos(direction), np.sin(direction), 0.0])
        middle = self._middles[tick] - ARROW_HEIGHT * self._radius * DOWN
        kind, unset = mujoco.mjtGeom.mjGEOM_ARROW, (0.0, 0.0, 0.0)
        self._add(kind, unset, unset, 0.0, to_rgba(DAMAGE))
        geom = self._scene.geoms[self._scene.ngeom - 1]
        mujoco.mjv_connector(geom, kind, ARROW_WIDTH * size, middle - half, middle + half)

    def _draw_trail(self, tick: int) -> None:
        rgba = to_rgba(colour(self.run.agent))
        oldest = max(0, tick - round(TRAIL_S / self.run.spec.dt))
        way = self._places[oldest : tick + 1, :2]
        for start, end in itertools.pairwise(way):
            (dx, dy), (x, y) = end - start, (start + end) / 2
            half = np.hypot(dx, dy) / 2 + 0.004
            self._tile((x, y), np.arctan2(dy, dx), (half, 0.006), 0.001, rgba)

    def _tile(
        self,
        place: tuple[float, float],
        heading: float,
        size: tuple[float, float],
        height: float,
        rgba: tuple[float, float, float, float],
    ) -> None:
        box = mujoco.mjtGeom.mjGEOM_BOX
        self._add(box, (*size, height), (*place, self._ground(*place)), heading, rgba)

    def _ground(self, x: float, y: float) -> float:
        """How high the terrain is, where it acts [m]."""
        model = self._shown[1]
        if not model.nhfield or not model.geom(TERRAIN).rgba[3]:
            return 0.0
        above, down = np.array([x, y, SKY]), np.array([0.0, 0.0, -1.0])
        return SKY - mujoco.mj_rayHfield(model, self._data, model.geom(TERRAIN).id, above, down)

    def _add(
        self,
        kind: mujoco.mjtGeom,
        size: tuple[float, float, float],
        place: tuple[float, float, float],
        heading: float,
        rgba: tuple[float, float, float, float],
    ) -> None:
        """One more geom in the scene, and not in the model."""
        geom = self._scene.geoms[self._scene.ngeom]
        cos, sin = np.cos(heading), np.sin(heading)
        turned = np.array([cos, -sin, 0, sin, cos, 0, 0, 0, 1])
        mujoco.mjv_initGeom(
            geom, kind, np.array(size), np.array(place), turned, np.array(rgba, np.float32)
        )
        geom.category = mujoco.mjtCatBit.mjCAT_DECOR
        self._scene.ngeom += 1
