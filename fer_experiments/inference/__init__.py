"""A finished model at work, without MLflow."""
