"""`reprogram doctor`."""

import importlib
import os
import platform
import re
import sys
import tempfile
from dataclasses import dataclass, field
from typing import Any

from reprogram._version import __version__
from reprogram.cli._run import Json, emit, grid, pairs, tell

PACKAGES = ("torch", "torchvision", "numpy", "safetensors", "pydantic", "pillow", "typer", "rich", "timm")


@dataclass(slots=True)
class _Findings:
    """What was found, in plain values."""

    versions: dict[str, str | None] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    extras: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def doctor(json: Json = False) -> None:
    """Check this installation.

    Versions, devices, optional packages, and what is likely to fail.

    Example: `reprogram doctor`
    """
    found = _Findings()
    found.versions = {"reprogram": __version__, "python": platform.python_version()}
    found.versions |= {name: _version(name) for name in PACKAGES}
    _torch(found)
    _torchvision(found)
    _extras(found)
    _folder(found)
    if json:
        emit({"versions": found.versions, **found.machine, "missing": found.extras, "warnings": found.warnings})
        return
    tell(grid(["package", "version"], [(n, v or "not installed") for n, v in found.versions.items()]))
    tell()
    tell(pairs(found.machine))
    tell()
    rows = [(name, "missing: " + ", ".join(gone) if gone else "installed") for name, gone in found.extras.items()]
    tell(grid(["extra", "state"], rows))
    tell()
    for text in found.warnings:
        tell(f"warning: {text}")
    tell("Something may fail; see the warnings." if found.warnings else "Everything looks fine.")


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _torch(found: _Findings) -> None:
    try:
        torch = importlib.import_module("torch")
    except Exception as problem:  # a broken installation can raise anything
        found.warnings.append(f"torch cannot be imported ({_brief(problem)}). Install it again: pip install torch")
        return
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    found.machine = {
        "system": f"{platform.system()} {platform.machine()}",
        "devices": ", ".join(devices),
        "threads": f"{torch.get_num_threads()} for torch, {os.cpu_count()} cores",
    }
    numbers = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if numbers and (int(numbers[1]), int(numbers[2])) < (2, 10):
        found.warnings.append(f"torch {torch.__version__} is older than 2.10, whose loader of weights is the safe one.")


def _torchvision(found: _Findings) -> None:
    """A torchvision made for another torch fails when it registers its operators."""
    if not found.versions["torchvision"]:
        return
    try:
        importlib.import_module("torchvision")
    except Exception as problem:
        if "torchvision::" in str(problem) or "undefined symbol" in str(problem) or "libc10" in str(problem):
            text = (
                f"torchvision {found.versions['torchvision']} was made for another torch than "
                f"{found.versions['torch']}, and timm cannot be imported. "
                "Install a matched pair: pip install torch==2.14.1 torchvision==0.29.1"
            )
        else:
            text = f"torchvision cannot be imported: {_brief(problem)}"
        found.warnings.append(text)


def _extras(found: _Findings) -> None:
    """What each extra of this installation lacks, from the distribution's own list."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        needed = requires("reprogram") or []
    except PackageNotFoundError:
        found.warnings.append("reprogram is not installed as a package, so its extras are not known.")
        return
    for line in needed:
        parts = re.match(r"""([\w.-]+)(\[.*?\])?.*;.*extra == ['"]([\w-]+)['"]""", line)
        if parts is None or parts[3] == "dev":
            continue
        gone = found.extras.setdefault(parts[3], [])
        if parts[1] != "reprogram" and _version(parts[1]) is None:
            gone.append(parts[1])
    found.extras.pop("all", None)


def _folder(found: _Findings) -> None:
    found.machine["folder"] = os.getcwd()
    try:
        with tempfile.TemporaryFile(dir="."):
            pass
    except OSError as problem:
        found.warnings.append(f"Nothing can be written to this folder: {problem.strerror}.")
    if sys.stdout.encoding and sys.stdout.encoding.lower().replace("-", "") != "utf8":
        found.warnings.append(f"The terminal's encoding is {sys.stdout.encoding}; names may come out escaped.")


def _brief(problem: Exception) -> str:
    text = " ".join(f"{type(problem).__name__}: {problem}".split())
    return text if len(text) <= 200 else f"{text[:200]}..."
