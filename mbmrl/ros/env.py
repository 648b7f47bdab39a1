"""Where ROS 2 is found: in the system, or in this Python's own packages."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CONFIG = Path(__file__).parent / "config"
"""Parameter files, and a Fast DDS profile that finds others fast."""


class NoRos(ValueError):
    """There is no ROS 2 here."""


def prepare() -> None:
    """Make ROS 2 importable.

    Wheels lie where nothing of ROS looks for them unless ``AMENT_PREFIX_PATH`` says so. Their
    shared libraries are found through ``LD_LIBRARY_PATH``, which is read when a process starts:
    the wheels start Python anew for that, by themselves.

    Raises:
        NoRos: what to install.
    """
    paths = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    if sys.prefix not in paths:
        os.environ["AMENT_PREFIX_PATH"] = os.pathsep.join([sys.prefix, *filter(None, paths)])
    try:
        import rclpy  # noqa: F401
        import rosgraph_msgs  # noqa: F401
    except ImportError as error:
        raise NoRos(
            f"ROS 2 is not there ({error}). On x86-64 with CPython 3.11: pip install 'mbmrl[ros]'. "
            "Elsewhere install ROS 2 Jazzy (apt install ros-jazzy-ros-base) and "
            "`source /opt/ros/jazzy/setup.bash` first"
        ) from error
