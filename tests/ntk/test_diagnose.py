"""A whole diagnosis: every figure against the plain computation, what it leaves alone, and bad input."""

import copy
import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import reprogram as rp
from reprogram.core.errors import CapabilityError, ConfigError, DataError
from reprogram.core.program import Program
from reprogram.core.source import Capability
from reprogram.inputs import Place
from reprogram.ntk import DiagnoseOptions, diagnose, memory
from reprogram.ntk.diagnose import NAMES
from reprogram.ntk.dynamics import RIDGES
from reprogram.outputs import FirstClasses
from reprogram.rank import target_sample
from reprogram.rank.diagnose import diagnose as examine
from reprogram.tasks import Task
from reprogram.testing import tiny_source, tiny_task
from tests.ntk.nets import PIXELS, additive, linear, mlp, patch, samples, source_of
from tests.ntk.oracle import learned, plain

QUICK = DiagnoseOptions(source_samples=4)
ALONE = DiagnoseOptions(source_samples=0)


def near(a, b, rel=1e-4):
    assert a == pytest.approx(b, rel=rel, abs=1e-12)


def strict(card):
    return json.loads(json.dumps(card, allow_nan=False))


def timeless(card):
    return {k: v for k, v in card.items() if k != "seconds"}


# -- figures -----------------------------------------------------------------------------------------------------------


def observed(program, x, y):
    """The same with its output map made from the samples, by hand."""
    program = Program(
        copy.deepcopy(program.input), program.source, copy.deepcopy(program.output), origin=program.origin
    )
    if hasattr(program.output, "observe"):
        program.output.forget()
        with torch.no_grad():
            program.output.observe(program.source(x, program.input, program.output.reading), y)
        program.output.refresh()
    return program.eval()


def plain_loo(kernel, labels, scores, ridge):
    """Fit to all other samples, one sample at a time."""
    n, t = labels.shape
    gap = (labels - scores).reshape(n, t)
    blocks = kernel.reshape(n, t, n, t)
    rho = ridge * float(kernel.diagonal().mean())
    found = torch.zeros(n, t, dtype=torch.float64)
    for i in range(n):
        rest = [m for m in range(n) if m != i]
        size = len(rest) * t
        inside = blocks[rest][:, :, rest].reshape(size, size) + rho * torch.eye(size, dtype=torch.float64)
        across = blocks[i][:, rest].reshape(t, size)
        found[i] = scores[i] + across @ torch.linalg.solve(inside, gap[rest].flatten())
    return found


def shared_accuracy(scores, y):
    """Equal scores share the point."""
    right = 0.0
    for row, label in zip(scores, y, strict=True):
        first = [t for t in range(len(row)) if row[t] > row.max() - 1e-5]
        right += (int(label) in first) / len(first)
    return right / len(y)


def by_hand(program, x, y):
    """All figures of the program, from the dense kernel of one gradient at a time."""
    kernel = plain(program, x, learned(program))
    scores = program(x).detach().double()
    n, t = scores.shape
    labels = F.one_hot(y, t).double() - 1 / t
    gap = (labels - scores).flatten()
    values, vectors = torch.linalg.eigh(kernel)
    mean = float(values.sum()) / len(values)
    loss = program(x)
    slope = torch.autograd.grad(F.cross_entropy(loss, y), learned(program))
    after = [torch.matrix_exp(-time * kernel) @ gap for time in (10.0, 10.0 / mean)]
    held = [plain_loo(kernel, labels, scores, ridge) for ridge in RIDGES]
    best = min(held, key=lambda s: float((labels - s).square().sum()))
    share = values.clamp_min(0) / values.clamp_min(0).sum()
    flat = labels.flatten()
    return {
        "program_lambda_max": float(values[-1]),
        "trace": mean,
        "gf_loss": float(after[0].square().sum()) / 2 / n,
        "gf_loss_relative": float(after[1].square().sum() / gap.square().sum()),
        "ce_rate": sum(float(g.double().square().sum()) for g in slope),
        "alignment": float(flat @ kernel @ flat / (flat @ flat * kernel.norm())),
        "effective_rank": float(torch.exp(-(share[share > 0] * share[share > 0].log()).sum())),
        "logdet_reg": float((values.clamp_min(0) + 1e-3 * mean).log().mean()),
        "loo_accuracy": shared_accuracy(best, y),
    }, (values.flip(0), vectors.flip(1), flat)


