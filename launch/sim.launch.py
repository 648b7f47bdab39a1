"""A simulated robot and its controller; on request, something happens to the robot."""

import shutil
import sys
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

ARGUMENTS = {
    "robot": ("hexapod", "From `mbmrl list robots`, or package.module:Class."),
    "checkpoint": ("", "Folder of the trained model; empty: the one shipped for the robot."),
    "perturb": ("", "KIND:key=value,… from `mbmrl list perturbations`; empty: nothing happens."),
    "at": ("10.0", "When it happens [s]."),
    "seed": ("0", "Of the robot's initial state."),
    "params": ("", "Parameter file, for both nodes."),
}


def start(context: LaunchContext) -> list[ExecuteProcess]:
    """The robot's node."""
    mbmrl = (
        [shutil.which("mbmrl")] if shutil.which("mbmrl") else [sys.executable, "-m", "mbmrl.cli"]
    )
    said = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    args = ["--set", f"robot={said['robot']}", "--set", f"seed={said['seed']}"]
    if said["perturb"]:
        args += ["--set", f"perturb=['{said['perturb']}']"]
        args += ["--set", f"perturb_after={float(said['at'])}"]
    if said["params"]:
        args += ["--params", said["params"]]
    return [ExecuteProcess(cmd=[*mbmrl, "ros", "robot", *args], output="screen")]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    controller = PythonLaunchDescriptionSource(
        str(Path(__file__).with_name("controller.launch.py"))
    )
    passed = {name: LaunchConfiguration(name) for name in ("robot", "checkpoint", "params")}
    passed |= {"look_ahead": "false"}  # the simulated robot waits for its command in the period
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=value, description=about)
                for name, (value, about) in ARGUMENTS.items()
            ),
            OpaqueFunction(function=start),
            IncludeLaunchDescription(controller, launch_arguments=passed.items()),
        ]
    )
