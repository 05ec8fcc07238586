"""BAR's map and loss against slow plain references."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from reprogram.core.errors import ArtifactError, ConfigError
from reprogram.core.program import Judging, Observing
from reprogram.core.source import SourceOutput
from reprogram.outputs import ProbabilityMap, focal_loss


def drawn(n, s, t, seed):
    draw = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(n, s, generator=draw), torch.randint(0, t, (n,), generator=draw)


def plain_map(logits, labels, targets, many, top):
    """Mean over a class of its samples' top probabilities; the largest cell first, each source class once."""
    n, s = logits.shape
    means = [[0.0] * targets for _ in range(s)]
    for i in range(n):
        chances = logits[i].double().softmax(0)
        for source in chances.topk(min(top, s)).indices.tolist():
            means[source][int(labels[i])] += float(chances[source]) / int((labels == labels[i]).sum())
    chosen, taken = [[] for _ in range(targets)], set()
    cells = sorted((-means[i][t], i * targets + t) for i in range(s) for t in range(targets) if means[i][t] > 0)
    for _, cell in cells:
        source, t = divmod(cell, targets)
        if source not in taken and len(chosen[t]) < many:
            chosen[t].append(source)
            taken.add(source)
    rest = iter([i for i in range(s) if i not in taken])
    for row in chosen:
        row.extend(next(rest) for _ in range(many - len(row)))
    return chosen


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 30), t=st.integers(1, 4), many=st.integers(1, 3), top=st.integers(1, 20), seed=st.integers(0, 99)
)
def test_the_map_is_the_plain_rule(n, t, many, top, seed):
    logits, labels = drawn(n, 14, t, seed)
    made = ProbabilityMap(14, t, many, top=top)
    for rows in torch.arange(n).split(7):
        made.observe(SourceOutput(logits[rows]), labels[rows])
    made.refresh()
    assert made.index.tolist() == plain_map(logits, labels, t, many, top)


def test_classes_are_weighed_alike_however_many_samples_they_have():
    """Counts in place of means would give source 0 to the larger class."""
    logits = torch.tensor([[0.4, 0.35, 0.25]] * 10 + [[0.6, 0.1, 0.3]]).log()
    made = ProbabilityMap(3, 2, 1)
    made.observe(SourceOutput(logits), torch.tensor([0] * 10 + [1]))
    made.refresh()
    assert made.index.flatten().tolist() == [1, 0]


def test_outputs_do_not_mix_the_classes_of_two_targets():
    """The published code's reshape averages a mixture of both lists."""
    made = ProbabilityMap(4, 2, 2)
    made.index.copy_(torch.tensor([[3, 1], [0, 2]]))
    logits, _ = drawn(5, 4, 2, 0)
    chances = logits.softmax(1)
    slow = torch.stack([(chances[:, 3] + chances[:, 1]) / 2, (chances[:, 0] + chances[:, 2]) / 2], 1)
    torch.testing.assert_close(made(SourceOutput(logits)).exp(), slow)


@settings(max_examples=20, deadline=None)
@given(gamma=st.floats(0, 5), alpha=st.floats(0.1, 2), seed=st.integers(0, 99))
def test_focal_loss(gamma, alpha, seed):
    scores, labels = drawn(6, 4, 4, seed)
    q = scores.double().softmax(1)[torch.arange(6), labels]
    slow = sum(-alpha * (1 - float(v)) ** gamma * float(v.log()) for v in q) / 6
    assert abs(float(focal_loss(scores, labels, gamma, alpha)) - slow) < 1e-9 * (1 + slow)
    torch.testing.assert_close(focal_loss(scores, labels, 0.0, 1.0), F.cross_entropy(scores.double(), labels))


def test_focal_loss_of_a_sure_answer_is_zero_with_a_finite_slope():
    scores = torch.tensor([[200.0, 0.0]], requires_grad=True)
    loss = focal_loss(scores, torch.tensor([0]), 2.0)
    loss.backward()
    assert float(loss.detach()) == 0 and bool(scores.grad.isfinite().all())


def test_statistics_go_and_come_back():
    logits, labels = drawn(20, 10, 3, 1)
    one, two = ProbabilityMap(10, 3, 2), ProbabilityMap(10, 3, 2)
    assert isinstance(one, Observing) and isinstance(one, Judging)
    one.observe(SourceOutput(logits), labels)
    two.load_statistics(one.statistics())
    one.refresh()
    two.refresh()
    assert torch.equal(one.index, two.index)
    one.forget()
    before = one.index.clone()
    one.refresh()
    assert torch.equal(one.index, before)  # nothing seen, nothing changed
    with pytest.raises(ArtifactError):
        two.load_statistics({"chances": torch.zeros(1)})


@pytest.mark.parametrize("bad", [{"per_class": 6}, {"per_class": 0}, {"top": 0}, {"gamma": -1.0}, {"alpha": 0.0}])
def test_settings_are_checked(bad):
    with pytest.raises(ConfigError):
        ProbabilityMap(10, 2, **{"per_class": 5, **bad})
