"""MLflow's records: runs, models, registry, promotion. Never trains."""
