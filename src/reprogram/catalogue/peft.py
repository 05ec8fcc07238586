"""Learned prompts to and from the PEFT library's folders, and from plain tensors. That library itself is not needed.

A folder holds `adapter_config.json`, of which a few keys are read, and `adapter_model.safetensors`:

    PROMPT_TUNING, P_TUNING    prompt_embeddings [n, d]
    PREFIX_TUNING              prompt_embeddings [n, 2 * layers * heads * width], keys of layer l at block 2l, its
                               values at block 2l + 1
    MULTITASK_PROMPT_TUNING    prompt_embeddings [n, d], prefix_task_cols [tasks, n, r], prefix_task_rows [tasks, r, d]

Neither holds a template or label words, nor says which model it was made for but by a name that nobody checks.
"""

import logging
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import safetensors.torch
import torch
from torch import Tensor, nn

from reprogram.catalogue.assemble import build
from reprogram.catalogue.convert import compact_program
from reprogram.core.errors import ArtifactError, CapabilityError, ConfigError, say
from reprogram.core.inserting import Compacting, Inserting, Prefixing
from reprogram.core.program import Edit, Program
from reprogram.core.source import Source, TextSource, text_source
from reprogram.core.task import TaskSpec
from reprogram.inputs import EncodedPrompt, MultitaskPrompt, Prefix, SoftPrompt
from reprogram.store import write_atomic
from reprogram.store._json import canonical
from reprogram.store.foreign import read_foreign, read_settings
from reprogram.tasks import Task

CONFIG, NUMBERS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"

METHODS = {
    "PROMPT_TUNING": "prompt_tuning",
    "P_TUNING": "p_tuning",
    "PREFIX_TUNING": "prefix_tuning",
    "MULTITASK_PROMPT_TUNING": "multitask_prompt_tuning",
}
"""PEFT's kinds that can be read, and the method of ours that each is."""

_PROMPT, _COLUMNS, _ROWS = "prompt_embeddings", "prefix_task_cols", "prefix_task_rows"

log = logging.getLogger("reprogram")


@final
@dataclass(frozen=True, slots=True)
class _Adapter:
    """What a folder says, checked for itself but not yet against a source."""

    folder: Path
    kind: str
    n: int
    halves: int
    base: str | None
    tensors: dict[str, Tensor]
    layers: object = None
    heads: object = None


def import_peft(
    folder: str | os.PathLike[str],
    source: Source,
    task: Task | TaskSpec | None = None,
    *,
    index: int = 0,
    **settings: Any,
) -> Program:
    """A program of ours with the numbers of a PEFT checkpoint; what it computes is what PEFT computes.

    Args:
        folder: with `adapter_config.json` and `adapter_model.safetensors`.
        source: the model that the checkpoint was made for. The files do not say whose weights those were, so that only
            shapes are checked.
        task: the program gets its classes and template; None for a program on texts as they are, or token ids.
        index: of a multitask checkpoint, the number of the task (PEFT's `task_ids`).
        settings: of the method, such as `template` and `words`.

    Returns:
        A program of the method prompt_tuning, p_tuning (compact: the checkpoint has no network), prefix_tuning or
        multitask_prompt_tuning.

    Raises:
        ArtifactError: files are missing, damaged, pickles or of another kind, or hold more than a prompt.
        CapabilityError: the checkpoint does not fit the source.
        ConfigError: a setting is unknown, or one that the checkpoint decides.
    """
    model, found = text_source(source), _read(Path(folder))
    _warn_of_base(found, source.spec.ref)
    prompt = found.tensors[_PROMPT]
    _check_kind(found, model)
    if found.kind == "PREFIX_TUNING":
        shape = (found.n, model.blocks, 2, model.heads, model.head_width)
        _check_shape(found, prompt, (found.n, 2 * model.blocks * model.heads * model.head_width), source)
        program = _built(METHODS[found.kind], source, task, settings, tokens=found.n, hidden=None)
        _put(program, Prefix, {"values": prompt.reshape(shape)})
        return program
    width = model.embeddings.shape[1]
    _check_shape(found, prompt, (found.n * found.halves, width), source)
    if found.kind == "MULTITASK_PROMPT_TUNING":
        return _multitask(found, source, task, index, settings)
    program = _built(METHODS[found.kind], source, task, settings, tokens=found.n, start="vocabulary")
    if any(isinstance(edit, EncodedPrompt) for edit in program.input):
        program = compact_program(program)
    _put(program, SoftPrompt, {"values": prompt[: found.n]})
    return program


