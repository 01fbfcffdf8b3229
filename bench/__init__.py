"""Benchmarks: `python -m bench NAME --json`. Each prints a table, and with --json one object a line."""
