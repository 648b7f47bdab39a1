"""Write docs/robots.md and its pictures, from the robots themselves.

Run it again wherever a robot changed (`python benchmarks/robots_page.py`): a test compares the page
with what would be written now. The pictures need OpenGL.
"""

from __future__ import annotations

import argparse
import inspect
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from mbmrl import conditions, registry, tasks
from mbmrl.commands.look import Render
from mbmrl.compose import task_for
from mbmrl.spec import Field
from robots.sim import SimRobot

PAGE = Path(__file__).parent.parent / "docs" / "robots.md"
PICTURES = PAGE.parent / "robots"
SIZE = 480, 360  # of a picture [pixels]

REAL = {
    "hexapod": "Real ones have a position servo in each joint, on a bus; the gait generator that "
    "takes the amplitudes runs beside the controller, as here.",
    "quadruped_gait": "The same servos as those of `quadruped`, which a gait generator beside the "
    "controller drives.",
    "quadruped": "The real one's motors take a target angle with a stiffness and a damping, and "
    "close that loop themselves.",
    "rover": "Real ones take wheel speeds, and their motor controllers keep to them.",
    "ant": "Small legged robots have such servos, which take a target angle.",
    "ant_torque": "Motors under current control, without a gearbox that rubs, are told torques.",
    "cheetah": "Motors under current control are told torques; nothing real is held in a plane "
    "without a boom.",
    "pier": "As for the cheetah.",
    "swimmer": "Motors under current control are told torques; real snakes mostly have position "
    "servos.",
    "fish": "Small waterproof servos take a target angle.",
    "fish_torque": "Magnets that coils swing, as in Bluebot's fins, are told torques.",
}
"""Every robot, and what its kind takes where it is built."""

ALIKE: dict[str, dict[str, Any]] = {
    **{name: {"robot": name} for name in REAL},
    "ant_torque": {"robot": "ant_torque", "agent": "oracle", "seconds": 0.7},
}
"""How each robot is drawn: at rest, if it can stand so."""
PERTURBED: dict[str, dict[str, Any]] = {
    "damaged": {"robot": "hexapod", "perturb": ("damaged_leg:leg=R1",)},
    "water": {"robot": "quadruped", "perturb": ("medium:density=300,level=0.2",)},
    "slope": {
        "robot": "cheetah",
        "perturb": ("slope:angle=0.25", "damaged_joint:joint=bfoot"),
    },
    "hills": {
        "robot": "ant",
        "perturb": ("terrain:roughness=0.3,bump=1",),
        "agent": "babble",
    },
}
"""How some perturbations are drawn."""

INTRODUCTION = """# The reference robots

Every simulated robot that comes along (`mbmrl list robots`), as `mbmrl render` shows it: at rest,
but for `ant_torque`, which lies down without its torques. `python benchmarks/robots_page.py`
writes this page from the robots' own code, and a test holds it to that.

*LEG* stands for each of the limbs, by whose names perturbations know them. Fields without a unit
are pure numbers. The courses are what a task can be told to do by name. The test suite is what
`mbmrl eval` runs; training and the validation suite draw the same kinds at other places or
magnitudes. What a robot also takes, by `--perturb`, is in no suite of its own.

`MBMRL_EPISODES=100 python -m pytest tests/test_perturbations.py -k episodes` drives each robot with
each kind of perturbation that it takes, 167 pairs, through a hundred random episodes, each twice:
none has a NaN or a warning of the simulator's, each repeats itself to the bit, and once nothing is
wrong any more the model is the nominal one again, to the bit. It takes a quarter of an hour; the
tests drive two of each.
"""


def page() -> str:
    """The whole page."""
    shown = "\n".join(map(_perturbed, PERTURBED))
    perturbed = f"## Perturbations, shown\n\nWhat is damaged is red.\n\n{shown}"
    return "\n".join([INTRODUCTION, *map(_section, REAL), perturbed])


