"""The backdoor and its defence: what is poisoned, that it takes, what is scored, what a run leaves behind."""

import pytest
import torch

from reprogram.core.errors import ConfigError, SourceError
from reprogram.experiments import Options, run
from reprogram.experiments.backdoor import NONE, PLAIN, QUICK, REFINED, STUDY, WHOLE, _Bench, cells, judge, scale
from reprogram.experiments.poison import Attack, Trigger, pixels_of, planted, poisoned
from reprogram.sources.cifar_resnet import ResNet
from reprogram.testing import tiny_task


def test_the_patch_is_stamped_where_it_should_be_and_nowhere_else():
    x = torch.rand(2, 3, 8, 8)
    stamped = Trigger(side=3).stamp(x)
    assert torch.equal(stamped[..., :5, :], x[..., :5, :])
    assert torch.equal(stamped[..., :, :5], x[..., :, :5])
    assert stamped[0, 0, 5:, 5:].tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    bytes_ = Trigger(side=2).stamp((x * 255).to(torch.uint8))
    assert bytes_[0, 0, 6:, 6:].tolist() == [[255, 0], [0, 255]]
    with pytest.raises(ConfigError, match="side"):
        Trigger(side=8).stamp(x)


def test_only_other_classes_are_poisoned_and_only_a_share_of_them():
    x, y = torch.rand(100, 3, 8, 8), torch.arange(100) % 4
    attack = Attack(trigger=Trigger(target=2), share=0.2, seed=1)
    changed, labels = poisoned(x, y, attack)
    rows = (changed != x).flatten(1).any(1)
    assert int(rows.sum()) == 15
    assert not bool((rows & (y == 2)).any())
    assert bool((labels[rows] == 2).all())
    assert torch.equal(labels[~rows], y[~rows])
    again, _ = poisoned(x, y, attack)
    assert torch.equal(again, changed)


def test_the_backdoor_takes_and_is_kept(tmp_path):
    task = tiny_task(per_class=60, size=12)
    attack = Attack(share=0.3, epochs=8, rate=0.05, batch=16)
    path, made = tmp_path / "net.safetensors", []

    def network():
        net = ResNet(1)
        net.linear = torch.nn.Linear(64, 3)
        made.append(net)
        return net

    pixels = pixels_of(task.train)
    net = planted(network, task.train, pixels, attack, path)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in pixels)
    x = task.test.fetch(torch.arange(len(task.test)))
    others = task.test.labels != 0
    with torch.no_grad():
        clean = net((x.float() / 255 - mean) / std).argmax(1)
        fooled = net((attack.trigger.stamp(x).float() / 255 - mean) / std).argmax(1)
    assert float((clean == task.test.labels).float().mean()) > 0.8
    assert float((fooled[others] == 0).float().mean()) > 0.8
    again = planted(network, task.train, pixels, attack, path)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in net.state_dict().items())
    with pytest.raises(SourceError, match="finite"):
        planted(network, task.train, pixels, Attack(rate=1e30, epochs=1), tmp_path / "bad.safetensors")
    assert not (tmp_path / "bad.safetensors").exists()


def row(defence, seed, accuracy, attack):
    return {"defence": defence, "seed": seed, "accuracy": accuracy, "attack": attack}


def test_verdicts_follow_the_rows():
    rows = [
        row(*r)
        for s in range(5)
        for r in ((NONE, s, 0.95, 0.99), (PLAIN, s, 0.94, 0.9 + s / 100), (REFINED, s, 0.93, 0.01 * s))
    ]
    assert [f.verdict for f in judge(rows)] == ["supported"] * 6
    harmless = [{**r, "attack": 0.02} for r in rows]
    takes, lowers, _, _, stays, more = judge(harmless)
    assert {takes.verdict, lowers.verdict, stays.verdict, more.verdict} == {"not supported"}
    dear = [{**r, "accuracy": 0.5} if r["defence"] == REFINED else r for r in rows]
    assert judge(dear)[3].verdict == "not supported"


def test_attacker_and_defender_share_no_picture_and_seeds_differ(tmp_path):
    bench = _Bench(Options(out=tmp_path, source_task="bundled/digits", quick=True))
    attacked, clean = bench._rows(0)
    assert not set(attacked.names) & set(clean.names)
    assert set(attacked.names) != set(bench._rows(1)[0].names)
    assert len(attacked) == QUICK.attacked


def test_cells_depend_on_all_that_was_asked(tmp_path):
    base = cells(Options(out=tmp_path))
    assert len(base) == 9
    assert base[0] != cells(Options(out=tmp_path, source_task="bundled/digits"))[0]
    assert base[0] != cells(Options(out=tmp_path, sources=("cifar-resnet/x.safetensors",)))[0]
    assert len(cells(Options(out=tmp_path, quick=True, seeds=5))) == 3
    assert scale(Options(out=tmp_path)) == WHOLE


def test_a_quick_run_leaves_a_note_and_a_page(tmp_path):
    options = Options(out=tmp_path, source_task="bundled/digits", quick=True)
    found, files = run("backdoor", options)
    assert [r["defence"] for r in found["rows"]] == [NONE, PLAIN, REFINED]
    for one in found["rows"]:
        low, high = one["attack_interval"]
        assert low <= one["attack"] <= high
        assert one["stamped"] < one["pictures"]
        assert one["attack"] + one["seen_through"] <= 1 + 1e-6
    assert found["rows"][0]["numbers"] == 0
    assert all(c["verdict"] == "cannot be told" for c in found["claims"])
    note = files["note"].read_text()
    assert "attack success" in note
    assert "A quick slice" in note
    if "page" in files:
        assert files["page"].stat().st_size > 10_000
    told = []
    again, _ = run("backdoor", options, told.append)
    assert again["rows"] == found["rows"]
    assert told == ["3 of 3 cells are there already."]


def test_sources_must_be_of_the_tasks_classes(tmp_path):
    with pytest.raises(ConfigError, match="no use for"):
        run("backdoor", Options(out=tmp_path, task="bundled/mnist5k"))
    assert STUDY.ready
    assert STUDY.takes == {"source_task"}
