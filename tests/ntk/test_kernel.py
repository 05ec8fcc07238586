"""The engine against one gradient at a time, for every kind of program and of layer."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import reprogram as rp
from reprogram.core.errors import CapabilityError, ConfigError, DataError
from reprogram.core.program import Edit, Program
from reprogram.core.source import SourceOutput
from reprogram.core.taxonomy import Operator
from reprogram.inputs import Additive, FullLinear, Patch, Place, frame_mask, full_mask
from reprogram.ntk import jacobian, program_kernel, source_kernel, source_kernel_of
from reprogram.ntk.memory import check_memory
from reprogram.outputs import FirstClasses, Identity, Linear
from reprogram.testing import tiny_source, tiny_task
from tests.ntk.oracle import Flat, deviation, learned, plain

METHODS = {
    "vp": {"width": 3},
    "ilm_vp": {},
    "blm": {},
    "smm": {"patch": 4},
    "fc": {},
    "linear_probe": {},
    "adversarial_reprogramming": {},
}


def built(method, source=None, n=5):
    source, task = source or tiny_source(), tiny_task()
    program = rp.build(method, source, task, **METHODS.get(method, {}))
    x, y = task.train.fetch(torch.arange(n)), task.train.labels[:n]
    if hasattr(program.output, "observe"):  # a label map of no counts has no slope
        with torch.no_grad():
            program.output.observe(source(x, program.input, program.output.reading), y)
        program.output.refresh()
    if isinstance(program.output, Linear):
        nn.init.normal_(program.output.weight)
    return program, x


@pytest.mark.parametrize("method", METHODS)
def test_program_kernel_is_the_plain_one(method):
    program, x = built(method)
    assert deviation(program_kernel(program, x), plain(program, x, learned(program))) < 2e-6


@pytest.mark.parametrize("method", ["vp", "blm", "smm", "linear_probe"])
def test_source_kernel_at_the_programs_inputs_is_the_plain_one(method):
    program, x = built(method)
    found = source_kernel_of(program, x)
    assert deviation(found.kernel, plain(program, x, list(program.source.module.parameters()))) < 2e-6
    assert found.rest == () and found.layerwise == found.parameters


@pytest.mark.parametrize("site", ["hidden.0", "hidden.1", "stem", "normalised"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_edits_inside_the_source(site, checkpointed):
    source, task = tiny_source(checkpointed=checkpointed), tiny_task()
    size, channels = (16, 3) if site == "normalised" else (8, 16)
    edit = Additive(full_mask(size), channels=channels, site=site, init="normal")
    program = Program([Place(16), edit], source, FirstClasses(12, 3))
    x = task.train.fetch(torch.arange(4))
    assert deviation(program_kernel(program, x), plain(program, x, learned(program))) < 2e-6
    parts = list(source.module.parameters())
    assert deviation(source_kernel_of(program, x).kernel, plain(program, x, parts)) < 2e-6


def test_edits_one_after_the_other_and_a_learned_output():
    """Gradients of the first edit go through the second, and I's kernel and O's add up."""
    source, task = tiny_source(), tiny_task()
    edits = [
        FullLinear((3, 8, 8), 16),
        Patch(16, 5, site="input"),
        Additive(frame_mask(16, 2), squash="sigmoid", init="normal", site="normalised"),
        Additive(full_mask(8), channels=16, squash="tanh", init="normal", site="hidden.1"),
    ]
    program = Program(edits, source, Linear(12, 3))
    nn.init.normal_(program.output.weight)
    x = task.train.fetch(torch.arange(4))
    whole = program_kernel(program, x)
    assert deviation(whole, plain(program, x, learned(program))) < 2e-6
    mine = plain(program, x, [p for e in edits for p in e.parameters()])
    theirs = plain(program, x, list(program.output.parameters()))
    assert deviation(whole, mine + theirs) < 2e-6


class Gain(Edit):
    """Not in the library: only autograd knows its derivative, and its branch on values cannot be vectorised."""

    site = "normalised"
    operators = frozenset({Operator.PARAMETRIC})

    def __init__(self, branch=False):
        super().__init__()
        self.gain, self.branch = nn.Parameter(torch.randn(3, 1, 1)), branch

    def forward(self, value):
        if self.branch and float(value.mean()) > 0:
            return value * self.gain.exp()
        return value * self.gain


@pytest.mark.parametrize("branch", [False, True])
def test_an_edit_of_ones_own(branch):
    program = Program([Place(16), Gain(branch)], tiny_source(), FirstClasses(12, 3))
    x = tiny_task().train.fetch(torch.arange(4))
    found = jacobian(program, x)
    assert found.routes == {"input.edits.1": "autograd"}
    assert deviation(program_kernel(program, x), plain(program, x, learned(program))) < 2e-6


# -- layers ------------------------------------------------------------------------------------------------------------


class OwnPadding(nn.Conv2d):
    """A convolution that pads by itself, as TensorFlow's ports do."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Standardised(nn.Conv2d):
    """Its weight is not used as it is, so no rule may cover it."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Twice(nn.Module):
    """One layer, called twice."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


