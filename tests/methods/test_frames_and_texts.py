"""Frames on image-text sources: vp_clip, ilm_vp_clip, attrvr, dvp, reprogrammer, tvp."""

import json
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import reprogram as rp
from reprogram.core.errors import CapabilityError, ConfigError, DataError, MissingExtraError
from reprogram.core.program import Input, Program
from reprogram.core.source import Reading
from reprogram.core.task import Sample, TaskSpec
from reprogram.fit import FitOptions, fit
from reprogram.inputs import cause_sets
from reprogram.methods.ilm_vp_clip import PLAIN
from reprogram.outputs import FrequencyMap, MappedTexts, NearestDescriptions, ReweightedDescriptions
from reprogram.outputs.templates import TEMPLATES
from reprogram.sources.image_text import DualSource
from reprogram.sources.module import wrap
from reprogram.testing import TinyNet, tiny_source, tiny_task
from reprogram.testing.image_text import tiny_dual_source

pytest.importorskip("transformers")

QUIET = FitOptions(progress=False)
SMALL = {"recipe.epochs": 2, "recipe.batch_size": 8, "recipe.warmup_steps": 0}
WORDS = {"class 0": "red", "class 1": "green", "class 2": "blue"}
BOTH = {name: {"descriptive": [f"a {w} bar", f"{w} there", f"bar of {w}"], "distinctive": [f"only {w}", f"no {w}"]}
        for name, w in WORDS.items()}  # fmt: skip
CAUSES = {name: {one: [f"{w} {one}", f"a {w} {one}"] for one in cause_sets(3)} for name, w in WORDS.items()}
GIVEN: dict[str, dict[str, Any]] = {"attrvr": {"descriptions": BOTH}, "dvp": {"descriptions": CAUSES}}
METHODS = ["vp_clip", "ilm_vp_clip", "attrvr", "dvp", "reprogrammer", "tvp"]


def built(method: str, source: DualSource | None = None, **settings: Any) -> Program:
    given = {**SMALL, **GIVEN.get(method, {}), **settings}
    return rp.build(method, source or tiny_dual_source(), tiny_task(), **given)


def at_224() -> DualSource:
    """A pair of towers whose canvas is that of the papers."""
    image = wrap(TinyNet(12), input_shape=(3, 224, 224), resizable=True)
    return DualSource(image, tiny_dual_source().text, ref="module:wide", scale=20.0)


@pytest.mark.parametrize(
    ("method", "numbers"),
    [("vp_clip", 69_840), ("ilm_vp_clip", 69_840), ("attrvr", 39_936), ("dvp", 119_808), ("tvp", 69_840)],
)
def test_numbers_are_those_of_the_papers_at_224_and_fewer_below(method: str, numbers: int) -> None:
    source = at_224()
    program = built(method, source)
    assert program.count().allocated == program.count().effective == numbers
    half = built(method, source, canvas=112)  # a fixed width of 30 would leave another share of the picture
    assert half.count().allocated == pytest.approx(numbers / 4, rel=0.02)


def test_a_reprogrammer_learns_its_frame_and_the_tokens_there_are() -> None:
    program = built("reprogrammer", at_224())
    assert len(program.input.edits[1].frame.values.flatten()) == 39_936  # type: ignore[union-attr]
    text = tiny_dual_source().text
    ids = {i for name in WORDS for i in text.encode(f"a photo of a {name}.")}
    delta: Any = program.input.edits[2]
    assert len(delta.values) == len(ids) + 2  # and the start and end tokens
    assert program.count().allocated == 39_936 + delta.values.numel() + delta.places.numel()
    assert built("reprogrammer", at_224(), positions=False).count().allocated == 39_936 + delta.values.numel()


@pytest.mark.parametrize("method", METHODS)
def test_a_fit_trains_and_edits_no_batch_in_place(method: str) -> None:
    source, task = tiny_dual_source(), tiny_task()
    program = built(method, source)
    x = task.train.pictures(torch.arange(4)).float() / 255
    kept = x.clone()
    program.train()(x).sum().backward()
    assert torch.equal(x, kept)
    before = {n: p.detach().clone() for n, p in program.named_parameters()}
    fit(program, task, options=QUIET)
    assert all(not torch.equal(p, before[n]) for n, p in program.named_parameters())


@pytest.mark.parametrize("method", ["vp_clip", "ilm_vp_clip", "attrvr", "dvp", "tvp"])
def test_texts_that_nothing_changes_are_encoded_once(method: str) -> None:
    """Published code encodes them again at every step."""
    source, task = tiny_dual_source(), tiny_task()
    calls = []
    source.text.module.register_forward_pre_hook(lambda *_: calls.append(1))
    program = built(method, source)
    fit(program, task, options=QUIET)
    program.predict(task.test.fetch(torch.arange(4)))
    assert len(calls) <= 2  # two passes of 256 texts at most: 243 sentences, or 18 descriptions


