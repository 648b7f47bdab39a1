"""mbmrl: a robot controller that keeps working when the robot changes."""

__version__ = "0.1.0"
