"""Outputs: what each computes, what it is before it is fitted, what it saves, how it counts over batches and ranks."""

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import reprogram.outputs
from reprogram.core.errors import ArtifactError, CapabilityError, ConfigError, DataError
from reprogram.core.program import Observing, Output
from reprogram.core.source import SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs import (
    BayesianMap,
    BayesianMapPlus,
    FirstClasses,
    FrequencyMap,
    Identity,
    Linear,
    NamedClasses,
    RandomMap,
)
from reprogram.outputs.label_maps import bayesian_map, bayesian_map_plus, count_pairs, many_to_one_map, random_map
from reprogram.outputs.statistical import UNSEEN

often = settings(deadline=None, max_examples=30, derandomize=True)
S, T = 9, 4
NAMES = [f"class {i}" for i in range(S)]
RULES = {"cat": "class 7", "dog": ["class 1", "class 4", "class 2"], "cow": "#3", "emu": ["class 0", "class 8"]}

OBSERVING = {
    "frequency": lambda: FrequencyMap(S, T),
    "many to one": lambda: FrequencyMap(S, T, per_class=2),
    "blm": lambda: BayesianMap(S, T),
    "blm without smoothing": lambda: BayesianMap(S, T, smoothing=0.0),
    "blm+": lambda: BayesianMapPlus(S, T, top_ratio=0.6, temperature=2.0),
    "linear": lambda: Linear(S, T),
    "linear on features": lambda: Linear(S, T, features=True),
}
ALL = {
    "identity": lambda: Identity(S),
    "first": lambda: FirstClasses(S, T),
    "named": lambda: NamedClasses(NAMES, RULES),
    "random": lambda: RandomMap(S, T, seed=3),
    **OBSERVING,
}
every = pytest.mark.parametrize("make", ALL.values(), ids=ALL)
every_observing = pytest.mark.parametrize("make", OBSERVING.values(), ids=OBSERVING)


def said(n: int, seed: int = 0, width: int = S) -> SourceOutput:
    """Scores that tell something of `labels(n, seed)`, and the same numbers as features."""
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(n, width, generator=draw) - 1
    scores[torch.arange(n), labels(n, seed) * 2] += 3
    return SourceOutput(scores=scores, features=scores)


def labels(n: int, seed: int = 0) -> Tensor:
    return torch.randint(T, (n,), generator=torch.Generator().manual_seed(seed + 1))


def of(scores: Tensor) -> SourceOutput:
    return SourceOutput(scores=scores, features=scores)


def fitted(make, n: int = 40) -> Output:
    """With weights that are not zero, and a map that is not its first."""
    output = make()
    with torch.no_grad():
        for p in output.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(5)))
    if isinstance(output, Observing):
        output.observe(said(n), labels(n))
        output.refresh()
    return output


# What each computes


@every
def test_forward_is_the_folded_matrix_and_the_offset(make):
    output, source = fitted(make), said(6, 1)
    torch.testing.assert_close(output(source), source.logits @ output.fold() + output.offset())


@every
def test_precision_is_float32_at_least_also_under_autocast(make):
    output = fitted(make)
    for kind in (torch.bfloat16, torch.float16):
        half = said(6, 1).logits.to(kind)
        wanted = output(of(half.float()))
        assert wanted.dtype == torch.float32
        assert torch.equal(output(of(half)), wanted)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(output(of(half)), wanted)
    assert output(of(half.double())).dtype == torch.float64


@every
def test_gradients_reach_the_scores(make):
    output = fitted(make).double()
    scores = said(3, 1).logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: output(of(z)), scores)


@every
def test_functional_transforms_work(make):
    output, scores = fitted(make), said(3, 1).logits
    slopes = torch.func.vmap(torch.func.jacrev(lambda z: output(of(z[None]))[0]))(scores)
    torch.testing.assert_close(slopes, output.fold().T.expand_as(slopes))


@pytest.mark.compile
@every
def test_compiled_is_eager(make):
    output, scores = fitted(make), said(3, 1).logits
    torch._dynamo.reset()
    compiled = torch.compile(lambda z: output(of(z)), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(scores), output(of(scores)))


@every
def test_an_empty_batch_has_no_scores(make):
    output = fitted(make)
    assert output(said(0)).shape == (0, S if isinstance(output, Identity) else T)


@every
def test_a_source_of_another_width_is_refused(make):
    with pytest.raises(
        ConfigError, match=f"`sources` must be {S + 1}, the number of .* that this source gives, got {S}"
    ):
        make()(said(2, width=S + 1))


