"""A page drawn from what track reads back, kept on the study's run."""
