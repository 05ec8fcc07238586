"""CoOp: where the name stands, contexts of one's own, and the published sizes."""

import pytest
import torch

import reprogram as rp
from reprogram.core.errors import CapabilityError, ConfigError
from reprogram.core.program import Input
from reprogram.core.source import Reading
from reprogram.core.texts import Texts
from reprogram.inputs import ClassContexts
from reprogram.sources import load_source
from reprogram.testing import tiny_source, tiny_task
from reprogram.testing.image_text import tiny_dual_source

pytest.importorskip("transformers")


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_learned_words_that_are_words_are_those_words(position):
    """With the embeddings of "of a" as context, the class text is the plain sentence in that order."""
    source, task = tiny_dual_source(), tiny_task()
    ids = source.text.encode("of a")
    program = rp.build("coop", source, task, tokens=len(ids), words="of a", position=position, layout="{class}")
    half = {"end": len(ids), "middle": len(ids) // 2, "front": 0}[position]
    name = source.text.encode(task.classes[0])
    whole = [*source.text.tokeniser.before, *ids[:half], *name, *ids[half:], *source.text.tokeniser.after]
    plain = source.text(torch.tensor([whole]), Input(), Reading(features=True)).features
    mine = source.compare(source.look(torch.rand(1, 3, 16, 16), Input()), program.input, program.output.reading)
    torch.testing.assert_close(mine.texts[0], plain[0] / plain[0].norm(), atol=1e-6, rtol=0)


def test_a_context_a_class_moves_its_own_class_only():
    source, task = tiny_dual_source(), tiny_task()
    program = rp.build("coop", source, task, tokens=2, sharing="class")
    edit = next(e for e in program.input if isinstance(e, ClassContexts))
    seen = source.look(torch.rand(1, 3, 16, 16), Input())
    before = source.compare(seen, program.input, program.output.reading).texts
    with torch.no_grad():
        edit.values[1] = torch.randn(edit.values[1].shape, generator=torch.Generator().manual_seed(5))
    after = source.compare(seen, program.input, program.output.reading).texts
    moved = (after - before).abs().amax(1) > 1e-4
    assert moved.tolist() == [False, True, False]


def test_each_row_of_a_list_has_its_context_and_other_lists_are_refused():
    from reprogram.core.errors import DataError

    source = tiny_dual_source()
    edit = ClassContexts(torch.randn(3, 2, 16))
    source.attach([edit.site], Reading(texts=("a", "b")))
    with pytest.raises(DataError, match="must be 3"):
        source.text(Texts({"text": ("a", "b")}), Input(edit).under("text"), Reading(features=True))


def test_sizes_and_settings():
    """16 words of width 512 are the 8,192 numbers of table 2; a context a class, T times as many."""
    source, task = tiny_dual_source(), tiny_task()
    width = source.text.embeddings.shape[1]
    assert rp.build("coop", source, task).count().allocated == 16 * width
    assert rp.build("coop", source, task, sharing="class").count().allocated == 3 * 16 * width
    with pytest.raises(ConfigError, match="tokens"):
        rp.build("coop", source, task, tokens=0)
    with pytest.raises(ConfigError, match="class"):
        rp.build("coop", source, task, layout="no name")
    with pytest.raises(CapabilityError, match="class texts"):
        rp.build("coop", tiny_source(), task)


@pytest.mark.slow
def test_zero_shot_on_the_bundled_source():
    """ConSE knows its own classes by name: two kinds of real photographs."""
    pytest.importorskip("efficientnet_lite_pytorch")
    sklearn = pytest.importorskip("sklearn.datasets")
    source = load_source("bundled/conse")
    china, flower = (torch.from_numpy(p.copy()).permute(2, 0, 1)[None] for p in sklearn.load_sample_images().images)
    texts = ("a photo of a temple", "a photo of a flower")
    for picture, best in ((china, 0), (flower, 1)):
        small = torch.nn.functional.interpolate(picture.float() / 255, (128, 128), mode="bilinear", antialias=True)
        assert int(source(small, Input(), Reading(texts=texts)).logits.argmax()) == best
