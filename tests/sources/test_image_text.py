"""Image-text sources against the models' own code and slow plain references of the published prompts."""

import importlib.util
import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, DataError, SourceError
from reprogram.core.program import Input
from reprogram.core.source import Capability, ImageTextSource, Reading, image_text_source
from reprogram.inputs import Additive, PromptTokens, ReplacedTokens, SoftPrompt, frame_mask
from reprogram.sources import load_source, wrap
from reprogram.sources.image_text import DualSource
from reprogram.testing import tiny_source
from reprogram.testing.image_text import tiny_dual_model, tiny_dual_source
from reprogram.testing.language import tiny_tokenizer

pytest.importorskip("transformers")

TEXTS = ("a cat", "a very long name of a dog", "bird")
KINDS = ["clip", "siglip", *(["open_clip"] if importlib.util.find_spec("open_clip") else [])]


def pictures(n: int = 4, seed: int = 1) -> Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def normalised(source: DualSource, x: Tensor) -> Tensor:
    pixels = source.spec.preprocessing
    return (x - torch.tensor(pixels.mean).view(-1, 1, 1)) / torch.tensor(pixels.std).view(-1, 1, 1)


def own_ids(model: Any, texts: tuple[str, ...]) -> dict[str, Tensor]:
    return dict(tiny_tokenizer("roberta")(list(texts), padding="max_length", max_length=64, return_tensors="pt"))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@torch.no_grad()
def test_scores_are_those_of_the_model_itself(kind: Any) -> None:
    model, source = tiny_dual_model(kind), tiny_dual_source(kind)
    ids = own_ids(model, TEXTS)
    if kind == "clip":  # whose code takes the highest id for the end token where the configuration says 2
        hidden = model.text_model(**ids).last_hidden_state
        end = (ids["input_ids"] == model.config.text_config.eos_token_id).int().argmax(1)
        theirs = model.text_projection(hidden[torch.arange(3), end])
    else:
        theirs = model.get_text_features(ids["input_ids"]).pooler_output
    theirs = F.normalize(theirs, dim=-1)
    seen = F.normalize(model.get_image_features(normalised(source, pictures())).pooler_output, dim=-1)
    bias = float(model.logit_bias) if kind == "siglip" else 0.0
    mine = source(pictures(), Input(), Reading(texts=TEXTS))
    assert mine.features is not None and mine.texts is not None
    torch.testing.assert_close(mine.features, seen, atol=1e-6, rtol=0)
    torch.testing.assert_close(mine.texts, theirs, atol=1e-6, rtol=0)
    torch.testing.assert_close(mine.logits, model.logit_scale.exp() * seen @ theirs.T + bias, atol=2e-5, rtol=1e-5)


