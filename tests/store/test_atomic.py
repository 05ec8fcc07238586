"""What is on the disk after a fault, a kill, a power cut or a race: always one whole file, and no temporary one."""

import errno
import os
import random
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from reprogram.store import atomic, write_atomic

OLD, PIECES = b"old" * 1000, [b"new", memoryview(b"er" * 5000), b"", b"!"]
NEW = b"".join(PIECES)
DEAD = 2**22 + 12345  # above the largest number that a Linux process can have


class Faults:
    """Stands in for `atomic._call`: remembers all calls to the system and makes number `at` fail.

    `late` fails after the call was carried out, as when an interrupt comes just then. A close always closes.
    """

    def __init__(self, at: int | None = None, error: BaseException | None = None, late: bool = False) -> None:
        self.at, self.error, self.late = at, error, late
        self.calls: list[tuple[str, tuple]] = []
        self.results: list[object] = []
        self.longest: int | None = None

    def __call__(self, function, *args, **kwargs):
        name = function.__name__
        if name == "write":
            args = (args[0], bytes(args[1][: self.longest]))
        failing = len(self.calls) == self.at
        self.calls.append((name, args))
        self.results.append(None)
        if failing and not self.late and name != "close":
            raise self.error
        self.results[-1] = result = function(*args, **kwargs)
        if failing:
            raise self.error
        return result

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


@contextmanager
def watching(**kwargs):
    watch, before = Faults(**kwargs), atomic._call
    atomic._call = watch
    try:
        yield watch
    finally:
        atomic._call = before


def left(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


@pytest.mark.parametrize("chunks", [b"", b"x", b"x" * 3_000_000, [b"a", b"", memoryview(b"b")], [], bytearray(b"x")])
def test_writes_what_it_is_given(tmp_path, chunks):
    write_atomic(tmp_path / "f", chunks)
    assert (tmp_path / "f").read_bytes() == (b"".join(chunks) if isinstance(chunks, list) else chunks)
    assert left(tmp_path) == {"f"}


def test_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_atomic("f", b"x")
    assert left(tmp_path) == {"f"}


def test_the_order_of_the_calls(tmp_path):
    with watching() as seen:
        write_atomic(tmp_path / "f", [b"a", b"b"])
    assert seen.names == ["realpath", "stat", "listdir", "open", "write", "write", "fsync", "close", "replace",
                          "open", "fsync", "close"]  # fmt: skip


def test_short_writes_are_carried_on(tmp_path):
    with watching() as seen:
        seen.longest = 999
        write_atomic(tmp_path / "f", PIECES)
    assert (tmp_path / "f").read_bytes() == NEW
    assert seen.names.count("write") > 10


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "broken"), KeyboardInterrupt()], ids=repr
)
def test_a_fault_at_every_call_leaves_old_or_new(tmp_path, error, exists, late):
    target, stale = tmp_path / "f", tmp_path / f".f.{DEAD}-{atomic._here()}0123abcd.tmp"
    before = OLD if exists else None
    hit: list[str] = []
    for at in range(100):
        target.unlink(missing_ok=True)
        if exists:
            target.write_bytes(OLD)
        stale.write_bytes(b"stale")
        raised = None
        with watching(at=at, error=error, late=late) as seen:
            try:
                write_atomic(target, PIECES)
            except BaseException as caught:
                raised = caught
        if at >= len(seen.calls):
            assert raised is None
            break
        hit.append(seen.names[at])
        now = target.read_bytes() if target.exists() else None
        renamed = "replace" in (seen.names[: at + 1] if late else seen.names[:at])
        assert raised in (error, None)
        assert now == (NEW if renamed or raised is None else before)
        assert left(tmp_path) <= {"f", stale.name}
    assert set(hit) >= {"realpath", "stat", "listdir", "kill", "unlink", "open", "write", "fsync", "close", "replace"}
    assert hit.count("write") == 3
    assert hit.count("fsync") == 2


