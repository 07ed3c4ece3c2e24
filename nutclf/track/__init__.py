"""The only writer of MLflow: runs and registry. Never trains."""
