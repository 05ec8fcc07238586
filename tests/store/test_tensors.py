"""The file format: what is written comes back, the bytes are settled, and what asks for too much is refused early."""

import json
import os
import string
import subprocess
import sys
import time
import tracemalloc
import warnings

import numpy as np
import psutil
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprogram.core.errors import ArtifactError
from reprogram.store import Limits, read_tensors, write_tensors
from reprogram.store._json import canonical, parse
from reprogram.store.tensors import _DTYPES

from .forge import forge, header_of, signed

CARD = {"name": "é", "n": 1, "x": 0.5, "list": [1, None, True], "deep": {"a": {"b": []}}}
TENSORS = {
    "a.weight": torch.arange(6.0).reshape(2, 3),
    "b": torch.tensor(True),
    "c": torch.zeros(0, 4, dtype=torch.int64),
}


def same(a, b) -> bool:
    return set(a) == set(b) and all(
        a[n].dtype == b[n].dtype and a[n].shape == b[n].shape and torch.equal(a[n], b[n]) for n in a
    )


# ---- round trips ---------------------------------------------------------------------------------------------------

names = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=200).filter(
    lambda n: n != "__metadata__"
)
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abé\"\\", max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
quick = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def tensors(draw):
    dtype, shape = draw(st.sampled_from(sorted(_DTYPES.values(), key=str))), draw(shapes)
    raw = torch.randint(
        0, 2 if dtype is torch.bool else 120, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 9)))
    )
    made = raw.to(dtype)
    how = draw(st.sampled_from(["plain", "transposed", "strided", "expanded", "parameter"]))
    if how == "transposed":
        return made.mT if made.dim() > 1 else made
    if how == "strided":
        return made[..., ::2] if made.dim() else made
    if how == "expanded":
        return made.expand(2, *made.shape)
    return torch.nn.Parameter(made) if how == "parameter" and made.is_floating_point() else made


@quick
@given(
    st.dictionaries(names, tensors(), max_size=4), st.dictionaries(st.text("abc", max_size=3), json_values, max_size=3)
)
def test_round_trip(tmp_path, tensors, card):
    path = tmp_path / "f"
    write_tensors(path, tensors, card)
    got_card, got = read_tensors(path)
    assert same(got, {n: t.detach() for n, t in tensors.items()})
    assert got_card == card
    assert all(t.is_contiguous() and not t.requires_grad for t in got.values())


def test_tensors_that_share_memory_come_back_apart(tmp_path):
    base = torch.arange(4.0)
    write_tensors(tmp_path / "f", {"a": base, "b": base, "c": base[1:]}, {})
    _, got = read_tensors(tmp_path / "f")
    got["a"].zero_()
    assert got["b"].tolist() == [0, 1, 2, 3]
    assert got["c"].tolist() == [1, 2, 3]


def test_a_negated_view_keeps_its_sign(tmp_path):
    view = torch.complex(torch.zeros(2), torch.ones(2)).conj().imag
    assert view.is_neg()
    write_tensors(tmp_path / "f", {"a": view}, {})
    assert read_tensors(tmp_path / "f")[1]["a"].tolist() == [-1, -1]


