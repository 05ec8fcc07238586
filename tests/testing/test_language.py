"""The tiny language models: what others rely on when they test with them."""

import pytest
import torch

from reprogram.testing import tiny_language_model, tiny_text_source, tiny_tokenizer
from reprogram.testing.language import WORDS

KINDS = ("gpt2", "llama", "bert", "bert_encoder", "bert_classifier", "roberta", "t5")


def scores(model, ids):
    more = {"decoder_input_ids": ids[:, :2]} if model.config.is_encoder_decoder else {}
    result = model(input_ids=ids, **more)
    return result.logits if "logits" in result else result.last_hidden_state


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_its_seed(kind):
    model, tokenizer = tiny_language_model(kind)
    before = torch.get_rng_state()
    again, other = tiny_language_model(kind)[0], tiny_language_model(kind, 1)[0]
    assert torch.equal(before, torch.get_rng_state())
    ids = torch.tensor([tokenizer("a great movie")["input_ids"], tokenizer("a awful story")["input_ids"]])
    with torch.no_grad():
        said = scores(model, ids)
        assert torch.equal(said, scores(again, ids))
        assert not torch.allclose(said, scores(other, ids), atol=0.1)
        assert (said[0] - said[1]).abs().max() > 0.1  # scores depend on the text
        assert not model.training
        assert not torch.equal(scores(model.train(), ids), said)  # there is dropout to be kept off


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_can_be_written(kind):
    tokenizer = tiny_tokenizer(kind)
    for text in ("the movie was great", "zyxw 42 quickly, again!"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False).replace(" ", "") == text.replace(" ", "")
    for word in WORDS:
        assert len(tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1
    assert len(tokenizer(" terribly", add_special_tokens=False)["input_ids"]) > 1


def test_families_have_their_traps():
    special = {kind: tiny_tokenizer(kind) for kind in KINDS}
    assert special["gpt2"].pad_token is None
    assert special["llama"].pad_token is None
    assert special["gpt2"]("a")["input_ids"] == special["gpt2"]("a", add_special_tokens=False)["input_ids"]
    assert special["llama"]("a")["input_ids"][0] == special["llama"].bos_token_id
    assert special["bert"].convert_ids_to_tokens(special["bert"]("a", "the")["input_ids"]) == [
        "[CLS]", "a", "[SEP]", "the", "[SEP]"]  # fmt: skip
    assert special["bert"]("a", "the")["token_type_ids"] == [0, 0, 0, 1, 1]
    assert "token_type_ids" not in special["roberta"]("a", "the")
    assert special["t5"].convert_ids_to_tokens(special["t5"]("a")["input_ids"]) == ["▁a", "</s>"]
    llama = tiny_language_model("llama")[0].model.layers[0].self_attn
    assert llama.q_proj.out_features == 2 * llama.k_proj.out_features
    assert tiny_language_model("roberta")[0].roberta.embeddings.position_embeddings.padding_idx == 1


def test_size_is_a_matter_of_choice():
    model, tokenizer = tiny_language_model("gpt2", vocab=1000, width=48, layers=3)
    assert model.get_input_embeddings().weight.shape == (1000, 48)
    assert len(model.transformer.h) == 3
    with pytest.raises(ValueError, match=f"at least {len(tokenizer)}"):
        tiny_language_model("gpt2", vocab=100)


def test_pictures_and_sources():
    model, nothing = tiny_language_model("vit")
    assert nothing is None
    assert model(torch.rand(2, 3, 16, 16)).logits.shape == (2, 6)
    assert tiny_text_source("llama", layers=3).blocks == 3
    assert tiny_text_source("t5").spec.ref == "module:tiny-t5"
    with pytest.raises(ValueError, match="text"):
        tiny_text_source("vit")
