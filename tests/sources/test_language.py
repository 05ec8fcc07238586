"""Language models as sources: against transformers itself, against PEFT, and against our own slower ways."""

import copy

import peft
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import reprogram as rp
from reprogram.core.errors import CapabilityError, DataError
from reprogram.core.program import Edit, Input
from reprogram.core.source import Reading, TextSource
from reprogram.core.taxonomy import Operator
from reprogram.core.texts import MASK, SLOT, Texts, Tokens
from reprogram.inputs import Prefix, SoftPrompt, Template
from reprogram.outputs import Identity
from reprogram.sources import language_source
from reprogram.testing import tiny_language_model, tiny_text_source

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),  # PEFT asks the old way
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),  # the compiler looks at prefixes
]

ALL = Reading(tokens=True)
KINDS = ["gpt2", "llama", "bert", "bert_encoder", "bert_classifier", "roberta", "t5"]
CAUSAL = ["gpt2", "llama"]


def padded(vocab: int, side: str, seed: int = 0) -> Tokens:
    """Three rows of 10, 7 and 4 tokens."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(8, vocab, (n,), generator=generator) for n in (10, 7, 4)]
    ids, mask = torch.zeros(3, 10, dtype=torch.int64), torch.zeros(3, 10, dtype=torch.bool)
    for i, row in enumerate(rows):
        at = slice(0, len(row)) if side == "right" else slice(10 - len(row), 10)
        ids[i, at], mask[i, at] = row, True
    return Tokens(ids, mask)


def soft(source: TextSource, where: str = "start", n: int = 5) -> SoftPrompt:
    torch.manual_seed(3)
    return SoftPrompt(torch.randn(n, source.embeddings.shape[1]), where=where)


def prefix(source: TextSource, n: int = 5) -> Prefix:
    torch.manual_seed(4)
    return Prefix(torch.randn(n, source.blocks, 2, source.heads, source.head_width))


def said(source, tokens: Tokens, *edits: Edit) -> torch.Tensor:
    """Everything the source says of its own tokens, one row after another."""
    out = source(tokens, Input(*edits), ALL if source.kind in ("causal", "masked") else Reading())
    return out.token_scores[tokens.mask] if source.kind in ("causal", "masked") else out.scores


def vocab(source) -> int:
    return source.embeddings.shape[0]


@pytest.mark.parametrize("kind", KINDS)
def test_without_edits_it_is_the_model_bit_for_bit(kind):
    model, tokenizer = tiny_language_model(kind)
    twin = copy.deepcopy(model)
    source = language_source(model, tokenizer)
    tokens = padded(vocab(source), "right")
    arguments = {"input_ids": tokens.ids, "attention_mask": tokens.mask.long()}
    if kind == "t5":
        arguments["decoder_input_ids"] = torch.full((3, 1), twin.config.decoder_start_token_id)
    with torch.no_grad():
        plain = twin(**arguments)
        ours = said(source, tokens)
    if kind == "bert_encoder":
        weight = tokens.mask[..., None].float()
        expected = (plain.last_hidden_state * weight).sum(1) / weight.sum(1)
    elif kind == "t5":
        expected = plain.logits[:, 0]
    else:
        expected = plain.logits if kind == "bert_classifier" else plain.logits[tokens.mask]
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("make", [None, "start", "after_first", "end", "prefix"])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_on_either_side_gives_the_same(kind, make):
    """PEFT's order is prompt, padding, text: there a left-padded batch is off by 5.4 (prompt) and 2.3 (prefix)."""
    source = tiny_text_source(kind)
    edits = [] if make is None else [prefix(source) if make == "prefix" else soft(source, make)]
    left, right = (said(source, padded(vocab(source), side), *edits) for side in ("left", "right"))
    assert torch.allclose(left, right, atol=2e-5, rtol=1e-4)
    alone = padded(vocab(source), "right")
    single = Tokens(alone.ids[2:, :4], alone.mask[2:, :4])
    whole = said(source, alone, *edits)
    assert torch.allclose(
        whole[-len(said(source, single, *edits)) :], said(source, single, *edits), atol=2e-5, rtol=1e-4
    )


