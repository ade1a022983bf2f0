"""Attacks on servers of our own, over loopback, and what they do to them: `python benchmarks/attacks [ROW ...]`."""
