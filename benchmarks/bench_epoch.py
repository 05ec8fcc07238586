"""(b) An epoch with streaming refresh over the plain recipe with one mapping pass an epoch.

The plain recipe, written here from its description: before every epoch a pass without gradients over the training data
and the mapping from its outputs, then the epoch. Once in torch's default memory format, as the published scripts run,
and once in ours (channels_last), so that the gain of the streaming alone can be read off.
"""

import argparse
from collections.abc import Sequence

import torch
import torch.nn.functional as F

import reprogram as rp
from benchmarks._common import interleaved, ratio, table, write
from reprogram.fit import FitOptions
from reprogram.fit.engine import _Run
from reprogram.outputs.label_maps import bayesian_map, count_pairs, frequency_map

CANVAS, INNER, BATCH = 128, 96, 32


def plain(task, source, method: str, memory_format):
    """One epoch of the plain recipe as a callable."""
    module = source.module
    size, left = CANVAS, (CANVAS - INNER + 1) // 2
    delta = torch.zeros(3, size, size, requires_grad=True)
    mask = torch.ones(1, size, size)
    mask[:, left : left + INNER, left : left + INNER] = 0
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (source.spec.preprocessing.mean, source.spec.preprocessing.std))
    optimizer = torch.optim.Adam([delta], lr=0.01)
    labels, n = task.train.labels, len(task.train)

    def scores(index):
        x = task.train.fetch(index).float() / 255
        x = F.interpolate(x, (INNER, INNER), mode="bicubic").clamp(0, 1)
        x = F.pad(x, (left, size - INNER - left, left, size - INNER - left)) + torch.sigmoid(delta) * mask
        return module(((x - mean) / std).contiguous(memory_format=memory_format))

    def epoch() -> None:
        with torch.no_grad():
            predicted = torch.cat([scores(i).argmax(1) for i in torch.arange(n).split(BATCH)])
        counts = count_pairs(predicted, labels, 1000, 10)
        for index in torch.randperm(n).split(BATCH):
            z = scores(index)
            out = z @ bayesian_map(counts) if method == "blm" else z[:, frequency_map(counts)]
            optimizer.zero_grad()
            F.cross_entropy(out, labels[index]).backward()
            optimizer.step()

    return epoch


def ours(task, source, method: str):
    """One epoch of `fit`'s loop as a callable: steps and the refresh at the end, without scoring."""
    program = rp.build(method, source, task, canvas=CANVAS, inner=INNER, batch_size=BATCH)
    run = _Run(program, task, 0, FitOptions(progress=False), None)
    run.program.output.refresh()

    def epoch() -> None:
        run.progress.epoch += 1
        run.program.train()
        run._prepare_mapping()
        for index in torch.randperm(len(task.train)).split(BATCH):
            run._step(index)
        run.program.output.refresh()

    return epoch


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args(argv)
    source = rp.load_source("bundled/efficientnet-lite0")
    n = 96 if arguments.quick else 160
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n * 10 // 7, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.arange(len(images)) % 10
    task = rp.Task.from_arrays(images, labels, classes=[f"c{i}" for i in range(10)])
    default = rp.load_source("bundled/efficientnet-lite0")
    default.module.to(memory_format=torch.contiguous_format)
    rows = []
    for method in ("ilm_vp", "blm"):
        jobs = {
            "ours": ours(task, source, method),
            "plain": plain(task, default, method, torch.contiguous_format),
            "plain_channels_last": plain(task, source, method, torch.channels_last),
        }
        seconds = interleaved(jobs, runs=2 if arguments.quick else 4, warmup=1)
        rows.append(
            {
                "method": method,
                "ours_s": sorted(seconds["ours"])[len(seconds["ours"]) // 2],
                "ours/plain": ratio(seconds["ours"], seconds["plain"]),
                "ours/plain, channels_last": ratio(seconds["ours"], seconds["plain_channels_last"]),
            }
        )
    print(table(rows))
    write("epoch", {"rows": rows, "images": len(task.train), "limit": {"ours/plain": 0.75}})


if __name__ == "__main__":
    main()
