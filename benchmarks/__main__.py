"""`make bench`: every speed benchmark, one after the other. `--quick` for a smoke run."""

import sys

from benchmarks import (
    bench_epoch,
    bench_files,
    bench_label_maps,
    bench_ntk,
    bench_prompts,
    bench_scoring,
    bench_step,
)

for part in (bench_step, bench_epoch, bench_label_maps, bench_files, bench_ntk, bench_prompts, bench_scoring):
    print(f"\n== {(part.__doc__ or '').splitlines()[0]}")
    part.main(sys.argv[1:])
