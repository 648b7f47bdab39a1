"""Does adapting take more memory, or more time, after an hour on a robot?

Every adapter, untrained, at the default size of the network, adapts tick by tick to noise, behind
the gate, as many ticks as a robot has in that time. Memory is compared with what the process held
after a minute.

    python benchmarks/adapting_hour.py --robot ant --minutes 60

Exits with 1 if any grew by more than GROWTH_MB.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from controllers.learned import LearnedModel
from mbmrl import registry
from mbmrl.dynamics import Dynamics
from mbmrl.settings import settings_for
from mbmrl.spec import RobotSpec
from mbmrl.types import Transitions

GROWTH_MB = 2.0
"""More is a leak: a hundred bytes a tick are 7 MB in an hour at 20 Hz."""


def resident_mb() -> float:
    """Memory that this process holds."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def drive(adapter: str, spec: RobotSpec, minutes: float) -> tuple[float, float, float]:
    """Growth [MB], and the time of a tick [ms] in the first minute and in the last one."""
    torch.manual_seed(0)
    settings = settings_for(spec.name)
    dynamics = Dynamics(spec, settings.hidden).requires_grad_(False)
    learner = registry.load("adapters", adapter)(dynamics).requires_grad_(False)
    model = LearnedModel(dynamics, learner, settings.window)
    minute = round(60 / spec.dt)
    took = np.zeros(max(2, round(minutes)) * minute)
    held = 0.0
    obs = torch.randn(1, 1, spec.num_obs)
    for t in range(len(took)):
        start = time.perf_counter()
        act, after = torch.randn(1, 1, spec.num_act), torch.randn(1, 1, spec.num_obs)
        model.observe(Transitions(obs, act, after))
        model.adapted()
        obs = after
        took[t] = time.perf_counter() - start
        if t == minute:
            held = resident_mb()
    first, last = (1e3 * float(np.median(x)) for x in (took[:minute], took[-minute:]))
    return resident_mb() - held, first, last


def main() -> None:
    """Drive each, and show."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--robot", default="ant")
    parser.add_argument("--minutes", type=float, default=60.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        spec = registry.load("robots", args.robot).spec
    except registry.UnknownName as error:
        parser.error(str(error))
    table = Table(box=box.SIMPLE_HEAD, title=f"{args.robot}, {args.minutes:g} minutes")
    for column in ("adapter", "grew [MB]", "a tick, first minute [ms]", "last minute [ms]"):
        table.add_column(column, justify="left" if column == "adapter" else "right")
    leaks = []
    for name in registry.names("adapters"):
        grew, first, last = drive(name, spec, args.minutes)
        table.add_row(name, f"{grew:.1f}", f"{first:.2f}", f"{last:.2f}")
        print(name, f"{grew:.1f} MB", file=sys.stderr)
        if grew > GROWTH_MB:
            leaks.append(name)
    Console().print(table)
    if leaks:
        sys.exit(f"more than {GROWTH_MB:g} MB: {', '.join(leaks)}")


if __name__ == "__main__":
    main()
