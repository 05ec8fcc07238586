"""Sources trained on the spot: the same again, kept, and different where they must be."""

import pytest
import torch

from reprogram.core.errors import ArtifactError, ConfigError
from reprogram.core.program import Input
from reprogram.core.source import Capability
from reprogram.experiments.zoo import Design, Training, trained
from reprogram.tasks import load_task

SHORT = Training(images=300, test=200, epochs=2)


@pytest.fixture(scope="module")
def task():
    return load_task("bundled/digits")


def test_training_repeats_to_the_bit_and_learns(task, tmp_path):
    design = Design(family="mlp", depth=1, width=32)
    training = Training(images=1000, test=200, epochs=8, rate=5e-3)
    one, two = trained(design, task, training, tmp_path / "a"), trained(design, task, training, tmp_path / "b")
    assert one.fingerprint() == two.fingerprint()
    assert one.spec.accuracy > 0.8
    assert one.spec.ref == "zoo/mlp-1x32-seed0"
    assert one.spec.labels == task.classes
    assert Capability.FEATURES in one.capabilities
    other = trained(Design(family="mlp", depth=1, width=32, seed=1), task, training, tmp_path / "a")
    assert other.fingerprint() != one.fingerprint()


def test_a_trained_source_is_taken_from_its_file(task, tmp_path):
    design = Design(family="cnn", depth=2, width=8)
    first = trained(design, task, SHORT, tmp_path)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    again = trained(design, task, SHORT, tmp_path)
    assert again.fingerprint() == first.fingerprint()
    assert again.spec == first.spec
    assert file.stat().st_mtime_ns == written
    trained(design, task, Training(images=300, test=200, epochs=1), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2  # another training is another source
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArtifactError):
        trained(design, task, SHORT, tmp_path)


def test_global_random_state_is_left_alone(task, tmp_path):
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    trained(Design(family="mlp", depth=1, width=8), task, SHORT, tmp_path)
    assert torch.equal(torch.rand(2), wanted)


def test_variants_share_weights_and_differ_as_they_say(task, tmp_path):
    def made(variant):
        return trained(Design(family="cnn", depth=2, width=8, variant=variant), task, SHORT, tmp_path)

    x = torch.rand(4, 3, 8, 8)
    exact, fine, rough = (made(v)(x, Input()).scores for v in ("float", "int8", "int2"))
    assert len(list(tmp_path.iterdir())) == 1
    assert 0 < float((fine - exact).norm()) < float((rough - exact).norm())
    for hard in ("sign", "argmax"):
        plain, through = made(hard), made(f"{hard}-through")
        assert torch.equal(plain(x, Input()).scores, through(x, Input()).scores)
        slopes = []
        for source in (plain, through):
            z = x.clone().requires_grad_()
            (g,) = torch.autograd.grad(source(z, Input()).scores.sum(), z)
            slopes.append(float(g.abs().sum()))
        assert slopes[0] == 0 < slopes[1]
    assert len(list(tmp_path.iterdir())) == 3


def test_positions_are_pooled_in_cnns_only(task, tmp_path):
    with pytest.raises(ConfigError, match="cnn"):
        trained(Design(family="mlp", depth=1, width=8, variant="argmax"), task, SHORT, tmp_path)
