"""Selection of demonstrations: against slow plain references, and the invariants every choice keeps."""

import itertools
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reprogram.core.errors import ConfigError, DataError, MissingExtraError
from reprogram.core.task import Example
from reprogram.core.texts import Texts
from reprogram.inputs import selection, selection_bm25
from reprogram.inputs.selection import (
    arrange,
    balanced_choice,
    dpp,
    greedy_map,
    nearest,
    random_choice,
    twins,
    vote_k,
    within,
)
from reprogram.inputs.selection_bm25 import WordIndex, bm25, words
from reprogram.inputs.selection_query import FixedSelector, Selector, VectorSelector, WordSelector

often = settings(deadline=None, max_examples=40)


def vectors(n, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- references --------------------------------------------------------------------------------------------------------


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def slow_nearest(query, pool, k, out=()):
    left = [i for i in range(len(pool)) if i not in out]
    return sorted(left, key=lambda i: (-cosine(query, pool[i]), i))[:k]


def slow_kernel(query, pool, near, scale):
    r = [(cosine(query, pool[i]) + 1) / 2 for i in near]
    w = [math.exp((one - max(r)) / (2 * scale)) for one in r]
    return [[w[a] * (cosine(pool[i], pool[j]) + 1) / 2 * w[b] for b, j in enumerate(near)] for a, i in enumerate(near)]


def slow_greedy(kernel, k):
    """The item whose addition makes the largest determinant, again and again."""
    chosen = []
    for _ in range(k):

        def volume(i, chosen=chosen):
            part = [*chosen, i]
            return float(torch.linalg.det(torch.tensor(kernel, dtype=torch.float64)[part][:, part]))

        chosen.append(max((i for i in range(len(kernel)) if i not in chosen), key=volume))
    return chosen


def slow_votes(pool, k, neighbours, discount):
    near = {v: slow_nearest(pool[v], pool, neighbours, {v}) for v in range(len(pool))}
    chosen = []
    for _ in range(k):
        votes = {u: 0.0 for u in range(len(pool)) if u not in chosen}
        for v in set(range(len(pool))) - set(chosen):
            for u in near[v]:
                if u in votes:
                    votes[u] += discount ** -sum(w in chosen for w in near[v])
        chosen.append(max(votes, key=lambda u: (votes[u], -u)))
    return chosen


def slow_bm25(query, pool, k1=1.5, b=0.75):
    docs = [words(text) for text in pool]
    mean = sum(map(len, docs)) / len(docs)
    found = []
    for doc in docs:
        score = 0.0
        for w in words(query):
            has = sum(w in other for other in docs)
            f = doc.count(w)
            if has:
                idf = math.log(1 + (len(docs) - has + 0.5) / (has + 0.5))
                score += idf * f / (f + k1 * (1 - b + b * len(doc) / mean))
        found.append(score)
    return found


# -- functions ---------------------------------------------------------------------------------------------------------


@often
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 999), st.sets(st.integers(0, 11)))
def test_nearest_is_the_slow_one(n, k, seed, out):
    k = min(k, n)
    pool, queries = vectors(n, seed=seed), vectors(3, seed=seed + 1)
    found = nearest(queries, pool, k, [out, set(), out])
    wanted = [slow_nearest(q, pool.tolist(), k, o) for q, o in zip(queries.tolist(), [out, set(), out], strict=True)]
    assert found == wanted


def test_nearest_in_several_chunks_and_ties(monkeypatch):
    pool, queries = vectors(9), vectors(7, seed=5)
    whole = nearest(queries, pool, 4)
    monkeypatch.setattr(selection, "_CHUNK", 2)
    assert nearest(queries, pool, 4) == whole
    assert nearest(torch.ones(1, 2), torch.ones(5, 2), 3) == [[0, 1, 2]]


def test_length_does_not_matter():
    pool, query = vectors(8), vectors(1, seed=3)
    assert nearest(query * 7, pool * torch.arange(1, 9)[:, None], 8) == nearest(query, pool, 8)


