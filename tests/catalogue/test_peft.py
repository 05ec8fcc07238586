"""Checkpoints of the PEFT library: what it computes we compute, and the other way round; strange files are refused."""

import json
import shutil

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

import reprogram as rp
from reprogram.catalogue import build, combine, compile_program, export_peft, import_peft, import_tensor, load
from reprogram.core.errors import ArtifactError, CapabilityError, ConfigError
from reprogram.core.inserting import Compacting
from reprogram.core.texts import Texts, Tokens
from reprogram.inputs import Prefix, SoftPrompt
from reprogram.sources import language_source
from reprogram.store import read, save
from reprogram.testing import tiny_language_model, tiny_source, tiny_text_source, tiny_text_task

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),  # PEFT asks the old way
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:.*encoder_num_layers:UserWarning"),
]

N = 5
KINDS = {
    "prompt": peft.PromptTuningConfig,
    "p_tuning": lambda **base: peft.PromptEncoderConfig(encoder_hidden_size=16, **base),
    "lstm": lambda **base: peft.PromptEncoderConfig(
        encoder_reparameterization_type="LSTM", encoder_hidden_size=16, **base
    ),
    "prefix": peft.PrefixTuningConfig,
    "projected": lambda **base: peft.PrefixTuningConfig(prefix_projection=True, encoder_hidden_size=16, **base),
    "multitask": lambda **base: peft.MultitaskPromptTuningConfig(num_tasks=3, num_ranks=2, **base),
}
METHODS = {
    "prompt": ("prompt_tuning", "trained"),
    "p_tuning": ("p_tuning", "compact"),
    "lstm": ("p_tuning", "compact"),
    "prefix": ("prefix_tuning", "trained"),
    "projected": ("prefix_tuning", "trained"),
    "multitask": ("multitask_prompt_tuning", "trained"),
}


def trained(model, name):
    """A PEFT model with random learned numbers of the size of embeddings."""
    causal = type(model).__name__ != "T5ForConditionalGeneration"
    config = KINDS[name](task_type="CAUSAL_LM" if causal else "SEQ_2_SEQ_LM", num_virtual_tokens=N)
    made = peft.get_peft_model(model, config).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.4)
    return made


def saved(kind, name, folder):
    model = trained(tiny_language_model(kind)[0], name)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peft")
    saved("llama", "prompt", folder / "a")
    return folder / "a"


def batch(seed=0):
    """Rows of 9, 6 and 3 tokens, padded on the right, where PEFT computes the right thing."""
    ids = torch.randint(8, 200, (3, 9), generator=torch.Generator().manual_seed(seed))
    return ids, torch.arange(9) < torch.tensor([[9], [6], [3]])


@torch.no_grad()
def theirs(model, ids, mask, task=None):
    more = {} if task is None else {"task_ids": torch.full((len(ids),), task)}
    return model(input_ids=ids, attention_mask=mask.long(), **more).logits[:, -ids.shape[1] :][mask]


@torch.no_grad()
def ours(program, ids, mask):
    return program(ids, mask)[mask]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("name", KINDS)
def test_import_and_export_give_the_same_logits(kind, name, tmp_path):
    reference = saved(kind, name, tmp_path / "in")
    program = import_peft(tmp_path / "in", tiny_text_source(kind), index=1 if name == "multitask" else 0)
    assert (program.origin.method, program.origin.form) == METHODS[name]
    ids, mask = batch()
    wanted = theirs(reference, ids, mask, 1 if name == "multitask" else None)
    torch.testing.assert_close(ours(program, ids, mask), wanted, atol=1e-5, rtol=0)
    bare = tiny_language_model(kind)[0](input_ids=ids, attention_mask=mask.long()).logits[mask]
    assert (bare - wanted).abs().max() > 0.1  # the prompt does something

    assert export_peft(program, tmp_path / "out") == tmp_path / "out"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]
    again = peft.PeftModel.from_pretrained(tiny_language_model(kind)[0], tmp_path / "out").eval()
    torch.testing.assert_close(theirs(again, ids, mask), wanted, atol=1e-5, rtol=0)
    if name == "multitask":
        return
    before, after = (load_file(tmp_path / where / "adapter_model.safetensors") for where in ("in", "out"))
    assert before.keys() == after.keys()
    torch.testing.assert_close(before["prompt_embeddings"], after["prompt_embeddings"], atol=0, rtol=0)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("name", ["prompt", "p_tuning", "prefix"])
