"""Backbones, where to cut them, the head, the deployable whole. Knows no data set."""
