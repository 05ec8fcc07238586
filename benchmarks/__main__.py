"""`make bench`: every speed benchmark, one after the other. `--quick` for a smoke run."""

import sys

from benchmarks import (
    bench_context,
    bench_epoch,
    bench_files,
    bench_label_maps,
    bench_ntk,
    bench_prompts,
    bench_reweighting,
    bench_scoring,
    bench_step,
    bench_transport,
    bench_zeroth_order,
)

PARTS = (
    bench_step, bench_epoch, bench_label_maps, bench_files, bench_ntk, bench_prompts, bench_scoring, bench_context,
    bench_transport, bench_reweighting, bench_zeroth_order,
)  # fmt: skip

for part in PARTS:
    print(f"\n== {(part.__doc__ or '').splitlines()[0]}")
    part.main(sys.argv[1:])
