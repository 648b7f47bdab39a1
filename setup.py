"""Packaging for pip and, as an ament_python package, for colcon."""

import re
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

HAS_WHEELS = "python_version == '3.11' and platform_machine == 'x86_64' and sys_platform == 'linux'"

version = re.search(
    r'^__version__ = "(.+)"$', Path("mbmrl/__init__.py").read_text(encoding="utf-8"), re.MULTILINE
)
assert version is not None, "mbmrl/__init__.py defines no __version__"

DYNAMIXEL = ["dynamixel-sdk", "ruamel.yaml"]
BAGS = ["rosbags", "ruamel.yaml"]

setup(
    name="mbmrl",
    version=version[1],
    description="A robot controller that keeps working when the robot changes: "
    "meta-learned dynamics, online adaptation, sampling-based planning",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(
        include=["mbmrl", "mbmrl.*", "controllers", "controllers.*", "robots", "robots.*"]
    ),
    package_data={"mbmrl": ["py.typed", "checkpoints/**/*", "engines/*.cpp", "ros/config/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/mbmrl"]),
        ("share/mbmrl", ["package.xml"]),
        ("share/mbmrl/launch", sorted(glob("launch/*.launch.py"))),
        ("share/mbmrl/config", sorted(glob("mbmrl/ros/config/*"))),
    ],
    zip_safe=False,
    install_requires=[
        "torch",
        # dm-control's suite.load() fails with mujoco 4 (flex_vertedge).
        "mujoco>=3.17,<4",
        "dm-control",
        "numpy",
        "scipy",
        "tyro",
        "rich",
        "safetensors",
        "jaxtyping",
        "tensorboard",
        "matplotlib",
        "imageio-ffmpeg",
    ],
    extras_require={
        "dev": [
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "beartype",
            "ruff",
            "mypy",
            *DYNAMIXEL,
            *BAGS,
            "mcap-ros2-support",  # Foxglove's own reader, for a bag of ours
        ],
        # A bus of servos, by `--robot dynamixel=FILE`.
        "dynamixel": DYNAMIXEL,
        # `mbmrl import` and `mbmrl export`.
        "bags": BAGS,
        # What `mbmrl bench` compares with, each where installed. mbrl 0.2.0 is not among them: it
        # pins a hydra-core that fails on Python 3.11. `pip install --no-deps mbrl==0.2.0` beside
        # these serves.
        "bench": [
            "pytorch-mppi",
            "pytorch-icem",
            "torchrl",
            "torchopt",
            "higher",
            "hydra-core>=1.3",
            "gymnasium",
        ],
        # Empty where there are no wheels: take ROS 2 from the system's packages there.
        "ros": [
            f"ros-jazzy-{name}; {HAS_WHEELS}"
            for name in (
                "rclpy",
                "rmw-fastrtps-cpp",
                "std-msgs",
                "std-srvs",
                "sensor-msgs",
                "geometry-msgs",
                "nav-msgs",
                "trajectory-msgs",
                "diagnostic-msgs",
                "lifecycle-msgs",
                "rosgraph-msgs",
            )
        ],
    },
    entry_points={
        "console_scripts": [
            "mbmrl = mbmrl.cli:main",
            "controller_node = mbmrl.ros.main:controller",
            "robot_node = mbmrl.ros.main:robot",
            "watchdog_node = mbmrl.ros.main:watchdog",
        ]
    },
)
