"""The only rooms that import mlflow."""
