"""Batches and the training loop; knows nothing of MLflow."""
