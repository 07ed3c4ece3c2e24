"""The only user of Optuna: study, trial, race, driver, engines, doctor."""
