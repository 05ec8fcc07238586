"""Choices scored and samples written with shared prompts, against whole sequences and lm-evaluation-harness.

GPT-2 (4 layers, 256 wide) and a Llama-like model (6 layers, 384 wide, 6 query and 2 key heads), vocabulary 8,192,
random weights, fp32, one thread; a shared start of 512 tokens, 64 queries of 24 to 40 tokens with 4 labels of 1 to 3.

(a) `source.score` over lm-evaluation-harness's local-model class (batches of 8, its reuse of one-token continuations
    on), and over a plain loop over all whole sequences sorted by length, in batches of 8. Results are compared.
(b) SST-2 dev with 8 demonstrations on SmolLM2-135M: the program over both, on the same sentences.
(c) Self-consistency: 20 samples of 16 tokens after a prompt of 512 tokens, over the library's `generate` with 20
    return sequences, which runs the prompt 20 times.
(d) Time against distinct tokens, for 16 to 128 queries: a straight line's share of the variance.
(e) Resident memory at its most with budgets of 16 MiB, 128 MiB and 1 GiB a pass, over that before scoring.

`pip install -e ".[bench]"` brings lm-evaluation-harness; without it (a) and (b) are against the plain loop alone.
"""

import argparse
import random
import resource
import statistics
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import reprogram as rp
from benchmarks._common import data, interleaved, ratio, table, write
from reprogram.core.program import Input
from reprogram.core.source import Reading
from reprogram.core.texts import Texts
from reprogram.core.writing import Writing
from reprogram.sources import LanguageSource, language_source, load_source

VOCABULARY, START, QUERIES, LABELS = 8192, 512, 64, 4
Scores = list[torch.Tensor]


def tokenizer() -> Any:
    """A word is a token."""
    import tokenizers as k
    import transformers as t

    made = k.Tokenizer(k.models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    made.pre_tokenizer = k.pre_tokenizers.WhitespaceSplit()
    made.decoder = k.decoders.Fuse()
    return t.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="w1", pad_token="w1", unk_token="w0")


def model(kind: str) -> Any:
    """The same random weights every time."""
    import transformers as t

    torch.manual_seed(0)
    if kind == "gpt2":
        made = t.GPT2LMHeadModel(t.GPT2Config(vocab_size=VOCABULARY, n_embd=256, n_layer=4, n_head=4, n_positions=1024))
    else:
        made = t.LlamaForCausalLM(t.LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=384, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=6,
            num_key_value_heads=2, max_position_embeddings=1024,
        ))  # fmt: skip
    return made.eval()


def work(queries: int = QUERIES, start: int = START) -> tuple[list[str], list[list[str]]]:
    """Prompts with a common start, and labels."""
    draw = random.Random(0)

    def words(n: int) -> str:
        return " ".join(f"w{draw.randrange(2, VOCABULARY)}" for _ in range(n))

    common, labels = words(start), [" " + words(n) for n in (1, 2, 3, 2)[:LABELS]]
    return [f"{common} {words(draw.randint(24, 40))}" for _ in range(queries)], [labels] * queries


def plain(net: Any, tok: Any, prompts: Sequence[str], choices: Sequence[Sequence[str]]) -> Scores:
    """Every sequence by itself, sorted by length, 8 at a time."""
    rows: list[tuple[int, int, list[int], int]] = []
    for i, (prompt, several) in enumerate(zip(prompts, choices, strict=True)):
        for j, choice in enumerate(several):
            whole = tok(prompt + choice)["input_ids"]
            rows.append((i, j, whole, len(whole) - len(tok(prompt)["input_ids"])))
    rows.sort(key=lambda row: -len(row[2]))
    found = [torch.zeros(len(several), dtype=torch.float64) for several in choices]
    with torch.no_grad():
        for at in range(0, len(rows), 8):
            part = rows[at : at + 8]
            width = max(len(row[2]) for row in part)
            ids = torch.tensor([row[2] + [0] * (width - len(row[2])) for row in part])
            mask = torch.tensor([[1] * len(row[2]) + [0] * (width - len(row[2])) for row in part])
            chances = net(input_ids=ids, attention_mask=mask, use_cache=False).logits.log_softmax(-1)
            for k, (i, j, whole, n) in enumerate(part):
                for d in range(len(whole) - n, len(whole)):
                    found[i][j] += float(chances[k, d - 1, whole[d]])
    return found


def harness(net: Any, tok: Any) -> Callable[[Sequence[str], Sequence[Sequence[str]]], Scores] | None:
    """lm-evaluation-harness's way; None where it is not installed."""
    try:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        return None
    peer = HFLM(pretrained=net, tokenizer=tok, batch_size=8, device="cpu")

    def score(prompts: Sequence[str], choices: Sequence[Sequence[str]]) -> Scores:
        pairs = [(p, c) for p, several in zip(prompts, choices, strict=True) for c in several]
        asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
        said = iter(peer.loglikelihood(asked, disable_tqdm=True))
        return [torch.tensor([next(said)[0] for _ in several], dtype=torch.float64) for several in choices]

    return score


def apart(one: Scores, other: Scores) -> float:
    """The largest difference."""
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


