"""The tests; `python -m tests.faults` is a program of its own."""