PROGRAMS = {"vp": {"width": 3}, "ilm_vp": {}, "blm": {}, "smm": {"patch": 4}, "fc": {}, "linear_probe": {}}


@pytest.mark.parametrize("method", PROGRAMS)
def test_every_figure_is_the_plain_one(method):
    source, task = tiny_source(), tiny_task()
    program = rp.build(method, source, task, **PROGRAMS[method])
    x, y = task.train.fetch(torch.arange(8)), task.train.labels[:8]
    found = diagnose(program, x, y, options=QUICK)
    other = observed(program, x, y)
    wanted, (values, vectors, labels) = by_hand(other, x, y)
    scores = found.scores()
    assert set(scores) == set(NAMES)
    for name, value in wanted.items():
        near(scores[name], value)
    above = int((values > found.program.floor).sum())
    rank = min(above, scores["program_cap"])
    assert scores["program_rank"] == rank
    outputs = torch.linalg.matrix_rank(other.output.fold()) if method == "blm" else 3  # its columns may depend
    assert scores["program_cap"] == min(8 * outputs, sum(p.numel() for p in learned(program)))
    assert found.full_rank == (rank == 24)
    near(scores["reachable"], float((vectors[:, : int(rank)].T @ labels).square().sum() / (labels @ labels)))
    near(scores["condition"], float(values[0] / values[int(rank) - 1]), 0.1)  # its last eigenvalue may be at the floor
    if found.full_rank:
        near(scores["program_lambda_min"], float(values[-1]), 1e-2)
    else:
        assert scores["program_lambda_min"] is None
    mine = plain(other, x[:4], list(source.module.parameters()))
    theirs = torch.linalg.eigvalsh(mine).flip(0)
    near(scores["source_lambda_max"], float(theirs[0]))
    assert found.source_samples == 4
    assert scores["source_rank"] == int((theirs > found.source_spectrum.floor).sum())
    if scores["source_lambda_min"] is not None:
        near(scores["source_lambda_min"], float(theirs[-1]), 1e-2)
    strict(found.card())


def test_first_step_rate_is_what_a_small_step_does():
    x, y = samples()
    program = additive(mlp())
    rate = diagnose(program, x, y, options=ALONE).values["ce_rate"]
    numbers = learned(program)
    loss = F.cross_entropy(program(x).double(), y)
    grads = torch.autograd.grad(loss, numbers)
    with torch.no_grad():
        for p, g in zip(numbers, grads, strict=True):
            p.sub_(1e-1 * g)
        after = F.cross_entropy(program(x).double(), y)
    assert float(loss.detach() - after) / 1e-1 == pytest.approx(rate, rel=0.02)


def test_readings_show_the_figures_they_name():
    found = diagnose(additive(mlp()), *samples(), options=QUICK)
    shown = {r.name: r for r in found.readings}
    assert shown["reachable label energy"].value == found.values["reachable"]
    assert shown["loss of gradient flow"].shown == f"{found.values['gf_loss']:.3g}"
    assert all(r.predicts.endswith(".") and r.trust.endswith(".") and r.shown for r in found.readings)
    assert shown["program rank"].shown.startswith(f"{found.program.rank} of 36")


# -- what it leaves alone ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", PROGRAMS)
@pytest.mark.parametrize("training", [True, False])
def test_the_program_is_as_before_bit_for_bit(method, training):
    source, task = tiny_source(), tiny_task()
    program = rp.build(method, source, task, **PROGRAMS[method]).train(training)
    x, y = task.train.fetch(torch.arange(6)), task.train.labels[:6]
    if hasattr(program.output, "observe"):  # statistics and map of other samples, which must survive
        with torch.no_grad():
            said = source(task.train.fetch(torch.arange(6, 20)), program.input, program.output.reading)
        program.output.observe(said, task.train.labels[6:20])
        program.output.refresh()
    with torch.no_grad():
        for p in learned(program):
            p.add_(torch.randn_like(p) * 0.1)
    everything = {**dict(program.named_parameters()), **dict(program.named_buffers())}
    before = {name: value.detach().clone() for name, value in everything.items()}
    counts = program.output.statistics() if hasattr(program.output, "statistics") else {}
    flags = [p.requires_grad for p in program.parameters()]
    fingerprint = source.fingerprint()
    diagnose(program, x, y, options=replace(QUICK, follow=3))
    assert all(torch.equal(before[name], value) for name, value in everything.items())
    if counts:
        after = program.output.statistics()
        assert any(v.any() for v in counts.values())
        assert all(torch.equal(counts[name], after[name]) for name in counts)
    assert source.fingerprint() == fingerprint
    assert program.training is training
    assert [p.requires_grad for p in program.parameters()] == flags
    assert all(p.grad is None for p in program.parameters())
    assert all(p.grad is None and not p.requires_grad for p in source.module.parameters())


