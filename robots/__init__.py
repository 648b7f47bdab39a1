"""What is controlled: one file a robot."""