@pytest.mark.parametrize(
    ("name", "alignment"),
    [("identity", "identity"), ("first", "rule-based"), ("named", "rule-based"), ("random", "statistical"),
     ("frequency", "statistical"), ("blm", "statistical"), ("blm+", "statistical"), ("linear", "linear")],
)  # fmt: skip
def test_alignments(name, alignment):
    assert ALL[name]().alignment is Alignment(alignment)


@pytest.mark.parametrize("name", ALL)
def test_outputs_that_observe_say_so(name):
    assert isinstance(ALL[name](), Observing) is (name in OBSERVING)


def test_public_names_are_sorted_and_there():
    names = reprogram.outputs.__all__
    assert names == sorted(names)
    assert all(getattr(reprogram.outputs, name) for name in names)


# Identity and rules


def test_identity_takes_any_width_but_folds_only_a_known_one():
    assert Identity()(said(2, width=S + 3)).shape == (2, S + 3)
    with pytest.raises(ConfigError, match="`sources` must be given"):
        Identity().fold()
    with pytest.raises(ConfigError, match="`sources` must be 1 or more"):
        Identity(0)


def test_log_probabilities_are_over_all_source_classes():
    source = said(5)
    whole = source.logits.log_softmax(-1)
    first, named = FirstClasses(S, T, log_probabilities=True), NamedClasses(NAMES, RULES, log_probabilities=True)
    assert torch.equal(first(source), whole[:, :T])
    assert (first(source).exp().sum(-1) < 1).all()
    torch.testing.assert_close(named(source), whole @ named.fold() + named.offset())


def test_more_targets_than_sources_is_an_error():
    for make in (FirstClasses, RandomMap, FrequencyMap):
        with pytest.raises(ConfigError, match="`targets` must be at most 3"):
            make(3, 4)
    with pytest.raises(ConfigError, match=r"`per_class \* targets` must be at most 9"):
        FrequencyMap(9, 4, per_class=3)
    for make in (BayesianMap, BayesianMapPlus):
        assert make(3, 4)(of(torch.zeros(2, 3))).shape == (2, 4)


def test_named_classes_are_means():
    scores = torch.arange(float(S))[None]
    assert NamedClasses(NAMES, RULES)(of(scores)).flatten().tolist() == pytest.approx([7, 7 / 3, 3, 4])


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"cat": "tabbi cat"}, r"`mapping\['cat'\]` must be a class name of the source, got .*Nearest: \['Tabby cat'"),
        ({"cat": "xyzzy"}, r"There are 4, the first are \['Tabby cat', 'crane', 'crane'\]"),
        ({"bird": "crane"}, r"one source class has alone, got 'crane'. Write one of \['#1', '#2'\]"),
        ({"bird": "#4"}, "must be a class name of the source"),
        ({"cat": []}, "must name one or more source classes"),
        ({"cat": ["Tabby cat", "#0"]}, "each once"),
        ({}, "`mapping` must name source classes"),
    ],
)  # fmt: skip
def test_names_that_do_not_fit_are_errors_with_a_remedy(mapping, message):
    with pytest.raises(ConfigError, match=message):
        NamedClasses(["Tabby cat", "crane", "crane", "beagle"], mapping)


def test_a_name_that_the_source_has_twice_is_said_by_number():
    output = NamedClasses(["crane", "crane"], {"bird": "#1", "machine": "#0"})
    assert output(of(torch.tensor([[1.0, 2.0]]))).tolist() == [[2.0, 1.0]]


# Before the first refresh, and for classes never seen


def test_before_the_first_refresh():
    source = said(5)
    assert torch.equal(FrequencyMap(S, T)(source), source.logits[:, :T])
    for make in (BayesianMap, BayesianMapPlus, Linear):
        assert not make(S, T)(source).any()


@every_observing
def test_refreshing_from_nothing_changes_nothing(make):
    output = fitted(make)
    before = copy.deepcopy(output.state_dict())
    output.forget()
    output.refresh()
    output.observe(said(0), labels(0))
    output.refresh()
    assert all(torch.equal(before[name], value) for name, value in output.state_dict().items())


@pytest.mark.parametrize("make", [BayesianMap, BayesianMapPlus])
def test_a_class_never_seen_never_wins_and_has_a_finite_loss(make):
    output, source = make(S, T + 1), of(said(40).logits - 50)
    output.observe(source, labels(40))
    output.refresh()
    found = output(source)
    assert (found[:, T] == UNSEEN).all()
    assert (found.argmax(1) != T).all()
    assert math.isfinite(torch.nn.functional.cross_entropy(found, torch.full((40,), T)).item())
    assert output.offset().tolist() == [0.0] * T + [UNSEEN]