@pytest.mark.parametrize("make", ["start", "after_first", "end", "prefix"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_prompt_has_an_effect_and_a_gradient(kind, make):
    source = tiny_text_source(kind)
    edit = prefix(source) if make == "prefix" else soft(source, make)
    tokens = padded(vocab(source), "right")
    out = source(tokens, Input(edit), Reading(features=True)) if kind not in ("bert", "roberta") else None
    scores = said(source, tokens, edit) if out is None else out.scores
    scores.square().mean().backward()
    assert edit.values.grad is not None
    assert edit.values.grad.isfinite().all()
    assert edit.values.grad.abs().sum() > 0
    assert not any(p.grad is not None for p in source.module.parameters())


@pytest.mark.parametrize("config", ["prompt", "prefix"])
@pytest.mark.parametrize("kind", CAUSAL)
def test_logits_loss_and_gradient_are_those_of_peft(kind, config):
    model, tokenizer = tiny_language_model(kind)
    kinds = {"prompt": peft.PromptTuningConfig, "prefix": peft.PrefixTuningConfig}
    theirs = peft.get_peft_model(
        copy.deepcopy(model), kinds[config](task_type="CAUSAL_LM", num_virtual_tokens=5)
    ).eval()
    table = theirs.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        table.normal_()
    source = language_source(model, tokenizer)
    edit = soft(source) if config == "prompt" else prefix(source)
    edit.values.data.copy_(table.data.view_as(edit.values))
    ids = padded(vocab(source), "right").ids[:1]
    mask = torch.ones_like(ids)
    goal = torch.full_like(ids, -100)
    goal[:, :-1] = ids[:, 1:]
    out = source(Tokens(ids, mask.bool(), targets=goal), Input(edit), ALL)
    loss = F.cross_entropy(out.token_scores, out.targets)
    loss.backward()
    logits = theirs(input_ids=ids, attention_mask=mask).logits[:, -ids.shape[1] :]
    expected = F.cross_entropy(logits[0, :-1], ids[0, 1:])
    expected.backward()
    assert torch.allclose(out.token_scores, logits[0, :-1], atol=1e-5, rtol=1e-5)
    assert torch.allclose(loss, expected, atol=1e-6)
    assert torch.allclose(edit.values.grad.view_as(table.grad), table.grad, atol=1e-6, rtol=1e-4)


def test_a_prefix_on_bert_is_peft_s():
    model, tokenizer = tiny_language_model("bert_encoder")
    theirs = peft.get_peft_model(
        copy.deepcopy(model), peft.PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=5)
    ).eval()
    table = theirs.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        table.normal_()
    source = language_source(model, tokenizer)
    edit = prefix(source)
    edit.values.data.copy_(table.data.view_as(edit.values))
    tokens = padded(vocab(source), "right")
    ours = source(tokens, Input(edit), ALL).token_scores
    hidden = theirs(input_ids=tokens.ids, attention_mask=tokens.mask.long()).last_hidden_state
    assert torch.allclose(ours[tokens.mask], hidden[tokens.mask], atol=1e-5)


def test_a_prompt_goes_after_the_class_token_that_the_pooler_reads():
    """PEFT's pooler reads the first virtual token instead (spec, section 7, fact 2)."""
    model, tokenizer = tiny_language_model("bert_classifier")
    twin = copy.deepcopy(model)
    source = language_source(model, tokenizer)
    edit = soft(source)
    text = "the film was good"
    ours = source(Texts({"text": (text,)}), Input(edit)).scores
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    words = twin.get_input_embeddings()(ids)
    by_hand = torch.cat([words[:, :1], edit.tokens()[None], words[:, 1:]], 1)
    assert torch.allclose(ours, twin(inputs_embeds=by_hand).logits, atol=1e-6)


def test_all_learned_numbers_of_an_encoder_decoder_get_a_gradient():
    """PEFT makes twice as many for T5, half of which never get one (fact 3)."""
    source = tiny_text_source("t5")
    program = rp.build("prompt_tuning", source, None, tokens=4)
    program(*(getattr(padded(vocab(source), "right"), n) for n in ("ids", "mask"))).square().sum().backward()
    learned = [p for p in program.parameters() if p.requires_grad]
    assert sum(p.numel() for p in learned) == 4 * source.embeddings.shape[1]
    assert all(bool((p.grad.abs().sum(-1) > 0).all()) for p in learned)


@pytest.mark.parametrize("make", ["prompt", "prefix"])
@pytest.mark.parametrize("kind", CAUSAL)
def test_activation_checkpoints_give_the_same_gradients(kind, make):
    """PEFT's prefixes raise with gradient checkpointing (fact 6)."""
    grads = []
    for checkpoint in (False, True):
        model, tokenizer = tiny_language_model(kind)
        source = language_source(model, tokenizer, checkpoint=checkpoint)
        edit = soft(source) if make == "prompt" else prefix(source)
        tokens = padded(vocab(source), "left")
        source(tokens, Input(edit), ALL).token_scores[tokens.mask].square().mean().backward()
        grads.append(edit.values.grad)
    assert torch.allclose(*grads, atol=1e-6, rtol=1e-4)


def test_checkpointing_that_was_switched_on_before_is_kept():
    model, tokenizer = tiny_language_model("llama")
    model.activation_checkpointing_enable()
    source = language_source(model, tokenizer)
    saved = []
    edit = soft(source)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        source(padded(vocab(source), "right"), Input(edit))
    plain = []
    other = tiny_text_source("llama")
    with torch.autograd.graph.saved_tensors_hooks(lambda t: plain.append(t.numel()) or t, lambda t: t):
        other(padded(vocab(other), "right"), Input(soft(other)))
    assert len(saved) < len(plain) / 2


@pytest.mark.parametrize("kind", CAUSAL)
def test_a_prompt_run_once_is_the_prompt_in_every_row(kind):
    source = tiny_text_source(kind)
    tokens, results = padded(vocab(source), "left"), []
    for share in (True, False):
        source.shares = share
        edit = soft(source)
        out = said(source, tokens, edit)
        out.square().mean().backward()
        results.append((out, edit.values.grad))
    (ours, grad), (plain, expected) = results
    assert torch.allclose(ours, plain, atol=1e-5, rtol=1e-4)
    assert torch.allclose(grad, expected, atol=1e-6, rtol=1e-4)


def test_gradients_in_float64():
    """GPT-2 only: Llama's norms compute in float32 whatever the weights are."""
    model, tokenizer = tiny_language_model("gpt2", layers=1, width=16)
    source = language_source(model.double(), tokenizer)
    ids = padded(vocab(source), "left").ids[:2, -4:]
    mask = torch.tensor([[True] * 4, [False, True, True, True]])

    def scores(values):
        edit = soft(source, n=2).double()
        del edit.values
        edit.values = values
        return source(Tokens(ids, mask), Input(edit)).scores[:, :3]

    torch.manual_seed(0)
    assert torch.autograd.gradcheck(scores, torch.randn(2, 16, dtype=torch.float64, requires_grad=True), atol=1e-6)


@pytest.mark.parametrize("make", [None, "prompt", "prefix", "end"])
@pytest.mark.parametrize("kind", [*CAUSAL, "t5"])
def test_labels_of_several_tokens_in_one_pass(kind, make):
    """Against one plain pass a label."""
    source = tiny_text_source(kind)
    edits = {None: [], "prompt": [soft(source)], "prefix": [prefix(source)], "end": [soft(source, "end")]}[make]
    words = ((7,), (8, 9), (8, 10, 11), (12, 13, 14, 15))
    tokens = padded(vocab(source), "left")
    ours = source(tokens, Input(*edits), Reading(continuations=words)).continuations
    for column, word in enumerate(words):
        total = torch.zeros(3)
        for k in range(len(word)):
            if kind == "t5":
                texts = Reading(continuations=(word[: k + 1],))
                whole = source(tokens, Input(*edits), texts).continuations[:, 0]
                total = whole
                continue
            if make == "end":
                return  # what follows an end prompt cannot be written as a plain batch of tokens
            longer = torch.cat([tokens.ids, torch.tensor(word[:k], dtype=torch.int64).expand(3, -1)], 1)
            mask = torch.cat([tokens.mask, torch.ones(3, k, dtype=torch.bool)], 1)
            scores = source(Tokens(longer, mask), Input(*edits)).scores.log_softmax(-1)
            total = total + scores[:, word[k]]
        assert torch.allclose(ours[:, column], total, atol=2e-5, rtol=1e-4)


def test_labels_of_an_encoder_decoder_against_its_own_loss():
    model, tokenizer = tiny_language_model("t5")
    twin = copy.deepcopy(model)
    source = language_source(model, tokenizer)
    tokens = padded(vocab(source), "right")
    words = ((7, 8, 9), (10,))
    ours = source(tokens, Input(), Reading(continuations=words)).continuations
    for column, word in enumerate(words):
        goal = torch.tensor([word] * 3)
        logits = twin(input_ids=tokens.ids, attention_mask=tokens.mask.long(), labels=goal).logits
        expected = logits.log_softmax(-1).gather(2, goal[..., None]).sum((1, 2))
        assert torch.allclose(ours[:, column], expected, atol=1e-5)


@pytest.mark.parametrize("kind", CAUSAL)
def test_the_record_of_a_prompt_is_the_prompt(kind):
    """Compiled: the keys and values a prompt leaves, as a prefix, give the same scores."""
    source = tiny_text_source(kind)
    for edit in (soft(source), prefix(source)):
        made = Prefix(source.record(Input(edit)).detach())
        tokens = padded(vocab(source), "left")
        assert torch.allclose(said(source, tokens, edit), said(source, tokens, made), atol=1e-6)
    both = Input(prefix(source, 3), soft(source, n=2))
    made = Prefix(source.record(both).detach())
    tokens = padded(vocab(source), "right")
    assert torch.allclose(said(source, tokens, *both), said(source, tokens, made), atol=1e-6)
    with pytest.raises(CapabilityError, match="before all of a causal"):
        source.record(Input(soft(source, "end")))


def test_keys_and_values_of_a_text_stand_for_the_text():
    source = tiny_text_source("llama")
    ids = source.encode("the movie was")
    rest = torch.tensor([source.encode("very good fun")])
    ours = source(Tokens(rest, torch.ones_like(rest).bool()), Input(Prefix(source.keys_values("the movie was")))).scores
    whole = torch.tensor([ids])
    both = torch.cat([whole, rest], 1)
    assert torch.allclose(ours, source(Tokens(both, torch.ones_like(both).bool()), Input()).scores, atol=1e-5)


@pytest.mark.parametrize("make", ["none", "prompt", "prefix", "end", "both"])
@pytest.mark.parametrize("kind", CAUSAL)
def test_writing_with_a_cache_is_writing_without(kind, make):
    source = tiny_text_source(kind)
    edits = {"none": [], "prompt": [soft(source)], "prefix": [prefix(source)], "end": [soft(source, "end")],
             "both": [prefix(source, 2), soft(source, n=3)]}[make]  # fmt: skip
    texts = Texts({"text": ("the film was good", "bad", "it is a very long and boring story")})
    written = source.generate(texts, Input(*edits), max_new_tokens=6)
    if make == "end":
        return  # the place of the prompt moves with the text; only that it runs
    for text, ours in zip(texts.columns["text"], written, strict=True):
        ids = source.encode(text)
        ids = [*source.tokeniser.before, *ids]
        for _ in range(6):
            row = torch.tensor([ids])
            ids.append(int(source(Tokens(row, torch.ones_like(row).bool()), Input(*edits)).scores.argmax()))
            if ids[-1] == source.special.get("eos"):
                break
        start = len(source.tokeniser.before) + len(source.encode(text))
        assert ours == source.tokeniser.tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_an_encoder_decoder_writes_with_a_prompt():
    source = tiny_text_source("t5")
    texts = Texts({"text": ("the film was good", "bad")})
    torch.manual_seed(0)
    strong = SoftPrompt(10 * torch.randn(5, source.embeddings.shape[1]))
    assert len(source.generate(texts, Input(strong), max_new_tokens=4)) == 2


def test_places_that_a_template_reserves():
    source = tiny_text_source("gpt2")
    edit = soft(source, "slots", n=3)
    prompt = f"{chr(SLOT)}{chr(SLOT + 1)} good film {chr(SLOT + 2)}"
    ours = source(Texts({"prompt": (prompt,)}), Input(edit)).scores
    ids = torch.tensor([source.encode(" good film ")])
    words = source.embedded(ids)
    whole = torch.cat([edit.tokens()[None, :2], words, edit.tokens()[None, 2:]], 1)
    expected = source.module(inputs_embeds=whole).logits[:, -1]
    assert torch.allclose(ours, expected, atol=1e-5)
    with pytest.raises(DataError, match="at most 3"):
        source(Texts({"prompt": (f"{chr(SLOT + 3)} good",)}), Input(edit))
    with pytest.raises(DataError, match="soft"):
        source(Texts({"prompt": (prompt,)}), Input())
    with pytest.raises(DataError, match="soft"):
        source(Texts({"prompt": ("good",)}), Input(edit))


def test_answers_at_masks():
    source = tiny_text_source("bert")
    texts = Texts({"text": ("good film", "a very bad story")})
    first = source(texts, Input(Template("{text} is {mask} and {mask}")), ALL).token_scores
    assert first.shape[:2] == (2, 2)
    one = source(texts, Input(Template("{text} is {mask} and {mask}"))).scores
    assert torch.allclose(one, first[:, 0], atol=1e-5)
    ids = torch.tensor(
        [source.tokeniser.tokenizer(f"good film is {source.tokeniser.tokenizer.mask_token}")["input_ids"]]
    )
    plain = source.module(input_ids=ids).logits[0, ids[0] == source.special["mask"]]
    ours = source(Texts({"text": ("good film",)}), Input(Template("{text} is {mask}"))).scores
    assert torch.allclose(ours, plain, atol=1e-5)
    with pytest.raises(DataError, match="mask"):
        source(texts, Input(Template("{text} is")))
    causal = tiny_text_source("gpt2")
    by_mark = causal(texts, Input(Template("{text} is{mask} and"))).scores
    assert torch.allclose(by_mark, causal(texts, Input(Template("{text} is"))).scores, atol=1e-5)
    assert MASK not in causal.decode(causal.encode("a"))


def test_texts_that_are_too_long_lose_their_end_and_nothing_else(caplog):
    source = tiny_text_source("gpt2")
    room = source.context
    long = "good " * room
    template = Template("film {text} is")
    with caplog.at_level("WARNING"):
        tokens = source.tokens(Texts({"text": (long, long)}), Input(template, soft(source)))
    assert tokens.ids.shape[1] == room - 5
    assert source.decode(tokens.ids[0, -1:].tolist()).strip() == "is"
    assert source.decode(tokens.ids[0].tolist()).startswith("film good good")
    assert sum("too long" in r.message for r in caplog.records) == 1
    pair = Texts({"text": (long,), "text_pair": ("bad",)})
    tokens = source.tokens(pair, Input(Template("{text} and {text_pair} is")))
    assert "bad" in source.decode(tokens.ids[0].tolist())
    with pytest.raises(DataError, match="room"):
        source.tokens(Texts({"text": (long,)}), Input(Template("{text} is"), soft(source, n=room)))
    with pytest.raises(DataError, match="fit"):
        source(Tokens(torch.ones(1, room, dtype=torch.int64), torch.ones(1, room).bool()), Input(soft(source)))


def test_bad_batches_are_refused():
    source = tiny_text_source("gpt2")
    with pytest.raises(DataError, match="at least one token"):
        source(Texts({"text": ("",)}), Input())
    with pytest.raises(DataError, match="at least one token"):
        source(Tokens(torch.ones(1, 2, dtype=torch.int64), torch.zeros(1, 2).bool()), Input())
    with pytest.raises(DataError, match="texts"):
        source(torch.ones(1, 2, dtype=torch.int64), Input(Template("{text}")))
    with pytest.raises(CapabilityError, match="prefix"):
        source(padded(vocab(source), "right"), Input(Prefix(torch.zeros(2, 1, 2, 4, 8))))
    with pytest.raises(CapabilityError, match="several tokens"):
        tiny_text_source("bert").attach([], Reading(continuations=((1, 2),)))
    with pytest.raises(CapabilityError, match="tokenizer"):
        language_source(tiny_language_model("gpt2")[0]).encode("a")
    with pytest.raises(CapabilityError, match="hidden sites"):

        class Shift(Edit):
            site, operators = "hidden.0", frozenset({Operator.ADDITIVE})

            def forward(self, value):
                return value + 1

        source.generate(Texts({"text": ("a",)}), Input(Shift()))


def test_edits_at_hidden_sites_see_the_whole_sequence():
    class Shift(Edit):
        site, operators = "hidden.1", frozenset({Operator.ADDITIVE})

        def __init__(self):
            super().__init__()
            self.seen = []
            self.values = nn.Parameter(torch.ones(1))

        def forward(self, value):
            self.seen.append(tuple(value.shape))
            return value + self.values

    source = tiny_text_source("llama")
    edit, prompt = Shift(), soft(source)
    source.attach(["hidden.1"])
    tokens = padded(vocab(source), "right")
    out = said(source, tokens, edit, prompt)
    assert edit.seen == [(3, 15, source.embeddings.shape[1])]
    assert not torch.allclose(out, said(source, tokens, prompt), atol=1e-3)


@pytest.mark.parametrize("kind", ["gpt2", "bert", "t5"])
def test_a_source_of_text_promises_what_it_keeps(kind):
    source = tiny_text_source(kind)
    assert isinstance(source, TextSource)
    before = source.fingerprint()
    twin = source.randomised(1)
    assert twin.fingerprint() != before == source.fingerprint()
    assert twin.randomised(1).fingerprint() == source.randomised(1).fingerprint()
    assert not source.module.training
    source.module.train()
    source(padded(vocab(source), "right"), Input(), Reading(tokens=kind == "bert"))
    assert not source.module.training


def test_two_sources_of_one_model_do_not_disturb_each_other():
    model, tokenizer = tiny_language_model("gpt2")

    class Double(Edit):
        site, operators = "hidden.1", frozenset({Operator.ADDITIVE})

        def forward(self, value):
            return 2 * value

    alone = tiny_text_source("gpt2")
    alone.attach(["hidden.1"])
    first, second = language_source(model, tokenizer), language_source(model, tokenizer)
    tokens = padded(vocab(first), "left")
    for source in (first, second):
        source.attach(["hidden.1"])
    for source in (first, second):
        for edits in ([prefix(source)], [soft(source)], [Double()]):
            assert torch.allclose(said(source, tokens, *edits), said(alone, tokens, *edits), atol=1e-5)


def test_attention_that_cannot_be_replaced_has_no_prefix_sites():
    model, tokenizer = tiny_language_model("gpt2")
    model.set_attn_implementation("eager")
    twin = copy.deepcopy(model)
    source = language_source(model, tokenizer)
    assert "kv" not in source.sites
    tokens = padded(vocab(source), "left")
    edit = soft(source)
    assert torch.allclose(said(source, tokens, edit), said(language_source(twin), padded(vocab(source), "left"), edit))
    with pytest.raises(CapabilityError, match="site"):
        rp.Program([prefix(source)], source, Identity())


@pytest.mark.compile
@pytest.mark.parametrize("kind", CAUSAL)
def test_torch_compile_gives_the_same(kind):
    source, other = tiny_text_source(kind), tiny_text_source(kind)
    other.compile(backend="aot_eager")
    tokens = padded(vocab(source), "left")
    for make in (soft, prefix):
        grads = []
        for one in (source, other):
            edit = make(one)
            out = said(one, tokens, edit)
            out.square().mean().backward()
            grads.append((out, edit.values.grad))
        assert torch.allclose(grads[0][0], grads[1][0], atol=1e-5)
        assert torch.allclose(grads[0][1], grads[1][1], atol=1e-5)