def test_greedy_text_is_the_same(kind, name, tmp_path):
    reference = saved(kind, name, tmp_path / "in")
    tokenizer = tiny_language_model(kind)[1]
    program = import_peft(tmp_path / "in", tiny_text_source(kind))
    for text in ("the film was", "a good story about the world"):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        whole = reference.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, pad_token_id=0
        )[0]
        new = whole[ids.shape[1] :] if torch.equal(whole[: ids.shape[1]], ids[0]) else whole
        assert program.generate(text, max_new_tokens=6) == [tokenizer.decode(new, skip_special_tokens=True)]


@pytest.mark.parametrize("name", ["prompt", "p_tuning"])
def test_an_encoder_decoder_takes_the_encoders_half(name, tmp_path):
    reference = saved("t5", name, tmp_path / "in")
    assert len(load_file(tmp_path / "in" / "adapter_model.safetensors")["prompt_embeddings"]) == 2 * N
    source = tiny_text_source("t5")
    program = import_peft(tmp_path / "in", source)
    ids, mask = batch()
    start = torch.full((3, 1), source.module.config.decoder_start_token_id)
    with torch.no_grad():
        wanted = reference(input_ids=ids, attention_mask=mask.long(), decoder_input_ids=start).logits[:, 0]
        torch.testing.assert_close(source(Tokens(ids, mask), program.input).scores, wanted, atol=1e-5, rtol=0)
    export_peft(program, tmp_path / "out")
    again = peft.PeftModel.from_pretrained(tiny_language_model("t5")[0], tmp_path / "out").eval()
    with torch.no_grad():
        got = again(input_ids=ids, attention_mask=mask.long(), decoder_input_ids=start).logits[:, 0]
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


def test_each_task_of_a_multitask_checkpoint(tmp_path):
    reference, source = saved("gpt2", "multitask", tmp_path / "in"), tiny_text_source("gpt2")
    ids, mask = batch()
    found = [ours(import_peft(tmp_path / "in", source, index=i), ids, mask) for i in range(3)]
    for i, mine in enumerate(found):
        torch.testing.assert_close(mine, theirs(reference, ids, mask, i), atol=1e-5, rtol=0)
    assert (found[0] - found[2]).abs().max() > 0.01
    for index in (-1, 3):
        with pytest.raises(ConfigError, match="3 tasks"):
            import_peft(tmp_path / "in", source, index=index)


@pytest.mark.parametrize("name", ["prompt", "p_tuning", "prefix", "multitask"])
def test_an_imported_program_is_a_program(name, tmp_path):
    """With a task: it predicts, is saved and loaded, and has something to learn."""
    saved("gpt2", name, tmp_path / "in")
    source, task = tiny_text_source("gpt2"), tiny_text_task(per_class=4)
    program = import_peft(tmp_path / "in", source, task, template="{text} It was")
    texts = ["great film", "boring plot"]
    scores = program.predict(texts).scores
    assert scores.shape == (2, 3)
    assert program.predict(texts).classes == task.classes
    save(program, tmp_path / "p.safetensors")
    torch.testing.assert_close(load(tmp_path / "p.safetensors", source).predict(texts).scores, scores)
    assert program.count().allocated > 0
    plain = source(program.input.edits[0](Texts({"text": tuple(texts)})), rp.Input(*list(program.input)[1:]))
    torch.testing.assert_close(program.output(plain).detach(), scores, atol=1e-5, rtol=0)


def test_half_precision_is_widened(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "a")
    tensors = load_file(checkpoint / "adapter_model.safetensors")
    save_file({k: v.bfloat16() for k, v in tensors.items()}, tmp_path / "a" / "adapter_model.safetensors")
    edit = next(iter(import_peft(tmp_path / "a", tiny_text_source("llama")).input))
    assert torch.equal(edit.values, tensors["prompt_embeddings"].bfloat16().float())


# -- refused -----------------------------------------------------------------------------------------------------------


