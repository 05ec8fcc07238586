"""Benchmarks: speed as ratios measured in one run (`bench_*`), and real results (`results_*`)."""
