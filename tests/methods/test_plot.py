"""PLOT, PLOT++ and ALIGN as programs: sets one at a time give the same, counts are the published ones, they train."""

from typing import Any

import pytest
import torch
from torch import Tensor

import reprogram as rp
from reprogram.core.errors import CapabilityError, ConfigError
from reprogram.core.program import Edit, Input, Program
from reprogram.core.source import Capability, Reading
from reprogram.fit import FitOptions, fit
from reprogram.fit.feed import LookedOnce, feed_for
from reprogram.inputs import (
    CoupledTokens,
    FreshSets,
    PromptMixture,
    PromptTokens,
    ReplacedTokens,
    SoftPrompt,
    TrailingTokens,
)
from reprogram.outputs import sinkhorn
from reprogram.sources.image_text import DualSource
from reprogram.sources.transformers_clip import dual_source
from reprogram.testing import tiny_source, tiny_task
from reprogram.testing.image_text import tiny_dual_source
from reprogram.testing.language import tiny_tokenizer

transformers = pytest.importorskip("transformers")

FREE: dict[str, Any] = {"plot": {}, "plot_pp": {}, "align": {"token": "none"}}
"""Settings with which each runs."""


def built(method: str, source: DualSource | None = None, **settings: Any) -> Program:
    torch.manual_seed(0)
    return rp.build(method, source or tiny_dual_source(), tiny_task(), **{"tokens": 2, **FREE[method], **settings})


def scattered(program: Program) -> Program:
    """With numbers large enough for sets to differ."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in program.parameters():
            p.normal_(std=0.5)
    return program


def edits_of(program: Program, *kinds: type[Edit]) -> list[Any]:
    return [e for e in program.input if isinstance(e, kinds)]


def pictures(n: int = 3) -> Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def alone(program: Program, edits: list[Edit], local: bool = False) -> Any:
    """What the source says with these edits in place of the sets."""
    reading = Reading(texts=program.output.reading.texts, local=local)
    program.source.attach([e.site for e in edits], reading)
    with torch.no_grad():
        return program.source(pictures(), Input(*edits), reading)


def scored(said: list[Any], program: Program, parts: str) -> Tensor:
    """Scores from one answer of the source for each set, in float64."""
    texts = torch.stack([s.texts for s in said], 1).double()
    seen = (said[0].local if parts == "local" else torch.stack([s.features for s in said], 1)).double()
    close = torch.einsum("bmd,tnd->btmn", seen, texts)
    plan = sinkhorn(1 - close, 0.1, 100, 1e-2)
    return (program.source.scale * (plan * close).sum((-2, -1))).float()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_plot_is_each_context_by_itself_and_transport_between_them(kind: Any) -> None:
    program = scattered(built("plot", tiny_dual_source(kind), sets=3))
    (edit,) = edits_of(program, PromptMixture)
    each = [alone(program, [SoftPrompt(p, site="text.embedding")], local=True) for p in edit.values]
    wanted = scored(each, program, "local") + program.source.bias  # type: ignore[attr-defined]
    with torch.no_grad():
        torch.testing.assert_close(program(pictures()), wanted, atol=2e-4, rtol=1e-4)


def test_plot_pp_is_each_pair_of_sets_by_itself_and_transport_between_them() -> None:
    program = scattered(built("plot_pp", sets=3, pictures=3))
    (texts,), (tokens,) = edits_of(program, PromptMixture), edits_of(program, TrailingTokens)
    each = [
        alone(program, [SoftPrompt(p, site="text.embedding"), PromptTokens(v, site="image.embedding", after=17)])
        for p, v in zip(texts.values, tokens.values, strict=True)
    ]
    with torch.no_grad():
        torch.testing.assert_close(program(pictures()), scored(each, program, "rows"), atol=2e-4, rtol=1e-4)


def one_of_align(program: Program, k: int) -> list[Edit]:
    """Set k of ALIGN's deep prompts as edits of one set."""
    texts, images = edits_of(program, PromptMixture, FreshSets), edits_of(program, CoupledTokens)
    first, *later = [e.values[k] for e in texts]
    shallow, *deep = [e.tokens()[k] for e in images]
    return [
        SoftPrompt(first, site="text.embedding"),
        *(ReplacedTokens(p, site=f"text.hidden.{i}") for i, p in enumerate(later, 1)),
        PromptTokens(shallow, site="image.embedding", after=17),
        *(ReplacedTokens(p, site=f"image.hidden.{i}", after=17) for i, p in enumerate(deep, 1)),
    ]


