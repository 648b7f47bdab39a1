"""What the controller would have done: a recorded bag in, commands out that no robot hears."""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    controller = PythonLaunchDescriptionSource(
        str(Path(__file__).with_name("controller.launch.py"))
    )
    passed = {name: LaunchConfiguration(name) for name in ("robot", "checkpoint", "params")}
    passed |= {"use_sim_time": "true", "command_topic": LaunchConfiguration("command_topic")}
    bag = ["ros2", "bag", "play", LaunchConfiguration("bag"), "--clock", "200"]
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="What `ros2 bag record` wrote."),
            DeclareLaunchArgument("robot", default_value="", description="As for the controller."),
            DeclareLaunchArgument("checkpoint", default_value="", description="The trained model."),
            DeclareLaunchArgument("params", default_value="", description="Parameter file."),
            DeclareLaunchArgument(
                "command_topic",
                default_value="/mbmrl_controller/replayed_commands",
                description="Where the commands go: no robot's own topic.",
            ),
            ExecuteProcess(cmd=bag, output="screen"),
            IncludeLaunchDescription(controller, launch_arguments=passed.items()),
        ]
    )
