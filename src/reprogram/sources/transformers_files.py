"""Where the files of a transformers model are, and what those say that transformers itself does not need to know.

A name is a folder here, or a repository of a model hub; of the latter only what is needed is fetched, into the hub
client's own cache, so that everything after works on a folder. Only safetensors are read: the older formats are
pickles.
"""

import importlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reprogram.core.errors import SourceError, missing_extra, say
from reprogram.core.source import Preprocessing

WAIT = 10.0
"""Seconds for the hub's first answer; its client would try for half a minute."""

_OLD = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".pkl")
_WANTED = (".json", ".safetensors", ".txt", ".model", ".jinja")
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
_RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}


def model_folder(name: str, revision: str | None = None, *, weights: bool = True) -> Path:
    """The folder with a model's files.

    Args:
        name: a folder here ("./my-model", "~/my-model", "/models/x"), or a hub's "owner/name".
        revision: of the hub's repository: branch, tag or commit.
        weights: False if the configuration is enough.

    Raises:
        SourceError: there is no such folder, it lacks the files, or the hub cannot be reached and did not leave them
            here before.
    """
    path = Path(name).expanduser()
    if not path.is_dir() and not name.startswith((".", "/", "~")):
        path = _from_hub(name, revision, weights)
    elif revision is not None:
        raise SourceError(say("revision", "is for repositories of a hub, not for folders", revision))
    elif not path.is_dir():
        raise SourceError(say(f"hf/{name}", "must be a folder", str(path)))
    _check(name, [p.name for p in path.iterdir()], weights)
    return path


def has_tokenizer(folder: Path) -> bool:
    """There are files that a tokenizer can be made of; without them transformers makes an empty one."""
    return any((folder / name).is_file() for name in _TOKENIZER)


def _check(name: str, files: Iterable[str], weights: bool) -> None:
    found = sorted(files)
    if "config.json" not in found:
        what = "an adapter of peft" if "adapter_config.json" in found else found[:8]
        raise SourceError(say(f"hf/{name}", "must have a config.json", what, "Give the folder that the model's "
                              "`save_pretrained` wrote."))  # fmt: skip
    if not weights or any(f.endswith(".safetensors") for f in found):
        return
    old = [f for f in found if f.endswith(_OLD)]
    remedy = ("Pickles are never read. Convert them on a machine that trusts them: load the model there and call "
              "`save_pretrained`.") if old else "Or ask for random weights: ?pretrained=false"  # fmt: skip
    raise SourceError(say(f"hf/{name}", "must have its weights as safetensors", old or found[:8], remedy))


# -- the hub -----------------------------------------------------------------------------------------------------------


def _from_hub(name: str, revision: str | None, weights: bool) -> Path:
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError as problem:
        raise missing_extra("huggingface_hub", "text", "A model of a hub") from problem
    try:
        try:
            about = hub.model_info(name, revision=revision, timeout=WAIT)
        except (ValueError, hub.errors.HfHubHTTPError):  # no such name, no such revision, no access
            raise
        except Exception as problem:  # the client's network errors have no common base of its own
            return _kept(hub, name, revision, problem)
        files = [f.rfilename for f in about.siblings or ()]
        _check(name, [f for f in files if "/" not in f], weights)
        return Path(hub.snapshot_download(name, revision=about.sha, allow_patterns=_needed(files, weights)))
    except SourceError:
        raise
    except Exception as problem:  # as above
        got = f"{type(problem).__name__}: {str(problem).strip().splitlines()[0] if str(problem).strip() else ''}"
        remedy = "It is neither a folder here nor a model that the hub gives. Check the name and the access."
        raise SourceError(say(f"hf/{name}", "must be there", got, remedy)) from problem


def _kept(hub: Any, name: str, revision: str | None, problem: Exception) -> Path:
    """What an earlier download left here."""
    try:
        return Path(hub.snapshot_download(name, revision=revision, local_files_only=True))
    except OSError:
        remedy = "There is no such folder, and no earlier download. Check the name, or the network."
        got = f"{type(problem).__name__}: {problem}"
        raise SourceError(say(f"hf/{name}", "must be here, or the hub within reach", got, remedy)) from problem


def _needed(files: Iterable[str], weights: bool) -> list[str]:
    """Files of the model itself: no other formats, no copies in sub-folders."""
    wanted = [f for f in files if "/" not in f and f.endswith(_WANTED) and not f.startswith("consolidated")]
    pooling = [f for f in files if f == "1_Pooling/config.json"]
    return [f for f in wanted if weights or not f.endswith(".safetensors")] + pooling


# -- small files -------------------------------------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    """What a JSON file says, None if it is not there.

    Raises:
        SourceError: it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as problem:
        raise SourceError(say(str(path), "must be a JSON file that can be read", str(problem))) from problem


def pooling(folder: Path) -> str | None:
    """How a sentence encoder makes one vector of many, as its files say; None if they do not.

    Raises:
        SourceError: in a way that we do not have.
    """
    said = read_json(folder / "1_Pooling" / "config.json")
    if not isinstance(said, dict):
        return None
    modes = sorted(name for name, on in said.items() if name.startswith("pooling_mode_") and on is True)
    if modes == ["pooling_mode_cls_token"]:
        return "first"
    if modes != ["pooling_mode_mean_tokens"]:
        remedy = 'Say how it should be done: ?pooling=mean, "mean-unit" or "first".'
        raise SourceError(say(str(folder / "1_Pooling"), "must ask for the mean or the first token", modes, remedy))
    steps = read_json(folder / "modules.json") or []
    unit = any(isinstance(step, dict) and str(step.get("type", "")).endswith("Normalize") for step in steps)
    return "mean-unit" if unit else "mean"


def pixels(folder: Path) -> tuple[Preprocessing, tuple[int, int] | None]:
    """How an image model wants its pixels, and the (height, width) it is given, from `preprocessor_config.json`.

    Raises:
        SourceError: there is no such file, or it asks for what we do not do. A guess would cost accuracy silently.
    """
    path = folder / "preprocessor_config.json"
    said = read_json(path)
    if not isinstance(said, dict):
        remedy = "Give preprocess=(mean, std), per channel for pixels in [0, 1]."
        raise SourceError(say(str(path), "must say how pixels are normalised", said, remedy))
    if said.get("do_rescale", True) is not True or abs(float(said.get("rescale_factor", 1 / 255)) * 255 - 1) > 1e-3:
        got = {k: said.get(k) for k in ("do_rescale", "rescale_factor")}
        raise SourceError(say(str(path), "must bring pixels from 0..255 to 0..1", got, "Give preprocess=(mean, std)."))
    mean, std = said.get("image_mean"), said.get("image_std")
    if said.get("do_normalize", True) is not True or mean is None or std is None:
        mean, std = (0.0,), (1.0,)
    how = _RESAMPLING.get(said.get("resample", 2), "bilinear")
    made = Preprocessing(mean=tuple(map(float, mean)), std=tuple(map(float, std)), interpolation=how)
    return made, _height_width(said.get("crop_size") if said.get("do_center_crop") else said.get("size"))


def _height_width(size: Any) -> tuple[int, int] | None:
    """From 224, {"shortest_edge": 224} or {"height": 224, "width": 224}."""
    if isinstance(size, dict):
        size = size.get("shortest_edge") or (size.get("height"), size.get("width"))
    pair = (size, size) if isinstance(size, int) else size
    return (pair[0], pair[1]) if isinstance(pair, tuple) and all(isinstance(n, int) for n in pair) else None
