"""CoCoOp, MaPLe, IVLP, PromptKD and ArGue against slow plain references, and what is known to go wrong in them."""

import copy
import importlib.util
import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import reprogram as rp
from reprogram.catalogue import find
from reprogram.core.errors import CapabilityError, ConfigError, DataError
from reprogram.core.program import Edit, Input
from reprogram.core.source import Reading, SourceOutput
from reprogram.fit import FitOptions
from reprogram.inputs import (
    ConditionedContext,
    CoupledTokens,
    Place,
    ReplacedTokens,
    SoftPrompt,
    TrailingTokens,
    image_prompts,
    text_prompts,
)
from reprogram.methods import promptkd
from reprogram.outputs import AttributeScores, DistilledClasses, Guidance, Projector, representatives
from reprogram.sources.image_text import DualSource
from reprogram.store import read, restore
from reprogram.tasks import Split
from reprogram.testing import tiny_source, tiny_task
from reprogram.testing.image_text import tiny_dual_model, tiny_dual_source
from tests.sources.test_image_text import maple_image, maple_text, normalised, own_ids

pytest.importorskip("transformers")

KINDS = ["clip", "siglip", *(["open_clip"] if importlib.util.find_spec("open_clip") else [])]
SILENT = FitOptions(progress=False)
TASK = tiny_task(per_class=8)
ATTRIBUTES = {
    "class 0": ["red bar", "a red place", "bar on top", "long", "thin"],
    "class 1": ["green bar"],
    "class 2": ["blue bar", "below"],
}
SMALL = {"recipe.optimizer": "adam", "recipe.lr": 0.02, "recipe.epochs": 4, "recipe.batch_size": 8,
         "recipe.warmup_steps": 0, "recipe.weight_decay": 0.0}  # fmt: skip


@pytest.fixture(scope="module")
def source() -> DualSource:
    return tiny_dual_source()


def convolutional() -> DualSource:
    return DualSource(tiny_source(classes=12), tiny_dual_source().text, ref="module:cnn", scale=20.0)


def pictures(n: int = 4) -> Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def stirred(module: nn.Module, seed: int = 0) -> None:
    """Learned numbers away from their starts."""
    draw = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        p.data = torch.randn(p.shape, generator=draw) * 0.5


def numbers(parts: Any) -> int:
    return sum(p.numel() for part in parts for p in part.parameters())


class Before(Edit):
    """Tokens with a graph of their own before every class name."""

    operators = frozenset()
    site, where = "text.embedding", "start"

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows, self.length = rows, len(rows)

    def tokens(self) -> Tensor:
        return self.rows

    def forward(self, value: Tensor) -> Tensor:
        raise NotImplementedError


# -- cocoop ------------------------------------------------------------------------------------------------------------


def test_cocoop_is_a_loop_over_pictures(source: DualSource) -> None:
    program = rp.build("cocoop", source, TASK)
    stirred(program.input)
    edit = next(e for e in program.input if isinstance(e, ConditionedContext))
    first, last = edit.shift[0], edit.shift[2]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    texts = program.output.reading.texts
    scores = program(pictures())
    rows = []
    for one in pictures():
        v = source(one[None], Input(), Reading()).features
        assert v is not None
        shift = (v @ first.weight.T + first.bias).clamp_min(0) @ last.weight.T + last.bias
        rows.append(source(one[None], Input(Before(edit.values + shift)), Reading(texts=texts)).logits)
    plain = torch.cat(rows)
    torch.testing.assert_close(scores, plain, atol=1e-4, rtol=1e-5)
    mine, theirs = (torch.autograd.grad((s * torch.arange(12.0).view(4, 3)).sum(), list(program.input.parameters()))
                    for s in (scores, plain))  # fmt: skip
    for a, b in zip(mine, theirs, strict=True):
        assert float(b.abs().max()) > 0
        torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-3)


def test_a_picture_is_scored_alike_whatever_its_batch(source: DualSource) -> None:
    program = rp.build("cocoop", source, TASK)
    stirred(program.input)
    alone = torch.cat([program(one[None]) for one in pictures()])
    torch.testing.assert_close(program(pictures()), alone, atol=1e-4, rtol=1e-5)


