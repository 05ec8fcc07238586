"""Marks on pictures: where labels go, how they look, which regions there are, and the search for a point."""

import json
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reprogram.core.conversation import Ask
from reprogram.core.errors import ConfigError, DataError
from reprogram.core.texts import Texts
from reprogram.core.writing import PICTURE, Written
from reprogram.inputs import pivot
from reprogram.inputs.marks import Marks, boxes_in, marked_groups
from reprogram.inputs.marks_drawing import (
    Style,
    annotate,
    blend,
    colour_of,
    draw_label,
    edge_of,
    glyphs,
    label_size,
    mark,
    plate_of,
    segment,
)
from reprogram.inputs.marks_placement import GAP, Label, middle, place, squared_depth
from reprogram.inputs.marks_regions import Boxes, Grid, Region, Segments, segmented
from reprogram.inputs.showing import MOST_SIDE, Showing, asking, shown
from reprogram.testing.oracle import Look, PointAt, sightings


def plain(height, width, value=200):
    return torch.full((3, height, width), value, dtype=torch.uint8)


def disc(height, width, x, y, radius):
    return segment(height, width, (x, y), (x, y), 2 * radius)


@st.composite
def masks(draw, most=14):
    height, width = draw(st.integers(1, most)), draw(st.integers(1, most))
    bits = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    return torch.tensor(bits).view(height, width)


# -- distances and places ----------------------------------------------------------------------------------------------


def slow_depth(mask):
    height, width = mask.shape
    outside = [(y, x) for y in range(-1, height + 1) for x in range(-1, width + 1)
               if not (0 <= y < height and 0 <= x < width and mask[y, x])]  # fmt: skip
    return torch.tensor([[min((y - a) ** 2 + (x - b) ** 2 for a, b in outside) for x in range(width)]
                         for y in range(height)])  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(masks())
def test_depth_is_the_distance_to_the_outside(mask):
    assert torch.equal(squared_depth(mask), slow_depth(mask))


def test_depth_is_scipys():
    ndimage = pytest.importorskip("scipy.ndimage")
    generator = torch.Generator().manual_seed(0)
    for size in ((40, 61), (120, 90)):
        noise = torch.rand(size, generator=generator) < 0.995
        padded = torch.nn.functional.pad(noise, (1, 1, 1, 1))
        theirs = torch.from_numpy(ndimage.distance_transform_edt(padded.numpy()))[1:-1, 1:-1]
        assert torch.allclose(squared_depth(noise).double().sqrt(), theirs)


