import io
import random
import stat
import struct
import time
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from reprogram.core.errors import DataError
from reprogram.tasks import load_task
from reprogram.tasks.archive import list_zip

SHARED = Path(__file__).parents[3] / "shared" / "data" / "cifar10_small.zip"


def pack(path, entries, **options):
    """Write (name, data) pairs, or (ZipInfo, data)."""
    with (
        zipfile.ZipFile(path, "w", **({"compression": zipfile.ZIP_DEFLATED} | options)) as archive,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # "Duplicate name"
        for name, data in entries:
            archive.writestr(name, data)
    return path


@pytest.fixture
def entries(pets):
    return [(str(p.relative_to(pets.parent)), p.read_bytes()) for p in sorted(pets.rglob("*.png"))]


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_its_folder(how, entries, pets):
    path = pack(pets.parent / "pets.zip", entries, compression=how)
    task, folder = load_task(path), load_task(pets)
    assert task.name == folder.name == "pets" and task.classes == folder.classes and task.warnings == ()
    for name, split in task.splits.items():
        assert split.digest() == folder.splits[name].digest()
    assert task.train.names[0] == f"pets/{folder.train.names[0]}"


def test_files_are_read_in_place_where_memory_lacks(entries, tmp_path):
    path = pack(tmp_path / "p.ZIP", entries)
    kept, lazy = load_task(path), load_task(path, memory=1)
    rows = torch.arange(len(kept.train))
    assert torch.equal(kept.train.fetch(rows), lazy.train.fetch(rows))
    path.write_bytes(b"PK" + bytes(path.stat().st_size))
    with pytest.raises(DataError, match="must be an undamaged entry"):
        lazy.train.fetch(rows)
    path.unlink()
    with pytest.raises(DataError, match="must be an undamaged entry"):
        lazy.train.fetch(rows)


def test_what_systems_add_is_left_out(entries, tmp_path):
    extra = [("__MACOSX/pets/cat/._0.png", b"x"), ("pets/.DS_Store", b"x"), ("pets/cat/", b""), ("pets/owl/", b"")]
    task = load_task(pack(tmp_path / "p.zip", [*entries, *extra, ("pets/cat/about.txt", b"x")]))
    assert sum(map(len, task.splits.values())) == 20
    assert task.warnings == (
        "1 empty class folders are left out: owl.",
        "1 files that are no PNG, JPEG or WEBP are left out: pets/cat/about.txt.",
    )


@pytest.mark.parametrize(
    "name",
    ["../evil.png", "a/../../evil.png", "/etc/evil.png", "a//b.png", "C:/evil.png", "a\\..\\b.png", "..", "a/.."],
)
def test_names_that_lead_out(name, entries, tmp_path):
    path = pack(tmp_path / "p.zip", [*entries, (name, b"x")])
    with pytest.raises(DataError, match="must hold names that stay inside it"):
        load_task(path)
    assert not list(tmp_path.rglob("evil.png"))


def test_a_name_with_a_nul(entries, tmp_path):
    path = pack(tmp_path / "p.zip", [*entries, ("a_b.png", b"x")])
    path.write_bytes(path.read_bytes().replace(b"a_b.png", b"a\0b.png"))
    with pytest.raises(DataError, match="stay inside"):
        load_task(path)


def test_links_are_refused(entries, tmp_path):
    info = zipfile.ZipInfo("pets/cat/link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(DataError, match=r"link\.png` must be a file or a folder, got 'a link or a device'"):
        load_task(pack(tmp_path / "p.zip", [*entries, (info, b"/etc/passwd")]))


def test_names_that_repeat(entries, tmp_path):
    with pytest.raises(DataError, match=r"must hold each name once, got 'pets/cat/0\.png'"):
        load_task(pack(tmp_path / "p.zip", [*entries, entries[0]]))


def patched(path, field, value, entry=0):
    """A zip whose central directory lies: `field` is an offset into the entry's record."""
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2")
    for _ in range(entry):
        at = data.index(b"PK\1\2", at + 4)
    data[at + field : at + field + len(value)] = value
    path.write_bytes(data)
    return path


def test_encrypted_and_exotic(entries, tmp_path):
    with pytest.raises(DataError, match="must not be encrypted"):
        load_task(patched(pack(tmp_path / "p.zip", entries), 8, b"\1\0"))
    with pytest.raises(DataError, match="must be stored or deflated"):
        load_task(pack(tmp_path / "p.zip", entries, compression=zipfile.ZIP_LZMA))


@pytest.mark.parametrize(("field", "value"), [(16, b"abcd"), (20, b"\5\0\0\0"), (24, b"\5\0\0\0"), (24, b"\0\x40\0\0")])
def test_a_directory_that_lies(field, value, entries, tmp_path):
    """Checksum, packed size, unpacked size: what is read must be what was declared."""
    with pytest.raises(DataError, match="must be an undamaged entry"):
        load_task(patched(pack(tmp_path / "p.zip", entries), field, value))


def test_entries_that_overlap(entries, tmp_path):
    path = pack(tmp_path / "p.zip", entries)
    with pytest.raises(DataError, match="must hold entries side by side"):
        load_task(patched(path, 42, struct.pack("<I", 0), entry=1))


def test_bombs_are_refused_before_they_unpack(entries, tmp_path):
    zeros = bytes(40 * 2**20)
    one = pack(tmp_path / "one.zip", [*entries, ("pets/cat/bomb.png", zeros)])
    many = pack(tmp_path / "many.zip", [*entries, *((f"pets/cat/b{i}.png", zeros[: 2**20]) for i in range(40))])
    filler = random.Random(0).randbytes(3 * 2**20)
    hidden = pack(tmp_path / "hidden.zip", [*entries, ("pets/a.bin", filler), ("pets/cat/bomb.png", zeros)])
    lies = patched(pack(tmp_path / "lies.zip", entries), 24, struct.pack("<I", 2**31))
    for path, match in (
        (one, "must unpack to at most"),
        (many, "must unpack to at most"),
        (hidden, "times its packed size"),
        (lies, "must"),
    ):
        tracemalloc.start()
        start = time.perf_counter()
        with pytest.raises(DataError, match=match):
            list_zip(path)
        assert time.perf_counter() - start < 1 and tracemalloc.get_traced_memory()[1] < 2**21
        tracemalloc.stop()


def test_an_entry_never_unpacks_to_more_than_it_says(entries, tmp_path):
    path = patched(pack(tmp_path / "p.zip", [("pets/cat/bomb.png", bytes(900_000)), *entries]), 24, b"\x10\0\0\0")
    item = next(i for i in list_zip(path).items if "bomb" in i.name)
    tracemalloc.start()
    with pytest.raises(DataError, match="undamaged entry"):
        item.bytes()
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()


@pytest.mark.parametrize("data", [b"", b"PK", b"PK\5\6" + bytes(18), b"no zip at all" * 9])
def test_no_zip(data, tmp_path):
    path = tmp_path / "p.zip"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"must be an undamaged zip file|must hold at least one readable picture"):
        load_task(path)


def test_fuzz(entries, tmp_path):
    draw, path = random.Random(0), pack(tmp_path / "p.zip", entries)
    whole, outcomes = path.read_bytes(), {True: 0, False: 0}
    directory = whole.index(b"PK\1\2")
    for _ in range(250):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            start = directory if draw.random() < 0.6 else 0
            at = draw.randrange(start, len(data))
            if draw.random() < 0.8:
                data[at] ^= 1 << draw.randrange(8)
            else:
                del data[at : at + draw.randrange(1, 20)]
        path.write_bytes(data)
        try:
            load_task(path, workers=1)
            outcomes[True] += 1
        except DataError:
            outcomes[False] += 1
    assert min(outcomes.values()) > 10


def test_prefixed_archives(entries, tmp_path):
    """A zip behind something else, as self-extracting ones are."""
    path = pack(tmp_path / "p.zip", entries)
    path.write_bytes(b"#!/bin/sh\n" * 10 + path.read_bytes())
    assert sum(map(len, load_task(path).splits.values())) == 20


def test_cifar():
    if not SHARED.exists():
        pytest.skip(f"{SHARED} is not here; it holds the small CIFAR-10 that development uses")
    task = load_task(SHARED)
    assert len(task.classes) == 10 and task.classes[0] == "airplane"
    assert [len(s) for s in task.splits.values()] == [4500, 500, 2000]
    assert task.spec.sample.shape == (3, 32, 32) and task.spec.sample.fit == "exact"
    assert set(task.train.counts().tolist()) == {450} and set(task.test.counts().tolist()) == {200}
    assert 90 < task.train.fetch(torch.arange(500)).float().mean() < 150


def test_memory_zip_is_no_path():
    with pytest.raises(Exception, match=r"(?i)path|type"):
        load_task(io.BytesIO(b"PK"))