# Observing


@often
@given(n=st.integers(0, 50), cut=st.integers(0, 50), seed=st.integers(0, 1000))
def test_observed_maps_are_the_pure_functions_of_all_batches(n, cut, seed):
    source, target = said(n, seed), labels(n, seed)
    frequency, many, blm, plus = (
        FrequencyMap(S, T),
        FrequencyMap(S, T, 2),
        BayesianMap(S, T, 0.5),
        BayesianMapPlus(S, T),
    )
    for output in (frequency, many, blm, plus):
        for part in (slice(cut), slice(cut, None)):
            output.observe(of(source.logits[part]), target[part])
        output.refresh()
    counted = count_pairs(source.logits.argmax(1), target, S, T)
    assert torch.equal(frequency.index, many_to_one_map(counted, 1))
    assert torch.equal(many.index, many_to_one_map(counted, 2))
    assert torch.equal(blm.matrix, bayesian_map(counted, 0.5))
    assert torch.equal(plus.matrix, bayesian_map_plus(source.logits, target, T))


def test_random_map_is_the_pure_function():
    assert torch.equal(RandomMap(S, T, seed=8).index, random_map(S, T, 8))


@every_observing
def test_a_refresh_after_forgetting_knows_only_what_came_since(make):
    output, fresh = fitted(make), make()
    fresh.load_state_dict(output.state_dict())
    output.forget()
    for one in (output, fresh):
        one.observe(said(30, 7), labels(30, 7))
        one.refresh()
    assert all(torch.equal(a, b) for a, b in zip(output.buffers(), fresh.buffers(), strict=True))


@every_observing
def test_an_interrupted_fit_goes_on_bit_for_bit(make):
    whole, first, second = fitted(make), fitted(make), make()
    second.load_state_dict(first.state_dict())
    second.load_statistics(first.statistics())
    for output in (whole, second):
        output.observe(said(30, 7), labels(30, 7))
        output.refresh()
    assert all(torch.equal(a, b) for a, b in zip(whole.buffers(), second.buffers(), strict=True))
    assert torch.equal(whole(said(9)), second(said(9)))


@every_observing
def test_statistics_are_copies_and_foreign_ones_are_refused(make):
    output = fitted(make)
    kept = output.statistics()
    again = output.statistics()
    output.observe(said(5, 2), labels(5, 2))
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    for foreign in ({}, {**kept, "more": torch.zeros(1)}, {name: value[:0] for name, value in kept.items()}):
        with pytest.raises(ArtifactError, match="`statistics` must be"):
            output.load_statistics(foreign)


@every_observing
def test_observing_leaves_no_graph_and_works_in_inference_mode(make):
    output, source = make(), of(said(20).logits.requires_grad_())
    output.observe(source, labels(20))
    with torch.inference_mode():
        output.observe(of(source.logits.clone()), labels(20))
        output.refresh()
    assert not any(b.requires_grad or b.is_inference() for b in output.buffers())
    output(source).square().sum().backward()
    assert source.logits.grad is not None


@every_observing
def test_labels_and_scores_are_checked_before_they_are_counted(make):
    output = make()
    with pytest.raises(DataError, match="must be finite numbers"):
        output.observe(of(said(4).logits.fill_(math.nan)), labels(4))
    if not isinstance(output, Linear):
        with pytest.raises(DataError, match="`target` must be from 0 to 3, got 4"):
            output.observe(said(2), torch.tensor([0, 4]))
    assert not any(value.any() for value in output.statistics().values())


@pytest.mark.parametrize("make", [FrequencyMap, BayesianMap, BayesianMapPlus])
def test_a_cast_to_half_precision_does_not_spoil_the_counts(make):
    output, plain = make(S, T).half(), make(S, T)
    for one in (output, plain):
        one.observe(said(40), labels(40))
    assert torch.equal(output.counts, plain.counts)


# State


@pytest.mark.parametrize(
    ("name", "keys"),
    [("identity", []), ("first", []), ("named", []), ("random", ["index"]), ("frequency", ["index"]),
     ("blm", ["matrix"]), ("blm+", ["matrix"]), ("linear", ["bias", "mean", "std", "weight"])],
)  # fmt: skip
def test_what_is_saved(name, keys):
    assert sorted(ALL[name]().state_dict()) == keys


@every
def test_state_restores_the_output_and_has_its_shapes_from_the_start(make):
    output, fresh = fitted(make), make()
    assert [tuple(v.shape) for v in fresh.state_dict().values()] == [
        tuple(v.shape) for v in output.state_dict().values()
    ]
    fresh.load_state_dict(output.state_dict(), strict=True)
    assert torch.equal(fresh(said(9)), output(said(9)))
    assert torch.equal(copy.deepcopy(output)(said(9)), output(said(9)))


