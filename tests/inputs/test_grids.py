"""Grids of an example, its answer and a question; and which example is chosen."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reprogram.core.errors import ConfigError, DataError
from reprogram.inputs.grids import (
    LAYOUTS,
    card,
    cell_of,
    combined,
    compose,
    contrastive_head,
    corner_of,
    layout_of,
    measured,
    nearest,
    palette,
    picture_of,
    picture_text,
    plain_features,
    quarter,
    square,
)
from reprogram.inputs.grids_edits import Examples, GridCanvas, GridQuestions


def test_the_papers_layout():
    """Bar et al.: quarters of 111 pixels on a white canvas of 224, the example above, the empty quarter last."""
    image, label, query = (torch.full((3, 111, 111), v) for v in (0.1, 0.2, 0.3))
    page = torch.ones(3, 224, 224)
    page[:, :111, :111], page[:, :111, -111:], page[:, -111:, :111] = image, label, query
    assert torch.equal(compose(image, label, query, 224, LAYOUTS["rows"]), page)
    flipped = torch.ones(3, 224, 224)
    flipped[:, :111, :111], flipped[:, -111:, :111], flipped[:, :111, -111:] = image, label, query
    assert torch.equal(compose(image, label, query, 224, LAYOUTS["columns"]), flipped)


@settings(max_examples=20, deadline=None)
@given(st.integers(8, 40), st.sampled_from(sorted(LAYOUTS)))
def test_quarters_come_back(canvas, name):
    layout, cell = LAYOUTS[name], cell_of(canvas)
    parts = torch.rand(3, 2, 3, cell, cell)
    page = compose(*parts, canvas, layout)
    for part, place in zip(parts, (layout.image, layout.label, layout.query), strict=True):
        assert torch.equal(quarter(page, place), part)
    assert bool((quarter(page, layout.empty) == 1).all())
    assert len({layout.image, layout.label, layout.query, layout.empty}) == 4


def test_odd_and_small_canvases():
    assert corner_of((1, 0), 9) == (6, 0)
    with pytest.raises(ConfigError, match="8 pixels"):
        cell_of(7)
    with pytest.raises(ConfigError, match="layout"):
        layout_of("diagonal")


def test_squares_and_cards():
    page = square(torch.zeros(1, 10, 20), 12)
    assert page.shape == (3, 12, 12)
    assert int((page == 0).all(0).sum()) == 72
    colours = palette(5)
    assert len({tuple(c) for c in colours.tolist()}) == 5
    blank, named = card("cat", colours[1], 40, words=False), card("cat", colours[1], 40)
    assert bool((blank == colours[1].view(3, 1, 1)).all())
    assert 10 < int((named != blank).any(0).sum()) < 900
    assert torch.equal(card("a name that is much too long", colours[1], 20), card("", colours[1], 20, words=False))


def test_pictures_as_text():
    picture = torch.randint(0, 256, (3, 9, 14), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(picture_of(picture_text(picture, 20)), picture)
    assert picture_of(picture_text(picture, 7)).shape == (3, 4, 7)
    for bad in ("", "data:image/png;base64,####", "data:image/png;base64,aGFsbG8=", "/etc/passwd", "data:text/plain,a"):
        with pytest.raises(DataError, match="example"):
            picture_of(bad)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_nearest_is_the_slow_search(seed):
    generator = torch.Generator().manual_seed(seed)
    queries, examples = torch.randn(3, 4, generator=generator), torch.randn(6, 4, generator=generator)
    for query, found in zip(queries, nearest(queries, examples, 2), strict=True):
        cosines = [float(query @ e / query.norm() / e.norm()) for e in examples]
        assert found == sorted(range(6), key=lambda i: -cosines[i])[:2]


def nuisance(count, seed):
    """Features whose class is in two small numbers; the six large ones say nothing."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    loud = 3 * torch.randn(count, 6, generator=generator)
    quiet = torch.nn.functional.one_hot(labels, 2) + 0.2 * torch.randn(count, 2, generator=generator)
    return torch.cat([loud, quiet], 1), labels


def test_a_supervised_head_finds_better_examples():
    features, labels = nuisance(40, 0)
    queries, truth = nuisance(60, 1)
    gains = measured(40, lambda i, j: float(labels[i] == labels[j]))
    head = contrastive_head(features, gains)

    def right(map_):
        found = torch.tensor(nearest(queries @ map_, features @ map_, 1))[:, 0]
        return float((labels[found] == truth).float().mean())

    assert right(head) > 0.9
    assert right(head) > right(torch.eye(8)) + 0.15
    assert torch.equal(head, contrastive_head(features, gains))