def test_cocoop_has_as_many_numbers_as_published(source: DualSource) -> None:
    assert numbers([ConditionedContext(torch.zeros(4, 512), 512)]) == 2_048 + 33_312
    assert rp.build("cocoop", source, TASK).count().allocated == 4 * 16 + 12 * 1 + 1 + 1 * 16 + 16
    assert rp.build("cocoop", source, TASK, hidden=3).count().allocated == 4 * 16 + 12 * 3 + 3 + 3 * 16 + 16
    with pytest.raises(CapabilityError, match="pictures shift"):
        ConditionedContext(torch.zeros(4, 8), 8)(torch.zeros(1, 2, 8))
    with pytest.raises(ConfigError, match="width and hidden"):
        ConditionedContext(torch.zeros(4, 8), 8, hidden=0)


# -- maple and ivlp ----------------------------------------------------------------------------------------------------


def test_maple_is_what_is_published(source: DualSource) -> None:
    model = tiny_dual_model()
    program = rp.build("maple", source, TASK)
    stirred(program.input)
    texts = [e for e in program.input if isinstance(e, SoftPrompt | ReplacedTokens)]
    images = [e for e in program.input if isinstance(e, CoupledTokens)]
    assert len(texts) == len(images) == 3  # of 9, as the towers have 3 layers
    said = program.outputs(pictures())
    ids = own_ids(model, program.output.reading.texts)["input_ids"]
    theirs = maple_text(model, ids, [e.values for e in texts])
    moved = [e.values @ i.project.weight.T + i.project.bias for e, i in zip(texts, images, strict=True)]
    seen = maple_image(model, normalised(source, pictures()), moved)
    assert said.texts is not None and said.features is not None
    torch.testing.assert_close(said.texts, theirs, atol=2e-6, rtol=0)
    torch.testing.assert_close(said.features, seen, atol=2e-6, rtol=0)
    mine = torch.autograd.grad(said.logits.square().sum(), list(program.input.parameters()))
    plain = torch.autograd.grad((source.scale * seen @ theirs.T).square().sum(), list(program.input.parameters()))
    for a, b in zip(mine, plain, strict=True):  # words learn from both sides
        assert float(b.abs().max()) > 0
        torch.testing.assert_close(a, b, atol=1e-2, rtol=1e-3)


def test_coupled_prompts_are_held_once(source: DualSource) -> None:
    program = rp.build("maple", source, TASK)
    names = [name for name, _ in program.named_parameters()]
    assert len(names) == 3 + 2 * 3 and sorted(program.state_dict()) == sorted(names)
    other = copy.deepcopy(program.input)
    words = next(e for e in other if isinstance(e, SoftPrompt))
    coupled = next(e for e in other if isinstance(e, CoupledTokens))
    before = next(e for e in program.input if isinstance(e, CoupledTokens)).tokens()
    words.values.data += 1
    torch.testing.assert_close(coupled.tokens(), words.values @ coupled.project.weight.T + coupled.project.bias)
    assert not torch.allclose(coupled.tokens(), before)
    torch.testing.assert_close(next(e for e in program.input if isinstance(e, CoupledTokens)).tokens(), before)


def test_maple_and_ivlp_have_as_many_numbers_as_published(source: DualSource) -> None:
    words: list[SoftPrompt | ReplacedTokens] = [SoftPrompt(torch.zeros(2, 512))]
    words += [ReplacedTokens(torch.zeros(2, 512), site=f"text.hidden.{i}") for i in range(1, 9)]
    coupled = [CoupledTokens(p, 768) for p in words]
    free = [TrailingTokens(torch.zeros(2, 768)) for _ in range(9)]
    assert numbers([nn.ModuleList([*words, *coupled])]) == 3_555_072
    assert numbers([*words, *free]) == 23_040
    assert rp.build("maple", source, TASK).count().allocated == 3 * 2 * 16 + 3 * (16 * 16 + 16)
    assert rp.build("ivlp", source, TASK).count().allocated == 3 * 2 * (16 + 16)
    assert rp.build("ivlp", source, TASK, depth=2).count().allocated == 2 * 2 * (16 + 16)