class Tied(nn.Module):
    """One weight in two layers."""

    def __init__(self):
        super().__init__()
        self.there, self.back = nn.Linear(12, 12, bias=False), nn.Linear(12, 12)
        self.back.weight = self.there.weight

    def forward(self, x):
        return self.back(torch.tanh(self.there(x)))


class Attention(nn.Module):
    """Self-attention over the rows of a picture; its packed projection has no rule."""

    def __init__(self, batch_first):
        super().__init__()
        self.batch_first = batch_first
        self.attention = nn.MultiheadAttention(12, 2, batch_first=batch_first)
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 6)

    def forward(self, x):
        x = x.mean(1)
        x = x if self.batch_first else x.transpose(0, 1)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        return self.head(x).mean(1 if self.batch_first else 0)


class Windows(nn.Module):
    """Positions moved into the batch, sample by sample, as window attention does."""

    def __init__(self):
        super().__init__()
        self.inner, self.norm, self.head = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        b = len(x)
        windows = x.mean(1).reshape(b * 4, 6, 6)
        return self.head(F.gelu(self.norm(self.inner(windows))).reshape(b, -1, 8).mean(1))


class Bare(nn.Module):
    """Parameters without layers of their own."""

    def __init__(self):
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.randn(5, 432) / 20), nn.Parameter(torch.randn(5))

    def forward(self, x):
        return F.linear(x.flatten(1), self.weight) * self.scale


