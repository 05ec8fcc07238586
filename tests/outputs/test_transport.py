"""Transport in batches against slow plain references, one problem after the other, and against closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, DataError
from reprogram.core.source import SourceOutput
from reprogram.outputs import (
    AlignedScores,
    Transport,
    TransportScores,
    sinkhorn,
    token_similarity,
    transported,
)
from reprogram.outputs.aligned import WORDS

seeds = st.integers(0, 999)


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit(*shape: int, seed: int = 0, kind: torch.dtype = torch.float32) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=draws(seed), dtype=kind), dim=-1)


def slowly(
    cost: Tensor, epsilon: float, iterations: int, rows: Tensor, columns: Tensor, tolerance: float | None = None
) -> Tensor:
    """One problem, number by number, as published: factors of exp(-cost / epsilon), which start at 1."""
    m, n = cost.shape
    kernel = [[math.exp(-float(cost[i, j]) / epsilon) for j in range(n)] for i in range(m)]
    r, c = [1.0] * m, [1.0] * n
    for _ in range(iterations):
        before = r
        r = [float(rows[i]) / sum(kernel[i][j] * c[j] for j in range(n)) for i in range(m)]
        c = [float(columns[j]) / sum(kernel[i][j] * r[i] for i in range(m)) for j in range(n)]
        if tolerance is not None and sum(abs(a - b) for a, b in zip(r, before, strict=True)) / m < tolerance:
            break
    return torch.tensor([[r[i] * kernel[i][j] * c[j] for j in range(n)] for i in range(m)], dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(m=st.integers(1, 5), n=st.integers(1, 4), seed=seeds, times=st.integers(1, 12), bounded=st.booleans())
def test_a_batch_is_what_a_plain_loop_finds(m: int, n: int, seed: int, times: int, bounded: bool) -> None:
    draw = draws(seed)
    cost = 2 * torch.rand(2, 3, m, n, generator=draw, dtype=torch.float64)
    rows = torch.rand(2, 3, m, generator=draw, dtype=torch.float64).add(0.1)
    columns = torch.rand(n, generator=draw, dtype=torch.float64).add(0.1)
    rows, columns = rows / rows.sum(-1, keepdim=True), columns / columns.sum()
    found = sinkhorn(cost, 0.2, times, marginals=(rows, columns), bound=2.0 if bounded else None)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(found[i, j], slowly(cost[i, j], 0.2, times, rows[i, j], columns))


@pytest.mark.parametrize("bound", [None, 2.0])
def test_each_problem_stops_where_the_published_rule_stops_it_alone(bound: float | None) -> None:
    cost = 1 - unit(40, 9, 3, seed=1, kind=torch.float64)[..., :4] * torch.linspace(0.1, 1, 40)[:, None, None]
    even = torch.full((9,), 1 / 9, dtype=torch.float64), torch.full((3,), 1 / 3, dtype=torch.float64)
    found = sinkhorn(cost, 0.1, 100, 1e-2, bound=bound)
    for mine, problem in zip(found, cost, strict=True):
        torch.testing.assert_close(mine, slowly(problem, 0.1, 100, *even, tolerance=1e-2), rtol=1e-6, atol=1e-12)
    all_the_way = sinkhorn(cost, 0.1, 100, bound=bound)
    assert not torch.allclose(found, all_the_way, atol=1e-7)  # so the rule did stop some of them
    torch.testing.assert_close(sinkhorn(cost[7:8], 0.1, 100, 1e-2, bound=bound)[0], found[7], rtol=0, atol=1e-15)


@given(cost=st.lists(st.floats(0, 1), min_size=4, max_size=4), epsilon=st.floats(0.25, 5))
@settings(max_examples=25, deadline=None)
def test_two_by_two_has_a_closed_form(cost: list[float], epsilon: float) -> None:
    plan = sinkhorn(torch.tensor(cost, dtype=torch.float64).view(2, 2), epsilon, 300)
    a = 0.5 / (1 + math.exp((cost[0] + cost[3] - cost[1] - cost[2]) / (2 * epsilon)))
    wanted = torch.tensor([[a, 0.5 - a], [0.5 - a, a]], dtype=torch.float64)
    torch.testing.assert_close(plan, wanted, rtol=0, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(m=st.integers(1, 6), n=st.integers(1, 6), seed=seeds, bounded=st.booleans())
def test_sums_are_those_asked_for(m: int, n: int, seed: int, bounded: bool) -> None:
    cost = 2 * torch.rand(4, m, n, generator=draws(seed), dtype=torch.float64)
    plan = sinkhorn(cost, 0.5, 500, bound=2.0 if bounded else None)
    torch.testing.assert_close(plan.sum(-1), torch.full((4, m), 1 / m, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(plan.sum(-2), torch.full((4, n), 1 / n, dtype=torch.float64), rtol=0, atol=1e-12)
    assert bool((plan >= 0).all())


@pytest.mark.parametrize("epsilon", [1e-3, 1e-8, 1e-30, 1e-60, 1e-300])
@pytest.mark.parametrize("bound", [None, 2.0])
def test_a_tiny_epsilon_gives_the_assignment_and_no_nan(epsilon: float, bound: float | None) -> None:
    cost = torch.tensor([[[0.2, 1.0], [1.0, 0.2]], [[1.0, 0.2], [0.2, 1.0]]])
    plan = sinkhorn(cost, epsilon, 50, 1e-2, bound=bound)
    half = 0.5 * torch.eye(2)
    torch.testing.assert_close(plan, torch.stack([half, half.flip(0)]))
    rough = sinkhorn(2 * torch.rand(5, 7, 4, generator=draws(0)), epsilon, 50, bound=bound)
    assert bool(rough.isfinite().all())
    torch.testing.assert_close(rough.sum(-2), torch.full((5, 4), 0.25))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(kind: torch.dtype) -> None:
    """The published kernel underflows in half precision, exp(-2 / 0.1) = 2e-9, and steps are skipped for NaN."""
    cost = (1.6 + 0.4 * torch.rand(6, 9, 4, generator=draws(0))).to(kind)
    assert bool(torch.exp(-cost.half() / 0.1).eq(0).any())
    with torch.autocast("cpu", torch.bfloat16):
        found = sinkhorn(cost, 0.1, 100, 1e-2, bound=2.0)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, sinkhorn(cost.float(), 0.1, 100, 1e-2, bound=2.0))
    assert bool(found.isfinite().all())


def test_nothing_is_read_back() -> None:
    """On the meta device there is nothing that could be."""
    cost = torch.empty(5, 3, 4, device="meta")
    assert sinkhorn(cost, 0.1, 10, 1e-2).shape == sinkhorn(cost, 0.1, 10, 1e-2, bound=2.0).shape == (5, 3, 4)


def test_weights_of_zero_take_nothing_and_give_nothing() -> None:
    cost = torch.rand(3, 4, 3, generator=draws(0))
    short = sinkhorn(cost[..., :2], 0.2, 30)
    for bound in (None, 1.0):
        weights = torch.full((4,), 0.25), torch.tensor([0.5, 0.5, 0.0])
        plan = sinkhorn(cost, 0.2, 30, 1e-6, marginals=weights, bound=bound)
        assert bool(plan[..., 2].eq(0).all())
        torch.testing.assert_close(plan[..., :2], short)


def test_the_plan_is_held_fixed_unless_asked() -> None:
    close = unit(2, 3, 5, 4, seed=3, kind=torch.float64).requires_grad_()
    fixed = Transport(iterations=30, tolerance=None)
    (grad,) = torch.autograd.grad(transported(close, fixed).sum(), close)
    plan = sinkhorn(1 - close.detach(), 0.1, 30, bound=2.0)
    torch.testing.assert_close(grad, plan)
    torch.testing.assert_close(transported(close, fixed), (plan * close).sum((-2, -1)))
    free = Transport(iterations=30, tolerance=None, through=True)
    (through,) = torch.autograd.grad(transported(close, free).sum(), close)
    assert not torch.allclose(grad, through, atol=1e-3)
    small = close.detach()[0, 0, :2, :2].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: transported(s, free), (small,))
    slow = Transport(epsilon=0.04, iterations=30, tolerance=None, through=True)  # with logarithms
    assert torch.autograd.gradcheck(lambda s: transported(s, slow), (small,))


@pytest.mark.parametrize("bad", [{"epsilon": 0.0}, {"epsilon": math.inf}, {"iterations": 0}, {"tolerance": -1.0}])
def test_settings_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        sinkhorn(torch.rand(2, 2), **bad)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="a row and a column"):
        sinkhorn(torch.rand(2, 0))


# -- scores --------------------------------------------------------------------------------------------------------


def released(parts: Tensor, texts: Tensor) -> float:
    """PLOT's score of one picture [M, d] and one class [N, d]."""
    close = parts.double() @ texts.double().T
    even = torch.full((len(parts),), 1 / len(parts)), torch.full((len(texts),), 1 / len(texts))
    return float((slowly(1 - close, 0.1, 100, *even, tolerance=1e-2) * close).sum())


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("pictures", [None, 3])
def test_scores_are_those_of_a_loop_over_pictures_and_classes(pooled: bool, pictures: int | None) -> None:
    many, classes, sets = 3, 4, 2
    texts, local, features = unit(classes * sets, 6, seed=1), unit(many, 5, 6, seed=2), unit(many * 3, 6, seed=3)
    output = TransportScores(
        ("a", "b", "c", "d"), sets, pictures=pictures, pooled=pooled, scaled=(20.0, 0.5)
    )  # fmt: skip
    said = SourceOutput(features=features if pictures else features[:many], texts=texts, local=local)
    found = output(said)
    assert output.reading.local is (pictures is None)
    for i in range(many):
        rows = features[3 * i : 3 * i + 3] if pictures else features[i : i + 1]
        for t in range(classes):
            mine = texts[2 * t : 2 * t + 2]
            wanted = 20 * released(rows if pictures else local[i], mine) + 0.5
            if pooled:
                wanted += 20 * float(torch.cosine_similarity(rows.mean(0), mine.mean(0), dim=0))
            assert float(found[i, t]) == pytest.approx(wanted, abs=2e-4)