def test_no_descriptor_is_lost(tmp_path):
    before = open_files()
    for at in range(20):
        with watching(at=at, error=OSError(errno.EIO, "broken")), suppress(OSError):
            write_atomic(tmp_path / "f", PIECES)
    assert open_files() == before


def test_a_fault_in_the_data_leaves_the_old_file(tmp_path):
    def pieces():
        yield b"new"
        raise ZeroDivisionError

    (tmp_path / "f").write_bytes(OLD)
    with pytest.raises(ZeroDivisionError):
        write_atomic(tmp_path / "f", pieces())
    assert (tmp_path / "f").read_bytes() == OLD
    assert left(tmp_path) == {"f"}


def test_a_directory_that_cannot_be_flushed_is_no_error(tmp_path):
    (tmp_path / "f").write_bytes(OLD)
    with watching() as seen:
        write_atomic(tmp_path / "f", b"x")
    last = max(n for n, name in enumerate(seen.names) if name == "fsync")
    with watching(at=last, error=OSError(errno.EINVAL, "not here")):
        write_atomic(tmp_path / "f", b"y")
    assert (tmp_path / "f").read_bytes() == b"y"


def power_cut(seen: Faults, target: str, rng: random.Random) -> bytes | None:
    """What `target` may hold if the power fails after some of the calls: what was not flushed is kept, lost or cut."""
    data: dict[int, list[tuple[bytes, bool]]] = {}
    links, pending = {target: -1}, []
    descriptors: dict[object, str] = {}
    names = {target: -1}
    stop = rng.randrange(len(seen.calls) + 1)
    for number, ((name, args), result) in enumerate(zip(seen.calls, seen.results, strict=True)):
        if number == stop:
            break
        if name == "open":
            descriptors[result] = args[0]
            if args[0].endswith(".tmp"):
                names[args[0]] = number
                data[number] = []
                pending.append((args[0], None, number))
        elif name == "write":
            data[names[descriptors[args[0]]]].append((args[1], False))
        elif name == "fsync" and descriptors[args[0]] in names:
            file = names[descriptors[args[0]]]
            data[file] = [(chunk, True) for chunk, _ in data[file]]
        elif name == "fsync":
            for new, old, file in pending:
                links[new] = file
                links.pop(old, None)
            pending = []
        elif name == "replace":
            names[args[1]] = names.pop(args[0])
            pending.append((args[1], args[0], names[args[1]]))
    for new, _old, file in pending:
        if rng.random() < 0.5:
            links[new] = file
    if links[target] == -1:
        return OLD
    kept = [
        c if safe or rng.random() < 0.5 else rng.choice([b"", b"\0" * len(c), c[: len(c) // 2]])
        for c, safe in data[links[target]]
    ]
    return b"".join(kept)


def test_a_power_cut_leaves_old_or_new(tmp_path):
    (tmp_path / "f").write_bytes(OLD)
    with watching() as seen:
        write_atomic(tmp_path / "f", PIECES)
    rng = random.Random(0)
    found = [power_cut(seen, str(tmp_path / "f"), rng) for _ in range(2000)]
    assert set(found) == {OLD, NEW}
    broken = Faults()  # the same without the flush of the file: the simulator must notice
    kept = [n for n, name in enumerate(seen.names) if n != seen.names.index("fsync")]
    broken.calls, broken.results = [seen.calls[n] for n in kept], [seen.results[n] for n in kept]
    assert len({power_cut(broken, str(tmp_path / "f"), rng) for _ in range(2000)}) > 2


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_permissions(tmp_path):
    for mask in [0o022, 0o077]:
        before = os.umask(mask)
        try:
            write_atomic(tmp_path / f"f{mask}", b"x")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / f"f{mask}").stat().st_mode) == 0o666 & ~mask
    (tmp_path / "private").write_bytes(b"")
    (tmp_path / "private").chmod(0o600)
    write_atomic(tmp_path / "private", b"x")
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600
    with watching() as seen:
        write_atomic(tmp_path / "private", b"x")
    assert seen.calls[seen.names.index("open")][1][2] == 0o600  # never readable by others, not for a moment


def test_links_are_followed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "real").write_bytes(OLD)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "real")
    (tmp_path / "dangling").symlink_to("a/later")
    write_atomic(tmp_path / "link", b"x")
    write_atomic(tmp_path / "dangling", b"y")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "dangling").is_symlink()
    assert (tmp_path / "a" / "real").read_bytes() == b"x"
    assert (tmp_path / "a" / "later").read_bytes() == b"y"
    assert left(tmp_path / "a") == {"real", "later"}


