import dataclasses
import json
import logging
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from reprogram.core.errors import ArtifactError, ConfigError, FingerprintError
from reprogram.core.method import Recipe
from reprogram.core.program import Program
from reprogram.core.source import Source
from reprogram.store import check_source, read, restore, save, write_tensors

from .parts import TASK, Pick, Shift, ShiftConfig, TinySource, tiny_program

TIME = "2025-11-30T12:00:00Z"


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def test_the_fake_source_is_a_source():
    assert isinstance(TinySource(), Source)


def test_round_trip(tmp_path):
    program, path = tiny_program(seed=1), tmp_path / "p.safetensors"
    saved = save(program, path, metrics={"accuracy": 0.5, "n": 3, "best": "yes", "none": None}, seed=7,
                 citation="@misc{x}", created=TIME, notes=["a", "b"])  # fmt: skip
    stored = read(path)
    assert stored.card == saved
    assert stored.path == path
    card = stored.card
    assert (card.method, card.seed, card.created, card.notes) == ("shift", 7, TIME, ["a", "b"])
    assert card.metrics == {"accuracy": 0.5, "n": 3, "best": "yes", "none": None}
    assert type(card.metrics["n"]) is int
    assert card.taxonomy == program.taxonomy.axes()
    assert card.task.classes == TASK.classes
    assert card.source.fingerprint == program.source.fingerprint()
    assert dataclasses.asdict(program.count()) == card.parameters.model_dump()
    assert card.config["scale"] == [0.1, 0.2]
    assert card.config["recipe"]["betas"] == [0.9, 0.999]

    other = tiny_program(seed=2)
    x = torch.rand(4, 3, 2, 2)
    assert not torch.equal(other(x), program(x))
    restore(other, stored)
    assert torch.equal(other(x), program(x))
    assert all(
        torch.equal(a, b) for a, b in zip(other.state_dict().values(), program.state_dict().values(), strict=True)
    )


def test_the_source_is_not_in_the_file(tmp_path):
    source = TinySource()
    save(tiny_program(source), tmp_path / "p.safetensors")
    assert set(read(tmp_path / "p.safetensors").tensors) == {"input.edits.0.delta", "output.map"}
    assert source.module[1].weight.numpy().tobytes() not in (tmp_path / "p.safetensors").read_bytes()


@pytest.mark.parametrize("smuggle", ["module", "weight"])
def test_a_part_that_holds_the_source_is_refused(tmp_path, smuggle):
    source = TinySource()
    edit = Shift()
    if smuggle == "module":
        edit.inner = source.module
    else:
        edit.register_buffer("start", source.module[1].weight[:2])
    program = Program([edit], source, Pick(3), origin=tiny_program().origin)
    with pytest.raises(ConfigError, match="must not hold the source"):
        save(program, tmp_path / "p.safetensors")
    assert not list(tmp_path.iterdir())


def test_equal_programs_give_equal_files(tmp_path):
    for name in "ab":
        save(tiny_program(seed=3), tmp_path / name, metrics={"b": 1.0, "a": 2}, created=TIME)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_program_without_task_or_numbers(tmp_path):
    class Nothing(Pick):
        def __init__(self):
            nn.Module.__init__(self)
            self.alignment = Pick(1).alignment

    program = Program([], TinySource(), Nothing(), origin=tiny_program(task=None).origin)
    save(program, tmp_path / "p")
    stored = read(tmp_path / "p")
    assert stored.card.task is None
    assert stored.tensors == {}
    restore(program, stored)


def test_hand_made_programs_cannot_be_saved(tmp_path):
    with pytest.raises(ConfigError, match=r"must come from a method.*method file"):
        save(Program([Shift()], TinySource(), Pick(3)), tmp_path / "p")


def test_metrics_of_other_kinds(tmp_path):
    metrics = {
        "nan": float("nan"),
        "inf": float("inf"),
        "np": np.float32(0.5),
        "tensor": torch.tensor(2.0),
        "i": np.int64(3),
    }
    save(tiny_program(), tmp_path / "p", metrics=metrics)
    assert read(tmp_path / "p").card.metrics == {"nan": "nan", "inf": "inf", "np": 0.5, "tensor": 2.0, "i": 3.0}
    with pytest.raises(ConfigError, match=r"metrics\.x"):
        save(tiny_program(), tmp_path / "p", metrics={"x": object()})


@dataclasses.dataclass(frozen=True)
class Odd:
    value: object


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}, torch.zeros(2), [1, (2, b"x")]])
def test_settings_that_are_not_plain(tmp_path, value):
    with pytest.raises(ConfigError, match=r"`config\.value"):
        save(tiny_program(config=Odd(value)), tmp_path / "p")


def test_settings_that_become_plain(tmp_path):
    save(tiny_program(config=Odd((Path("a/b"), TASK_KIND, {"k": (1, None, True)}))), tmp_path / "p")
    assert read(tmp_path / "p").card.config == {"value": ["a/b", "input", {"k": [1, None, True]}]}


TASK_KIND = next(iter(TinySource().sites.values()))


def test_config_must_be_a_dataclass(tmp_path):
    with pytest.raises(ConfigError, match="dataclass"):
        save(tiny_program(config={"a": 1}), tmp_path / "p")


