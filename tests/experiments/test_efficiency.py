"""What adaptation costs: copies are trained and the source is not; counts, verdicts and files."""

import math
import sys

import pytest
import torch
from torch import nn

import reprogram as rp
from reprogram.core.errors import ConfigError, MissingExtraError, SourceError
from reprogram.core.program import Input
from reprogram.experiments import Options, efficiency, efficiency_tuning
from reprogram.experiments.efficiency import STUDY, cells, opened
from reprogram.experiments.efficiency_shown import judge, remarks, sheets
from reprogram.experiments.efficiency_tuning import Copy, Peak, Tuning, full, last_layers, lora, new_head, score, tune
from reprogram.experiments.run import STUDIES, run
from reprogram.testing import tiny_source, tiny_task
from reprogram.testing.fakes import TinyNet
from tests.report.pages import read_page

TUNING = Tuning(lr=0.01, inner=0.01, epochs=2, batch_size=8)


@pytest.fixture
def tiny(monkeypatch):
    """The study on a tiny source and task, and a few methods."""
    source, task = tiny_source(), tiny_task(per_class=24)
    monkeypatch.setattr(efficiency, "load_source", lambda _: source)
    monkeypatch.setattr(efficiency, "load_task", lambda *_, **__: task)
    names = ("vp", "ilm_vp", "blm", "flm", "autovp", "fc", "vpt_deep", "prompt_tuning", "linear_probe", "no_edit")
    monkeypatch.setattr(efficiency, "methods", lambda: [m for m in rp.methods() if m.name in names])
    opened.cache_clear()
    yield source
    opened.cache_clear()


def approaches(source):
    return {
        "full": (full, lambda copy: set(dict(copy.network.named_parameters()))),
        "last": (lambda copy: last_layers(copy, source._blocks), lambda copy: {
            n for n, _ in copy.network.named_parameters() if n.startswith(("blocks.1.", "head."))}),
        "head": (new_head, lambda _: {"head.weight", "head.bias"}),
        "lora": (lora, lambda copy: {n for n, _ in copy.network.named_parameters() if "lora_" in n or n.startswith(
            "head.")}),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["full", "last", "head", "lora"])
def test_only_what_it_says_is_trained_and_the_source_never(name):
    source, task = tiny_source(), tiny_task()
    source.attach(["hidden.0"])  # hooks must not come along with the copy
    before, x = source.fingerprint(), task.test.fetch(torch.arange(4)).float() / 255
    said = source(torch.nn.functional.interpolate(x, 16), Input()).scores
    copy = Copy(source, 3, 16, seed=0)
    assert not any(p.requires_grad for p in copy.parameters())
    prepare, expected = approaches(source)[name]
    prepare(copy)
    mine = {n for n, p in copy.network.named_parameters() if p.requires_grad}
    assert mine == expected(copy)
    start = {n: p.detach().clone() for n, p in copy.network.named_parameters()}
    found = tune(copy, task, TUNING)
    moved = {n for n, p in copy.network.named_parameters() if not torch.equal(p.detach(), start[n])}
    assert moved == mine
    assert found.trainable == sum(start[n].numel() for n in mine)
    assert source.fingerprint() == before
    assert torch.equal(source(torch.nn.functional.interpolate(x, 16), Input()).scores, said)


def test_batch_norm_stays_where_the_network_is_frozen():
    source, task = tiny_source(), tiny_task()
    copies = {}
    for name, prepare in (("head", new_head), ("full", full)):
        copies[name] = Copy(source, 3, 16, seed=0)
        prepare(copies[name])
        tune(copies[name], task, TUNING)
    norms = {n: c.network.blocks[0][1].running_mean for n, c in copies.items()}
    assert torch.equal(norms["head"], source.module.blocks[0][1].running_mean)
    assert not torch.equal(norms["full"], source.module.blocks[0][1].running_mean)


def test_a_copy_reads_what_the_source_reads():
    """With the old head put back, its scores are the source's."""
    source, task = tiny_source(), tiny_task()
    copy = Copy(source, 3, 16, seed=0)
    copy.network.set_submodule("head", source.module.head)
    images = task.test.fetch(torch.arange(4))
    program = rp.build("no_edit", source, task, canvas=16)
    expected = program.outputs(images).logits
    assert torch.allclose(copy(images), expected, atol=1e-3)  # another interpolation of the same pictures
    assert torch.equal(copy.place(images.float() / 255), program.input.edits[0](images.float() / 255))