def test_a_picture_is_scored_the_same_in_any_company() -> None:
    """The released code stops a batch by its mean, so that a score depends on the other pictures."""
    texts, local = unit(6, 6, seed=1), unit(8, 5, 6, seed=2)
    output = TransportScores(("a", "b", "c"), 2)
    features = torch.zeros(8, 6)
    together = output(SourceOutput(features=features, texts=texts, local=local))
    alone = [output(SourceOutput(features=features[:1], texts=texts, local=row[None])) for row in local]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)


def words_of(lengths: tuple[int, ...], sets: int, d: int) -> Tensor:
    words = unit(len(lengths) * sets, max(lengths), d, seed=5)
    for t, length in enumerate(lengths):
        words[t * sets : (t + 1) * sets, length:] = 0
    return words


@pytest.mark.parametrize("token", ["distance", "similarity", "none"])
def test_two_levels_are_those_of_loops_over_everything(token: str) -> None:
    many, sets, lengths = 2, 2, (4, 6, 5)
    texts, words = unit(6, 6, seed=1), words_of(lengths, sets, 6)
    features, local = unit(many * sets, 6, seed=2), unit(many * sets, 7, 6, seed=3)
    output = AlignedScores(("a", "b", "c"), sets, token=token, scaled=(10.0, 0.0))  # type: ignore[arg-type]
    found = output(SourceOutput(features=features, texts=texts, local=local, at={WORDS: words}))
    for i in range(many):
        for t, length in enumerate(lengths):
            mine = slice(t * sets, (t + 1) * sets)
            rows = slice(i * sets, (i + 1) * sets)
            gained = torch.tensor(
                [[released(local[rows][m], words[mine][n, : length - 2]) for n in range(sets)] for m in range(sets)]
            )
            close = features[rows].double() @ texts[mine].double().T
            term = {"distance": 1 - gained, "similarity": gained, "none": 0 * gained}[token]
            even = torch.full((sets,), 1 / sets)
            plan = slowly(1 - close + term, 0.1, 100, even, even, tolerance=1e-2)
            assert float(found[i, t]) == pytest.approx(10 * float((plan * close).sum()), abs=2e-4)


