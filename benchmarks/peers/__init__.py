"""What other tools take for the same capture: `python benchmarks/peers/run.py`, in an environment of its own."""
