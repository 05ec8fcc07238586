"""Kernels: ours against the recipes of torch.func's tutorial, time and peak memory, and the cost of a whole diagnosis.

Set-up of the engine ratios: a CNN with three 3x3 convolutions of width 64 on 3 x 32 x 32, T = 10, float32; "s2" has
stride 2 in each convolution, "s1" stride 1; one thread (two for the rest). Peak memory is the growth of a fresh
process's resident set over the one that has everything loaded and has made a small kernel already. Deviations are
between engines, all in float32: against float64 a single ReLU that flips shows more (2e-4) than any engine's rounding.

    python -m benchmarks.bench_ntk [--quick]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, jvp, vjp, vmap

import reprogram as rp
from benchmarks._common import interleaved, ratio, table, write
from reprogram.core.program import Input, Program
from reprogram.inputs import Additive, full_mask
from reprogram.ntk import DiagnoseOptions, batches_of, jacobian, program_kernel, sketch_kernel, source_kernel
from reprogram.ntk.spectrum import spectrum
from reprogram.outputs import Identity
from reprogram.rank import diagnose


def cnn(stride: int) -> nn.Sequential:
    """Three convolutions of width 64 and a dense head."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before in (3, 64, 64):
        layers += [nn.Conv2d(before, 64, 3, stride, 1), nn.ReLU()]
    side = 32 // stride**3
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * side * side, 10))


def setup(stride: int, samples: int):
    """A program with a pattern over the whole picture, and samples."""
    source = rp.wrap(cnn(stride), input_shape=(3, 32, 32))
    program = Program([Additive(full_mask(32))], source, Identity(10))
    x = torch.rand(samples, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return program, x


def _parameters(program: Program, what: str) -> tuple[dict[str, Tensor], Callable]:
    """The numbers to differentiate by, and f(numbers, one sample)."""
    net = program.source.module
    if what == "program":
        delta = {"delta": torch.zeros(3, 32, 32, dtype=next(net.parameters()).dtype)}
        return delta, lambda p, x: net((x + p["delta"]).unsqueeze(0))[0]
    return {k: v.detach() for k, v in net.named_parameters()}, lambda p, x: functional_call(net, p, (x.unsqueeze(0),))[
        0
    ]


def contraction(program: Program, x: Tensor, what: str) -> Tensor:
    """The tutorial's Jacobian contraction: both arguments' Jacobians, contracted parameter by parameter."""
    numbers, f = _parameters(program, what)
    one = vmap(jacrev(f), (None, 0))(numbers, x)
    two = vmap(jacrev(f), (None, 0))(numbers, x)
    parts = [torch.einsum("Naf,Mbf->NMab", one[k].flatten(2), two[k].flatten(2)) for k in numbers]
    return sum(parts[1:], parts[0]).permute(0, 2, 1, 3)


def products(program: Program, x: Tensor, what: str) -> Tensor:
    """The tutorial's NTK-vector products."""
    numbers, f = _parameters(program, what)

    def pair(x1: Tensor, x2: Tensor) -> Tensor:
        out, pull = vjp(lambda p: f(p, x1), numbers)

        def column(v: Tensor) -> Tensor:
            return jvp(lambda p: f(p, x2), (numbers,), pull(v))[1]

        return vmap(column)(torch.eye(len(out)))

    found = vmap(vmap(pair, (None, 0)), (0, None))(x, x)
    return found.permute(0, 2, 1, 3)


def ours(program: Program, x: Tensor, what: str) -> Tensor:
    """This library."""
    return program_kernel(program, x) if what == "program" else source_kernel(program.source, x)


ENGINES = {"ours": ours, "contraction": contraction, "products": products}


def off(a: Tensor, b: Tensor) -> float:
    """Largest deviation over largest entry."""
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())


def peak(engine: str, what: str, stride: int, samples: int) -> int:
    """Growth of the resident set, bytes, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_ntk", "--peak", json.dumps([engine, what, stride, samples])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def _peak_here(engine: str, what: str, stride: int, samples: int) -> int:
    torch.set_num_threads(1)
    program, x = setup(stride, samples)
    ENGINES[engine](program, x[:2], what)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew from here
    before = _memory("VmRSS")
    ENGINES[engine](program, x, what)
    return _memory("VmHWM") - before


def _memory(name: str) -> int:
    """Bytes, as the system counts them: VmRSS now, VmHWM at most so far."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def engines(quick: bool) -> list[dict[str, object]]:
    """Time and memory of each engine over ours."""
    rows: list[dict[str, object]] = []
    cases = [("program", 2, 16 if quick else 64), ("source", 2, 16 if quick else 64)]
    cases += [] if quick else [("program", 1, 32), ("source", 1, 32)]
    for what, stride, samples in cases:
        program, x = setup(stride, samples)
        exact = ours(program, x, what)
        jobs = {name: (lambda e=engine, p=program, x=x, w=what: e(p, x, w)) for name, engine in ENGINES.items()
                if name != "products"}  # fmt: skip
        deviation = off(contraction(program, x, what), exact)
        seconds = interleaved(jobs, runs=2 if quick else 5, warmup=1)
        few = x[: 4 if quick else 8]  # N^2 passes: timed on few samples and set against ours by pairs of samples
        start = time.perf_counter()
        slow = products(program, few, what)
        slow_seconds = (time.perf_counter() - start) * (samples / len(few)) ** 2
        deviation = max(deviation, off(slow, exact[: len(few), :, : len(few)]))
        mine = peak("ours", what, stride, samples)
        rows.append({
            "kernel": what, "stride": stride, "N": samples, "ours_s": statistics.median(seconds["ours"]),
            "contraction/ours": ratio(seconds["contraction"], seconds["ours"]),
            "products/ours (extrapolated)": slow_seconds / statistics.median(seconds["ours"]),
            "ours_MB": mine / 1e6, "contraction/ours memory": peak("contraction", what, stride, samples) / mine,
            "largest deviation": f"{deviation:.1e}",
        })  # fmt: skip
    return rows