class Kept(Edit):
    """Remembers what it sees."""

    operators = frozenset()

    def __init__(self, site: str) -> None:
        super().__init__()
        self.site = site
        self.seen: list[Tensor] = []

    def forward(self, value: Tensor) -> Tensor:
        self.seen.append(value)
        return value


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_tokens_replace_the_ones_before_and_no_others(kind: Any) -> None:
    """Replaced by what they are anyway, nothing changes: so a start token or a class name is never overwritten."""
    there = tiny_dual_source(kind)
    torch.manual_seed(0)
    shallow = [*text_prompts(there, 2, 1), *image_prompts(there, 2, 1, std=0.5)]
    reading, x = Reading(texts=("a cat",)), pictures(1)
    kept = [Kept("text.hidden.1"), Kept("image.hidden.1")]
    there.attach([e.site for e in (*shallow, *kept)], reading)
    wanted = there(x, Input(*shallow, *kept), reading)
    deep = [*text_prompts(there, 2, 2)[1:], *image_prompts(there, 2, 2)[1:]]
    assert isinstance(deep[0], ReplacedTokens) and isinstance(deep[1], TrailingTokens)
    deep[0].values.data = kept[0].seen[0][0, deep[0].after : deep[0].after + 2].detach()
    deep[1].values.data = kept[1].seen[0][0, -2:].detach()
    said = there(x, Input(*shallow, *deep), reading)
    assert said.texts is not None and said.features is not None
    torch.testing.assert_close(said.texts, wanted.texts, atol=1e-6, rtol=0)
    torch.testing.assert_close(said.features, wanted.features, atol=1e-6, rtol=0)
    for edit in deep:
        edit.values.data = torch.randn_like(edit.values)
    changed = there(x, Input(*shallow, *deep), reading)
    assert changed.texts is not None and changed.features is not None
    assert not torch.allclose(changed.texts, said.texts, atol=1e-4)
    assert not torch.allclose(changed.features, said.features, atol=1e-4)


def test_towers_without_tokens_are_refused_and_have_other_forms() -> None:
    there = convolutional()
    for name in ("maple", "ivlp", "promptkd"):
        with pytest.raises(CapabilityError, match=r"must read image tokens, at `image.embedding`.*vision='frame'"):
            rp.build(name, there, TASK)
        program = rp.build(name, there, TASK, vision="frame", width=2)
        assert bool(program(pictures()).isfinite().all())
    sites = {e.site for e in rp.build("maple", there, TASK, preset="cnn").input if e.operators}
    assert sites == {"text.embedding", "text.hidden.1", "text.hidden.2"}
    for name in ("maple", "ivlp"):
        with pytest.raises(ConfigError, match="vision"):
            rp.build(name, there, TASK, vision="all")


def test_one_side_of_ivlp_alone(source: DualSource) -> None:
    vision = rp.build("ivlp", source, TASK, preset="deep_vision")
    assert {e.site for e in vision.input if e.operators} == {"image.embedding", "image.hidden.1", "image.hidden.2"}
    assert vision.output.reading.texts[0] == "a photo of a class 0." and vision.count().allocated == 3 * 8 * 16
    language = rp.build("ivlp", source, TASK, preset="deep_language")
    assert {e.site for e in language.input if e.operators} == {"text.embedding", "text.hidden.1", "text.hidden.2"}
    assert language.output.reading.texts[0] == "class 0."
    with pytest.raises(ConfigError, match="must not both be off"):
        rp.build("ivlp", source, TASK, text=False, vision="none")
    with pytest.raises(ConfigError, match="depth"):
        rp.build("ivlp", source, TASK, depth=0)


def empty(split: Split) -> Split:
    return split.subset(torch.arange(0))


# -- promptkd ----------------------------------------------------------------------------------------------------------


