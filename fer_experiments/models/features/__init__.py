"""The feature cache: what the frozen layers give for each image, computed once and kept on disk."""
