"""What can change on a robot while it runs: one file a kind."""