class Branches(nn.Module):
    """Outputs that do not all depend on all layers."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.unused = nn.Linear(432, 2), nn.Linear(432, 3), nn.Linear(3, 3)

    def forward(self, x):
        x = x.flatten(1)
        return torch.cat([self.a(x), self.b(x).tanh()], 1)


def pooled(*layers, width):
    return nn.Sequential(*layers, nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))


NETS = {
    "dense": lambda: Flat(nn.Linear(432, 20), nn.ReLU(inplace=True), nn.Linear(20, 5)),
    "dense, no bias": lambda: Flat(nn.Linear(432, 20, bias=False), nn.Tanh(), nn.Linear(20, 5, bias=False)),
    "convolutions": lambda: pooled(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(inplace=True), nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6), width=6
    ),
    "groups": lambda: pooled(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 8, 3, groups=2), width=8
    ),
    "dilation and same": lambda: pooled(
        nn.Conv2d(3, 6, 3, dilation=2), nn.Conv2d(6, 6, 3, dilation=3, padding="same"), width=6
    ),
    "circular": lambda: pooled(nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular"), width=6),
    "strided 1x1": lambda: pooled(nn.Conv2d(3, 6, 1, stride=2), nn.Conv2d(6, 6, (1, 3)), width=6),
    "own padding": lambda: pooled(OwnPadding(3, 6, 3, 2), nn.GroupNorm(2, 6), width=6),
    "standardised": lambda: pooled(Standardised(3, 6, 3), nn.BatchNorm2d(6, affine=False), width=6),
    "one dimension": lambda: nn.Sequential(
        nn.Flatten(2), nn.Conv1d(3, 6, 5, 2, 2), nn.BatchNorm1d(6), nn.Tanh(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(6, 5),
    ),
    "twice": lambda: Flat(nn.Linear(432, 12), Twice(nn.Linear(12, 12)), nn.Linear(12, 5)),
    "twice, positions": lambda: pooled(
        nn.Conv2d(3, 6, 1), Twice(nn.Conv2d(6, 6, 3, 1, 1)), Twice(nn.GroupNorm(1, 6)), width=6
    ),
    "tied": lambda: Flat(nn.Linear(432, 12), Tied(), nn.LayerNorm(12), nn.Linear(12, 5)),
    "attention": lambda: Attention(batch_first=True),
    "attention, time first": lambda: Attention(batch_first=False),
    "windows": Windows,
    "bare": Bare,
    "branches": Branches,
    "rms": lambda: Flat(nn.Linear(432, 12), nn.RMSNorm(12), nn.Linear(12, 5)),
    "transposed": lambda: pooled(nn.ConvTranspose2d(3, 4, 3), width=4),
}  # fmt: skip
BY_AUTOGRAD = {
    "standardised": {"0.weight", "0.bias"},
    "tied": {"layers.1.there.weight", "layers.1.back.bias"},
    "attention": {"attention.in_proj_weight", "attention.in_proj_bias", "attention.out_proj.weight",
                  "attention.out_proj.bias"},
    "bare": {"scale"},
    "transposed": {"0.weight", "0.bias"},
    "branches": {"unused.weight", "unused.bias"},
}  # fmt: skip


def wrapped(name, seed=0):
    torch.manual_seed(seed)
    net = NETS[name]()
    for part in net.modules():  # statistics and gains that are not 0 and 1
        if isinstance(part, nn.modules.batchnorm._NormBase):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
        if getattr(part, "weight", None) is not None and part.weight.ndim == 1:
            nn.init.uniform_(part.weight, 0.5, 2)
    return rp.wrap(net, input_shape=(3, 12, 12))


@pytest.mark.parametrize("name", NETS)
def test_every_layer(name):
    source = wrapped(name)
    x = torch.rand(4, 3, 12, 12)
    program = Program([], source, Identity(source.spec.outputs))
    found = source_kernel_of(program, x)
    assert deviation(found.kernel, plain(program, x, list(source.module.parameters()))) < 3e-6
    rest = set(found.rest)
    assert rest >= BY_AUTOGRAD.get(name, set())
    if name != "attention, time first":
        extra = {"attention.in_proj_weight"} if name.startswith("attention") else set()
        assert rest <= BY_AUTOGRAD.get(name, set()) | extra
    alone = source_kernel(source, x[:1])
    assert torch.allclose(alone[0, :, 0], found.kernel[0, :, 0], rtol=1e-4)
    assert not any(p.requires_grad or p.grad is not None for p in source.module.parameters())
    assert not any(m._forward_hooks for m in source.module.modules())


def test_tokens():
    """Embeddings: only tokens that occur, and not the padding."""

    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(9, 4, padding_idx=0), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.table(x.long()).tanh().mean(1))

    from reprogram.core.source import SourceSpec
    from reprogram.sources import ModuleSource

    torch.manual_seed(0)
    source = ModuleSource(Bag(), SourceSpec(ref="module:bag", modality="text", input_shape=(5,), outputs=3))
    x = torch.tensor([[1, 2, 2, 0, 8], [3, 1, 0, 0, 0], [8, 8, 8, 8, 8]])
    program = Program([], source, Identity(3))
    found = source_kernel_of(program, x)
    assert found.rest == ()
    assert deviation(found.kernel, plain(program, x, list(source.module.parameters()))) < 2e-6


@settings(max_examples=20, deadline=None)
@given(chunk=st.integers(1, 7), order=st.permutations(range(6)), seed=st.integers(0, 99))
def test_tiles_and_the_order_of_samples_do_not_matter(chunk, order, seed):
    source = wrapped("convolutions", seed)
    program = Program([Additive(frame_mask(12, 2), init="normal", site="normalised")], source, FirstClasses(5, 3))
    x = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    order = torch.tensor(order)
    for kernel in (program_kernel, lambda p, v, **k: source_kernel_of(p, v, **k).kernel):
        whole = kernel(program, x)
        again = kernel(program, x[order], chunk=chunk)
        assert torch.allclose(whole[order][:, :, order], again, rtol=2e-5, atol=1e-6 * float(whole.abs().max()))
        assert torch.equal(whole, whole.permute(2, 3, 0, 1))


def test_double_precision_and_single_agree():
    """In float64 the engine is the plain way to 1e-12, and float32 is that to 2e-6."""
    program = Program([Additive(full_mask(12), init="normal", site="normalised")], wrapped("convolutions"), Identity(5))
    x = torch.rand(4, 3, 12, 12)
    single = program_kernel(program, x)
    twin = rp.wrap(copy.deepcopy(program.source.module).double(), input_shape=(3, 12, 12))
    edit = Additive(full_mask(12), site="normalised").double()
    edit.values.data.copy_(program.input.edits[0].values.data)
    double = Program([edit], twin, Identity(5))
    exact = program_kernel(double, x.double())
    assert deviation(exact, plain(double, x.double(), learned(double))) < 1e-12
    assert deviation(single, exact.reshape(20, 20)) < 2e-6
    assert jacobian(double, x.double()).precision == torch.finfo(torch.float64).eps


# -- identities (ntk.md, section 8) ------------------------------------------------------------------------------------


def test_full_linear_is_a_hadamard_product():
    """K_fc = Gram(g) o (x x^T + 1), g the gradients at the canvas."""
    source, x = wrapped("convolutions"), torch.rand(5, 3, 6, 6)
    fc = Program([FullLinear((3, 6, 6), 12)], source, Identity(5))
    all_pixels = Program([Place(12), Additive(full_mask(12))], source, Identity(5))
    g = program_kernel(all_pixels, x)
    flat = x.flatten(1).double()
    assert torch.allclose(program_kernel(fc, x), g * (flat @ flat.T + 1).view(5, 1, 5, 1), rtol=1e-5)


def test_the_source_caps_the_program():
    """lambda_i(K_delta) <= s_max(W1)^2 lambda_i(K_theta) for every i, for a dense first layer with a bias."""
    torch.manual_seed(3)
    source = rp.wrap(Flat(nn.Linear(108, 16), nn.ReLU(), nn.Linear(16, 4)).double(), input_shape=(3, 6, 6))
    program = Program([Additive(full_mask(6)).double()], source, Identity(4))
    x = torch.rand(8, 3, 6, 6, dtype=torch.float64)
    of_program = torch.linalg.eigvalsh(program_kernel(program, x).reshape(32, 32))
    of_source = torch.linalg.eigvalsh(source_kernel(source, x).reshape(32, 32))
    steepest = torch.linalg.matrix_norm(source.module.layers[0].weight, 2) ** 2
    assert bool((of_program <= steepest * of_source + 1e-9).all())
    assert bool((of_program[-5:] > 0.001 * steepest * of_source[-5:]).all())  # the bound is not empty


def test_known_networks():
    """A linear model's kernel is x x^T + 1 on the diagonal of outputs; one hidden ReLU layer at known weights."""
    x = torch.rand(4, 3, 2, 2, dtype=torch.float64)
    flat = x.flatten(1)
    linear = rp.wrap(Flat(nn.Linear(12, 3)).double(), input_shape=(3, 2, 2))
    expected = torch.einsum("nm,ts->ntms", flat @ flat.T + 1, torch.eye(3, dtype=torch.float64))
    assert torch.allclose(source_kernel(linear, x), expected, rtol=1e-12)
    net = Flat(nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 1)).double()
    w1, b1, w2 = net.layers[0].weight, net.layers[0].bias, net.layers[2].weight
    h = flat @ w1.T + b1
    on = (h > 0).double() * w2
    expected = (h.relu() @ h.relu().T + 1) + (on @ on.T) * (flat @ flat.T + 1)
    found = source_kernel(rp.wrap(net, input_shape=(3, 2, 2)), x)
    assert torch.allclose(found[:, 0, :, 0], expected.detach(), rtol=1e-12)


