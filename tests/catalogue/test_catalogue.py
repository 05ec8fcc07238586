"""Settings, queries, building, loading."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reprogram as rp
from reprogram.catalogue import build, find, load, make_config, methods, setting_names
from reprogram.core.errors import ArtifactError, CapabilityError, ConfigError, FingerprintError
from reprogram.core.method import Recipe
from reprogram.fit import FitOptions, fit
from reprogram.testing import tiny_source, tiny_task

QUIET = FitOptions(progress=False)


def test_settings_by_full_and_short_name():
    config = make_config(find("blm"), {"recipe.lr": 0.5, "epochs": 3, "inner": 8})
    assert (config.recipe.lr, config.recipe.epochs, config.inner) == (0.5, 3, 8)
    assert make_config(find("blm"), {"recipe": {"lr": 0.25}}).recipe.lr == 0.25
    assert make_config(find("blm"), {"recipe": Recipe(lr=0.125)}).recipe.lr == 0.125


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epoch", 1, "Did you mean epochs"),
        ("recipe.epoch", 1, "Did you mean recipe.epochs"),
        ("inner", "wide", "inner.*is a setting of blm.*integer"),
        ("recipe.optimizer", "lion", "recipe.optimizer"),
        ("recipe.lr", -1.0, "recipe.lr.*must be a finite number above 0"),
        ("zzz", 1, "Settings: canvas"),
        ("prompt", "sticker", "prompt"),
    ],
)
def test_bad_settings(name, value, message):
    with pytest.raises(ConfigError, match=message):
        make_config(find("blm"), {name: value})


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=20), st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.lists(st.integers())))
def test_any_setting_gives_a_config_or_a_typed_error(name, value):
    for method in ("blm", "smm"):
        try:
            config = make_config(find(method), {name: value})
        except ConfigError:
            continue
        assert dataclasses.is_dataclass(config)


def test_presets():
    assert make_config(find("blm")).recipe.epochs == 200
    assert make_config(find("blm"), preset="cpu").recipe.epochs < 20
    expected = "paper" if torch.cuda.is_available() else "cpu"
    assert make_config(find("blm"), preset="auto") == make_config(find("blm"), preset=expected)
    with pytest.raises(ConfigError, match=r"\['auto', 'paper', 'cpu'\]"):
        make_config(find("blm"), preset="fast")


def test_a_fixed_size_source_keeps_its_own_size():
    config = make_config(find("blm"), preset="cpu", source=tiny_source(resizable=False).spec)
    assert config.canvas is None and config.inner is None


def test_every_setting_name_is_settable():
    for method in methods():
        defaults = method.config()
        for name in setting_names(method):
            value = defaults
            for part in name.split("."):
                value = getattr(value, part)
            assert make_config(method, {name: value}) == defaults


def test_queries_by_axis():
    made = {m.name for m in methods(operator="parametric", location="input")}
    assert made >= {"smm", "fc", "refine", "blackvip", "autovp"} and not made & {"vp", "ilm_vp", "coop"}
    assert {m.name for m in methods(location="hidden")} >= {"prefix_tuning", "vpt_deep"}
    assert "blm" in {m.name for m in methods(configuration="learnable", alignment="statistical")}
    assert "no_edit" in {m.name for m in methods(alignment="statistical")}
    with pytest.raises(ConfigError, match="must be one of"):
        methods(place="input")
    with pytest.raises(ConfigError, match="additive"):
        methods(operator="magic")


def test_unknown_method_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean blm_plus"):
        find("blmplus")


def test_build_is_seeded_and_leaves_the_random_state():
    source, task = tiny_source(), tiny_task()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    a, b, c = (build("vp", source, task, width=3, seed=s) for s in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    values = [p.input.edits[1].values for p in (a, b, c)]
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


def test_save_load_predict_without_naming_the_source(tmp_path, monkeypatch):
    source, task, out = tiny_source(), tiny_task(), tmp_path / "p.safetensors"
    result = fit(build("blm", source, task, epochs=2, batch_size=8), task, out=out, options=QUIET)
    x = task.test.fetch(torch.arange(5))
    expected = result.program.predict(x).scores
    with pytest.raises(ArtifactError, match=r"model in memory.*source="):
        load(out)
    again = load(out, tiny_source())
    assert torch.equal(again.predict(x).scores, expected)
    assert again.origin.task.classes == task.classes
    assert again.predict(x).labels == result.program.predict(x).labels
    assert again.taxonomy == result.program.taxonomy
    with pytest.raises(FingerprintError, match="force"):
        load(out, tiny_source(seed=1))
    assert load(out, tiny_source(seed=1), force=True) is not None


def test_more_classes_than_the_source_has():
    task = tiny_task(classes=14, per_class=8, size=28)
    for method in ("ilm_vp", "vp"):
        with pytest.raises(ConfigError):
            build(method, tiny_source(), task, **({"width": 3} if method == "vp" else {"inner": 8}))
    assert build("blm", tiny_source(), task, inner=8) is not None


def test_a_task_of_another_kind_or_a_source_without_gradients():
    source, task = tiny_source(), tiny_task()
    text = dataclasses.replace(task.spec, modality="text")
    with pytest.raises(ConfigError, match="kind"):
        build("blm", source, text)

    class QueryOnly:
        capabilities = frozenset()

        def __getattr__(self, name):
            return getattr(source, name)

    with pytest.raises(CapabilityError, match="gradients"):
        build("blm", QueryOnly(), task)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("coop", "must offer class texts for coop.*bundled/conse"),
        ("prompt_tuning", "must offer token insertion for prompt_tuning.*Transformers that run here"),
        ("few_shot", "must offer generation for few_shot.*Language models that write"),
        ("set_of_mark", "must offer generation and pictures in prompts for set_of_mark.*Models that read pictures"),
    ],
)
def test_a_source_that_lacks_something_is_told_what_in_words_and_where_to_find_it(method, message):
    with pytest.raises(CapabilityError, match=message):
        build(method, tiny_source(), tiny_task())


def test_an_own_method_needs_no_registration():
    card = dataclasses.replace(find("blm"), name="mine")
    assert rp.build(card, tiny_source(), tiny_task()).origin is not None


def test_citation():
    assert "2410.24018" in find("blm").paper.bibtex("blm")


def test_plug_ins_are_found_and_broken_ones_only_reported(monkeypatch, caplog):
    from reprogram.catalogue.find import _all

    module = __import__("sys").modules["reprogram.catalogue.find"]

    class Entry:
        def __init__(self, name, value) -> None:
            self.name, self._value, self.value = name, value, f"pack.{name}:METHOD"

        def load(self):
            if isinstance(self._value, Exception):
                raise self._value
            return self._value

    mine = dataclasses.replace(find("blm"), name="mine")
    found = [Entry("mine", mine), Entry("broken", RuntimeError("boom")), Entry("odd", "text")]
    monkeypatch.setattr(module, "entry_points", lambda group: found if group == "reprogram.methods" else [])
    _all.cache_clear()
    try:
        assert find("mine") is mine
        assert "boom" in caplog.text and "not a reprogram Method" in caplog.text
        found.append(Entry("again", dataclasses.replace(find("blm"), name="vp")))
        _all.cache_clear()
        with pytest.raises(ConfigError, match="one method only"):
            methods()
    finally:
        _all.cache_clear()
