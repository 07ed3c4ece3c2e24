"""Pages drawn from what track reads back. Writes no run."""