def _section(name: str) -> str:
    cls = registry.load("robots", name)
    description = inspect.cleandoc(cls.__doc__).replace("``", "`")
    rows = "\n".join(f"| {label} | {text} |" for label, text in _facts(cls()).items())
    picture = f"![{name}](robots/{name}.jpg)"
    return f"## {name}\n\n{picture}\n\n{description}\n\n{REAL[name]}\n\n| | |\n|---|---|\n{rows}\n"


def _facts(robot: SimRobot) -> dict[str, str]:
    spec, model, legs = robot.spec, robot.nominal, robot.legs
    mass = float(model.body(robot.torso).subtreemass[0])
    suite = conditions.test_suite(robot)
    kinds = Counter(c[0].name if len(c) == 1 else "two at once" for c in suite)
    others = [k.name for k in conditions.allowed(robot) if k not in conditions.kinds_for(robot)]
    facts = {
        "body": f"{mass:.3g} kg, {model.nu} {_drive(robot)}; limbs {_code(legs)}",
        "measures": _fields([f for f in spec.obs if f.name not in spec.known], robot),
        "makes itself": _fields([f for f in spec.obs if f.name in spec.known], robot),
        "takes": _fields(spec.act, robot, limits=True),
        "control period": f"{spec.dt:g} s: {robot.substeps} steps of {model.opt.timestep:g} s",
        "task": _task(type(robot)),
        "test suite": f"{len(suite)}: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items()),
        "also takes": ", ".join(others),
    }
    return {label: text for label, text in facts.items() if text}


def _drive(robot: SimRobot) -> str:
    """What its actuators are, all of which are alike."""
    stiffness, damping = np.abs(robot.nominal.actuator_biasprm[:, 1:3]).max(0)
    return "position servos" if stiffness else "speed servos" if damping else "torque motors"


def _fields(fields: Iterable[Field], robot: SimRobot, *, limits: bool = False) -> str:
    """Names by unit; one name for the fields that every leg has."""
    groups: dict[str, list[str]] = defaultdict(list)
    for f in fields:
        unit = "" if f.unit == "1" else f.unit
        span = f"{f.low:g} to {f.high:g} {unit}".strip() if limits else unit
        groups[span].append(f.name)
    parts = []
    for span, names in groups.items():
        patterns = ["_".join("LEG" if p in robot.legs else p for p in n.split("_")) for n in names]
        every = {p for p, n in Counter(patterns).items() if n == len(robot.legs) > 1}
        short = [p if p in every else n for p, n in zip(patterns, names, strict=True)]
        parts.append(_code(dict.fromkeys(short)) + (f" [{span}]" if span else ""))
    return ", ".join(parts)


def _task(robot: type[SimRobot]) -> str:
    task = task_for(robot, tasks.usual(robot.task))
    what = inspect.cleandoc(type(task).__doc__ or "").partition("\n")[0]
    own, every = tasks.COURSES[robot.task], tasks.offered(robot.task, robot.spec)
    courses = f" Courses: {_code(own)}." if own else ""
    if others := {*every.values()} - {robot.task}:
        courses += f" Takes courses of {_code(sorted(others))}, too."
    return f"`{robot.task}`, at {task.speed:g} m/s. {what}{courses}"


def _code(names: Iterable[str]) -> str:
    return " ".join(f"`{name}`" for name in names)


def _perturbed(name: str) -> str:
    how = PERTURBED[name]
    words = [f"--robot {how['robot']}", *(f"--perturb {p}" for p in how["perturb"])]
    words += [f"--agent {how['agent']}"] if "agent" in how else []
    return f"`mbmrl render {' '.join(words)} --out {name}.png`\n\n![{name}](robots/{name}.jpg)\n"


def draw(name: str, how: dict[str, Any]) -> None:
    """Draw one picture, a small one."""
    with TemporaryDirectory() as folder:
        large = Path(folder) / f"{name}.png"
        Render(out=large, **how)()
        small = Image.open(large).resize(SIZE, Image.Resampling.LANCZOS)
    small.save(PICTURES / f"{name}.jpg", quality=85)


def main() -> None:
    """Write all of it."""
    PICTURES.mkdir(exist_ok=True)
    for name, how in {**ALIKE, **PERTURBED}.items():
        draw(name, how)
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    main()