def test_a_pickle_is_not_opened(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "a")
    (tmp_path / "a" / "adapter_model.safetensors").rename(tmp_path / "a" / "adapter_model.bin")
    with pytest.raises(ArtifactError, match=r"pickle.*save_pretrained"):
        import_peft(tmp_path / "a", tiny_text_source("llama"))
    (tmp_path / "a" / "adapter_model.bin").rename(tmp_path / "a" / "adapter_model.safetensors")
    (tmp_path / "a" / "adapter_model.safetensors").write_bytes(b"PK\x03\x04" * 100)  # a pickle under a better name
    with pytest.raises(ArtifactError, match="pickles never are"):
        import_peft(tmp_path / "a", tiny_text_source("llama"))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"peft_type": "LORA"}, ArtifactError, "must be one of.*LORA"),
        ({"peft_type": None}, ArtifactError, "peft_type"),
        ({"peft_type": ["PROMPT_TUNING"]}, ArtifactError, "peft_type"),
        ({"num_virtual_tokens": 4}, CapabilityError, r"\[4, 32\].*\[5, 32\]"),
        ({"num_virtual_tokens": True}, ArtifactError, "num_virtual_tokens"),
        ({"num_virtual_tokens": -5}, ArtifactError, "num_virtual_tokens"),
        ({"num_virtual_tokens": 10**12}, ArtifactError, "num_virtual_tokens"),
        ({"num_virtual_tokens": None}, ArtifactError, "num_virtual_tokens"),
        ({"num_transformer_submodules": "2"}, ArtifactError, "num_transformer_submodules"),
        ({"peft_type": "PREFIX_TUNING"}, CapabilityError, r"must be \[5, 64\].*got \[5, 32\]"),
        ({"peft_type": "MULTITASK_PROMPT_TUNING"}, ArtifactError, "prefix_task_cols"),
    ],
)
def test_strange_settings(checkpoint, tmp_path, change, error, words):
    shutil.copytree(checkpoint, tmp_path / "a")
    config = json.loads((checkpoint / "adapter_config.json").read_text()) | change
    if change.get("peft_type") == "PREFIX_TUNING":
        config |= {"num_layers": None, "num_attention_heads": None}
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(error, match=words):
        import_peft(tmp_path / "a", tiny_text_source("llama"))


def test_unknown_keys_do_no_harm(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "a")
    config = json.loads((checkpoint / "adapter_config.json").read_text())
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config | {"auto_mapping": {"x": "os.system"}}))
    assert import_peft(tmp_path / "a", tiny_text_source("llama")).count().allocated == N * 32


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b'{"a": 1, "a": 2}', b"\xff", b"[" * 5000, b'{"a": NaN}', b" " * (1 << 21)]
)
def test_a_settings_file_that_is_none(checkpoint, tmp_path, text):
    shutil.copytree(checkpoint, tmp_path / "a")
    (tmp_path / "a" / "adapter_config.json").write_bytes(text)
    with pytest.raises(ArtifactError):
        import_peft(tmp_path / "a", tiny_text_source("llama"))


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_missing_files(checkpoint, tmp_path, missing):
    shutil.copytree(checkpoint, tmp_path / "a")
    (tmp_path / "a" / missing).unlink()
    with pytest.raises(ArtifactError, match=missing):
        import_peft(tmp_path / "a", tiny_text_source("llama"))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({}, "prompt_embeddings"),
        ({"prompt_embeddings": torch.zeros(5, 32), "base_model.score.weight": torch.zeros(2)}, "modules_to_save"),
        ({"prompt_embeddings": torch.full((5, 32), torch.nan)}, "NaN"),
        ({"prompt_embeddings": torch.zeros(5, 32, dtype=torch.int64)}, "floats"),
    ],
)
def test_strange_tensors(checkpoint, tmp_path, tensors, words):
    shutil.copytree(checkpoint, tmp_path / "a")
    save_file(tensors, tmp_path / "a" / "adapter_model.safetensors")
    with pytest.raises(ArtifactError, match=words):
        import_peft(tmp_path / "a", tiny_text_source("llama"))


