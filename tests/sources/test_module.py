"""Any module as a source."""

import pytest
import torch
from torch import nn

from reprogram.core.errors import CapabilityError, SourceError
from reprogram.core.program import Input, Program
from reprogram.core.source import Capability, Reading, Source
from reprogram.core.taxonomy import Location
from reprogram.outputs import Identity, Linear
from reprogram.sources import load_source, source_refs, wrap
from reprogram.testing import TinyNet, tiny_source
from tests.core.test_slot import Shift


def test_is_a_source():
    assert isinstance(tiny_source(), Source)


def test_sites_are_blocks_and_module_paths():
    sites = tiny_source().sites
    assert sites["input"] is sites["normalised"] is Location.INPUT
    assert sites["hidden.0"] is sites["hidden.1"] is sites["blocks.0.1"] is Location.HIDDEN
    assert "hidden.2" not in sites
    with pytest.raises(TypeError):
        sites["x"] = Location.INPUT  # type: ignore[index]


def test_hidden_site_is_the_blocks_input_and_path_its_output():
    source = tiny_source()
    x = torch.rand(2, 3, 16, 16)
    got = Program([Shift("blocks.0", value=0.2)], source, Identity())(x)
    net = source.module
    h = net.stem((x - 0.5) / 0.25)
    h = h + torch.tanh(net.blocks[0](h) + 0.2)
    h = h + net.blocks[1](h)
    torch.testing.assert_close(got, net.head(torch.relu(h).mean((2, 3))))
    got = Program([Shift("hidden.1", value=0.2)], source, Identity())(x)
    h = net.stem((x - 0.5) / 0.25)
    h = h + net.blocks[0](h)
    h = h + net.blocks[1](torch.tanh(h + 0.2))
    torch.testing.assert_close(got, net.head(torch.relu(h).mean((2, 3))))


def test_modules_that_return_tuples():
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = PairBlock()
            self.head = nn.Linear(3, 4)

        def forward(self, x):
            return (self.head(self.block(x)[0].mean((2, 3))), "more")

    class PairBlock(nn.Module):
        def forward(self, x):
            return x * 2, None

    source = wrap(Pair(), input_shape=(3, 4, 4), sites="block")
    x = torch.rand(2, 3, 4, 4)
    shifted = Program([Shift("block", 3)], source, Identity())(x)
    torch.testing.assert_close(shifted, source.module.head(torch.tanh(x * 2 + 0.3).mean((2, 3))))


def test_features_are_what_the_head_reads():
    source = tiny_source()
    source.attach([], Reading(features=True))
    out = source(torch.rand(3, 3, 16, 16), Input(), Reading(features=True))
    torch.testing.assert_close(source.module.head(out.features), out.scores)
    program = Program([], source, Linear(16, 2, features=True))
    assert program(torch.rand(3, 3, 16, 16)).shape == (3, 2)


def test_no_linear_head_no_features():
    net = nn.Sequential(nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    source = wrap(net, input_shape=(3, 8, 8))
    assert Capability.FEATURES not in source.capabilities
    with pytest.raises(CapabilityError, match="linear head"):
        Program([], source, Linear(5, 2, features=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (4, 16, 16)}, "input_shape.*must be a shape the module reads"),
        ({"input_shape": (3, 16, 16), "labels": ["a"]}, "labels.*must name the 12 outputs.*1 names"),
        ({"input_shape": (3, 16, 16), "sites": "layer*.*"}, r"sites.*must match module paths.*blocks"),
        ({"input_shape": (3, 16, 16), "preprocess": ((0.5, 0.5), (1, 1))}, "a mean and a std for 3 channels"),
    ],
)
def test_wrap_refuses(options, message):
    with pytest.raises(SourceError, match=message):
        wrap(TinyNet(), **options)


def test_wrap_refuses_what_is_no_classifier():
    with pytest.raises(SourceError, match=r"class scores \[B, S\]"):
        wrap(nn.Conv2d(3, 4, 1), input_shape=(3, 8, 8))


def test_randomised_twin_is_another_model_of_the_same_kind():
    source = tiny_source()
    Program([Shift("hidden.0")], source, Linear(16, 2, features=True))
    twin = source.randomised(3)
    assert twin.fingerprint() != source.fingerprint()
    assert twin.fingerprint() == source.randomised(3).fingerprint() != source.randomised(4).fingerprint()
    assert dict(twin.sites) == dict(source.sites)
    assert twin.module.blocks[0]._forward_pre_hooks == {}
    state = torch.get_rng_state()
    source.randomised(5)
    assert torch.equal(state, torch.get_rng_state())