def test_the_first_step_is_the_squared_gradient():
    """g^T K g = |d loss / d lambda|^2, from the Jacobian and from one backward pass."""
    program, x = built("smm")
    y = torch.tensor([0, 1, 2, 0, 1])
    found = jacobian(program, x)
    g = (found.scores.softmax(1) - F.one_hot(y, 3)) / 5
    grads = torch.autograd.grad(F.cross_entropy(program(x), y), learned(program))
    squared = sum(float(v.double().square().sum()) for v in grads)
    assert found.slope(g) == pytest.approx(squared, rel=1e-5)
    kernel = program_kernel(program, x)
    assert float(torch.einsum("nt,ntms,ms->", g.double(), kernel, g.double())) == pytest.approx(squared, rel=1e-5)
    for method in ("fc", "linear_probe"):
        other, x = built(method)
        found = jacobian(other, x)
        g = (found.scores.softmax(1) - F.one_hot(y, 3)) / 5
        grads = torch.autograd.grad(F.cross_entropy(other(x), y), learned(other))
        assert found.slope(g) == pytest.approx(sum(float(v.double().square().sum()) for v in grads), rel=1e-5)


def test_fewer_numbers_than_scores():
    """The dual and the primal have one spectrum; its rank is at most P."""
    program = Program([Place(16), Patch(16, 1)], tiny_source(), FirstClasses(12, 3))
    x = tiny_task().train.fetch(torch.arange(6))
    found = jacobian(program, x)
    dual = found.spectrum()
    primal = torch.linalg.eigvalsh(found.gram()).flip(0)
    assert dual.cap == 3 and dual.rank == 3 and dual.smallest is None
    assert torch.allclose(dual.eigenvalues[:3], primal[:3], rtol=1e-9)


