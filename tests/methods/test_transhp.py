"""TransHP on a frozen transformer: prompts join and leave, coarse scores are theirs, the counts are published."""

import pytest
import torch
from torch import nn

import reprogram as rp
from reprogram.core.errors import CapabilityError, ConfigError
from reprogram.core.program import Input
from reprogram.core.source import Reading
from reprogram.fit import FitOptions, fit
from reprogram.inputs import JoiningTokens, LeavingTokens
from reprogram.methods.transhp import BALANCE
from reprogram.outputs import HierarchyHead, hierarchy_by_name, levels_of
from reprogram.outputs.hierarchy import Level
from reprogram.testing import tiny_language_model, tiny_source, tiny_task
from tests.methods.text_tasks import vision_transformer

SIZES = (2, 2, 2, 4, 9, 16, 25, 49, 90, 170, 406)
"""Of the released hierarchy of ImageNet above its 1,000 classes."""


def deep(layers=4):
    model, _ = tiny_language_model("vit", layers=layers)
    blocks = next(path for path, _ in model.named_modules() if path.endswith(("encoder.layer", "vit.layers")))
    return rp.wrap(model, input_shape=(3, 16, 16), sites=f"{blocks}.*", tokens=True, width=32)


def numbers(*modules):
    return sum(p.numel() for m in modules for p in m.parameters())


def test_the_released_configuration_has_its_603_648_numbers():
    width = 384
    levels = [Level(tuple(map(str, range(k))), (0, 1, *([k] * 998))) for k in SIZES]
    head = HierarchyHead(width, levels, [str(i) for i in range(11)], BALANCE)
    prompts = [JoiningTokens(torch.zeros(k + 1, width), site="hidden.0") for k in SIZES]
    assert numbers(*prompts) + numbers(head.read) == 2 * width * sum(k + 1 for k in SIZES) == 603_648