def test_distance_sends_prompts_to_the_tokens_that_fit_and_similarity_away_from_them() -> None:
    """What the released code adds to the cost is a gain: the sign of the paper is the other one."""
    axes = torch.eye(4)
    features = torch.stack([axes[3], axes[3]])  # prompts alone do not tell the pairs apart
    tilt = torch.tensor([0.6, 0.4])  # but the score does: prompt 0 with text 0 is worth more
    texts = torch.nn.functional.normalize(torch.stack([tilt[k] * axes[3] + axes[k] for k in (0, 1)]), dim=-1)
    features[0] = torch.nn.functional.normalize(axes[3] + 0.2 * axes[0], dim=0)
    local = torch.stack([axes[0].expand(3, 4), axes[1].expand(3, 4)])  # the patches of row m are those of text m
    words = torch.stack([axes[0].expand(2, 4), axes[1].expand(2, 4)])
    said = SourceOutput(features=features, texts=texts, local=local, at={WORDS: words})
    scores = {
        token: float(AlignedScores(("a",), 2, token=token, skip=0)(said))  # type: ignore[arg-type]
        for token in ("distance", "none", "similarity")
    }
    pairs = features @ texts.T
    matched, crossed = 0.5 * (pairs[0, 0] + pairs[1, 1]), 0.5 * (pairs[0, 1] + pairs[1, 0])
    assert float(matched) > float(crossed) + 0.02
    assert scores["distance"] == pytest.approx(float(matched), abs=1e-3)
    assert scores["similarity"] == pytest.approx(float(crossed), abs=1e-3)
    assert scores["similarity"] < scores["none"] < scores["distance"]