def test_align_is_each_coupled_deep_set_by_itself_and_transport_between_them() -> None:
    program = scattered(built("align", sets=3))
    assert [e.site for e in edits_of(program, CoupledTokens)] == ["image.embedding", "image.hidden.1", "image.hidden.2"]
    each = [alone(program, one_of_align(program, k)) for k in range(3)]
    with torch.no_grad():
        torch.testing.assert_close(program(pictures()), scored(each, program, "rows"), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("token", ["distance", "similarity"])
def test_align_with_tokens_reads_the_vectors_of_patches_and_words(token: str) -> None:
    program = scattered(built("align", sets=2, token=token))
    with torch.no_grad():
        said = program.outputs(pictures())
    words, texts = said.at["text.words"], said.texts
    assert texts is not None
    assert said.local is not None
    rows, classes = len(texts), len(tiny_task().classes)
    assert rows == 2 * classes and len(words) == rows and said.local.shape[:2] == (6, 16)
    there = words.norm(dim=-1) > 0
    torch.testing.assert_close(words.norm(dim=-1), there.float())
    length = 2 + len(program.source.text.encode("class 0.")) + 2  # type: ignore[attr-defined]
    assert there.sum(1).tolist() == [length] * rows  # start, learned words, name, full stop, end
    torch.testing.assert_close(words[:, length - 1], texts, atol=1e-6, rtol=0)  # CLIP's text is its end token
    for k in range(2):
        single = Input(*one_of_align(program, k))
        with torch.no_grad():
            other = program.source(pictures(), single, program.output.reading)
        torch.testing.assert_close(other.at["text.words"], words[k::2], atol=1e-6, rtol=0)
        assert other.local is not None
        torch.testing.assert_close(other.local, said.local[k::2], atol=1e-6, rtol=0)
    plain = scattered(built("align", sets=2))
    with torch.no_grad():
        assert not torch.allclose(program(pictures()), plain(pictures()), atol=1e-4)


@pytest.fixture(scope="module")
def clip() -> DualSource:
    """CLIP ViT-B/16's widths and depth, but small inside."""
    tokenizer = tiny_tokenizer("roberta")
    inside: dict[str, Any] = {"intermediate_size": 8, "num_hidden_layers": 9}
    text = {**inside, "hidden_size": 512, "num_attention_heads": 8, "vocab_size": len(tokenizer),
            "max_position_embeddings": 64, "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    vision = {**inside, "hidden_size": 768, "num_attention_heads": 12, "image_size": 16, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=512)
    with torch.device("meta"):
        model = transformers.CLIPModel(config)
    model = model.to_empty(device="cpu")  # numbers do not matter, only how many there are
    for part in (model.text_model.embeddings, model.vision_model.embeddings):
        part.position_ids = torch.arange(part.position_embedding.num_embeddings)[None]
    torch.nn.init.ones_(model.logit_scale)
    return dual_source(model.eval(), tokenizer)


@pytest.mark.parametrize(
    ("method", "count"), [("plot", 4 * 16 * 512), ("plot_pp", 4 * 4 * 512 + 4 * 2 * 768), ("align", 3_582_720)]
)
def test_counts_are_the_published_ones(clip: DualSource, method: str, count: int) -> None:
    assert {"plot": 32_768, "plot_pp": 14_336, "align": 3_582_720}[method] == count
    found = rp.build(method, clip, tiny_task(), words=(), **FREE[method]).count()
    assert (found.allocated, found.effective) == (count, count)


@pytest.mark.parametrize("method", ["plot_pp", "align"])
def test_sources_without_image_tokens_are_refused_by_name(method: str) -> None:
    whole = tiny_dual_source()
    blind = DualSource(whole.image, whole.text, ref="bundled/blind", scale=10.0)
    blind.sites = {s: w for s, w in whole.sites.items() if s != "image.embedding"}
    with pytest.raises(CapabilityError, match=r"image tokens, at `image.embedding`.*bundled/blind.*method plot"):
        built(method, blind)
    with pytest.raises(CapabilityError, match=r"compare pictures with texts|class texts"):
        built(method, tiny_source())  # type: ignore[arg-type]


def test_plot_trains_on_pictures_looked_at_once_and_the_others_live() -> None:
    task = tiny_task()
    settings = {"recipe.epochs": 6, "recipe.batch_size": 8, "recipe.optimizer": "adam", "recipe.lr": 0.02,
                "recipe.warmup_steps": 0, "recipe.augment": "none", "recipe.weight_decay": 0.0}  # fmt: skip
    for method in ("plot", "plot_pp", "align"):
        program = built(method, **settings)
        assert isinstance(feed_for(program), LookedOnce) is (method == "plot")
        x, y = task.train.fetch(torch.arange(len(task.train))), task.train.labels
        with torch.no_grad():
            before = float(torch.nn.functional.cross_entropy(program(x), y))
        fit(program, task, options=FitOptions(progress=False))
        with torch.no_grad():
            after = float(torch.nn.functional.cross_entropy(program.eval()(x), y))
        assert after < before - 0.05, method


def test_every_learned_number_of_align_gets_a_gradient() -> None:
    program = scattered(built("align", sets=2))
    torch.nn.functional.cross_entropy(program(pictures()), torch.tensor([0, 1, 2])).backward()
    for name, p in program.named_parameters():
        assert p.grad is not None, name
        assert float(p.grad.abs().max()) > 0, name
    (own,) = [n for n, _ in program.named_parameters() if n == "input.edits.1.values"]
    assert own  # the prompts are the text edits' and not stored twice
    assert sum("values" in n for n, _ in program.named_parameters()) == len(edits_of(program, PromptMixture, FreshSets))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="sets"):
        built("plot", sets=0)
    with pytest.raises(ConfigError, match="2 sets at most"):
        built("plot", sets=2, words=("a", "b", "c"))
    with pytest.raises(ConfigError, match="epsilon"):
        built("plot", epsilon=0.0)
    with pytest.raises(ConfigError, match="depth"):
        built("align", depth=0)
    with pytest.raises(ConfigError, match="rows for each of 2 sets"):
        FreshSets(torch.zeros(2, 1, 4), site="text.hidden.1")(torch.zeros(3, 5, 4))
    with pytest.raises(ConfigError, match="width 4"):
        TrailingTokens(torch.zeros(2, 1, 4))(torch.zeros(3, 5, 6))
    assert Capability.TOKEN_INSERTION in tiny_dual_source().capabilities


def test_sets_start_as_words_and_the_rest_at_random() -> None:
    source = tiny_dual_source()
    program = built("plot", source, sets=3, tokens=4, words=("abcd", "ab"))
    (edit,) = edits_of(program, PromptMixture)
    table = source.text.embeddings
    for k, word in enumerate(("abcd", "ab")):
        ids = source.text.encode(word)[:4]
        torch.testing.assert_close(edit.values[k, : len(ids)], table[ids])
    assert float(edit.values[2].detach().abs().max()) < 0.1
