"""Prototypes, neighbours and calibration: fitted without gradients, batch by batch, the same in any batches."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reprogram.core.errors import ArtifactError, CapabilityError, ConfigError, DataError
from reprogram.core.program import Observing
from reprogram.core.source import SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs import Calibrated, Identity, Linear, NearestNeighbours, Prototypes, Verbalizer, content_free
from reprogram.outputs.statistical import UNSEEN

D, T = 6, 3
often = settings(deadline=None, max_examples=30)


def said(n: int, seed: int = 0) -> SourceOutput:
    """Features that tell something of `labels(n, seed)`, and scores of T classes."""
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(n, D, generator=draw)
    features[torch.arange(n), labels(n, seed)] += 4
    return SourceOutput(scores=torch.randn(n, T, generator=draw) + torch.tensor([2.0, 0.0, -1.0]), features=features)


def labels(n: int, seed: int = 0) -> Tensor:
    return torch.randint(T, (n,), generator=torch.Generator().manual_seed(seed + 1))


def part(output: SourceOutput, rows: slice) -> SourceOutput:
    return SourceOutput(scores=output.scores[rows], features=output.features[rows])


OBSERVING = {
    "prototypes": lambda: Prototypes(D, T),
    "neighbours": lambda: NearestNeighbours(D, T, k=5, capacity=64),
    "few neighbours": lambda: NearestNeighbours(D, T, k=5, capacity=16),
    "calibrated": lambda: Calibrated(Identity(T), T),
}
every = pytest.mark.parametrize("make", OBSERVING.values(), ids=OBSERVING)


def fitted(make, n: int = 40):
    output = make()
    output.observe(said(n), labels(n))
    output.refresh()
    return output


@every
def test_they_observe_and_are_statistical(make):
    assert isinstance(make(), Observing)
    assert make().alignment is Alignment.STATISTICAL


@every
@often
@given(cuts=st.lists(st.integers(0, 40), max_size=3))
def test_batches_do_not_matter(make, cuts):
    """Not for what is read; a full memory draws by the place in the stream, and one cut is as good as another."""
    whole, pieces = fitted(make), make()
    edges = sorted({0, 40, *cuts})
    for start, end in pairwise(edges):
        pieces.observe(part(said(40), slice(start, end)), labels(40)[start:end])
    pieces.refresh()
    if isinstance(whole, NearestNeighbours) and whole.capacity < 40:
        assert int((pieces.labels >= 0).sum()) == whole.capacity
    else:
        torch.testing.assert_close(pieces(said(5, 2)), whole(said(5, 2)))


@every
def test_nothing_changes_before_refresh_nor_by_forgetting(make):
    output = fitted(make)
    before = output(said(5, 2))
    output.observe(said(30, 9), labels(30, 9))
    assert torch.equal(output(said(5, 2)), before)
    output.forget()
    output.refresh()
    assert torch.equal(output(said(5, 2)), before)
    output.observe(said(30, 9), labels(30, 9))
    output.refresh()
    assert not torch.equal(output(said(5, 2)), before)


@every
def test_what_is_read_with_is_saved_and_statistics_go_on(make):
    output, again = fitted(make), make()
    again.load_state_dict(output.state_dict())
    assert torch.equal(again(said(5, 2)), output(said(5, 2)))
    again.load_statistics(output.statistics())
    for one in (output, again):
        one.observe(said(30, 9), labels(30, 9))
        one.refresh()
    assert torch.equal(again(said(5, 2)), output(said(5, 2)))
    with pytest.raises(ArtifactError, match="statistics"):
        output.load_statistics({"other": torch.zeros(1)})


@every
def test_broken_numbers_and_labels_are_refused(make):
    output, bad = make(), said(4)
    bad.scores[1, 1], bad.features[1, 1] = torch.nan, torch.nan
    with pytest.raises(DataError, match="finite numbers"):
        output.observe(bad, labels(4))
    if not isinstance(output, Calibrated):
        with pytest.raises(DataError, match="classes from 0 to 2"):
            output.observe(said(4), labels(4) + 2)
        with pytest.raises(CapabilityError, match="features"):
            output(SourceOutput(scores=torch.zeros(2, T)))


@every
def test_gradients_reach_what_is_read(make):
    output = fitted(make).double()

    def run(scores, features):
        return output(SourceOutput(scores=scores, features=features))

    fresh = said(3, 4)
    inputs = (fresh.scores.double().requires_grad_(), fresh.features.double().requires_grad_())
    assert torch.autograd.gradcheck(run, inputs)


# Prototypes


def test_prototypes_are_class_means_of_unit_features():
    output, seen = fitted(lambda: Prototypes(D, T, temperature=0.5)), said(40)
    units = seen.features / seen.features.norm(dim=1, keepdim=True)
    fresh = said(6, 3).features
    for b in range(6):
        for t in range(T):
            mean = units[labels(40) == t].mean(0)
            cosine = float(fresh[b] @ mean / (fresh[b].norm() * mean.norm()))
            assert float(output(said(6, 3))[b, t]) == pytest.approx(cosine / 0.5, rel=1e-4, abs=1e-5)


def test_a_class_never_seen_cannot_win():
    output = Prototypes(D, T)
    assert not bool(output(said(4)).any())
    output.observe(part(said(9), slice(0, 9)), torch.zeros(9, dtype=torch.int64))
    output.refresh()
    scores = output(said(4))
    assert bool((scores[:, 1:] == UNSEEN).all())
    assert bool((scores[:, 0] > UNSEEN).all())


# Neighbours


@often
@given(st.integers(1, 12), st.integers(0, 5))
def test_neighbours_against_a_slow_search(k, seed):
    output = NearestNeighbours(D, T, k=k, capacity=40, temperature=0.3)
    output.observe(said(25), labels(25))
    output.refresh()
    seen, fresh = said(25).features, said(3, seed + 10).features
    for b in range(3):
        cosines = [float(torch.cosine_similarity(fresh[b], row, dim=0)) for row in seen]
        nearest = sorted(range(25), key=lambda i: -cosines[i])[:k]
        weights = torch.tensor([cosines[i] / 0.3 for i in nearest]).softmax(0)
        for t in range(T):
            share = sum(float(w) for w, i in zip(weights, nearest, strict=True) if int(labels(25)[i]) == t)
            wanted = 0.999 * share + 0.001 / T
            assert float(output(said(3, seed + 10))[b, t].exp()) == pytest.approx(wanted, rel=1e-3, abs=1e-6)


def test_before_anything_is_seen_all_classes_are_alike_and_few_samples_do():
    output = NearestNeighbours(D, T, k=5, capacity=64)
    scores = output(said(4))
    torch.testing.assert_close(scores, scores[:, :1].expand(-1, T))
    output.observe(part(said(2), slice(0, 2)), torch.tensor([1, 1]))
    output.refresh()
    torch.testing.assert_close(output(said(4))[:, 1].exp(), torch.full((4,), 0.999 + 0.001 / T))


def test_the_memory_is_bounded_and_every_sample_has_the_same_chance():
    kept = torch.zeros(60)
    for trial in range(300):
        output = NearestNeighbours(1, 60, k=1, capacity=20)
        order = torch.randperm(60, generator=torch.Generator().manual_seed(trial))
        output.observe(SourceOutput(features=torch.ones(60, 1)), order)
        output.refresh()
        assert int((output.labels >= 0).sum()) == 20
        kept[output.labels] += 1
    assert float((kept / 300 - 1 / 3).abs().max()) < 0.12  # four standard errors


def test_late_samples_are_kept_as_often_as_early_ones():
    output = NearestNeighbours(1, 2, k=1, capacity=500)
    for start in range(0, 4000, 50):
        late = torch.full((50,), int(start >= 2000))
        output.observe(SourceOutput(features=torch.ones(50, 1)), late)
    output.refresh()
    assert 0.42 < float(output.labels.float().mean()) < 0.58


# Calibration


def test_calibration_takes_off_the_mean_probability():
    output, seen = fitted(lambda: Calibrated(Identity(T), T)), said(40)
    prior = seen.scores.softmax(1).mean(0)
    torch.testing.assert_close(output(said(6, 3)), said(6, 3).scores - prior.log())


def test_calibrated_probabilities_of_equal_inputs_are_uniform():
    """The point of contextual calibration: an input without content speaks for no class."""
    output, empty = Calibrated(Verbalizer([[0, 4], [2], [5]], 7), 3), SourceOutput(torch.randn(1, 7))
    output.observe(empty, torch.zeros(1, dtype=torch.int64))
    output.refresh()
    torch.testing.assert_close(output(empty).softmax(1), torch.full((1, 3), 1 / 3))
    assert output.reading == output.inner.reading


def test_what_calibrates_must_not_observe_itself():
    with pytest.raises(ConfigError, match="must observe nothing itself, got 'Linear'"):
        Calibrated(Linear(D, T), T)
    assert len(content_free(["a", "b"])) == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: Prototypes(0, T),
        lambda: Prototypes(D, T, temperature=0.0),
        lambda: NearestNeighbours(D, T, k=0),
        lambda: NearestNeighbours(D, T, capacity=0),
        lambda: NearestNeighbours(D, T, temperature=-1.0),
    ],
)
def test_settings_out_of_range(make):
    with pytest.raises(ConfigError):
        make()