def compare(name: str, source: LanguageSource, net: Any, tok: Any, asked: Any, runs: int) -> list[dict[str, object]]:
    """Ours against both ways, in turn."""
    prompts, choices = asked
    peer = harness(net, tok)
    with torch.no_grad():
        want = plain(net, tok, prompts, choices)

    def ours() -> Scores:
        source.starts.__init__()  # nothing remembered from the turn before
        return source.score(prompts, choices)

    jobs: dict[str, Callable[[], object]] = {"ours": ours, "plain": lambda: plain(net, tok, prompts, choices)}
    found = [{"case": name, "over": "plain loop", "apart": f"{apart(ours(), want):.1e}"}]
    if peer is not None:
        jobs["harness"] = lambda: peer(prompts, choices)
        found.append(
            {"case": name, "over": "lm-evaluation-harness", "apart": f"{apart(ours(), peer(prompts, choices)):.1e}"}
        )
    seconds = interleaved(jobs, runs=runs, warmup=0)
    for row, way in zip(found, ("plain", "harness"), strict=False):
        row |= {"times faster": ratio(seconds[way], seconds["ours"]), "ours, s": statistics.median(seconds["ours"])}
    return found


def sst2(runs: int, sentences: int) -> list[dict[str, object]]:
    """The few-shot program on real sentences."""
    source = load_source("bundled/smollm2-135m")
    assert isinstance(source, LanguageSource)
    task = rp.load_task(data("sst2"), val=0.1)
    program = rp.build("few_shot", source, task.limit(train=200), shots=8, template="Review: {text}\nSentiment:",
                       words=("negative", "positive"))  # fmt: skip
    split = task.val.subset(torch.arange(sentences))
    prompts = list(program.input(split.fetch(torch.arange(sentences))).prompts)
    choices = [[" negative", " positive"]] * sentences
    return compare(f"SST-2, 8 demonstrations, {sentences} sentences", source, source.module, source.tokeniser.tokenizer,
                   (prompts, choices), runs)  # fmt: skip


def samples(kind: str, runs: int) -> dict[str, object]:
    """20 samples of one prompt, against the library's own sampling."""
    net, tok = model(kind), tokenizer()
    source = language_source(net, tok)
    source.ends = frozenset()
    prompt = work(1, START)[0][0]
    ids = torch.tensor([tok(prompt)["input_ids"]])
    ask, how = Texts({"prompt": (prompt,)}), Writing(tokens=16, samples=20, temperature=0.7)

    def ours() -> object:
        source.starts.__init__()
        return source(ask, Input(), Reading(writing=how))

    def library() -> object:
        with torch.no_grad():
            return net.generate(ids, do_sample=True, temperature=0.7, max_new_tokens=16, min_new_tokens=16,
                                num_return_sequences=20, pad_token_id=1)  # fmt: skip

    seconds = interleaved({"ours": ours, "library": library}, runs=runs, warmup=1)
    return {"case": f"{kind}, 20 samples of 16 tokens", "times faster": ratio(seconds["library"], seconds["ours"])}


def linear(kind: str) -> list[dict[str, object]]:
    """Time against distinct tokens."""
    source = language_source(model(kind), tokenizer())
    rows: list[dict[str, object]] = []
    for queries in (16, 32, 64, 96, 128):
        prompts, choices = work(queries)
        tokens = (
            START + sum(len(p.split()) - START for p in prompts) + queries * sum(len(c.split()) - 1 for c in choices[0])
        )

        def job(prompts: Any = prompts, choices: Any = choices) -> object:
            source.starts.__init__()
            return source.score(prompts, choices)

        seconds = statistics.median(interleaved({"ours": job}, runs=5, warmup=1)["ours"])
        rows.append({"queries": queries, "distinct tokens": tokens, "seconds": seconds})
    return rows


def straight(rows: Sequence[dict[str, Any]]) -> float:
    """The share of the variance that a straight line explains."""
    x, y = (torch.tensor([float(row[name]) for row in rows]) for name in ("distinct tokens", "seconds"))
    return float(torch.corrcoef(torch.stack([x, y]))[0, 1] ** 2)


def memory(budget: int) -> float:
    """Peak MiB over a loaded model, in a process of its own."""
    code = f"from benchmarks.bench_scoring import peak; print(peak({budget}))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def peak(budget: int) -> float:
    """What scoring 256 queries adds to resident memory at most, MiB, looked at every millisecond."""
    torch.set_num_threads(1)
    source = language_source(model("llama"), tokenizer())
    source.score(["w2 w3"], [[" w4", " w5 w6"]])
    prompts, choices = work(256)
    before, seen, over = resident(), [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.001):
            seen.append(resident() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    source.score(prompts, choices, memory=budget)
    over.set()
    watcher.join()
    return max(seen)


def resident() -> float:
    """MiB of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args(argv).quick
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    runs, result = 1 if quick else 3, {}
    rows: list[dict[str, object]] = []
    for kind in ("gpt2", "llama"):
        net, tok = model(kind), tokenizer()
        rows += compare(kind, language_source(net, tok), net, tok, work(8 if quick else QUERIES), runs)
    if not quick:
        rows += sst2(1, 64)
    print(table(rows))
    result["scoring"] = rows
    result["samples"] = [samples(kind, runs) for kind in ("gpt2", "llama")]
    print(table(result["samples"]))
    if not quick:
        result["linear"] = linear("llama")
        print(table(result["linear"]))
        result["straight"] = straight(result["linear"])
        print(f"a straight line explains {100 * result['straight']:.2f} % of the variance")
        result["memory"] = [{"budget, MiB": b >> 20, "peak, MiB": memory(b)} for b in (16 << 20, 128 << 20, 1 << 30)]
        print(table(result["memory"]))
        print(write("scoring", result))


if __name__ == "__main__":
    main()
