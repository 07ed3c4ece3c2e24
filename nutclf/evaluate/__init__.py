"""Metrics, intervals, comparisons, folds, calibration, figures. Knows arrays only."""
