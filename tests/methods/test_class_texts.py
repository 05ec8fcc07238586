"""CuPL and ZPE: what they hold, what they ask a writer, what they must not look at, and that they work."""

import json
from dataclasses import replace

import pytest
import torch

import reprogram as rp
from reprogram.catalogue import find
from reprogram.core.errors import CapabilityError, ConfigError, DataError
from reprogram.core.program import Input, Observing
from reprogram.core.task import Example
from reprogram.core.writing import ASSISTANT, USER
from reprogram.fit import FitOptions, evaluate, fit
from reprogram.inputs import Template
from reprogram.methods import cupl, zpe
from reprogram.outputs.class_texts import text_vectors
from reprogram.outputs.ensemble import ClassTexts, PromptEnsemble
from reprogram.tasks import Task
from reprogram.testing import check_method, scripted_source, tiny_text_source
from tests.methods.text_tasks import opinions, pairs

GIVEN = {"bad": ["awful and dull", "poor"], "funny": "a big odd story", "good": ["fine", "great", "best"]}
quiet = FitOptions(progress=False)


@pytest.fixture(scope="module")
def encoder():
    return tiny_text_source("bert_encoder")


@pytest.mark.parametrize("name, options", [("cupl", {"descriptions": GIVEN}), ("zpe", {}), ("zpe", {"threshold": 0.5})])
def test_contract(encoder, name, options):
    check_method(find(name), source=encoder, task=opinions(), **options)


def test_the_class_with_the_closest_descriptions(encoder):
    program = rp.build("cupl", encoder, opinions(), descriptions=GIVEN, pooling="max", scale=1.0)
    rows = ["the film was great and long", "dull"]
    x = text_vectors(encoder, rows)
    tables = [text_vectors(encoder, [texts] if isinstance(texts, str) else texts) for texts in GIVEN.values()]
    wanted = [[max(float(v @ h) for v in table) for table in tables] for h in x]
    torch.testing.assert_close(program.predict(rows).scores, torch.tensor(wanted), rtol=1e-4, atol=1e-4)
    assert program.count().allocated == 0


def test_descriptions_are_kept_with_the_program(encoder, tmp_path):
    path = tmp_path / "descriptions.json"
    path.write_text(json.dumps(GIVEN))
    program = rp.build("cupl", encoder, opinions(), descriptions=str(path))
    assert program.origin.task.context[0] == Example(("bad",), "awful and dull")
    assert len(program.origin.task.context) == 6
    rp.save(program, tmp_path / "p.safetensors")
    path.unlink()  # a program file needs no other
    again = rp.load(tmp_path / "p.safetensors", encoder)
    assert torch.equal(again.predict("a film").scores, program.predict("a film").scores)
    assert again.origin.task == program.origin.task
    settings = rp.build("cupl", encoder, opinions().spec, descriptions=GIVEN)
    torch.testing.assert_close(settings.output.table, program.output.table)


def test_templates_join_the_union(encoder):
    bare = rp.build("cupl", encoder, opinions(), templates=("{class}",))
    wanted = text_vectors(encoder, ["bad", "funny", "good"], Input(Template("{text}")))
    torch.testing.assert_close(bare.output.table, wanted)
    both = rp.build("cupl", encoder, opinions(), templates=("{class}", "it is {class}"), descriptions=GIVEN)
    assert torch.bincount(both.output.owner).tolist() == [4, 3, 5]
    assert isinstance(both.output, ClassTexts)


def test_a_writer_is_asked_and_its_answers_are_cleaned():
    writer = scripted_source(
        [
            ("(an? bad|bad)", lambda _, i: ["Dull  thing. More", "dull thing", "", "so bad!"][i % 4]),
            ("", lambda found, i: f"text {i} of {len(found.string)}."),
        ]
    )
    config = cupl.Config(questions=("What is {a class}?", 'Say "{class}".'), samples=4)
    made = cupl.written(writer, ("bad", "odd"), config, seed=3)
    assert [one.answer for one in made if one.texts == ("bad",)] == ["Dull thing.", "so bad!"]
    assert len([one for one in made if one.texts == ("odd",)]) == 8
    assert writer.calls == [
        f"{USER}{text}{ASSISTANT}"
        for text in ("What is a bad?", 'Say "bad".', "What is an odd?", 'Say "odd".')
    ]  # fmt: skip
    plain = scripted_source([("", "word")])
    cupl.written(plain, ("bad", "odd"), replace(config, chat=False))
    assert plain.calls[0] == "What is a bad?"
    with pytest.raises(DataError, match="with words in it"):
        cupl.written(scripted_source([("", "...")]), ("bad", "odd"), config)


