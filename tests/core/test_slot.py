"""Trap 2 and 3: edits under activation checkpointing, and from several threads."""

import threading

import pytest
import torch
from torch import nn

from reprogram.core.errors import BindingError
from reprogram.core.program import Edit, Input
from reprogram.core.slot import Slot
from reprogram.core.taxonomy import Operator
from reprogram.testing import tiny_source


class Shift(Edit):
    """value + shift, one number a channel."""

    operators = frozenset({Operator.ADDITIVE})

    def __init__(self, site: str, channels: int = 16, value: float = 0.3) -> None:
        super().__init__()
        self.site = site
        self.shift = nn.Parameter(torch.full((channels, 1, 1), value))

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return torch.tanh(value + self.shift)


def gradient(source, edit, x):
    source.attach([edit.site])
    edit.zero_grad()
    scores = source(x, Input(edit)).logits
    scores.square().sum().backward()
    return scores.detach(), edit.shift.grad.clone()


@pytest.mark.parametrize("site", ["hidden.0", "hidden.1", "stem", "blocks.0", "input"])
def test_checkpointed_backbone_gives_the_same_gradient(site):
    x = torch.rand(4, 3, 16, 16)
    channels = 3 if site == "input" else 16
    plain = gradient(tiny_source(), Shift(site, channels), x)
    again = gradient(tiny_source(checkpointed=True), Shift(site, channels), x)
    assert torch.equal(plain[0], again[0])
    torch.testing.assert_close(plain[1], again[1])
    assert plain[1].abs().sum() > 0


def test_without_the_rebinding_the_gradient_would_be_wrong(monkeypatch):
    """The trap is real: the test above can fail."""
    monkeypatch.setattr(Slot, "hold", lambda self, value, result: None)
    x = torch.rand(4, 3, 16, 16)
    plain = gradient(tiny_source(), Shift("hidden.1"), x)
    try:
        wrong = gradient(tiny_source(checkpointed=True), Shift("hidden.1"), x)
    except (RuntimeError, torch.utils.checkpoint.CheckpointError):
        return
    assert not torch.allclose(plain[1], wrong[1])


def test_two_programs_one_after_the_other_under_checkpointing():
    source = tiny_source(checkpointed=True)
    x = torch.rand(4, 3, 16, 16)
    a, b = Shift("hidden.0", value=0.1), Shift("hidden.0", value=0.9)
    source.attach(["hidden.0"])
    first, second = source(x, Input(a)).logits, source(x, Input(b)).logits
    first.square().sum().backward()  # b's forward came in between
    second.square().sum().backward()
    torch.testing.assert_close(a.shift.grad, gradient(tiny_source(), Shift("hidden.0", value=0.1), x)[1])
    torch.testing.assert_close(b.shift.grad, gradient(tiny_source(), Shift("hidden.0", value=0.9), x)[1])


def test_two_programs_in_one_backward_are_refused_not_mixed_up():
    source = tiny_source(checkpointed=True)
    source.attach(["hidden.0"])
    x = torch.rand(2, 3, 16, 16)
    both = source(x, Input(Shift("hidden.0"))).logits.sum() + source(x, Input(Shift("hidden.0"))).logits.sum()
    with pytest.raises(BindingError, match="backward for each program"):
        both.backward()
    assert source._slot.current() is None
    loss = source(x, Input(Shift("hidden.0"))).logits.sum()  # the slot is usable again
    loss.backward()


def test_two_threads_with_two_programs_do_not_see_each_other():
    source = tiny_source()
    source.attach(["hidden.0", "hidden.1"])
    x = torch.rand(2, 3, 16, 16)
    edits = [Shift("hidden.0", value=0.2), Shift("hidden.1", value=-0.7)]
    alone = [gradient(tiny_source(), e, x) for e in edits]
    wrong: list[int] = []
    barrier = threading.Barrier(2)

    def work(i: int) -> None:
        barrier.wait()
        for _ in range(40):
            scores, grad = gradient(source, edits[i], x)
            if not torch.equal(scores, alone[i][0]) or not torch.allclose(grad, alone[i][1]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_bare_module_is_untouched_by_bound_programs_and_errors():
    source = tiny_source()
    x = torch.rand(2, 3, 16, 16)
    normal = (x - 0.5) / 0.25
    before = source.module(normal)
    source.attach(["hidden.0"])

    class Broken(Edit):
        site, operators = "hidden.0", frozenset()

        def forward(self, value: torch.Tensor) -> torch.Tensor:
            msg = "no"
            raise ValueError(msg)

    with pytest.raises(ValueError, match="no"):
        source(x, Input(Broken()))
    assert torch.equal(source.module(normal), before)
    with source.editing(Input(Shift("hidden.0"))):
        assert not torch.equal(source.module(normal), before)
    assert torch.equal(source.module(normal), before)


def test_hooks_stay_out_of_functional_transforms():
    """torch.func needs no rebinding, and must not meet a tensor hook."""
    source = tiny_source()
    edit = Shift("hidden.0")
    source.attach(["hidden.0"])
    x = torch.rand(2, 3, 16, 16)

    def scores(shift: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(Call(source, Input(edit)), {"input.edits.0.shift": shift}, (x,)).sum()

    class Call(nn.Module):
        def __init__(self, source, input) -> None:
            super().__init__()
            self.input, self.source = input, (source,)

        def forward(self, x):
            return self.source[0](x, self.input).logits

    got = torch.func.grad(scores)(edit.shift.detach())
    expected = torch.autograd.grad(source(x, Input(edit)).logits.sum(), edit.shift)[0]
    torch.testing.assert_close(got, expected)
