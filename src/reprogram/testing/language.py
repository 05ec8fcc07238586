"""Tiny language models with random weights and their tokenizers, built in code: real classes, no downloads.

Their traps are the real ones': dropout that must be off, GPT-2 without a padding token, Llama with fewer key than query
heads and a token that its tokenizer puts first, T5 with an odd score scale, RoBERTa with positions that start at 2.
"""

import random
from collections.abc import Sequence
from string import ascii_lowercase, digits
from typing import Any, Literal

import torch

from reprogram.sources import LanguageSource, language_source
from reprogram.sources.transformers_load import tokenizers, transformers
from reprogram.tasks import Task

TinyKind = Literal["gpt2", "llama", "bert", "bert_encoder", "bert_classifier", "roberta", "t5", "vit"]

_LIST = """
a about all an and answer are as at awful bad be because best big bit book boring bright bring business but by can
case class cold come could dark day demonstrate did do does dull each easy entailment even every fair far fast film
find fine first for from fun funny game get give go good great had happy hard has have he her here his hot how i if in
into is it its just kind know language last less life like little long look love low make many may me means mixed
model more most movie much must my name negative neutral never new news next no not now number of old on one only or
other our out over own part people place play plot poor positive prompt put question rather read red sad said same say
science see sentence sentiment she should slow small smart so some sound sports story such summary tech tell terrible
text than that the their them then there these they thing think this time to too topic true two under up us use very
was way we well were what when where which who why will with word work world worst would write wrong year yes you your
"""

WORDS = tuple(_LIST.split())
"""Words that are one token each (GPT-2, Llama, RoBERTa and T5: after a space); all others are spelled out."""

MARKS = ".,:;!?'\"-()"


def tiny_language_model(
    kind: TinyKind, seed: int = 0, *, vocab: int | None = None, width: int = 32, layers: int = 2
) -> tuple[Any, Any]:
    """A transformers model with random weights, in eval mode, and its fast tokenizer (None for "vit").

    Args:
        kind: "gpt2" and "llama" (4 query heads, 2 key and value heads) are causal; "bert" and "roberta" are masked
            language models; "bert_encoder" has no head, "bert_classifier" one for 3 classes; "t5" is an encoder and
            decoder; "vit" classifies pictures of 16 x 16 pixels into 6.
        seed: of the weights, whose scale is such that scores vary with the input.
        vocab: rows of the embedding table, at least as many as the tokenizer has tokens; None for exactly as many.
        width: d, a multiple of 4.
        layers: blocks (of each part, for "t5").

    Raises:
        ValueError: `vocab` is smaller than the tokenizer's vocabulary.
        MissingExtraError: the extra "text" is not installed.
    """
    tokenizer = None if kind == "vit" else tiny_tokenizer(kind)
    known = 0 if tokenizer is None else len(tokenizer)
    if vocab is not None and vocab < known:
        msg = f"vocab must be at least {known}, the number of tokens of the tokenizer, got {vocab}"
        raise ValueError(msg)
    library, (name, settings) = transformers(), _settings(kind, tokenizer, width, layers)
    shared: dict[str, Any] = {} if tokenizer is None else {"vocab_size": vocab or known}
    if kind != "t5":  # which has scales of its own for every layer
        shared["initializer_range"] = 0.3
    model_class = getattr(library, name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(model_class.config_class(**shared | settings))
    return model.eval(), tokenizer


def tiny_text_source(kind: TinyKind = "gpt2", seed: int = 0, **options: Any) -> LanguageSource:
    """A frozen tiny language model as a source.

    Args:
        kind: one that reads text, see `tiny_language_model`.
        seed: of the weights.
        options: `vocab`, `width` and `layers` of the model; the others are of `language_source`.

    Raises:
        ValueError: the kind reads pictures.
    """
    if kind == "vit":
        msg = "kind must be one that reads text, got vit"
        raise ValueError(msg)
    own = {name: options.pop(name) for name in ("vocab", "width", "layers") if name in options}
    model, tokenizer = tiny_language_model(kind, seed, **own)
    return language_source(model, tokenizer, **{"ref": f"module:tiny-{kind}", **options})


def tiny_text_task(*, per_class: int = 16, pairs: bool = False, generates: bool = False, seed: int = 0) -> Task:
    """Short sentences of 3 classes ("bad", "good", "fun"), each with two of five words that its class prefers.

    Args:
        per_class: sentences of each class.
        pairs: two columns, the second of which says something else.
        generates: no classes; after each sentence its words are to be written backwards.
        seed: of the words.
    """
    draw = random.Random(seed)
    kinds = {"bad": ("awful", "boring", "terrible", "sad", "poor"), "good": ("great", "happy", "fine", "best", "smart"),
             "fun": ("game", "film", "play", "bright", "hot")}  # fmt: skip
    rest = ("the", "a", "it", "was", "is", "and", "very", "not", "my", "this")
    texts, labels = list[str](), list[str]()
    for i in range(3 * per_class):
        label = list(kinds)[i % 3]
        words = [*draw.sample(kinds[label], 2), *draw.choices(rest, k=draw.randint(1, 6))]
        draw.shuffle(words)
        texts.append(" ".join(words))
        labels.append(label)
    if generates:
        return Task.from_texts(texts, targets=[" ".join(reversed(t.split())) for t in texts], name="tiny-backwards")
    given = [(t, draw.choice(rest)) for t in texts] if pairs else texts
    return Task.from_texts(given, labels, classes=tuple(kinds), name="tiny-texts")


def tiny_tokenizer(kind: TinyKind) -> Any:
    """A fast tokenizer of the kind's family, with the special tokens and the post-processing that family has.

    Every text can be written in it: `WORDS` are tokens, other words are spelled by bytes or letters.
    """
    build = {"gpt2": _gpt2, "llama": _llama, "roberta": _roberta, "t5": _t5}.get(kind, _bert)
    made, special = build(tokenizers())
    names = ["input_ids", "token_type_ids", "attention_mask"] if build is _bert else ["input_ids", "attention_mask"]
    return transformers().PreTrainedTokenizerFast(
        tokenizer_object=made, model_input_names=names, model_max_length=128, **special
    )


# -- configurations ----------------------------------------------------------------------------------------------------


def _settings(kind: TinyKind, tokenizer: Any, width: int, layers: int) -> tuple[str, dict[str, Any]]:
    """The model's class and its configuration."""
    plain = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 4,
             "intermediate_size": 2 * width}  # fmt: skip
    drop = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    if kind == "vit":
        names = {i: f"thing {i}" for i in range(6)}
        return "ViTForImageClassification", plain | drop | {
            "image_size": 16, "patch_size": 4, "id2label": names,
            "label2id": {name: i for i, name in names.items()},
        }  # fmt: skip
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "pad")}
    if kind == "gpt2":
        rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.1)
        return "GPT2LMHeadModel", ids | rates | {"n_embd": width, "n_layer": layers, "n_head": 4, "n_positions": 128}
    if kind == "llama":
        return "LlamaForCausalLM", ids | plain | {
            "num_key_value_heads": 2, "attention_dropout": 0.1, "max_position_embeddings": 128,
        }  # fmt: skip
    if kind == "t5":
        return "T5ForConditionalGeneration", ids | {
            "d_model": width, "d_kv": width // 4, "d_ff": 2 * width, "num_layers": layers, "num_heads": 4,
            "dropout_rate": 0.1, "decoder_start_token_id": tokenizer.pad_token_id,
        }  # fmt: skip
    if kind == "roberta":  # two positions are taken by its way of counting, as in the real one
        return "RobertaForMaskedLM", ids | plain | drop | {"max_position_embeddings": 130, "type_vocab_size": 1}
    classes = {
        "bert": "BertForMaskedLM",
        "bert_encoder": "BertModel",
        "bert_classifier": "BertForSequenceClassification",
    }
    return classes[kind], ids | plain | drop | {"max_position_embeddings": 128, "num_labels": 3}