def test_what_is_cut_off_gets_no_full_stop():
    writer = scripted_source([("", "one two three")])
    config = cupl.Config(questions=("{class}",), samples=1, temperature=0.0, tokens=7)
    assert cupl.written(writer, ("bad", "odd"), config)[0].answer == "one two"


def test_the_writer_is_loaded_by_its_reference(encoder, monkeypatch):
    from reprogram import sources

    asked = []

    def load(ref):
        asked.append(ref)
        return scripted_source([('"(bad|funny|good)"|an? (bad|funny|good)', lambda found, i: f"{found[0]} {i}.")])

    monkeypatch.setattr(sources, "load_source", load)
    program = rp.build("cupl", encoder, opinions(), writer="bundled/some", samples=2)
    assert asked == ["bundled/some"]
    assert {one.texts[0] for one in program.origin.task.context} == {"bad", "funny", "good"}
    rp.build("cupl", encoder, program.origin.task, writer="bundled/some")  # what was written is not written again
    with pytest.raises(ConfigError, match="descriptions"):
        rp.build("cupl", encoder, opinions().spec, writer="bundled/some")
    assert len(asked) == 1
    monkeypatch.setattr(sources, "load_source", lambda _: encoder)
    with pytest.raises(CapabilityError, match="writes"):
        rp.build("cupl", encoder, opinions(), writer="bundled/minilm-l6")


def test_a_program_file_names_no_file_to_be_read(encoder, tmp_path):
    """A stranger's card with a path in it, and no context, is refused before anything is opened."""
    path = tmp_path / "other.json"
    path.write_text(json.dumps(GIVEN))
    with pytest.raises(ConfigError, match="descriptions"):
        rp.build("cupl", encoder, opinions().spec, descriptions=str(path))


@pytest.mark.parametrize(
    "options, kind, message",
    [
        ({}, ConfigError, "must be there for every class"),
        ({"descriptions": GIVEN, "writer": "bundled/smollm2-135m"}, ConfigError, "writer"),
        ({"descriptions": {"bad": "x", "funny": "y"}}, DataError, r"\['good'\] missing"),
        ({"descriptions": {**GIVEN, "dear": "x"}}, DataError, r"\['dear'\] unknown"),
        ({"descriptions": {**GIVEN, "bad": ["", " .."]}}, DataError, "with words in it"),
        ({"descriptions": "/nowhere/at/all.json"}, DataError, "JSON file"),
        ({"descriptions": {"bad": 3}}, ConfigError, "descriptions"),
        ({"descriptions": GIVEN, "templates": ("no name",)}, ConfigError, "layout"),
    ],
)
def test_cupl_refuses(encoder, options, kind, message):
    with pytest.raises(kind, match=message):
        rp.build("cupl", encoder, opinions(), **options)


@pytest.mark.parametrize("text", ["[1]", '{"bad": [1], "funny": "x", "good": "x"}', "{"])
def test_files_that_are_none(encoder, tmp_path, text):
    path = tmp_path / "d.json"
    path.write_text(text)
    with pytest.raises(DataError, match="descriptions"):
        rp.build("cupl", encoder, opinions(), descriptions=path)


@pytest.mark.parametrize("name, options", [("cupl", {"descriptions": GIVEN}), ("zpe", {})])
def test_only_encoders_and_classes(name, options):
    with pytest.raises(CapabilityError, match="text encoder"):
        rp.build(name, tiny_text_source("gpt2"), opinions(), **options)


def test_context_of_another_task_is_refused(encoder):
    spec = replace(opinions().spec, context=(Example(("cat",), "a cat"),))
    with pytest.raises(DataError, match="context"):
        rp.build("cupl", encoder, spec)