@pytest.mark.parametrize(
    "created", ["yesterday", "2025-11-30T12:00:00", "2025-11-30T12:00:00+01:00", "٢٠٢٥-11-30T12:00:00Z"]
)
def test_created_is_utc(tmp_path, created):
    with pytest.raises(ConfigError, match=r"card\.created"):
        save(tiny_program(), tmp_path / "p", created=created)


def test_created_is_now_by_default(tmp_path):
    assert save(tiny_program(), tmp_path / "p").created.endswith("Z")


def test_numbers_that_are_not_finite_are_not_written(tmp_path):
    save(tiny_program(seed=1), tmp_path / "p", created=TIME)
    before = (tmp_path / "p").read_bytes()
    program = tiny_program()
    with torch.no_grad():
        program.input.edits[0].delta[0, 0, 0] = float("nan")
    with pytest.raises(ArtifactError, match=r"finite numbers in tensor 'input\.edits\.0\.delta', got '1 that"):
        save(program, tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == before


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "dtype", "name"])
def test_restore_is_strict_and_all_or_nothing(tmp_path, change):
    save(tiny_program(seed=1), tmp_path / "p")
    stored = read(tmp_path / "p")
    tensors = stored.tensors
    if change == "missing":
        del tensors["output.map"]
    elif change == "extra":
        tensors["output.more"] = torch.zeros(1)
    elif change == "shape":
        tensors["output.map"] = torch.zeros(4, dtype=torch.int64)
    elif change == "dtype":
        tensors["output.map"] = tensors["output.map"].int()
    else:
        tensors["input.edits.0.gamma"] = tensors.pop("input.edits.0.delta")
    program = tiny_program(seed=2)
    before = {name: value.clone() for name, value in program.state_dict().items()}
    with pytest.raises(ArtifactError):
        restore(program, stored)
    assert all(torch.equal(before[name], value) for name, value in program.state_dict().items())


def test_restore_undoes_a_load_that_fails_half_way(tmp_path):
    save(tiny_program(seed=1), tmp_path / "p")

    class Refusing(Pick):
        def _load_from_state_dict(self, *args):
            raise KeyError("no")

    program = tiny_program(seed=2)
    program.output = Refusing(3)
    before = {name: value.clone() for name, value in program.state_dict().items()}
    with pytest.raises(ArtifactError, match="must fit the program"):
        restore(program, read(tmp_path / "p"))
    assert all(torch.equal(before[name], value) for name, value in program.state_dict().items())


def test_check_source(tmp_path, caplog):
    source = TinySource("tiny/one")
    save(tiny_program(source), tmp_path / "p")
    stored = read(tmp_path / "p")
    check_source(stored, TinySource("tiny/the-same-weights"))
    other = TinySource("tiny/two", seed=1)
    with pytest.raises(FingerprintError) as caught:
        check_source(stored, other)
    message = str(caught.value)
    for word in ["tiny/one", "tiny/two", source.fingerprint()[:12], other.fingerprint()[:12], "--force"]:
        assert word in message
    assert source.fingerprint()[:13] not in message
    with caplog.at_level(logging.WARNING, logger="reprogram.store"):
        check_source(stored, other, force=True)
    assert "tiny/two" in caplog.text


@pytest.mark.parametrize("field", ["input_shape", "outputs", "preprocessing"])
def test_check_source_looks_at_more_than_weights(tmp_path, field):
    save(tiny_program(), tmp_path / "p")
    source = TinySource()
    spec = source.spec
    changed = {
        "input_shape": (3, 4, 4),
        "outputs": 7,
        "preprocessing": dataclasses.replace(spec.preprocessing, mean=(0.0,) * 3),
    }
    source._spec = dataclasses.replace(spec, **{field: changed[field]})
    with pytest.raises(FingerprintError, match=field):
        check_source(read(tmp_path / "p"), source)


def test_a_sound_file_without_a_sound_card(tmp_path):
    write_tensors(tmp_path / "p", {}, {"method": "x"})
    with pytest.raises(ArtifactError, match=r"p: card\.library_version"):
        read(tmp_path / "p")


def test_a_checkpoint_is_not_a_program(tmp_path):
    write_tensors(tmp_path / "p", {}, {}, kind="checkpoint")
    with pytest.raises(ArtifactError, match="kind 'program'"):
        read(tmp_path / "p")


def test_files_have_ordinary_permissions(tmp_path):
    save(tiny_program(), tmp_path / "p")
    (tmp_path / "ordinary").write_text("")
    assert stat.S_IMODE((tmp_path / "p").stat().st_mode) == stat.S_IMODE((tmp_path / "ordinary").stat().st_mode)


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(ArtifactError, match="must be a place that can be written to"):
        save(tiny_program(), tmp_path / "missing" / "p")
    with pytest.raises(ArtifactError, match="not an ordinary file"):
        save(tiny_program(), tmp_path)


def test_a_card_with_ten_thousand_classes_fits(tmp_path):
    task = dataclasses.replace(TASK, classes=tuple(f"class number {n}, also called {n:x}" for n in range(10_000)))
    save(tiny_program(task=task), tmp_path / "p")
    assert read(tmp_path / "p").card.task == save(tiny_program(task=task), tmp_path / "q").task
    assert ShiftConfig().recipe == Recipe()
    assert len(json.dumps(task.classes)) > 64 * 1024
