"""Augmented views, the feature store, schedules, the fit. Knows no tracking and no search."""