class Asked:
    """A teacher that counts the pictures it is asked about."""

    def __init__(self, classes: int = 3, d: int = 5) -> None:
        draw = torch.Generator().manual_seed(0)
        self.rows = F.normalize(torch.randn(classes, d, generator=draw), dim=-1)
        self.seen = 0

    def vectors(self) -> Tensor:
        return self.rows

    def answers(self, pictures: Tensor) -> Tensor:
        self.seen += len(pictures)
        return torch.stack([pictures.mean((1, 2, 3)) * (t + 1) for t in range(len(self.rows))], 1)


def distilled(teacher: Asked, **more: Any) -> DistilledClasses:
    torch.manual_seed(0)
    return DistilledClasses(Projector(4, 5, more.pop("norm", "layer")), (3, 5), lambda: teacher, scale=20.0, **more)


def test_the_loss_is_the_mean_divergence_from_the_teacher() -> None:
    teacher = Asked()
    output = distilled(teacher, temperature=2.0, weight=200.0)
    x = torch.rand(4, 3, 8, 8)
    said = SourceOutput(features=F.normalize(torch.randn(4, 4), dim=-1), at={"input": x})
    scores = output(said).detach()
    total = 0.0
    for row, taught in zip(scores.tolist(), teacher.answers(x).tolist(), strict=True):
        p, q = (torch.tensor(r, dtype=torch.float64).div(2).softmax(0).tolist() for r in (taught, row))
        total += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
    found = output.loss(said, scores, torch.zeros(4, dtype=torch.int64))
    assert float(found) == pytest.approx(200 * 4 * total / 12, rel=1e-4)
    assert float(output.loss(said, scores, torch.ones(4, dtype=torch.int64))) == float(found)  # labels say nothing
    with pytest.raises(CapabilityError, match="pictures at `input`"):
        output.loss(SourceOutput(features=said.features), scores, torch.zeros(4, dtype=torch.int64))


def test_the_teacher_looks_at_each_picture_once() -> None:
    teacher = Asked()
    output = distilled(teacher)
    x = torch.rand(6, 3, 8, 8)
    first = output.answers(x[[0, 1, 2]])
    again = output.answers(x[[2, 5, 0]])
    assert teacher.seen == 4
    torch.testing.assert_close(again[[0, 2]], first[[2, 0]])
    torch.testing.assert_close(output.answers(x), Asked().answers(x))


def test_one_picture_is_normalised_by_the_running_statistics() -> None:
    projector = Projector(4, 5, "batch").train()
    for _ in range(5):
        projector(torch.randn(8, 4))
    before = copy.deepcopy(projector.state_dict())
    one = torch.randn(1, 4)
    learning = projector(one)
    assert all(torch.equal(before[name], value) for name, value in projector.state_dict().items())
    torch.testing.assert_close(learning, projector.eval()(one))


def test_promptkd_has_as_many_numbers_as_published(source: DualSource) -> None:
    prompts = [TrailingTokens(torch.zeros(4, 768)) for _ in range(9)]
    assert numbers(prompts) == 27_648 and numbers([Projector(512, 768)]) == 986_112
    assert rp.build("promptkd", source, TASK).count().allocated == 3 * 4 * 16 + 13 * 12 + 24 + 13 * 12


