"""Faults from outside, and what is left of a job after each: `python -m tests.faults`."""
