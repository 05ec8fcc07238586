"""Real results: a frozen SmolLM2-135M-Instruct writes orders as JSON. What does a learned prompt gain over asking?

    python -m benchmarks.results_orders --out orders.jsonl

The case study of text generation: `bundled/json-orders` asks for an item and a count as JSON for a short order in
words. Measured on the test orders, greedy: the share of outputs that are valid JSON with just these two fields, the
share that are the target exactly, and the perplexity of a target's tokens. Beside the learned programs stand the model
as it is, and the model with an instruction and an example in the template: what a person would try first.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import reprogram as rp
from benchmarks._common import table
from reprogram.core.source import Source
from reprogram.fit import FitOptions

ASKED = ('Write the order as JSON with "item" and "count".\nOrder: three coffees, please\n'
         'JSON: {{"item":"coffee","count":3}}\nOrder: {text}\nJSON: ')  # fmt: skip
PLAIN = "{text}\n"
RUNS = {
    "as it is": ("no_edit", {"template": PLAIN}),
    "instruction and one example": ("no_edit", {"template": ASKED}),
    "prompt tuning, 20 tokens": ("prompt_tuning", {"template": PLAIN, "tokens": 20, "start": "text", "lr": 0.005,
                                                   "epochs": 12, "batch_size": 8, "schedule": "cosine"}),
    "prefix tuning, 20 tokens": ("prefix_tuning", {"template": PLAIN, "tokens": 20, "hidden": None, "start": "text",
                                                   "lr": 0.008, "epochs": 12, "batch_size": 8}),
}  # fmt: skip


def first_line(text: str) -> str:
    """What was written up to the first line break, which is where an order ends."""
    return text.strip().split("\n")[0].strip()


def valid(text: str) -> bool:
    """JSON with an item and a whole number."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return False
    return isinstance(found, dict) and set(found) == {"item", "count"} and isinstance(found["count"], int)


def run(name: str, seed: int, source: Source) -> dict[str, object]:
    """One program, fitted if it learns, and what it writes."""
    method, settings = RUNS[name]
    task = rp.load_task("bundled/json-orders")
    start = time.perf_counter()
    with sdpa_kernel(SDPBackend.MATH):
        program = rp.build(method, source, task, seed=seed, **settings)
        done = rp.fit(program, task, seed=seed, options=FitOptions(progress=False))
    fitted = time.perf_counter() - start
    orders = task.test.fetch(torch.arange(len(task.test)))
    written = [first_line(t) for t in program.generate(orders, max_new_tokens=24, batch_size=16)]
    right = [a == b.strip() for a, b in zip(written, orders.targets, strict=True)]
    return {"program": name, "seed": seed, "valid": sum(map(valid, written)) / len(written),
            "exact": sum(right) / len(right), "perplexity": done.test.perplexity, "learned": program.count().effective,
            "seconds": round(fitted, 1),
            "examples": [*zip(orders.columns["text"][:3], written[:3], strict=True)]}  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    source = rp.load_source("bundled/smollm2-135m", dtype="bfloat16")
    rows = []
    for seed in range(arguments.seeds):
        for name, (method, _) in RUNS.items():
            if method == "no_edit" and seed:
                continue
            rows.append(run(name, seed, source))
            print(json.dumps(rows[-1]), flush=True)
            arguments.out.write_text("".join(json.dumps(r) + "\n" for r in rows))
    print(table([{k: v for k, v in row.items() if k != "examples"} for row in rows]))


if __name__ == "__main__":
    main()