@settings(max_examples=40, deadline=None)
@given(st.lists(masks(10).filter(lambda m: bool(m.any())), min_size=1, max_size=12), st.randoms())
def test_labels_never_touch_and_have_room(found, chance):
    height, width = 20, 23
    wide = []
    for mask in found:
        whole = torch.zeros(height, width, dtype=torch.bool)
        y, x = chance.randint(0, height - mask.shape[0]), chance.randint(0, width - mask.shape[1])
        whole[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
        wide.append(whole)
    sizes = [(chance.randint(3, 30), chance.randint(3, 9)) for _ in wide]
    plan = place(wide, sizes)
    assert plan.height >= height
    assert plan.width >= width
    used = torch.zeros(plan.height, plan.width, dtype=torch.int64)
    for label, size, mask in zip(plan.labels, sizes, wide, strict=True):
        assert (label.width, label.height) == size
        assert 0 <= label.left <= plan.width - size[0]
        assert 0 <= label.top <= plan.height - size[1]
        used[max(0, label.top - GAP) : label.top + size[1], max(0, label.left - GAP) : label.left + size[0]] += 1
        part = used[label.top : label.top + size[1], label.left : label.left + size[0]]
        assert int(part.max()) == 1
        used[label.top : label.top + size[1], label.left : label.left + size[0]] = 1
        x, y = label.anchor
        assert bool(mask[y, x])
        if label.inside:
            assert bool(mask[label.top : label.top + size[1], label.left : label.left + size[0]].all())


def test_a_place_is_the_nearest_free_one():
    """The plan's greedy step against a search over every position."""
    mask = torch.zeros(30, 40, dtype=torch.bool)
    mask[3:24, 5:31] = True
    label = place([mask], [(7, 5)]).labels[0]
    x, y = middle(mask)
    spots = [(a, b) for a in range(26) for b in range(34) if bool(mask[a : a + 5, b : b + 7].all())]
    every = [((2 * top + 4 - 2 * y) ** 2 + (2 * left + 6 - 2 * x) ** 2, top, left) for top, left in spots]
    assert (label.top, label.left) == min(every)[1:]


def test_nested_regions_have_labels_on_their_own_parts():
    regions = Boxes(((0, 0, 1, 1), (0.1, 0.1, 0.9, 0.9), (0.3, 0.3, 0.7, 0.7), (0.48, 0.48, 0.52, 0.52)))(
        plain(200, 200)
    )
    plan = place([r.mask for r in regions], [(20, 16)] * 4)
    for k in range(3):
        label = plan.labels[k]
        own = regions[k].mask & ~regions[k + 1].mask
        assert label.inside
        assert bool(own[label.top : label.top + 16, label.left : label.left + 20].all())
    assert not plan.labels[3].inside  # eight pixels hold no label: it stands beside, with a line


def test_a_crowd_gets_a_strip_below():
    regions = Grid(4, 4)(plain(16, 16))
    marked = mark(plain(16, 16), regions)
    assert marked.picture.shape[1] > 16
    assert marked.picture.shape[2] >= 16
    assert len(marked.table) == len(marked.labels) == 16


# -- looks -------------------------------------------------------------------------------------------------------------


def relative(colour):
    parts = [v / 255 for v in colour]
    linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_differ_and_stand_out_from_their_plates():
    colours = [colour_of(n) for n in range(1, 257)]
    assert len(set(colours)) == 256
    for colour in colours:
        dark, bright = sorted((relative(colour), relative(plate_of(colour))))
        assert (bright + 0.05) / (dark + 0.05) >= 3  # what the web's guidelines ask of large letters


@pytest.mark.parametrize("font", [8, 12, 20, 32])
def test_digits_are_told_apart_at_every_size(font):
    inks = [glyphs(str(d), font) for d in range(10)]
    assert {ink.shape[0] for ink in inks} == {inks[0].shape[0]}
    assert inks[0].shape[0] >= 0.6 * font
    for a in range(10):
        assert float(inks[a].max()) > 0.6
        for b in range(a):
            width = max(inks[a].shape[1], inks[b].shape[1])
            one, other = (torch.nn.functional.pad(i, (0, width - i.shape[1])) for i in (inks[a], inks[b]))
            assert float((one - other).abs().sum()) > 0.05 * one.numel()


def test_blend_is_its_formula():
    generator = torch.Generator().manual_seed(1)
    canvas, mask = torch.rand(3, 5, 6, generator=generator) * 255, torch.rand(5, 6, generator=generator)
    mask[0] = mask[:, 2] = 0
    slow = torch.stack([(1 - 0.3 * mask) * canvas[c] + 0.3 * mask * (10, 200, 30)[c] for c in range(3)])
    blend(canvas, mask, (10, 200, 30), 0.3)
    assert torch.allclose(canvas, slow, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(masks(), st.integers(1, 3))
def test_edges(mask, thickness):
    height, width = mask.shape

    def outside(y, x):
        return not (0 <= y < height and 0 <= x < width) or not mask[y, x]

    near = range(-thickness, thickness + 1)
    slow = [[bool(mask[y, x]) and any(outside(y + a, x + b) for a in near for b in near) for x in range(width)]
            for y in range(height)]  # fmt: skip
    assert edge_of(mask, thickness).tolist() == slow


def test_what_is_drawn():
    region = Region(disc(100, 140, 70, 50, 30))
    style = Style(fill=0.4, edge=2, plate=1.0, font=16)
    marked = mark(plain(100, 140, 100), [region], style)
    colour = torch.tensor(colour_of(1))
    label = marked.labels[0]
    width, height = label_size("1", 16)
    assert (label.width, label.height) == (width, height)
    plate = marked.picture[:, label.top : label.top + height, label.left : label.left + width]
    assert torch.equal(plate[:, 0, 0].long(), colour)  # the frame
    assert torch.equal(plate[:, 1, 1].long(), torch.tensor(plate_of(colour_of(1))))
    ink = glyphs("1", 16)
    drawn = plate[:, (height - ink.shape[0]) // 2 :, (width - ink.shape[1]) // 2 :][:, : ink.shape[0], : ink.shape[1]]
    back = torch.tensor(plate_of(colour_of(1))).view(3, 1, 1)
    assert torch.allclose(drawn.float(), (1 - ink) * back + ink * colour.view(3, 1, 1), atol=0.51)
    edge = edge_of(region.mask, 2)
    assert bool((marked.picture[:, edge].long() == colour[:, None]).all())
    tinted = marked.picture[:, 30, 70].float()  # in the region, off the label
    assert torch.allclose(tinted, 0.6 * torch.tensor([100.0] * 3) + 0.4 * colour, atol=0.51)
    assert torch.equal(marked.picture[:, ~region.mask], plain(100, 140, 100)[:, ~region.mask])


def test_leader_lines_lead_to_what_they_mean():
    mask = torch.zeros(60, 60, dtype=torch.bool)
    mask[5:8, 5:8] = True
    marked = mark(plain(60, 60), [Region(mask)], Style(fill=0, edge=0))
    label = marked.labels[0]
    assert not label.inside
    x, y = label.anchor
    assert torch.equal(marked.picture[:, y, x].long(), torch.tensor(colour_of(1)))


def test_no_line_crosses_a_label():
    """Each label on the strip is the same, pixel by pixel, as on a white picture of its own."""
    regions = Grid(4, 4)(plain(40, 40))
    marked = mark(plain(40, 40), regions, Style(plate=0.5))
    crossing = [label for label in marked.labels if not label.inside]
    assert len(crossing) > 4
    for number, label in enumerate(marked.labels, 1):
        if label.top >= 40:  # on the white strip, where nothing but labels and lines is drawn
            part = marked.picture[:, label.top : label.top + label.height, label.left : label.left + label.width]
            alone = torch.full((3, label.height, label.width), 255.0)
            place_ = Label(0, 0, label.width, label.height, (0, 0), inside=True)
            draw_label(alone, place_, str(number), colour_of(number), 12, 0.5)
            assert torch.equal(part, alone.round().to(torch.uint8))


def test_the_oracle_sees_the_marks_that_were_drawn():
    regions = Grid(3, 4)(plain(120, 160))
    seen = sightings(mark(plain(120, 160), regions).picture)
    assert list(seen) == list(range(1, 13))
    for k, region in enumerate(regions, 1):
        assert seen[k].box == region.box


def test_style_and_pictures_are_checked():
    with pytest.raises(ConfigError, match="8 pixels"):
        Style(font=7)
    with pytest.raises(ConfigError, match="alphas"):
        Style(fill=1.5)
    with pytest.raises(DataError, match="pixel at least"):
        mark(torch.zeros(3, 0, 5, dtype=torch.uint8), [])
    with pytest.raises(DataError, match="to a side"):
        mark(torch.zeros(1, 1, 1, dtype=torch.uint8).expand(3, 10_000, 10_000), [])
    with pytest.raises(DataError, match="20 x 20"):
        mark(plain(20, 20), Grid(1, 1)(plain(19, 20)))
    assert torch.equal(mark(plain(9, 9), []).picture, plain(9, 9))
    with pytest.raises(DataError, match="one pixel"):
        Region(torch.zeros(2, 2, dtype=torch.bool))


def test_any_text_fits_somewhere():
    regions = Grid(1, 2)(plain(40, 40))
    drawn, labels = annotate(plain(40, 40), regions, ["a very long name of a thing", ""], Style(font=12))
    assert drawn.shape[2] >= labels[0].width > 40


# -- regions -----------------------------------------------------------------------------------------------------------


def test_segments_are_the_shapes():
    picture = plain(90, 120, 255)
    truth = [disc(90, 120, 30, 30, 15), disc(90, 120, 85, 50, 22)]
    for mask, colour in zip(truth, ((200, 30, 30), (20, 60, 180)), strict=True):
        picture[:, mask] = torch.tensor(colour, dtype=torch.uint8)[:, None]
    found = Segments()(picture)
    assert len(found) == 2
    for region, mask in zip(found, reversed(truth), strict=True):  # largest first
        assert (
            int((region.mask & mask).sum()) / int((region.mask | mask).sum()) > 0.85
        )  # the rim is half a pixel of the small copy
    assert len(Segments(ground=True)(picture)) == 3
    assert len(Segments(most=1)(picture)) == 1
    assert Segments()(plain(7, 9))[0].area == 63  # one colour: the whole picture


def test_blurred_rims_are_no_regions():
    picture = plain(200, 300, 255).float()
    blend(picture, disc(200, 300, 150, 100, 60), (10, 10, 160))
    soft = torch.nn.functional.avg_pool2d(picture[None], 7, 1, 3, count_include_pad=False)[0].round().to(torch.uint8)
    assert len(Segments(ground=True)(soft)) == 2


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 10_000))
def test_segments_are_a_partition_into_connected_parts(height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = segmented(torch.randint(0, 3, (3, height, width), generator=generator).float() * 60, 50.0, 1)
    assert sorted(set(labels.flatten().tolist())) == list(range(int(labels.max()) + 1))
    for number in range(int(labels.max()) + 1):
        todo = [tuple((labels == number).nonzero()[0].tolist())]
        seen = set(todo)
        while todo:
            y, x = todo.pop()
            for a in (y - 1, y, y + 1):
                for b in (x - 1, x, x + 1):
                    if 0 <= a < height and 0 <= b < width and labels[a, b] == number and (a, b) not in seen:
                        seen.add((a, b))
                        todo.append((a, b))
        assert len(seen) == int((labels == number).sum())


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 14), st.integers(0, 10_000), st.sampled_from([20.0, 80.0, 200.0]))
def test_segments_are_the_slow_ones(width, seed, coarseness):
    """On pictures of two rows, in which nothing is a rim: every pixel's part by relabelling, edge after edge."""
    pixels = torch.randint(0, 8, (3, 2, width), generator=torch.Generator().manual_seed(seed)).double() * 20
    edges = []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        for y in range(2 - dy):
            for x in range(max(0, -dx), width - max(0, dx)):
                step = float((pixels[:, y, x] - pixels[:, y + dy, x + dx]).square().sum().sqrt())
                edges.append((step, (y, x), (y + dy, x + dx)))
    part = {(y, x): (y, x) for y in range(2) for x in range(width)}
    largest = dict.fromkeys(part, 0.0)
    for step, one, other in sorted(edges, key=lambda e: e[0]):
        a, b = part[one], part[other]
        sizes = [sum(p == which for p in part.values()) for which in (a, b)]
        if a != b and all(step <= largest[p] + coarseness / n for p, n in zip((a, b), sizes, strict=True)):
            part = {at: a if p == b else p for at, p in part.items()}
            largest[a] = step
    labels = segmented(pixels, coarseness, 1)
    same = {(one, other) for one in part for other in part if part[one] == part[other]}
    assert same == {(one, other) for one in part for other in part if labels[one] == labels[other]}