def import_tensor(
    tensor: str | os.PathLike[str] | Tensor, source: Source, task: Task | TaskSpec | None = None, **settings: Any
) -> Program:
    """A program of prompt tuning whose soft prompt is a given matrix.

    Args:
        tensor: [n, d] in the units of the source's token embeddings; or a safetensors file that holds just that.
        source: a language model with embeddings of width d.
        task: see `import_peft`.
        settings: of prompt tuning, such as `template` and `words`.

    Raises:
        ArtifactError: the file is damaged, or does not hold just one tensor.
        CapabilityError: the matrix does not fit the source.
        ConfigError: a setting is unknown, or the tensor has numbers that are not finite.
    """
    where, given = "tensor", tensor
    if not isinstance(given, Tensor):
        where = os.fspath(given)
        found = read_foreign(given)
        if len(found) != 1:
            raise ArtifactError(say(where, "must hold one tensor", sorted(found)))
        given = next(iter(found.values()))
    width = text_source(source).embeddings.shape[1]
    if given.ndim != 2 or not len(given) or given.shape[1] != width or not given.is_floating_point():
        got = f"{given.dtype} of shape {tuple(given.shape)}"
        raise CapabilityError(say(where, f"must be floats [n, {width}] for {source.spec.ref}", got))
    if not bool(given.isfinite().all()):
        raise ConfigError(say(where, "must be finite", "NaN or infinity among the numbers"))
    program = _built("prompt_tuning", source, task, settings, tokens=len(given), start="vocabulary")
    _put(program, SoftPrompt, {"values": given})
    return program


def export_peft(program: Program, folder: str | os.PathLike[str]) -> Path:
    """Write a program's learned prompt as a folder that `PeftModel.from_pretrained(model, folder)` loads.

    The folder appears with both files in it, or not at all. It holds no template and no label words: give the model the
    text as the program's template has it, and read the scores of the label words.

    Args:
        program: whose only learned part is a soft prompt before the text, or a prefix in all layers. A network that
            makes it is left out; PEFT leaves it out too.
        folder: a new or empty folder.

    Returns:
        The folder.

    Raises:
        CapabilityError: PEFT's format has no place for what the program does; the message says why.
        ArtifactError: the folder is there and not empty, or cannot be written.
    """
    model, target = text_source(program.source), Path(folder)
    edit = _exported(program, model)
    numbers = (edit.values if isinstance(edit, SoftPrompt) else edit.values.flatten(1)).detach().float().cpu()
    _write(target, {_PROMPT: numbers.contiguous()}, _config(edit, model))
    return target


# -- reading -----------------------------------------------------------------------------------------------------------


def _read(folder: Path) -> _Adapter:
    said = read_settings(folder / CONFIG)
    kind = said.get("peft_type")
    if not isinstance(kind, str) or kind not in METHODS:
        remedy = "Other kinds change the model itself, which stays as it is here."
        raise ArtifactError(say(f"{folder / CONFIG}: peft_type", f"must be one of {sorted(METHODS)}", kind, remedy))
    if not (folder / NUMBERS).exists() and (folder / PICKLE).exists():
        remedy = "Where you trust it: PeftModel.from_pretrained(model, folder).save_pretrained(another_folder)."
        need = f"must be {NUMBERS}; a pickle can run code when it is opened, and is not read"
        raise ArtifactError(say(str(folder), need, PICKLE, remedy))
    wanted = {_PROMPT, _COLUMNS, _ROWS} if kind == "MULTITASK_PROMPT_TUNING" else {_PROMPT}
    tensors = read_foreign(folder / NUMBERS)
    if set(tensors) != wanted:
        odd = sorted(set(tensors) ^ wanted)[:6]
        remedy = "Layers of the model that were trained along (modules_to_save) have no place in a program."
        raise ArtifactError(say(str(folder / NUMBERS), f"must hold {sorted(wanted)} and nothing else", odd, remedy))
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ArtifactError(say(f"{folder / NUMBERS}: {name}", "must be floats", str(tensor.dtype)))
    halves = _count(folder, said, "num_transformer_submodules", default=1)
    base = said.get("base_model_name_or_path")
    return _Adapter(folder, kind, _count(folder, said, "num_virtual_tokens"), halves,
                    base if isinstance(base, str) else None, tensors, said.get("num_layers"),
                    said.get("num_attention_heads"))  # fmt: skip


