"""The parts of scripts/benchmark_upstream and scripts/benchmark_table; Python's standard library only."""