def test_token_costs_are_looked_at_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, words = unit(2, 2, 5, 4, seed=1), unit(7, 2, 3, 4, seed=2)
    whole = token_similarity(parts, words, Transport(), 1)
    monkeypatch.setattr("reprogram.outputs.aligned._BUDGET", 200)
    torch.testing.assert_close(token_similarity(parts, words, Transport(), 1), whole, rtol=0, atol=1e-6)


def test_a_text_of_few_tokens_keeps_one() -> None:
    parts, words = unit(1, 1, 3, 4, seed=1), unit(1, 1, 2, 4, seed=2)
    found = token_similarity(parts, words, Transport(), skip=5)
    torch.testing.assert_close(found.flatten(), (parts[0, 0] @ words[0, 0, 0]).mean()[None])


def test_the_token_level_learns_only_through_the_plan() -> None:
    words = words_of((3, 4), 2, 6).requires_grad_()
    rest = {"features": unit(2, 6), "texts": unit(4, 6, seed=1).requires_grad_(), "local": unit(2, 5, 6, seed=2)}
    said = SourceOutput(**rest, at={WORDS: words})
    assert torch.autograd.grad(AlignedScores(("a", "b"), 2)(said).sum(), words, allow_unused=True) == (None,)
    free = AlignedScores(("a", "b"), 2, transport=Transport(through=True))
    (grad,) = torch.autograd.grad(free(said).sum(), words)
    assert float(grad.abs().max()) > 0


def test_what_a_source_does_not_give_is_named() -> None:
    features, texts = unit(3, 4), unit(4, 4)
    with pytest.raises(CapabilityError, match="2 vectors a picture"):
        TransportScores(("a", "b"), 2, pictures=2)(SourceOutput(features=features, texts=texts))
    with pytest.raises(CapabilityError, match="picture's parts"):
        TransportScores(("a", "b"), 2)(SourceOutput(features=features, texts=texts))
    with pytest.raises(CapabilityError, match="patches and of the texts' tokens"):
        AlignedScores(("a", "b"), 2)(SourceOutput(features=features[:2], texts=texts))
    with pytest.raises(ConfigError, match="sets"):
        TransportScores(("a",), 0)
    with pytest.raises(ConfigError, match="skip 0 or more"):
        AlignedScores(("a",), 1, skip=-1)
