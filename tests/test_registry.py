"""The registry: what lies in the tree, what comes by entry point, what is named directly."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbmrl import registry
from mbmrl.registry import KINDS, UnknownName

ROBOT = '''
from robots.base import Robot

class Mine(Robot):
    """A robot on the desk.

    More about it.
    """
    name = "mine"

    def connect(self): ...
    def reset(self): ...
    def read(self): ...
    def write(self, act): return act
    def stop(self): ...

class Unfinished(Robot):
    def connect(self): ...

class Other: ...
'''


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder, the current one, with a package ``desk_pkg`` that holds ROBOT."""
    (tmp_path / "desk_pkg").mkdir()
    (tmp_path / "desk_pkg" / "__init__.py").touch()
    (tmp_path / "desk_pkg" / "mod.py").write_text(ROBOT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("desk_pkg"):
            del sys.modules[name]


def install(folder: Path, *entry_points: str) -> None:
    """Make ``folder`` look like a place where a distribution with robots is installed."""
    info = folder / "desk_pkg-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: desk-pkg\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[mbmrl.robots]", *entry_points]))
    sys.path.insert(0, str(folder))


@pytest.mark.parametrize("kind", KINDS)
def test_every_component_is_named_described_and_loads(kind: str) -> None:
    assert registry.names(kind)
    for name, line in registry.describe(kind).items():
        assert registry.load(kind, name).__module__.startswith(f"{KINDS[kind].package}.")
        assert line.endswith("."), f"{name}: the first docstring line is one sentence"


@pytest.mark.parametrize(
    ("kind", "some"),
    [
        ("robots", {"hexapod", "cheetah"}),
        ("perturbations", {"damaged_leg", "damaged_joint", "payload", "buoyancy", "friction"}),
        ("perturbations", {"slope", "motor_strength"}),
        ("planners", {"cem", "mppi", "random"}),
        ("adapters", {"maml", "bayes", "rls", "maml_bayes", "none"}),
    ],
)
def test_the_tree_brings(kind: str, some: set[str]) -> None:
    assert some <= set(registry.names(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_name_says_what_there_is(kind: str) -> None:
    known = registry.names(kind)
    with pytest.raises(UnknownName, match=f"did you mean '{known[0]}'") as error:
        registry.load(kind, known[0] + "x")
    assert all(name in str(error.value) for name in known)


def test_a_name_like_no_other_gets_no_suggestion() -> None:
    with pytest.raises(UnknownName, match="no robot is named 'qqqqq'; there are: "):
        registry.load("robots", "qqqqq")


def test_an_unknown_kind_says_what_there_is() -> None:
    with pytest.raises(UnknownName, match="robots, perturbations, planners, adapters"):
        registry.names("robot")


def test_a_class_of_the_current_directory_loads_by_path(desk: Path) -> None:
    assert registry.load("robots", "desk_pkg.mod:Mine").name == "mine"
    assert "mine" not in registry.names("robots")


def test_the_current_directory_shadows_no_library(desk: Path) -> None:
    (desk / "json").mkdir()
    registry.load("robots", "desk_pkg.mod:Mine")
    assert sys.path.index(str(desk)) == len(sys.path) - 1


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("absent_pkg.mod:Mine", "no module 'absent_pkg'"),
        ("desk_pkg.absent:Mine", "no module 'desk_pkg.absent'"),
        ("desk_pkg.mod:Absent", "mod.py defines no 'Absent'"),
        ("desk_pkg.mod:Other", "desk_pkg.mod:Other is not a subclass of robots.base:Robot"),
        ("desk_pkg.mod:ROBOT_LIMIT", "defines no 'ROBOT_LIMIT'"),
        ("desk_pkg.mod:__name__", "'desk_pkg.mod' is not a subclass of robots.base:Robot"),
        ("desk_pkg.mod:Unfinished", "does not implement read, reset, stop, write"),
        ("./mod.py:Mine", "is not of the form package.module:Class"),
        ("desk_pkg.mod:", "is not of the form package.module:Class"),
        (":Mine", "is not of the form package.module:Class"),
    ],
)
def test_a_bad_path_says_what_is_wrong(desk: Path, path: str, message: str) -> None:
    with pytest.raises(UnknownName, match=message):
        registry.load("robots", path)