def test_a_failure_leaves_the_program_as_before():
    task = tiny_task()
    program = rp.build("blm", tiny_source(), task)
    x, y = task.train.fetch(torch.arange(6)).float() / 255, task.train.labels[:6]
    before = {k: v.clone() for k, v in program.state_dict().items()}
    x[3, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match=r"nan|finite"):
        diagnose(program, x, y, options=QUICK)
    assert all(torch.equal(before[k], v) for k, v in program.state_dict().items())
    assert not program.output.counts.any()


def test_same_seed_same_card_and_another_seed_another_sample():
    source, task = tiny_source(), tiny_task()
    cards = [
        timeless(examine(source, task, n=9, config={"width": 3}, options=replace(QUICK, seed=seed)).card())
        for seed in (0, 0, 1)
    ]
    assert cards[0] == cards[1]
    assert cards[0]["digest"] != cards[2]["digest"]
    assert cards[0]["scores"] != cards[2]["scores"]


def test_fit_mapping_makes_the_map_from_the_sample_or_takes_it_as_it_is():
    task = tiny_task()
    program = rp.build("blm", tiny_source(), task)
    x, y = task.train.fetch(torch.arange(9)), task.train.labels[:9]
    assert diagnose(program, x, y, options=ALONE).values["trace"] > 0
    unfitted = diagnose(program, x, y, options=replace(ALONE, fit_mapping=False))
    assert unfitted.values["trace"] == 0
    assert "its kernel is zero" in " ".join(unfitted.warnings)
    fitted = observed(program, x.flip(0) * 0.5, (y + 1) % 3)  # a map of something else
    taken = diagnose(fitted, x, y, options=replace(ALONE, fit_mapping=False))
    near(taken.values["program_lambda_max"], by_hand(fitted, x, y)[0]["program_lambda_max"])
    anew = diagnose(fitted, x, y, options=ALONE)
    near(anew.values["program_lambda_max"], by_hand(observed(program, x, y), x, y)[0]["program_lambda_max"])
    assert anew.values["program_lambda_max"] != pytest.approx(taken.values["program_lambda_max"], rel=1e-3)


# -- the actual curve --------------------------------------------------------------------------------------------------


def test_a_linear_source_trains_exactly_as_predicted():
    found = diagnose(additive(linear()), *samples(), options=replace(ALONE, follow=40))
    predicted, actual = found.curves.predicted, found.curves.actual
    assert len(actual) == 41
    assert actual[-1] < 0.999 * actual[0]
    assert actual == pytest.approx(predicted[:41], rel=1e-4)


@pytest.mark.parametrize("make", [mlp, lambda: tiny_source(size=8)])
def test_the_first_step_is_nearly_the_predicted_one(make):
    found = diagnose(additive(make()), *samples(), options=replace(ALONE, follow=1))
    predicted, actual = found.curves.predicted, found.curves.actual
    assert actual[0] == pytest.approx(predicted[0], rel=1e-5)
    assert predicted[0] - predicted[1] > 0
    assert actual[0] - actual[1] == pytest.approx(predicted[0] - predicted[1], rel=0.3)


def test_following_is_full_batch_descent_whatever_the_chunk():
    x, y = samples()
    curves = [diagnose(additive(mlp()), x, y, options=replace(ALONE, follow=5, chunk=c)).curves for c in (1, 5, 12)]
    for one in curves[1:]:
        assert one.actual == pytest.approx(curves[0].actual, rel=1e-5)
    program = additive(mlp())
    labels = F.one_hot(y, 3).double() - 1 / 3
    optimiser = torch.optim.SGD(learned(program), lr=curves[0].rate)
    losses = []
    for _ in range(6):
        loss = (program(x).double() - labels).square().sum() / 2
        losses.append(float(loss.detach()) / len(x))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert curves[0].actual == pytest.approx(losses, rel=1e-4)