def test_the_state_that_is_scored_is_the_best_on_validation(monkeypatch):
    source, task, seen = tiny_source(), tiny_task(), []
    values = iter([0.9, 0.1, 0.2, 0.5])

    def fake(copy, split):
        seen.append((split.name, copy.head.weight.detach().clone()))
        return next(values)

    monkeypatch.setattr(efficiency_tuning, "score", fake)
    copy = Copy(source, 3, 16, seed=0)
    new_head(copy)
    found = tune(copy, task, Tuning(lr=0.05, inner=0.0, epochs=3, batch_size=8))
    assert [name for name, _ in seen] == ["val", "val", "val", "test"]
    assert torch.equal(seen[3][1], seen[0][1])
    assert not torch.equal(seen[2][1], seen[0][1])
    assert (found.val_accuracy, found.accuracy) == (0.9, 0.5)


class Pointwise(nn.Conv2d):
    """A convolution that peft cannot build again."""

    def __init__(self, channels, size):
        assert size is not None
        super().__init__(channels, channels, 1)


def test_lora_reaches_convolutions_of_a_class_of_their_own():
    net = TinyNet()
    net.blocks[0].append(Pointwise(16, 3))
    source = rp.wrap(net, input_shape=(3, 16, 16))
    copy = Copy(source, 3, 16, seed=0)
    x = torch.rand(2, 3, 16, 16)
    before = copy(x)
    lora(copy)
    assert any("blocks.0.4.lora_" in n for n, _ in copy.network.named_parameters())
    assert torch.allclose(copy(x), before, atol=1e-6)  # LoRA starts at no change


def test_what_cannot_be_copied_or_added_to_says_so(monkeypatch):
    class Headless(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3)

        def forward(self, x):
            return self.conv(x).mean((2, 3))

    with pytest.raises(SourceError, match="linear last layer"):
        Copy(rp.wrap(Headless(), input_shape=(3, 16, 16)), 3, 16, 0)
    with pytest.raises(SourceError, match="blocks"):
        last_layers(Copy(tiny_source(), 3, 16, 0), ())
    with pytest.raises(rp.CapabilityError, match="to train"):
        tune(Copy(tiny_source(), 3, 16, 0), tiny_task(), TUNING)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match="peft"):
        lora(Copy(tiny_source(), 3, 16, 0))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_what_was_needed_on_top():
    kept = torch.ones(30_000_000)
    with Peak(torch.device("cpu")) as peak:
        for _ in range(3):
            more = torch.ones(20_000_000)  # 80 MB, given back before the end
            more.add_(kept[0])
        del more
    assert peak.bytes is not None
    assert 70e6 < peak.bytes < 200e6


def test_a_whole_run_counts_right_and_its_files_say_so(tiny, tmp_path):
    before = tiny.fingerprint()
    found, files = run("efficiency", Options(out=tmp_path, quick=True, task="somewhere", size=16))
    assert tiny.fingerprint() == before
    rows = {r["approach"]: r for r in found["rows"]}
    everything = sum(p.numel() for p in tiny.module.parameters()) - 16 * 12 - 12 + 16 * 3 + 3
    assert rows["full fine-tuning"]["learned"] == everything
    assert rows["new head"]["learned"] == 16 * 3 + 3
    assert rows["vp"]["learned"] == 3 * (16 * 16 - 12 * 12)
    assert rows["vp"]["share"] == pytest.approx(rows["vp"]["learned"] / everything)
    assert rows["linear_probe"]["kind"] == "control"
    assert "language" in rows["prompt_tuning"]["reason"] or "token" in rows["prompt_tuning"]["reason"]
    assert rows["prompt_tuning"]["accuracy"] is None
    assert rows["autovp"]["seconds"] > 0
    note, page = files["note"].read_text(), read_page(files["page"])
    assert "Not applicable here" in note
    assert "full fine-tuning" in note
    assert not page.misnested
    assert page.places == set(page.figures)
    said = []
    again, _ = run("efficiency", Options(out=tmp_path, quick=True, task="somewhere", size=16), said.append)
    assert again["rows"] == found["rows"]
    assert len(said) == 1  # nothing was measured again


