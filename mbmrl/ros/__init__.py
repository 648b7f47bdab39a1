"""The ROS 2 nodes: a controller, a simulated robot behind topics, and a watchdog."""
