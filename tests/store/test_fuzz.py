"""Files from strangers: whatever is in them, the answer is an `ArtifactError` or a sound program, and nothing runs."""

import contextlib
import copy
import gzip
import io
import json
import os
import pickle
import random
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from reprogram.core.errors import ArtifactError
from reprogram.store import StoredProgram, read, restore, save, write_tensors

from .forge import forge, header_of, signed
from .parts import tiny_program

RAW, FORGED = 8000, 4000
TIME = "2025-11-30T12:00:00Z"


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "p"
    save(tiny_program(seed=1), path, metrics={"accuracy": 0.5}, seed=1, created=TIME, notes=["one"])
    return path.read_bytes()


# ---- changes to the bytes ------------------------------------------------------------------------------------------


def flip(data: bytes, rng: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    return bytes(made)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def extend(data: bytes, rng: random.Random) -> bytes:
    return data + rng.choice([b"\0", b" ", b"\0" * 64, rng.randbytes(rng.randrange(1, 200)), data])


def splice(data: bytes, rng: random.Random) -> bytes:
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    return rng.choice(
        [data[:a] + data[b:], data[:b] + data[a:], data[b:] + data[:a], data[:a] + bytes(b - a) + data[b:]]
    )


def lie(data: bytes, rng: random.Random) -> bytes:
    true = int.from_bytes(data[:8], "little")
    lies = [
        0,
        1,
        2,
        7,
        true - 1,
        true + 1,
        true - 8,
        true + 8,
        len(data),
        len(data) - 8,
        1 << 20,
        1 << 31,
        1 << 63,
        (1 << 64) - 1,
    ]
    return rng.choice([*lies, rng.getrandbits(64), rng.randrange(len(data))]).to_bytes(8, "little") + data[8:]


def text(data: bytes, rng: random.Random) -> bytes:
    """Something foreign in the middle of the header's JSON, with the length put right."""
    end = 8 + int.from_bytes(data[:8], "little")
    raw, at = data[8:end], rng.randrange(end - 8)
    odd = [b"NaN", b"Infinity", b"1e999", b"-0", b"\\ud800", b"\xff", b"\xef\xbb\xbf", b"\0", b"[" * 500,
           b'{"a":' * 500, b'"', b"\\", b'"b":1,"b":2,', b",", b"/**/", "é\u202e".encode(), b"9" * 5000]  # fmt: skip
    keep = at if rng.random() < 0.5 else min(len(raw), at + rng.randrange(1, 9))
    return forge(raw[:at] + rng.choice(odd) + raw[keep:], data[end:])


def twice(data: bytes, rng: random.Random) -> bytes:
    """A name of the header given twice, first or last."""
    header, body = header_of(data)
    name = rng.choice(list(header))
    raw, again = json.dumps(header).encode(), json.dumps({name: header[name]}).encode()[1:-1]
    return forge(b"{" + again + b"," + raw[1:] if rng.random() < 0.5 else raw[:-1] + b"," + again + b"}", body)


BYTES: list[Callable[[bytes, random.Random], bytes]] = [flip, flip, flip, cut, extend, splice, lie, text, text, twice]


# ---- changes to the meaning, signed anew ---------------------------------------------------------------------------

ODD = [None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, 0.5, "", "F32", "é", "../../x", "a\0b", [], [1], {},
       {"a": 1}, [[]], [-1], [2**62] * 8, [0, 2**42], [0] * 9, [1.0], [True, True], ["0", "4"]]  # fmt: skip
DTYPES = ["F64", "F32", "F16", "BF16", "I64", "U8", "BOOL", "C64", "F8_E4M3", "f32", "Q8"]
NAMES = [
    "",
    " ",
    "a/b",
    "../a",
    "a" * 201,
    "é",
    "\u202e",
    "__metadata__ ",
    "a\n",
    "input.edits.0.delta",
    "\ud800",
    "\0",
]


def tensor_field(header: dict, body: bytes, rng: random.Random) -> tuple[dict, bytes]:
    entry = header[rng.choice([n for n in header if n != "__metadata__"])]
    field = rng.choice(["dtype", "shape", "data_offsets"])
    if field == "dtype" and rng.random() < 0.7:
        entry[field] = rng.choice(DTYPES)
    elif field != "dtype" and rng.random() < 0.6:
        numbers = entry[field]
        numbers[rng.randrange(len(numbers))] += rng.choice([-8, -4, -1, 1, 4, 8, 2**20, 2**63])
    elif rng.random() < 0.2:
        del entry[field]
    else:
        entry[field] = rng.choice(ODD)
    return header, body


def tensor_set(header: dict, body: bytes, rng: random.Random) -> tuple[dict, bytes]:
    name = rng.choice([n for n in header if n != "__metadata__"])
    entry = copy.deepcopy(header[name])
    how = rng.choice(["rename", "drop", "copy", "add", "odd", "many", "extra"])
    if how in ("rename", "drop"):
        del header[name]
    if how in ("rename", "copy"):
        header[rng.choice(NAMES)] = entry
    elif how == "add":
        size = rng.choice([0, 4, 400])
        header["z"] = {"dtype": "F32", "shape": [size // 4], "data_offsets": [len(body), len(body) + size]}
        body += bytes(rng.choice([size, 0]))
    elif how == "odd":
        header[name] = rng.choice(ODD)
    elif how == "many":
        header |= {f"n{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(rng.choice([1, 50]))}
    elif how == "extra":
        header[name]["more"] = rng.choice(ODD)
    return header, body


def metadata_field(header: dict, body: bytes, rng: random.Random) -> tuple[dict, bytes]:
    metadata = header["__metadata__"]
    field = rng.choice([*metadata, "new"])
    metadata[field] = rng.choice(
        [*(o for o in ODD if isinstance(o, str | int | None)), "2", "checkpoint", "{}", "[]", "[" * 999]
    )
    return header, body


def numbers(header: dict, body: bytes, rng: random.Random) -> tuple[dict, bytes]:
    made = bytearray(body)
    at = 4 * rng.randrange(len(made) // 4)
    made[at : at + 4] = rng.choice([b"\0\0\xc0\x7f", b"\0\0\x80\xff", rng.randbytes(4)])
    return header, bytes(made)


def card_field(header: dict, body: bytes, rng: random.Random) -> tuple[dict, bytes]:
    card = json.loads(header["__metadata__"]["card"])
    place = card
    while True:
        key = rng.choice(list(place))
        if not isinstance(place[key], dict) or not place[key] or rng.random() < 0.3:
            break
        place = place[key]
    how = rng.random()
    if how < 0.2:
        del place[key]
    elif how < 0.3:
        place["auto_map"] = {"AutoModel": "evil--repo"}
    else:
        place[key] = rng.choice([*ODD, {"__reduce__": ["os.system", "true"]}, "x" * 10_000])
    header["__metadata__"]["card"] = json.dumps(card)
    return header, body


MEANING = [tensor_field, tensor_field, tensor_set, metadata_field, numbers, card_field, card_field]


# ---- the checks ----------------------------------------------------------------------------------------------------


class Judge:
    """Reads file after file and keeps account of time and memory."""

    def __init__(self, folder: Path, original: bytes) -> None:
        self.path = folder / "p"
        self.path.write_bytes(original)
        self.file = self.path.open(
            "r+b", buffering=0
        )  # kept open: to open it for writing takes longer than all the rest
        self.original = read(self.path)
        self.refused = self.accepted = 0
        self.slowest = 0.0
        self.process = psutil.Process()
        self.memory = self.process.memory_info().rss

    def read(self, data: bytes) -> StoredProgram | None:
        self.file.seek(0)
        self.file.write(data)
        self.file.truncate()
        start = time.perf_counter()
        try:
            stored = read(self.path)
        except ArtifactError as error:
            self.refused += 1
            stored = None
            assert len(str(error)) < 2000
            str(error).encode()
        self.accepted += stored is not None
        self.slowest = max(self.slowest, time.perf_counter() - start)
        return stored

    def close(self) -> None:
        self.file.close()
        grown = self.process.memory_info().rss - self.memory
        print(f"{self.refused} refused, {self.accepted} read, slowest {self.slowest:.3f} s, grown {grown >> 20} MiB")
        assert self.slowest < 1
        assert grown < 64 << 20
        assert os.listdir(self.path.parent) == ["p"]


def test_changed_bytes(tmp_path, sound):
    rng, judge = random.Random(0), Judge(tmp_path, sound)
    for _ in range(RAW):
        data = rng.choice(BYTES)(sound, rng)
        stored = judge.read(data)
        if stored is not None:
            assert stored.card == judge.original.card
            assert stored.tensors.keys() == judge.original.tensors.keys()
            assert all(torch.equal(t, judge.original.tensors[n]) for n, t in stored.tensors.items())
    judge.close()
    assert judge.refused > 0.9 * RAW


def test_changed_meaning_with_the_right_digest(tmp_path, sound):
    rng, judge, program = random.Random(1), Judge(tmp_path, sound), tiny_program(seed=2)
    before = {n: t.clone() for n, t in program.state_dict().items()}
    for _ in range(FORGED):
        header, body = header_of(sound)
        for _ in range(rng.choice([1, 1, 2])):
            change = rng.choice(MEANING)
            try:
                header, body = change(header, body, rng)
            except (KeyError, TypeError, IndexError, ValueError, AttributeError):
                continue  # the change before left nothing to change
        with contextlib.suppress(AttributeError, UnicodeEncodeError, TypeError):
            header = signed(header, body)
        stored = judge.read(forge(header, body))
        if stored is None:
            continue
        assert sum(t.nbytes for t in stored.tensors.values()) == len(body)
        assert all(t.isfinite().all() for t in stored.tensors.values())
        assert stored.card.schema_version == 1
        try:
            restore(program, stored)
        except ArtifactError:
            assert all(torch.equal(before[n], t) for n, t in program.state_dict().items())
        else:
            program.load_state_dict(before)
    judge.close()
    assert judge.refused > 0.6 * FORGED
    assert judge.accepted > 0.02 * FORGED  # or the digest was wrong, and nothing else was tried


def test_an_overlap_a_gap_and_a_swap(tmp_path):
    write_tensors(tmp_path / "p", {"a": torch.zeros(4), "b": torch.ones(4)}, {})
    header, _ = header_of((tmp_path / "p").read_bytes())
    for a, b, size in [
        ([0, 16], [8, 24], 24),
        ([0, 16], [20, 36], 36),
        ([0, 16], [0, 16], 16),
        ([4, 20], [20, 36], 36),
        ([0, 16], [16, 32], 36),
    ]:
        header["a"]["data_offsets"], header["b"]["data_offsets"] = a, b
        made = bytes(size)
        (tmp_path / "p").write_bytes(forge(signed(header, made), made))
        with pytest.raises(ArtifactError, match=r"begin at byte|bytes after its header"):
            read(tmp_path / "p")


def test_booleans_are_0_or_1(tmp_path):
    write_tensors(tmp_path / "p", {"a": torch.zeros(4, dtype=torch.bool)}, {})
    header, _ = header_of((tmp_path / "p").read_bytes())
    (tmp_path / "p").write_bytes(forge(signed(header, b"\0\1\2\0"), b"\0\1\2\0"))
    with pytest.raises(ArtifactError, match="booleans"):
        read(tmp_path / "p")


# ---- code in disguise ----------------------------------------------------------------------------------------------


class Evil:
    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self):
        return open, (self.canary, "w")


def disguises(canary: str, sound: bytes) -> dict[str, bytes]:
    evil = Evil(canary)
    made = {f"pickle {protocol}": pickle.dumps(evil, protocol) for protocol in range(6)}
    for name, new in [("zip", True), ("legacy", False)]:
        buffer = io.BytesIO()
        torch.save({"w": evil}, buffer, _use_new_zipfile_serialization=new)
        made[f"torch {name}"] = buffer.getvalue()
    buffer = io.BytesIO()
    np.save(buffer, np.array([evil], dtype=object), allow_pickle=True)
    made["numpy"] = buffer.getvalue()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("program.safetensors", sound)
    made["zip"] = buffer.getvalue()
    made["gzip"] = gzip.compress(sound)
    code = pickle.dumps(evil)
    header, body = header_of(sound)
    made["behind"] = sound + code
    made["as the header"] = forge(code, body)
    made["as the numbers"] = forge(header, code)
    entry = {"dtype": "U8", "shape": [len(code)], "data_offsets": [0, len(code)]}
    made["as signed numbers"] = forge(signed({"__metadata__": header["__metadata__"], "a": entry}, code), code)
    header["__metadata__"]["card"] = code.decode("latin-1")
    made["as the card"] = forge(signed(header, body), body)
    header, _ = header_of(sound)
    card = json.loads(header["__metadata__"]["card"])
    card["config"] = {
        "_component_": "os.system",
        "auto_map": "x",
        "_attn_implementation_internal": "evil/repo",
        "pickle": code.hex(),
    }
    card["source"]["ref"] = "hf/evil/repo"
    header["__metadata__"]["card"] = json.dumps(card)
    made["names of code in the card"] = forge(signed(header, body), body)
    return made


WATCH = """
import os, sys, pickle, torch
from reprogram.core.errors import ArtifactError
from reprogram.store import read
seen, armed = [], False
def hook(event, args):
    foreign = event == "open" and not isinstance(args[0], int) and str(args[0]) not in sys.argv
    if armed and (foreign or event.split(".")[0] in ("pickle", "socket", "subprocess", "ctypes", "import")
                  or event in ("os.system", "os.exec", "os.fork", "os.posix_spawn")):
        seen.append(event)
sys.addaudithook(hook)
def refuse(*args, **kwargs): raise SystemExit("torch.load was called")
torch.load = refuse
try: read(sys.argv[1])  # what is imported on first use is imported now
except ArtifactError: pass
armed = True
answers = []
for path in sys.argv[1:]:
    try: read(path); answers.append("read")
    except ArtifactError: answers.append("refused")
armed = False
print(answers, seen)
armed = True
try: pickle.loads(pickle.dumps(os.system))
except BaseException: pass
print("pickle.find_class" in seen)
"""


def test_nothing_is_unpickled_run_or_connected(tmp_path, sound):
    canary = tmp_path / "canary"
    files = disguises(str(canary), sound)
    for number, data in enumerate(files.values()):
        (tmp_path / f"{number}.safetensors").write_bytes(data)
    paths = [tmp_path / f"{number}.safetensors" for number in range(len(files))]
    done = subprocess.run([sys.executable, "-c", WATCH, *paths], capture_output=True, text=True, check=True)
    data_only = ("as signed numbers", "names of code in the card")  # sound files: numbers and text, which they stay
    answers = ["read" if name in data_only else "refused" for name in files]
    assert done.stdout.splitlines() == [f"{answers} []", "True"]
    assert not canary.exists()
    pickle.loads(files["pickle 4"]).close()  # noqa: S301 - the canary would have sung
    assert canary.exists()