def test_only_ordinary_files_are_replaced(tmp_path):
    with pytest.raises(IsADirectoryError):
        write_atomic(tmp_path, b"x")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not an ordinary file"):
        write_atomic(tmp_path / "pipe", b"x")
    with pytest.raises(OSError, match="not an ordinary file"):
        write_atomic("/dev/null", b"x")
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "no" / "f", b"x")
    assert left(tmp_path) == {"pipe"}


def test_only_our_own_dead_temporary_files_are_cleaned(tmp_path):
    here = atomic._here()
    dead = f".f.{DEAD}-{here}0123abcd.tmp"
    spared = {
        f".f.{os.getpid()}-{here}0123abcd.tmp",  # alive
        f".f.1-{here}0123abcd.tmp",  # alive, not ours to signal
        f".f.{DEAD}-{'0' * 8}0123abcd.tmp",  # of another machine
        f".g.{DEAD}-{here}0123abcd.tmp",  # of another target
        f".f.{DEAD}-{here}0123abcd.tmp.txt",
        f".f.x-{here}0123abcd.tmp",
        "f.tmp",
    }
    for name in {dead, *spared}:
        (tmp_path / name).write_bytes(b"")
    write_atomic(tmp_path / "f", b"x")
    assert left(tmp_path) == {"f", *spared}


# ---- other processes -----------------------------------------------------------------------------------------------

# The one file is loaded by its path, which saves the import of torch.
ATOMIC = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("atomic", {atomic.__file__!r})
atomic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(atomic)
path, me = sys.argv[1:]
"""
FEW = ATOMIC + "for n in range(20): atomic.write_atomic(path, [f'{me}.{n:03d}|'.encode() * 4000] * 5)\n"
FOREVER = ATOMIC + (
    "print('ready', flush=True)\nn = 0\n"
    "while True:\n    n += 1\n    atomic.write_atomic(path, [f'{me}.{n:06d}|'.encode() * 500] * 20)\n"
)


def start(program: str, *args: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-S", "-c", program, *map(str, args)], stdout=subprocess.PIPE)


def whole(data: bytes) -> bool:
    first, rest = data.split(b"|", 1)
    return len(rest) > 1000 and data == (first + b"|") * (len(data) // (len(first) + 1))


def test_concurrent_writers_never_tear(tmp_path):
    target = tmp_path / "f"
    write_atomic(target, b"start|" * 10_000)
    writers = [start(FEW, target, me) for me in "abcd"]
    looked = 0
    while any(w.poll() is None for w in writers):
        assert whole(target.read_bytes())
        looked += 1
    assert [w.wait() for w in writers] == [0] * 4
    for writer in writers:
        writer.stdout.close()
    assert target.read_bytes()[2:6] == b"019|"
    assert looked > 10
    assert left(tmp_path) == {"f"}


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_kill_9(tmp_path):
    target, rng = tmp_path / "f", random.Random(0)
    write_atomic(target, b"start|" * 10_000)
    kills_in_mid_write = 0
    for kill in range(20):
        writer = start(FOREVER, target, kill)
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0.001, 0.05))
        os.kill(writer.pid, signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
        writer.stdout.close()
        assert whole(target.read_bytes())
        kills_in_mid_write += len(left(tmp_path)) > 1
        assert len(left(tmp_path)) <= 2  # the next writer cleans up after the one before
    write_atomic(target, b"end")
    assert left(tmp_path) == {"f"}
    assert kills_in_mid_write > 0
