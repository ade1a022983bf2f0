"""Many visitors at once, part by part; `benchmarks/load.py` measures them and prints the table."""
