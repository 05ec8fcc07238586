"""Signs of failure: each is provoked by a source made for it, and not said of a healthy one."""

import copy

import pytest
import torch
from torch import nn

from reprogram.ntk import DiagnoseOptions, diagnose, spectrum
from reprogram.ntk.dynamics import loo_accuracy
from reprogram.ntk.signs import MARGIN, below_rounding, beyond_chance, certainty, collapsed, duplicates, signs
from reprogram.rank.diagnose import diagnose as examine
from reprogram.report.diagnosis import lead
from reprogram.testing import tiny_source, tiny_task
from tests.ntk.nets import PIXELS, additive, healthy, mlp, patch, samples, source_of

OPTIONS = DiagnoseOptions(source_samples=24)


def warned(program, n=24, options=OPTIONS):
    return " | ".join(diagnose(program, *samples(n), options=options).warnings)


def changed(source, head=lambda w, b: (w, b)):
    """The same source with another head."""
    layers = copy.deepcopy(source.module.layers)
    with torch.no_grad():
        weight, bias = head(layers[-1].weight, layers[-1].bias)
        layers[-1].weight.copy_(weight)
        layers[-1].bias.copy_(bias)
    return source_of(*layers)


def test_a_healthy_source_has_none():
    assert warned(additive(healthy())) == ""
    assert "No sign of failure" in lead(diagnose(additive(healthy()), *samples(24), options=OPTIONS))


def test_collapsed_predictions():
    one_class = changed(healthy(), lambda w, b: (w * 0.1, b + torch.tensor([2.0, 0.0, 0.0])))
    said = warned(additive(one_class))
    assert "Domain mismatch: the source's predictions fall into 1.0 classes in effect where 3 could be" in said
    assert "Over-trained" not in said


def test_a_saturated_softmax():
    said = warned(additive(changed(healthy(), lambda w, b: (w * 100, b * 100))))
    assert "Over-trained source: it gives its first choice a probability of 1.00" in said
    assert "fall into" not in said


class Squash(nn.Module):
    """Makes all pictures nearly the same."""

    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, x):
        return 0.5 + self.by * (x - 0.5)


def test_a_nearly_singular_source_kernel():
    torch.manual_seed(0)
    said = warned(additive(source_of(Squash(1e-4), nn.Linear(PIXELS, 3))))
    assert "Low lambda_min: the source's own kernel is nearly singular" in said
    assert "Low lambda_min" not in warned(additive(source_of(Squash(1.0), nn.Linear(PIXELS, 3))))


def test_a_singular_source_kernel_by_noise_and_by_structure():
    torch.manual_seed(0)
    said = warned(additive(source_of(Squash(1e-9), nn.Linear(PIXELS, 3))))
    assert "singular on these data (below the noise floor" in said
    few = source_of(nn.Linear(PIXELS, 6).requires_grad_(False), nn.Tanh(), nn.Linear(6, 3))
    kept = few.module.layers[0]
    few.module.layers[0] = Constant(kept)
    said = warned(additive(few))
    assert "zero by structure: rank at most 21 of 72" in said
    assert "look the same" not in said


class Constant(nn.Module):
    """A layer whose numbers are not parameters."""

    def __init__(self, layer):
        super().__init__()
        self.register_buffer("weight", layer.weight.detach().clone())
        self.register_buffer("bias", layer.bias.detach().clone())

    def forward(self, x):
        return nn.functional.linear(x, self.weight, self.bias)


def test_labels_that_have_nothing_to_do_with_the_pictures():
    x, y = samples(48)
    torch.manual_seed(1)
    noise = torch.randint(0, 256, x.shape, dtype=torch.uint8)
    assert "Domain mismatch: the kernel" in " ".join(diagnose(additive(mlp(3)), noise, y, options=OPTIONS).warnings)
    assert "Domain mismatch: the kernel" not in " ".join(diagnose(additive(healthy()), x, y, options=OPTIONS).warnings)


def test_little_in_reach():
    assert "of the label energy is in linear reach (rank 3 of 72)" in warned(patch(healthy()))


# -- nearly constant outputs -------------------------------------------------------------------------------------------


def fading(by):
    """Scores of size 1 whose dependence on the picture is `by` times what it was."""
    torch.manual_seed(0)
    layers = [nn.Linear(PIXELS, 32), nn.Tanh(), nn.Linear(32, 3)]
    with torch.no_grad():
        layers[0].weight.mul_(by)
        layers[2].bias.copy_(torch.tensor([1.0, -1.0, 0.5]))
    return source_of(*layers)


def test_outputs_that_are_constant_but_for_rounding():
    found = diagnose(additive(fading(1e-8)), *samples(12), options=DiagnoseOptions(source_samples=0, follow=2))
    assert found.program.largest > 0
    assert found.below_rounding
    assert not found.full_rank
    assert found.values["program_lambda_min"] is None
    assert found.card()["program"]["lambda_min"] is None
    assert found.card()["below_rounding"] is True
    assert "Nearly constant outputs" in found.warnings[0]
    assert "lost in the rounding" in next(r.shown for r in found.readings if r.name == "program lambda_min")
    assert "hardly moves" in lead(found)


