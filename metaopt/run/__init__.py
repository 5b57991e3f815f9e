"""What a run is on a machine: its directory and checkpoints, programs, signals, terminal."""