def test_grids_and_boxes():
    cells = Grid(2, 3)(plain(7, 8))
    assert sum(c.area for c in cells) == 56
    assert cells[5].box == (5, 3, 8, 7)
    with pytest.raises(DataError, match="pixels at least"):
        Grid(3, 1)(plain(2, 9))
    assert Boxes(((0.999, 0.999, 1.0, 1.0),))(plain(5, 5))[0].box == (4, 4, 5, 5)
    for bad in (((0.5, 0, 0.5, 1),), ((0, 0, 2, 1),), ()):
        with pytest.raises(ConfigError):
            Boxes(bad)
    for text in ("", "[[0, 0, 1]]", '{"a": 1}', "[[0,0,1,null]]", "[[0, 0, 3, 1]]"):
        with pytest.raises(DataError, match="regions"):
            boxes_in(text)


# -- edits -------------------------------------------------------------------------------------------------------------


def test_showing_and_marks_make_prompts():
    batch = Showing(asking("What?"), 64)(torch.zeros(2, 1, 8, 16, dtype=torch.uint8))
    assert [p[0].shape for p in batch.pictures] == [(3, 32, 64)] * 2
    marked = Marks(Grid(2, 2))(batch)
    assert sorted(sightings(marked.pictures[0][0])) == [1, 2, 3, 4]
    assert marked.prompts == batch.prompts
    several = Marks(Grid(2, 2), group=3)(batch)
    assert [sorted(sightings(p)) for p in several.pictures[1]] == [[1, 2, 3], [4]]
    assert several.prompts[1].count(PICTURE) == 2
    own = Texts(
        {"prompt": batch.prompts, "regions": ("[[0,0,1,1]]", "[[0,0,0.5,1],[0.5,0,1,1]]")}, pictures=batch.pictures
    )
    assert [len(sightings(p[0])) for p in Marks(Grid(2, 2))(own).pictures] == [1, 2]
    assert "regions" not in Marks(Grid(2, 2))(own).columns
    with pytest.raises(DataError, match="one picture"):
        Marks(Grid(1, 1))(Texts({"prompt": ("a",)}))
    assert repr(Marks(Grid(1, 2))) != repr(Marks(Grid(2, 1)))


