"""The equation and its promises."""

import copy

import pytest
import torch
from torch import nn

from reprogram.core.errors import CapabilityError, ConfigError, DataError
from reprogram.core.method import Recipe
from reprogram.core.program import Edit, Input, Program
from reprogram.core.source import SourceOutput
from reprogram.core.task import Sample, TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Additive, Place, frame_mask, full_mask
from reprogram.outputs import FirstClasses, Identity, Linear
from reprogram.testing import tiny_source
from tests.core.test_slot import Shift


def program(source=None):
    edits = [Place(16, 8), Additive(frame_mask(16, 4), squash="sigmoid")]
    return Program(edits, source or tiny_source(), FirstClasses(12, 3))


def test_equation_by_hand():
    p = program()
    x = torch.rand(2, 3, 8, 8)
    canvas = torch.nn.functional.pad(x, (4, 4, 4, 4))
    canvas = canvas + torch.where(frame_mask(16, 4), 0.5, 0.0)
    by_hand = p.source.module((canvas - 0.5) / 0.25)[:, :3]
    torch.testing.assert_close(p(x), by_hand)


def test_uint8_and_float_are_the_same_image():
    x = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(program()(x), program()(x.float() / 255))


def test_source_is_not_part_of_the_program():
    p = program()
    assert {n for n, _ in p.named_parameters()} == {"input.edits.1.values"}
    assert set(p.state_dict()) == {"input.edits.1.values"}
    assert p.source not in list(p.modules())
    assert not any(q.requires_grad for q in p.source.module.parameters())


def test_a_module_source_is_not_registered_either():
    """A source that happens to be a module itself must not become a part."""

    class ModuleAsSource(nn.Module):
        def __init__(self, inner) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))
            facts = ("spec", "sites", "capabilities", "device")
            for name in (*facts, "fingerprint", "to", "attach", "editing", "prepare"):
                object.__setattr__(self, name, getattr(inner, name))
            object.__setattr__(self, "inner", inner)

        def forward(self, x, input, reading):
            return self.inner(x, input, reading)

    p = program(ModuleAsSource(tiny_source()))
    assert set(p.state_dict()) == {"input.edits.1.values"}


def test_batch_norm_and_dropout_stay_in_eval_mode_through_training():
    p = program()
    before = copy.deepcopy(p.source.module.state_dict())
    fingerprint = p.source.fingerprint()
    p.train()
    p.source.module.train()  # even if somebody does this
    first = p(torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    second = p(torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    first.sum().backward()
    assert torch.equal(first, second)
    assert all(torch.equal(v, before[k]) for k, v in p.source.module.state_dict().items())
    assert p.source.fingerprint() == fingerprint


def test_fingerprint_sees_parameters_and_buffers():
    source = tiny_source()
    one = source.fingerprint()
    assert one == tiny_source().fingerprint() != tiny_source(seed=1).fingerprint()
    with torch.no_grad():
        source.module.blocks[0][1].running_mean[0] += 1e-7
    two = source.fingerprint()
    assert two != one
    with torch.no_grad():
        next(source.module.parameters()).view(-1)[0] += 1e-7
    assert source.fingerprint() not in (one, two)


def test_taxonomy_is_read_off_the_parts():
    source = tiny_source()
    p = Program([Place(16), Additive(full_mask(16)), Shift("hidden.1")], source, Linear(12, 3))
    assert p.taxonomy == Taxonomy.of(
        Configuration.LEARNABLE, Location.INPUT, Location.HIDDEN, Operator.ADDITIVE, Alignment.LINEAR
    )
    p.input.edits[2].requires_grad_(False)
    assert p.taxonomy.configuration == {Configuration.LEARNABLE, Configuration.FIXED}
    assert Program([Place(16)], source, Identity()).taxonomy == Taxonomy.of(Alignment.IDENTITY)


def test_one_edit_serves_every_location():
    source = tiny_source()
    x = torch.rand(2, 3, 16, 16)
    for site, channels in (("input", 3), ("normalised", 3), ("hidden.0", 16), ("blocks.1", 16)):
        p = Program([Shift(site, channels)], source, Identity())
        assert not torch.allclose(p(x), source(x, Input()).logits)


def test_edits_at_one_site_act_in_order():
    class Times(Edit):
        site, operators = "input", frozenset()

        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return value * 2

    class Plus(Edit):
        site, operators = "input", frozenset()

        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return value + 1

    x = torch.ones(1, 1)
    assert float(Input(Times(), Plus())(x)) == 3
    assert float(Input(Plus(), Times())(x)) == 4


def test_unknown_site_is_refused_with_the_list():
    with pytest.raises(CapabilityError, match=r"`site` must be one of the source's sites.*'hidden.9'.*reprogram sites"):
        Program([Shift("hidden.9")], tiny_source(), Identity())


def test_learning_needs_gradients():
    class NoGradients:
        def __init__(self, inner) -> None:
            self.inner = inner
            self.capabilities = frozenset()

        def __getattr__(self, name):
            return getattr(self.inner, name)

    with pytest.raises(CapabilityError, match="must give gradients"):
        program(NoGradients(tiny_source()))


def test_gradients_in_float64():
    net = tiny_source().module.double()
    from reprogram.sources import wrap

    source = wrap(net, input_shape=(3, 16, 16))
    p = Program([Additive(frame_mask(16, 2), squash="sigmoid"), Additive(full_mask(16), site="normalised")],
                source, Identity()).double()  # fmt: skip
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    names = [n for n, _ in p.named_parameters()]

    def scores(*values):
        return torch.func.functional_call(p, dict(zip(names, values, strict=True)), (x,))

    values = tuple(v.detach().requires_grad_() for v in p.parameters())
    assert torch.autograd.gradcheck(scores, values, fast_mode=True)


def test_predict_takes_what_people_have():
    import numpy as np

    p = program()
    x = torch.rand(5, 3, 16, 16)
    expected = p(x)
    assert torch.allclose(p.predict(x, batch_size=2).scores, expected, atol=1e-6)
    assert p.training
    assert p.predict(x[0]).scores.shape == (1, 3)
    assert len(p.predict(np.asarray(x.permute(0, 2, 3, 1)))) == 5
    assert len(p.predict([])) == 0
    with pytest.raises(DataError):
        p.predict(["no-such-file.png"])


def test_parameters_allocated_and_effective():
    p = program()
    frame = 3 * (16 * 16 - 8 * 8)
    assert (p.count().allocated, p.count().effective, p.count().fitted) == (frame, frame, 0)


def test_source_output_without_scores_says_so():
    with pytest.raises(ValueError, match="no class scores"):
        _ = SourceOutput().logits


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"lr": float("nan")}, {"epochs": 0}, {"momentum": -1.0}, {"patience": 0}])
def test_recipe_refuses(bad):
    with pytest.raises(ConfigError, match=f"recipe.{next(iter(bad))}"):
        Recipe(**bad)


def test_task_spec_refuses_one_class_and_doubles():
    sample = Sample(shape=(3, 8, 8))
    with pytest.raises(DataError, match="at least two"):
        TaskSpec(name="t", classes=("a",), sample=sample)
    with pytest.raises(DataError, match="distinct"):
        TaskSpec(name="t", classes=("a", "b", "a"), sample=sample)
