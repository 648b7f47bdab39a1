"""Who may import whom, as in docs/architecture.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

from mbmrl import registry

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for package in ("mbmrl", "controllers", "robots")
    for path in (ROOT / package).rglob("*.py")
)
PROJECT = ("mbmrl", "controllers", "robots")
LEARNING = (
    "mbmrl.spec",
    "mbmrl.types",
    "mbmrl.dynamics",
    "mbmrl.params",
    "mbmrl.graph",
    "mbmrl.adapters",
    "mbmrl.meta",
    "mbmrl.data",
    "mbmrl.tasks",
    "mbmrl.fit",
    "mbmrl.checkpoint",
)
SIMULATION = ("numpy", "scipy", "mujoco", "dm_control", "jaxtyping", "typing_extensions")


@dataclass(frozen=True)
class Rule:
    """What the files that match may import, each name with all that is below it.

    Attributes:
        files: a pattern; the first rule that fits a file is the one that holds.
        project: of the project, wherever the import stands.
        libraries: of other people's when the module is imported; None for any. A function may
            import more.
        never: not even in a function.
    """

    files: str
    project: tuple[str, ...] = ()
    libraries: tuple[str, ...] | None = None
    never: tuple[str, ...] = ()


RULES = (
    Rule("mbmrl/__init__.py", libraries=()),
    Rule("mbmrl/spec.py", libraries=("numpy",)),
    Rule("mbmrl/safety.py", libraries=("numpy", "jaxtyping")),
    Rule("mbmrl/registry.py", libraries=()),
    Rule("mbmrl/recording.py", ("mbmrl.spec",), ("numpy", "jaxtyping", "typing_extensions")),
    Rule("mbmrl/doubts.py", ("mbmrl.spec",), ("numpy", "jaxtyping")),
    Rule("mbmrl/adapters/*", LEARNING),
    Rule("mbmrl/tasks/*", LEARNING),
    # A checkpoint names its adapter.
    Rule("mbmrl/checkpoint.py", (*LEARNING, "mbmrl.registry")),
    *(Rule(f"{name.replace('.', '/')}.py", LEARNING) for name in LEARNING),
    Rule("mbmrl/loop.py", ("mbmrl.spec", "mbmrl.types")),
    Rule("mbmrl/engines/*", ("mbmrl.engines", "mbmrl.dynamics", "mbmrl.spec", "mbmrl.types")),
    Rule("controllers/*", ("controllers", "mbmrl.engines", *LEARNING)),
    Rule("robots/replay.py", ("robots", "mbmrl.recording"), SIMULATION, never=("torch",)),
    Rule("mbmrl/ros/intake.py"),
    Rule(
        "robots/ros2.py",
        ("robots", "mbmrl.spec", "mbmrl.safety", "mbmrl.ros.intake"),
        SIMULATION,
        never=("torch",),
    ),
    Rule("robots/*", ("robots", "mbmrl.spec", "mbmrl.safety"), SIMULATION, never=("torch",)),
    # The rest composes, see test_components_come_by_the_registry.
    Rule("mbmrl/*", PROJECT),
)


def rule_of(file: str) -> Rule:
    return next(rule for rule in RULES if fnmatch(file, rule.files))


def imports(tree: ast.AST, in_function: bool = False) -> Iterator[tuple[str, bool]]:
    """Every imported name, and whether the import stands in a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, in_function) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from ((f"{node.module}.{alias.name}", in_function) for alias in node.names)
        else:
            is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            yield from imports(node, in_function or is_function)


def below(name: str, tops: tuple[str, ...]) -> bool:
    return any(f"{name}.".startswith(f"{top}.") for top in tops)


def broken(rule: Rule, source: str) -> list[str]:
    """The imports that the rule forbids."""
    found = []
    for name, in_function in imports(ast.parse(source)):
        if below(name, PROJECT):
            good = below(name, rule.project)
        elif below(name, tuple(sys.stdlib_module_names)) or rule.libraries is None or in_function:
            good = not below(name, rule.never)
        else:
            good = below(name, rule.libraries)
        if not good:
            found.append(name)
    return found


@pytest.mark.parametrize("file", FILES)
def test_imports_only_what_it_may(file: str) -> None:
    assert broken(rule_of(file), (ROOT / file).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("mbmrl/")])
def test_components_come_by_the_registry(file: str) -> None:
    modules = tuple(
        registry.load(kind, name).__module__
        for kind in ("robots", "perturbations", "planners")
        for name in registry.names(kind)
    )
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert [name for name, _ in imports(tree) if below(name, modules)] == []


@pytest.mark.parametrize(
    ("file", "source", "forbidden"),
    [
        ("mbmrl/spec.py", "import torch", "torch"),
        ("mbmrl/dynamics.py", "def f():\n from robots.sim import SimRobot", "robots.sim.SimRobot"),
        ("mbmrl/adapters/maml.py", "from controllers import base", "controllers.base"),
        ("mbmrl/loop.py", "import robots.hexapod", "robots.hexapod"),
        ("controllers/cem.py", "import robots", "robots"),
        ("robots/spot.py", "def f():\n import torch", "torch"),
        ("robots/spot.py", "import vendor_sdk", "vendor_sdk"),
        ("robots/perturbations/wind.py", "from mbmrl.types import Plan", "mbmrl.types.Plan"),
    ],
)
def test_the_rules_find_what_they_forbid(file: str, source: str, forbidden: str) -> None:
    assert broken(rule_of(file), source) == [forbidden]


def test_a_driver_may_import_its_sdk_in_a_function() -> None:
    assert broken(rule_of("robots/spot.py"), "def connect(self):\n import vendor_sdk") == []


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("mbmrl", ["torch", "mujoco", "numpy"]),
        ("mbmrl.registry", ["torch", "mujoco", "numpy"]),
        ("mbmrl.spec", ["torch", "mujoco"]),
        ("mbmrl.safety", ["torch", "mujoco"]),
        ("robots.ros2", ["torch", "mujoco", "rclpy"]),
        ("robots.base", ["torch", "mujoco"]),
        ("robots.perturbations.base", ["torch"]),
    ],
)
def test_import_is_light(module: str, heavy: list[str]) -> None:
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