def whole(quick: bool) -> dict[str, object]:
    """A full diagnosis on EfficientNet-Lite0 over the N (F + T B) of its passes."""
    source, task = rp.load_source("bundled/efficientnet-lite0"), rp.load_task("bundled/mnist5k")
    n = 20 if quick else 100
    program = rp.build("vp", source, task, canvas=128, width=16)
    x = task.train.fetch(torch.arange(n))
    with torch.no_grad():
        z = program.input.edits[0](x.float() / 255)

    def bare() -> None:
        for part in z.split(16):
            leaf = part.detach().requires_grad_()
            scores = program.output(source(leaf, Input()))
            for t in range(10):
                torch.autograd.grad(scores[:, t].sum(), leaf, retain_graph=t < 9)

    def full() -> None:
        diagnose(source, task, method="vp", n=n, config={"canvas": 128, "width": 16})

    def alone() -> None:
        diagnose(source, task, method="vp", n=n, config={"canvas": 128, "width": 16},
                 options=DiagnoseOptions(source_samples=0))  # fmt: skip

    seconds = interleaved(
        {"bare": bare, "diagnose": full, "program kernel alone": alone}, runs=1 if quick else 3, warmup=1
    )
    ratios = {f"{k}/bare": ratio(v, seconds["bare"]) for k, v in seconds.items() if k != "bare"}
    return {"n": n, "bare_s": statistics.median(seconds["bare"]), **ratios}


def sketched(quick: bool) -> dict[str, object]:
    """Time a sample and peak memory at two N, and the error against the exact kernel of a subset."""
    sizes = (256, 512) if quick else (5000, 10000)
    rows = []
    for n in sizes:
        command = [sys.executable, "-m", "benchmarks.bench_ntk", "--sketch", str(n)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, memory = (float(v) for v in done.stdout.split()[-2:])
        rows.append({"N": n, "seconds": seconds, "ms_a_sample": 1e3 * seconds / n, "peak_MB": memory / 1e6})
    program, x = setup(2, 100)
    y = torch.arange(100) % 10
    exact = spectrum(program_kernel(program, x))
    found = sketch_kernel(program, batches_of(lambda i: x[i], y, torch.arange(100)))
    pairs = {"lambda_max": (found.largest, exact.largest), "trace": (found.trace, exact.trace),
             "logdet": (found.logdet, exact.logdet() or 0.0)}  # fmt: skip
    errors = {k: {"sketch": e.value, "bar": e.error, "exact": v} for k, (e, v) in pairs.items()}
    return {"rows": rows, "errors at N = 100": errors}


def _sketch_here(n: int) -> tuple[float, int]:
    program, _ = setup(2, 2)

    def fetch(rows: Tensor) -> Tensor:  # samples are made on the fly: nothing of size N is held
        return torch.stack([torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(int(r))) for r in rows])

    start = time.perf_counter()
    sketch_kernel(program, batches_of(fetch, torch.arange(n) % 10, torch.arange(n)))
    return time.perf_counter() - start, _memory("VmHWM")


def largest() -> dict[str, float]:
    """NT = 4,000 on this machine: seconds and peak memory of the exact route."""
    program, x = setup(2, 400)
    start = time.perf_counter()
    found = jacobian(program, x).spectrum()
    return {"NT": found.size, "seconds": time.perf_counter() - start, "peak_GiB": _memory("VmHWM") / 2**30}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--sketch", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.peak:
        print(_peak_here(*json.loads(arguments.peak)))
        return
    if arguments.sketch:
        print(*_sketch_here(arguments.sketch))
        return
    torch.set_num_threads(1)
    result: dict[str, object] = {"engines": engines(arguments.quick)}
    print(table(result["engines"]))  # pyright: ignore
    torch.set_num_threads(2)
    result["diagnose"] = whole(arguments.quick)
    print(table([result["diagnose"]]))  # pyright: ignore
    result["sketch"] = sketched(arguments.quick)
    print(table(result["sketch"]["rows"]), result["sketch"]["errors at N = 100"])  # pyright: ignore
    if not arguments.quick:
        result["largest"] = largest()
        print(table([result["largest"]]))  # pyright: ignore
    write("ntk", result)


if __name__ == "__main__":
    main()
