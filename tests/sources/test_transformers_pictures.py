"""Models of pictures and text: a tiny LLaVA with random weights, built here."""

from pathlib import Path

import pytest
import torch

import reprogram as rp
from reprogram.core.errors import CapabilityError, DataError, SourceError
from reprogram.core.program import Input
from reprogram.core.source import Capability, Reading, prompt_source
from reprogram.core.task import Sample
from reprogram.core.texts import Texts
from reprogram.core.writing import ASSISTANT, PICTURE, SYSTEM, USER, Grammar, Writing
from reprogram.inputs.marks import Marks
from reprogram.inputs.marks_regions import Grid
from reprogram.inputs.showing import Showing, asking
from reprogram.sources.transformers_load import transformers
from reprogram.sources.transformers_pictures import PictureSource, picture_source
from reprogram.testing import tiny_task, tiny_tokenizer

CHAT = """{% for m in messages %}{{ m.role }}: {% for c in m.content %}{% if c.type == 'image' %}<image>
{%- else %}{{ c.text }}{% endif %}{% endfor %}|{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"""


def llava(seed=0):
    library = transformers()
    tokenizer = tiny_tokenizer("llama")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"], "pad_token": "<unk>"})
    sees = library.CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                                    image_size=32, patch_size=8)  # fmt: skip
    says = library.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    config = library.LlavaConfig(vision_config=sees, text_config=says, vision_feature_layer=-1,
                                 image_token_id=tokenizer.convert_tokens_to_ids("<image>"))  # fmt: skip
    tokenizer.model_max_length = 512
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = library.LlavaForConditionalGeneration(config)
        for parameter in model.parameters():  # the scale at which what it writes depends on what it sees
            torch.nn.init.normal_(parameter, std=0.3)
    scaling = library.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = library.LlavaProcessor(scaling, tokenizer, patch_size=8, vision_feature_select_strategy="default",
                                       chat_template=CHAT, num_additional_image_tokens=1)  # fmt: skip
    return model.eval(), processor


@pytest.fixture(scope="module")
def source():
    return picture_source(*llava())


def picture(seed, size=(40, 50)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)


def batch(*rows):
    return Texts({"prompt": tuple(p for p, _ in rows)}, pictures=tuple(tuple(shown) for _, shown in rows))


def written(source, x, **how):
    said = source(x, Input(), Reading(writing=Writing(**{"tokens": 6} | how))).written
    return [[one.text for one in row] for row in said]


def test_it_is_a_source_of_prompts(source):
    assert prompt_source(source) is source
    assert {Capability.PICTURES, Capability.GENERATION, Capability.LOG_PROBABILITIES} == source.capabilities
    assert source.context == 512
    assert source.count("a great movie" + PICTURE) >= 4
    assert not any(p.requires_grad for p in source.module.parameters())
    assert source.fingerprint() == picture_source(*llava()).fingerprint()
    assert source.fingerprint() != picture_source(*llava(1)).fingerprint()
    with pytest.raises(CapabilityError, match="input"):
        source.attach(["hidden.0"])
    with pytest.raises(CapabilityError, match="features"):
        source.attach(["input"], Reading(features=True))


def test_chats_take_the_models_form(source):
    prompt = SYSTEM + "Be brief." + USER + PICTURE + "What is <image> it?" + ASSISTANT + "It"
    assert source.rendered(prompt) == "system: Be brief.|user: <image>What is \ufffd it?|assistant: It"
    assert source.rendered("a " + PICTURE + "b") == "a <image>b"


def test_what_it_writes_depends_on_prompt_and_picture(source):
    ask = asking("What is it?")
    rows = [(ask, [picture(0)]), (ask, [picture(1)]), (asking("Why not?"), [picture(0)])]
    texts = written(source, batch(*rows))
    assert len({row[0] for row in texts}) == 3
    assert texts == [written(source, batch(row))[0] for row in rows]  # the batch does not matter


def test_rows_may_have_any_number_of_pictures(source):
    rows = [(asking("What?", pictures=0), []), (asking("What?"), [picture(0)]),
            (asking("What?", pictures=2), [picture(0), picture(1)])]  # fmt: skip
    together = written(source, batch(*rows))
    assert together == [written(source, batch(row))[0] for row in rows]
    swapped = batch((rows[2][0], [picture(1), picture(0)]))
    scores = [source(x, Input(), Reading(choices=(" good",))).choices for x in (batch(rows[2]), swapped)]
    assert not torch.allclose(*scores)  # the order of pictures matters
    with pytest.raises(DataError, match="0 pictures for 1 places"):
        written(source, batch((asking("What?"), [])))