def _count(folder: Path, said: dict[str, object], name: str, default: int | None = None) -> int:
    value = said.get(name)
    if value is None and default is not None:
        return default
    if type(value) is not int or not 1 <= value <= 1 << 20:
        raise ArtifactError(say(f"{folder / CONFIG}: {name}", "must be a whole number from 1 to 1048576", value))
    return value


def _warn_of_base(found: _Adapter, ref: str) -> None:
    """The name is all that a checkpoint says about its model, and two folders of one model may differ in it."""
    mine, theirs = (_base(ref) or "").rstrip("/").split("/")[-1], (found.base or "").rstrip("/").split("/")[-1]
    if mine and theirs and mine != theirs:
        log.warning("%s was made for a model called %s, and the source is %s. If these are different weights, the "
                    "prompt means nothing.", found.folder, theirs, ref)  # fmt: skip


def _check_kind(found: _Adapter, model: TextSource) -> None:
    """PEFT's prompt goes before everything; only some models mean the same by that here."""
    where = f"{found.kind} for {model.spec.ref}"
    if found.kind == "PREFIX_TUNING":
        if model.kind != "causal" or "kv" not in model.sites:
            raise CapabilityError(say("source", "must be a causal language model to take PEFT's prefix", where))
        theirs, ours = (found.layers, found.heads), (model.blocks, model.heads)
        if any(number not in (None, own) for number, own in zip(theirs, ours, strict=True)):
            need = f"must be those of {model.spec.ref}, {ours}"
            raise CapabilityError(say(f"{found.folder / CONFIG}: num_layers, num_attention_heads", need, theirs))
    elif model.kind not in ("causal", "seq2seq"):
        why = "PEFT puts the prompt before the class token, which moves what poolers read; here it goes after it."
        raise CapabilityError(say("source", "must be a causal model or an encoder-decoder", where, why))
    if found.kind == "MULTITASK_PROMPT_TUNING" and found.halves != 1:
        why = "The second half acts in the decoder, where this library puts no prompt."
        raise CapabilityError(say("num_transformer_submodules", "must be 1", found.halves, why))


def _check_shape(found: _Adapter, tensor: Tensor, shape: tuple[int, ...], source: Source) -> None:
    if tuple(tensor.shape) != shape:
        base = f"It was made for {found.base}." if found.base else "Was it made for another model?"
        need = f"must be {list(shape)} for {source.spec.ref}"
        raise CapabilityError(say(f"{found.folder / NUMBERS}: {_PROMPT}", need, list(tensor.shape), base))


def _multitask(
    found: _Adapter, source: Source, task: Task | TaskSpec | None, index: int, settings: dict[str, Any]
) -> Program:
    columns, rows = found.tensors[_COLUMNS], found.tensors[_ROWS]
    width = found.tensors[_PROMPT].shape[1]
    shapes = (tuple(columns.shape), tuple(rows.shape))
    tasks, rank = (columns.shape[0], columns.shape[2]) if columns.ndim == 3 else (0, 0)
    if tasks < 1 or rank < 1 or shapes != ((tasks, found.n, rank), (tasks, rank, width)):
        need = f"must be [tasks, {found.n}, rank] and [tasks, rank, {width}]"
        raise ArtifactError(say(f"{found.folder / NUMBERS}: {_COLUMNS}, {_ROWS}", need, shapes))
    if not 0 <= index < tasks:
        raise ConfigError(say("index", f"must be the number of one of the {tasks} tasks, from 0", index))
    name = METHODS[found.kind]
    program = _built(name, source, task, settings, tokens=found.n, rank=rank, start="vocabulary")
    _put(program, MultitaskPrompt, {"shared": found.tensors[_PROMPT], "u": columns[index], "v": rows[index]})
    return program