@often
@given(st.integers(2, 9), st.integers(1, 5), st.integers(0, 999))
def test_greedy_is_greedy_by_determinants(n, k, seed):
    k = min(k, n)
    factor = vectors(n, d=n + 2, seed=seed)
    kernel = factor @ factor.T
    assert greedy_map(kernel, k) == slow_greedy(kernel.tolist(), k)


@pytest.mark.parametrize("n, rank, k", [(6, 2, 6), (6, 0, 3), (5, 1, 4), (7, 3, 5)])
def test_beyond_the_rank_nothing_comes_twice(n, rank, k):
    """Where others' code takes roots of negative numbers or an item a second time."""
    factor = vectors(n, d=max(rank, 1)) * bool(rank)
    chosen = greedy_map(factor @ factor.T, k)
    assert len(set(chosen)) == k
    if rank:
        assert chosen[:rank] == slow_greedy((factor @ factor.T).tolist(), rank)


def test_dpp_of_copies_has_no_twin_before_it_must():
    pool = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.01], [0.6, 0.8]], dtype=torch.float64)
    query = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert 1 not in dpp(query, pool, 2)
    assert sorted(dpp(query, pool, 4)) == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="candidates"):
        dpp(query, pool, 3, candidates=2)


@often
@given(st.integers(3, 12), st.integers(1, 4), st.integers(4, 12), st.integers(0, 999))
def test_dpp_is_the_slow_one(n, k, candidates, seed):
    k = min(k, n - 1)
    pool, query, out = vectors(n, d=20, seed=seed), vectors(1, d=20, seed=seed + 1)[0], {seed % n}
    near = slow_nearest(query.tolist(), pool.tolist(), min(candidates, n), out)
    wanted = [near[i] for i in slow_greedy(slow_kernel(query.tolist(), pool.tolist(), near, 0.1), k)]
    found = dpp(query, pool, k, candidates, 0.1, out)
    assert sorted(found) == sorted(wanted)
    assert found == sorted(found, key=near.index)
    assert seed % n not in found


def test_dpp_takes_variety_where_nearest_takes_copies():
    pool = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.001, 0.0], [0.9, 0.0, 0.5]])
    query = torch.tensor([1.0, 0.0, 0.05])
    assert nearest(query[None], pool, 2) == [[0, 1]]
    assert 2 in dpp(query, pool, 2, scale=1.0)
    assert dpp(query, pool, 2, excluded={0, 1, 2}) == []


@often
@given(st.integers(2, 14), st.integers(1, 6), st.integers(1, 6), st.integers(0, 999))
def test_vote_k_is_the_slow_one(n, k, neighbours, seed):
    pool = vectors(n, seed=seed)
    k, neighbours = min(k, n), min(neighbours, n - 1)
    assert vote_k(pool, k, neighbours, 2.0) == slow_votes(pool.tolist(), k, neighbours, 2.0)  # halves add up exactly


def test_vote_k_goes_to_every_cluster():
    middle = torch.eye(3, 5, dtype=torch.float64).repeat_interleave(6, 0) * 10
    chosen = vote_k(middle + vectors(18), 3, neighbours=5)
    assert {i // 6 for i in chosen} == {0, 1, 2}
    assert vote_k(vectors(1), 1) == [0]
    with pytest.raises(ConfigError, match="discount"):
        vote_k(vectors(4), 2, discount=0.5)


@often
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30), st.integers(0, 30), st.integers(0, 99))
def test_balanced_choice(labels, k, seed):
    k = min(k, len(labels))
    chosen = random_choice(labels, k, seed, balanced=True)
    assert chosen == balanced_choice(labels, k, seed)
    assert len(set(chosen)) == k
    got = {name: sum(labels[i] == name for i in chosen) for name in set(labels)}
    left = {name for name in got if got[name] < labels.count(name)}
    assert all(got[one] >= most - 1 for one in left for most in got.values())  # only one that ran out may lag


