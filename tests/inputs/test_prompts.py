"""Edits that add tokens, or keys and values: against plain concatenation, with exact starts and true gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from reprogram.core.errors import ConfigError
from reprogram.core.inserting import Inserting, Prefixing
from reprogram.core.program import Edit
from reprogram.inputs import (
    EncodedPrefix,
    EncodedPrompt,
    MultitaskPrompt,
    Prefix,
    PromptMixture,
    PromptTokens,
    ReplacedTokens,
    SoftPrompt,
    of_tasks,
    patch_size,
    uniform_start,
)
from reprogram.testing import tiny_source

N, D = 4, 6
often = settings(deadline=None, max_examples=40)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


PROMPTS = {
    "soft": lambda **k: SoftPrompt(drawn(N, D), **k),
    "lstm": lambda **k: EncodedPrompt(drawn(N, D), hidden=5, **k),
    "mlp": lambda **k: EncodedPrompt(drawn(N, D), hidden=8, encoder="mlp", **k),
    "multitask": lambda **k: MultitaskPrompt(drawn(N, D), rank=2, **k),
}
PREFIXES = {
    "flat": lambda layers=1: Prefix(drawn(3, layers, 2, 2, 4)),
    "encoded": lambda layers=1: EncodedPrefix(drawn(3, layers, 2, 2, 4), width=5, hidden=7),
}
every_prompt = pytest.mark.parametrize("make", PROMPTS.values(), ids=PROMPTS)
every_prefix = pytest.mark.parametrize("make", PREFIXES.values(), ids=PREFIXES)


def plainly(value: Tensor, prompt: Tensor, at: int) -> Tensor:
    """One row and one token at a time."""
    rows = []
    for row in value:
        tokens = list(row)
        tokens[at:at] = list(prompt)
        rows.append(torch.stack(tokens))
    return torch.stack(rows)


@every_prompt
@pytest.mark.parametrize("where", ["start", "after_first", "end"])
@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (3, 5)])
def test_prompts_are_put_where_they_belong(make, where, batch, tokens):
    edit, x = make(where=where), drawn(batch, tokens, D, seed=1)
    at = {"start": 0, "after_first": 1, "end": tokens}[where]
    torch.testing.assert_close(edit(x), plainly(x, edit.tokens().detach(), at))
    assert edit(x.bfloat16()).dtype == torch.bfloat16
    assert isinstance(edit, Inserting)
    assert (edit.where, edit.length) == (where, N)


@every_prompt
def test_prompts_start_where_they_are_told_whatever_makes_them(make):
    torch.testing.assert_close(make().tokens(), drawn(N, D), atol=1e-4, rtol=1e-4)


@every_prompt
def test_prompts_at_a_template_s_places_need_a_source_of_text(make):
    edit = make(where="slots")
    assert edit.where == "slots"
    with pytest.raises(ConfigError, match="outside a source of text"):
        edit(drawn(1, 2, D))


@every_prompt
def test_prompts_of_another_width_are_refused(make):
    with pytest.raises(ConfigError, match=f"must be tokens of width {D}, got {D + 1}"):
        make()(drawn(1, 2, D + 1))
    with pytest.raises((ConfigError, TypeError)):
        make(where="middle")


def check_gradients(edit: Edit, *inputs: Tensor) -> None:
    """By finite differences in double precision, of every learned number and of the value."""
    edit = edit.double()
    names, values = zip(*((n, p.detach().double().requires_grad_()) for n, p in edit.named_parameters()), strict=True)

    def run(*every: Tensor) -> Tensor:
        return torch.func.functional_call(edit, dict(zip(names, every[: len(names)], strict=True)), every[len(names) :])

    given_values = [x.double().requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(run, (*values, *given_values))


EDITS = {
    **{name: (make, (2, 3, D)) for name, make in PROMPTS.items()},
    **{name: (make, (2, 2, 2, 3, 4)) for name, make in PREFIXES.items()},
    "mixture": (lambda: PromptMixture(drawn(2, N, D)), (2, 3, D)),
    "tokens": (lambda: PromptTokens(drawn(N, D)), (2, 3, D)),
    "replaced": (lambda: ReplacedTokens(drawn(N, D), site="hidden.1"), (2, N + 3, D)),
}


@pytest.mark.parametrize(("make", "shape"), EDITS.values(), ids=EDITS)
def test_gradients(make, shape):
    check_gradients(make(), drawn(*shape, seed=3))


@pytest.mark.parametrize(("make", "shape"), EDITS.values(), ids=EDITS)
def test_every_learned_number_reaches_the_output_and_states_come_back(make, shape):
    edit, x = make(), drawn(*shape, seed=3)
    (edit(x) * drawn(*edit(x).shape, seed=4)).sum().backward()
    assert all(bool(p.grad.any()) for p in edit.parameters())
    assert edit.effective() == sum(p.numel() for p in edit.parameters())
    torch.manual_seed(99)
    other = make()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1.0)
    other.load_state_dict(edit.state_dict())
    assert torch.equal(other(x), edit(x))


@pytest.mark.parametrize(("make", "shape"), EDITS.values(), ids=EDITS)
def test_the_value_is_not_changed_in_place(make, shape):
    x = drawn(*shape, seed=3)
    before = x.clone()
    make()(x)
    assert torch.equal(x, before)


@pytest.mark.compile
@pytest.mark.parametrize("name", [name for name in EDITS if name != "lstm"])  # torch does not trace recurrent layers
def test_compiled_is_eager(name):
    make, shape = EDITS[name]
    edit, x = make(), drawn(*shape, seed=3)
    torch._dynamo.reset()
    compiled = torch.compile(edit, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), edit(x))


@pytest.mark.parametrize(
    ("make", "shape"),
    [(SoftPrompt, (2, 3)), (PromptMixture, (2, 2, 3)), (Prefix, (2, 1, 2, 2, 3)), (PromptTokens, (2, 3))],
)
def test_starts_are_copied_and_checked(make, shape):
    start = drawn(*shape)
    edit = make(start)
    start.zero_()
    assert bool(edit.values.any())
    with pytest.raises(ConfigError, match="must be finite numbers"):
        make(torch.full(shape, math.nan))
    with pytest.raises((ConfigError, TypeError)):
        make(torch.zeros(0, *shape[1:]))
    with pytest.raises((ConfigError, TypeError)):
        make(torch.zeros(3))


# Networks that make prompts


@pytest.mark.parametrize(
    "make", [PROMPTS["lstm"], PROMPTS["mlp"], PROMPTS["multitask"]], ids=["lstm", "mlp", "multitask"]
)
def test_compact_prompts_are_the_same_prompts(make):
    edit = make(where="end", site="other")
    with torch.no_grad():
        for p in edit.parameters():
            p.add_(0.1 * drawn(*p.shape, seed=8))
    small = edit.compact()
    assert isinstance(small, SoftPrompt)
    torch.testing.assert_close(small.tokens(), edit.tokens())  # an LSTM has other kernels where no gradient is wanted
    assert (small.where, small.site) == ("end", "other")
    assert sum(p.numel() for p in small.parameters()) == N * D


def test_a_compact_prompt_is_that_of_eval_mode():
    edit = EncodedPrompt(drawn(N, D), hidden=5, dropout=0.5).train()
    torch.testing.assert_close(edit.compact().tokens(), edit.eval().tokens())
    assert not torch.allclose(edit.train().tokens(), edit.eval().tokens(), atol=1e-3)
    assert edit.train().compact() is not None and edit.training


def test_one_row_is_met_exactly_and_more_than_the_layer_can_tell_by_least_squares():
    one = EncodedPrompt(drawn(1, D), hidden=3, encoder="mlp")
    torch.testing.assert_close(one.tokens(), drawn(1, D), atol=1e-5, rtol=1e-5)
    many = EncodedPrompt(drawn(50, D), hidden=3, encoder="mlp")
    left = (many.tokens() - drawn(50, D)).detach()
    assert float(left.mean(0).abs().max()) < 1e-4
    assert float(left.norm()) < float((drawn(50, D) - drawn(50, D).mean(0)).norm())


def test_networks_are_those_of_the_paper():
    lstm, mlp = EncodedPrompt(drawn(5, 48), hidden=32), EncodedPrompt(drawn(5, 48), hidden=32, encoder="mlp")
    assert lstm.recurrent.num_layers == 2
    assert lstm.recurrent.bidirectional
    rows = lstm.recurrent(lstm.values[None])[0][0]
    torch.testing.assert_close(lstm.tokens(), lstm.last(lstm.inner(rows)))
    one = mlp.last(mlp.inner(mlp.values[2:3]))  # each row on its own
    torch.testing.assert_close(mlp.tokens()[2:3], one)


@pytest.mark.parametrize(
    "bad", [{"hidden": 0}, {"layers": 0}, {"dropout": 1.0}, {"encoder": "gru"}], ids=lambda bad: next(iter(bad))
)
def test_settings_out_of_range(bad):
    with pytest.raises((ConfigError, TypeError)):
        EncodedPrompt(drawn(N, D), **bad)


# Prefixes


@every_prefix
def test_a_prefix_goes_before_keys_and_values_alike(make):
    edit, x = make(), drawn(3, 2, 2, 5, 4, seed=1)
    out, table = edit(x), edit.keys_values().detach()
    assert isinstance(edit, Prefixing)
    assert edit.shift
    assert edit.length == 3
    for b in range(3):
        for part in range(2):
            for head in range(2):
                expected = torch.cat([table[:, 0, part, head], x[b, part, head]])
                torch.testing.assert_close(out[b, part, head], expected)


@every_prefix
def test_a_prefix_starts_where_it_is_told(make):
    torch.testing.assert_close(make(3).keys_values(), drawn(3, 3, 2, 2, 4), atol=1e-4, rtol=1e-4)


@every_prefix
def test_a_prefix_of_all_layers_is_not_for_one(make):
    with pytest.raises(ConfigError, match="of one layer to act on one layer's keys and values, got 2"):
        make(2)(drawn(1, 2, 2, 5, 4))
    with pytest.raises(ConfigError, match=r"must be keys and values of \[2, 4\]"):
        make()(drawn(1, 2, 3, 5, 4))


def test_the_flat_table_holds_keys_and_values_by_turns():
    """Block 2l of a row is the keys of layer l, block 2l + 1 its values, each head after head."""
    layers, heads, width = 3, 2, 4
    flat = torch.arange(5 * 2 * layers * heads * width).float().view(5, -1)
    edit = Prefix(flat.view(5, layers, 2, heads, width))
    assert torch.equal(edit.values.flatten(1), flat)
    size = heads * width
    for layer in range(layers):
        for part in range(2):
            block = flat[:, (2 * layer + part) * size : (2 * layer + part + 1) * size]
            assert torch.equal(edit.keys_values()[:, layer, part].flatten(1), block)


def test_compact_prefix_is_the_same_prefix():
    edit = PREFIXES["encoded"](2)
    small = edit.compact()
    assert torch.equal(small.keys_values(), edit.keys_values())
    assert (small.shift, small.site) == (edit.shift, edit.site)


# Several tasks, several prompts


def test_a_multitask_prompt_is_a_product_number_by_number():
    u, v = drawn(N, 2, seed=1), drawn(2, D, seed=2)
    edit = MultitaskPrompt(drawn(N, D), rank=2, factors=(u, v))
    for i in range(N):
        for j in range(D):
            expected = float(drawn(N, D)[i, j]) * sum(float(u[i, r] * v[r, j]) for r in range(2))
            assert float(edit.tokens().detach()[i, j]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_ranks_do_not_learn_the_same():
    edit = MultitaskPrompt(drawn(N, D), rank=3)
    (edit.tokens() * drawn(N, D, seed=5)).sum().backward()
    assert not torch.allclose(edit.u.grad[:, 0], edit.u.grad[:, 1])


def test_a_fixed_shared_prompt_is_kept_but_not_learned():
    edit = MultitaskPrompt(drawn(N, D), learn_shared=False)
    assert {n for n, _ in edit.named_parameters()} == {"u", "v"}
    assert "shared" in edit.state_dict()


def test_factors_of_source_tasks():
    tasks = [(drawn(N, 1, seed=k), drawn(1, D, seed=k + 9)) for k in range(3)]
    u, v = of_tasks(tasks)
    torch.testing.assert_close(u, sum(t[0] for t in tasks) / 3)
    torch.testing.assert_close(v, sum(t[1] for t in tasks) / 3)
    exact = of_tasks(tasks, 2)
    assert torch.equal(exact[0], tasks[2][0])
    with pytest.raises(ConfigError, match="average or a number from 0 to 2, got 3"):
        of_tasks(tasks, 3)
    with pytest.raises(ConfigError, match="one shape"):
        of_tasks([*tasks, (drawn(N, 2), drawn(2, D))])
    with pytest.raises(ConfigError, match="at least one task"):
        of_tasks([])
    with pytest.raises(ConfigError, match=r"must be \[4, 2\] and \[2, 6\]"):
        MultitaskPrompt(drawn(N, D), rank=2, factors=tasks[0])


def test_a_mixture_puts_the_variants_of_one_input_next_to_one_another():
    edit, x = PromptMixture(drawn(3, N, D)), drawn(2, 5, D, seed=1)
    out = edit(x)
    assert out.shape == (6, N + 5, D)
    for row in range(6):
        torch.testing.assert_close(out[row], torch.cat([drawn(3, N, D)[row % 3], x[row // 3]]))
    assert edit.length == N


# Vision transformers


@often
@given(st.integers(0, 3), st.integers(1, 4), st.integers(0, 3))
def test_tokens_go_after_the_class_token_and_are_replaced_there(after, n, rest):
    x = drawn(2, after + rest, D, seed=1)
    longer = PromptTokens(drawn(n, D), after=after)(x)
    assert torch.equal(longer[:, :after], x[:, :after])
    assert torch.equal(longer[:, after : after + n], drawn(n, D).expand(2, -1, -1))
    assert torch.equal(longer[:, after + n :], x[:, after:])
    fresh = ReplacedTokens(drawn(n, D, seed=7), site="hidden.1", after=after)(longer)
    assert torch.equal(fresh, PromptTokens(drawn(n, D, seed=7), after=after)(x))


def test_prompt_dropout_only_while_training():
    edit, x = PromptTokens(torch.ones(8, D), dropout=0.5), drawn(4, 3, D)
    edit.train()
    assert set(edit(x)[:, 1:9].flatten().tolist()) == {0.0, 2.0}
    assert torch.equal(edit(x)[:, :1], x[:, :1])
    edit.eval()
    assert bool((edit(x)[:, 1:9] == 1).all())


def test_sequences_too_short_or_of_another_width():
    with pytest.raises(ConfigError, match="width 6 and at least 5 tokens"):
        ReplacedTokens(drawn(4, D), site="hidden.1")(drawn(1, 4, D))
    with pytest.raises(ConfigError, match="width 6"):
        PromptTokens(drawn(4, D))(drawn(1, 4, D + 1))
    with pytest.raises(ConfigError, match="0 or more tokens"):
        PromptTokens(drawn(4, D), after=-1)
    with pytest.raises(ConfigError, match=r"in \[0, 1\)"):
        ReplacedTokens(drawn(4, D), site="hidden.1", dropout=1.0)


def test_the_published_start():
    torch.manual_seed(0)
    start, bound = uniform_start(2000, 768, (16, 16)), math.sqrt(6 / (3 * 16 * 16 + 768))
    assert float(start.abs().max()) <= bound
    assert float(start.std()) == pytest.approx(bound / math.sqrt(3), rel=0.01)
    with pytest.raises(ConfigError, match="1 or more"):
        uniform_start(0, 768, (16, 16))


def test_patch_size_is_read_off_the_first_patching_convolution():
    from reprogram.sources import wrap

    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, (4, 2), stride=(4, 2)), nn.Flatten(), nn.LazyLinear(5)
    )
    net(torch.zeros(1, 3, 8, 8))
    assert patch_size(wrap(net, input_shape=(3, 8, 8))) == (4, 2)
    assert patch_size(tiny_source(), default=7) == (7, 7)