def test_zpe_looks_at_no_label(encoder):
    task = opinions()
    texts = [task.train.fetch(torch.tensor([i])).prompts[0] for i in range(len(task.train))]
    twisted = Task.from_texts(texts, [task.classes[(i * i) % 3] for i in range(len(texts))], classes=task.classes,
                              val=0.0, test=0.0)  # fmt: skip
    plain = Task.from_texts(texts, ["bad", "funny", "good"] * (len(texts) // 3) + ["bad"] * (len(texts) % 3),
                            classes=task.classes, val=0.0, test=0.0)  # fmt: skip
    weights = []
    for one in (twisted, plain):
        program = rp.build("zpe", encoder, one)
        fit(program, one, options=quiet)
        weights.append(program.output.weights)
    torch.testing.assert_close(*weights)
    assert not torch.allclose(weights[0], torch.full_like(weights[0], 1 / len(zpe.TEMPLATES)))


def test_zpe_pool_and_state(encoder, tmp_path):
    assert len(set(zpe.TEMPLATES)) >= 24 and len(set(zpe.REFERENCE)) == len(zpe.REFERENCE) >= 40
    program = rp.build("zpe", encoder, opinions())
    assert isinstance(program.output, PromptEnsemble) and isinstance(program.output, Observing)
    assert program.output.vectors.shape == (3, len(zpe.TEMPLATES), encoder.spec.width)
    fit(program, opinions(), options=quiet)
    assert program.count().fitted == len(zpe.TEMPLATES)
    rp.save(program, tmp_path / "z.safetensors")
    again = rp.load(tmp_path / "z.safetensors", encoder)
    torch.testing.assert_close(again.output.weights, program.output.weights, rtol=0, atol=0)
    with pytest.raises(ConfigError, match="templates"):
        rp.build("zpe", encoder, opinions(), templates=())
    with pytest.raises(ConfigError, match="reference"):
        rp.build("zpe", encoder, opinions(), reference=(), debias="both")
    assert rp.build("zpe", encoder, opinions(), reference=()).output.debias == "test"


def test_two_columns(encoder):
    program = rp.build("zpe", encoder, pairs())
    fit(program, pairs(), options=quiet)
    assert evaluate(program, pairs().test).scores.shape[1] == 2


@pytest.mark.slow
def test_on_a_real_encoder():
    """Three classes of plain sentences: well above chance (a third), with no label used."""
    source, task = rp.load_source("bundled/minilm-l6"), rp.load_task("bundled/feedback")
    given = {
        "complaint": ["Something was broken, late or dirty.", "The customer is unhappy with the service."],
        "praise": ["The customer is delighted and says how good it was.", "It was excellent and the staff were kind."],
        "question": ["Someone asks for information.", "Could you tell me when, where or how?"],
    }
    for name, options in (("cupl", {"descriptions": given}), ("zpe", {})):
        program = rp.build(name, source, task, **options)
        fit(program, task, options=quiet)
        assert evaluate(program, task.train).accuracy > 0.55


def test_pictures_are_classified_by_descriptions_and_weighed_templates(tmp_path):
    """On an image-text source, with its own scale; the files are read again without what the texts came from."""
    pytest.importorskip("transformers")
    from reprogram.testing import tiny_task
    from reprogram.testing.image_text import tiny_dual_source

    source, task = tiny_dual_source(), tiny_task()
    given = {name: [f"a {name} at the top", f"{name} in a row"] for name in task.classes}
    for method, settings in (("cupl", {"descriptions": given}), ("zpe", {}), ("no_edit", {}), ("linear_probe", {})):
        program = rp.build(method, source, task, **settings)
        result = rp.fit(program, task, out=tmp_path / f"{method}.safetensors", options=FitOptions(progress=False))
        assert result.test.scores.isfinite().all()
        x = task.test.fetch(torch.arange(4))
        again = rp.load(tmp_path / f"{method}.safetensors", source=source)
        assert torch.equal(again.predict(x).scores, program.predict(x).scores)
        assert getattr(program.output, "scale", source.scale) == source.scale


def test_equal_weights_of_templates_are_the_mean_of_their_scores():
    pytest.importorskip("transformers")

    from reprogram.core.source import Reading
    from reprogram.outputs.class_texts import named
    from reprogram.testing import tiny_task
    from reprogram.testing.image_text import tiny_dual_source

    source, task, layouts = tiny_dual_source(), tiny_task(), ("a {class}", "{class}.", "one {class} here")
    program = rp.build("zpe", source, task, templates=layouts, weighing="equal", debias="none")
    x = task.test.fetch(torch.arange(4)).float() / 255
    plain = torch.zeros(4, 3)
    for t, name in enumerate(task.classes):
        for layout in layouts:
            reading = Reading(texts=(named(layout, name),))
            plain[:, t] += source(program.input(x, "input"), Input(), reading).logits[:, 0] / len(layouts)
    torch.testing.assert_close(program(x), plain, atol=1e-5, rtol=1e-5)
