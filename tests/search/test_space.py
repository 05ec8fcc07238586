"""What a search tries: grammar, ranges by type and name, what the user states and pins."""

from dataclasses import dataclass, replace
from typing import Literal

import pytest

from reprogram.catalogue import find, make_config, methods
from reprogram.core.errors import ConfigError
from reprogram.core.method import Recipe
from reprogram.search import Choices, Range, parse_axis, space_of


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("1e-4:1e-1:log", Range(1e-4, 1e-1, log=True)),
        ("0:1", Range(0, 1, whole=True)),
        ("0.0:1", Range(0.0, 1)),
        ("8:64:log", Range(8, 64, log=True, whole=True)),
        ("16, 30,56", Choices((16, 30, 56))),
        ("true,false,null", Choices((True, False, None))),
        ("adam,sgd", Choices(("adam", "sgd"))),
        ("0.5", Choices((0.5,))),
        ([(1, 2), (3, 4)], Choices(((1, 2), (3, 4)))),
    ],
)
def test_how_users_say_it(text, axis):
    assert parse_axis(text) == axis
    assert parse_axis(axis) is axis


@pytest.mark.parametrize("text", ["", "1:2:3", "a:b", "2:1", "1:1", "-1:1:log", "1,1", "0:1:log", "1:nan", "1:2:lin"])
def test_what_is_no_axis_is_refused(text):
    with pytest.raises(ConfigError, match="space"):
        parse_axis(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    canvas: int = 128
    width: int = 30
    depth: int = 1
    share: float = 0.5
    factor: float = 3.0
    nothing: int = 0
    kind: Literal["a", "b", "c"] = "b"
    maybe: int | None = None
    words: tuple[str, ...] = ("x",)
    flag: bool = False
    recipe: Recipe = Recipe(lr=0.02, epochs=7)


AROUND = {
    "width": Range(15, 60, whole=True),
    "depth": Range(1, 2, whole=True),
    "share": Range(0.125, 1.0, log=True),
    "factor": Range(0.75, 12.0, log=True),
    "kind": Choices(("a", "b", "c")),
    "flag": Choices((False, True)),
}


def test_ranges_come_from_types_and_names():
    card = replace(find("vp"), config=Config, space={})
    space = space_of(card, Config())
    rate = space.pop("recipe.lr")
    assert space == AROUND  # neither sizes nor epochs, nor what has no sensible range
    assert rate.log
    assert (rate.low, rate.high) == pytest.approx((0.002, 0.2))
    assert space_of(card, Config(), learns=False) == AROUND


def test_users_state_and_pin():
    card = replace(find("vp"), config=Config, space={})
    space = space_of(card, Config(), stated={"epochs": "2:9", "words": [("x",), ("y",)]}, pinned=["width", "lr"])
    assert space["recipe.epochs"] == Range(2, 9, whole=True)
    assert "width" not in space
    assert "recipe.lr" not in space
    for stated, pinned in (({"lr": "1:2"}, ["recipe.lr"]), ({"nonsense": "1"}, []), ({"width": "1,wide"}, []),
                           ({"recipe": "1"}, []), ({"epochs": "0:4"}, [])):  # fmt: skip
        with pytest.raises(ConfigError):
            space_of(card, Config(), stated=stated, pinned=pinned)


def test_a_method_states_its_own():
    autovp = find("autovp")
    space = space_of(autovp, autovp.config(), stated={"inner": "32:64"}, pinned=["scale"])
    assert set(space) == {"learn_scale", "output", "per_class", "recipe.lr", "inner"}
    assert space["output"] == Choices(("freq", "iter", "semantic", "fully"))


@pytest.mark.parametrize("method", methods(), ids=lambda m: m.name)
def test_every_method_has_a_space_within_its_settings(method):
    for name, axis in space_of(method, method.config()).items():
        for value in axis.ends():
            try:
                make_config(method, {name: value})
            except ConfigError as problem:  # a value may be refused beside the defaults of others, not as unknown
                assert "must be a setting" not in str(problem)