def test_a_student_learns_from_a_teacher_of_another_width_without_labels(
    source: DualSource, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    teacher = tiny_dual_source("siglip", seed=3)
    monkeypatch.setattr(promptkd, "_loaded", lambda ref: {"hf/teacher": teacher}[ref])
    made = []
    pixels, labels = TASK.train.fetch(torch.arange(len(TASK.train))), TASK.train.labels
    for order in (labels, labels.flip(0)):
        task = replace(TASK, splits={**TASK.splits, "train": Split("train", pixels, order), "val": empty(TASK.val)})
        program = rp.build("promptkd", source, task, teacher="hf/teacher", **{**SMALL, "norm": "layer", "tokens": 2})
        history = rp.fit(program, task, options=SILENT).history
        assert history[-1]["loss"] < 0.8 * history[0]["loss"]
        made.append(program)
    for name, value in made[0].state_dict().items():  # the same, whatever the labels say
        torch.testing.assert_close(made[1].state_dict()[name], value, atol=1e-5, rtol=1e-4)
    program = made[0]
    x = TASK.test.fetch(torch.arange(4))
    rp.save(program, tmp_path / "student.safetensors")
    monkeypatch.setattr(promptkd, "_loaded", lambda ref: pytest.fail("a fitted student needs no teacher"))
    assert program.origin is not None
    again = rp.build("promptkd", source, program.origin.task, teacher="hf/teacher", norm="layer", tokens=2)
    restore(again, read(tmp_path / "student.safetensors"))
    assert torch.equal(again.predict(x).scores, program.predict(x).scores)


def test_a_new_program_asks_its_teacher_for_the_class_vectors(source: DualSource) -> None:
    program = rp.build("promptkd", source, TASK)
    assert isinstance(program.output, DistilledClasses) and program.origin is not None
    program.predict(TASK.test.fetch(torch.arange(2)))
    wanted = source.vectors(tuple(f"a photo of a class {i}." for i in range(3)))
    assert torch.equal(program.output.vectors, wanted)
    again = rp.build("promptkd", source, program.origin.task)  # nothing restored: not a row of zeros
    again.predict(TASK.test.fetch(torch.arange(2)))
    assert isinstance(again.output, DistilledClasses) and torch.equal(again.output.vectors, wanted)


# -- argue -------------------------------------------------------------------------------------------------------------


def test_the_loss_of_argue_is_three_sums() -> None:
    torch.manual_seed(0)
    texts, owner = ("a1", "a2", "a3", "b1"), (0, 0, 0, 1)
    written = F.normalize(torch.randn(5, 2, 6), dim=-1)
    weights = Guidance(text_weight=5.0, negative_weight=3.0, noise=0.0)
    output = AttributeScores(texts, owner, plain=("a", "b"), negative=("no a", "no b"), written=lambda: written,
                             scale=10.0, guidance=weights).train()  # fmt: skip
    seen, learned = (F.normalize(torch.randn(n, 6), dim=-1) for n in (3, 8))
    said = SourceOutput(scores=10 * seen @ learned.T, features=seen, texts=learned)
    target = torch.tensor([0, 1, 1])
    total = 0.0
    for x, t in zip(seen, target.tolist(), strict=True):
        rows = [10 * float(x @ v) for v in learned]
        y = torch.tensor([sum(rows[:3]) / 3, rows[3]])
        total -= float(y.log_softmax(0)[t]) / 3
        p = torch.tensor(rows[6:]).softmax(0)
        total += 3 * sum(float(q * q.log()) for q in p) / (3 * 2)
    for template in written:
        for t in range(2):
            total -= 5 * float((10 * template[t] @ learned[4:6].T).log_softmax(0)[t]) / 10
    assert float(output.loss(said, output(said), target)) == pytest.approx(total, rel=1e-5)
    assert output.eval().reading.texts == texts  # what only the loss needs is not read when classes are predicted
    with pytest.raises(CapabilityError, match="8 texts to learn from"):
        output.loss(SourceOutput(scores=said.logits[:, :4]), said.logits[:, :2], target)


def test_backgrounds_are_pushed_towards_no_opinion(source: DualSource) -> None:
    """With the sign the wrong way round they would become sure."""
    program = rp.build("argue", source, TASK, attributes=ATTRIBUTES, negative_weight=50.0, text_weight=0.0,
                       **{**SMALL, "recipe.epochs": 6})  # fmt: skip
    output = program.output
    assert isinstance(output, AttributeScores)
    texts = output.negative

    @torch.no_grad()
    def entropy() -> float:
        seen = source(Place(16, 16)(pictures(8)), program.input, Reading(texts=texts))
        p = seen.logits.softmax(1)
        return float(-(p * p.log()).sum(1).mean())

    before = entropy()
    rp.fit(program, TASK, options=SILENT)
    assert entropy() > before


def test_classes_with_fewer_attributes_than_are_kept(source: DualSource) -> None:
    program = rp.build("argue", source, TASK, attributes=ATTRIBUTES, kept=3)
    output = program.output
    assert isinstance(output, AttributeScores)
    assert [int((output.pooled.owner == t).sum()) for t in range(3)] == [3, 1, 2]
    assert set(output.pooled.texts) >= {"class 1, green bar.", "class 2, blue bar.", "class 2, below."}
    said = program.outputs(pictures())
    plain = torch.stack([said.logits[:, :3].mean(1), said.logits[:, 3], said.logits[:, 4:6].mean(1)], 1)
    torch.testing.assert_close(output(said), plain)


def test_attributes_are_chosen_by_pictures_and_kept_with_the_program(source: DualSource, tmp_path: Any) -> None:
    file = tmp_path / "attributes.json"
    file.write_text(json.dumps(ATTRIBUTES))
    program = rp.build("argue", source, TASK, attributes=str(file), kept=2)
    assert program.origin is not None and program.origin.task is not None
    kept = [one.answer for one in program.origin.task.context if one.texts == ("class 0",)]
    texts = [f"class 0, {attribute}." for attribute in ATTRIBUTES["class 0"]]
    rows = (TASK.train.labels == 0).nonzero().flatten()
    seen = source(TASK.train.fetch(rows), Input(Place(16, 16)), Reading()).features
    chosen = representatives(source.vectors(texts), 2, seen)
    assert kept == [ATTRIBUTES["class 0"][row] for row in chosen]
    rp.save(program, tmp_path / "argue.safetensors")
    file.unlink()
    again = rp.build("argue", source, program.origin.task, attributes=str(file), kept=2)
    restore(again, read(tmp_path / "argue.safetensors"))
    x = TASK.test.fetch(torch.arange(4))
    assert torch.equal(again.predict(x).scores, program.predict(x).scores)
    with pytest.raises(ConfigError, match="must be kept with the program"):  # a file of programs must not name others
        rp.build("argue", source, TASK.spec, attributes=str(file))


def test_without_pictures_the_middle_attributes_are_kept(source: DualSource) -> None:
    texts = [f"class 0, {attribute}." for attribute in ATTRIBUTES["class 0"]]
    middle = [ATTRIBUTES["class 0"][row] for row in representatives(source.vectors(texts), 2)]
    for program in (rp.build("argue", source, TASK.spec, attributes=ATTRIBUTES, kept=2),
                    rp.build("argue", source, TASK, attributes=ATTRIBUTES, kept=2, looked=0)):  # fmt: skip
        assert program.origin is not None and program.origin.task is not None
        assert [one.answer for one in program.origin.task.context if one.texts == ("class 0",)] == middle
    # of one picture of one class, the others have none and keep the middle
    few = rp.build("argue", source, TASK, attributes=ATTRIBUTES, kept=1, looked=1)
    assert few.origin is not None and few.origin.task is not None and len(few.origin.task.context) == 3


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 99))
def test_representatives_are_one_of_each_cluster(n: int, count: int, seed: int) -> None:
    vectors = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    found = representatives(vectors, count)
    assert len(found) == min(n, count) and found == sorted(set(found)) and found[-1] < n
    assert found == representatives(vectors * 2.0 ** torch.arange(n)[:, None], count)  # only directions count


def test_bad_settings_of_argue(source: DualSource) -> None:
    for bad, what in (
        ({}, "attributes"), ({"attributes": ATTRIBUTES, "kept": 0}, "kept"),
        ({"attributes": ATTRIBUTES, "layout": "{class}."}, "attribute"),
        ({"attributes": ATTRIBUTES, "negative_weight": -1.0}, "negative_weight"),
        ({"attributes": ATTRIBUTES, "templates": ("no place",)}, "layout"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=what):
            rp.build("argue", source, TASK, **bad)
    with pytest.raises(DataError, match="missing"):
        rp.build("argue", source, TASK, attributes={"class 0": "x"})


@pytest.mark.parametrize("name", ["cocoop", "maple", "ivlp", "argue"])
def test_the_loss_falls(source: DualSource, name: str) -> None:
    more: dict[str, Any] = {"attributes": ATTRIBUTES} if name == "argue" else {}
    program = rp.build(name, source, TASK, **SMALL, **more)
    losses = [row["loss"] for row in rp.fit(program, TASK, options=SILENT).history]
    assert losses[-1] < losses[0]
    assert program.taxonomy == find(name).taxonomy