def test_levels_and_missing_ancestors():
    tree = {"cat": ("animal", "pet"), "dog": ("animal", "pet"), "wolf": ("animal", ""), "car": ("thing", "")}
    coarse, fine = levels_of(tree, ["car", "cat", "dog", "wolf", "sky"])
    assert coarse == Level(("thing", "animal"), (0, 1, 1, 1, 2))  # sky is background
    assert fine == Level(("pet",), (1, 0, 0, 1, 1))
    for bad, message in (
        ({"cow": ("a",)}, "cow"), ({"cat": ("a",), "dog": ("a", "b")}, "same number"), ({"cat": ("",)}, "level 1"),
        ({"cat": ()}, "same number"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            levels_of(bad, ["cat", "dog"])
    assert set(hierarchy_by_name(["a x", "b x"]).values()) == {("a x",), ("b x",)}  # one class of all says nothing


def two_levels(task):
    return {c: ("low" if i == 0 else "high", c) for i, c in enumerate(task.classes)}


def test_prompts_join_at_their_blocks_and_are_gone_after_them():
    source, task = deep(), tiny_task()
    program = rp.build("transhp", source, task, hierarchy=two_levels(task))
    joins = [e for e in program.input if isinstance(e, JoiningTokens)]
    leaves = [e for e in program.input if isinstance(e, LeavingTokens)]
    assert [(e.site, len(e.values)) for e in joins] == [("hidden.1", 3), ("hidden.2", 4)]
    assert [(e.site, e.n) for e in leaves] == [("hidden.2", 3), ("hidden.3", 4)]
    said = program.outputs(task.test.fetch(torch.arange(2)))
    assert [v.shape[1] for v in said.at.values()] == [17 + 3, 17 + 4]
    seen = []
    last = source.module.get_submodule(source.blocks[3])
    hook = last.register_forward_hook(lambda _, args, out: seen.append(args[0].shape[1]))
    program(task.test.fetch(torch.arange(2)))
    hook.remove()
    assert seen == [17]


def test_scores_are_those_of_a_plain_pass_with_the_tokens_put_in_by_hand():
    torch.manual_seed(0)
    source, task = deep(3), tiny_task()
    program = rp.build(
        "transhp", source, task, hierarchy={c: ("all" if i else "one",) for i, c in enumerate(task.classes)}
    )
    join = list(program.input)[1]
    with torch.no_grad():
        nn.init.normal_(join.values)
        x = next(iter(program.input))(task.test.fetch(torch.arange(2)).float() / 255)
        blocks = [source.module.get_submodule(p) for p in source.blocks]
        source.attach((), Reading(sites=("hidden.0",)))
        bare = source(x, Input(), Reading(sites=("hidden.0",)))
        h = bare.at["hidden.0"]
        run = lambda block, value: (o := block(value), o[0] if isinstance(o, tuple) else o)[1]  # noqa: E731
        h = run(blocks[0], h)
        h = run(blocks[1], torch.cat([h, join.values.expand(2, -1, -1)], 1))
        coarse = torch.stack([(h[:, 17 + k] * program.output.read[0][k]).sum(-1) for k in range(len(join.values))], 1)
        said = program.outputs(task.test.fetch(torch.arange(2)))
        assert torch.allclose(program.output.coarse(said, 0), coarse, atol=1e-5)
        features = source.module.vit.layernorm(run(blocks[2], h[:, :17]))[:, 0]
        assert torch.allclose(said.features, features, atol=1e-5)


def test_the_loss_adds_every_level_with_its_weight():
    source, task = deep(), tiny_task()
    program = rp.build("transhp", source, task, hierarchy=two_levels(task), weights=(0.3, 0.7))
    program.train()
    said = program.outputs(task.train.fetch(torch.arange(5)))
    target, own = task.train.labels[:5], program.output
    scores = own(said)
    parts = [nn.functional.cross_entropy(own.coarse(said, i), torch.tensor(level.parents)[target])
             for i, level in enumerate(own.levels)]  # fmt: skip
    expected = nn.functional.cross_entropy(scores, target) + 0.3 * parts[0] + 0.7 * parts[1]
    found = own.loss(said, scores, target)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    found.backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in own.read.parameters())
    assert all(bool(e.values.grad.abs().sum() > 0) for e in program.input if isinstance(e, JoiningTokens))


def test_it_learns_the_coarse_classes_too():
    source, task = deep(), tiny_task(per_class=24)
    program = rp.build("transhp", source, task, hierarchy=two_levels(task), epochs=20, batch_size=16, lr=0.2,
                       warmup_steps=0, seed=0)  # fmt: skip
    x, y = task.train.fetch(torch.arange(len(task.train))), task.train.labels
    parents = torch.tensor(program.output.levels[1].parents)[y]

    def right():
        with torch.no_grad():
            return float((program.output.coarse(program.outputs(x), 1).argmax(1) == parents).float().mean())

    before = right()
    fit(program, task, options=FitOptions(progress=False))
    assert right() > before + 0.15


def test_blocks_weights_and_sources_are_checked():
    task = tiny_task()
    for bad in ({"blocks": (3,)}, {"blocks": (-1,)}, {"blocks": (0, 1)}):
        with pytest.raises(ConfigError, match="blocks"):
            rp.build("transhp", deep(), task, **bad)
    with pytest.raises(ConfigError, match="weights"):
        rp.build("transhp", deep(), task, weights=(0.1, 0.2))
    with pytest.raises(ConfigError, match="blocks"):  # three levels need three blocks before the last of two
        rp.build("transhp", vision_transformer(), task, hierarchy={c: ("a", "b", "c") for c in task.classes})
    program = rp.build("transhp", tiny_source(), task)
    with pytest.raises((ConfigError, TypeError)):
        program(task.test.fetch(torch.arange(1)))
    with pytest.raises(CapabilityError, match="width"):
        rp.build("transhp", rp.wrap(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), input_shape=(3, 8, 8)), task)
