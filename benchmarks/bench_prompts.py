"""Learned prompts of language models, against the PEFT library and against no prompt: time, memory, equal logits.

GPT-2 and a Llama-like model, 6 layers, 384 wide, vocabulary 8,192, random weights, fp32, 16 inputs of 64 tokens, one
thread. Everything that is compared is taken in turn in one process, and the logits (or scores) of both are compared in
the same run.

(a) Step: forward, loss, backward, AdamW on the prompt alone. "all": loss on every token of the input, as PEFT does it
    by default (which also has a soft prompt predict the first one: 64 scores a row to our 63); "last 8": on the last 8
    only, the usual case of a short answer, for which PEFT computes the whole head. Losses are compared on these.
(b) Inference: a compiled prompt of 100 tokens, and the prompt as tokens, over no prompt at all; scores of the last
    token.
(c) Mixed batch: 16 rows with a program each over 16 rows of one program, all with prompts of 100 tokens; and over
    PEFT's way, `set_adapter` and a run for each program's row.
(d) Memory: what autograd keeps for the backward pass of one step (bytes of distinct storages, weights left out),
    counted by `saved_tensors_hooks`; and the peak resident memory of a process that makes five steps, over that of one
    that only loads the model.
"""

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import reprogram as rp
from benchmarks._common import interleaved, ratio, table, write
from reprogram.core.mixed import Mixed
from reprogram.core.program import Input, Program
from reprogram.core.source import Reading
from reprogram.core.texts import Tokens
from reprogram.inputs import Prefix, SoftPrompt
from reprogram.outputs import Identity
from reprogram.sources import language_source

BATCH, LENGTH, WIDTH, LAYERS, HEADS, VOCABULARY = 16, 64, 384, 6, 6, 8192
ANSWER = 8
CASES = (("prompt", 100), ("prompt", 20), ("prefix", 100))
LIMITS = {
    "step, prompt 100, all": "ours at least 2 times as fast",
    "step, prompt 20, all": "ours at least 1.15 times as fast",
    "step, prefix 100": "ours at least as fast",
    "compiled over no prompt": 1.05,
    "16 programs over one": 1.1,
    "memory over PEFT": 1.0,
    "logits": 1e-5,
}


