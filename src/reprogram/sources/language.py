"""Language models and text encoders as frozen sources.

Value flow: texts -> edits at "input" (a template) -> token ids -> their embeddings -> edits at "embedding" -> the
blocks, whose inputs are "hidden.i" and before whose keys and values those at "kv.i" go -> scores at the places wanted.

Three rules keep the frozen model's work to the minimum. A learned prompt at the start of a causal model does not depend
on the input: it is run once for the batch, and every row reads the keys and values it left. The head is evaluated only
at the places whose scores are read. Labels of several tokens share one pass over the input.

Positions come from the mask, so padding on either side gives the same scores; learned tokens go next to the content,
after a class token where there is one, so that poolers read what they always read.
"""

import copy
from collections.abc import Generator, Iterable, Mapping
from collections.abc import Sequence as Many
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from reprogram.core.errors import CapabilityError, DataError, SourceError, say
from reprogram.core.inserting import ByRow, Continued, Inserting, Prefixing, Weighted
from reprogram.core.program import Input
from reprogram.core.source import Capability, Reading, SourceOutput, SourceSpec
from reprogram.core.task import Sample
from reprogram.core.taxonomy import Location
from reprogram.core.texts import Batch, Texts, Tokens
from reprogram.sources._answers import Question, answer
from reprogram.sources._before import Before, behind, gathered, prefixes_of, stacked
from reprogram.sources._describe import (
    UNBOUNDED,
    Kind,
    body_of,
    context_of,
    ends_of,
    kind_of,
    parameters_of,
    position_offset,
    shape_of,
)
from reprogram.sources._frozen import checkpoint_blocks, fingerprint, freeze, longest_list
from reprogram.sources._prompts import asked, rendered
from reprogram.sources._quantised import keep_gradients
from reprogram.sources._rows import as_texts, joined_rows, repeated
from reprogram.sources._scoring import BUDGET, check_positions, score
from reprogram.sources._sequence import Sequence, fill, flush, insert, positions
from reprogram.sources._shared import Starts
from reprogram.sources._tokenising import Tokeniser
from reprogram.sources._wiring import LanguageCall, Wiring
from reprogram.sources._writing import write