# -- tokenizers --------------------------------------------------------------------------------------------------------


def _bytes(library: Any, special: Sequence[str]) -> Any:
    """A byte-level BPE whose merges spell each of `WORDS`, after a space, from its first letter on."""
    alphabet = sorted(library.pre_tokenizers.ByteLevel.alphabet())
    vocabulary, merges = [*special, *alphabet], dict[tuple[str, str], None]()
    for word in WORDS:
        for end in range(len(word)):
            merges[f"Ġ{word[:end]}", word[end]] = None
    vocabulary += list(dict.fromkeys(left + right for left, right in merges))
    ids = {token: i for i, token in enumerate(vocabulary)}
    made = library.Tokenizer(library.models.BPE(vocab=ids, merges=list(merges)))
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = library.decoders.ByteLevel()
    made.post_processor = library.processors.ByteLevel(trim_offsets=False)
    return made


def _around(library: Any, made: Any, single: str, pair: str) -> None:
    """Have the tokenizer put special tokens around its texts, by the library's own notation."""
    names = {part.split(":")[0] for part in f"{single} {pair}".split() if not part.startswith("$")}
    made.post_processor = library.processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(name, made.token_to_id(name)) for name in sorted(names)]
    )


def _gpt2(library: Any) -> tuple[Any, dict[str, str]]:
    end = "<|endoftext|>"
    return _bytes(library, [end]), {"bos_token": end, "eos_token": end, "unk_token": end}


def _llama(library: Any) -> tuple[Any, dict[str, str]]:
    made = _bytes(library, ["<unk>", "<s>", "</s>"])
    _around(library, made, "<s> $A", "<s> $A <s> $B:1")
    return made, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def _roberta(library: Any) -> tuple[Any, dict[str, str]]:
    made = _bytes(library, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    _around(library, made, "<s> $A </s>", "<s> $A </s> </s> $B </s>")
    return made, {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>",
                  "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}  # fmt: skip


def _bert(library: Any) -> tuple[Any, dict[str, str]]:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = ascii_lowercase + digits
    pieces = [*special, *MARKS, *letters, *(f"##{c}" for c in letters), *(w for w in WORDS if len(w) > 1)]
    ids = {token: i for i, token in enumerate(pieces)}
    made = library.Tokenizer(library.models.WordPiece(ids, unk_token="[UNK]"))
    made.normalizer = library.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    made.decoder = library.decoders.WordPiece()
    _around(library, made, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    return made, {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]",
                  "mask_token": "[MASK]"}  # fmt: skip


def _t5(library: Any) -> tuple[Any, dict[str, str]]:
    letters = ascii_lowercase + ascii_lowercase.upper() + digits + MARKS
    scores = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    scores += [(f"▁{word}", -2.0) for word in WORDS] + [(letter, -6.0) for letter in letters]
    made = library.Tokenizer(library.models.Unigram(scores, unk_id=2))
    made.pre_tokenizer = library.pre_tokenizers.Metaspace()
    made.decoder = library.decoders.Metaspace()
    _around(library, made, "$A </s>", "$A </s> $B </s>")
    return made, {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