def test_a_number_that_nothing_depends_on_does_not_stop_the_following():
    program = additive(mlp())
    program.input.register_parameter("idle", nn.Parameter(torch.zeros(2)))
    found = diagnose(program, *samples(), options=replace(ALONE, follow=2))
    assert len(found.curves.actual) == 3


# -- samples -----------------------------------------------------------------------------------------------------------


def test_every_prefix_of_a_sample_is_balanced():
    x = torch.randint(0, 256, (90, 3, 4, 4), dtype=torch.uint8)
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 10)
    task = Task.from_arrays(x, labels, classes=("a", "b", "c"), name="skewed")
    have = torch.bincount(task.train.labels, minlength=3)
    sample = target_sample(task, 10_000)
    assert len(sample.y) == len(task.train.labels) == len(sample.x)
    assert torch.equal(torch.bincount(sample.y, minlength=3), have)
    for k in range(1, len(sample.y) + 1):
        counts = torch.bincount(sample.y[:k], minlength=3)
        room = counts < have  # classes that are not used up differ by one at most
        assert counts.max() - counts[room].min() <= 1 if room.any() else True


def test_another_seed_draws_another_sample_and_the_same_the_same():
    task = tiny_task()
    one, same, other = (target_sample(task, 12, seed) for seed in (0, 0, 1))
    assert torch.equal(one.x, same.x)
    assert torch.equal(one.y, other.y)  # classes in turn
    assert not torch.equal(one.x, other.x)
    longer = target_sample(task, 20, 0)
    assert torch.equal(longer.x[:12], one.x)
    for k in (0, 1, -3):
        with pytest.raises(ConfigError, match="n"):
            target_sample(task, k)


def test_n_above_the_split_takes_all_there_is():
    task = tiny_task(per_class=4)
    found = examine(tiny_source(), task, n=500, config={"width": 3}, options=QUICK)
    assert found.samples == len(task.train.labels)
    assert found.settings["width"] == 3
    assert (found.task, found.method, found.source) == ("tiny", "vp", "module:TinyNet")


def test_comparable_refuses_other_samples():
    source, task = tiny_source(), tiny_task()
    one, twin, other, fewer = (
        examine(made, task, n=n, config={"width": 3}, options=replace(QUICK, seed=seed))
        for made, n, seed in ((source, 9, 0), (source.randomised(1), 9, 0), (source, 9, 1), (source, 8, 0))
    )
    one.comparable(twin)
    for bad in (other, fewer, replace(one, method="blm"), replace(one, source_samples=3), replace(one, targets=4)):
        with pytest.raises(ConfigError, match="identical sample"):
            one.comparable(bad)


# -- invariances -------------------------------------------------------------------------------------------------------


def test_the_order_of_samples_does_not_matter():
    x, y = samples()
    program = additive(mlp())
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    one, other = (diagnose(program, x[o], y[o], options=DiagnoseOptions(source_samples=12))
                  for o in (torch.arange(len(x)), order))  # fmt: skip
    assert one.digest != other.digest
    for name, value in one.values.items():
        near(other.values[name], value, 1e-3)
    near(list(other.curves.program), list(one.curves.program), 1e-3)


def test_rotating_the_logits_leaves_the_eigenvalues():
    torch.manual_seed(5)
    rotation = torch.linalg.qr(torch.randn(4, 4)).Q
    plainly = mlp(outputs=4)
    turned = copy.deepcopy(plainly.module.layers)
    last = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        last.weight.copy_(rotation)
    x, y = samples(classes=4)
    one = diagnose(additive(plainly, 4), x, y, options=ALONE)
    other = diagnose(additive(source_of(*turned, last), 4), x, y, options=ALONE)
    assert one.curves.program == pytest.approx(other.curves.program, rel=1e-3)
    near(one.values["trace"], other.values["trace"])
    near(one.values["effective_rank"], other.values["effective_rank"])
    assert one.values["alignment"] != pytest.approx(other.values["alignment"], rel=1e-3)  # labels did not turn along


