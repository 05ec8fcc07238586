"""vp_spsa, blackvip and bar: published sizes, codes that are made once, and black boxes that stay black."""

import pytest
import torch
import torch.nn.functional as F

import reprogram as rp
from reprogram.catalogue import find
from reprogram.core.errors import CapabilityError, ConfigError
from reprogram.core.program import Input, Program
from reprogram.core.source import Reading, SourceOutput
from reprogram.fit import FitOptions, evaluate
from reprogram.inputs import Components, Coordinator, Place, PromptDecoder, Remembered
from reprogram.inputs.codes import BLOCK
from reprogram.outputs import FirstClasses
from reprogram.testing import check_method, tiny_source, tiny_task

QUIET = FitOptions(progress=False)


def encoder(asked=None):
    """A frozen encoder of width 16, and what it was asked."""
    source, reading = tiny_source(seed=9), Reading(features=True)
    source.attach([], reading)

    def encode(x):
        if asked is not None:
            asked.append(len(x))
        return source(x, Input(), reading).features

    return encode


# -- the coordinator ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "trigger", "total"), [(768, 800, 9920), (2048, 1088, 10464)])
def test_published_sizes(code, trigger, total):
    made = PromptDecoder(code)
    assert (made.trigger.numel(), made.first, made.side) == (trigger, (code + trigger) // 49, 7)
    assert sum(p.numel() for p in made.parameters()) == total
    assert made(torch.zeros(2, code)).shape == (2, 3, 224, 224)
    start = made.trigger.detach()
    assert float(start.min()) >= 0 and float(start.max()) <= 0.1


@pytest.mark.parametrize("canvas", [8, 16, 30, 64, 96, 100, 128, 224, 384])
@pytest.mark.parametrize("code", [5, 1280])
def test_every_canvas_and_width_works(canvas, code):
    made = PromptDecoder(code, canvas).eval()
    assert made(torch.zeros(1, code)).shape == (1, 3, canvas, canvas)
    assert made.side <= 8 and made.first * made.side**2 > code


def test_the_pattern_is_added_after_normalisation_and_clipped_to_the_pixels_range():
    """``clip(x_norm + eps g)`` in normalised units is what the coordinator does on pixels."""
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(-1, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(-1, 1, 1)
    made = Coordinator(encoder(), 16, 16, deviation=(0.2, 0.3, 0.4), epsilon=0.7).eval()
    torch.nn.init.normal_(made.decoder.body[-1].weight, std=5.0)
    x = torch.rand(4, 3, 16, 16)
    normal = (x - mean) / std + 0.7 * made.prompt(x)
    low, high = (0 - mean) / std, (1 - mean) / std
    published = torch.minimum(torch.maximum(normal, low), high)
    torch.testing.assert_close((made(x) - mean) / std, published, atol=1e-5, rtol=1e-5)
    assert bool((made(x) == 1).any()) and bool((made(x) == 0).any())


def test_the_encoder_is_frozen_and_not_a_part():
    made = Coordinator(encoder(), 16, 16)
    assert all(name.startswith("decoder.") for name, _ in made.named_parameters())
    made(torch.rand(4, 3, 16, 16)).sum().backward()
    assert made.decoder.trigger.grad is not None and not made._codes(torch.rand(1, 3, 16, 16)).requires_grad


def test_effective_numbers_leave_out_biases_that_batch_norm_takes_away():
    made = PromptDecoder(768)
    edit = Coordinator(encoder(), 16, 16)
    assert edit.effective() == sum(p.numel() for p in edit.parameters())  # one layer, no bias
    large = Coordinator(encoder(), 768, 224)
    assert large.effective() == 9920 - (64 + 64 + 32 + 32)
    codes = torch.rand(3, 768)
    before = made(codes)
    with torch.no_grad():
        made.body[0].bias += 1.0
    torch.testing.assert_close(made(codes), before, atol=1e-4, rtol=1e-4)


# -- codes ----------------------------------------------------------------------------------------------------------


def test_each_picture_is_encoded_once():
    asked = []
    codes, x = Remembered(encoder(asked)), torch.rand(20, 3, 16, 16)
    first = codes(x)
    assert sum(asked) == 2 * BLOCK
    for _ in range(9):
        assert torch.equal(codes(x), first)
    shuffled = torch.randperm(20)
    assert torch.equal(codes(x[shuffled]), first[shuffled])
    assert sum(asked) == 2 * BLOCK
    codes(torch.cat([x, torch.rand(1, 3, 16, 16)]))
    assert sum(asked) == 3 * BLOCK
    torch.testing.assert_close(first, encoder()(x))


def test_a_picture_that_changed_in_place_is_a_new_one():
    codes, x = Remembered(encoder()), torch.rand(2, 3, 16, 16)
    before = codes(x).clone()
    x[0] = 0
    after = codes(x)
    assert not torch.equal(after[0], before[0]) and torch.equal(after[1], before[1])


def test_a_code_does_not_depend_on_what_else_is_asked():
    x = torch.rand(21, 3, 16, 16)
    together, alone = Remembered(encoder())(x), Remembered(encoder())
    assert torch.equal(torch.cat([alone(row.unsqueeze(0)) for row in x]), together)


def test_memory_is_bounded_and_can_be_switched_off():
    asked = []
    codes = Remembered(encoder(asked), limit=4 * 16 * 4)  # four codes
    codes(torch.rand(10, 3, 16, 16))
    assert len(codes._rows) == 4
    off, x = Remembered(encoder(asked), limit=0), torch.rand(2, 3, 16, 16)
    asked.clear()
    off(x)
    off(x)
    assert asked == [BLOCK, BLOCK] and not off._rows


def test_codes_made_while_predicting_can_be_learned_from():
    """Tensors of inference mode may not be saved for a backward pass."""
    program = Program([Place(16, 16), Coordinator(encoder(), 16, 16)], tiny_source(), FirstClasses(12, 3))
    x = torch.rand(4, 3, 16, 16)
    program.predict(x)
    program.train()(x).sum().backward()


def test_components_are_the_principal_ones():
    x = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x[:, 0] *= torch.linspace(0, 3, 40).view(-1, 1, 1)
    made = Components(6).train()
    codes = made(x)
    flat = x.flatten(1).double()
    values, vectors = torch.linalg.eigh(torch.cov(flat.T))
    best = vectors[:, -6:].flip(1)
    slow = ((flat - flat.mean(0)) @ best) / values[-6:].flip(0).sqrt()
    torch.testing.assert_close(codes.abs(), slow.abs().float(), atol=1e-3, rtol=1e-3)
    other = torch.rand(8, 3, 16, 16)
    assert torch.equal(made(other), made.eval()(other))  # the first batch decides
    few = Components(6).train()
    assert bool((few(x[:3])[:, 2:] == 0).all())


# -- the methods ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [("vp_spsa", {"width": 3}), ("bar", {"inner": 8}), ("blackvip", {"se": True, "components": 5}),
     ("vp_spsa", {"width": 3, "optimizer": "cma_es", "mapping": "blm"}),
     ("blackvip", {"se": True, "components": 5, "start": "zero"})],
)  # fmt: skip
def test_they_fit_a_black_box_of_any_kind(name, settings):
    task = tiny_task()
    for gives in ("logits", "probabilities", "top-k", "label"):
        box = rp.query_only(tiny_source(), gives)
        program = rp.build(name, box, task, epochs=1, batch_size=8, **settings)
        result = rp.fit(program, task, options=QUIET)
        assert result.queries is not None
        assert result.test is not None and bool(result.test.scores.isfinite().all())


