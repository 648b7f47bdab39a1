"""Components by name: the files of a package, entry points, and ``package.module:Class``.

A file in ``robots/``, ``robots/perturbations/``, ``controllers/`` or ``mbmrl/adapters/`` that
defines a concrete subclass of the kind's base class, with a ``name`` of its own, is registered by
being there.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast


@dataclass(frozen=True)
class Kind:
    """One kind of component.

    Attributes:
        package: every module of it is searched.
        base: what a component is a subclass of, as ``module:Class``.
        group: the entry points that bring components from elsewhere.
    """

    package: str
    base: str
    group: str


KINDS = {
    "robots": Kind("robots", "robots.base:Robot", "mbmrl.robots"),
    "perturbations": Kind(
        "robots.perturbations", "robots.perturbations.base:Perturbation", "mbmrl.perturbations"
    ),
    "planners": Kind("controllers", "controllers.base:SamplingPlanner", "mbmrl.planners"),
    "adapters": Kind("mbmrl.adapters", "mbmrl.adapters.base:Adapter", "mbmrl.adapters"),
}


class UnknownName(ValueError):
    """A name or a ``package.module:Class`` that leads to no component."""


def names(kind: str) -> list[str]:
    """Names of all components of a kind, sorted."""
    return sorted(_components(kind))


def describe(kind: str) -> dict[str, str]:
    """First docstring line of each component of a kind, by name."""
    found = _components(kind)
    return {name: (found[name].__doc__ or "").strip().partition("\n")[0] for name in sorted(found)}


def load(kind: str, name: str) -> type[Any]:
    """The class of a component.

    Args:
        kind: one of :data:`KINDS`.
        name: a registered name, or ``package.module:Class``, which is imported as it stands, from
            the current directory too. A robot's driver that is set up by a file is
            ``DRIVER=FILE``, as in ``replay=data/mine``.

    Raises:
        UnknownName: there is no such component; the message says what there is.
    """
    if kind == "robots" and "=" in name:
        return _set_up(*name.split("=", 1))
    if ":" in name:
        return _checked(kind, _theirs(name))
    found = _components(kind)
    if name not in found:
        raise unknown(kind[:-1], name, sorted(found))
    return found[name]


def drivers() -> dict[str, type[Any]]:
    """The drivers in ``robots/`` that a file makes a robot of, by name."""
    return dict(sorted(_from_files("robots", "driver")))


def _set_up(driver: str, file: str) -> type[Any]:
    """The robot that a driver and its file make."""
    if ":" in driver:
        cls = _checked("robots", _theirs(driver))
        if not hasattr(cls, "from_file"):
            raise UnknownName(f"{driver} is set up by no file: it has no method from_file")
    elif driver in drivers():
        cls = drivers()[driver]
    else:
        raise unknown("driver", driver, list(drivers()))
    return _checked("robots", cls.from_file(Path(file)))


def function(path: str) -> Callable[..., Any]:
    """The user's function that ``package.module:function`` stands for.

    Raises:
        UnknownName: there is no such function.
    """
    found = _theirs(path)
    if not callable(found):
        raise UnknownName(f"{path} is no function but {found!r}")
    return found


def unknown(what: str, name: str, known: Sequence[str]) -> UnknownName:
    """The error for a name that is not among the known ones, with the likeliest of them."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return UnknownName(f"no {what} is named {name!r}; {hint}there are: {', '.join(known)}")


def _components(kind: str) -> dict[str, type[Any]]:
    """Every component of a kind by name.

    Raises:
        UnknownName: there is no such kind.
        ValueError: two components share a name.
    """
    if kind not in KINDS:
        raise unknown("kind of component", kind, list(KINDS))
    found: dict[str, type[Any]] = {}
    for name, cls in (*_from_files(kind), *_from_entry_points(kind)):
        if found.setdefault(name, cls) is not cls:
            raise ValueError(
                f"two {kind} are named {name!r}: {_path(found[name])} and {_path(cls)}; rename one"
            )
    return found


def _from_files(kind: str, attribute: str = "name") -> Iterator[tuple[str, type[Any]]]:
    """The concrete, named subclasses of the base class in the modules of the kind's package."""
    package = importlib.import_module(KINDS[kind].package)
    base = _base(kind)
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        try:
            module = importlib.import_module(info.name)
        except ImportError as error:
            raise ImportError(f"{info.name} cannot be imported: {error}") from error
        for cls in vars(module).values():
            if (
                inspect.isclass(cls)
                and cls.__module__ == module.__name__
                and issubclass(cls, base)
                and not inspect.isabstract(cls)
                and isinstance(name := vars(cls).get(attribute), str)
            ):
                yield name, cls


def _from_entry_points(kind: str) -> Iterator[tuple[str, type[Any]]]:
    """The components that installed packages bring; a broken one is named and left out."""
    for entry in entry_points(group=KINDS[kind].group):
        try:
            yield entry.name, _checked(kind, entry.load())
        except Exception as error:  # it is somebody else's code: whatever it raises
            warnings.warn(
                f"entry point {entry.name!r} = {entry.value!r} of {KINDS[kind].group} is left out: "
                f"{error!r}",
                stacklevel=2,
            )


def _theirs(path: str) -> object:
    """:func:`_import`, from the current directory too.

    A console script does not search it, though the user's file lies there. It comes last, so that
    nothing in it shadows a library.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return _import(path)


def _import(path: str) -> object:
    """What ``package.module:Name`` stands for."""
    module_name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        raise UnknownName(f"{path!r} is not of the form package.module:Class")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A library that the module itself lacks is another matter, and raised as it is.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise UnknownName(
            f"{path}: there is no module {error.name!r} in the current directory or installed"
        ) from error
    if not hasattr(module, attribute):
        raise UnknownName(f"{path}: {module.__file__} defines no {attribute!r}")
    return getattr(module, attribute)


def _base(kind: str) -> type[Any]:
    """The base class of a kind; imported here, as some of them need torch or MuJoCo."""
    return cast(type[Any], _import(KINDS[kind].base))


def _checked(kind: str, found: object) -> type[Any]:
    """``found`` itself, once it is known to be a usable class of the kind."""
    base = _base(kind)
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise UnknownName(f"{_path(found)} is not a subclass of {_path(base)}")
    cls: type[Any] = found
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise UnknownName(f"{_path(cls)} does not implement {missing}")
    return cls


def _path(found: object) -> str:
    """How messages name a class."""
    if inspect.isclass(found):
        return f"{found.__module__}:{found.__qualname__}"
    return repr(found)
