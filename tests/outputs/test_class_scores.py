"""Class texts: pooling against plain loops, and names that a text tower cannot tell apart."""

import pytest
import torch
import torch.nn.functional as F

from reprogram.core.errors import CapabilityError, ConfigError, DataError
from reprogram.core.source import SourceOutput
from reprogram.outputs import ClassScores, class_output, template_scores, texts_for
from reprogram.testing import tiny_source
from reprogram.testing.image_text import tiny_dual_source

pytest.importorskip("transformers")

OWNER = (0, 1, 0, 2, 1, 1)
TEXTS = tuple("abcdef")


def said(conditioned: bool = False) -> SourceOutput:
    draw = torch.Generator().manual_seed(0)
    pictures = F.normalize(torch.randn(4, 5, generator=draw), dim=-1)
    texts = F.normalize(torch.randn(*((4,) if conditioned else ()), 6, 5, generator=draw), dim=-1)
    close = torch.einsum("bd,bnd->bn", pictures, texts) if conditioned else pictures @ texts.T
    return SourceOutput(scores=3 * close + 1, features=pictures, texts=texts)


@pytest.mark.parametrize("pooling", ["logits", "max"])
def test_scores_are_pooled_class_by_class(pooling):
    out, found = said(), ClassScores(TEXTS, OWNER, pooling=pooling)(said())
    for b in range(4):
        for t in range(3):
            mine = [float(out.logits[b, n]) for n in range(6) if OWNER[n] == t]
            wanted = max(mine) if pooling == "max" else sum(mine) / len(mine)
            assert float(found[b, t]) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("conditioned", [False, True])
def test_mean_vectors_are_brought_to_length_one(conditioned):
    out = said(conditioned)
    found = ClassScores(TEXTS, OWNER, scale=3.0, bias=1.0)(out)
    for b in range(4):
        rows = out.texts[b] if conditioned else out.texts
        for t in range(3):
            mean = sum((rows[n] for n in range(6) if OWNER[n] == t), torch.zeros(5))
            wanted = 3 * float(out.features[b] @ mean / mean.norm()) + 1
            assert float(found[b, t]) == pytest.approx(wanted, abs=1e-5)


def test_every_class_needs_a_text():
    with pytest.raises(ConfigError, match="none left out"):
        ClassScores(("a", "b"), (0, 2))
    with pytest.raises(ConfigError, match="one or more"):
        texts_for(tiny_dual_source(), ("a", "b"), [])


def test_names_must_be_told_apart():
    source = tiny_dual_source()
    with pytest.raises(DataError, match="must differ in the text tower's tokens"):
        texts_for(source, ("sea_lion", "sea  lion"), ["{class}"])
    assert texts_for(source, ("owl", "sea_lion"), ["{a class}.", "{class}"]) == (
        "an owl.", "owl", "a sea lion.", "sea lion",
    )  # fmt: skip


def test_names_without_a_token_are_refused(monkeypatch):
    source = tiny_dual_source()
    monkeypatch.setattr(source.text, "encode", lambda text: [])
    with pytest.raises(DataError, match="tokens for"):
        texts_for(source, ("a", "b"), ["{class}"])


def test_a_thousand_classes():
    source = tiny_dual_source()
    output = template_scores(source, [f"kind {i}" for i in range(1000)], ["{class}", "a {class}"])
    from reprogram.core.program import Program

    program = Program([], source, output)
    scores = program(torch.rand(2, 3, 16, 16))
    assert scores.shape == (2, 1000) and bool(scores.isfinite().all())


def test_a_classifier_gets_a_label_mapping_and_has_no_texts():
    assert class_output(tiny_source(), ("a", "b"), "frequency", "{class}").targets == 2
    assert isinstance(class_output(tiny_dual_source(), ("a", "b"), "frequency", "{class}"), ClassScores)
    with pytest.raises(CapabilityError):
        from reprogram.core.program import Program

        Program([], tiny_source(), ClassScores(("a", "b")))(torch.rand(1, 3, 16, 16))