def test_contract_on_settings_of_their_own():
    check_method(find("blackvip"), se=True, components=5)
    check_method(find("vp_spsa"), width=3, optimizer="cma_es")


def test_frames_start_as_no_change_and_pixels_stay_pixels():
    program = rp.build("vp_spsa", tiny_source(), tiny_task(), width=3)
    x = tiny_task().test.fetch(torch.arange(4)).float() / 255
    assert torch.equal(program.input(x), program.input.edits[0](x))
    with torch.no_grad():
        program.input.edits[1].values.fill_(3.0)
    assert float(program.input(x).detach().max()) == 1.0
    quiet = rp.build("blackvip", tiny_source(), tiny_task(), se=True, components=5, start="zero")
    torch.testing.assert_close(quiet.input(x), quiet.input.edits[0](x))


def test_bar_has_the_published_frame_and_judges_by_focal_loss():
    program = rp.build("bar", tiny_source(), tiny_task(size=14), canvas=16)
    place, border = program.input.edits
    assert (place.inner, border.squash) == (14, "sigmoid") and border.values.std() > 0.5
    grey = rp.build("bar", tiny_source(), tiny_task(size=14), canvas=16, start="zeros").input.edits[1]
    assert set(grey.pattern().unique().tolist()) == {0.0, 0.5}
    assert program.output.per_class == 4 and program.output.gamma == 2.0
    scores, y = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    q = scores.double().softmax(1)[torch.arange(5), y]
    torch.testing.assert_close(
        program.output.loss(SourceOutput(scores), scores, y), (-0.8 * (1 - q) ** 2 * q.log()).mean()
    )
    large = find("bar").config()
    assert (large.recipe.lr, large.recipe.end_lr, large.recipe.search.radius, large.recipe.search.draws) == (
        5,
        0.05,
        0.01,
        5,
    )