def test_random_choice_is_the_seeds_own():
    labels = list(range(40))
    assert random_choice(labels, 8, 1) == random_choice(labels, 8, 1) != random_choice(labels, 8, 2)
    counts = [0] * 5
    for seed in range(2000):
        for i in random_choice(range(5), 2, seed):
            counts[i] += 1
    assert all(abs(c - 800) < 100 for c in counts)
    with pytest.raises(ConfigError, match="`k` must be from 0 to 40"):
        random_choice(labels, 41)


@often
@given(st.lists(st.integers(0, 19), unique=True, max_size=10), st.integers(0, 99))
def test_arrange_permutes(choice, seed):
    labels = [i % 3 for i in range(20)]
    for order in ("reversed", "ranked", "interleaved", "shuffled"):
        placed = arrange(choice, order, labels=labels, seed=seed)
        assert sorted(placed) == sorted(choice)
        assert placed == arrange(choice, order, labels=labels, seed=seed)
        if choice and order in ("reversed", "interleaved"):
            assert placed[-1] == choice[0]  # the best stands next to the query
    turns = [labels[i] for i in arrange(choice, "interleaved", labels=labels)][::-1]
    kinds = len(set(turns))
    assert len(set(turns[:kinds])) == kinds


def test_arrange_needs_labels_to_interleave():
    with pytest.raises(ConfigError, match="labels"):
        arrange([3], "interleaved", labels="ab")
    assert arrange(range(20), "shuffled", seed=1) != arrange(range(20), "shuffled", seed=2)


@often
@given(st.lists(st.integers(0, 9), max_size=8), st.integers(0, 40), st.sampled_from(["last", "longest"]))
def test_within_keeps_what_fits(lengths, limit, drop):
    choice = random.Random(0).sample(range(20), len(lengths))
    kept = within(choice, lengths, limit, drop)
    size = dict(zip(choice, lengths, strict=True))
    assert sum(size[i] for i in kept) <= limit
    assert [i for i in choice if i in kept] == kept
    lost = [i for i in choice if i not in kept]
    if lost and drop == "last":
        assert kept == choice[: len(kept)]
        assert sum(size[i] for i in choice[: len(kept) + 1]) > limit
    if lost and kept and drop == "longest":
        assert max(size[i] for i in kept) <= min(size[i] for i in lost)
    with pytest.raises(DataError, match="lengths"):
        within([1], [], 3)


# -- words -------------------------------------------------------------------------------------------------------------

VOCABULARY = ["red", "blue", "cat", "dog", "the", "runs"]


@often
@given(
    st.lists(st.lists(st.sampled_from(VOCABULARY), max_size=6).map(" ".join), min_size=1, max_size=8),
    st.lists(st.sampled_from([*VOCABULARY, "unheard"]), max_size=5).map(" ".join),
)
def test_bm25_is_the_formula(pool, query):
    pool = ["the", *pool]
    scores = WordIndex(pool).scores(query)
    wanted = torch.tensor(slow_bm25(query, pool))
    torch.testing.assert_close(scores, wanted, rtol=1e-4, atol=1e-5)
    found = bm25([query], pool, len(pool))[0]
    assert sorted(found) == list(range(len(pool)))
    assert all(scores[a] >= scores[b] for a, b in itertools.pairwise(found))


def test_bm25_says_what_it_cannot_do(monkeypatch):
    assert bm25(["?!"], ["a", "b"], 2) == [[0, 1]]  # a query without words: the pool's order
    assert WordIndex(["a b", "b", "a"]).nearest(["a"], 2, [{2}]) == [[0, 1]]
    with pytest.raises(DataError, match="words"):
        WordIndex(["!", ""])
    with pytest.raises(ConfigError, match="k1, b"):
        WordIndex(["a"], b=2.0)
    with pytest.raises(ConfigError, match="`k` must be from 0 to 1"):
        bm25(["a"], ["a"], 2)
    with pytest.raises(ConfigError, match="excluded"):
        WordIndex(["a"]).nearest(["a"], 1, [])

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(selection_bm25.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"reprogram\[retrieval\]"):
        WordIndex(["a"])