@pytest.mark.parametrize("make", [RandomMap, FrequencyMap])
@pytest.mark.parametrize("bad", [-1, S])
def test_a_foreign_index_is_refused(make, bad):
    state = make(S, T).state_dict()
    state["index"] = torch.full_like(state["index"], bad)
    with pytest.raises(ArtifactError, match="`index` must hold source classes from 0 to 8"):
        make(S, T).load_state_dict(state)


@pytest.mark.parametrize(
    "make",
    [lambda: BayesianMap(S, T, -1.0), lambda: BayesianMap(S, 0), lambda: BayesianMapPlus(0, T),
     lambda: BayesianMapPlus(S, T, math.nan), lambda: BayesianMapPlus(S, T, top_ratio=0.0),
     lambda: BayesianMapPlus(S, T, temperature=0.0), lambda: Linear(0, T), lambda: FrequencyMap(S, T, 0)],
)  # fmt: skip
def test_settings_are_checked_when_built(make):
    with pytest.raises(ConfigError):
        make()


# Linear


def test_linear_standardises_by_mean_and_population_deviation():
    output, scores = Linear(S, T), said(50).logits * 3 + 100
    for part in scores.split([1, 0, 30, 19]):
        output.observe(of(part), labels(len(part)))
    assert torch.equal(output.mean, torch.zeros(S))
    output.refresh()
    torch.testing.assert_close(output.mean, scores.mean(0))
    torch.testing.assert_close(output.std, scores.std(0, correction=0))


def test_linear_only_centres_what_does_not_vary():
    output = Linear(S, T, features=True)
    values = torch.full((30, S), 1e6)
    values[:, 0] = torch.arange(30.0)
    values[:, 1] = 0
    output.observe(of(values), labels(30))
    output.refresh()
    assert output.std[1:].tolist() == [1.0] * (S - 1)
    assert output.std[0] > 8


def test_linear_starts_uniform_and_learns():
    output, source = Linear(S, T), said(200)
    assert torch.equal(output(source).softmax(-1), torch.full((200, T), 1 / T))
    output.observe(source, labels(200))
    output.refresh()
    steps = torch.optim.Adam(output.parameters(), lr=0.1)
    for _ in range(50):
        steps.zero_grad()
        torch.nn.functional.cross_entropy(output(source), labels(200)).backward()
        steps.step()
    assert (output(source).argmax(1) == labels(200)).float().mean() > 0.7


def test_linear_says_what_it_reads():
    assert Linear(S, T, features=True).reads_features
    assert not Linear(S, T).reads_features
    assert not Output.reads_features
    with pytest.raises(CapabilityError, match="must come with the source's features"):
        Linear(S, T, features=True)(SourceOutput(scores=said(2).logits))


# Ranks


def rank(rank: int, meeting: str, results: str) -> None:
    """Each rank sees its own samples, rank 1 none at all in the second round; saves its maps and statistics."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    found = []
    for make in OBSERVING.values():
        output = make()
        mine = slice(13) if rank == 0 else slice(13, None)
        output.observe(of(said(40).logits[mine]), labels(40)[mine])
        output.refresh()
        output.refresh()
        first = (copy.deepcopy(output.state_dict()), output.statistics())
        output.forget()
        if rank == 0:
            output.observe(said(30, 7), labels(30, 7))
        output.refresh()
        found.append((*first, output.state_dict()))
    torch.save(found, f"{results}/{rank}.pt")
    dist.destroy_process_group()


def test_refresh_adds_up_all_ranks_and_keeps_each_one_s_own(tmp_path: Path):
    mp.spawn(rank, args=(str(tmp_path / "meeting"), str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{i}.pt") for i in range(2)]
    for make, zero, one in zip(OBSERVING.values(), *ranks, strict=True):
        both, second, own = make(), make(), make()
        both.observe(said(40), labels(40))
        own.observe(of(said(40).logits[:13]), labels(40)[:13])
        second.observe(said(30, 7), labels(30, 7))
        both.refresh()
        second.refresh()
        for state in (zero[0], one[0]):
            torch.testing.assert_close(state, dict(both.state_dict()))
        for state in (zero[2], one[2]):
            torch.testing.assert_close(state, dict(second.state_dict()))
        for name, value in own.statistics().items():
            assert torch.equal(zero[1][name], value)
        if not isinstance(both, Linear):
            assert all(torch.equal(zero[0][name], value) for name, value in both.state_dict().items())