def _built(method: str, source: Source, task: Task | TaskSpec | None, given: dict[str, Any], **own: Any) -> Program:
    """The method's program, with the settings that the file decides."""
    decided = sorted(given.keys() & (own.keys() | {"text"}))
    if decided:
        raise ConfigError(say("settings", "must leave to the file what it decides", decided))
    return build(method, source, task, **given, **own)


@torch.no_grad()
def _put(program: Program, kind: type[Edit], numbers: dict[str, Tensor]) -> None:
    edit = next(e for e in program.input if isinstance(e, kind))
    for name, value in numbers.items():
        mine: Tensor = getattr(edit, name)
        if mine.shape != value.shape:  # a template with another number of places for soft tokens
            need = f"must have as many {{soft}} places as the prompt has tokens, {value.shape[0]}"
            raise ConfigError(say("template", need, mine.shape[0]))
        mine.copy_(value)


# -- writing -----------------------------------------------------------------------------------------------------------


def _exported(program: Program, model: TextSource) -> SoftPrompt | Prefix:
    """The learned edit, if PEFT can do what the program does."""
    if any(True for _ in program.output.parameters()) or program.count().fitted:
        raise _foreign("must have no learned or fitted output, which PEFT's file cannot hold", program.output)
    stands = [e for e in program.input if e.site != "input"]
    changing = [e for e in program.input if e.site == "input" and any(True for _ in e.parameters())]
    if len(stands) != 1 or changing or not isinstance(stands[0], (Inserting, Prefixing)):
        raise _foreign("must learn one soft prompt or one prefix and nothing else", *stands, *changing)
    edit = stands[0].compact() if isinstance(stands[0], Compacting) else stands[0]
    if isinstance(edit, SoftPrompt):
        if edit.where != "start" or model.kind not in ("causal", "seq2seq"):
            raise _foreign(f"must have its prompt before all of the text, not {edit.where!r} of a {model.kind} model, "
                           "because PEFT always puts it there", edit)  # fmt: skip
        return edit
    if not isinstance(edit, Prefix) or edit.site != "kv" or not edit.shift or model.kind != "causal":
        raise _foreign("must have a prefix in all layers of a causal model, with the text's positions after it, "
                       "because PEFT always does it so", edit)  # fmt: skip
    return edit


def _foreign(need: str, *parts: nn.Module) -> CapabilityError:
    return CapabilityError(say("program", f"{need}, to be exported", [type(part).__name__ for part in parts]))


def _config(edit: SoftPrompt | Prefix, model: TextSource) -> dict[str, object]:
    """PEFT's settings; those that it works out itself where they are null are left null."""
    prefix = isinstance(edit, Prefix)
    found: dict[str, object] = {
        "peft_type": "PREFIX_TUNING" if prefix else "PROMPT_TUNING",
        "task_type": "CAUSAL_LM" if model.kind == "causal" else "SEQ_2_SEQ_LM",
        "base_model_name_or_path": _base(model.spec.ref),
        "revision": None,
        "inference_mode": True,
        "num_virtual_tokens": edit.length,
        "num_transformer_submodules": 1,
        "num_layers": model.blocks,
        "num_attention_heads": model.heads if prefix else None,
        "token_dim": model.heads * model.head_width if prefix else model.embeddings.shape[1],
    }
    own: dict[str, object] = {"prompt_tuning_init": "RANDOM"}
    if prefix:
        own = {"prefix_projection": False, "encoder_hidden_size": None}
    return found | own


def _base(ref: str) -> str | None:
    """The name that transformers knows the source by."""
    return ref.removeprefix("hf/").partition("?")[0] if ref.startswith("hf/") else None


def _write(target: Path, tensors: dict[str, Tensor], config: dict[str, object]) -> None:
    """Both files in a folder of another name, which then takes the target's."""
    made = target.parent / f".{target.name}.{secrets.token_hex(4)}.tmp"
    try:
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise ArtifactError(say(str(target), "must be a new or an empty folder", "one that is there"))
        made.mkdir()
        write_atomic(made / NUMBERS, safetensors.torch.save(tensors, metadata={"format": "pt"}))
        write_atomic(made / CONFIG, canonical(config) + b"\n")
        if target.exists():
            target.rmdir()
        made.rename(target)
    except OSError as problem:
        raise ArtifactError(say(str(target), "must be a place that can be written to", str(problem))) from problem
    finally:
        shutil.rmtree(made, ignore_errors=True)
