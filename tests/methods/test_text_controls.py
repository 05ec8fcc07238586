"""no_edit and linear_probe on text tasks: the texts as they are, read by words, class means or a linear layer."""

import math

import pytest
import torch

from reprogram.catalogue import build, find, load
from reprogram.core.errors import ConfigError
from reprogram.core.task import Sample, TaskSpec
from reprogram.core.texts import Texts
from reprogram.fit import FitOptions, evaluate, fit
from reprogram.inputs import Place, Template, entry
from reprogram.outputs import BayesianMap, Linear, Prototypes, TokenScores, Verbalizer
from reprogram.store import save
from reprogram.tasks import Task, load_task
from reprogram.testing import check_method, tiny_source, tiny_text_source

QUIET = FitOptions(progress=False)
TEXTS = [f"the {word} film was {mood} {n}" for n in range(10) for word, mood in (("old", "good"), ("new", "bad"))]
MOOD = Task.from_texts(TEXTS, ["positive", "negative"] * 10, name="mood")
ORDERS = load_task("bundled/json-orders").limit(train=8, val=4, test=8)


@pytest.mark.parametrize(
    ("kind", "output"),
    [("gpt2", Verbalizer), ("llama", Verbalizer), ("bert", Verbalizer), ("t5", Verbalizer),
     ("bert_encoder", Prototypes), ("bert_classifier", BayesianMap)],
)  # fmt: skip
def test_no_edit(kind, output, tmp_path):
    source = tiny_text_source(kind)
    program = build("no_edit", source, MOOD)
    assert isinstance(program.output, output) and [type(e) for e in program.input] == [Template]
    assert program.count().allocated == 0 and not program.taxonomy.operator
    result = fit(program, MOOD, options=QUIET)
    assert result.test is not None and result.test.scores.shape == (4, 2)
    save(program, tmp_path / "x.safetensors")
    again = load(tmp_path / "x.safetensors", source)
    assert again.origin.task == MOOD.spec
    assert torch.equal(again.predict(TEXTS[:3]).scores, program.predict(TEXTS[:3]).scores)


def test_zero_shot_is_the_models_own_answer():
    """The scores of the label words at the last token of the prompt, by the model called directly."""
    source = tiny_text_source("gpt2")
    program = build("no_edit", source, MOOD, template="{text} It was", words={"positive": "good", "negative": "bad"})
    ids = torch.tensor([source.encode(f"{TEXTS[0]} It was")])
    with torch.no_grad():
        logits = source.module(input_ids=ids).logits[0, -1]
    words = [source.encode(" bad")[0], source.encode(" good")[0]]
    torch.testing.assert_close(program.predict(TEXTS[:1]).scores[0], logits[words], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "bert", "t5", "bert_encoder"])
def test_linear_probe(kind, tmp_path):
    source = tiny_text_source(kind)
    program = build("linear_probe", source, MOOD, **{"recipe.epochs": 30, "recipe.lr": 0.05, "recipe.patience": None})
    assert isinstance(program.output, Linear) and program.output.reads_features
    assert program.output.sources == source.spec.width == 32
    result = fit(program, MOOD, options=QUIET)
    assert result.test is not None and evaluate(program, MOOD.train).accuracy == 1.0  # the mood's word gives it away
    save(program, tmp_path / "x.safetensors")
    again = load(tmp_path / "x.safetensors", source)
    torch.testing.assert_close(again.predict(TEXTS[:3]).scores, program.predict(TEXTS[:3]).scores)


def test_generation_without_a_prompt():
    source = tiny_text_source("gpt2")
    program = build("no_edit", source, ORDERS)
    assert isinstance(program.output, TokenScores)
    test = fit(program, ORDERS, options=QUIET).test
    assert test is not None and test.confusion is None and 0 < test.loss < 100 and math.isfinite(test.perplexity)
    with pytest.raises(ConfigError, match="must have classes for linear_probe"):
        build("linear_probe", source, ORDERS)


def test_the_contract_on_texts():
    """An encoder's vectors are read by class means, which is as statistical as the maps of pictures are."""
    check_method(find("no_edit"), source=tiny_text_source("bert_encoder"), task=MOOD)
    check_method(find("linear_probe"), source=tiny_text_source("gpt2"), task=MOOD)


def test_the_way_in():
    text, image = tiny_text_source("gpt2"), tiny_source()
    pictures = TaskSpec(name="p", classes=("a", "b"), sample=Sample(shape=(3, 8, 8)))
    way = entry(text, MOOD.spec)
    assert way.lead.endswith("Label:")
    assert way.edits[0](Texts({"text": ("x",)})).prompts == ("x\nLabel:",)
    placed = entry(image, pictures, canvas=16, inner=8).edits[0]
    assert isinstance(placed, Place) and placed.canvas == 16
    for source, task, options in (
        (text, MOOD.spec, {"canvas": 16}),
        (text, MOOD.spec, {"template": "{soft:3}{text}"}),
        (image, pictures, {"template": "{text}"}),
    ):
        with pytest.raises(ConfigError, match=r"must (be left out|have no)"):
            entry(source, task, **options)
    with pytest.raises(ConfigError, match=r"must be a task of the source.s kind \(image\)"):
        build("no_edit", image, MOOD)
