"""The map by meaning against a slow plain reference; the greedy map of AutoVP against its own and FLM."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reprogram.core.errors import ConfigError, DataError
from reprogram.core.source import SourceOutput
from reprogram.outputs import ChosenClasses, FrequencyMap, semantic_map
from reprogram.outputs.label_maps import count_pairs, frequency_map, many_to_one_map


def by_rounds(similarity, per_class):
    """Round-robin in Python."""
    sources, targets = similarity.shape
    left, made = set(range(sources)), [[] for _ in range(targets)]
    for _ in range(per_class):
        for t in range(targets):
            best = max(sorted(left), key=lambda s: float(similarity[s, t]))
            left.remove(best)
            made[t].append(best)
    return made


def greedily(counts, per_class):
    """AutoVP's frequency map: all cells from the largest on, each source once, m a target; leftovers in order."""
    sources, targets = counts.shape
    cells = sorted(((s, t) for s in range(sources) for t in range(targets)),
                   key=lambda c: (-int(counts[c]), c))  # fmt: skip
    made, used = [[] for _ in range(targets)], set()
    for s, t in cells:
        if int(counts[s, t]) > 0 and s not in used and len(made[t]) < per_class:
            made[t].append(s)
            used.add(s)
    rest = iter(s for s in range(sources) if s not in used)
    return [row + [next(rest) for _ in range(per_class - len(row))] for row in made]


@settings(max_examples=40, deadline=None)
@given(targets=st.integers(1, 4), per_class=st.integers(1, 3), more=st.integers(0, 5), seed=st.integers(0, 999))
def test_the_semantic_map_is_what_a_plain_loop_does(targets, per_class, more, seed):
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.randint(-3, 4, (targets * per_class + more, targets), generator=generator) / 3.0  # with ties
    assert semantic_map(similarity, per_class).tolist() == by_rounds(similarity, per_class)


@settings(max_examples=40, deadline=None)
@given(targets=st.integers(1, 4), per_class=st.integers(1, 3), more=st.integers(0, 5), seed=st.integers(0, 999))
def test_the_greedy_map_is_what_a_plain_loop_does(targets, per_class, more, seed):
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 4, (targets * per_class + more, targets), generator=generator)
    assert many_to_one_map(counts, per_class).tolist() == greedily(counts, per_class)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), targets=st.integers(2, 5), more=st.integers(0, 6))
def test_with_one_source_a_class_it_is_flm_with_ties(seed, targets, more):
    generator = torch.Generator().manual_seed(seed)
    sources = targets + more
    said = torch.nn.functional.one_hot(torch.randint(0, sources, (20,), generator=generator), sources).float()
    labels = torch.randint(0, targets, (20,), generator=generator)
    output = FrequencyMap(sources, targets, per_class=1)
    output.observe(SourceOutput(said), labels)
    output.refresh()
    counts = count_pairs(said.argmax(1), labels, sources, targets)
    assert output.index[:, 0].tolist() == frequency_map(counts).tolist()


@pytest.mark.parametrize("per_class", [1, 3])
def test_reading_is_the_mean_and_folds(per_class):
    scores = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    index = torch.randperm(9, generator=torch.Generator().manual_seed(1))[: 3 * per_class].view(3, per_class)
    output = ChosenClasses(index.tolist(), 9)
    expected = torch.stack([scores[:, row].mean(1) for row in index], dim=1)
    assert torch.allclose(output(SourceOutput(scores)), expected)
    assert torch.allclose(scores @ output.fold() + output.offset(), expected, atol=1e-6)
    assert output.chosen() == tuple(map(tuple, index.tolist()))
    assert not output.state_dict()
    assert not list(output.parameters())


def test_what_cannot_be_a_map_is_refused():
    for wrong in ([[0], [0]], [[0, 1], [2]], [[]], []):
        with pytest.raises(ConfigError, match="index"):
            ChosenClasses(wrong, 4)
    with pytest.raises(ConfigError, match="0 to 3"):
        ChosenClasses([[4], [1]], 4)
    with pytest.raises(ConfigError, match="at most 3"):
        semantic_map(torch.rand(3, 2), 2)
    with pytest.raises(DataError, match="finite"):
        semantic_map(torch.full((3, 2), float("nan")))