def model(kind: str) -> Any:
    """The same random weights every time."""
    import transformers as t

    torch.manual_seed(0)
    if kind == "gpt2":
        gpt2 = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 512, "bos_token_id": 0}
        drop = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        return t.GPT2LMHeadModel(t.GPT2Config(vocab_size=VOCABULARY, eos_token_id=0, **gpt2, **drop)).eval()
    llama = {"hidden_size": WIDTH, "intermediate_size": 1024, "num_hidden_layers": LAYERS,
             "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "max_position_embeddings": 512}  # fmt: skip
    return t.LlamaForCausalLM(t.LlamaConfig(vocab_size=VOCABULARY, **llama)).eval()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and their mask."""
    ids = torch.randint(0, VOCABULARY, (BATCH, LENGTH), generator=torch.Generator().manual_seed(1))
    return ids, torch.ones_like(ids)


def peft_model(kind: str, case: str, n: int) -> Any:
    """PEFT's, its learned numbers of the size of real ones."""
    import peft

    config = (peft.PromptTuningConfig if case == "prompt" else peft.PrefixTuningConfig)(
        task_type="CAUSAL_LM", num_virtual_tokens=n
    )
    made = peft.get_peft_model(model(kind), config).eval()
    torch.manual_seed(2)
    with torch.no_grad():
        weight(made).normal_(0, 0.02)
    return made


def weight(made: Any, name: str = "default") -> torch.Tensor:
    """PEFT's learned numbers."""
    return made.prompt_encoder[name].embedding.weight


def edit(source: Any, case: str, values: torch.Tensor) -> SoftPrompt | Prefix:
    """Ours, with the same numbers."""
    if case == "prompt":
        return SoftPrompt(values)
    return Prefix(values.view(len(values), source.blocks, 2, source.heads, source.head_width))


class Steps:
    """A training step of PEFT's and one of ours, on the same numbers."""

    def __init__(self, kind: str, case: str, n: int, *, only: str | None = None) -> None:
        self.ids, self.mask = batch()
        self.labels = {"all": self.ids, "last 8": self.ids.clone()}
        self.labels["last 8"][:, :-ANSWER] = -100
        if only != "ours":
            self.peft = peft_model(kind, case, n)
            self.their_optimizer = torch.optim.AdamW([weight(self.peft)], 1e-3)
        if only != "peft":
            self.source = language_source(model(kind))
            start = weight(peft_model(kind, case, n)).detach() if only else weight(self.peft).detach()
            self.edit = edit(self.source, case, start)
            self.our_optimizer = torch.optim.AdamW([self.edit.values], 1e-3)
            self.tokens = {name: Tokens(self.ids, self.mask.bool(), targets=_next(self.ids, labels))
                           for name, labels in self.labels.items()}  # fmt: skip

    def theirs(self, what: str = "all") -> float:
        """One step of PEFT's."""
        self.their_optimizer.zero_grad()
        loss = self.peft(input_ids=self.ids, attention_mask=self.mask, labels=self.labels[what]).loss
        loss.backward()
        self.their_optimizer.step()
        return float(loss.detach())

    def ours(self, what: str = "all") -> float:
        """One step of ours."""
        self.our_optimizer.zero_grad()
        out = self.source(self.tokens[what], Input(self.edit), Reading(tokens=True))
        loss = F.cross_entropy(out.token_scores, out.targets)
        loss.backward()
        self.our_optimizer.step()
        return float(loss.detach())

    @torch.no_grad()
    def apart(self) -> float:
        """Largest difference of two logits."""
        mine = self.source(Tokens(self.ids, self.mask.bool()), Input(self.edit), Reading(tokens=True)).token_scores
        theirs = self.peft(input_ids=self.ids, attention_mask=self.mask).logits[:, -LENGTH:]
        return float((mine - theirs).abs().max())


def _next(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """At every token, the one that it is to predict."""
    wanted = torch.full_like(ids, -100)
    wanted[:, :-1] = labels[:, 1:]
    return wanted


def steps(runs: int) -> list[dict[str, object]]:
    """(a)"""
    rows: list[dict[str, object]] = []
    for kind in ("gpt2", "llama"):
        for case, n in CASES:
            one = Steps(kind, case, n)
            apart, losses = one.apart(), (one.theirs("last 8"), one.ours("last 8"))
            jobs: dict[str, Callable[[], object]] = {}
            for what in ("all", "last 8"):
                jobs[f"peft {what}"] = lambda what=what, one=one: one.theirs(what)
                jobs[f"ours {what}"] = lambda what=what, one=one: one.ours(what)
            seconds = interleaved(jobs, runs=runs)
            rows += [{"model": kind, "prompt": f"{case} {n}", "loss": what,
                      "peft_ms": 1e3 * statistics.median(seconds[f"peft {what}"]),
                      "ours_ms": 1e3 * statistics.median(seconds[f"ours {what}"]),
                      "peft/ours": ratio(seconds[f"peft {what}"], seconds[f"ours {what}"]),
                      "logits apart": f"{apart:.1e}", "loss apart": f"{abs(losses[0] - losses[1]):.1e}"}
                     for what in ("all", "last 8")]  # fmt: skip
            if apart > 1e-5:
                raise SystemExit(f"{kind} {case} {n}: the logits are {apart:.1e} apart")
    return rows


def inference(runs: int) -> list[dict[str, object]]:
    """(b)"""
    rows: list[dict[str, object]] = []
    ids, mask = batch()
    tokens = Tokens(ids, mask.bool())
    for kind in ("gpt2", "llama"):
        source = language_source(model(kind))
        torch.manual_seed(2)
        prompt = SoftPrompt(torch.randn(100, WIDTH) * 0.02)
        inputs = {"no prompt": Input(), "inline": Input(prompt)}
        with torch.inference_mode():
            inputs["compiled"] = Input(Prefix(source.record(inputs["inline"])))
            said = {name: source(tokens, one).scores for name, one in inputs.items()}
        jobs = {name: _guarded(source, tokens, one) for name, one in inputs.items()}
        seconds = interleaved(jobs, runs=runs)
        none = seconds["no prompt"]
        apart = float((said["inline"] - said["compiled"]).abs().max())  # type: ignore[operator]
        rows.append({"model": kind, "compiled/none": ratio(seconds["compiled"], none),
                     "inline/none": ratio(seconds["inline"], none), "none_ms": 1e3 * statistics.median(none),
                     "scores apart": f"{apart:.1e}"})  # fmt: skip
    return rows


def _guarded(source: Any, tokens: Tokens, one: Input) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return source(tokens, one)

    return run


def mixed(runs: int) -> list[dict[str, object]]:
    """(c)"""
    rows: list[dict[str, object]] = []
    for kind in ("gpt2", "llama"):
        jobs = mixed_jobs(kind)
        apart = float((torch.stack(jobs["16"]()) - jobs["switch"]()).abs().max())
        seconds = interleaved(jobs, runs=runs)
        rows.append({"model": kind, "16 programs/1": ratio(seconds["16"], seconds["1"]),
                     "16 programs/plain call": ratio(seconds["16"], seconds["plain"]),
                     "PEFT switching/16 programs": ratio(seconds["switch"], seconds["16"]),
                     "scores apart": f"{apart:.1e}"})  # fmt: skip
        if apart > 1e-5:
            raise SystemExit(f"{kind}: the mixed batch is {apart:.1e} apart from PEFT's rows")
    return rows


def mixed_jobs(kind: str) -> dict[str, Callable[[], Any]]:
    """16 rows with 16 programs and with one, in a mixture and called plainly; and PEFT row by row."""
    import peft

    ids, mask = batch()
    source, their = language_source(model(kind)), peft_model(kind, "prompt", 100)
    torch.manual_seed(3)
    starts = [torch.randn(100, WIDTH) * 0.02 for _ in range(BATCH)]
    for i, start in enumerate(starts):
        their.add_adapter(f"p{i}", peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=100))
        with torch.no_grad():
            weight(their, f"p{i}").copy_(start)
    programs = [Program([SoftPrompt(start)], source, Identity()) for start in starts]
    many, alone = Mixed(programs), Mixed(programs[:1])
    tokens = Tokens(ids, mask.bool())
    zeros, each = torch.zeros(BATCH, dtype=torch.int64), torch.arange(BATCH)

    @torch.inference_mode()
    def switching() -> torch.Tensor:
        found = []
        for i in range(BATCH):
            their.set_adapter(f"p{i}")
            found.append(their(input_ids=ids[i : i + 1], attention_mask=mask[i : i + 1]).logits[:, -1])
        return torch.cat(found)

    @torch.inference_mode()
    def plain() -> torch.Tensor:
        return programs[0](ids, mask)

    return {"16": lambda: many(tokens, each), "1": lambda: alone(tokens, zeros), "plain": plain, "switch": switching}


def kept(one: Steps, who: str) -> int:
    """Bytes that one step keeps for its backward pass: each storage once, the model's own numbers left out."""
    owner = one.source.module if who == "ours" else one.peft
    own = {p.untyped_storage().data_ptr() for p in [*owner.parameters(), *owner.buffers()]}
    seen: dict[int, int] = {}
    alive: list[torch.Tensor] = []  # so that no address is given out twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        one.ours() if who == "ours" else one.theirs()
    return sum(seen.values())


def peak(kind: str, case: str, n: int, who: str, count: int = 5) -> int:
    """Peak resident memory, KiB, of a process that makes some steps (none: only loads the model)."""
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import torch, benchmarks.bench_prompts as b; torch.set_num_threads(1)\n"
        f"import peft; one = b.Steps({kind!r}, {case!r}, {n}, only={who!r})\n"
        f"for _ in range({count}): one.{'ours' if who == 'ours' else 'theirs'}()\n"
        "print(b.most())"
    )
    env = {**os.environ, "MALLOC_ARENA_MAX": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    return int(done.stdout.split()[-1])


def most() -> int:
    """Peak resident memory of this process, KiB; `ru_maxrss` would start at what the parent had before `exec`."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.findall(r"VmHWM:\s*(\d+)", status.read_text())[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory(runs: int) -> list[dict[str, object]]:
    """(d)"""
    rows: list[dict[str, object]] = []
    for kind in ("gpt2", "llama"):
        for case, n in CASES:
            one = Steps(kind, case, n)
            saved = {who: kept(one, who) for who in ("peft", "ours")}
            row: dict[str, object] = {
                "model": kind, "prompt": f"{case} {n}", "peft_kept_MiB": saved["peft"] / 2**20,
                "ours_kept_MiB": saved["ours"] / 2**20, "kept: ours/peft": saved["ours"] / saved["peft"],
            }  # fmt: skip
            grown = {who: min(peak(kind, case, n, who) for _ in range(runs))
                     - min(peak(kind, case, n, who, 0) for _ in range(runs)) for who in saved}  # fmt: skip
            rows.append(row | {"peak above load: ours/peft": grown["ours"] / max(1, grown["peft"])})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args(argv)
    runs = 3 if arguments.quick else 11
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's and transformers' words to each other
        result: dict[str, object] = {}
        for part, times in ((steps, runs), (inference, 2 * runs), (mixed, runs), (memory, 1 if arguments.quick else 2)):
            rows = part(times)
            result[part.__name__] = rows
            print(f"\n{part.__name__}\n{table(rows)}", flush=True)
        write("prompts", {**result, "limits": LIMITS, "reprogram": rp.__version__})
    torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