def test_groups_number_on():
    parts = marked_groups(plain(40, 40), Grid(1, 3)(plain(40, 40)), Style(letters=True), 2)
    assert [list(part.table) for part in parts] == [["a", "b"], ["c"]]


def test_pictures_of_every_size_are_shown():
    assert shown(torch.rand(1, 3, 4), 30).shape == (3, 22, 30)
    assert shown(torch.rand(3, 1, 500), 50).shape == (3, 1, 50)
    assert shown(plain(5, 6, 77), None).unique().tolist() == [77]
    assert shown(torch.full((3, 4, 4), 0.5), 8).unique().tolist() == [128]
    huge = torch.full((1, 1, 1), 9, dtype=torch.uint8).expand(1, 10_000, 10_000)  # 100 megapixels
    assert shown(huge, 448).shape == (3, 448, 448)
    assert shown(huge, None).shape == (3, MOST_SIDE, MOST_SIDE)
    for bad in (torch.zeros(3, 0, 4), torch.zeros(3, 4, 0, dtype=torch.uint8), torch.zeros(2, 4, 4), torch.zeros(4, 4)):
        with pytest.raises(DataError, match="picture"):
            shown(bad, 10)
    for bad in (0, MOST_SIDE + 1):
        with pytest.raises(ConfigError, match="size"):
            Showing("", bad)
    with pytest.raises(ConfigError, match="one place"):
        Showing("no picture")
    with pytest.raises(ConfigError, match="private-use"):
        asking("a" + PICTURE)


