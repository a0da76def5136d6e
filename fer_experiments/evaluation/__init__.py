"""Predictions, scores and figures; knows nothing of MLflow."""
