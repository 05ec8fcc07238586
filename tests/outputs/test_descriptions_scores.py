"""Outputs over descriptions and sentences about classes, against plain loops."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reprogram.core.errors import ArtifactError, CapabilityError, ConfigError, DataError
from reprogram.core.source import SourceOutput
from reprogram.outputs import (
    BayesianMap,
    BayesianMapPlus,
    ConsistentScores,
    FrequencyMap,
    MappedTexts,
    NearestDescriptions,
    ResidualScores,
    ReweightedDescriptions,
    contrastive_focal,
    k_means,
)
from reprogram.outputs.templates import TEMPLATES
from tests.outputs import slow


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- the nearest descriptions ------------------------------------------------------------------------------------------


def nearest_slow(scores: Tensor, sizes: list[list[int]], k: int, weights: tuple[float, ...]) -> list[list[float]]:
    """Picture by picture, class by class, set by set."""
    rows = []
    for row in scores.tolist():
        start, found = 0, [0.0] * len(sizes[0])
        for g, one in enumerate(sizes):
            for t, size in enumerate(one):
                best = sorted(row[start : start + size], reverse=True)[:k]
                found[t] += weights[g] * sum(best) / len(best)
                start += size
        rows.append(found)
    return rows


def named_sets(sizes: list[list[int]]) -> list[list[list[str]]]:
    return [[[f"{g} {t} {i}" for i in range(size)] for t, size in enumerate(one)] for g, one in enumerate(sizes)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=5), st.integers(1, 7),
       st.floats(0, 1))  # fmt: skip
def test_nearest_is_the_mean_of_the_highest(pairs: list[tuple[int, int]], k: int, weight: float) -> None:
    """Also with fewer than k descriptions, and other numbers of them in every class."""
    sizes = [[a for a, _ in pairs], [b for _, b in pairs]]
    output = NearestDescriptions(named_sets(sizes), nearest=k, weights=(weight, 1 - weight))
    assert output.reading.texts == tuple(t for one in named_sets(sizes) for own in one for t in own)
    scores = drawn(3, len(output.texts)) * 20
    found = output(SourceOutput(scores=scores))
    torch.testing.assert_close(found, torch.tensor(nearest_slow(scores, sizes, k, (weight, 1 - weight))))


@pytest.mark.parametrize("sizes", [[[3, 3], [3, 3]], [[1, 3], [2, 2]]])
def test_gradients_go_through_the_nearest_only(sizes: list[list[int]]) -> None:
    output = NearestDescriptions(named_sets(sizes), nearest=2)
    scores = drawn(2, len(output.texts)).requires_grad_()
    output(SourceOutput(scores=scores)).sum().backward()
    grad = scores.grad
    assert grad is not None and bool(grad.isfinite().all())
    start = 0
    for one in sizes:
        for size in one:
            part, own = grad[:, start : start + size], scores.detach()[:, start : start + size]
            best = torch.zeros_like(own).scatter(1, own.topk(min(2, size)).indices, 1.0)
            torch.testing.assert_close(part, best * 0.5 / min(2, size))
            start += size


def test_nearest_refuses_what_it_cannot_read() -> None:
    for sets, more in (([[["a"], []]], {}), ([[["a"]], [["b"], ["c"]]], {}), ([[["a"]]], {"nearest": 0}), ([], {})):
        with pytest.raises(ConfigError):
            NearestDescriptions(sets, weights=(1.0,) * len(sets), **more)
    with pytest.raises(ConfigError, match="finite weights"):
        NearestDescriptions([[["a"]]], weights=(0.5, 0.5))


# -- counted weights ---------------------------------------------------------------------------------------------------


def prm_slow(nearest: list[list[int]], target: list[int], targets: int, each: int) -> Tensor:
    """The dense matrix [T m, T], sample by sample, neighbour by neighbour; NaN for a class that never came."""
    matrix = torch.zeros(targets, targets * each)
    for row, label in zip(nearest, target, strict=True):
        for j in row:
            matrix[label, label * each + j] += 1
    return (matrix / matrix.sum(1, keepdim=True)).T


class Reweighting:
    """An output over T classes of `each` descriptions in v frames, and the same things as loose tensors."""

    def __init__(self, targets: int = 5, each: int = 6, frames: int = 3, d: int = 7, nearest: int = 3) -> None:
        n = targets * each
        self.shape, self.nearest = (targets, each, frames, d), nearest
        self.vectors = F.normalize(drawn(n, d, seed=1), dim=1)
        self.frame = torch.randint(frames, (n,), generator=torch.Generator().manual_seed(2))
        self.owner = torch.arange(n) // each
        self.scale, self.bias = 20.0, -1.5
        self.output = ReweightedDescriptions(
            self.vectors, self.owner, self.frame, (targets, frames), nearest=nearest, scale=self.scale, bias=self.bias
        )

    def seen(self, batch: int = 8, seed: int = 3) -> Tensor:
        """[v B, d]."""
        return F.normalize(drawn(self.shape[2] * batch, self.shape[3], seed=seed), dim=1)

    def logits(self, seen: Tensor) -> Tensor:
        """[B, T m], every description with the picture in its own frame."""
        by_frame = seen.view(self.shape[2], -1, self.shape[3])
        return torch.stack(
            [self.scale * by_frame[f] @ v + self.bias for f, v in zip(self.frame.tolist(), self.vectors, strict=True)],
            1,
        )


@torch.no_grad()
def test_weights_are_those_of_a_double_loop_over_a_dense_matrix() -> None:
    made = Reweighting()
    targets, each, *_ = made.shape
    output, rows, labels = made.output, [], []
    for step in range(4):
        seen = made.seen(seed=step)
        target = torch.randint(targets, (8,), generator=torch.Generator().manual_seed(step))
        output.observe(SourceOutput(features=seen), target)
        own = made.logits(seen).view(8, targets, each)[torch.arange(8), target]
        rows += own.topk(made.nearest, dim=1).indices.tolist()
        labels += target.tolist()
    output.refresh()
    dense = prm_slow(rows, labels, targets, each)
    torch.testing.assert_close(output.fold(), dense, atol=1e-7, rtol=0)
    assert dense.shape == (30, 5)
    seen = made.seen(seed=9)
    said = SourceOutput(features=seen)
    torch.testing.assert_close(output.described(said).flatten(1), made.logits(seen), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output(said), made.logits(seen) @ dense, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_at_first_all_descriptions_of_a_class_count_alike() -> None:
    made = Reweighting()
    means = made.logits(made.seen()).view(8, 5, 6).mean(2)
    torch.testing.assert_close(made.output(SourceOutput(features=made.seen())), means, atol=1e-5, rtol=1e-5)
    before = made.output.weights.clone()
    made.output.refresh()  # nothing was counted
    assert torch.equal(made.output.weights, before)


@torch.no_grad()
@pytest.mark.parametrize("absent", [0, 2, 4])
def test_a_class_that_does_not_come_keeps_its_weights(absent: int) -> None:
    """The published code divides 0 by 0 there, and has no column at all for the last class."""
    made = Reweighting()
    output = made.output
    before = output.weights.clone()
    target = torch.tensor([t for t in range(5) if t != absent] * 2)
    output.observe(SourceOutput(features=made.seen()), target)
    output.refresh()
    assert torch.equal(output.weights[absent], before[absent])
    assert all(not torch.equal(output.weights[t], before[t]) for t in range(5) if t != absent)
    torch.testing.assert_close(output.weights.sum(1), torch.ones(5))
    scores = output(SourceOutput(features=made.seen()))
    assert scores.shape == (8, 5) and bool(scores.isfinite().all())


@torch.no_grad()
def test_a_description_is_compared_with_its_own_frame_only() -> None:
    made = Reweighting()
    made.frame = made.owner % 3  # class t has its descriptions with frame t mod 3
    output = ReweightedDescriptions(made.vectors, made.owner, made.frame, (5, 3))
    seen = made.seen().view(3, 8, 7)
    moved = seen.clone()
    moved[1] = -moved[1]
    one, other = (output(SourceOutput(features=f.flatten(0, 1))) for f in (seen, moved))
    assert torch.equal(one[:, [0, 2, 3]], other[:, [0, 2, 3]])
    torch.testing.assert_close(one[:, [1, 4]], -other[:, [1, 4]])


@torch.no_grad()
def test_classes_may_have_other_numbers_of_descriptions() -> None:
    vectors = F.normalize(drawn(6, 4), dim=1)
    owner, frame = torch.tensor([2, 0, 2, 1, 2, 2]), torch.tensor([0, 1, 1, 0, 1, 0])
    output = ReweightedDescriptions(vectors, owner, frame, (3, 2), nearest=3, scale=10.0)
    assert output.weights.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0.25] * 4]
    seen = F.normalize(drawn(4, 4, seed=5), dim=1)
    expected = torch.stack(
        [10 * torch.stack([seen.view(2, 2, 4)[frame[i]] @ vectors[i] for i in range(6) if owner[i] == t]).mean(0)
         for t in range(3)], 1)  # fmt: skip
    torch.testing.assert_close(output(SourceOutput(features=seen)), expected)
    output.observe(SourceOutput(features=seen), torch.tensor([0, 2]))
    assert output.counts.sum(1).tolist() == [1, 0, 3]  # a class of one cannot have three nearest
    output.refresh()
    assert bool(output(SourceOutput(features=seen)).isfinite().all())


@torch.no_grad()
def test_loaded_weights_are_used_and_statistics_can_be_taken_up() -> None:
    one, other = Reweighting(), Reweighting()
    target = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    one.output.observe(SourceOutput(features=one.seen()), target)
    other.output.load_statistics(one.output.statistics())
    one.output.refresh()
    assert set(one.output.state_dict()) == {"weights"}
    fresh = Reweighting().output
    fresh.load_state_dict(one.output.state_dict())
    said = SourceOutput(features=one.seen(seed=7))
    assert torch.equal(fresh(said), one.output(said)) and not torch.equal(fresh(said), other.output(said))
    other.output.refresh()
    assert torch.equal(other.output(said), one.output(said))
    with pytest.raises(ArtifactError):
        fresh.load_statistics({"counts": torch.zeros(1)})
    one.output.forget()
    assert int(one.output.counts.sum()) == 0


def test_counting_refuses_what_is_no_picture_of_a_class() -> None:
    made = Reweighting()
    seen, target = made.seen(), torch.zeros(8, dtype=torch.int64)
    with pytest.raises(DataError, match="below 5"):
        made.output.observe(SourceOutput(features=seen), target + 5)
    with pytest.raises(DataError, match="finite"):
        made.output.observe(SourceOutput(features=seen / 0), target)
    with pytest.raises(CapabilityError, match="3 pictures"):
        made.output(SourceOutput(features=seen[:-1]))
    with pytest.raises(ConfigError, match="every class"):
        ReweightedDescriptions(made.vectors, made.owner, made.frame, (6, 3))
    with pytest.raises(ConfigError, match="from 0 to 1"):
        ReweightedDescriptions(made.vectors, made.owner, made.frame, (5, 2))


# -- clusters ----------------------------------------------------------------------------------------------------------


def spread(points: Tensor, labels: Tensor) -> float:
    """Sum of squared distances to the centres."""
    own = [points[labels == k] for k in labels.unique()]
    return sum(float((p - p.mean(0)).square().sum()) for p in own)


def test_clusters_are_as_tight_as_those_of_another_library() -> None:
    sklearn = pytest.importorskip("sklearn.cluster")
    blobs = torch.cat([drawn(30, 5, seed=s) * 0.4 + 3 * drawn(1, 5, seed=90 + s) for s in range(4)])
    for k in (1, 2, 4, 7):
        mine = k_means(blobs, k)
        theirs = torch.tensor(sklearn.KMeans(k, random_state=0, n_init=10).fit(blobs.double().numpy()).labels_)
        assert spread(blobs, mine) <= spread(blobs, theirs) * 1.02
        assert mine.unique().tolist() == list(range(k))
        assert [int((mine == i).nonzero()[0]) for i in range(k)] == sorted(
            int((mine == i).nonzero()[0]) for i in range(k)
        )
        assert torch.equal(mine, k_means(blobs, k))


def test_a_round_cannot_make_clusters_tighter() -> None:
    points = drawn(60, 3)
    labels = k_means(points, 4, starts=1)
    centres = torch.stack([points[labels == k].mean(0) for k in range(4)])
    assert torch.equal(torch.cdist(points, centres).argmin(1), labels)


def test_clusters_of_equal_points_are_not_empty() -> None:
    assert sorted(k_means(torch.ones(4, 2), 3).unique().tolist()) == [0, 1, 2]
    assert k_means(torch.eye(3), 3).tolist() == [0, 1, 2]
    with pytest.raises(ConfigError, match="3 points"):
        k_means(torch.eye(3), 4)
    with pytest.raises(DataError, match="finite"):
        k_means(torch.eye(3) / 0, 2)


# -- sentences with a label map ----------------------------------------------------------------------------------------


def test_there_are_81_sentences_and_the_plain_one_is_first() -> None:
    assert len(set(TEMPLATES)) == 81 and TEMPLATES[0] == "a photo of {a class}."
    assert all(t.count("{a class}") == 1 and "  " not in t for t in TEMPLATES)


def sentences(classes: int, each: int) -> tuple[str, ...]:
    return tuple(f"{t} {i}" for t in range(classes) for i in range(each))


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 5), st.integers(1, 4), st.integers(0, 10_000))
def test_the_map_of_sentences_is_the_greedy_one(classes: int, each: int, seed: int) -> None:
    output = MappedTexts(sentences(classes, each), FrequencyMap(classes * each, classes))
    scores = drawn(20, classes * each, seed=seed)
    target = torch.arange(20) % classes
    output.observe(SourceOutput(scores=scores), target)
    output.refresh()
    table = slow.counts(scores.argmax(1).tolist(), target.tolist(), classes * each, classes)
    assert isinstance(output.map, FrequencyMap)
    assert output.map.index.flatten().tolist() == [
        row[0] for row in slow.many_to_one([[float(n) for n in row] for row in table], 1)
    ]
    torch.testing.assert_close(output(SourceOutput(scores=scores)), scores @ output.fold() + output.offset())


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_a_class_that_does_not_come_keeps_its_own_sentence(absent: int) -> None:
    """Published code counts the labels that are there: the last class loses its column, and its samples."""
    output = MappedTexts(sentences(3, 4), FrequencyMap(12, 3))
    there = [t for t in range(3) if t != absent]
    scores = torch.zeros(2, 12)
    scores[0, (there[0] * 4 + 2)], scores[1, (there[1] * 4 + 3)] = 1.0, 1.0
    output.observe(SourceOutput(scores=scores), torch.tensor(there))
    output.refresh()
    assert isinstance(output.map, FrequencyMap)
    index = output.map.index.flatten().tolist()
    assert index[absent] == absent * 4 and [index[t] for t in there] == [there[0] * 4 + 2, there[1] * 4 + 3]


@pytest.mark.parametrize("kind", [BayesianMap, BayesianMapPlus])
def test_weights_start_as_the_mean_over_the_classes_own_sentences(kind: Any) -> None:
    output = MappedTexts(sentences(3, 4), kind(12, 3))
    scores = drawn(5, 12)
    torch.testing.assert_close(output(SourceOutput(scores=scores)), scores.view(5, 3, 4).mean(2))
    output.observe(SourceOutput(scores=scores), torch.tensor([0, 1, 0, 1, 0]))
    output.refresh()
    matrix = output.fold()
    assert matrix[:, 2].tolist() == [0.0] * 8 + [0.25] * 4  # was not seen
    plain = kind(12, 3)
    plain.observe(SourceOutput(scores=scores), torch.tensor([0, 1, 0, 1, 0]))
    plain.refresh()
    assert torch.equal(matrix[:, :2], plain.fold()[:, :2])


def test_sentences_must_fit_the_map() -> None:
    for texts, map in ((sentences(3, 4), FrequencyMap(11, 3)), (sentences(2, 4), FrequencyMap(8, 3)),
                       (sentences(2, 4), FrequencyMap(8, 2, 2))):  # fmt: skip
        with pytest.raises(ConfigError, match="as many for each class"):
            MappedTexts(texts, map)
    output = MappedTexts(sentences(2, 2), FrequencyMap(4, 2))
    output.observe(SourceOutput(scores=drawn(3, 4)), torch.tensor([0, 1, 1]))
    other = MappedTexts(sentences(2, 2), FrequencyMap(4, 2))
    other.load_statistics(output.statistics())
    assert torch.equal(other.statistics()["counts"], output.statistics()["counts"])
    output.forget()
    assert int(output.statistics()["counts"].sum()) == 0


# -- losses of their own -----------------------------------------------------------------------------------------------


def focal_slow(scores: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """The symmetric loss over a batch [B, B] of pictures and their own texts, as published."""
    close = scores[:, target]
    total = torch.zeros(())
    for one in (close, close.T):
        for b in range(len(one)):
            p = one[b].softmax(0)[b]
            total = total - alpha * (1 - p) ** gamma * p.log() / len(one) / 2
    return total


def test_the_contrastive_loss_is_the_published_one_where_no_class_comes_twice() -> None:
    scores = drawn(4, 6) * 3
    target = torch.tensor([5, 0, 3, 2])
    for alpha, gamma in ((0.8, 4.0), (1.0, 0.0)):
        torch.testing.assert_close(contrastive_focal(scores, target, alpha, gamma),
                                   focal_slow(scores, target, alpha, gamma))  # fmt: skip
    close = scores[:, target]
    both = F.cross_entropy(close, torch.arange(4)) + F.cross_entropy(close.T, torch.arange(4))
    torch.testing.assert_close(contrastive_focal(scores, target, 1.0, 0.0), both / 2)


def test_a_class_that_comes_twice_is_no_wrong_answer() -> None:
    target = torch.tensor([0, 1, 0])
    right = 100.0 * F.one_hot(target, 4).float()
    assert float(contrastive_focal(right, target, 1.0, 0.0)) == 0.0
    assert float(focal_slow(right, target, 1.0, 0.0)) > 0.4  # as published: at most half sure of two equal texts
    scores = drawn(3, 4).requires_grad_()
    contrastive_focal(scores, target).backward()
    assert scores.grad is not None and bool(scores.grad.isfinite().all()) and float(scores.grad[:, 2:].abs().max()) == 0


def residual_parts() -> tuple[SourceOutput, SourceOutput]:
    unit = [F.normalize(drawn(n, 5, seed=s), dim=1) for n, s in ((4, 0), (3, 1), (4, 2), (3, 3))]
    plain = SourceOutput(features=unit[2], texts=unit[3], scores=10 * unit[2] @ unit[3].T)
    return SourceOutput(features=unit[0], texts=unit[1], scores=10 * unit[0] @ unit[1].T, plain=plain), plain


def test_residual_mixes_vectors_when_predicting_and_does_not_normalise_them() -> None:
    said, plain = residual_parts()
    output = ResidualScores(("a", "b", "c"), residual=0.4, scale=10.0).eval()
    assert said.features is not None and said.texts is not None
    assert plain.features is not None and plain.texts is not None
    expected = [[10.0 * float((0.6 * f + 0.4 * f0) @ (0.6 * g + 0.4 * g0))
                 for g, g0 in zip(said.texts, plain.texts, strict=True)]
                for f, f0 in zip(said.features, plain.features, strict=True)]  # fmt: skip
    torch.testing.assert_close(output(said), torch.tensor(expected))
    assert output.reading.plain
    torch.testing.assert_close(output.train()(said), said.logits)
    whole = ResidualScores(("a", "b", "c"), residual=1.0, scale=10.0).eval()
    torch.testing.assert_close(whole(said), plain.logits)
    none = ResidualScores(("a", "b", "c"), residual=0.0).eval()
    assert torch.equal(none(said), said.logits) and not none.reading.plain
    with pytest.raises(ConfigError, match="residual"):
        ResidualScores(("a",), residual=1.5)


def test_residual_losses() -> None:
    kind: Any
    said, _ = residual_parts()
    target = torch.tensor([0, 2, 1, 1])
    for kind, expected in (("contrastive", contrastive_focal(said.logits, target)),
                           ("cross_entropy", F.cross_entropy(said.logits, target))):  # fmt: skip
        output = ResidualScores(("a", "b", "c"), loss=kind)
        assert torch.equal(output.loss(said, output.train()(said), target), expected)


def test_the_consistent_loss_is_the_sum_of_its_terms() -> None:
    said, plain = residual_parts()
    target = torch.tensor([0, 2, 1, 1])
    output = ConsistentScores(("a", "b", "c"), consistency=0.3, similarity=0.2)
    assert said.features is not None and plain.features is not None
    moved = sum(float((f - f0).square().sum()) ** 0.5 for f, f0 in zip(said.features, plain.features, strict=True)) / 4
    near = sum(float(said.logits[b, t]) for b, t in enumerate(target.tolist())) / 4
    expected = F.cross_entropy(said.logits, target) + 0.3 * moved - 0.2 * near
    torch.testing.assert_close(output.loss(said, output(said), target), expected)
    assert output.reading.plain and not ConsistentScores(("a",), consistency=0.0).reading.plain
    with pytest.raises(ConfigError, match="0 or more"):
        ConsistentScores(("a",), similarity=-1.0)


def test_a_picture_that_has_not_moved_gives_finite_gradients() -> None:
    features = F.normalize(drawn(4, 5), dim=1).requires_grad_()
    said = SourceOutput(features=features, scores=drawn(4, 3), plain=SourceOutput(features=features.detach()))
    output = ConsistentScores(("a", "b", "c"), consistency=1.0)
    output.loss(said, output(said), torch.tensor([0, 1, 2, 0])).backward()
    assert features.grad is not None and bool(features.grad.isfinite().all())