# -- what must be refused ----------------------------------------------------------------------------------------------


def test_nothing_to_differentiate():
    program = rp.build("no_edit", tiny_source(), tiny_task(), mapping="first")
    with pytest.raises(CapabilityError, match="must learn something"):
        program_kernel(program, torch.rand(2, 3, 8, 8))


def test_batch_statistics_are_refused():
    net = pooled(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, track_running_stats=False), width=6)
    source = rp.wrap(net, input_shape=(3, 12, 12))
    with pytest.raises(CapabilityError, match="couple"):
        source_kernel(source, torch.rand(2, 3, 12, 12))
    good = wrapped("convolutions")
    good.module.train()
    with pytest.raises(CapabilityError, match="eval"):
        source_kernel(good, torch.rand(2, 3, 12, 12))


class Coupled(nn.Module):
    """Subtracts the mean of the batch by hand, which no look at the layers shows."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(432, 4)

    def forward(self, x):
        x = x.flatten(1)
        return self.head(x - x.mean(0)).tanh()


def test_coupled_samples_are_found_by_trying():
    source = rp.wrap(Coupled(), input_shape=(3, 12, 12))
    program = Program([Additive(full_mask(12), init="normal")], source, Identity(4))
    with pytest.raises(CapabilityError, match="one sample"):
        program_kernel(program, torch.rand(4, 3, 12, 12))


def test_numbers_that_are_not_finite():
    source = wrapped("dense")
    x = torch.rand(3, 3, 12, 12)
    x[1, 0, 0, 0] = float("nan")
    program = Program([Additive(full_mask(12))], source, Identity(5))
    with pytest.raises(DataError, match="finite"):
        program_kernel(program, x)


def test_empty_and_too_large():
    program, x = built("vp")
    with pytest.raises(DataError, match="at least one"):
        program_kernel(program, x[:0])
    with pytest.raises(ConfigError, match="sketch") as refused:
        check_memory(10_000, 10, 150_528, available=4 << 30)
    assert "n = " in str(refused.value)
    check_memory(100, 10, 150_528, available=4 << 30)


def test_a_source_without_gradients():
    source = tiny_source()
    program = Program([Place(16), Patch(16, 2)], source, FirstClasses(12, 3))
    source.capabilities = frozenset()
    with pytest.raises(CapabilityError, match="zeroth"):
        program_kernel(program, torch.rand(2, 3, 8, 8))


def test_half_precision_is_known():
    net = Flat(nn.Linear(432, 20), nn.ReLU(), nn.Linear(20, 5)).bfloat16()
    source = rp.wrap(net, input_shape=(3, 12, 12))
    program = Program([Additive(full_mask(12), init="normal")], source, Identity(5))
    found = jacobian(program, torch.rand(3, 3, 12, 12))
    assert found.precision == torch.finfo(torch.bfloat16).eps
    assert found.parts["input.edits.0"].rows.dtype == torch.float32


class Forked(nn.Module):
    """Some outputs do not depend on some of the convolutions; with either memory layout."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)
        self.left, self.right = nn.Conv2d(8, 2, 1, bias=False), nn.Conv2d(8, 3, 1, stride=2)

    def forward(self, x):
        x = torch.tanh(self.norm(self.stem(x)))
        return torch.cat([self.left(x).mean((2, 3)), self.right(x).tanh().mean((2, 3))], 1)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_pixel_convolutions_in_both_layouts(layout):
    torch.manual_seed(0)
    source = rp.wrap(Forked(), input_shape=(3, 12, 12))
    source.module.register_forward_pre_hook(lambda _, args: (args[0].contiguous(memory_format=layout),))
    x = torch.rand(7, 3, 12, 12)
    found = source_kernel_of(Program([], source, Identity(5)), x)
    program = Program([], source, Identity(5))
    assert found.rest == ()
    assert deviation(found.kernel, plain(program, x, list(source.module.parameters()))) < 2e-6


