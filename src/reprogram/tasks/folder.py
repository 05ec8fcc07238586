"""Tasks from folders: the names of the folders say the class, and where there is a level for it, the split.

root/cat/1.jpg                 one folder a class; splits are made
root/train/cat/1.jpg           one folder a split, then one a class; missing splits are made
root/anything/train/cat/1.jpg  a single folder around everything is passed over
root/cat/2019/may/1.jpg        folders inside a class's folder make no difference
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reprogram.core.errors import DataError, say
from reprogram.media.decode import printable
from reprogram.media.files import find
from reprogram.tasks.assemble import few
from reprogram.tasks.columns import SPLIT_NAMES
from reprogram.tasks.listing import Listing
from reprogram.tasks.options import Options
from reprogram.tasks.pixels import FileReader, Item


@dataclass(slots=True)
class Layout:
    """What paths say.

    Attributes:
        placed: (path, split or "", class) of each picture.
        notes: warnings about what is left out.
    """

    placed: list[tuple[str, str, str]] = field(default_factory=lambda: [])
    notes: list[str] = field(default_factory=lambda: [])


def list_folder(root: Path, options: Options) -> Listing:
    """The pictures in a folder.

    Raises:
        DataError: it cannot be read, or two of its folders mean one split.
    """
    found = find(root, allow_outside=options.allow_outside)
    layout = read_layout(found.pictures, found.folders)
    layout.notes += describe(found.others, "files that are no PNG, JPEG or WEBP are left out")
    layout.notes += describe(found.broken, "links that lead nowhere are left out")
    layout.notes += describe(found.outside, "links out of the folder are left out (`allow_outside=True` follows them)")
    items = [
        Item(printable(path), printable(root / path), label, split, FileReader(str(root / path)))
        for path, split, label in layout.placed
    ]
    return Listing(name_of(root), items, None, tuple(layout.notes))


def read_layout(pictures: Sequence[str], folders: Sequence[str]) -> Layout:
    """Read splits and classes off relative paths.

    >>> read_layout(["a/1.png", "b/x/2.png"], ["a", "b", "b/x", "c"])
    Layout(placed=[('a/1.png', '', 'a'), ('b/x/2.png', '', 'b')], notes=['1 empty class folders are left out: c.'])

    Raises:
        DataError: two folders mean the same split.
    """
    everything = [tuple(path.split("/")) for path in (*pictures, *folders)]
    depth = _wrapping(everything, len(pictures))
    tops = {path[depth] for path in everything[len(pictures) :] if len(path) > depth}
    direct = {path[depth] for path in everything[: len(pictures)] if len(path) == depth + 2}
    splits = _splits(tops, direct, everything[len(pictures) :], depth)
    layout, stray, used = Layout(), list[str](), set[tuple[str, ...]]()
    for path, parts in zip(pictures, everything, strict=False):
        split = splits.get(parts[depth], "") if splits else ""
        level = depth + bool(splits)
        if len(parts) < level + 2 or (splits and not split):
            stray.append(path)
            continue
        layout.placed.append((path, split, plain(parts[level])))
        used.add(parts[: level + 1])
    layout.notes += describe(stray, "pictures outside the folders of classes are left out")
    level = depth + bool(splits)
    classes = [p for p in everything[len(pictures) :] if len(p) == level + 1 and (not splits or p[depth] in splits)]
    empty = {plain(parts[level]) for parts in classes} - {plain(parts[level]) for parts in used}
    layout.notes += describe(sorted(empty), "empty class folders are left out")
    return layout


def describe(names: Sequence[str], what: str) -> list[str]:
    """A warning that counts and names some of the names; none if there are none.

    >>> describe(["a.txt"], "files are left out")
    ['1 files are left out: a.txt.']
    """
    return [f"{len(names)} {what}: {few([printable(n) for n in names])}."] if names else []


def name_of(path: Path) -> str:
    """What a task from this path is called.

    >>> name_of(Path("data/pets.zip"))
    'pets'
    """
    resolved = path.resolve()
    return printable(resolved.name if path.is_dir() else resolved.stem) or "task"


def _wrapping(paths: Sequence[tuple[str, ...]], pictures: int) -> int:
    """How many single folders are around everything that matters."""
    depth = 0
    while True:
        tops = {path[depth] for path in paths if len(path) > depth}
        direct = any(len(path) <= depth + 2 for path in paths[:pictures])
        deeper = {path[depth + 1] for path in paths[pictures:] if len(path) > depth + 1}
        if len(tops) != 1 or direct or not deeper or SPLIT_NAMES.get(next(iter(tops)).lower()):
            return depth
        depth += 1


def _splits(tops: set[str], direct: set[str], folders: Sequence[tuple[str, ...]], depth: int) -> dict[str, str]:
    """Which top folders are splits: those named so, if one called train holds folders and no pictures itself."""
    named = {top: SPLIT_NAMES[top.lower()] for top in tops if top.lower() in SPLIT_NAMES}
    with_folders = {path[depth] for path in folders if len(path) > depth + 1}
    if not any(split == "train" and top in with_folders - direct for top, split in named.items()):
        return {}
    if len(set(named.values())) < len(named):
        raise DataError(say("folders", "must be one for each split", sorted(named), "Rename or merge them."))
    return named


def plain(name: str) -> str:
    """A name as a class name: one Unicode form, whatever the disk uses, and nothing that cannot be written."""
    return unicodedata.normalize("NFC", printable(name))