def test_a_file_cut_at_any_place_is_refused(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "a")
    whole = (checkpoint / "adapter_model.safetensors").read_bytes()
    source = tiny_text_source("llama")
    for end in (0, 1, 7, 8, 9, 40, len(whole) // 2, len(whole) - 1):
        (tmp_path / "a" / "adapter_model.safetensors").write_bytes(whole[:end])
        with pytest.raises(ArtifactError):
            import_peft(tmp_path / "a", source)
    huge = (1 << 62).to_bytes(8, "little") + whole[8:]
    (tmp_path / "a" / "adapter_model.safetensors").write_bytes(huge)
    with pytest.raises(ArtifactError, match="header"):
        import_peft(tmp_path / "a", source)


def test_a_source_that_does_not_fit(checkpoint, tmp_path):
    with pytest.raises(CapabilityError, match=r"must be \[5, 48\].*got \[5, 32\]"):
        import_peft(checkpoint, tiny_text_source("llama", width=48))
    with pytest.raises(CapabilityError, match="class token"):
        import_peft(checkpoint, tiny_text_source("bert"))
    with pytest.raises(CapabilityError, match="language model"):
        import_peft(checkpoint, tiny_source())
    saved("gpt2", "prefix", tmp_path / "p")
    with pytest.raises(CapabilityError, match="num_layers"):
        import_peft(tmp_path / "p", tiny_text_source("gpt2", layers=3))
    with pytest.raises(CapabilityError, match="causal"):
        import_peft(tmp_path / "p", tiny_text_source("bert"))
    saved("t5", "multitask", tmp_path / "t5")
    with pytest.raises(CapabilityError, match="decoder"):
        import_peft(tmp_path / "t5", tiny_text_source("t5"))


def test_another_name_of_the_model_is_a_warning(checkpoint, tmp_path, caplog):
    model, tokenizer = tiny_language_model("llama")
    shutil.copytree(checkpoint, tmp_path / "a")
    config = json.loads((checkpoint / "adapter_config.json").read_text())
    for base, warned in (("owner/tiny", False), ("/data/tiny/", False), (None, False), (7, False), ("x/other", True)):
        (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))
        caplog.clear()
        import_peft(tmp_path / "a", language_source(model, tokenizer, ref="hf/owner/tiny?dtype=float32"))
        assert ("called other" in caplog.text) is warned


def test_settings_that_the_file_decides(checkpoint):
    source = tiny_text_source("llama")
    for settings in ({"tokens": 3}, {"start": "text"}, {"text": "hello"}):
        with pytest.raises(ConfigError, match="what it decides"):
            import_peft(checkpoint, source, **settings)
    with pytest.raises(ConfigError, match="Did you mean template"):
        import_peft(checkpoint, source, templat="{text}")
    task = tiny_text_task(per_class=2)
    with pytest.raises(ConfigError, match="as the prompt has tokens, 5"):
        import_peft(checkpoint, source, task, template="{soft:3}{text}")
    placed = import_peft(checkpoint, source, task, template="{text}{soft:5}")
    assert list(placed.input)[1].where == "slots"


# -- tensors -----------------------------------------------------------------------------------------------------------


def test_a_plain_tensor_is_a_prompt(tmp_path):
    source = tiny_text_source("gpt2")
    values = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    save_file({"anything": values.double()}, tmp_path / "x.safetensors")
    ids, mask = batch()
    found = [
        import_tensor(one, source) for one in (values, tmp_path / "x.safetensors", str(tmp_path / "x.safetensors"))
    ]
    expected = rp.Program([SoftPrompt(values)], source, found[0].output)
    for program in found:
        assert torch.equal(ours(program, ids, mask), ours(expected, ids, mask))
    assert import_tensor(values, source, tiny_text_task(per_class=2)).predict("good film").scores.shape == (1, 3)