def test_greedy_writing_is_the_models_argmax(source):
    """Token by token with the model itself."""
    model, processor = source.module, source.processor
    made = processor(text=[source.rendered(asking("What?"))], images=[[picture(3)]], return_tensors="pt")
    ids = []
    with torch.no_grad():
        for _ in range(5):
            token = int(model(**made).logits[0, -1].argmax())
            ids.append(token)
            made["input_ids"] = torch.cat([made["input_ids"], torch.tensor([[token]])], 1)
            made["attention_mask"] = torch.ones_like(made["input_ids"])
    said = source(batch((asking("What?"), [picture(3)])), Input(), Reading(writing=Writing(tokens=5))).written[0][0]
    assert said.text == processor.tokenizer.decode(ids, skip_special_tokens=True)
    assert (said.tokens, said.finish) == (5, "length")


def test_stop_texts_and_end_tokens(source):
    x = batch((asking("What?"), [picture(0)]), (asking("What?"), [picture(1)]))
    whole = written(source, x, tokens=12)[0][0]
    stop = whole[3:5]
    said = source(x, Input(), Reading(writing=Writing(tokens=12, stop=(stop,)))).written[0][0]
    assert said.text == whole[: whole.index(stop)]
    assert said.finish == "stop"
    assert said.tokens <= 12


def test_draws_depend_on_seed_prompt_and_number_alone(source):
    rows = [(asking("What?"), [picture(0)]), (asking("Why?"), [picture(1)])]
    how = {"temperature": 1.5, "samples": 3, "tokens": 4, "seed": 7}
    before = torch.get_rng_state()
    texts = written(source, batch(*rows), **how)
    assert torch.equal(before, torch.get_rng_state())
    assert texts == written(source, batch(*rows), **how)
    assert texts[1] == written(source, batch(rows[1]), **how)[0]
    assert texts[0][:1] == written(source, batch(rows[0]), **{**how, "samples": 1})[0]
    assert len(set(texts[0])) > 1
    assert texts != written(source, batch(*rows), **{**how, "seed": 8})
    with pytest.raises(CapabilityError, match="grammar"):
        written(source, batch(rows[0]), grammar=Grammar(kind="choice", text="a\nb"))


def test_choices_are_scored_as_by_hand(source):
    ask, choices = asking("What?"), (" good", " bad", " awful story")
    said = source(batch((ask, [picture(0)]), (ask, [picture(1)])), Input(), Reading(choices=choices))
    assert said.choices.shape == (2, 3)
    assert said.exact
    assert not torch.allclose(said.choices[0], said.choices[1])
    for row, seed in enumerate((0, 1)):
        for column, choice in enumerate(choices):
            text = source.rendered(ask)
            alone = source.processor(text=[text], images=[[picture(seed)]], return_tensors="pt")
            made = source.processor(text=[text + choice], images=[[picture(seed)]], return_tensors="pt")
            start, ids = alone["input_ids"].shape[1], made["input_ids"][0]
            with torch.no_grad():
                logits = source.module(**made).logits[0].log_softmax(-1)
            hand = sum(float(logits[t - 1, ids[t]]) for t in range(start, len(ids)))
            assert float(said.choices[row, column]) == pytest.approx(hand, abs=1e-3)
            assert int(said.choice_tokens[row, column]) == len(ids) - start


def test_prompts_that_are_too_long(source):
    with pytest.raises(DataError, match="512 tokens"):
        written(source, batch((asking("the film " * 300), [picture(0)])))


def test_pictures_come_in_like_those_of_any_image_task(source):
    program_input = Input(Showing(asking("Which mark?"), 32), Marks(Grid(1, 2)))
    ready = source.prepare(torch.rand(2, 3, 8, 8), Sample(shape=(3, 8, 8)))
    said = source(torch.stack(list(ready)), program_input, Reading(writing=Writing(tokens=3)))
    assert len(said.written) == 2
    assert source.prepare(["a b"], Sample(shape=(), columns=("text",))).columns["text"] == ("a b",)
    with pytest.raises(DataError, match="texts with pictures"):
        source(torch.rand(1, 3, 8, 8), Input(), Reading(writing=Writing(tokens=3)))
    with pytest.raises(CapabilityError, match="writing or choices"):
        source(batch((asking("a"), [picture(0)])), Input(), Reading())