def test_a_label_mapping_over_few_source_classes_caps_the_rank():
    """Three targets read from two source classes are dependent: no kernel read through the map has full rank."""
    from reprogram.outputs import BayesianMap

    source, task = tiny_source(), tiny_task()
    output = BayesianMap(12, 3)
    scores = torch.zeros(6, 12)
    scores[torch.arange(6), torch.tensor([0, 1, 0, 1, 0, 1])] = 5.0
    output.observe(SourceOutput(scores), torch.tensor([0, 0, 1, 1, 2, 2]))
    output.refresh()
    program = Program([Place(16), Additive(full_mask(16), init="normal", site="normalised")], source, output)
    x = task.train.fetch(torch.arange(5))
    found = jacobian(program, x)
    rank = int(torch.linalg.matrix_rank(output.fold().double()))
    assert found.outputs == rank < 3
    assert found.cap == 5 * rank and found.spectrum().rank <= 5 * rank
    assert source_kernel_of(program, x).cap == 5 * rank


@pytest.mark.parametrize("method", ["vp", "fc", "linear_probe"])
def test_products_with_the_stored_jacobian(method):
    """K v without K, and the density of eigenvalues from such products."""
    from reprogram.ntk import density

    program, x = built(method)
    found = jacobian(program, x)
    kernel = found.gram()
    v = torch.randn(15, dtype=torch.float64)
    assert torch.allclose(found.product(v), kernel @ v, rtol=1e-9)
    mean = density(found.product, 15, probes=40, steps=15).expect(lambda t: t)
    assert abs(mean.value - float(kernel.diagonal().mean())) <= 5 * mean.error + 1e-9