def test_tensors_that_are_none(tmp_path):
    source = tiny_text_source("gpt2")
    for bad in (torch.zeros(4, 31), torch.zeros(32), torch.zeros(0, 32), torch.zeros(4, 32, dtype=torch.int32)):
        with pytest.raises(CapabilityError, match=r"\[n, 32\]"):
            import_tensor(bad, source)
    with pytest.raises(ConfigError, match="finite"):
        import_tensor(torch.full((2, 32), torch.inf), source)
    save_file({"a": torch.zeros(2, 32), "b": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(ArtifactError, match="one tensor"):
        import_tensor(tmp_path / "x.safetensors", source)
    with pytest.raises(ArtifactError, match="nowhere"):
        import_tensor(tmp_path / "nowhere.safetensors", source)


# -- export ------------------------------------------------------------------------------------------------------------


def test_networks_are_left_out_and_compiled_prompts_become_prefixes(tmp_path):
    source, task = tiny_text_source("llama"), tiny_text_task(per_class=2)
    ids, mask = batch()
    p_tuning = build("p_tuning", source, None, tokens=3, hidden=8)
    compiled = compile_program(build("prompt_tuning", source, None, tokens=3))
    mean = combine([build("prefix_tuning", source, None, tokens=3, hidden=8, seed=s) for s in (0, 1)], "average")
    for number, (program, kind) in enumerate(((p_tuning, "PROMPT_TUNING"), (compiled, "PREFIX_TUNING"),
                                              (mean, "PREFIX_TUNING"))):  # fmt: skip
        folder = export_peft(program, tmp_path / str(number))
        assert json.loads((folder / "adapter_config.json").read_text())["peft_type"] == kind
        again = peft.PeftModel.from_pretrained(tiny_language_model("llama")[0], folder).eval()
        torch.testing.assert_close(theirs(again, ids, mask), ours(program, ids, mask), atol=1e-5, rtol=0)
        back = import_peft(folder, source)
        torch.testing.assert_close(ours(back, ids, mask), ours(program, ids, mask), atol=1e-5, rtol=0)
    with_task = build("prompt_tuning", source, task, tokens=3)
    export_peft(with_task, tmp_path / "task")
    assert isinstance(next(iter(p_tuning.input)), Compacting)
    assert isinstance(next(iter(compiled.input)), Prefix)


@pytest.mark.parametrize(
    ("kind", "method", "settings", "words"),
    [
        ("gpt2", "prompt_tuning", {"template": "{text}{soft:3} It was"}, "before all of the text.*slots"),
        ("bert", "prompt_tuning", {}, "before all of the text"),
        ("bert", "prefix_tuning", {"hidden": None}, "causal"),
        ("gpt2", "p_tuning_v2", {}, "learned or fitted output"),
        ("gpt2", "mixture_of_soft_prompts", {}, "PEFT's file cannot hold|one soft prompt"),
        ("bert_encoder", "linear_probe", {}, "learned or fitted output"),
        ("gpt2", "no_edit", {}, "one soft prompt or one prefix"),
    ],
)
def test_what_peft_has_no_place_for(kind, method, settings, words, tmp_path):
    program = build(method, tiny_text_source(kind), tiny_text_task(per_class=2), **settings)
    with pytest.raises(CapabilityError, match=words):
        export_peft(program, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_export_writes_all_or_nothing(tmp_path, monkeypatch):
    source = tiny_text_source("gpt2")
    program = build("prompt_tuning", source, None, tokens=2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    for there in ("full", "file"):
        with pytest.raises(ArtifactError, match="new or an empty folder"):
            export_peft(program, tmp_path / there)
    with pytest.raises(ArtifactError, match="written to"):
        export_peft(program, tmp_path / "no" / "such" / "folder")
    (tmp_path / "empty").mkdir()
    export_peft(program, tmp_path / "empty")
    before = sorted(p.name for p in tmp_path.iterdir())

    module = __import__("sys").modules["reprogram.catalogue.peft"]
    whole, seen = module.write_atomic, []

    def full(path, data):
        seen.append(path)
        if len(seen) == 2:
            raise OSError(28, "No space left on device")
        whole(path, data)

    monkeypatch.setattr(module, "write_atomic", full)
    with pytest.raises(ArtifactError, match="No space left"):
        export_peft(program, tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == before == ["empty", "file", "full"]


def test_the_base_model_is_named_where_transformers_knows_it(tmp_path):
    model, tokenizer = tiny_language_model("gpt2")
    for number, (ref, name) in enumerate((("hf/owner/name?dtype=bfloat16", "owner/name"), ("module:x", None))):
        source = language_source(model if not number else tiny_language_model("gpt2")[0], tokenizer, ref=ref)
        folder = export_peft(build("prompt_tuning", source, None, tokens=2), tmp_path / str(number))
        assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == name
    with pytest.raises(ArtifactError):
        read(tmp_path / "0" / "adapter_model.safetensors")  # no program of ours, though a safetensors file
