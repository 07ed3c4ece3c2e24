"""The only user of Optuna: space, objective, study, workers."""