@pytest.mark.parametrize("prompt", ["frame", "fixed_patch", "random_patch"])
def test_vp_scores_are_cosines_to_the_class_texts(prompt: str) -> None:
    source = tiny_dual_source()
    program = built("vp_clip", source, prompt=prompt, width=4)
    x = tiny_task().test.pictures(torch.arange(4)).float() / 255
    program.eval()
    said = source(x, program.input, Reading())
    assert said.features is not None
    texts = source.vectors([f"This is a photo of a {name}" for name in WORDS])
    torch.testing.assert_close(program(x), source.scale * said.features @ texts.T)
    assert torch.equal(program(x), program(x))  # a random patch stays where it is when predicting
    again = [program.train()(x) for _ in range(6)]
    assert any(not torch.equal(again[0], one) for one in again) == (prompt == "random_patch")


def test_a_frame_from_zeros_says_what_the_source_says_unedited() -> None:
    source, x = tiny_dual_source(), tiny_task().test.fetch(torch.arange(4))
    plain = built("no_edit", source, templates=("This is a photo of a {class}",)).eval()(x)
    torch.testing.assert_close(built("vp_clip", source, width=4, start="zeros").eval()(x), plain)
    assert not torch.allclose(built("vp_clip", source, width=4).eval()(x), plain)


# -- sentences ---------------------------------------------------------------------------------------------------------


def counted(program: Program, source: DualSource, *, edited: bool) -> torch.Tensor:
    """Counts by hand over the training split, of pictures with the frame or without."""
    split = tiny_task().train
    output: Any = program.output
    plain = Input(*(e for e in program.input if edited or not e.operators))
    with torch.no_grad():
        scores = source(split.fetch(torch.arange(len(split))), plain, output.reading).logits
    counts = torch.zeros(len(output.texts), 3, dtype=torch.int64)
    for s, t in zip(scores.argmax(1).tolist(), split.labels.tolist(), strict=True):
        counts[s, t] += 1
    return counts


@pytest.mark.parametrize("refresh", ["exact", "stream"])
def test_the_prompt_reaches_the_statistics_of_the_map(refresh: str) -> None:
    """In a published search the mapping pass saw pictures that the frame did not touch."""
    source, task = tiny_dual_source(), tiny_task()
    program = built("ilm_vp_clip", source, **{"recipe.refresh": refresh, "recipe.lr": 1e-12, "recipe.epochs": 1})
    with torch.no_grad():
        next(program.parameters()).normal_(std=3.0)
    expected, without = counted(program, source, edited=True), counted(program, source, edited=False)
    assert not torch.equal(expected, without)
    fit(program, task, options=QUIET)
    output = program.output
    assert isinstance(output, MappedTexts)
    assert torch.equal(output.statistics()["counts"], expected)


def test_ilm_has_81_sentences_a_class_or_those_that_are_asked_for() -> None:
    own = built("ilm_vp_clip").output
    assert isinstance(own, MappedTexts) and len(own.texts) == 81 * 3
    assert own.texts[:2] == ("a photo of a class 0.", "a blurry photo of a class 0.") and len(TEMPLATES) == 81
    assert isinstance(own.map, FrequencyMap) and own.map.index.flatten().tolist() == [0, 81, 162]
    few = built("ilm_vp_clip", templates=("{class}", "some {class}"), mapping="blm").output
    assert isinstance(few, MappedTexts) and few.texts[:3] == ("class 0", "some class 0", "class 1")
    for bad in (("{class}", "{class}"), (), ("no name",)):
        with pytest.raises(ConfigError, match=r"templates|layout"):
            built("ilm_vp_clip", templates=bad)


