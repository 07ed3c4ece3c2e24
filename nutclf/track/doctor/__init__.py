"""What kills, moves and deletions leave wrong in MLflow's records and files; how to mend it."""