# -- PIVOT -------------------------------------------------------------------------------------------------------------


def asked_of(rule):
    def ask(question: Ask) -> Written:
        return Written(text=rule(Look(question.prompt, question.pictures)))

    return ask


def test_points_keep_apart_and_on_the_picture():
    picture = plain(120, 160)
    spacing = pivot._spacing(picture, pivot.Search())
    radius = pivot._radius(picture, pivot.Search())[0]
    for spread in ((0.3, 0.3), (0.001, 0.001), (2.0, 0.01)):
        points = pivot.sample(random.Random(0), (0.9, 0.1), spread, 12, spacing)
        pixels = [(x * 160, y * 120) for x, y in points]
        assert len(points) >= 8
        for i, (x, y) in enumerate(pixels):
            assert radius - 1e-9 <= x <= 160 - radius + 1e-9
            assert radius - 1e-9 <= y <= 120 - radius + 1e-9
            assert all(math.dist((x, y), other) >= 2 * radius + 2 - 1e-9 for other in pixels[:i])
    seen = sightings(pivot.draw_points(picture, points))
    assert sorted(seen) == list(range(1, len(points) + 1))
    for k, (x, y) in enumerate(points, 1):
        assert math.dist((seen[k].x * 160, seen[k].y * 120), (x * 160, y * 120)) < 1


