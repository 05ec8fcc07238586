"""Models of transformers that read pictures and text and write text, as sources of prompts.

texts with pictures -> edits at "input" -> the model's own chat form, its own processor (scaling, tiles, places for
pictures) -> `generate`. There are no sites inside: the input is all that can be changed.

Greedy texts of a batch are written together; drawn ones one at a time, so that a draw depends on the seed, the prompt,
the pictures and the sample's number alone.
"""

import hashlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, final

import torch
from torch import Tensor, nn

from reprogram.core.errors import CapabilityError, DataError, SourceError, say
from reprogram.core.program import Input
from reprogram.core.source import Capability, Reading, SourceOutput, SourceSpec
from reprogram.core.task import Sample
from reprogram.core.taxonomy import Location
from reprogram.core.texts import MASK, SEP, Batch, Texts
from reprogram.core.writing import PICTURE, Finish, Writing, Written, before_stop, turns
from reprogram.media.images import Samples, as_samples, to_picture
from reprogram.sources._describe import context_of, ends_of, parameters_of
from reprogram.sources._frozen import fingerprint, freeze
from reprogram.sources._rows import as_texts

ROWS = 8
"""Prompts in a forward pass."""

MERGED = 8
"""Tokens at the end of a prompt that a choice may change at most."""

UNREADABLE = "\ufffd"
"""Takes the place of text that the processor would read as a place for a picture."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """A prompt in the model's own form, and its pictures."""

    text: str
    pictures: tuple[Any, ...]


