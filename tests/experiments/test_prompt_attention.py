"""The one-layer models, their mixtures, and what can be derived of them."""

import math

import pytest
import torch

from reprogram.core.errors import ConfigError
from reprogram.experiments.attention_role import CONTRARY, HALF, judge
from reprogram.experiments.prompt_attention import (
    LINEAR,
    MEAN,
    MODELS,
    PROMPT,
    SELF,
    Descent,
    Kind,
    Mixture,
    begin,
    best_prompt,
    ceiling,
    descend,
    draw,
    population,
    prompt_accuracy,
    prompt_mass,
    pull,
    relevant_mass,
    right,
    scores,
    self_attention_signal,
)


def mixture(relevant, **more):
    return Mixture(**{"tokens": 32, "relevant": relevant, "width": 2, "noise": 0.0, "kinds": CONTRARY} | more)


def slow(model, x, params, r):
    """f of every example, token by token."""
    made = []
    for tokens in x:
        t = len(tokens)
        if model == PROMPT:
            raw = [math.exp(float(token @ params["prompt"][r])) for token in tokens]
            a = [w / sum(raw) for w in raw]
        elif model == LINEAR:
            a = [float(token @ params["prompt"][r]) / t for token in tokens]
        elif model == SELF:
            a = [0.0] * t
            for query in tokens:
                raw = [math.exp(float(query @ params["product"][r] @ key)) for key in tokens]
                a = [old + w / sum(raw) / t for old, w in zip(a, raw, strict=True)]
        else:
            a = [1 / t] * t
        made.append(sum(w * float(token @ params["head"][r]) for w, token in zip(a, tokens, strict=True)))
    return torch.tensor(made, dtype=x.dtype)


@pytest.mark.parametrize("model", MODELS)
def test_scores_are_those_of_a_plain_loop(model):
    generator = torch.Generator().manual_seed(0)
    x, _ = draw(Mixture(tokens=5, relevant=2, width=3, noise=0.7, kinds=CONTRARY), 4, generator)
    params = {k: v.double() for k, v in begin(model, 3, 0.8, generator, runs=2).items()}
    found = scores(model, x.double(), params)
    for r in range(2):
        torch.testing.assert_close(found[r], slow(model, x.double(), params, r))


@pytest.mark.parametrize("model", MODELS)
def test_gradients(model):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 4, 2, generator=generator, dtype=torch.float64)
    params = {k: v.double().requires_grad_() for k, v in begin(model, 2, 1.0, generator, runs=2).items()}
    names = list(params)
    assert torch.autograd.gradcheck(
        lambda *p: scores(model, x, dict(zip(names, p, strict=True))), tuple(params.values())
    )