def test_canvas_of_a_fixed_size_source():
    spec = tiny_source(resizable=False).spec
    assert spec.canvas() == spec.canvas(16) == 16
    with pytest.raises(CapabilityError, match="must be 16"):
        spec.canvas(32)


@pytest.mark.parametrize("ref", ["bundled/efficientnet-lite", "nonsense", "timm/", "timm/resnet18?x=1", ""])
def test_unknown_references_are_refused(ref):
    with pytest.raises(SourceError):
        load_source(ref)


def test_refs_are_listed():
    assert "bundled/efficientnet-lite0" in source_refs()


def test_efficientnet_lite0_is_real():
    source = load_source("bundled/efficientnet-lite0")
    assert source.spec.outputs == 1000
    assert source.spec.label(281) == "tabby"
    assert len(set(source.spec.labels)) == 1000
    assert source.spec.depth == 16
    assert source.sites["hidden.15"] is Location.HIDDEN
    assert next(source.module.parameters()).is_contiguous(memory_format=torch.channels_last)
    mean, std = source.spec.preprocessing.mean, source.spec.preprocessing.std
    assert (0 / 255 - mean[0]) / std[0] == pytest.approx((0 - 127) / 128)
    scores = source(torch.rand(1, 3, 64, 64), Input()).logits
    assert scores.shape == (1, 1000)
    assert bool(scores.isfinite().all())


def test_a_changed_weight_file_is_not_unpickled(tmp_path, monkeypatch):
    from reprogram.sources import bundled

    (tmp_path / "models").mkdir()
    (tmp_path / "models/efficientnet-lite0-57934424.pth").write_bytes(b"cos\nsystem\n(S'touch /tmp/pwned'\ntR.")
    monkeypatch.setattr(bundled, "package_folder", lambda *_: tmp_path)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(SourceError, match="SHA-256"):
        bundled.efficientnet_lite0()


@pytest.mark.filterwarnings("ignore")
def test_timm_through_its_own_data_config():
    source = load_source("timm/resnet10t?pretrained=false")
    assert source.spec.input_shape == (3, 176, 176)
    assert source.spec.outputs == 1000
    assert source.spec.depth == 4
    assert source.spec.resizable
    assert Capability.FEATURES in source.capabilities
    assert source(torch.rand(1, 3, 64, 64), Input()).logits.shape == (1, 1000)
    vit = load_source("timm/vit_tiny_patch16_224", pretrained=False)
    assert not vit.spec.resizable
    assert vit.spec.depth == 12
    assert vit.spec.preprocessing.mean == (0.5, 0.5, 0.5)


@pytest.mark.filterwarnings("ignore")
def test_timm_names_that_are_wrong_or_need_a_network():
    with pytest.raises(SourceError, match=r"timm knows.*resnet18"):
        load_source("timm/resnet188")
    with pytest.raises(SourceError, match=r"needs its weights from the model hub.*pretrained=False"):
        load_source("timm/resnet18")


def test_a_calibrated_twin_has_the_statistics_of_its_images():
    """Without them the twin of a deep network gives the same answer to everything."""
    source = tiny_source()
    images = torch.rand(32, 3, 16, 16)
    plain, twin = source.randomised(1), source.randomised(1, calibrate=images)
    assert all(torch.equal(a, b) for a, b in zip(plain.module.parameters(), twin.module.parameters(), strict=True))
    norm, before = twin.module.blocks[0][1], plain.module.blocks[0][1]
    assert bool((before.running_mean == 0).all()) and bool((before.running_var == 1).all())
    with torch.no_grad():
        inner = twin.module.blocks[0][0](twin.module.stem((images - 0.5) / 0.25))
    assert torch.allclose(norm.running_mean, inner.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, inner.var((0, 2, 3)), rtol=1e-4)
    assert norm.momentum == before.momentum and not norm.training
    assert twin.fingerprint() != plain.fingerprint() and twin.spec.accuracy is None


def test_half_precision_modules_are_given_what_they_read():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 4)).bfloat16()
    source = wrap(net, input_shape=(3, 4, 4), preprocess=((0.5,) * 3, (0.5,) * 3))
    assert source(torch.rand(2, 3, 4, 4), Input()).logits.dtype is torch.bfloat16