def test_a_program_runs_on_it(source):
    task = tiny_task()
    program = rp.build("set_of_mark", source, task, regions="grid", rows=3, columns=1, answer="mark", size=48, tokens=4)
    before = source.fingerprint()
    found = program.predict(task.test.fetch(torch.arange(3)))
    assert len(found.answers) == 3
    assert source.fingerprint() == before


def test_it_is_loaded_from_a_folder(tmp_path: Path, source):
    model, processor = llava()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    x = batch((asking("What?"), [picture(0)]))
    for ref in (f"hf/{tmp_path}", f"hf/{tmp_path}?as=pictures"):
        again = rp.load_source(ref)
        assert isinstance(again, PictureSource)
        assert again.spec.ref == ref
        assert written(again, x) == written(source, x)
        assert again.fingerprint() == source.fingerprint()
    assert isinstance(rp.wrap(model, processor), PictureSource)


def idefics():
    """Cuts pictures into tiles, as SmolVLM does; its processor wants each row's pictures in a list of their own."""
    library = transformers()
    tokenizer = tiny_tokenizer("gpt2")
    tiles = [f"<row_{a}_col_{b}>" for a in range(1, 7) for b in range(1, 7)]
    extra = ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *tiles]
    tokenizer.add_special_tokens({"additional_special_tokens": extra, "pad_token": "<|endoftext|>"})
    tokenizer.model_max_length = 4096
    says = library.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    sees = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 8}  # fmt: skip
    config = library.Idefics3Config(text_config=says, vision_config=sees, scale_factor=2, pad_token_id=0,
                                    image_token_id=tokenizer.convert_tokens_to_ids("<image>"))  # fmt: skip
    scaling = library.Idefics3ImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    processor = library.Idefics3Processor(scaling, tokenizer, image_seq_len=4, chat_template=CHAT)
    return config, library.Idefics3ForConditionalGeneration, processor


def qwen():
    """Reads pictures of any size, whose patches it numbers in rows and columns."""
    library = transformers()
    tokenizer = tiny_tokenizer("gpt2")
    extra = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": extra, "pad_token": "<|endoftext|>"})
    tokenizer.model_max_length = 4096
    start, end, image, video = tokenizer.convert_tokens_to_ids(extra)
    says = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
            "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}  # fmt: skip
    sees = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14,
            "spatial_merge_size": 2, "temporal_patch_size": 2}  # fmt: skip
    config = library.Qwen2VLConfig(text_config=says, vision_config=sees, image_token_id=image, video_token_id=video,
                                   vision_start_token_id=start, vision_end_token_id=end)  # fmt: skip
    processor = library.Qwen2VLProcessor(
        library.Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=112 * 112), tokenizer,
        library.Qwen2VLVideoProcessor(),
        chat_template=CHAT.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>"),
    )  # fmt: skip
    return config, library.Qwen2VLForConditionalGeneration, processor


@pytest.mark.parametrize("family", [idefics, qwen])
def test_other_families_read_pictures_their_own_way(family):
    config, build, processor = family()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = picture_source(build(config), processor)
    rows = [(asking("What?"), [picture(0, (60, 80))]), (asking("Why is it?"), [picture(1, (90, 30))]),
            (asking("No.", pictures=0), []), (asking("Both?", pictures=2), [picture(0), picture(1)])]  # fmt: skip
    together = written(made, batch(*rows))
    assert together == [written(made, batch(row))[0] for row in rows]
    scores = made(batch(*rows), Input(), Reading(choices=(" good", " awful story"))).choices
    alone = torch.cat([made(batch(row), Input(), Reading(choices=(" awful story",))).choices for row in rows])
    assert torch.allclose(scores[:, 1:], alone, atol=1e-4)
    other = made(batch((rows[0][0], [picture(5, (60, 80))])), Input(), Reading(choices=(" good",))).choices
    assert float((other[0, 0] - scores[0, 0]).abs()) > 1e-6


def test_what_is_no_such_model():
    model, processor = llava()
    with pytest.raises(SourceError, match="image processor"):
        picture_source(model, processor.tokenizer)
    with pytest.raises(SourceError, match="writes"):
        picture_source(torch.nn.Linear(2, 2), processor)
    processor.chat_template = None
    bare = picture_source(model, processor)
    with pytest.raises(CapabilityError, match="chat template"):
        bare.rendered(asking("a"))
