"""EVP explicit: the high-pass, the published sizes, maps as well as tokens, and a class for every pixel."""

import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import CheckpointError

import reprogram as rp
from reprogram.core.errors import CapabilityError, ConfigError
from reprogram.core.program import PerPixel
from reprogram.core.source import SourceOutput
from reprogram.fit import FitOptions, evaluate, fit
from reprogram.inputs import Block, ExplicitPrompt, HighFrequency, high_frequencies, look_at_blocks
from reprogram.outputs import Frame, PixelDecoder, ReadMap
from reprogram.outputs.pixel_decoder import soft_iou_loss
from reprogram.sources.module import wrap
from reprogram.tasks import Task
from reprogram.testing import tiny_source, tiny_task
from tests.methods.text_tasks import vision_transformer

WIDTHS, DEPTHS, GRIDS = (64, 128, 320, 512), (3, 8, 27, 3), (88, 44, 22, 11)
"""The mix transformer B4 that was published with, at 352 pixels."""


def squares(n=24, size=16):
    """A bright square on noise: its pixels are class 1, a border around it does not count."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, 3, size, size, generator=generator) * 0.5
    y = torch.zeros(n, size, size, dtype=torch.int64)
    for i in range(n):
        top, left = (int(v) for v in torch.randint(1, size - 7, (2,), generator=generator))
        y[i, top - 1 : top + 7, left - 1 : left + 7] = -100
        y[i, top : top + 6, left : left + 6] = 1
        x[i, :, top : top + 6, left : left + 6] += 0.5
    return Task.from_arrays(x, y, classes=("ground", "square"), name="squares")


def plain_high_pass(x, share):
    """With numpy, picture by picture and channel by channel."""
    out = np.empty_like(x)
    for i, picture in enumerate(x):
        for c, plane in enumerate(picture):
            height, width = plane.shape
            line = int((height * width * share) ** 0.5 // 2)
            spectrum = np.fft.fftshift(np.fft.fft2(plane, norm="forward"))
            top, left = max(0, height // 2 - line), max(0, width // 2 - line)
            spectrum[top : height // 2 + line, left : width // 2 + line] = 0
            out[i, c] = np.abs(np.fft.ifft2(np.fft.ifftshift(spectrum), norm="forward").real)
    return out


@pytest.mark.parametrize("size", [(16, 16), (15, 22), (32, 8)])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.6])
def test_the_high_pass_is_the_plain_one(size, share):
    x = np.random.default_rng(0).random((2, 3, *size), dtype=np.float32)
    found = high_frequencies(torch.from_numpy(x), share).numpy()
    assert np.allclose(found, plain_high_pass(x, share), atol=1e-5)


def test_half_the_side_of_what_goes_is_as_published():
    delta = torch.zeros(1, 1, 16, 16)
    delta[0, 0, 0, 0] = 1.0  # a flat spectrum: what is left of it can be counted
    for share, half in ((0.25, 4), (0.26, 4), (0.4, 5), (0.05, 1)):
        energy = high_frequencies(delta, share)[0, 0, 0, 0] * 256
        assert round(float(energy)) == 256 - (2 * half) ** 2


def numbers(modules):
    return sum(p.numel() for m in modules for p in m.parameters())


def published():
    """All edits for the mix transformer B4, without it."""
    blocks = [
        Block(f"hidden.{sum(DEPTHS[:i]) + j}", d, (g, g), 0, False)
        for i, (d, g, n) in enumerate(zip(WIDTHS, GRIDS, DEPTHS, strict=True)) for j in range(n)
    ]  # fmt: skip
    firsts = [blocks[sum(DEPTHS[:i])] for i in range(4)]
    picture = HighFrequency(firsts, 352)
    stages = [i for i, n in enumerate(DEPTHS) for _ in range(n)]
    prompts = [
        ExplicitPrompt(picture, b, i, first=b in firsts, last=False) for b, i in zip(blocks, stages, strict=True)
    ]
    return picture, prompts


def test_adaptors_and_decoder_have_the_published_share():
    picture, prompts = published()
    adaptors = numbers([picture, *prompts])
    frame = Frame(352, (352, 352), (352, 352))
    maps = [ReadMap(f"stage{i}", d, (8, 8)) for i, d in enumerate(WIDTHS)]
    decoder = numbers([PixelDecoder(maps, 1, frame=frame)])
    norms = sum(2 * d // 4 for d in WIDTHS)
    assert decoder == 3_151_105  # SegFormer-B4's, 3.15 M in the paper's table
    assert adaptors == 549_968 + norms
    assert round((adaptors + decoder) / 1e6, 2) == 3.70  # the paper's count
    assert (adaptors + decoder) / (64.1e6 + adaptors) == pytest.approx(0.057, abs=0.0005)  # 5.7 % of 64.1 M


def test_prompts_follow_the_formula_block_by_block():
    torch.manual_seed(0)
    source = tiny_source()
    program = rp.build("evp_explicit", source, squares(), decoder=8)
    picture, *prompts = list(program.input)[1:]
    for module in (picture, *prompts):
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.5)
    x, value = torch.rand(2, 3, 16, 16), torch.randn(2, 16, 8, 8)
    assert torch.equal(picture(x), x)
    base = picture.norms[0](picture.patches[0](high_frequencies(x)).movedim(1, -1))
    base = base + picture.stages[0].embedding(value.movedim(1, -1))
    later = torch.randn(2, 16, 8, 8)
    for prompt, seen in zip(prompts, (value, later), strict=True):
        added = picture.stages[0].up(nn.functional.gelu(prompt.linear(base))).movedim(-1, 1)
        assert torch.allclose(prompt(seen), seen + added, atol=1e-5)


def test_the_source_is_looked_at_block_by_block():
    (reads, gives), _ = look_at_blocks(tiny_source(), 16)
    assert (reads.site, reads.width, reads.grid, reads.is_map) == ("hidden.0", 16, (8, 8), True)
    assert gives.site == "blocks.0"
    (reads, _), *_ = look_at_blocks(vision_transformer(), 16)
    assert (reads.width, reads.grid, reads.extra, reads.is_map) == (32, (4, 4), 1, False)
    with pytest.raises(CapabilityError, match="blocks at hidden"):
        look_at_blocks(wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), input_shape=(3, 2, 2)), 2)


def test_a_class_token_gets_no_prompt():
    program = rp.build("evp_explicit", vision_transformer(), squares(), decoder=8)
    picture, *prompts = list(program.input)[1:]
    for parameter in (p for m in (picture, *prompts) for p in m.parameters()):
        nn.init.normal_(parameter)
    value = torch.randn(2, 17, 32)
    picture(torch.rand(2, 3, 16, 16))
    changed = prompts[0](value) - value
    assert float(changed[:, 0].detach().abs().max()) == 0.0
    assert bool((changed[:, 1:].detach().abs().sum(-1) > 0).all())


def segformer():
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        depths=[2, 1], num_encoder_blocks=2, hidden_sizes=[8, 16], num_attention_heads=[1, 2], sr_ratios=[2, 1],
        patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2], num_labels=5, decoder_hidden_size=8,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.SegformerForImageClassification(config)


def test_a_segformer_has_its_stages_found():
    model = segformer()
    silent = [p for p, m in model.named_modules() if isinstance(m, nn.ModuleList)][:1]
    with pytest.raises(CapabilityError, match="run each of its blocks"):  # a list of modules is never called itself
        look_at_blocks(rp.wrap(segformer(), input_shape=(3, 32, 32), sites=silent), 32)
    lists = [p for p, m in model.named_modules() if type(m).__name__ == "SegformerLayer"]
    source = rp.wrap(model, input_shape=(3, 32, 32), sites=lists)
    found = look_at_blocks(source, 32)
    assert [(r.width, r.grid, r.extra) for r, _ in found] == [(8, (8, 8), 0), (8, (8, 8), 0), (16, (4, 4), 0)]
    task = squares(size=32)
    program = rp.build("evp_explicit", source, task, decoder=8)
    assert [tuple(c.kernel_size) for c in list(program.input)[1].patches] == [(7, 7), (3, 3)]
    assert [tuple(c.stride) for c in list(program.input)[1].patches] == [(4, 4), (2, 2)]
    assert [m.grid for m in program.output.maps] == [(8, 8), (4, 4)]
    assert program(task.test.fetch(torch.arange(2))).shape == (2, 2, 32, 32)


@pytest.mark.parametrize("make", [tiny_source, vision_transformer])
def test_it_learns_a_class_for_every_pixel(make, tmp_path):
    task, source = squares(), make()
    program = rp.build("evp_explicit", source, task, decoder=16, lr=0.02, epochs=12, batch_size=6, seed=0)
    before = evaluate(program, task.test)
    result = fit(program, task, options=FitOptions(progress=False), out=tmp_path / "p.safetensors")
    assert result.test.mean_iou > max(0.5, before.mean_iou)
    assert result.test.scores.shape == (len(task.test), 2)
    assert "mean_iou" in result.test.brief()
    said = program.predict(task.test.fetch(torch.arange(3)))
    assert said.indices.shape == (3, 16, 16)
    assert said.probabilities.sum(1).allclose(torch.ones(3, 16, 16))
    assert said.confidence.shape == (3,)
    again = rp.load(tmp_path / "p.safetensors", source)
    assert again.output.dense
    assert torch.equal(again.predict(task.test.fetch(torch.arange(3))).scores, said.scores)


def test_every_part_learns_and_the_control_is_the_decoder_alone():
    task = squares()
    x, y = task.train.fetch(torch.arange(4)), task.train.labels[:4]
    for use, kinds in (("both", 4), ("frequencies", 3), ("embeddings", 2), ("none", 0)):
        program = rp.build("evp_explicit", tiny_source(), task, decoder=8, use=use).train()
        nn.functional.cross_entropy(program(x), y).backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in program.parameters()), use
        parts = {n.split(".")[3] for n, _ in program.named_parameters() if n.startswith("input.edits.1.")}
        assert len(parts) == {4: 3, 3: 3, 2: 1, 0: 0}[kinds], (use, parts)
    result = fit(program, task, options=FitOptions(progress=False))
    assert result.test.mean_iou is not None


def test_classes_of_pictures_are_means_over_pixels():
    task = tiny_task()
    program = rp.build("evp_explicit", tiny_source(), task, decoder=8)
    assert isinstance(program.output, PerPixel)
    assert not program.output.dense
    assert program(task.test.fetch(torch.arange(2))).shape == (2, 3)


def test_the_decoder_puts_the_map_where_the_picture_is():
    frame = Frame(8, (8, 4), (16, 8))
    scores = torch.zeros(1, 1, 8, 8)
    scores[..., 2:6] = 1.0  # (8 - 4 + 1) // 2 zeros before, as Place puts them
    assert frame.cut(scores).shape == (1, 1, 16, 8)
    assert float(frame.cut(scores).min()) == 1.0
    with pytest.raises(ConfigError, match="one map at least"):
        PixelDecoder([], 2, frame=frame)
    with pytest.raises(CapabilityError, match="decoder's sites"):
        PixelDecoder([ReadMap("hidden.0", 2, (2, 2))], 2, frame=frame)(SourceOutput(torch.zeros(1, 2)))


def test_the_soft_iou_is_the_iou_of_sure_scores():
    target = torch.tensor([0, 0, 1, 1, 1, 2])
    guess = torch.tensor([0, 1, 1, 1, 0, 2])
    scores = nn.functional.one_hot(guess, 4).float() * 60
    ious = [1 / 3, 2 / 4, 1.0]  # class 3 does not occur
    assert float(soft_iou_loss(scores, target)) == pytest.approx(1 - sum(ious) / 3, rel=1e-5)


def test_two_threads_do_not_see_each_others_pictures():
    source, task = tiny_source(), squares()
    program = rp.build("evp_explicit", source, task, decoder=8).eval()
    for parameter in program.input.parameters():
        nn.init.normal_(parameter, std=0.3)
    inputs = [torch.rand(2, 3, 16, 16) for _ in range(4)]
    with torch.no_grad():
        alone = [program(x) for x in inputs]
    found = [None] * 4

    def work(i):
        with torch.no_grad():
            for _ in range(5):
                found[i] = program(inputs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(alone, found, strict=True))


def test_blocks_that_are_run_again_in_the_backward_pass_are_refused():
    task = squares()
    program = rp.build("evp_explicit", tiny_source(checkpointed=True), task, decoder=8).train()
    loss = nn.functional.cross_entropy(program(task.train.fetch(torch.arange(2))), task.train.labels[:2])
    with pytest.raises((CapabilityError, CheckpointError)):
        loss.backward()


def test_settings_out_of_range_are_refused():
    for bad, message in (({"factor": 0}, "factor"), ({"share": 1.0}, "share"), ({"grids": 0}, "grids")):
        with pytest.raises(ConfigError, match=message):
            rp.build("evp_explicit", tiny_source(), squares(), decoder=8, **bad)
