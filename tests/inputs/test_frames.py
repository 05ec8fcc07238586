"""Frames of the image-text methods, and changes of a text tower's tokens, against plain references."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError
from reprogram.core.program import Input
from reprogram.core.source import Reading
from reprogram.core.texts import Texts
from reprogram.inputs import (
    BoundedFrame,
    SeveralFrames,
    TokenDelta,
    around_mask,
    at_most,
    drawn_descriptions,
    frame_mask,
    in_proportion,
    settings_only,
)
from reprogram.testing.image_text import tiny_dual_model, tiny_dual_source
from reprogram.testing.language import tiny_tokenizer

TEXTS = ("a cat", "a very long name of a dog", "bird")


def pictures(n: int = 4, size: int = 8) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_sizes_keep_their_share_of_the_canvas() -> None:
    assert [in_proportion(30, size) for size in (224, 128, 16, 3)] == [30, 17, 2, 1]
    assert in_proportion(192, 224) == 192 and in_proportion(1, 4) == 1
    with pytest.raises(ConfigError, match="1 or more"):
        in_proportion(0, 224)


@torch.no_grad()
def test_several_frames_are_the_pictures_with_one_frame_after_another() -> None:
    frames, x = SeveralFrames(3, around_mask(8, 4, 4)), pictures()
    for parameter in frames.parameters():
        parameter.normal_()
    kept, found = x.clone(), frames(x)
    assert torch.equal(x, kept)  # the batch is not edited in place
    for v, learned in enumerate(frames.parameters()):
        pattern = torch.zeros(3, 8, 8)
        pattern[:, around_mask(8, 4, 4)] = learned.sigmoid()
        assert torch.equal(found[4 * v : 4 * v + 4], x + pattern)


def test_frames_learn_apart() -> None:
    frames = SeveralFrames(2, frame_mask(8, 1))
    frames(pictures())[:4].sum().backward()
    first, second = frames.parameters()
    assert first.grad is not None and second.grad is not None
    assert float(first.grad.abs().min()) > 0 and float(second.grad.abs().max()) == 0
    with pytest.raises(ConfigError, match="1 frame or more"):
        SeveralFrames(0, frame_mask(8, 1))


@torch.no_grad()
def test_the_bounded_frame_adds_a_squashed_pattern_and_clamps() -> None:
    edit, x = BoundedFrame(frame_mask(8, 2)), pictures()
    pattern = torch.zeros(3, 8, 8)
    pattern[:, frame_mask(8, 2)] = edit.frame.values.tanh()
    kept, found = x.clone(), edit(x)
    assert torch.equal(found, (x + pattern).clamp(0, 1)) and torch.equal(x, kept)
    assert float(found.min()) >= 0 and float(found.max()) <= 1
    assert float((x + pattern).min()) < 0 and float((x + pattern).max()) > 1  # else there was nothing to clamp
    assert torch.equal(found[..., 2:6, 2:6], x[..., 2:6, 2:6])


@torch.no_grad()
def test_dropout_leaves_parts_of_the_pattern_out_only_while_training() -> None:
    edit, x = BoundedFrame(frame_mask(8, 2), dropout=0.5), torch.full((1, 3, 8, 8), 0.5)
    whole = edit.eval()(x)
    assert torch.equal(edit(x), whole)
    left_out = (edit.train()(x) == 0.5)[:, :, frame_mask(8, 2)].float().mean()
    assert 0.2 < float(left_out) < 0.8 and float((whole == 0.5)[:, :, frame_mask(8, 2)].float().mean()) == 0
    with pytest.raises(ConfigError, match="below 1"):
        BoundedFrame(frame_mask(8, 2), dropout=1.0)


def token_delta(source: Any, texts: tuple[str, ...] = TEXTS) -> TokenDelta:
    tokens = source.text.tokens(Texts({"text": texts}), Input())
    return TokenDelta(tokens.ids, tokens.mask.bool(), source.text.embeddings.shape[1])


@torch.no_grad()
def test_a_token_delta_gives_what_a_trained_table_would() -> None:
    """The same change, made in a copy of the model's own tables of tokens and positions."""
    model, source = tiny_dual_model(), tiny_dual_source()
    delta = token_delta(source)
    for parameter in delta.parameters():
        parameter.normal_(std=0.3)
    changed: Any = copy.deepcopy(model)
    ids = dict(tiny_tokenizer("roberta")(list(TEXTS), padding="max_length", max_length=64, return_tensors="pt"))
    known = ids["input_ids"][ids["attention_mask"].bool()].unique()
    tables = changed.text_model.embeddings
    tables.token_embedding.weight[known] += delta.values
    assert delta.places is not None
    tables.position_embedding.weight[: len(delta.places)] += delta.places
    hidden = changed.text_model(**ids).last_hidden_state
    end = (ids["input_ids"] == model.config.text_config.eos_token_id).int().argmax(1)
    theirs = F.normalize(changed.text_projection(hidden[torch.arange(3), end]), dim=-1)
    source.attach(["text.embedding"], Reading(texts=TEXTS))
    mine = source(pictures(size=16), Input(delta), Reading(texts=TEXTS)).texts
    torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)
    before = source.vectors(TEXTS)
    assert float((theirs - before).abs().max()) > 0.1


def test_a_token_delta_starts_as_no_change_and_learns_where_texts_are() -> None:
    source = tiny_dual_source()
    delta = token_delta(source)
    value = torch.randn(*delta.index.shape, 16)
    kept = value.clone()
    assert torch.equal(delta(value), value) and torch.equal(value, kept)
    delta(value).sum().backward()
    assert delta.values.grad is not None and bool((delta.values.grad > 0).all())
    assert float(delta.values.grad[:, 0].sum()) == int(delta.mask.sum())  # padding has no share
    assert delta(value.double()).dtype == torch.float64 and delta(value.bfloat16()).dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="class texts"):
        delta(value[:2])


def test_descriptions_are_drawn_only_where_there_are_too_many() -> None:
    given = {"a": {"x": [f"a {i}" for i in range(9)], "y": "ay"}, "b": {"x": ["b 1", "b 2"], "y": "by"}}
    found = drawn_descriptions(given, ("a", "b"), ["x", "y"], count=4, seed=3)
    assert len(set(found["x"][0])) == 4 and found["x"][1] == ["b 1", "b 2"] and found["y"] == [["ay"], ["by"]]
    assert found == drawn_descriptions(given, ("a", "b"), ["x", "y"], count=4, seed=3)
    assert found != drawn_descriptions(given, ("a", "b"), ["x", "y"], count=4, seed=4)
    assert at_most([["p", "q"]], 1)[0][0] in "pq"
    with pytest.raises(ConfigError, match="reprogram describe"):
        drawn_descriptions(None, ("a", "b"), count=4)
    with pytest.raises(ConfigError, match="kept with the program"):
        settings_only("some/file.json")
    with pytest.raises(DataError, match="missing"):
        drawn_descriptions({"a": "one"}, ("a", "b"), ["x"], count=4)