@final
class PictureSource:
    """A frozen model that reads pictures and text. Make one with `picture_source` or `load_source`."""

    def __init__(self, model: Any, processor: Any, spec: SourceSpec, *, context: int | None) -> None:
        self.module: nn.Module = freeze(model)
        self.processor = processor
        self.spec = spec
        self.kind = "causal"
        self._context = context
        self.sites: Mapping[str, Location] = MappingProxyType({"input": Location.INPUT})
        self.capabilities = frozenset({Capability.GENERATION, Capability.LOG_PROBABILITIES, Capability.PICTURES})

    # -- facts -----------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.module.parameters()).device

    @property
    def context(self) -> int | None:
        """Tokens it reads and writes at most, those of pictures included; None if there is no limit."""
        return self._context

    def count(self, text: str) -> int:
        """Tokens of a prompt; a place for a picture counts as one, which is far too few."""
        return len(self.processor.tokenizer(text.replace(PICTURE, "?"), add_special_tokens=False)["input_ids"])

    def rendered(self, prompt: str) -> str:
        """A prompt in the model's own form.

        Raises:
            CapabilityError: a chat for a model without a form for it.
        """
        return self._rendered(prompt)

    def fingerprint(self) -> str:
        """SHA-256 over the names, types, shapes and bytes of all parameters and buffers, 64 hex digits."""
        return fingerprint(self.module)

    def to(self, device: torch.device | str) -> "PictureSource":
        """Move the model (in place) and return the source. A quantised model stays where its loader put it."""
        if not getattr(self.module, "is_quantized", False):
            self.module.to(device)
        return self

    # -- running ---------------------------------------------------------------------------------------------------

    def attach(self, sites: Iterable[str], reading: Reading = Reading()) -> None:
        """Nothing has to be attached.

        Raises:
            CapabilityError: a site other than "input", or features or scores of tokens are to be read.
        """
        strange = [site for site in sites if site not in self.sites]
        if strange:
            raise CapabilityError(say("site", "must be input for a model of pictures and text", strange[0]))
        if reading.features or reading.tokens or reading.continuations:
            need = "must be a language model to give features or scores of tokens"
            raise CapabilityError(say("source", need, self.spec.ref))

    @contextmanager
    def editing(self, input: Input) -> Generator[None]:
        """There are no hidden sites."""
        yield

    def prepare(self, inputs: object, sample: Sample | None) -> Samples | Texts:
        """Pictures as image tensors of the sample's shape; texts where the task has columns.

        Raises:
            DataError: an input is neither.
        """
        if isinstance(inputs, Texts):
            return inputs
        return as_texts(inputs, sample.columns) if sample is not None and sample.columns else as_samples(inputs, sample)

    @torch.no_grad()
    def __call__(self, x: Batch, input: Input, reading: Reading = Reading()) -> SourceOutput:
        """`f(I(x))`: texts that go on from the prompts, or log-probabilities of choices.

        Raises:
            DataError: the edits make no texts of the batch, a prompt has another number of places than pictures, or is
                too long.
            CapabilityError: neither texts nor choices are to be read, or a grammar is to be kept.
        """
        if self.module.training:
            self.module.eval()
        texts = input(x, "input")
        if not isinstance(texts, Texts):
            remedy = "Put the pictures into prompts first (inputs.Showing)."
            raise DataError(say("x", "must become texts with pictures", type(texts).__name__, remedy))
        rows = [self._row(texts, i) for i in range(len(texts))]
        if reading.writing is not None:
            return SourceOutput(written=self._write(rows, reading.writing))
        if not reading.choices:
            raise CapabilityError(say("reading", "must ask for writing or choices", reading))
        scored = [self._score(row, reading.choices) for row in rows]
        return SourceOutput(
            choices=torch.stack([s for s, _ in scored]), choice_tokens=torch.stack([n for _, n in scored])
        )

    # -- prompts ---------------------------------------------------------------------------------------------------

    def _row(self, texts: Texts, number: int) -> _Row:
        prompt = texts.prompts[number]
        pictures = texts.pictures[number] if texts.pictures is not None else ()
        if prompt.count(PICTURE) != len(pictures):
            got = f"{len(pictures)} pictures for {prompt.count(PICTURE)} places"
            raise DataError(say(f"row {number}", "must have a picture for each place in its prompt", got))
        return _Row(self._rendered(prompt), tuple(to_picture(picture) for picture in pictures))

    def _rendered(self, prompt: str) -> str:
        sign = getattr(self.processor, "image_token", None)
        prompt = prompt.replace(MASK, "").replace(SEP, "\n")
        prompt = prompt.replace(sign, UNREADABLE) if sign else prompt
        said = turns(prompt)
        if said[0][0] == "":
            if PICTURE in prompt and not sign:
                remedy = "Ask in a chat."
                raise CapabilityError(say("source", "must say how plain prompts hold pictures", self.spec.ref, remedy))
            return prompt.replace(PICTURE, sign or "")
        if not getattr(self.processor, "chat_template", None):
            raise CapabilityError(say("processor", "must have a chat template", type(self.processor).__name__))
        begun = said[-1][1] if said[-1][0] == "assistant" else ""
        past = said[:-1] if said[-1][0] == "assistant" else said
        messages = [{"role": role, "content": _content(text)} for role, text in past]
        return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + begun

    def _inputs(self, rows: Sequence[_Row], side: str, room: int) -> Any:
        """What the model reads: token ids with places for pictures, and pixels."""
        pictures = [list(row.pictures) for row in rows]
        bos = self.processor.tokenizer.bos_token
        chat = bos is not None and all(row.text.startswith(bos) for row in rows)
        made = self.processor(
            text=[row.text for row in rows], images=pictures if any(pictures) else None, return_tensors="pt",
            padding=True, padding_side=side, add_special_tokens=not chat,
        )  # fmt: skip
        longest = made["input_ids"].shape[1] + room
        if self._context is not None and longest > self._context:
            remedy = "Show fewer or smaller pictures, or write less."
            raise DataError(say("prompt", f"must fit into {self._context} tokens with its pictures", longest, remedy))
        kind = next(self.module.parameters()).dtype
        return made.to(self.device, kind if kind.is_floating_point else None)

    # -- writing ---------------------------------------------------------------------------------------------------

    def _write(self, rows: list[_Row], writing: Writing) -> tuple[tuple[Written, ...], ...]:
        if writing.grammar is not None:
            raise CapabilityError(say("source", "must be a language model to keep a grammar", self.spec.ref))
        found: dict[int, tuple[Written, ...]] = {}
        if writing.temperature > 0:
            for i, row in enumerate(rows):
                found[i] = tuple(self._drawn(row, writing, sample) for sample in range(writing.samples))
            return tuple(found[i] for i in range(len(rows)))
        for numbers in _alike(rows):
            for start in range(0, len(numbers), ROWS):
                part = numbers[start : start + ROWS]
                texts = self._generated([rows[i] for i in part], writing, do_sample=False)
                found |= {i: (text,) for i, text in zip(part, texts, strict=True)}
        return tuple(found[i] for i in range(len(rows)))

    def _drawn(self, row: _Row, writing: Writing, sample: int) -> Written:
        pixels = b"".join(hashlib.sha256(p.tobytes()).digest() for p in row.pictures)
        key = hashlib.sha256(repr((writing.seed, sample, row.text)).encode() + pixels).digest()
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int.from_bytes(key[:7], "big"))
            return self._generated(
                [row], writing, do_sample=True, temperature=writing.temperature, top_p=writing.top_p,
                top_k=writing.top_k,
            )[0]  # fmt: skip

    def _generated(self, rows: Sequence[_Row], writing: Writing, **how: Any) -> list[Written]:
        inputs = self._inputs(rows, "left", writing.tokens)
        tokenizer, model = self.processor.tokenizer, self.module
        start = inputs["input_ids"].shape[1]
        stopped = _Stops(tokenizer, writing.stop, start)
        how = {"temperature": None, "top_p": None, "top_k": None, "num_beams": 1} | how
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        ids = model.generate(  # pyright: ignore[reportCallIssue]
            **inputs, max_new_tokens=writing.tokens, min_new_tokens=None, stopping_criteria=[stopped],
            pad_token_id=pad, **how,
        )  # fmt: skip
        ends = ends_of(model, tokenizer.eos_token_id)
        return [_written(tokenizer, row[start:].tolist(), ends, writing) for row in ids]

    # -- scoring ---------------------------------------------------------------------------------------------------

    def _score(self, row: _Row, choices: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Log-probability and number of tokens of each choice; prompt and choice are tokenised together."""
        alone: list[int] = self._inputs([row], "right", 0)["input_ids"][0].tolist()
        sums, counts = list[Tensor](), list[int]()
        for start in range(0, len(choices), ROWS):
            several = [_Row(row.text + choice, row.pictures) for choice in choices[start : start + ROWS]]
            inputs = self._inputs(several, "right", 0)
            logits, skipped = self._logits(inputs, len(alone))
            for ids, mask, scores in zip(inputs["input_ids"], inputs["attention_mask"], logits, strict=True):
                whole = ids[mask.bool()]
                base = next((i for i, (a, b) in enumerate(zip(alone, whole.tolist(), strict=False)) if a != b),
                            min(len(alone), len(whole)))  # fmt: skip
                if base == len(whole) or base <= skipped:
                    raise DataError(say("choice", "must have at least one token of its own", list(choices)))
                said = scores[base - 1 - skipped : len(whole) - 1 - skipped].log_softmax(-1)
                sums.append(said.gather(1, whole[base:, None]).sum().cpu())
                counts.append(len(whole) - base)
        return torch.stack(sums), torch.tensor(counts)

    def _logits(self, inputs: Any, alone: int) -> tuple[Tensor, int]:
        """Logits after the prompt, and how many places before them were left out.

        Where the end of the prompt is another token before a choice than it is alone, up to MERGED tokens of it count.
        """
        total = inputs["input_ids"].shape[1]
        keep = min(total, total - alone + 1 + MERGED)
        if "logits_to_keep" not in parameters_of(self.module):
            return self.module(**inputs).logits.float(), 0
        return self.module(**inputs, logits_to_keep=keep).logits.float(), total - keep


def picture_source(model: Any, processor: Any, *, ref: str | None = None) -> PictureSource:
    """A model of transformers that reads pictures and text, in memory, as a source.

    Args:
        model: such as a `LlavaForConditionalGeneration`; frozen and switched to eval mode, in place.
        processor: its own, with a tokenizer and an image processor.
        ref: how to load it again.

    Raises:
        SourceError: the model does not write, or the processor is a bare tokenizer.
    """
    if not callable(getattr(model, "generate", None)) or not hasattr(model, "config"):
        raise SourceError(say("model", "must be one of transformers that writes", type(model).__name__))
    if getattr(processor, "tokenizer", None) is None or getattr(processor, "image_processor", None) is None:
        need = "must have a tokenizer and an image processor"
        raise SourceError(say("processor", need, type(processor).__name__))
    config = model.config.get_text_config()
    context = context_of(config, processor.tokenizer)
    spec = SourceSpec(
        ref=ref or f"module:{type(model).__name__}", modality="text", input_shape=(context or 0,),
        outputs=int(config.vocab_size), width=getattr(config, "hidden_size", None),
    )  # fmt: skip
    return PictureSource(model, processor, spec, context=context)


@final
class _Stops:
    """Tells `generate` which rows have come to a stop text."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], start: int) -> None:
        self._tokenizer, self._stop, self._start = tokenizer, stop, start

    def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        found = [any(s in _decoded(self._tokenizer, row[self._start :].tolist()) for s in self._stop)
                 for row in ids]  # fmt: skip
        return torch.tensor(found, device=ids.device)


def _content(text: str) -> list[dict[str, str]]:
    """Parts of a message: texts, and places for pictures."""
    parts: list[dict[str, str]] = []
    for number, piece in enumerate(text.split(PICTURE)):
        parts += [{"type": "image"}] if number else []
        parts += [{"type": "text", "text": piece}] if piece else []
    return parts


def _alike(rows: Sequence[_Row]) -> list[list[int]]:
    """Numbers of the rows, those with as many pictures together."""
    groups: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(len(row.pictures), []).append(number)
    return list(groups.values())


def _written(tokenizer: Any, ids: list[int], ends: frozenset[int], writing: Writing) -> Written:
    """A text up to its end token or a stop text."""
    finish: Finish = "length"
    place = next((i for i, token in enumerate(ids) if token in ends), None)
    if place is not None:
        ids, finish = ids[:place], "stop"
    text, cut = before_stop(_decoded(tokenizer, ids), writing.stop)
    return Written(text=text, tokens=len(ids) + (place is not None), finish="stop" if cut else finish)


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