def test_examples_are_what_the_mixture_says():
    spec = Mixture(tokens=10, relevant=4, width=5, noise=0.5, kinds=(Kind(0.75), Kind(0.25, -2.0, 3.0)))
    x, y = draw(spec, 4000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(x[:, :4, 0], torch.ones(4000, 4))
    torch.testing.assert_close(x[:, :4, 1], y[:, None].expand(-1, 4))
    assert not x[:, :4, 2:].any()
    contrary = x[:, 4:, 0].mean(1) < -1
    assert float(contrary.float().mean()) == pytest.approx(0.25, abs=0.03)
    against = (x[:, 4:, 1] * y[:, None])[contrary]
    assert float(against.mean()) == pytest.approx(-3, abs=0.05)
    assert float(against.std()) == pytest.approx(0.5, abs=0.05)
    x, y, shares = population(mixture(8))
    assert float(shares.sum()) == pytest.approx(1)
    assert x.shape == (6, 32, 2)
    assert sorted(zip(shares.tolist(), y.tolist(), strict=True))[-1] == (0.25, 1.0)


def test_runs_do_not_see_one_another():
    data = population(mixture(8))
    how = Descent(steps=7, rate=0.2, adam=True)
    both = begin(SELF, 2, 1.0, torch.Generator().manual_seed(0), runs=3)
    alone = {k: v[1:2].clone() for k, v in both.items()}
    losses = descend(SELF, data, both, how)
    torch.testing.assert_close(descend(SELF, data, alone, how), losses[1:2])
    for name, p in both.items():
        torch.testing.assert_close(p[1:2], alone[name])


def test_descent_is_plain_gradient_descent():
    x, y, shares = population(mixture(8))
    params = begin(MEAN, 2, 0.1, torch.Generator().manual_seed(0))
    head = params["head"][0].double()
    seen = []
    descend(MEAN, (x, y, shares), params, Descent(steps=3, rate=0.5), lambda step, p: seen.append(step))
    pooled = x.double().mean(1)
    for _ in range(3):  # the logistic loss's gradient, by hand
        head = head + 0.5 * ((y * shares / (1 + (y * (pooled @ head)).exp())) @ pooled)
    torch.testing.assert_close(params["head"][0].double(), head, atol=1e-6, rtol=1e-5)
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize("m", [0.5, 4.0])
@pytest.mark.parametrize("a", [-2.0, -0.1, 0.0, 0.3, 5.0])
def test_the_signal_of_self_attention_is_its_output(a, m):
    spec = mixture(6, kinds=(Kind(1.0, -m, m),))
    x, y, _ = population(spec)
    product = torch.tensor([[[a, 0.0], [0.0, 0.0]]], dtype=torch.float64)  # r' W r = a, as r = (1, y)
    for head in ([1.0, 0.0], [0.0, 1.0]):
        found = scores(SELF, x.double(), {"product": product, "head": torch.tensor([head], dtype=torch.float64)})[0]
        r = torch.stack([torch.ones_like(y), y], 1).double()
        signal = self_attention_signal(spec.share, m, torch.tensor([a], dtype=torch.float64))
        torch.testing.assert_close(found, signal * (r @ torch.tensor(head, dtype=torch.float64)))


def test_ceilings_change_where_the_derivation_says():
    # a linear prompt fails on the third kind while (1 - s) 0.6 > s, that is below s = 0.375; 12 of 32 is the border
    assert ceiling(LINEAR, mixture(11)) == pytest.approx(0.875)
    assert ceiling(LINEAR, mixture(13)) == pytest.approx(1)
    # the mean needs s > (1 - s) m for all kinds: above 0.8, and 26 of 32 is the first
    assert ceiling(MEAN, mixture(25)) == pytest.approx(0.75)
    assert ceiling(MEAN, mixture(26)) == pytest.approx(1)
    assert ceiling(SELF, mixture(8)) == pytest.approx(0.75)
    assert ceiling(SELF, mixture(28)) is None
    assert ceiling(SELF, mixture(8, kinds=HALF)) is None
    assert ceiling(PROMPT, mixture(2)) == 1
    assert ceiling(PROMPT, mixture(2, kinds=(Kind(1.0, 1.5, 1.0),))) is None


@pytest.mark.parametrize("relevant", [8, 10, 20])
@pytest.mark.parametrize("model", [LINEAR, MEAN, SELF])
def test_no_model_beats_its_ceiling(model, relevant):
    spec = mixture(relevant)
    generator = torch.Generator().manual_seed(3)
    best = 0.0
    for spread in (0.3, 3.0, 30.0):  # any heads and prompts will do, fitted or not
        params = begin(model, 2, spread, generator, runs=1500)
        best = max(best, float(right(model, population(spec), params).max()))
    top = ceiling(model, spec)
    assert top is not None
    assert best <= top + 1e-6
    assert model == SELF or best == pytest.approx(top)  # and the ceilings of the other two are reached


def test_a_prompt_along_the_context_reaches_its_ceiling():
    for relevant in (2, 8, 28):
        params = {"prompt": torch.tensor([[30.0, 0.0]]), "head": torch.tensor([[0.0, 1.0]])}
        assert float(right(PROMPT, population(mixture(relevant)), params)) == pytest.approx(1)


def test_the_closed_forms_hold_for_many_tokens():
    spec = Mixture(tokens=4000, relevant=40, width=2, noise=0.8)
    x, y = draw(spec, 1500, torch.Generator().manual_seed(0))
    data = (x, y, torch.full((1500,), 1 / 1500))
    for kappa in (0.0, 0.5, best_prompt(spec), 1.5):
        params = {"prompt": torch.tensor([[kappa, 0.0]]), "head": torch.tensor([[0.0, 1.0]])}
        assert float(relevant_mass(PROMPT, x, 40, params)) == pytest.approx(prompt_mass(spec, kappa), rel=0.03)
        derived = prompt_accuracy(spec, kappa)
        error = 3 * math.sqrt(derived * (1 - derived) / 1500)
        assert float(right(PROMPT, data, params)) == pytest.approx(derived, abs=error + 0.01)


def test_the_best_prompt_is_the_best():
    spec = Mixture(tokens=64, relevant=8, width=2, noise=0.6)
    top = best_prompt(spec)
    assert all(prompt_accuracy(spec, top) >= prompt_accuracy(spec, top + d) for d in (-1.0, -0.01, 0.01, 1.0))
    top = 1 / spec.noise**2
    assert all(prompt_mass(spec, top) >= prompt_mass(spec, top + d) for d in (-1.0, -0.01, 0.01, 1.0))


@pytest.mark.parametrize("relevant", [4, 10, 11, 20])
def test_the_first_steps_go_where_the_pull_says(relevant):
    spec = mixture(relevant, kinds=HALF)
    params = {"prompt": torch.zeros(1, 2), "head": torch.zeros(1, 2)}
    descend(PROMPT, population(spec), params, Descent(steps=2, rate=0.1))
    assert params["head"][0, 1] * pull(spec) > 0
    assert params["prompt"][0, 0] * pull(spec) > 0
    assert (pull(spec) > 0) == (spec.share > 1 / 3)


def test_bad_mixtures_are_refused():
    for more in ({"relevant": 0}, {"relevant": 32}, {"width": 1}, {"noise": -1.0}, {"kinds": (Kind(0.4),)}):
        with pytest.raises(ConfigError):
            mixture(**{"relevant": 8} | more)
    with pytest.raises(ConfigError, match="noise"):
        population(mixture(8, noise=0.1))


def test_verdicts_follow_the_rows():
    def rows(self_attention, mass):
        part = {"share": 0.25, "lowest_loss": 0.1, "train_accuracy": 1.0}
        accuracies = {PROMPT: 1.0, SELF: self_attention, LINEAR: 0.9, MEAN: 0.5}
        made = [{"part": p, "seed": s, "model": m, "accuracy": a, "ceiling": 1.0, **part}
                for p in ("capacity", "noisy") for s in range(5) for m, a in accuracies.items()]  # fmt: skip
        made += [{"part": "descent", "seed": s, "model": m, "accuracy": 0.95, "mass": 0.3, "mass_before": 0.1,
                  "cosine": 1.0, "best": 0.96, "derived_best": 0.96, "at_derived": 0.955}
                 for s in range(5) for m in (PROMPT, MEAN)]  # fmt: skip
        return made + [{"part": "turning", "seed": s, "share": 0.2, "pull": -0.2, "mass": mass} for s in range(5)]

    def verdicts(found):
        return {
            c.statement.split(":")[0]: c.verdict for c in found if c.where.startswith("no noise") or "pull" in c.where
        }

    good = verdicts(judge(rows(0.75, 0.1)))
    assert good["A softmax prompt does better than self-attention without a prompt"] == "supported"
    assert good["Irrelevant tokens win on average, and attention goes to those"] == "supported"
    assert set(good.values()) == {"supported"}
    bad = verdicts(judge(rows(1.0, 0.9)))
    assert bad["A softmax prompt does better than self-attention without a prompt"] == "not supported"
    assert bad["Irrelevant tokens win on average, and attention goes to those"] == "not supported"
