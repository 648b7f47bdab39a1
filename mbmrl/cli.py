"""A robot controller that keeps working when the robot changes.

A dynamics model is meta-trained so that the last few seconds of motion adapt it to the robot
as it is right now; at every control step the adapted model plans the next action.

  mbmrl demo             a walking robot breaks, and adapts
  mbmrl list             everything that has a name
  mbmrl COMMAND --help   what a command does, with examples

Exit status: 0 done, 2 what was asked for cannot be done, 1 anything else, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Sequence

# Small models on few cores: more threads only get in each other's way. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import tyro

from mbmrl import __version__, registry
from mbmrl.commands.bench import Bench
from mbmrl.commands.common import EXTRAS, FILE_ERRORS, DriverError, Findings
from mbmrl.commands.compare import Discriminate, Eval
from mbmrl.commands.data import CheckModel, Data, Export, Import, Record
from mbmrl.commands.drive import Demo, Run
from mbmrl.commands.driver import RobotCommand, Ros
from mbmrl.commands.look import Info, List, Plot, Render
from mbmrl.commands.train import Train

COMMANDS: tuple[type[Callable[[], None]], ...] = (
    Demo,
    Run,
    Eval,
    Discriminate,
    Train,
    Record,
    Data,
    CheckModel,
    Import,
    Export,
    RobotCommand,
    Ros,
    Plot,
    Render,
    List,
    Info,
    Bench,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    from robots.base import interruptible

    try:
        with interruptible():  # a kill would leave worker processes behind
            _parse(list(sys.argv[1:] if argv is None else argv))()
    except KeyboardInterrupt:
        return _end("interrupted", 130)
    except BrokenPipeError:  # of `mbmrl list | head`; what is still buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ConnectionError, TimeoutError) as error:
        return _end(f"the robot cannot be reached: {error or type(error).__name__}", 1)
    except (ValueError, *FILE_ERRORS) as error:
        return _end(str(error), 2)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return _end(f"the disk is full: {error}", 1)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if not extra:
            raise
        return _end(f"{error.name} is not installed: pip install 'mbmrl[{extra}]'", 2)
    except RuntimeError as error:
        if "MUJOCO_GL" in str(error):  # nothing that needs mujoco can be imported
            return _end(f"{error}; leave it out, or take egl or osmesa", 2)
        from mbmrl.loop import BadObservation
        from mbmrl.safety import Stale, Unsafe
        from mbmrl.scene import NoOpenGL
        from robots.sim import Diverged

        foreseen = BadObservation | Stale | Unsafe | Diverged | NoOpenGL | Findings | DriverError
        if not isinstance(error, foreseen):
            raise
        return _end(str(error), 1)
    return 0


def command_name(command: type[object]) -> str:
    """How users call it: ``CheckModel`` is ``check-model``, ``RobotCommand`` is ``robot``."""
    name = command.__name__.removesuffix("Command")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


def _parse(argv: list[str]) -> Callable[[], None]:
    """The command that the arguments stand for; exits on ``--help`` and on mistakes."""
    by_name = {command_name(cls): cls for cls in COMMANDS}
    name, *rest = argv or ["--help"]
    if name in by_name:
        flags = (tyro.conf.FlagCreatePairsOff,)
        return tyro.cli(by_name[name], prog=f"mbmrl {name}", args=rest, config=flags)
    if name in ("-h", "--help"):
        lines = {name: (cls.__doc__ or "").partition("\n")[0] for name, cls in by_name.items()}
        commands = "\n".join(f"  {name:12} {line}" for name, line in lines.items())
        about = (__doc__ or "").strip()
        print(f"usage: mbmrl COMMAND [--help] … | --version\n\n{about}\n\nCommands:\n{commands}")
        raise SystemExit(0)
    if name == "--version":
        print(f"mbmrl {__version__}")
        raise SystemExit(0)
    raise registry.unknown("command", name, list(by_name))


def _end(message: str, status: int) -> int:
    print(f"mbmrl: {message}", file=sys.stderr)
    return status