def test_a_library_that_the_users_module_lacks_is_not_taken_for_the_module(desk: Path) -> None:
    (desk / "desk_pkg" / "needy.py").write_text("import absent_sdk")
    with pytest.raises(ModuleNotFoundError, match="absent_sdk"):
        registry.load("robots", "desk_pkg.needy:Mine")


def test_an_entry_point_brings_a_robot_under_its_own_name(desk: Path) -> None:
    install(desk, "desk = desk_pkg.mod:Mine")
    assert {"desk", "hexapod"} <= set(registry.names("robots"))
    assert registry.load("robots", "desk").__name__ == "Mine"
    assert registry.describe("robots")["desk"] == "A robot on the desk."


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("desk_pkg.absent:Mine", "No module named 'desk_pkg.absent'"),
        ("desk_pkg.mod:Absent", "Absent"),
        ("desk_pkg.mod:Other", "not a subclass"),
    ],
)
def test_a_broken_entry_point_is_named_and_breaks_nothing_else(
    desk: Path, value: str, message: str
) -> None:
    install(desk, f"broken = {value}", "desk = desk_pkg.mod:Mine")
    with pytest.warns(UserWarning, match=f"'broken' = '{value}' .*{message}"):
        found = registry.names("robots")
    assert {"desk", "hexapod"} <= set(found)
    assert "broken" not in found


def test_two_components_of_one_name_are_refused(desk: Path) -> None:
    install(desk, "hexapod = desk_pkg.mod:Mine")
    with pytest.raises(ValueError, match="'hexapod': robots.hexapod:Hexapod and desk_pkg.mod:Mine"):
        registry.names("robots")


def test_a_broken_file_of_the_tree_is_named(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import robots

    (desk / "needy.py").write_text("import absent_sdk")
    monkeypatch.setattr(robots, "__path__", [*robots.__path__, str(desk)])
    with pytest.raises(ImportError, match="robots.needy cannot be imported: .*absent_sdk"):
        registry.names("robots")


def test_only_concrete_classes_with_a_name_of_their_own_count(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import robots

    (desk / "desk_robot.py").write_text(
        ROBOT + "class Helper(Mine): ...\nclass Second(Mine): name = 'second'\n"
        "from robots.hexapod import Hexapod\nAlias = Mine\n"
    )
    before = set(registry.names("robots"))
    monkeypatch.setattr(robots, "__path__", [*robots.__path__, str(desk)])
    assert set(registry.names("robots")) - before == {"mine", "second"}


BUGGY = """
from dataclasses import replace
from robots.rover import Rover

class Buggy(Rover):
    \"\"\"A rover by another name.\"\"\"
    name = "buggy"
    spec = replace(Rover.spec, name="buggy")
"""
STICKY = """
from dataclasses import dataclass
from robots.perturbations.base import Magnitude, Perturbation, in_range

DRAG = Magnitude(mild=(0.1, 0.2), test=(0.3, 0.4), harsh=(0.5, 0.6))

@dataclass(frozen=True, kw_only=True)
class Sticky(Perturbation):
    \"\"\"Every joint rubs.\"\"\"
    name = "sticky"
    magnitudes = {"drag": 0.0}
    drag: float

    def check(self, robot):
        in_range("drag", self.drag, 0.0, 1.0)

    def apply(self, model, robot):
        model.dof_damping += self.drag

    @classmethod
    def sample(cls, robot, rng, split):
        return cls(drag=round(DRAG.draw(rng, split), 3))
"""


@pytest.mark.slow
def test_what_a_package_adds_is_held_to_the_contracts(tmp_path: Path) -> None:
    """A robot and a perturbation, a file each, and nothing else anywhere."""
    (tmp_path / "attic").mkdir()
    for name, text in (("__init__", ""), ("buggy", BUGGY), ("sticky", STICKY)):
        (tmp_path / "attic" / f"{name}.py").write_text(text)
    info = tmp_path / "attic-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: attic\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[mbmrl.robots]\nbuggy = attic.buggy:Buggy\n"
        "[mbmrl.perturbations]\nsticky = attic.sticky:Sticky\n"
    )
    files = ["tests/test_robots.py", "tests/test_perturbations.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-k", "buggy or sticky", *files]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
    counted = int(done.stdout.rsplit(" passed", 1)[0].split()[-1])
    assert counted > 40, done.stdout[-500:]
