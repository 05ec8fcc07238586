"""CIFAR-10 ResNets from a file: what is read, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reprogram.core.errors import SourceError
from reprogram.core.program import Input
from reprogram.sources import load_source, source_refs
from reprogram.sources.cifar_resnet import LABELS, ResNet

DATA = Path(__file__).parents[3] / "shared" / "data"
REAL = DATA / "resnet_cifar10" / "resnet20.safetensors"


@pytest.fixture
def state():
    torch.manual_seed(0)
    return {k: v for k, v in ResNet(1).state_dict().items() if not k.endswith("num_batches_tracked")}


@pytest.fixture
def refuse(tmp_path):
    def check(content, *words):
        path = tmp_path / "net.safetensors"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            save_file(content, path)
        with pytest.raises(SourceError) as problem:
            load_source(f"cifar-resnet/{path}")
        for word in words:
            assert word in str(problem.value)

    return check


def test_a_file_becomes_a_source(tmp_path, state):
    path = tmp_path / "net.safetensors"
    save_file(state, path)
    source = load_source(f"cifar-resnet/{path}")
    assert source.spec.labels == LABELS
    assert (source.spec.outputs, source.spec.input_shape, source.spec.depth) == (10, (3, 32, 32), 3)
    assert source.spec.accuracy is None  # nobody published one of an 8-layer network
    assert load_source(source.spec.ref).fingerprint() == source.fingerprint()
    net = ResNet(1).eval()
    net.load_state_dict(state)
    x = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    want = net((x - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    torch.testing.assert_close(source(x, Input()).scores, want, rtol=1e-4, atol=1e-5)


def test_batch_counters_may_be_in_the_file(tmp_path, state):
    path = tmp_path / "net.safetensors"
    save_file({**state, "bn1.num_batches_tracked": torch.tensor(3)}, path)
    assert load_source(f"cifar-resnet/{path}").spec.outputs == 10


def test_other_content_is_refused(refuse, state):
    refuse({k: v for k, v in state.items() if k != "layer2.0.bn1.weight"}, "1 missing", "layer2.0.bn1.weight")
    refuse({**state, "layer9.weight": torch.zeros(1)}, "1 unknown")
    refuse({**state, "conv1.weight": torch.zeros(16, 3, 5, 5)}, "conv1.weight", "[16, 3, 3, 3]")
    refuse({**state, "conv1.weight": state["conv1.weight"].half()}, "F32")
    refuse({**state, "linear.bias": torch.full((10,), float("nan"))}, "linear.bias", "finite")
    refuse({**state, "bn1.running_var": -torch.ones(16)}, "bn1.running_var")
    refuse({"a": torch.zeros(1)}, "blocks a stage")


def test_forged_files_are_refused(refuse, state, tmp_path):
    refuse(None)  # there is no such file
    refuse(b"", "safetensors")
    refuse((1 << 40).to_bytes(8, "little") + b"{}", "header")
    refuse((2 << 20).to_bytes(8, "little") + b" " * (2 << 20), "header")
    refuse((4).to_bytes(8, "little") + b"[[[[", "safetensors")
    refuse((2).to_bytes(8, "little") + b"[]", "object")
    deep = b"[" * 100_000
    refuse(len(deep).to_bytes(8, "little") + deep, "safetensors")
    save_file(state, tmp_path / "good")
    whole = (tmp_path / "good").read_bytes()
    refuse(whole[:-4], "undamaged")
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    header["conv1.weight"] = 7
    text = json.dumps(header).encode()
    refuse(len(text).to_bytes(8, "little") + text + whole[8 + length :], "conv1.weight")
    many = {f"layer1.{i}.conv1.weight": header["bn1.bias"] for i in range(5000)}
    text = json.dumps(many).encode()
    refuse(len(text).to_bytes(8, "little") + text, "blocks a stage")


def test_folders_and_huge_files_are_refused(tmp_path):
    with pytest.raises(SourceError, match="ordinary file"):
        load_source(f"cifar-resnet/{tmp_path}")
    huge = tmp_path / "huge.safetensors"
    with huge.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(SourceError, match="at most"):
        load_source(f"cifar-resnet/{huge}")


def test_options_and_the_list_of_references(tmp_path):
    with pytest.raises(SourceError, match="options"):
        load_source(f"cifar-resnet/{tmp_path}", pretrained=False)
    assert "cifar-resnet/<path>" in source_refs()


@pytest.mark.skipif(not REAL.exists(), reason="needs ../shared/data, which is not here")
def test_the_published_weights_know_cifar10():
    from reprogram.tasks import load_task

    source = load_source(f"cifar-resnet/{REAL}")
    assert source.spec.accuracy == pytest.approx(1 - 0.0827)
    assert source.spec.depth == 9
    task = load_task(DATA / "cifar10_small.zip").limit(test=200, seed=0)
    assert task.classes == LABELS
    x = task.test.fetch(torch.arange(200))
    with torch.no_grad():
        scores = source(x, Input()).logits
    assert float((scores.argmax(1) == task.test.labels).float().mean()) > 0.7
    assert len(load_file(REAL)) == 97