@pytest.mark.skipif("open_clip" not in KINDS, reason="open_clip is not installed")
@torch.no_grad()
def test_scores_are_those_of_open_clip_itself() -> None:
    import open_clip

    source = tiny_dual_source("open_clip")
    vision: Any = source.image.module.model  # type: ignore[union-attr]
    text: Any = source.text.module
    ids = open_clip.get_tokenizer("ViT-B-32")(list(TEXTS))
    hidden = text.embed(ids) + text.places
    mask = torch.full((77, 77), float("-inf")).triu(1)
    hidden = text.norm(text.layers(hidden, attn_mask=mask))
    theirs = F.normalize(hidden[torch.arange(3), ids.argmax(-1)] @ text.project, dim=-1)
    seen = F.normalize(vision(normalised(source, pictures())), dim=-1)
    mine = source(pictures(), Input(), Reading(texts=TEXTS))
    torch.testing.assert_close(mine.logits, source.scale * seen @ theirs.T, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_protocol_and_sites(kind: Any) -> None:
    source = tiny_dual_source(kind)
    assert isinstance(source, ImageTextSource) and image_text_source(source) is source
    assert {"image.input", "image.normalised", "image.embedding", "image.hidden.0", "text.input", "text.embedding",
            "text.hidden.2", "input", "normalised", "embedding"} <= set(source.sites)  # fmt: skip
    assert Capability.CLASS_TEXTS in source.capabilities
    with pytest.raises(CapabilityError, match="compare pictures with texts"):
        image_text_source(tiny_source())


def coop_reference(model: Any, ids: Tensor, context: Tensor) -> Tensor:
    """CoOp as published: context rows between the start token and the name's, 64 places, end token's vector."""
    text = model.text_model
    table = text.embeddings.token_embedding(ids)
    n = context.shape[-2]
    rows = context.expand(len(ids), n, -1)
    whole = torch.cat([table[:, :1], rows, table[:, 1 : 64 - n]], 1) + text.embeddings.position_embedding.weight
    mask = torch.full((64, 64), float("-inf")).triu(1)[None, None]
    hidden = text.final_layer_norm(text.encoder(inputs_embeds=whole, attention_mask=mask).last_hidden_state)
    end = (ids == model.config.text_config.eos_token_id).int().argmax(1) + n
    return F.normalize(model.text_projection(hidden[torch.arange(len(ids)), end]), dim=-1)


def test_a_context_gives_what_coop_computes_on_all_places() -> None:
    model = tiny_dual_model()
    context = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    source = tiny_dual_source()
    edit = SoftPrompt(context, site="text.embedding")
    source.attach(["text.embedding"], Reading(texts=TEXTS))
    mine = source(pictures(), Input(edit), Reading(texts=TEXTS))
    theirs = coop_reference(model, own_ids(model, TEXTS)["input_ids"], context)
    assert mine.texts is not None
    torch.testing.assert_close(mine.texts, theirs, atol=1e-6, rtol=0)
    (grad,) = torch.autograd.grad(mine.logits.sum(), edit.values)
    assert bool(grad.isfinite().all()) and float(grad.abs().max()) > 0


def maple_text(model: Any, ids: Tensor, prompts: list[Tensor]) -> Tensor:
    """Deep text prompts as published: after the start token, fresh ones in their places at every later layer."""
    text = model.text_model
    table = text.embeddings.token_embedding(ids)
    n = len(prompts[0])
    whole = torch.cat([table[:, :1], prompts[0].expand(len(ids), -1, -1), table[:, 1 : 64 - n]], 1)
    hidden = whole + text.embeddings.position_embedding.weight
    mask = torch.full((64, 64), float("-inf")).triu(1)[None, None]
    for i, layer in enumerate(text.encoder.layers):
        if 0 < i < len(prompts):
            hidden = torch.cat([hidden[:, :1], prompts[i].expand(len(ids), -1, -1), hidden[:, 1 + n :]], 1)
        hidden = layer(hidden, mask)
    hidden = text.final_layer_norm(hidden)
    end = (ids == model.config.text_config.eos_token_id).int().argmax(1) + n
    return F.normalize(model.text_projection(hidden[torch.arange(len(ids)), end]), dim=-1)


def maple_image(model: Any, pixels: Tensor, prompts: list[Tensor]) -> Tensor:
    """Deep vision prompts as published: behind the patches, before the first norm, fresh ones at every later layer."""
    vision = model.vision_model
    n = len(prompts[0])
    hidden = torch.cat([vision.embeddings(pixels), prompts[0].expand(len(pixels), -1, -1)], 1)
    hidden = vision.pre_layrnorm(hidden)
    for i, layer in enumerate(vision.encoder.layers):
        if 0 < i < len(prompts):
            hidden = torch.cat([hidden[:, :-n], prompts[i].expand(len(pixels), -1, -1)], 1)
        hidden = layer(hidden, None)
    return F.normalize(model.visual_projection(vision.post_layernorm(hidden[:, 0])), dim=-1)


def test_deep_prompts_give_what_maple_computes() -> None:
    model, source = tiny_dual_model(), tiny_dual_source()
    draw = torch.Generator().manual_seed(0)
    texts, images = ([torch.randn(2, 16, generator=draw) for _ in range(3)] for _ in range(2))
    edits = [
        SoftPrompt(texts[0], site="text.embedding"),
        *(ReplacedTokens(t, site=f"text.hidden.{i}") for i, t in enumerate(texts[1:], 1)),
        PromptTokens(images[0], site="image.embedding", after=17),
        *(ReplacedTokens(t, site=f"image.hidden.{i}", after=17) for i, t in enumerate(images[1:], 1)),
    ]
    source.attach([e.site for e in edits], Reading(texts=TEXTS))
    mine = source(pictures(), Input(*edits), Reading(texts=TEXTS))
    ids = own_ids(model, TEXTS)["input_ids"]
    assert mine.texts is not None and mine.features is not None
    torch.testing.assert_close(mine.texts, maple_text(model, ids, texts), atol=1e-6, rtol=0)
    theirs = maple_image(model, normalised(source, pictures()), images)
    torch.testing.assert_close(mine.features, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_length_of_other_texts_changes_nothing(kind: Any) -> None:
    source = tiny_dual_source(kind)
    alone, among = source.vectors(("cat",)), source.vectors(("cat", "a far longer text than that"))
    torch.testing.assert_close(alone[0], among[0], atol=1e-6, rtol=0)


def test_texts_without_edits_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source, calls = tiny_dual_source(), []
    monkeypatch.setattr(source, "_encoded", lambda *args, before=source._encoded: (calls.append(1), before(*args))[1])
    for _ in range(3):
        source(pictures(), Input(), Reading(texts=TEXTS))
    assert len(calls) == 1


def test_edits_of_pictures_do_not_need_the_prefix() -> None:
    source = tiny_dual_source()
    torch.manual_seed(0)
    bare, full = (Additive(frame_mask(16, 3), init="normal", site=site) for site in ("input", "image.input"))
    full.load_state_dict(bare.state_dict())
    one, two = (source(pictures(), Input(edit), Reading(texts=TEXTS)).logits for edit in (bare, full))
    assert torch.equal(one, two) and not torch.equal(one, source(pictures(), Input(), Reading(texts=TEXTS)).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_pictures(kind: Any) -> None:
    source = tiny_dual_source(kind)
    reading = Reading(texts=TEXTS, local=True)
    source.attach([], reading)
    said = source(pictures(), Input(), reading)
    assert said.local is not None and said.local.shape[:2] == (4, 16)
    torch.testing.assert_close(said.local.norm(dim=-1), torch.ones(4, 16))


def test_texts_that_do_not_fit_or_say_nothing_are_refused() -> None:
    source = tiny_dual_source()
    with pytest.raises(ConfigError, match="words in them"):
        source.attach([], Reading(texts=("a", " ")))
    edit = SoftPrompt(torch.zeros(70, 16), site="text.embedding")
    source.attach(["text.embedding"], Reading(texts=TEXTS))
    with pytest.raises(DataError, match="leave room"):
        source(pictures(), Input(edit), Reading(texts=TEXTS))
    with pytest.raises(SourceError, match="tokenizer"):
        wrap(tiny_dual_model())


def test_a_folder_of_transformers_loads_as_one(tmp_path: Any) -> None:
    model = tiny_dual_model()
    model.save_pretrained(tmp_path)
    tiny_tokenizer("roberta").save_pretrained(tmp_path)
    with pytest.raises(SourceError, match="how pixels are normalised"):
        load_source(f"hf/{tmp_path}")
    mean, std = tiny_dual_source().spec.preprocessing.mean, tiny_dual_source().spec.preprocessing.std
    facts = {"image_mean": mean, "image_std": std, "do_rescale": True, "do_normalize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(facts))
    source = load_source(f"hf/{tmp_path}")
    assert isinstance(source, DualSource)
    there = source(pictures(), Input(), Reading(texts=TEXTS)).logits
    torch.testing.assert_close(there, tiny_dual_source()(pictures(), Input(), Reading(texts=TEXTS)).logits)


def test_conse_is_the_mean_of_the_likeliest_names() -> None:
    from reprogram.sources._towers import ConseTower

    draw = torch.Generator().manual_seed(0)
    names, scores = torch.randn(20, 5, generator=draw), torch.randn(3, 20, generator=draw) * 3
    tower = ConseTower(torch.nn.Identity(), names, top=4)
    for row, found in zip(scores, tower.meant(scores), strict=True):
        chances = row.softmax(0)
        best = sorted(range(20), key=lambda k: -float(chances[k]))[:4]
        whole = sum(float(chances[k]) for k in best)
        plain = sum((names[k] * float(chances[k]) for k in best), torch.zeros(5)) / whole
        torch.testing.assert_close(found, plain)
    everything = ConseTower(torch.nn.Identity(), names, top=20).meant(scores)
    torch.testing.assert_close(everything, scores.softmax(-1) @ names)


def test_conse_has_one_fingerprint_whatever_the_last_bits_of_the_names_vectors() -> None:
    """They come out of the text tower, and no two kinds of processor add up alike."""
    from reprogram.sources._frozen import fingerprint
    from reprogram.sources._towers import ConseTower

    names = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    here = ConseTower(torch.nn.Linear(2, 3), names, said=("cat", "dog", "ship"))
    there = ConseTower(here.network, names * (1 + 1e-6), said=("cat", "dog", "ship"))
    assert not torch.equal(here.names, there.names)
    assert fingerprint(here) == fingerprint(there)
    assert fingerprint(here) != fingerprint(ConseTower(here.network, names, said=("cat", "dog", "truck")))
    assert fingerprint(here) != fingerprint(ConseTower(torch.nn.Linear(2, 3), names, said=("cat", "dog", "ship")))
