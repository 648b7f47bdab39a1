"""What there is by name, and what this machine brings."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from mbmrl import __version__, checkpoint, conditions, registry
from mbmrl.compose import AGENTS
from mbmrl.engines import base as engines
from mbmrl.scene import NoOpenGL, backend

LIBRARIES = ("torch", "mujoco", "dm-control", "numpy", "scipy", "safetensors")
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")


def listing(what: str) -> Table:
    """A table of the components of a kind, of the agents, or of the shipped checkpoints."""
    if what == "agents":
        return _table(what, ["name", "what it is"], [*map(list, AGENTS.items())])
    if what == "checkpoints":
        columns = ["robot", "default adapter", "learners", "size", "validation loss", "made by"]
        return _table(what, columns, [_checkpoint(name) for name in checkpoint.shipped()])
    described = [list(line) for line in registry.describe(what).items()]
    if what == "robots":
        drivers = registry.drivers().items()
        described += [[f"{d}=FILE", (c.__doc__ or "").partition("\n")[0]] for d, c in drivers]
    if what != "perturbations":
        return _table(what, ["name", "what it is"], described)
    rows = [[name, _keys(registry.load(what, name)), line] for name, line in described]
    return _table(what, ["name", "keys", "what it is"], rows)


def machine() -> Table:
    """Versions, processor, threads and rendering."""
    import torch

    flags = _cpu_info("flags").split()
    try:
        rendering = backend()
    except NoOpenGL as error:
        rendering = str(error)
    rows = [
        ["mbmrl", __version__],
        ["python", f"{platform.python_version()} ({sys.executable})"],
        *([name, version_of(name)] for name in LIBRARIES),
        ["processor", processor()],
        ["cores", str(os.cpu_count())],
        [
            "threads",
            f"{torch.get_num_threads()} (OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')})",
        ],
        ["instructions", ", ".join(f for f in CPU_FLAGS if f in flags) or "none of interest"],
        *([f"engine: {name}", found] for name, found in engines.availability().items()),
        ["engine in use", engines.best().name],
        ["GPU", torch.cuda.get_device_name() if torch.cuda.is_available() else "none"],
        ["OpenGL", rendering],
    ]
    return _table("this machine", ["", ""], rows)


def _checkpoint(robot: str) -> list[str]:
    """One shipped checkpoint, with the figures of its training."""
    folder = checkpoint.SHIPPED / robot
    found = checkpoint.load(folder)
    size = sum(f.stat().st_size for f in folder.iterdir()) / 1e6
    losses: dict[str, float] = found.training.get("validation_loss", {})
    shown = "  ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
    made_by = str(found.training.get("command", ""))
    return [
        robot,
        found.default,
        ", ".join(sorted(found.learners)),
        f"{size:.1f} MB",
        shown,
        made_by,
    ]


def _keys(cls: type[Any]) -> str:
    """A perturbation's keys, as they are written."""
    shown = []
    for f in conditions.keys(cls):
        default = "" if f.default is dataclasses.MISSING else f.default
        shown.append(
            f"{f.name}={default:g}" if isinstance(default, float) else f"{f.name}={default}"
        )
    return " ".join(shown)


def processor() -> str:
    """Its name."""
    return _cpu_info("model name") or platform.processor() or platform.machine()


def _cpu_info(key: str) -> str:
    """The first such line of /proc/cpuinfo; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def version_of(library: str) -> str:
    """Of an installed library, as pip calls it."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=any(columns), box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