def test_the_heads_loss_is_the_slow_one_at_its_start():
    """One step from the same start moves against the plain gradient of the loss written out."""
    features, labels = nuisance(8, 2)
    gains = measured(8, lambda i, j: float(labels[i] == labels[j]))
    clean = torch.nn.functional.normalize(features, dim=1)
    start = torch.linalg.svd(clean - clean.mean(0), full_matrices=False)[2].T.clone().requires_grad_()
    mapped = clean @ start
    total = torch.zeros(())
    for i in range(8):

        def score(j, i=i):
            return torch.exp(torch.cosine_similarity(mapped[i], mapped[j], 0) / 0.1)

        others = [j for j in range(8) if j != i]
        good = [j for j in others if gains[i, j] == 1][:3]
        bad = [j for j in others if gains[i, j] == 0][-3:]
        total = total - torch.log(sum(map(score, good)) / sum(map(score, good + bad)))
    (total / 8).backward()
    moved = contrastive_head(features, gains, steps=1) - start.detach()
    large = start.grad.abs() > 1e-3
    assert torch.allclose(moved[large], -0.05 * start.grad.sign()[large], atol=1e-3)  # Adam's first step


def test_gains_must_tell_examples_apart():
    with pytest.raises(DataError, match="gains"):
        contrastive_head(torch.randn(5, 3), torch.ones(5, 5))
    with pytest.raises(DataError, match="gains"):
        contrastive_head(torch.randn(2, 3), torch.eye(2))


def test_measured_results():
    asked = []

    def result(query, example):
        asked.append((query, example))
        return query - example

    assert measured(3, result).tolist() == [[0, -1, -2], [1, 0, -1], [2, 1, 0]]
    assert len(asked) == 6


def test_ensembles():
    grids = torch.rand(3, 5, 4).softmax(-1)
    slow = {"mean": grids.sum(0) / 3, "max": grids.max(0).values, "product": grids.prod(0),
            "logits": grids.prod(0) ** (1 / 3)}  # fmt: skip
    for how, value in slow.items():
        assert torch.allclose(combined(grids, how), value / value.sum(-1, keepdim=True), atol=1e-5)


def examples(**more):
    pictures = [torch.full((3, 6, 6), v, dtype=torch.uint8) for v in (0, 120, 250)]
    for k, picture in enumerate(pictures):
        picture[k, :3] = 255 - picture[k, :3]
    return Examples(pictures, ("a", "b", "a"), ("a", "b"), 32, **more), pictures


def test_examples_are_chosen():
    held, pictures = examples()
    assert [held.chosen(p, 1)[0] for p in pictures] == [0, 1, 2]
    assert len(held.chosen(pictures[0], 9)) == 3
    random_, _ = examples(select="random")
    assert random_.chosen(pictures[0], 2) == random_.chosen(pictures[0], 2)
    assert repr(held) != repr(random_)
    given, _ = examples(features=lambda several: torch.tensor([[float(p.float().mean()), 1.0] for p in several]))
    assert given.chosen(pictures[2], 1) == [2]
    for bad in (([], ()), ([pictures[0]], ("z",)), (pictures, ("a",))):
        with pytest.raises(ConfigError, match="examples"):
            Examples(*bad, ("a", "b"), 32)


def test_grids_of_a_batch():
    held, pictures = examples()
    edit = GridCanvas(held, "columns")
    pages = edit(torch.stack(pictures))
    assert pages.shape == (3, 3, 32, 32)
    for k, page in enumerate(pages):
        assert torch.equal(quarter(page, (0, 0)), square(pictures[k], 15))
        assert torch.equal(quarter(page, (0, 1)), square(pictures[k], 15))
        assert torch.equal(quarter(page, (1, 0))[:, 0, 0], palette(2)[k % 2])
    assert torch.allclose(edit(torch.stack(pictures).float() / 255), pages, atol=1 / 255)
    with pytest.raises(ConfigError, match="one or more"):
        GridQuestions(held, shots=0)


def test_plain_features_do_not_care_for_brightness_alone():
    picture = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(3)) * 0.5
    one, other = plain_features([picture, picture + 0.3])
    assert torch.cosine_similarity(one, other, 0) > 0.9