def test_small_but_clear_effects_are_not_rounding():
    found = diagnose(additive(fading(1e-3)), *samples(12), options=DiagnoseOptions(source_samples=0))
    assert not found.below_rounding
    assert "Nearly constant" not in " ".join(found.warnings)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_scale_of_the_scores_does_not_matter(scale):
    for by, lost in ((1e-8, True), (1e-3, False)):
        source = changed(fading(by), lambda w, b: (w * scale, b * scale))
        found = diagnose(additive(source), *samples(12), options=DiagnoseOptions(source_samples=0))
        assert found.below_rounding is lost


def test_below_rounding_looks_at_the_typical_score():
    scores = torch.ones(4, 3)
    scores[:, 2] = -10_000.0  # what a label map gives to a class that it never saw
    mean = (2 * MARGIN * 1e-7) ** 2
    assert not below_rounding(spectrum(mean * torch.eye(12, dtype=torch.float64)), scores, 1e-7)
    assert below_rounding(spectrum(mean / 16 * torch.eye(12, dtype=torch.float64)), scores, 1e-7)


def test_a_deep_network_without_a_signal_is_not_of_full_rank():
    """Random weights that shrink the signal layer by layer, as batch norms without statistics do."""
    torch.manual_seed(0)
    layers = [nn.Linear(PIXELS, 32)]
    for _ in range(12):
        layers += [nn.ReLU(), nn.Linear(32, 32)]
    for layer in layers[::2]:
        nn.init.zeros_(layer.bias)
        nn.init.normal_(layer.weight, std=0.02)
    found = diagnose(additive(source_of(*layers, nn.ReLU(), nn.Linear(32, 3))), *samples(12), options=OPTIONS)
    assert found.below_rounding
    assert not found.full_rank


# -- the parts ---------------------------------------------------------------------------------------------------------


def test_few_samples_or_scores_are_no_collapse():
    """Four samples cannot spread over ten classes, nor two scores over ten targets."""
    facts = {"targets": 10.0}
    assert signs(None, None, torch.eye(10)[:4], facts, 4) == []
    assert signs(None, None, torch.eye(2).repeat(20, 1), facts, 40) == []
    assert signs(None, None, torch.randn(40, 1), facts, 40) == []
    assert "1.0 classes in effect where 10" in signs(None, None, torch.eye(10)[:1].repeat(40, 1), facts, 40)[0]


def test_a_handful_of_samples_is_no_test_of_the_labels():
    facts = {"targets": 2.0, "beyond_chance": 0.0}
    flat = spectrum(torch.eye(4, dtype=torch.float64))
    varied = torch.eye(4)
    assert signs(flat, None, varied, facts, 4) == []
    assert "above 0% of shuffles" in signs(flat, None, varied, facts, 40)[0]


def test_beyond_chance():
    y = torch.arange(20) % 2
    hot = nn.functional.one_hot(y, 2).double().flatten()
    hot = hot - 0.5
    own = spectrum(torch.outer(hot, hot))
    assert beyond_chance(own, y, 2, seed=0) == 1.0
    torch.manual_seed(0)
    other = torch.randn(40, dtype=torch.float64)
    shares = [beyond_chance(spectrum(torch.outer(other, other)), y[torch.randperm(20)], 2, seed=s) for s in range(8)]
    assert min(shares) < 0.95
    assert beyond_chance(own, y, 2, seed=3) == beyond_chance(own, y, 2, seed=3)


def test_counts():
    x = torch.rand(5, 3, 4, 4)
    assert duplicates(x) == 0
    assert duplicates(torch.cat([x, x[:2], x[:1]])) == 3
    assert collapsed(torch.eye(3).repeat(4, 1)) == pytest.approx(3.0)
    assert certainty(torch.zeros(4, 5)) == pytest.approx(0.2)


# -- rounding that knows the label -------------------------------------------------------------------------------------


def test_targets_that_no_kernel_tells_apart_share_the_points():
    """A source that says one class for everything leaves a label map of equal columns: all scores tie, always."""
    source, task = tiny_source(), tiny_task()
    with torch.no_grad():
        source.module.head.bias[4] += 100.0
    found = examine(source, task, method="blm", n=12, options=DiagnoseOptions(source_samples=0))
    assert found.values["loo_accuracy"] == pytest.approx(1 / 3, abs=0.01)


def test_clear_scores_do_not_share():
    scores = torch.tensor([[0.2, 0.3, 0.1], [0.0, -1.0, 2.0], [1.0, 1.0, 0.0], [1e4, -1e4, 0.0]])
    assert loo_accuracy(scores, torch.tensor([1, 2, 0, 0])) == pytest.approx(3.5 / 4)


def test_the_random_twin_of_a_tiny_source_is_not_below_rounding():
    found = examine(tiny_source().randomised(0),
                    tiny_task(), n=9, config={"width": 3}, options=DiagnoseOptions(source_samples=0))  # fmt: skip
    assert not found.below_rounding
