"""`load_task`: one door for all kinds of data."""

import difflib
import os
from pathlib import Path

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.media.decode import printable
from reprogram.media.files import find
from reprogram.tasks.archive import list_zip
from reprogram.tasks.assemble import Built, announce
from reprogram.tasks.bundled import BUNDLED, PREFIX, build_bundled
from reprogram.tasks.bundled_maps import BUNDLED_MAPS, build_bundled_maps
from reprogram.tasks.bundled_texts import BUNDLED_TEXTS, build_bundled_texts
from reprogram.tasks.dense import build_masks, has_masks
from reprogram.tasks.folder import list_folder
from reprogram.tasks.listing import build
from reprogram.tasks.options import Options
from reprogram.tasks.rows import SUFFIXES
from reprogram.tasks.table import list_table
from reprogram.tasks.task import Task
from reprogram.tasks.text_table import list_text_folder, list_text_table, means_text, split_tables
from reprogram.tasks.texts import build_texts

_KINDS = (
    "a folder with one sub-folder of pictures a class, a .zip of one, "
    f"a table of pictures or texts ({', '.join(SUFFIXES)}), or a folder with tables called train, val and test"
)


def load_task(  # noqa: PLR0913 (the settings that people type most)
    ref: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    fit: str = "crop",
    seed: int = 0,
    val: float | int = 0.1,
    test: float | int = 0.2,
    few_shot: int | None = None,
    **options: object,
) -> Task:
    """Load a task: classification of pictures or texts, or generation of texts.

    Args:
        ref: a bundled data set (`task_refs()` lists them); a folder, or a zip of one, of the form
            [train|val|test/]class/picture, or of pictures and masks, [train|val|test/]images/1.jpg and masks/1.png
            (see `tasks.dense`); a table with columns for the picture's path or the text, for the class or
            what is to be written and, if need be, the split; or a folder with a table of texts for each split.
        size: height and width in pixels, one number or two. None keeps the size if all pictures have one, and else
            chooses.
        fit: "crop" cuts pictures of another shape to the middle; "squash" changes their aspect ratio.
        seed: of the splits that are made here, and of `few_shot`.
        val: fraction of all examples to take from train for validation, where there is no such split.
        test: the same for the test.
        few_shot: so many training examples of each class; see `Task.few_shot`.
        options: `text`, `label`, `target` and `classes` for texts; `on_error` ("raise" or "skip"), `progress`, and
            others: see `tasks.options.Options`.

    Splits that are not there are made: validation and test from train, or validation from train if there is a test.
    Given train and validation only, validation becomes the test, with a warning. What else is odd is in
    `task.warnings` and goes to the log `reprogram`.

    Raises:
        DataError: there is nothing of that name, or the data cannot be used; the message names file and line.
        ConfigError: an option is unknown or out of range.
        MissingExtraError: an optional package is needed; the message names the extra.
    """
    chosen = Options.of({"size": size, "fit": fit, "seed": seed, "val": val, "test": test, **options})
    task = Task(*announce(_build(ref, chosen)))
    return task if few_shot is None else task.few_shot(few_shot, seed)


def task_refs() -> dict[str, str]:
    """Names of bundled data sets, each with one line about it."""
    known = {ref: bundled.summary for ref, bundled in {**BUNDLED, **BUNDLED_TEXTS}.items()}
    return dict(sorted({**known, **BUNDLED_MAPS}.items()))


def _build(ref: str | os.PathLike[str], options: Options) -> Built:
    for known, make in (
        (BUNDLED, build_bundled), (BUNDLED_TEXTS, build_bundled_texts), (BUNDLED_MAPS, build_bundled_maps)
    ):  # fmt: skip
        if os.fspath(ref) in known:
            return make(os.fspath(ref), options)
    path = Path(ref)
    if not os.fspath(ref) or not path.exists():
        raise _unknown(path)
    if path.suffix.lower() in SUFFIXES and not path.is_dir():
        if means_text(path, options):
            return build_texts(list_text_table(path, options), options)
        return build(list_table(path, options), options)
    if path.is_dir():
        return _build_folder(path, options)
    if path.suffix.lower() == ".zip":
        _check_no_columns(options)
        return build(list_zip(path), options)
    raise DataError(say(printable(path), f"must be {_KINDS}", f"a {path.suffix or 'nameless'} file"))


def _build_folder(path: Path, options: Options) -> Built:
    """A folder of texts if it holds a table of texts called train and no pictures, or the options say so.

    One of pictures and masks if it has folders called images and masks, and the options do not say `kind="image"`.
    """
    if options.kind is None and has_masks(path):
        return build_masks(path, options)
    tables = split_tables(path) if options.means_text is not False else {}
    if options.means_text and "train" not in tables:
        raise DataError(say(printable(path), f"must hold a table called train ({', '.join(SUFFIXES)})", sorted(tables)))
    texts = "train" in tables and means_text(tables["train"][0], options)
    if texts and (options.means_text or not find(path, allow_outside=options.allow_outside).pictures):
        return build_texts(list_text_folder(path, tables, options), options)
    _check_no_columns(options)
    return build(list_folder(path, options), options)


def _check_no_columns(options: Options) -> None:
    for option in ("image", "label", "split", "text", "target", "classes"):
        if getattr(options, option) is not None:
            raise ConfigError(say(option, "must be left out for folders and archives", getattr(options, option)))


def _unknown(path: Path) -> DataError:
    name = printable(path)
    try:
        beside = [printable(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError:
        beside = []
    refs = list(task_refs())
    known = {**{ref.removeprefix(PREFIX): ref for ref in refs}, **{other: other for other in [*refs, *beside]}}
    near = difflib.get_close_matches(name, known, 1, 0.6)
    remedy = f"Did you mean {known[near[0]]!r}?" if near else ""
    return DataError(say("task", f"must be one of {refs}, or the path of {_KINDS}", name, remedy))