def test_seeds_multiply_what_can_be_done_only(tiny, tmp_path):
    todo = cells(Options(out=tmp_path, seeds=3, size=16))
    assert sum(c["approach"] == "vp" for c in todo) == 3
    assert [c["seed"] for c in todo if c["approach"] == "prompt_tuning"] == [None]
    with pytest.raises(rp.CapabilityError):
        tiny.spec = efficiency.replace(tiny.spec, resizable=False)
        opened.cache_clear()
        cells(Options(out=tmp_path, size=17))


def test_foreign_options_are_refused(tmp_path):
    assert STUDIES["efficiency"] is STUDY
    for wrong in ({"samples": 4}, {"methods": ("fc",)}, {"source_task": "x"}, {"sources": ("a", "b")}):
        with pytest.raises(ConfigError):
            run("efficiency", Options(out=tmp_path, **wrong))


def row(approach, kind, seed, accuracy, **more):
    facts = {"val_accuracy": accuracy, "learned": 10, "effective": 10, "share": 0.002, "seconds": 1.0, "memory": 100}
    return {"approach": approach, "kind": kind, "seed": seed, "accuracy": accuracy, "reason": "", **facts, **more}


def test_verdicts_follow_from_the_rows():
    rows = []
    for seed in range(5):
        rows.append(row("full fine-tuning", "weights", seed, 0.9, learned=5000, share=1.0, seconds=4.0, memory=400))
        rows.append(row("LoRA", "weights", seed, 0.5, share=0.1))
        rows.append(row("linear_probe", "control", seed, 0.6 if seed else 0.8))
        rows += [row(f"p{i}", "program", seed, 0.6 + 0.02 * i) for i in range(6)]
        rows.append({"approach": "cannot", "kind": "program", "seed": None, "accuracy": None, "reason": "No tokens."})
    claims = {c.statement: c for c in judge(rows)}
    by = {k.partition(":")[0]: c.verdict for k, c in claims.items()}
    assert by["A program learns less than 1.0% of the numbers of full fine-tuning"] == "supported"
    assert by["A program learns less than 0.1% of the numbers of full fine-tuning"] == "not supported"
    best = "The best program on validation is more accurate than "
    assert by[f"{best}full fine-tuning"] == "not supported"
    assert by[f"{best}LoRA"] == "supported"
    assert by[f"{best}a linear probe on class scores"] == "cannot be told"
    assert by["Fitting a program takes less time than full fine-tuning"] == "supported"
    assert by["Fitting a program takes less memory than full fine-tuning"] == "supported"
    table, unable = sheets(rows)
    assert table.rows[0][0] == "full fine-tuning"
    assert unable.rows == [("cannot", "No tokens.")]
    assert any("2.7 orders" in line or "2.7 in the middle" in line for line in remarks(rows))
    few = judge([r for r in rows if r["seed"] == 0])
    assert {c.verdict for c in few if "a number a seed" in c.where} == {"cannot be told"}


def test_the_best_program_is_chosen_by_validation_not_by_test():
    rows = [row("full fine-tuning", "weights", s, 0.5) for s in range(5)]
    rows += [row("lucky", "program", s, 0.9, val_accuracy=0.1) for s in range(5)]
    rows += [row("good", "program", s, 0.4, val_accuracy=0.8) for s in range(5)]
    claim = next(c for c in judge(rows) if "than full fine-tuning: difference" in c.statement)
    assert claim.values == pytest.approx([-0.1] * 5)


def test_an_empty_split_has_no_score():
    task = tiny_task()
    empty = task.test.subset(torch.empty(0, dtype=torch.int64))
    assert math.isnan(score(Copy(tiny_source(), 3, 16, 0), empty))


def test_what_cannot_be_done_is_listed_by_its_reason():
    lacks = "`source` must offer class texts for {}, got 'x'."
    rows = [{"approach": n, "seed": None, "reason": lacks.format(n), "accuracy": None} for n in ("coop", "maple")]
    rows.insert(1, {"approach": "zpe", "seed": None, "reason": "no", "accuracy": None})
    unable = sheets(rows)[-1]
    assert unable.rows == [("coop, maple", "`source` must offer class texts, got 'x'."), ("zpe", "no")]
