"""Metrics, intervals, comparisons, folds, calibration, figures. Knows no network."""