# -- programs with little to say ---------------------------------------------------------------------------------------


def test_a_program_of_few_numbers_has_rank_and_reach_but_no_smallest_eigenvalue():
    found = diagnose(patch(mlp(), size=2), *samples(), options=QUICK)
    assert found.parameters == found.values["program_cap"] == 12
    assert found.values["program_rank"] <= 12
    assert found.values["program_lambda_min"] is None
    assert not found.full_rank
    assert 0 < found.values["reachable"] < 1
    row = next(r for r in found.readings if r.name == "program lambda_min")
    assert row.value is None
    assert "zero by structure: rank at most 12 of 36" in row.shown
    assert next(r for r in found.readings if r.name == "reachable label energy").shown.endswith("%")
    assert strict(found.card())["program"]["lambda_min"] is None


def test_a_program_that_learns_nothing_has_only_the_sources_kernel():
    program = Program([Place(8)], mlp(), FirstClasses(4, 3))
    found = diagnose(program, *samples(), options=replace(QUICK, follow=3))
    assert found.program is None
    assert not found.full_rank
    assert found.parameters == 0
    assert found.values["source_lambda_min"] > 0
    assert [r.name for r in found.readings] == ["source lambda_min"]
    assert "learns nothing" in " ".join(found.warnings)
    assert found.curves.predicted == found.curves.actual == ()
    strict(found.card())
    bare = diagnose(program, *samples(), options=ALONE)
    assert bare.readings == ()
    assert all(v is None for v in bare.values.values())
    strict(bare.card())


def test_no_source_kernel():
    found = diagnose(additive(mlp()), *samples(), options=ALONE)
    assert found.source_spectrum is None
    assert found.source_samples == 0
    assert found.values["source_lambda_min"] is None
    assert found.values["program_lambda_min"] > 0
    assert found.curves.source == ()
    assert strict(found.card())["source_kernel"] is None


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("y", "words"), [
    (torch.zeros(12, dtype=torch.long), "two classes"),
    (torch.arange(12), "below 3"),
    (torch.arange(12) - 1, "from 0 on"),
    (torch.arange(11) % 3, "12 class numbers"),
    (torch.rand(12), "class numbers"),
    (torch.zeros(12, 1, dtype=torch.long), "class numbers"),
])  # fmt: skip
@pytest.mark.parametrize("method", ["vp", "blm"])
def test_labels_that_do_not_fit(y, words, method):
    task = tiny_task()
    program = rp.build(method, tiny_source(), task, **PROGRAMS[method])
    with pytest.raises(DataError, match=words):
        diagnose(program, task.train.fetch(torch.arange(12)), y, options=QUICK)


def test_no_samples_at_all():
    with pytest.raises(DataError, match="at least one"):
        diagnose(additive(mlp()), torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.long), options=QUICK)


