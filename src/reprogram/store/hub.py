"""Programs on a model hub: one file and a page about it. The only door to `huggingface_hub`, which is an extra."""

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from reprogram._version import __version__
from reprogram.core.errors import ArtifactError, ConfigError, missing_extra, say
from reprogram.store.card import ProgramCard
from reprogram.store.program import read
from reprogram.store.tensors import DEFAULT_LIMITS, Limits

FILE = "program.safetensors"
_REMEDY = "Check the name, the access (`hf auth login`, or a token) and the network."


def push_to_hub(
    path: str | os.PathLike[str],
    repo_id: str,
    *,
    token: str | None = None,
    private: bool = False,
    endpoint: str | None = None,
    message: str = "Upload a program",
) -> str:
    """Put a program file on a hub, with a page (README.md) made from its card.

    Args:
        path: the file; it is read and checked first.
        repo_id: "user/name"; made if it does not exist. A page that is there is replaced.
        token: access token; by default the one that `hf auth login` stored.
        private: make a new repository private.
        endpoint: address of the hub; by default the environment's `HF_ENDPOINT`, or huggingface.co.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        MissingExtraError: `huggingface_hub` is not installed.
        ConfigError: `repo_id` is no name of a repository.
        ArtifactError: the file is not a program, or the hub could not be reached or refused.
    """
    hub = _client(repo_id)
    card = read(path).card
    operations = [
        hub.CommitOperationAdd(path_in_repo=FILE, path_or_fileobj=os.fspath(path)),
        hub.CommitOperationAdd(path_in_repo="README.md", path_or_fileobj=page(card, repo_id).encode()),
    ]
    with _asking(repo_id, "must take the upload"):
        api = hub.HfApi(endpoint=endpoint, token=token, library_name="reprogram", library_version=__version__)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.create_commit(repo_id, operations, commit_message=message).commit_url)


def from_hub(
    repo_id: str,
    *,
    revision: str | None = None,
    endpoint: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Path:
    """Fetch a program file from a hub, that one file only, and check it. Without a network, a cached copy will do.

    Args:
        repo_id: "user/name".
        revision: branch, tag or commit.
        endpoint: address of the hub; by default the environment's `HF_ENDPOINT`, or huggingface.co.
        cache_dir: where to keep it; by default the hub library's cache.
        token: access token; by default the one that `hf auth login` stored.
        limits: how big it may be; a bigger one is not downloaded.

    Returns:
        Where the file now is, for `reprogram.load`.

    Raises:
        MissingExtraError: `huggingface_hub` is not installed.
        ConfigError: `repo_id` is no name of a repository.
        ArtifactError: the hub could not be reached or has no such file, or the file is not a sound program.
    """
    hub = _client(repo_id)
    with _asking(repo_id, f"must be a repository with a {FILE} that can be read"):
        try:
            url = hub.hf_hub_url(repo_id, FILE, revision=revision, endpoint=endpoint)
            size, offline = hub.get_hf_file_metadata(url, token=token, endpoint=endpoint).size, None
        except (hub.errors.EntryNotFoundError, hub.errors.RevisionNotFoundError):
            raise
        except Exception as error:  # its errors are of many families
            size, offline = None, error
        most = limits.header_bytes + limits.tensor_bytes
        if size is not None and size > most:
            raise ArtifactError(say(repo_id, f"must hold a program of at most {most} bytes", size))
        try:
            path = hub.hf_hub_download(repo_id, FILE, revision=revision, endpoint=endpoint, cache_dir=cache_dir,
                                       token=token, local_files_only=offline is not None)  # fmt: skip
        except hub.errors.LocalEntryNotFoundError as error:
            raise offline or error from None
    read(path, limits)
    return Path(path)


def page(card: ProgramCard, repo_id: str) -> str:
    """The page about a program, in Markdown with the hub's header."""
    task = card.task.name if card.task else "no task"
    head = {
        "library_name": "reprogram",
        "license": "unknown",
        "tags": ["reprogram", "model-reprogramming", card.method],
    }
    if card.task and card.task.modality == "image":
        head["pipeline_tag"] = "image-classification"
    facts = {
        "method": card.method,
        "taxonomy": "; ".join(f"{axis}: {', '.join(values) or 'none'}" for axis, values in card.taxonomy.items()),
        "source": f"{card.source.ref} (fingerprint {card.source.fingerprint[:12]})",
        "task": f"{task} ({len(card.task.classes)} classes)" if card.task else task,
        "learned numbers": f"{card.parameters.allocated} ({card.parameters.effective} effective)",
        "fitted numbers": str(card.parameters.fitted),
        "seed": str(card.seed),
        "made": f"{card.created}, reprogram {card.library_version}",
    }
    metrics = {name: str(value) for name, value in card.metrics.items()}
    parts = [
        "---\n" + "".join(f"{name}: {json.dumps(value)}\n" for name, value in head.items()) + "---",
        f"# {_plain(task)}: {_plain(card.method)} on {_plain(card.source.ref)}",
        "A small program that makes a frozen model do this task; the model itself is not in the file. "
        "Its licence is unknown: ask whoever uploaded it.",
        _table("fact", facts),
        "## Metrics\n\n" + _table("metric", metrics) if metrics else "",
        "## Notes\n\n" + "\n".join(f"- {_plain(note)}" for note in card.notes) if card.notes else "",
        "## Use\n\n```python\nimport reprogram as rp\nfrom reprogram.store import from_hub\n\n"
        f"program = rp.load(from_hub({json.dumps(repo_id)}))\n```",
        "## Citation\n\n" + _indented(card.citation) if card.citation else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(what: str, rows: dict[str, str]) -> str:
    return "\n".join([f"| {what} | value |", "|---|---|", *(f"| {_plain(k)} | {_plain(v)} |" for k, v in rows.items())])


def _plain(text: str) -> str:
    """Text in which nothing is Markdown, HTML or a new line."""
    one = " ".join(text.split())
    return "".join(f"&#{ord(c)};" if c in "<>&|`*_[]\\#~$!" else c for c in one)


def _indented(text: str) -> str:
    """A block that no text can break out of."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _client(repo_id: str) -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise missing_extra("huggingface_hub", "hub", "Sharing programs on a hub") from error
    try:
        huggingface_hub.utils.validate_repo_id(repo_id)
    except ValueError as error:
        raise ConfigError(say("repo_id", 'must be "user/name"', repo_id, str(error))) from None
    return huggingface_hub


@contextmanager
def _asking(repo_id: str, requirement: str) -> Generator[None]:
    """Give every failure of the hub or the network one type."""
    try:
        yield
    except ArtifactError:
        raise
    except Exception as error:  # its errors are of many families, and differ between its versions
        lines = str(error).strip().splitlines() or [""]
        raise ArtifactError(say(repo_id, requirement, f"{type(error).__name__}: {lines[0]}", _REMEDY)) from error
