"""Where images come from, reading them, judging them. Knows no network."""