@pytest.mark.parametrize("wrong", [{"source_samples": -1}, {"follow": -1}, {"chunk": 0}, {"seed": -1}])
def test_options_out_of_range(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DiagnoseOptions(**wrong)


def test_a_program_of_another_task_is_refused():
    program = rp.build("vp", tiny_source(), tiny_task(), width=3)
    with pytest.raises(ConfigError, match="must have 4 targets"):
        examine(program, tiny_task(classes=4), n=8, options=QUICK)


def test_classes_that_are_missing_are_named():
    x, y = samples()
    found = diagnose(additive(mlp()), x[y < 2], y[y < 2], options=QUICK)
    assert "Only 2 of 3 classes" in " ".join(found.warnings)
    assert "classes are among" not in " ".join(diagnose(additive(mlp()), *samples(), options=QUICK).warnings)


def test_copies_of_samples_make_exact_zeros():
    x, y = samples(8)
    x, y = torch.cat([x, x[:2]]), torch.cat([y, y[:2]])
    found = diagnose(additive(mlp()), x, y, options=DiagnoseOptions(source_samples=10))
    assert "2 of 10 samples are copies" in found.warnings[0]
    assert found.values["program_lambda_min"] is None
    assert found.values["source_lambda_min"] is None
    assert found.program.rank == 8 * 3
    assert found.program.rank + 2 * 3 == found.program.size
    assert float(found.program.eigenvalues[found.program.rank :].max()) <= found.program.floor
    alone = diagnose(additive(mlp()), x[:8], y[:8], options=ALONE)
    assert alone.values["program_lambda_min"] > 0
    assert "copies" not in " ".join(alone.warnings)


def test_constant_outputs_give_a_zero_kernel_and_no_figure():
    source = mlp()
    with torch.no_grad():
        source.module.layers[0].weight.zero_()
    found = diagnose(additive(source), *samples(), options=replace(QUICK, follow=3))
    assert found.values["program_lambda_max"] == 0
    assert (found.values["program_rank"], found.values["reachable"], found.values["ce_rate"]) == (0, 0, 0)
    for name in ("program_lambda_min", "condition", "alignment", "gf_loss", "gf_loss_relative", "loo_accuracy"):
        assert found.values[name] is None
    assert "its kernel is zero" in " ".join(found.warnings)
    assert not found.full_rank
    assert found.curves.predicted == found.curves.actual == ()
    strict(found.card())


def test_bfloat16_is_labelled_and_has_a_higher_floor():
    layers = mlp().module.layers
    halves = source_of(*copy.deepcopy(layers), dtype=torch.bfloat16)
    low, high = (diagnose(additive(s), *samples(), options=QUICK) for s in (halves, source_of(*layers)))
    assert "Half precision" in " ".join(low.warnings)
    assert "Half precision" not in " ".join(high.warnings)
    assert "7.8e-03" in low.precision
    assert low.program.floor > 1e6 * high.program.floor
    near(low.values["program_lambda_max"], high.values["program_lambda_max"], 0.05)
    assert low.values["program_rank"] < high.values["program_rank"] == 36
    assert low.values["program_lambda_min"] is None
    assert not low.full_rank
    strict(low.card())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", ["vp", "blm"])
def test_weights_that_are_not_finite(value, method):
    source, task = tiny_source(), tiny_task()
    with torch.no_grad():
        source.module.head.weight[1, 3] = value
    program = rp.build(method, source, task, **PROGRAMS[method])
    with pytest.raises(DataError, match=r"finite|nan|inf"):
        diagnose(program, task.train.fetch(torch.arange(6)), task.train.labels[:6], options=QUICK)


def test_a_source_without_gradients_is_refused_with_the_way_out():
    source = mlp()
    program = additive(source)
    source.capabilities = source.capabilities - {Capability.GRADIENTS}
    with pytest.raises(CapabilityError, match="zeroth_order"):
        diagnose(program, *samples(), options=QUICK)


def test_a_source_that_couples_samples_is_refused():
    alone = nn.BatchNorm2d(3, track_running_stats=False)
    source = source_of(nn.Unflatten(1, (3, 8, 8)), alone, nn.Flatten(), nn.Linear(PIXELS, 3))
    with pytest.raises(CapabilityError, match="batch"):
        diagnose(additive(source), *samples(), options=QUICK)


def test_too_many_samples_for_memory_says_how_many_would_fit(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 20_000)
    with pytest.raises(ConfigError, match=r"Take n = \d+ samples.*sketch"):
        diagnose(additive(mlp()), *samples(40), options=ALONE)
    diagnose(additive(mlp()), *samples(3), options=ALONE)


def test_a_sketch_of_the_whole_split_beside_the_exact_figures():
    """Through the same output map, put back afterwards; its samples may be many more than the kernel's."""
    task = tiny_task(per_class=24)
    program = rp.build("ilm_vp", tiny_source(), task)
    before = {k: v.clone() for k, v in program.state_dict().items()}
    found = rp.diagnose(program, task, n=9, sketch=40, options=DiagnoseOptions(source_samples=0))
    assert found.sketch is not None and found.sketch.samples == 40
    assert found.samples == 9
    names = [r.name for r in found.readings if "40 samples" in r.name]
    assert "trace, 40 samples" in names and not any("lambda_min" in n for n in names)
    assert json.loads(json.dumps(found.card(), allow_nan=False))["sketch"]["samples"] == 40
    assert all(torch.equal(before[k], v) for k, v in program.state_dict().items())
    assert rp.diagnose(program, task, n=9, options=DiagnoseOptions(source_samples=0)).sketch is None
