"""The door to transformers: `hf/<folder or id>`, and models of that library that are in memory already.

Language models, encoders and encoder-decoders become a `LanguageSource`, image classifiers a `ModuleSource`. Code that
comes with a model is never run, and weights are read from safetensors only.
"""

import importlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from torch import nn

from reprogram.core.errors import ReprogramError, SourceError, missing_extra, say
from reprogram.core.source import Preprocessing
from reprogram.sources._frozen import checkpoint_blocks, longest_list
from reprogram.sources._quantised import keep_gradients
from reprogram.sources.image_text import DualSource
from reprogram.sources.language import Kind, LanguageSource, language_source
from reprogram.sources.module import ModuleSource, wrap
from reprogram.sources.transformers_clip import dual_source, is_dual
from reprogram.sources.transformers_files import has_tokenizer, model_folder, pixels, pooling
from reprogram.sources.transformers_pictures import PictureSource, picture_source

KINDS: tuple[str, ...] = (*get_args(Kind), "image", "pictures", "image-text")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
POOLINGS = ("mean", "mean-unit", "first")
SEED = 0
"""Of random weights, so that a reference means the same model everywhere."""

_BY_NAME = (
    ("ForCausalLM", "causal"), ("LMHeadModel", "causal"), ("ForMaskedLM", "masked"), ("ForPreTraining", "masked"),
    ("ForSequenceClassification", "classifier"), ("ForConditionalGeneration", "seq2seq"),
    ("ForImageClassification", "image"), ("CLIPModel", "image-text"), ("SiglipModel", "image-text"),
    ("Model", "encoder"),
)  # fmt: skip
_AUTO = {
    "causal": "AutoModelForCausalLM", "masked": "AutoModelForMaskedLM", "seq2seq": "AutoModelForSeq2SeqLM",
    "classifier": "AutoModelForSequenceClassification", "image": "AutoModelForImageClassification",
    "pictures": "AutoModelForImageTextToText",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOptions:
    """What can be said about a model of transformers when it is loaded.

    Attributes:
        kind: "causal", "masked", "seq2seq", "classifier", "encoder", "image", "pictures" (reads pictures and text)
            or "image-text" (compares them);
            by default what the model's configuration names as its architecture.
        dtype: of the weights; None for float32, or for a quantised model what its loader chooses.
        device: where to put it.
        checkpoint: compute what is inside the blocks again in the backward pass, to save memory.
        revision: of a hub's repository.
        pretrained: False for random weights, the same ones every time.
        pooling: of an encoder: "mean", "mean-unit" or "first"; by default what its files say, else "mean".
        preprocess: of an image model: (mean, std) per channel; by default what its files say.
        quantization_config: handed to transformers as it is.
    """

    kind: str | None = None
    dtype: str | torch.dtype | None = None
    device: str | torch.device = "cpu"
    checkpoint: bool = False
    revision: str | None = None
    pretrained: bool = True
    pooling: str | None = None
    preprocess: Preprocessing | tuple[Any, Any] | None = None
    quantization_config: Any = None

    def __post_init__(self) -> None:
        name = str(self.dtype).removeprefix("torch.")
        for what, found, known in (("kind", self.kind, KINDS), ("pooling", self.pooling, POOLINGS),
                                   ("dtype", None if self.dtype is None else name, tuple(DTYPES))):  # fmt: skip
            if found is not None and found not in known:
                raise SourceError(say(what, f"must be one of {', '.join(known)}", found))

    def query(self) -> str:
        """The part of a reference that says how to load the same weights again."""
        dtype = "" if self.dtype is None else str(self.dtype).removeprefix("torch.")
        said = {
            "as": self.kind,
            "dtype": dtype if dtype != "float32" or self.quantization_config is not None else None,
            "revision": self.revision,
            "pooling": self.pooling,
            "pretrained": None if self.pretrained else "false",
        }
        return "&".join(f"{name}={value}" for name, value in said.items() if value)


def transformers() -> Any:
    """The library.

    Raises:
        MissingExtraError: the extra "text" is not installed.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError as problem:
        raise missing_extra("transformers", "text", "A language model") from problem


def tokenizers() -> Any:
    """The library of fast tokenizers.

    Raises:
        MissingExtraError: the extra "text" is not installed.
    """
    try:
        return importlib.import_module("tokenizers")
    except ImportError as problem:
        raise missing_extra("tokenizers", "text", "A tokenizer") from problem


Loaded = LanguageSource | ModuleSource | PictureSource | DualSource


def load_transformers(name: str, **options: Any) -> Loaded:
    """A model of transformers as a source.

    Args:
        name: a folder, or a hub's "owner/name".
        options: fields of `TextOptions`.

    Raises:
        MissingExtraError: the extra "text" is not installed.
        SourceError: the model is not there, not of a kind we know, not in safetensors, or needs code of its own.
    """
    known = [f.name for f in fields(TextOptions)]
    strange = sorted(options.keys() - set(known))
    if strange:
        raise SourceError(say("options", f"must be among {', '.join(known)}", strange))
    chosen = TextOptions(**options)
    transformers()
    folder = model_folder(name, chosen.revision, weights=chosen.pretrained)
    query = chosen.query()
    return open_folder(folder, chosen, ref=f"hf/{name}" + (f"?{query}" if query else ""))


def open_folder(folder: Path, options: TextOptions, *, ref: str) -> Loaded:
    """A model whose files are in a folder as a source.

    Raises:
        SourceError: it cannot be loaded, or a head that was asked for is not among its weights.
    """
    library = transformers()
    with _reading(library, ref):
        config = library.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        kind = options.kind or _kind(config, ref)
        if kind == "causal" and getattr(config, "is_decoder", None) is False:
            raise SourceError(say(ref, "must read from left to right to be loaded as causal", config.model_type))
        model = _model(library, folder, config, kind, options)
        tokenizer = None
        if kind == "pictures":
            processor = library.AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            return picture_source(model, processor, ref=ref)
        if kind == "image-text":
            tokenizer = library.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            return dual_source(model, tokenizer, preprocess=_pixels(folder, options)[0], ref=ref)
        if kind != "image" and has_tokenizer(folder):
            tokenizer = library.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if kind == "image":
        return _image(model, ref, *_pixels(folder, options), checkpoint=options.checkpoint)
    how = options.pooling or (pooling(folder) if kind == "encoder" else None) or "mean"
    return language_source(model, tokenizer, ref=ref, kind=kind, pooling=how, checkpoint=options.checkpoint)  # type: ignore[arg-type]


def is_transformers(module: object) -> bool:
    """Is it a model of transformers? Does not import the library to find out."""
    names = {(c.__module__, c.__name__) for c in type(module).__mro__}
    return ("transformers.modeling_utils", "PreTrainedModel") in names


def wrap_transformers(
    model: nn.Module, tokenizer: Any = None, *, ref: str | None = None, checkpoint: bool = False
) -> Loaded:
    """A model of transformers in memory as a source.

    Args:
        model: a `PreTrainedModel`; frozen and switched to eval mode, in place.
        tokenizer: for a model that reads text; for one of pictures its image processor; for one of pictures and text
            its processor, which has both. Without it a language model
            reads token ids only, and an image model is given pixels in [0, 1] as they are.
        ref: how to load it again.
        checkpoint: compute what is inside the blocks again in the backward pass, to save memory.

    Raises:
        SourceError: the model is neither, or its weights are packed so that no gradients pass.
    """
    keep_gradients(model)
    reads = getattr(model, "main_input_name", None)
    if is_dual(model):
        processor = getattr(tokenizer, "image_processor", None)
        pixels = None if processor is None else (tuple(processor.image_mean), tuple(processor.image_std))
        return dual_source(model, getattr(tokenizer, "tokenizer", tokenizer), preprocess=pixels, ref=ref)
    if getattr(tokenizer, "image_processor", None) is not None and getattr(tokenizer, "tokenizer", None) is not None:
        return picture_source(model, tokenizer, ref=ref)
    if reads == "input_ids":
        return language_source(model, tokenizer, ref=ref, checkpoint=checkpoint)
    if reads != "pixel_values":
        raise SourceError(say("model", "must read text or pictures", f"{type(model).__name__} reads {reads}"))
    found = None if tokenizer is None else (tuple(tokenizer.image_mean), tuple(tokenizer.image_std))
    return _image(model, ref or f"module:{type(model).__name__}", found, None, checkpoint=checkpoint)


# -- language models ---------------------------------------------------------------------------------------------------


def _kind(config: Any, ref: str) -> str:
    """By the class that the configuration names."""
    named = (getattr(config, "architectures", None) or [""])[0]
    kind = next((kind for part, kind in _BY_NAME if named.endswith(part)), None)
    if kind == "seq2seq" and getattr(config, "vision_config", None) is not None:
        return "pictures"
    if kind is None or (kind == "encoder" and not hasattr(config, "vocab_size")):
        remedy = f"Say what to load it as: hf/…?as= and one of {', '.join(KINDS)}."
        raise SourceError(say(ref, "must name an architecture that we know in its config.json", named or None, remedy))
    return kind


def _model(library: Any, folder: Path, config: Any, kind: str, options: TextOptions) -> Any:
    """The model, every weight of it read from the files (or every one random)."""
    encoder = "AutoModelForTextEncoding" if getattr(config, "is_encoder_decoder", False) else "AutoModel"
    auto = getattr(library, _AUTO.get(kind, encoder))
    dtype = DTYPES[str(options.dtype or "float32").removeprefix("torch.")]
    if not options.pretrained:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            return auto.from_config(config, dtype=dtype, trust_remote_code=False).to(options.device)
    extra: dict[str, Any] = {"dtype": dtype}
    quantised = options.quantization_config or getattr(config, "quantization_config", None)
    if quantised:  # such weights go where they belong while they are read, and cannot be moved or cast afterwards
        extra = {"dtype": dtype if options.dtype is not None else "auto", "device_map": {"": str(options.device)}}
        if options.quantization_config is not None:
            extra["quantization_config"] = options.quantization_config
    model, facts = auto.from_pretrained(folder, config=config, use_safetensors=True, local_files_only=True,
                                        trust_remote_code=False, output_loading_info=True, **extra)  # fmt: skip
    _check_whole(model, facts, kind)
    keep_gradients(model)
    return model if quantised else model.to(options.device)


def _check_whole(model: Any, facts: Mapping[str, Any], kind: str) -> None:
    """No weight may be random without anybody's having asked for that."""
    missing = sorted(facts["missing_keys"])
    if kind == "encoder" and missing and all(name.split(".")[0] == "pooler" for name in missing):
        model.pooler = None  # a layer for another purpose, which we do not read
        return
    if missing:
        remedy = f"Load it as what it was trained to be (not {kind}), or with random weights: ?pretrained=false"
        raise SourceError(say("weights", "must be all there", f"{len(missing)} missing, {missing[:3]}", remedy))


@contextmanager
def _reading(library: Any, ref: str) -> Generator[None]:
    """No progress bars and reports, and one type for every failure of the library."""
    log = library.utils.logging
    shown, before = log.is_progress_bar_enabled(), log.get_verbosity()
    log.disable_progress_bar()
    log.set_verbosity_error()
    try:
        yield
    except (ReprogramError, torch.OutOfMemoryError):
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as problem:
        got = f"{type(problem).__name__}: {' '.join(str(problem).split())}"
        raise SourceError(say(ref, "must be a model that transformers can load", got)) from problem
    finally:
        log.set_verbosity(before)
        if shown:
            log.enable_progress_bar()


# -- image models ------------------------------------------------------------------------------------------------------


def _pixels(folder: Path, options: TextOptions) -> tuple[Any, tuple[int, int] | None]:
    return (options.preprocess, None) if options.preprocess is not None else pixels(folder)


def _image(model: Any, ref: str, preprocess: Any, size: tuple[int, int] | None, *, checkpoint: bool) -> ModuleSource:
    """An image classifier; its blocks are the entries of its longest list of modules of one class."""
    config = model.config
    own = getattr(config, "image_size", None)
    height, width = (own if isinstance(own, list | tuple) else (own, own)) if own is not None else size or (None, None)
    if height is None or width is None:
        raise SourceError(say(ref, "must say the size of its pictures in its configuration", own))
    blocks = longest_list(model)
    if checkpoint:
        checkpoint_blocks(model, blocks)
    names = {int(i): str(name) for i, name in (getattr(config, "id2label", None) or {}).items()}
    labels = [names[i] for i in sorted(names)]
    known = labels and labels != [f"LABEL_{i}" for i in range(len(labels))]
    return wrap(
        model,
        input_shape=(getattr(config, "num_channels", 3), int(height), int(width)),
        labels=labels if known else None,
        preprocess=preprocess,
        sites=list(blocks) or None,
        ref=ref,
        width=getattr(config, "hidden_size", None),
        tokens=_reads_class_token(model),
    )


def _reads_class_token(model: Any) -> bool:
    """Its blocks read a sequence that starts with a class token, and the head reads that and not a mean."""
    has = any(name.endswith("cls_token") for name, _ in model.named_parameters())
    return has and not getattr(model.config, "use_mean_pooling", False)