def test_other_readers_understand_the_file(tmp_path):
    write_tensors(tmp_path / "f", TENSORS, CARD)
    assert same(safetensors.torch.load_file(tmp_path / "f"), TENSORS)
    with safetensors.safe_open(tmp_path / "f", "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "reprogram"
    assert (metadata["schema"], metadata["kind"]) == ("1", "program")
    assert json.loads(metadata["card"]) == CARD


def test_equal_input_gives_equal_bytes(tmp_path):
    for number in range(3):
        order = list(TENSORS)[number:] + list(TENSORS)[:number]
        card = dict(sorted(CARD.items(), key=lambda item: item[0], reverse=bool(number % 2)))
        write_tensors(tmp_path / str(number), {n: TENSORS[n].clone() for n in order}, card)
    assert len({(tmp_path / str(n)).read_bytes() for n in range(3)}) == 1
    header, _ = header_of((tmp_path / "0").read_bytes())
    assert (8 + len(canonical(header))) % 8 + int.from_bytes((tmp_path / "0").read_bytes()[:8], "little") % 8 < 8


def test_a_fresh_process_writes_the_same_bytes_and_loads_no_hub_library(tmp_path):
    script = (
        "import sys, torch\nfrom reprogram.store import write_tensors\n"
        "a, b = torch.ones(3, dtype=torch.float64), torch.zeros(2)\n"
        "write_tensors(sys.argv[1], {'b': b, 'a': a}, {'y': 1, 'x': [2]})\n"
        "print({'huggingface_hub', 'httpx2', 'requests'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "1"], check=True, env=environment, capture_output=True
    )
    write_tensors(tmp_path / "2", {"a": torch.ones(3, dtype=torch.float64), "b": torch.zeros(2)}, {"x": [2], "y": 1})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert done.stdout.strip() == b"set()"


def test_no_warning_and_own_memory(tmp_path):
    write_tensors(tmp_path / "f", TENSORS, CARD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, got = read_tensors(str(tmp_path / "f"))
    got["a.weight"].add_(1)  # writable
    assert same(read_tensors(tmp_path / "f")[1], TENSORS)


# ---- what is not written -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "a\n", "x" * 201, "__metadata__", "a\0"])
def test_names_that_are_not_written(tmp_path, name):
    with pytest.raises(ArtifactError, match="must name its tensors with"):
        write_tensors(tmp_path / "f", {name: torch.zeros(1)}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(2, dtype=torch.uint16),
        torch.zeros(2, dtype=torch.float8_e5m2),
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(2, device="meta"),
        torch.zeros((1,) * 9),
        torch.tensor([1.0, float("nan")]),
        torch.tensor(float("-inf"), dtype=torch.bfloat16),
    ],
    ids=lambda t: f"{t.dtype}-{t.layout}-{t.device}-{t.dim()}",
)
def test_tensors_that_are_not_written(tmp_path, tensor):
    with pytest.raises(ArtifactError):
        write_tensors(tmp_path / "f", {"a": tensor}, {})
    assert not list(tmp_path.iterdir())


def loop() -> dict:
    made: dict = {}
    made["a"] = made
    return made


def nested(depth: int) -> dict:
    made: dict = {}
    for _ in range(depth):
        made = {"a": made}
    return made


@pytest.mark.parametrize(
    "card",
    [{"a": object()}, {"a": float("nan")}, {"a": "\ud800"}, {"a": b"x"}, loop(), nested(33), nested(100_000)],
    ids=["object", "nan", "surrogate", "bytes", "loop", "deep", "very deep"],
)
def test_cards_that_are_not_written(tmp_path, card):
    with pytest.raises(ArtifactError):
        write_tensors(tmp_path / "f", {}, card)
    assert not list(tmp_path.iterdir())


def test_limits_hold_for_writing_too(tmp_path):
    limits = Limits(header_bytes=1000, tensor_bytes=64, tensors=2)
    write_tensors(tmp_path / "f", {"a": torch.zeros(8), "b": torch.zeros(8)}, {}, limits=limits)
    read_tensors(tmp_path / "f", limits=limits)
    for tensors, card in [
        ({"a": torch.zeros(17)}, {}),
        ({n: torch.zeros(1) for n in "abc"}, {}),
        ({}, {"a": "x" * 1000}),
    ]:
        with pytest.raises(ArtifactError, match="must h"):
            write_tensors(tmp_path / "g", tensors, card, limits=limits)
        write_tensors(tmp_path / "h", tensors, card)
        with pytest.raises(ArtifactError, match="must h"):
            read_tensors(tmp_path / "h", limits=limits)


def test_nonfinite_numbers_on_request(tmp_path):
    tensors = {"a": torch.tensor([1.0, float("inf")])}
    write_tensors(tmp_path / "f", tensors, {}, allow_nonfinite=True)
    assert same(read_tensors(tmp_path / "f", allow_nonfinite=True)[1], tensors)
    with pytest.raises(ArtifactError, match="finite numbers in tensor 'a'"):
        read_tensors(tmp_path / "f")


def test_kinds(tmp_path):
    write_tensors(tmp_path / "f", {}, {}, kind="checkpoint")
    assert read_tensors(tmp_path / "f", kind="checkpoint") == ({}, {})
    with pytest.raises(ArtifactError, match="kind 'program'"):
        read_tensors(tmp_path / "f")
    with pytest.raises(ArtifactError, match="kind 'other'"):
        write_tensors(tmp_path / "f", {}, {}, kind="other")


# ---- what is not read ----------------------------------------------------------------------------------------------


def test_places_that_are_not_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").touch()
    for place in [
        tmp_path,
        tmp_path / "pipe",
        "/dev/zero",
        tmp_path / "none",
        tmp_path / "loop",
        tmp_path / "empty",
        "a\0b",
        "x" * 5000,
    ]:
        start = time.perf_counter()
        with pytest.raises(ArtifactError):
            read_tensors(place)
        assert time.perf_counter() - start < 1


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    write_tensors(tmp_path / "f", {}, {})

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # as root, permission bits alone would not refuse
    with pytest.raises(ArtifactError, match="Permission denied"):
        read_tensors(tmp_path / "f")


def test_a_file_that_shrinks_while_it_is_read(tmp_path, monkeypatch):
    write_tensors(tmp_path / "f", {"a": torch.zeros(100)}, {})
    real = os.fstat

    def longer(descriptor):
        status = list(real(descriptor))
        status[6] += 400
        return os.stat_result(status)

    data = (tmp_path / "f").read_bytes()
    header, _ = header_of(data)
    header["a"] = {"dtype": "F32", "shape": [200], "data_offsets": [0, 800]}
    (tmp_path / "f").write_bytes(forge(header, bytes(400)))
    monkeypatch.setattr(os, "fstat", longer)
    with pytest.raises(ArtifactError, match="its end"):
        read_tensors(tmp_path / "f")


def test_a_newer_schema_names_the_version_that_wrote_it(tmp_path):
    write_tensors(tmp_path / "f", {}, {})
    header, body = header_of((tmp_path / "f").read_bytes())
    header["__metadata__"] = {"format": "reprogram", "schema": "2", "library": "9.8.7", "new": "thing"}
    (tmp_path / "f").write_bytes(forge(header, body))
    with pytest.raises(ArtifactError, match=r"written by version 9\.8\.7.*pip install --upgrade"):
        read_tensors(tmp_path / "f")


def test_a_foreign_safetensors_file(tmp_path):
    for metadata in [None, {"format": "pt"}]:
        safetensors.torch.save_file(TENSORS, tmp_path / "f", metadata)
        with pytest.raises(ArtifactError, match="format 'reprogram'"):
            read_tensors(tmp_path / "f")


def test_a_changed_bit_in_card_name_or_number_is_found(tmp_path):
    write_tensors(tmp_path / "f", TENSORS, {"class": "cat"})
    data = (tmp_path / "f").read_bytes()
    for old, new in [(b"cat", b"bat"), (b"a.weight", b"b.weight"), (b"\0\0\x80?", b"\0\0\x80@")]:
        assert old in data
        (tmp_path / "g").write_bytes(data.replace(old, new))
        with pytest.raises(ArtifactError, match="SHA-256"):
            read_tensors(tmp_path / "g")


def measured(path) -> tuple[float, int, int]:
    """Seconds, bytes taken at the peak, and growth of the process, for a file that is refused."""
    process = psutil.Process()
    before = process.memory_info().rss
    start = time.perf_counter()
    with pytest.raises(ArtifactError):
        read_tensors(path)
    seconds = time.perf_counter() - start
    grown = process.memory_info().rss - before
    tracemalloc.start()
    with pytest.raises(ArtifactError):
        read_tensors(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, peak, grown


TIB = 2**42


@pytest.mark.parametrize("case", ["small file", "sparse file", "many", "zero times huge", "beyond 64 bits", "length"])
def test_tebibytes_are_refused_at_once_and_for_nothing(tmp_path, case):
    path = tmp_path / "f"
    write_tensors(path, {}, {})
    header, _ = header_of(path.read_bytes())
    if case == "many":
        header |= {
            f"t{n}": {"dtype": "F32", "shape": [2**28], "data_offsets": [n << 30, (n + 1) << 30]} for n in range(1024)
        }
    elif case == "zero times huge":
        header["a"] = {"dtype": "F32", "shape": [0, 2**40, 2**40], "data_offsets": [0, 0]}
    elif case == "beyond 64 bits":
        header["a"] = {"dtype": "F64", "shape": [2**62] * 8, "data_offsets": [0, 2**499]}
    else:
        header["a"] = {"dtype": "F32", "shape": [TIB // 4], "data_offsets": [0, TIB]}
    path.write_bytes(forge(header, bytes(16)))
    if case == "sparse file":
        os.truncate(path, path.stat().st_size - 16 + TIB)
    if case == "length":
        path.write_bytes((2**63).to_bytes(8, "little") + b"{}")
    seconds, peak, grown = measured(path)
    print(f"{case}: {seconds * 1000:.2f} ms, peak {peak / 1024:.0f} KiB, grown {grown / 1024:.0f} KiB")
    assert seconds < 0.5
    assert peak < (16 << 20 if case == "many" else 1 << 20)
    assert grown < 32 << 20


COSTLY = {
    "lists": lambda n: b"[" + b"[]," * (n // 3) + b"[]]",
    "objects": lambda n: b"[" + b"{}," * (n // 3) + b"{}]",
    "names": lambda n: b"{" + b",".join(b'"%x":0' % k for k in range(n // 10)) + b"}",
    "one name": lambda n: b"{" + b",".join(b'"a":0' for _ in range(n // 6)) + b"}",
    "floats": lambda n: b"[" + b"1e1," * (n // 4) + b"1]",
    "digits": lambda n: b"[" + b"9" * n + b"]",
    "long numbers": lambda n: b"[" + (b"9" * 4299 + b",") * (n // 4300) + b"1]",
    "brackets": lambda n: b"[" * n,
    "an open string": lambda n: b'"' + b'\\"' * (n // 2),
    "escapes": lambda n: b'"' + b"\\u0041" * (n // 6) + b'"',
    "wide": lambda n: b'["' + b"a" * (n - 10) + "😀".encode() + b'"]',
}


@pytest.mark.parametrize("case", COSTLY)
def test_the_costliest_headers_cost_little(tmp_path, case):
    """A sixteenth of the largest header, because the shape checker of the tests is slow; all grows linearly."""
    made = COSTLY[case]((1 << 16) - 64)
    (tmp_path / "f").write_bytes(len(made).to_bytes(8, "little") + made)
    seconds, peak, grown = measured(tmp_path / "f")
    print(f"{case}: {seconds * 1000:.0f} ms, peak {peak >> 10} KiB, grown {grown >> 10} KiB")
    assert seconds < 1
    assert peak < 4 << 20


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"nul", b"{'a': 1}", b'{"a": 1, "a": 2}', b"NaN", b"[Infinity]", b"-Infinity", b"1e999",
        b'"\\ud800"', b"\xff", b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b"[" * 33 + b"]" * 33, b"[" * 10**5,
        b"1" * 5000, b"{} {}", b'"\\', b'"a\n"', b'{"a": {"b": 1, "b": 1}}', b"[1,]", b"\0",
    ],
)  # fmt: skip
def test_json_that_is_refused(text):
    with pytest.raises(ArtifactError, match="`x` must be plain JSON"):
        parse(text, "x")


@settings(max_examples=200, deadline=None)
@given(json_values)
def test_json_round_trip(value):
    assert parse(canonical(value), "x") == value
    assert parse(json.dumps(value, indent=1).encode(), "x") == value


def test_json_depth_counts_no_brackets_in_text():
    assert parse(b'["' + b"[" * 1000 + b'\\"[[", "]]"]', "x") == ["[" * 1000 + '"[[', "]]"]


def test_the_forger_can_sign(tmp_path):
    """The fuzzer's re-signed files reach the checks behind the digest: an honest one is read."""
    write_tensors(tmp_path / "f", TENSORS, CARD)
    header, body = header_of((tmp_path / "f").read_bytes())
    (tmp_path / "g").write_bytes(forge(signed(header, body), body))
    assert same(read_tensors(tmp_path / "g")[1], TENSORS)
    assert np.frombuffer(body, np.uint8).size == sum(t.nbytes for t in TENSORS.values())
