"""The story: one file per command, readable top to bottom."""
