"""The controller for a robot whose topics are there already."""

import shutil
import sys

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration

SETTINGS = {
    "robot": "From `mbmrl list robots`, or package.module:Class.",
    "checkpoint": "Folder of the trained model; empty: the one shipped for the robot.",
    "controller": "Commands go to /CONTROLLER/commands.",
    "command_topic": "Instead of /CONTROLLER/commands, e.g. a watchdog's input.",
    "use_sim_time": "Whether time comes from /clock.",
    "look_ahead": "Whether to plan from where the robot will be once the plan is ready.",
}


def start(context: LaunchContext) -> list[ExecuteProcess]:
    """The node; what was left empty is the parameter file's to say."""
    # pip puts no scripts where Node(package=...) looks for them, and colcon none on the PATH
    mbmrl = (
        [shutil.which("mbmrl")] if shutil.which("mbmrl") else [sys.executable, "-m", "mbmrl.cli"]
    )
    args = []
    params = LaunchConfiguration("params").perform(context)
    if params:
        args += ["--params", params]
    for name in SETTINGS:
        value = LaunchConfiguration(name).perform(context)
        if value:
            args += ["--set", f"{name}={value}"]
    return [ExecuteProcess(cmd=[*mbmrl, "ros", "controller", *args], output="screen")]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    arguments = {"params": "Parameter file.", **SETTINGS}
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value="", description=about)
                for name, about in arguments.items()
            ),
            OpaqueFunction(function=start),
        ]
    )