# -- selectors ---------------------------------------------------------------------------------------------------------

SAYINGS = ["the cat runs", "a red dog", "the dog runs", "blue", "red cat", "the blue dog runs"]
POOL = [Example((text,), "ab"[i % 2]) for i, text in enumerate(SAYINGS)]


def embed(texts):
    return torch.tensor([[text.split().count(w) + 0.1 for w in VOCABULARY] for text in texts])


def make(kind, **options):
    if kind == "words":
        return WordSelector(POOL, k=3, **options)
    return VectorSelector(POOL, embed(SAYINGS), embed, k=3, by=kind, **options)


def test_a_query_is_not_shown_itself():
    assert twins(["x"], []) == [frozenset()]
    for kind in ("nearest", "dpp", "words"):
        chosen = make(kind)
        assert isinstance(chosen, Selector)
        for i, found in enumerate(chosen.choose(Texts({"text": tuple(SAYINGS)}))):
            assert i not in found
            assert len(set(found)) == 3
    assert FixedSelector(POOL).choose(Texts({"text": ("blue", "new")})) == [[0, 1, 2, 4, 5], [0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("kind", ["nearest", "dpp", "words"])
def test_a_choice_depends_on_its_own_query_alone(kind):
    chosen = make(kind, order="shuffled", seed=3)
    batch = Texts({"text": ("the red dog", "blue cat", "runs")})
    whole = chosen.choose(batch)
    assert whole == [chosen.choose(batch[[i]])[0] for i in range(3)]
    assert chosen.choose(batch[[]]) == []


def test_the_best_stands_last():
    assert make("words").choose(Texts({"text": ("blue!",)}))[0][-1] == 3
    assert make("nearest", order="ranked").choose(Texts({"text": ("blue ink",)}))[0][0] == 3
    labels = make("nearest", order="interleaved").choose(Texts({"text": ("the blue dog",)}))[0]
    assert [POOL[i].answer for i in labels[1:]] in (["a", "b"], ["b", "a"])


def test_vectors_are_the_state_and_the_encoder_is_not():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, texts):
            return embed(texts) * self.weight

    mine = VectorSelector(POOL, embed(SAYINGS), Encoder(), k=2)
    assert set(mine.state_dict()) == {"vectors"} and not list(mine.parameters())
    torch.testing.assert_close(mine.vectors.norm(dim=1), torch.ones(len(POOL)))
    other = VectorSelector(POOL, torch.ones(6, len(VOCABULARY)), embed, k=2)
    other.load_state_dict(mine.state_dict())
    asked = Texts({"text": ("red cat runs", "the blue")})
    assert other.choose(asked) == mine.choose(asked)
    assert not make("words").state_dict()


def test_several_columns_are_one_text():
    pool = [Example(("red cat", "runs"), "a"), Example(("blue", "dog"), "b")]
    chosen = WordSelector(pool, k=1)
    assert chosen.choose(Texts({"one": ("red cat", "red cat"), "two": ("runs", "dog runs")})) == [[1], [0]]


def test_what_is_printed_tells_pools_apart():
    others = [Example(("the cat sleeps",), "a"), *POOL[1:]]
    assert repr(WordSelector(POOL, k=2)) == repr(WordSelector(POOL, k=2)) != repr(WordSelector(others, k=2))
    assert repr(FixedSelector(POOL)) != repr(FixedSelector(others))
    assert repr(make("dpp")) != repr(make("nearest"))


def test_selectors_refuse():
    with pytest.raises(ConfigError, match="`k` must be from 1 to 6"):
        WordSelector(POOL, k=7)
    with pytest.raises(DataError, match="vectors"):
        VectorSelector(POOL, torch.ones(5, 2), embed, k=2)
    with pytest.raises(DataError, match="vectors"):
        VectorSelector(POOL, torch.full((6, 2), torch.nan), embed, k=2)
    with pytest.raises(ConfigError, match="candidates"):
        VectorSelector(POOL, torch.ones(6, 2), embed, k=3, by="dpp", candidates=2)