def test_blackvips_recipe_is_the_papers():
    recipe = find("blackvip").config().recipe
    search = recipe.search
    assert (search.offset, search.radius, recipe.lr, search.decay, search.radius_decay) == (1.0, 0.01, 0.01, 0.4, 0.1)
    assert (recipe.momentum, search.draws, recipe.epochs, recipe.batch_size) == (0.9, 5, 5000, 128)


def test_the_encoder_must_be_a_source_here_that_gives_features():
    for ref, error in (("endpoint/http://127.0.0.1:1", ConfigError), ("bundled/minilm-l6", CapabilityError)):
        with pytest.raises(error):
            rp.build("blackvip", tiny_source(), tiny_task(), encoder=ref)


def test_the_prompt_reaches_the_mapping_statistics():
    """A map made from unprompted outputs would not see the border."""
    task = tiny_task()
    program = rp.build("bar", tiny_source(), task, inner=6, epochs=1, batch_size=64, refresh="once",
                       **{"recipe.search": {"draws": 1}})  # fmt: skip
    with torch.no_grad():
        program.input.edits[1].values.fill_(4.0)
    chances = []
    original = type(program.output).observe
    seen = lambda self, out, y: (chances.append(out.logits), original(self, out, y))[1]  # noqa: E731
    type(program.output).observe = seen
    try:
        rp.fit(program, task, options=QUIET)
    finally:
        type(program.output).observe = original
    x = task.train.fetch(torch.arange(len(chances[0])))
    with torch.no_grad():
        shown = program.source(F.pad(x.float() / 255, (0, 0, 0, 0)) if x.shape[-1] == 16 else
                               program.input.edits[0](x.float() / 255), Input()).logits  # fmt: skip
    assert not torch.allclose(chances[0], shown, atol=1e-2)


def test_scores_are_the_same_cached_or_not():
    task, source = tiny_task(), tiny_source()
    programs = []
    for limit in (0, 1 << 20):
        torch.manual_seed(0)
        edits = [Place(16, 16), Coordinator(encoder(), 16, 16, remember=limit)]
        programs.append(Program(edits, source, FirstClasses(12, 3)))
    one, two = (evaluate(p, task.test).scores for p in programs)
    assert torch.equal(one, two)