def test_too_small_a_picture_has_fewer_points():
    picture = plain(12, 12)
    points = pivot.sample(random.Random(0), (0.5, 0.5), (0.3, 0.3), 5, pivot._spacing(picture, pivot.Search()))
    assert len(points) == 1
    assert pivot.draw_points(picture, points).shape == (3, 12, 12)


def test_the_search_finds_a_hidden_target_in_expectation():
    picture, errors = plain(224, 224), []
    chance = random.Random(5)
    for seed in range(12):
        x, y = chance.uniform(0.12, 0.88), chance.uniform(0.12, 0.88)
        options = pivot.Search(seed=seed, rounds=4, first=12, later=8, arrows=False)
        found = pivot.search(asked_of(PointAt(x, y)), picture, "Which are nearest?", options)
        away = [math.dist(p, (x, y)) for p in (pivot.START, *found.path)]
        errors.append([*away, math.dist(found.point, (x, y))])
    mean = [sum(column) / len(errors) for column in zip(*errors, strict=True)]
    assert mean[0] > mean[1] > mean[-2]  # start, first round, last round
    assert mean[-1] < 0.06
    assert found.unread == 0


def test_trials_end_in_one_question_more():
    prompts = []

    def rule(look):
        prompts.append(look.prompt)
        return PointAt(0.7, 0.3)(look)

    options = pivot.Search(rounds=2, first=6, later=5, trials=3)
    found = pivot.search(asked_of(rule), plain(200, 200), "Where?", options)
    assert len(prompts) <= options.calls
    assert len(prompts) >= 3 * 2 + 1
    assert math.dist(found.point, (0.7, 0.3)) < 0.15
    assert len(found.path) == 6


def test_answers_that_cannot_be_read():
    asks = []

    def silly(look):
        asks.append(look)
        return ['{"points": [99, -1, "x"]}', "none of them", '{"points": 2}'][len(asks) % 3]

    found = pivot.search(asked_of(silly), plain(150, 150), "Where?", pivot.Search(rounds=3, first=5, later=5))
    assert found.unread == 2  # the second answer, 2, is a number that is there
    found = pivot.search(asked_of(lambda look: "no idea"), plain(150, 150), "Where?", pivot.Search(first=4, later=4))
    assert found.point is None
    assert found.unread == 3
    assert found.path == (pivot.START,) * 3  # it starts anew each time


def test_one_id_narrows_the_search():
    options = pivot.Search(least=0.05)
    assert pivot.refit([(0.2, 0.9)], options) == ((0.2, 0.9), (0.05, 0.05))


def test_a_search_is_its_seed():
    def run(seed):
        return pivot.search(asked_of(PointAt(0.3, 0.4)), plain(99, 99), "?", pivot.Search(seed=seed, first=6, later=4))

    assert run(1) == run(1)
    assert run(1).path != run(2).path
    for bad in ({"rounds": 0}, {"least": 0.0}, {"least": 0.5, "spread": 0.1}):
        with pytest.raises(ConfigError):
            pivot.Search(**bad)


def test_the_prompt_says_what_is_there():
    talk = pivot.seek(plain(200, 200), "Where is it?", pivot.Search(first=7, keep=2), pivot.Pivot("q").writing)
    question = next(talk)
    assert "from 1 to 7" in question.prompt
    assert "the 2 best numbers" in question.prompt
    assert len(sightings(question.pictures[0])) == 7
    assert json.dumps({"points": []}) in question.prompt
