"""Metrics, intervals, comparisons, figures. Knows arrays only."""
