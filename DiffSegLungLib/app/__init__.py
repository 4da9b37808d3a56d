"""The command line and what it starts; may import every other room."""