@final
class LanguageSource:
    """A frozen model of transformers that reads text. Make one with `load_source`, `wrap` or `language_source`."""

    def __init__(  # noqa: PLR0913 - `language_source` works most of them out
        self,
        model: Any,
        tokeniser: Tokeniser | None,
        spec: SourceSpec,
        kind: Kind,
        *,
        pooling: str,
        blocks: Many[str],
        checkpoint: bool = False,
    ) -> None:
        self.module: nn.Module = freeze(model)
        self.kind: str = kind
        self.pooling = pooling
        self._tokeniser = tokeniser
        self._block_paths = tuple(blocks)
        self._wiring = Wiring.of(model, kind, self._block_paths)
        self._slot, self._hooks, self._body = self._wiring.slot, self._wiring.hooks, self._wiring.body
        self.gathers = self._body is not model
        self.reads_left = any(getattr(m, "is_causal", False) for b in blocks for m in model.get_submodule(b).modules())
        self.prefixes = self._wiring.prefixes
        self.blocks, self.heads, self.head_width = shape_of(model, len(self._block_paths))
        self.spec = replace(spec, depth=self.blocks)
        self.capabilities = self._can()
        self.sites: Mapping[str, Location] = MappingProxyType(self._all_sites())
        self._takes = parameters_of(self._body)
        self.offset = position_offset(self._body)
        window: int | None = getattr(model.config, "sliding_window", None)
        placed = self.prefixes and "position_ids" in self._takes and (window is None or window >= (self.context or 0))
        self.shares = kind == "causal" and placed and not checkpoint
        self._compiled: Any = None
        self.takes_positions = "position_ids" in self._takes
        self.ends = ends_of(model, self.special.get("eos"))
        self.starts = Starts()
        self._memory: WeakKeyDictionary[Input, tuple[object, Before]] = WeakKeyDictionary()
        self._recomputes = checkpoint
        if checkpoint:
            checkpoint_blocks(self.module, self._block_paths)

    def _can(self) -> frozenset[Capability]:
        can = {Capability.GRADIENTS, Capability.HIDDEN_SITES, Capability.FEATURES, Capability.TOKEN_INSERTION}
        if self.kind in ("causal", "seq2seq"):
            can |= {Capability.GENERATION, Capability.LOG_PROBABILITIES}
        return frozenset(can)

    def _all_sites(self) -> dict[str, Location]:
        sites = {"input": Location.INPUT, "embedding": Location.EMBEDDING}
        if self.prefixes:
            sites |= {"kv": Location.HIDDEN} | {f"kv.{i}": Location.HIDDEN for i in range(self.blocks)}
        return sites | dict(self._hooks.sites)

    # -- facts -----------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.module.parameters()).device

    @property
    def tokeniser(self) -> Tokeniser:
        """Its tokenizer, for prompts.

        Raises:
            CapabilityError: the model was wrapped without one.
        """
        if self._tokeniser is None:
            raise CapabilityError(say("tokenizer", "must be given to wrap() to work on texts", None))
        return self._tokeniser

    @property
    def embeddings(self) -> Tensor:
        """The frozen table [vocabulary, d]."""
        return self._embed().weight  # pyright: ignore[reportReturnType]

    @property
    def head_table(self) -> Tensor | None:
        """The frozen table [vocabulary, d] of the head, where scores are products with it."""
        weight = getattr(self._wiring.head, "weight", None)
        return weight if isinstance(weight, Tensor) and weight.shape[0] == self.spec.outputs else None

    @property
    def special(self) -> Mapping[str, int]:
        """Ids of special tokens."""
        return self.tokeniser.special if self._tokeniser is not None else {}

    def fingerprint(self) -> str:
        """SHA-256 over the names, types, shapes and bytes of all parameters and buffers, 64 hex digits."""
        return fingerprint(self.module)

    def to(self, device: torch.device | str) -> "LanguageSource":
        """Move the model (in place) and return the source. A quantised model stays where its loader put it."""
        if not getattr(self.module, "is_quantized", False) and torch.device(device) != self.device:
            self.module.to(device)
            self.starts = Starts()
        return self

    def encode(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        return self.tokeniser.encode(text)

    def decode(self, ids: Many[int]) -> str:
        """Their text."""
        return self.tokeniser.tokenizer.decode(list(ids))

    # -- running ---------------------------------------------------------------------------------------------------

    def attach(self, sites: Iterable[str], reading: Reading = Reading()) -> None:
        """Set the hooks of hidden sites, once.

        Raises:
            CapabilityError: a site is unknown, or continuations are wanted of a model that does not write.
        """
        if reading.texts or reading.local:
            raise CapabilityError(say("source", "must compare pictures with texts to read class texts", self.spec.ref))
        for site in sites:
            if site not in self.sites:
                raise CapabilityError(say("site", "must be one of `source.sites`", site))
            if not _by_source(site):
                self._hooks.attach(site)
        if reading.choices and self.kind != "seq2seq":
            check_positions(self)
        if reading.writing is not None and Capability.GENERATION not in self.capabilities:
            raise CapabilityError(say("source", "must be able to write", f"{self.spec.ref} ({self.kind})"))
        if reading.continuations and self.kind not in ("causal", "seq2seq"):
            remedy = "Use label words of one token, or a learned verbalizer."
            got = f"{self.spec.ref} ({self.kind})"
            raise CapabilityError(say("source", "must write text to score labels of several tokens", got, remedy))

    @contextmanager
    def editing(self, input: Input) -> Generator[None]:
        """Bind an input's hidden edits in this thread, for code that calls `source.module` itself."""
        with self._slot.bind(LanguageCall(prefix={}, input=input)):
            yield

    def prepare(self, inputs: object, sample: Sample | None) -> Texts:
        """Texts, or rows with the task's columns, as a batch.

        Raises:
            DataError: an input is neither.
        """
        return as_texts(inputs, sample.columns if sample is not None and sample.columns else ("text",))

    def __call__(self, x: Batch, input: Input, reading: Reading = Reading()) -> SourceOutput:
        """`f(I(x))` for texts, or for token ids [B, tokens]."""
        if self.module.training:
            self.module.eval()
        if isinstance(x, Texts) and reading.writing is not None:
            return SourceOutput(written=write(self, input(x, "input"), input, reading.writing))
        if isinstance(x, Texts) and reading.choices:
            return self._chosen(input(x, "input"), input, reading.choices)
        tokens = self.tokens(x, input)
        before = self.before(input)
        variants, sequence = self.assemble(tokens, input, before)
        if variants > 1:
            tokens = repeated(tokens, variants)
        return self._answer(tokens, sequence, before, input, reading, x)

    def score(self, prompts: Many[str], choices: Many[Many[str]], *, memory: int = BUDGET) -> list[Tensor]:
        """Log-probability of each choice after its prompt, in nats, summed over the choice's tokens.

        Prompt and choice are tokenised together; whatever prompts or choices share is run once.

        Args:
            prompts: N texts.
            choices: for each, the texts that may follow, with their leading space if they have one.
            memory: bytes that the rows of one pass may take, by an estimate from above.

        Returns:
            N tensors [choices of the prompt], float64.

        Raises:
            CapabilityError: the source is not a causal model whose layers can be given keys, values and positions.
            DataError: the numbers of prompts and choices differ, a choice has no token, or a prompt is too long.

        Example:
            source.score(["The sky is"], [[" blue", " green"]])
        """
        if len(prompts) != len(choices):
            raise DataError(say("choices", f"must be a list for each of {len(prompts)} prompts", len(choices)))
        if not prompts:
            return []
        check_positions(self)
        texts = Texts({"prompt": tuple(prompts)})
        return score(self, asked(self.tokeniser, texts, choices, 0, self.context), Input(), budget=memory)[0]

    def _chosen(self, x: Texts, input: Input, choices: tuple[str, ...]) -> SourceOutput:
        """Log-probabilities of the same choices after every prompt."""
        if self.kind == "seq2seq":
            ids = tuple(tuple(self.encode(c)) for c in choices)
            said = self(x, Input(*(e for e in input if e.site != "input")), Reading(continuations=ids))
            tokens = torch.tensor([len(c) for c in ids], device=self.device).expand(len(x), -1)
            return SourceOutput(choices=said.continuations, choice_tokens=tokens)
        check_positions(self)
        begin = not any(isinstance(e, Continued) for e in input)
        prompts = asked(self.tokeniser, x, [choices] * len(x), self.room(input), self.context, begin=begin)
        totals, lengths = score(self, prompts, input)
        return SourceOutput(
            choices=torch.stack(totals).to(self.device), choice_tokens=torch.stack(lengths).to(self.device)
        )

    def count(self, text: str) -> int:
        """How many tokens a prompt is, special ones with it."""
        whole, chat = rendered(self.tokeniser, text)
        return len(self.encode(whole)) + (0 if chat else len(self.tokeniser.before) + len(self.tokeniser.after))

    def rendered(self, prompt: str) -> str:
        """A prompt as the model reads it, a chat in the tokenizer's own form."""
        return rendered(self.tokeniser, prompt)[0]

    @torch.no_grad()
    def mixed(self, x: Batch, inputs: Many[Input], rows: Tensor, reading: Reading) -> SourceOutput:
        """`f(I_r(x_r))` for every row: prompts and prefixes gathered by row, whatever their lengths.

        Args:
            x: B texts, or token ids.
            inputs: I of every program.
            rows: [B], the number of each row's input.
            reading: what is wanted of all of them.

        Raises:
            CapabilityError: an input does more than put learned tokens, keys and values before the text.
        """
        numbers: list[int] = rows.tolist()
        used = sorted(set(numbers))
        new = torch.tensor([used.index(n) for n in numbers], device=self.device)
        if isinstance(x, Texts):
            x = joined_rows([(i, inputs[n](x[[i]], "input")) for i, n in enumerate(numbers)])
        tokens = self.tokens(x, Input())
        before = gathered([self._kept(inputs[n]) for n in used], new)
        longest = tokens.ids.shape[1] + before.length
        if self.context is not None and longest > self.context:
            raise DataError(say("input_ids", f"must fit into {self.context} tokens with the prompt", longest))
        _, sequence = self.assemble(tokens, Input(), None)
        return self._answer(tokens, sequence, before, Input(), reading, x)

    def _kept(self, input: Input) -> Before:
        """What stands before the text, computed once for each state of an input's numbers."""
        if any(e.site not in ("input", "embedding") and not e.site.startswith("kv") for e in input) or (
            input.at("embedding") and self._shared(input) is None
        ):
            need = "must put its learned tokens before the text of a causal model to share a batch with others"
            raise CapabilityError(say("program", need, [f"{type(e).__name__} at {e.site}" for e in input]))
        if any(isinstance(e, Weighted) and e.log_weight != 0 for e in input):
            need = "must not weigh its keys to share a batch with others"
            raise CapabilityError(say("program", need, "weighed keys", "Run it on its own."))
        state = tuple((id(p), p._version) for p in input.state_dict(keep_vars=True).values())
        found = self._memory.get(input)
        if found is None or found[0] != state:
            before = self.before(input)
            found = (state, before if before is not None else Before({}, 0, 0))
            self._memory[input] = found
        return found[1]

    def record(self, input: Input) -> Tensor:
        """What attention keeps of an input's prefixes and start prompt: [n, layers, 2, heads, head width].

        Raises:
            CapabilityError: the model is not causal, or the input has edits that are not of these two kinds.
        """
        fits = self.shares and all(_by_source(e.site) for e in input)
        if not fits or (input.at("embedding") and self._shared(input) is None):
            remedy = "Prompts inside or after the text, and edits at hidden sites, depend on the text."
            raise CapabilityError(say("program", "must put its learned tokens before all of a causal model's text",
                                      [f"{type(e).__name__} at {e.site}" for e in input], remedy))  # fmt: skip
        before = self.before(input)
        if before is None:
            return self.embeddings.new_zeros(0, self.blocks, 2, self.heads, self.head_width)
        return stacked({i: (layer.keys, layer.values) for i, layer in before.layers.items()}, self.blocks)

    @torch.no_grad()
    def keys_values(self, text: str, *, start: int = 0, begin: bool = False) -> Tensor:
        """What attention keeps of a text, [tokens, layers, 2, heads, head width].

        Args:
            text: any.
            start: position of its first token.
            begin: put the special tokens that start a text before it.

        Raises:
            DataError: it has no token.
        """
        ids = [*(self.tokeniser.before if begin else ()), *self.encode(text)]
        if not ids:
            raise DataError(say("text", "must have at least one token", text))
        table = self.embedded(torch.tensor([ids], device=self.device))
        return stacked(self.record_behind(table, None, start), self.blocks)

    def generate(self, x: Texts, input: Input, *, max_new_tokens: int = 32, **options: Any) -> tuple[str, ...]:
        """What the model writes after each prompt; the learned prompt is in the cache before the first token.

        Args:
            x: texts.
            input: I.
            max_new_tokens: at most.
            options: of transformers' `generate`; greedy by default.

        Raises:
            CapabilityError: the model does not write, or the input has edits at hidden sites.
        """
        from reprogram.sources.transformers_generate import generate

        return generate(self, x, input, max_new_tokens, options)

    def randomised(self, seed: int = 0) -> "LanguageSource":
        """A twin with the same architecture and random weights: the control for "the pretrained weights matter".

        Raises:
            SourceError: the model is quantised.
        """
        model: Any = self.module
        if getattr(model, "is_quantized", False):
            raise SourceError(say("source", "must not be quantised to be randomised", self.spec.ref))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            twin = type(model)(copy.deepcopy(model.config)).to(self.device, next(model.parameters()).dtype)
        return LanguageSource(twin, self._tokeniser, replace(self.spec, ref=f"{self.spec.ref}@random-{seed}"),
                              self.kind, pooling=self.pooling, blocks=self._block_paths)  # type: ignore[arg-type]  # fmt: skip

    def compile(self, **options: Any) -> None:
        """Run the model through `torch.compile` from now on; lengths may vary."""
        self._compiled = torch.compile(self.module, **{"dynamic": True, **options})

    # -- from texts to a sequence ----------------------------------------------------------------------------------

    def tokens(self, x: Batch, input: Input, *, left: bool = False) -> Tokens:
        """The batch as token ids on the source's device, after the edits at "input".

        Raises:
            DataError: a text is empty or too long, or token ids come to a program with a template.
        """
        texts = isinstance(x, Texts)
        if isinstance(x, Texts):
            x = self.tokeniser.batch(input(x, "input"), self.room(input), left=left)
        elif isinstance(x, Tensor):
            x = Tokens(x, torch.ones_like(x, dtype=torch.bool))
        if not texts and any(e.site == "input" for e in input):
            raise DataError(say("x", "must be texts, because the program has a template", "token ids"))
        longest = x.ids.shape[1] + self.room(input)
        if self.context is not None and longest > self.context:
            raise DataError(say("input_ids", f"must fit into {self.context} tokens with the prompt", longest))
        if not bool(x.mask.any(1).all()):
            raise DataError(say("input_ids", "must have at least one token in every row", "a row of padding"))
        return x.to(self.device)

    @property
    def context(self) -> int | None:
        """The longest sequence it takes, learned tokens included; None if there is no limit."""
        return self.spec.input_shape[0] or None

    def room(self, input: Input) -> int:
        """Tokens of the context that edits take."""
        prompts = [e for e in input.at("embedding") if isinstance(e, Inserting) and e.where != "slots"]
        prefixes = [e for e in input if e.site.startswith("kv") and isinstance(e, Prefixing)]
        moved = [e.length if e.shift is True else int(e.shift) for e in prefixes]
        return sum(e.length for e in prompts) + max(moved, default=0)

    def embedded(self, ids: Tensor) -> Tensor:
        """Token ids [B, tokens] as vectors [B, tokens, d]."""
        return self._embed()(ids)

    def _embed(self) -> nn.Module:
        model: Any = self.module
        return model.get_input_embeddings()

    def _shared(self, input: Input) -> Tensor | None:
        """[n, d], if all learned tokens stand before the text of a causal model and so can be run once for all rows."""
        edits = input.at("embedding")
        inserted = [e for e in edits if isinstance(e, Inserting) and e.where == "start"]
        if not edits or len(inserted) < len(edits) or not self.shares or any(not _by_source(e.site) for e in input):
            return None
        tables = [e.tokens() for e in inserted]
        return torch.cat(tables) if all(t.ndim == 2 for t in tables) else None

    def before(self, input: Input) -> Before | None:
        """Prefixes, and what a start prompt leaves in every layer when it is run once, behind the prefixes."""
        prefix = prefixes_of(input, (self.blocks, self.heads, self.head_width), self.spec.ref)
        table = self._shared(input)
        if table is None:
            return prefix
        made = self.record_behind(table[None].to(self.embeddings.dtype), prefix)
        return behind(prefix, made, len(table))

    def record_behind(self, embeds: Tensor, prefix: Before | None, start: int = 0) -> dict[int, tuple[Tensor, Tensor]]:
        """What every layer makes of one row of tokens [1, n, d], behind others or from position `start` on."""
        record: dict[int, tuple[Tensor, Tensor]] = {}
        layers = {} if prefix is None else prefix.layers
        call = LanguageCall(prefix=layers, record=record)
        mask = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
        model: Any = self.module
        body = model.get_encoder() if self.kind == "seq2seq" else self._body
        with self._slot.bind(call):
            body(**self._arguments(embeds, mask, start if prefix is None else prefix.shift))
        return record

    def before_text(self, input: Input) -> Before | None:
        """What learned prompts and prefixes leave before the text.

        Raises:
            CapabilityError: the input has an edit that acts elsewhere.
        """
        elsewhere = [e.site for e in input if not _by_source(e.site)]
        if elsewhere or (input.at("embedding") and self._shared(input) is None):
            need = "must put its learned tokens before all of a causal model's text to score choices or to write"
            raise CapabilityError(say("program", need, elsewhere or ["embedding"]))
        return self.before(input)

    def arguments_at(self, ids: Tensor, depth: Tensor, before: Before | None) -> dict[str, Any]:
        """What the body is called with, for tokens [B, n] at positions [B, n] of their own."""
        mask = torch.ones_like(ids, dtype=torch.bool)
        found = self._arguments(self.embedded(ids), mask, 0)
        found["position_ids"] = depth + self.offset + (0 if before is None else before.shift)
        return found

    def logits_at(self, arguments: dict[str, Any], before: Before | None, places: Tensor) -> Tensor:
        """Logits [M, vocabulary] at M places, numbered through the flattened batch."""
        call = LanguageCall(prefix={} if before is None else before.layers, input=None, places=places)
        logits = self.run(call, arguments).logits
        return logits[0] if self.gathers else logits.flatten(0, 1)[places]

    def bytes_of(self, tokens: int, ahead: int, reads: int) -> int:
        """An estimate, from above, of what one row of a pass takes while it runs.

        One layer's work, a mask, and the scores of all places that are read, which are copied twice.
        """
        width = self.spec.width or 1
        kept = 2 * self.heads * self.head_width * (ahead + 2 * tokens)
        size = next(self.module.parameters()).element_size()
        inner = getattr(getattr(self.module, "config", None), "intermediate_size", None) or 4 * width
        return (
            size * (kept + tokens * (8 * width + 3 * inner))
            + tokens * (ahead + tokens) * 6
            + 12 * reads * self.spec.outputs
        )

    def assemble(self, tokens: Tokens, input: Input, before: Before | None) -> tuple[int, Sequence]:
        """The batch's embeddings with edits applied, and how many variants of each input there are."""
        embeds = self.embedded(tokens.ids)
        own = torch.arange(tokens.ids.shape[1], device=embeds.device).expand(len(tokens), -1)
        sequence, variants = Sequence(embeds, tokens.mask, own), 1
        edits = [] if before is not None and before.shared else input.at("embedding")
        if tokens.slots is not None and not any(isinstance(e, Inserting) and e.where == "slots" for e in edits):
            raise DataError(
                say("template", "must have {soft:...} only where the program fills these places", "none does")
            )
        for edit in edits:
            if not isinstance(edit, Inserting):
                sequence = replace(sequence, embeds=edit(sequence.embeds))
                continue
            added = edit.tokens()
            by_row = isinstance(edit, ByRow)
            if added.ndim == 3 and not by_row and variants == 1 and len(added) > 1:
                variants = len(added)
                sequence = Sequence(
                    *(p.repeat_interleave(variants, 0) for p in (sequence.embeds, sequence.mask, sequence.own))
                )
            if by_row and len(added) != len(tokens):
                raise DataError(say("texts", f"must be {len(added)}, one for each of the learned rows", len(tokens)))
            rows = added.repeat_interleave(variants, 0) if by_row else _rows(added, len(tokens), variants)
            sequence = self._put(sequence, edit, rows, tokens, variants)
        return variants, sequence if self.reads_left else flush(sequence)

    def _put(self, sequence: Sequence, edit: Inserting, rows: Tensor, tokens: Tokens, variants: int) -> Sequence:
        if edit.where == "slots":
            if tokens.slots is None:
                raise DataError(say("template", "must have {soft:...} places for the learned tokens", "none"))
            if int(tokens.slots.max()) >= rows.shape[1]:
                got = int(tokens.slots.max()) + 1
                raise DataError(say("template", f"must have at most {rows.shape[1]} {{soft}} places", got))
            slots = tokens.slots.repeat_interleave(variants, 0)
            if int(sequence.own.max()) + 1 != tokens.slots.shape[1]:
                raise DataError(say("edits", "must fill places before they add tokens", "the other way round"))
            return replace(sequence, embeds=fill(sequence.embeds, slots, rows))
        first = edit.where == "start" and self._class_first
        return insert(sequence, rows, "after_first" if first else edit.where)

    @property
    def _class_first(self) -> bool:
        """The first token is what a pooler reads; a learned prompt goes after it."""
        return self.kind in ("masked", "classifier", "encoder") and self._tokeniser is not None \
            and len(self._tokeniser.before) > 0  # fmt: skip

    # -- from a sequence to an answer ------------------------------------------------------------------------------

    def _arguments(self, embeds: Tensor, mask: Tensor, start: int | Tensor) -> dict[str, Any]:
        """What the body is called with."""
        found: dict[str, Any] = {"inputs_embeds": embeds, "attention_mask": mask.long(), "return_dict": True}
        if "position_ids" in self._takes:
            found["position_ids"] = positions(mask, start) + self.offset
        if "use_cache" in self._takes:
            found["use_cache"] = False
        return found

    def _answer(
        self, tokens: Tokens, sequence: Sequence, before: Before | None, input: Input, reading: Reading, x: Batch
    ) -> SourceOutput:  # fmt: skip
        start = 0 if before is None else before.shift
        arguments = self._arguments(sequence.embeds, sequence.mask, start)
        if tokens.kinds is not None and "token_type_ids" in self._takes:
            kinds = torch.zeros_like(sequence.mask, dtype=torch.int64)
            arguments["token_type_ids"] = kinds.scatter(1, sequence.own, tokens.kinds)
        call = LanguageCall(prefix={} if before is None else before.layers, input=input)
        return answer(self, Question(tokens, sequence, arguments, call, reading, x))

    def run(self, call: LanguageCall, arguments: dict[str, Any]) -> Any:
        """One pass of the whole model with `call` bound, through forward and backward."""
        call.inside = True
        model = self._compiled if self._compiled is not None else self.module
        with self._slot.bind(call):
            result = model(**arguments)
        if self._recomputes:
            found = (getattr(result, "logits", None), getattr(result, "last_hidden_state", None))
            self._slot.hold(call, next(t for t in found if isinstance(t, Tensor)))
        return result

    @contextmanager
    def bound(self, call: LanguageCall) -> Generator[None]:
        """Bind a call for a part of the model that is run on its own."""
        with self._slot.bind(call):
            yield


def language_source(
    model: Any,
    tokenizer: Any = None,
    *,
    ref: str | None = None,
    kind: Kind | None = None,
    pooling: Literal["mean", "mean-unit", "first", "own"] = "mean",
    checkpoint: bool = False,
) -> LanguageSource:
    """A model of transformers in memory as a frozen source.

    Args:
        model: a `PreTrainedModel` that reads text; frozen and switched to eval mode, in place. May be quantised.
        tokenizer: of transformers; without one the source reads token ids only.
        ref: how to load it again.
        kind: by default by the model's class.
        pooling: how an encoder's vectors become one: the mean over the text's tokens, that mean at length one, the
            first token's, or the model's `pooler_output`.
        checkpoint: compute what is inside the blocks again in the backward pass, to save memory. Also where
            `gradient_checkpointing_enable()` was called on the model.

    Raises:
        SourceError: the model has no list of blocks, or takes no embeddings.
    """
    keep_gradients(model)
    name = ref or f"module:{type(model).__name__}"
    kind = kind or kind_of(type(model).__name__)
    body = model.get_encoder() if kind == "seq2seq" else body_of(model, kind)
    prefix = next((path for path, m in model.named_modules() if m is body), "")
    blocks = tuple(f"{prefix}.{path}" if prefix else path for path in longest_list(body))
    if not blocks or "inputs_embeds" not in parameters_of(body):
        raise SourceError(say("model", "must be a transformer that takes `inputs_embeds`", type(model).__name__))
    tokeniser = None
    limit = context_of(model.config, tokenizer)
    if tokenizer is not None:
        tokeniser = Tokeniser(tokenizer, kind, limit or UNBOUNDED)
    width = model.get_input_embeddings().embedding_dim
    outputs = {
        "encoder": getattr(model, "vector_width", width),
        "classifier": getattr(model.config, "num_labels", 0),
    }.get(kind, model.config.vocab_size)
    names = getattr(model.config, "id2label", None) if kind == "classifier" else None
    spec = SourceSpec(ref=name, modality="text", input_shape=(limit or 0,), outputs=outputs, width=width,
                      labels=tuple(str(names[i]) for i in range(outputs)) if names else None)  # fmt: skip
    asked = any(getattr(m, "gradient_checkpointing", False) is True for m in model.modules())
    return LanguageSource(model, tokeniser, spec, kind, pooling=pooling, blocks=blocks, checkpoint=checkpoint or asked)


def _rows(added: Tensor, texts: int, variants: int) -> Tensor:
    """Learned tokens [n, d] or [K, n, d] as rows for a batch of texts with all variants each."""
    return added[None] if added.ndim == 2 else added.repeat(texts, 1, 1) if variants > 1 else added


def _by_source(site: str) -> bool:
    """Sites whose edits the source applies itself, without a hook."""
    return site in ("input", "embedding") or site == "kv" or site.startswith("kv.")
