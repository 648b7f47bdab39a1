"""What `mbmrl` does, a file for what belongs together; each class is a command."""