def test_templates_of_open_clip_are_kept_with_the_program(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("open_clip")
    source = tiny_dual_source()
    program = built("ilm_vp_clip", source, templates="openai")
    output = program.output
    assert isinstance(output, MappedTexts) and len(set(output.texts)) == 243 and output.texts[0] == PLAIN.replace(
        "{class}", "class 0")  # fmt: skip
    rp.save(program, tmp_path / "p.safetensors")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    again = rp.load(tmp_path / "p.safetensors", source)
    x = tiny_task().test.fetch(torch.arange(3))
    assert torch.equal(again.predict(x).scores, program.predict(x).scores)
    with pytest.raises(MissingExtraError, match="open_clip"):
        built("ilm_vp_clip", source, templates="openai")


# -- descriptions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "form"), [("attrvr", None), ("dvp", "cse"), ("dvp", "cls")])
def test_descriptions_of_a_file_are_kept_with_the_program(tmp_path: Any, method: str, form: str | None) -> None:
    source, task = tiny_dual_source(), tiny_task()
    path = tmp_path / "some.json"
    path.write_text(json.dumps(CAUSES if form == "cse" else BOTH))
    more: dict[str, Any] = {"form": form} if form else {}
    program = built(method, source, descriptions=str(path), **more)
    fit(program, task, out=tmp_path / "p.safetensors", options=QUIET)
    path.unlink()
    again = rp.load(tmp_path / "p.safetensors", source)
    x = task.test.fetch(torch.arange(4))
    assert torch.equal(again.predict(x).scores, program.predict(x).scores)


@pytest.mark.parametrize(("method", "form"), [("attrvr", None), ("dvp", "cse"), ("dvp", "cls")])
def test_missing_descriptions_are_an_error(method: str, form: str | None) -> None:
    more: dict[str, Any] = {"form": form} if form else {}
    with pytest.raises(ConfigError, match="reprogram describe"):
        built(method, descriptions=None, **more)
    some = {name: value for name, value in (CAUSES if form == "cse" else BOTH).items() if name != "class 1"}
    with pytest.raises(DataError, match="class 1"):
        built(method, descriptions=some, **more)
    spec = TaskSpec(name="t", classes=tuple(WORDS), sample=Sample(shape=(3, 8, 8)))
    with pytest.raises(ConfigError, match="kept with the program"):
        rp.build(method, tiny_dual_source(), spec, descriptions="/nowhere.json", **more)


def test_attrvr_reads_the_nearest_of_each_set() -> None:
    source = tiny_dual_source()
    program = built("attrvr", source, nearest=2, weight=0.7, lead="See {a class}: ", descriptions={
        **BOTH, "class 1": {"descriptive": "lonely", "distinctive": [f"very {i}" for i in range(40)]}})  # fmt: skip
    output = program.output
    assert isinstance(output, NearestDescriptions)
    assert output.texts[0] == "See a class 0: a red bar" and "See a class 1: lonely" in output.texts
    assert len(output.texts) == 3 + 1 + 3 + 2 + 20 + 2  # of 40, m = 20 are drawn
    x = tiny_task().test.fetch(torch.arange(4))
    said = source(x, program.input, output.reading)
    descriptive, distinctive = said.logits[:, :7].split([3, 1, 3], 1), said.logits[:, 7:].split([2, 20, 2], 1)
    for t in range(3):
        looks, differs = (p[t].topk(min(2, p[t].shape[1]), 1).values.mean(1) for p in (descriptive, distinctive))
        torch.testing.assert_close(program(x)[:, t], 0.7 * looks + 0.3 * differs)


@pytest.mark.parametrize("form", ["cse", "cls"])
def test_dvp_is_the_published_sum_over_frames(form: str) -> None:
    """A pass of the source for each frame, all texts masked to the frame's own, a dense matrix."""
    source = tiny_dual_source()
    program = built("dvp", source, form=form, descriptions=CAUSES, **{"recipe.lr": 0.1})
    fit(program, tiny_task(), options=QUIET)
    output: Any = program.output
    assert isinstance(output, ReweightedDescriptions)
    held = program.origin.task.context  # type: ignore[union-attr]
    owner = [tuple(WORDS).index(one.texts[0]) for one in held]
    sets = sorted({one.texts[1] for one in held})
    assert len(sets) == 3 and all(s.startswith("cause" if form == "cse" else "cluster") for s in sets)
    x = tiny_task().test.fetch(torch.arange(4))
    place, frames = program.input
    logits = torch.zeros(4, len(held))
    with torch.no_grad():
        for number, frame in enumerate(frames.frames):  # type: ignore[union-attr]
            seen = source(x, Input(place, frame), Reading()).features
            mask = torch.tensor([one.texts[1] == sets[number] for one in held]).float()
            assert seen is not None
            logits += source.scale * seen @ (source.vectors([one.answer for one in held]) * mask[:, None]).T
        dense = torch.zeros(len(held), 3)
        places = [0, 0, 0]
        for i, t in enumerate(owner):
            dense[i, t] = output.weights[t, places[t]]
            places[t] += 1
        torch.testing.assert_close(program(x), logits @ dense, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.weights.sum(1), torch.ones(3))
    assert not torch.allclose(output.weights, output.weights[:, :1])  # something was counted


def test_dvp_runs_the_image_tower_once_on_all_frames() -> None:
    source = tiny_dual_source()
    rows = []
    program = built("dvp", source)
    source.image.module.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    program(tiny_task().test.fetch(torch.arange(4)))
    assert rows == [12]
    with pytest.raises(ConfigError, match="points"):
        built("dvp", source, form="cls", frames=19, descriptions=CAUSES)
    with pytest.raises(ConfigError, match="frames"):
        built("dvp", source, frames=0)
    with pytest.raises(DataError, match="cause_4"):
        built("dvp", source, frames=4)


# -- losses ------------------------------------------------------------------------------------------------------------


def test_reprogrammer_mixes_the_unedited_model_in_when_predicting() -> None:
    source = tiny_dual_source()
    program = built("reprogrammer", source, residual=0.25)
    with torch.no_grad():
        for parameter in program.parameters():
            parameter.normal_(std=0.5)
    x = tiny_task().test.fetch(torch.arange(4))
    texts = [f"a photo of a {name}." for name in WORDS]
    said = source(x, program.input, program.output.reading)
    plain = source(x, Input(program.input.edits[0]), Reading())  # type: ignore[arg-type]
    assert said.features is not None and said.texts is not None and plain.features is not None
    seen = 0.75 * said.features + 0.25 * plain.features
    names = 0.75 * said.texts + 0.25 * source.vectors(texts)
    assert float((said.texts - source.vectors(texts)).detach().abs().max()) > 0.01
    torch.testing.assert_close(program.eval()(x), source.scale * seen @ names.T)
    torch.testing.assert_close(program.train()(x), said.logits)


def test_tvp_takes_a_step_of_one_length_along_the_gradient_of_its_own_loss() -> None:
    source, task = tiny_dual_source(), tiny_task()
    program = built("tvp", source, consistency=0.5, similarity=0.2,
                    **{"recipe.epochs": 1, "recipe.batch_size": len(task.train), "recipe.lr": 3.0})  # fmt: skip
    frame = program.input.edits[1].values  # type: ignore[union-attr]
    assert isinstance(frame, torch.nn.Parameter)
    with torch.no_grad():
        frame.normal_(std=0.3)
    start, labels = frame.detach().clone(), task.train.labels
    x = task.train.fetch(torch.arange(len(task.train)))
    said = source(x, program.input, Reading(texts=program.output.reading.texts))
    plain = source(x, Input(program.input.edits[0]), Reading())  # type: ignore[arg-type]
    assert said.features is not None and plain.features is not None
    apart = (said.features - plain.features).norm(dim=1).mean()
    close = said.logits[torch.arange(len(labels)), labels].mean()
    loss = F.cross_entropy(said.logits, labels) + 0.5 * apart - 0.2 * close
    (grad,) = torch.autograd.grad(loss, frame)
    result = fit(program, task, options=QUIET)
    assert result.history[0]["loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
    torch.testing.assert_close(frame.detach(), start - 3.0 * grad / grad.norm(), atol=1e-3, rtol=1e-3)
    assert float((frame.detach() - start).norm()) == pytest.approx(3.0, rel=1e-4)


def test_gradients_are_clipped_after_they_are_unscaled() -> None:
    found = []
    for precision in ("fp32", "fp16"):
        source, task = tiny_dual_source(), tiny_task()
        settings = {"recipe.epochs": 1, "recipe.batch_size": len(task.train), "recipe.lr": 1.0, "recipe.momentum": 0.0}
        program = built("attrvr", source, **settings, **{"recipe.clip_norm": 1e-3, "recipe.augment": "none"})
        fit(program, task, options=FitOptions(progress=False, precision=precision))  # type: ignore[arg-type]
        found.append(next(program.parameters()).detach().norm())
    assert float(found[0]) == pytest.approx(1e-3, rel=1e-3) and float(found[1]) == pytest.approx(1e-3, rel=0.05)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["siglip"])
def test_nothing_is_fixed_to_one_precision_or_kind_of_source(method: str, kind: Any) -> None:
    program = built(method, tiny_dual_source(kind), **{"recipe.epochs": 1})
    fit(program, tiny_task(), options=FitOptions(progress=False, precision="bf16"))
    scores = program.predict(tiny_task().test.fetch(torch.arange(2))).scores
    assert scores.dtype == torch.float32 and bool(scores.isfinite().all())
    assert all(p.dtype == torch.float32 for p in program.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_a_plain_classifier_is_refused(method: str) -> None:
    with pytest.raises(CapabilityError, match="class texts"):
        rp.build(method, tiny_source(), tiny_task(), **GIVEN.get(method, {}))


def test_settings_out_of_range_are_refused() -> None:
    bad: dict[str, Any]
    for method, bad in (("attrvr", {"weight": 2.0}), ("attrvr", {"nearest": 0}), ("tvp", {"width": 8}),
                        ("reprogrammer", {"residual": -1.0}), ("reprogrammer", {"dropout": 1.0}),
                        ("attrvr", {"count": 0}), ("dvp", {"inner": 16})):  # fmt: skip
        with pytest.raises(ConfigError):
            built(method, **bad)
