"""The notebook's own way of working beside ours, in one run: `python -m benchmarks`."""
