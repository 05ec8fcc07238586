"""YAML files, `--set`, and who wins."""

import pytest
import yaml

from reprogram.catalogue import find, make_config
from reprogram.cli._config import RunConfig, parse, settle, text_of
from reprogram.core.errors import ConfigError

NEEDED = {"source": "s", "task": "t", "method": "blm", "out": "o.safetensors"}


def write(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_command_line_wins(tmp_path):
    path = write(tmp_path, yaml.safe_dump({**NEEDED, "seed": 1, "few_shot": 2, "set": {"lr": 0.1, "canvas": 64}}))
    config = settle(path, {"seed": 5}, ["lr=0.2"])
    assert (config.seed, config.few_shot, config.set) == (5, 2, {"canvas": 64, "lr": 0.2})


def test_a_setting_on_the_command_line_comes_last(tmp_path):
    path = write(tmp_path, yaml.safe_dump({**NEEDED, "set": {"lr": 0.1, "recipe": {"lr": 0.3}}}))
    config = settle(path, {}, ["lr=0.2"])
    assert make_config(find("blm"), config.set).recipe.lr == 0.2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sorce: x", "Did you mean source?"),
        ("- a", "must map names to values"),
        ("a: [", "must be YAML"),
        ("seed: -1\nsource: s\ntask: t\nmethod: m\nout: o", "seed"),
        ("precision: fp8\nsource: s\ntask: t\nmethod: m\nout: o", "precision"),
        ("set: 3", "must map names to values"),
        ("source: s\nmethod: m\nout: o", "`run.yaml: task` is missing. Give it as --task"),
        ("!!python/object/apply:os.system ['true']", "must be YAML"),
    ],
)
def test_a_bad_file_is_refused_with_the_reason(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, text).relative_to(tmp_path)
    with pytest.raises(ConfigError) as caught:
        settle(path, {}, [])
    assert words in str(caught.value)


@pytest.mark.parametrize("pair", ["lr", "=3", "lr=[1"])
def test_a_bad_pair_is_refused(pair):
    with pytest.raises(ConfigError):
        parse([pair])


def test_numbers_without_a_point_are_numbers_in_the_end():
    assert make_config(find("blm"), parse(["lr=1e-3"])).recipe.lr == 0.001


@pytest.mark.parametrize("method", ["blm", "smm", "adversarial_reprogramming", "linear_probe"])
def test_what_is_written_is_read_back_exactly(tmp_path, method):
    config = RunConfig(**{**NEEDED, "task": "Über 你好: [x]", "method": method}, seed=3, few_shot=4, track_test=True)
    settings = make_config(find(method), {"lr": 1e-7}, preset="cpu")
    again = settle(write(tmp_path, text_of(config, settings)), {}, [])
    assert again.model_copy(update={"set": {}}) == config
    assert make_config(find(method), again.set, preset=again.preset) == settings
    assert repr(make_config(find(method), again.set)) == repr(settings)
