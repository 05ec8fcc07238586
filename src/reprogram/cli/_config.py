"""A fit's settings: from a YAML file and the command line, which wins, and back into a file beside the run."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reprogram._version import __version__
from reprogram.core.errors import ConfigError, say
from reprogram.core.plain import plain

TEXTS = ("template", "text")
"""Settings whose values are texts, whatever YAML would make of them."""


class RunConfig(BaseModel):
    """Everything that decides what a fit does; the keys of a `--config` file. See `reprogram fit --help`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    task: str
    method: str
    out: str
    preset: str = "auto"
    set: dict[str, Any] = {}
    seed: int = Field(default=0, ge=0)
    few_shot: int | None = Field(default=None, ge=1)
    limit_train: int | None = Field(default=None, ge=1)
    size: int | None = Field(default=None, ge=1)
    skip_unreadable: bool = False
    device: str | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    tensorboard: bool = False
    track_test: bool = False
    controls: Literal["none", "standard", "full"] = "standard"
    report: bool = True


def settle(file: Path | None, given: Mapping[str, object], pairs: Iterable[str]) -> RunConfig:
    """The settings of a fit.

    Args:
        file: a YAML mapping, or None.
        given: what the command line says, by key; it wins over the file.
        pairs: what `--set` says, "name=value" each; they win over the file's `set`.

    Raises:
        ConfigError: the file cannot be read, a key is unknown (the nearest is named), missing or has no such value.
    """
    values = read(file) if file else {}
    where = f"{file}: " if file else ""
    for key in values:
        if key not in RunConfig.model_fields:
            near = get_close_matches(key, RunConfig.model_fields, 1, 0.5)
            remedy = f"Did you mean {near[0]}?" if near else ""
            raise ConfigError(say(f"{where}{key}", f"must be one of {list(RunConfig.model_fields)}", key, remedy))
    settings = values.get("set") or {}
    if not isinstance(settings, dict):
        raise ConfigError(say(f"{where}set", "must map names to values", settings))
    chosen = parse(pairs)
    merged = {k: v for k, v in settings.items() if k not in chosen} | chosen
    try:
        return RunConfig(**{**values, **given, "set": merged})
    except ValidationError as problem:
        raise _explained(problem, where) from None


def parse(pairs: Iterable[str]) -> dict[str, Any]:
    r"""`--set` values; each is read as YAML, but for `template` and `text`, which are texts with braces and colons.

    >>> parse(["lr=0.05", "recipe.milestones=[0.5, 0.8]", "clip_norm=null"])
    {'lr': 0.05, 'recipe.milestones': [0.5, 0.8], 'clip_norm': None}
    >>> parse([r"template=Review: {text}\nMood:", 'words=["bad", "good"]', "text=null"])
    {'template': 'Review: {text}\nMood:', 'words': ['bad', 'good'], 'text': None}

    Raises:
        ConfigError: one is not "name=value", or its value is no YAML.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise ConfigError(say("set", "must be name=value", pair, "For example --set epochs=5."))
        found[name.strip()] = _value(name.strip(), text)
    return found


def _value(name: str, text: str) -> Any:
    r"""A text in quotes is YAML's; one without is taken as it stands, with `\n` for a line break."""
    if name in TEXTS and text.strip() not in ("", "~", "null") and text[0] not in "\"'":
        return text.replace("\\n", "\n")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise ConfigError(say(name, "must have a value that is YAML", text, _first(problem))) from None


def read(file: Path) -> dict[str, Any]:
    """A YAML mapping from a file.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(say("config", "must be a file that can be read", str(file), str(problem))) from None
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise ConfigError(say("config", "must be YAML", str(file), _first(problem))) from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(say("config", "must map names to values", str(file)))
    return values


def text_of(config: RunConfig, settings: object) -> str:
    """The YAML file that repeats a fit exactly.

    Args:
        config: of the fit; values that are defaults are left out.
        settings: the method's, resolved: an instance of its config class. All of them are written down, so that the
            file means the same on another machine.
    """
    values = config.model_dump(exclude_defaults=True)
    values["set"] = plain(asdict(settings))  # pyright: ignore[reportArgumentType]
    head = f"# Written by reprogram {__version__}. Repeat this fit: reprogram fit --config <this file>\n"
    return head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def _explained(problem: ValidationError, where: str) -> ConfigError:
    first = problem.errors(include_url=False)[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return ConfigError(f"`{where}{key}` is missing. Give it as --{key} on the command line or in a --config file.")
    return ConfigError(say(f"{where}{key}", f"cannot be this ({first['msg']})", first["input"]))


def _first(problem: Exception) -> str:
    return " ".join(str(problem).split())
