"""Planners, and the agent that joins a model with a planner."""
