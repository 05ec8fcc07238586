"""In-context learning: which examples, what prompt, which words, what calibration; and many examples in groups."""

import json
from dataclasses import replace

import pytest
import torch

import reprogram as rp
from reprogram.core.errors import CapabilityError, ConfigError, FingerprintError
from reprogram.core.program import Input
from reprogram.core.source import Reading
from reprogram.core.task import Example
from reprogram.core.texts import Texts
from reprogram.core.writing import turns
from reprogram.fit import FitOptions
from reprogram.inputs import Demonstrations, GroupedDemonstrations, Template
from reprogram.methods.few_shot import domain_rows
from reprogram.outputs import Calibrated, Likelihood
from reprogram.testing import hash_source, ngram_source, scripted_source, tiny_text_source
from tests.methods.text_tasks import opinions, orders, pairs

QUIET = FitOptions(progress=False)


def copying():
    """Says the label that stood after the most similar beginning: in-context learning works on it."""
    return ngram_source(["x"], order=24)


def moods(n=40):
    rows = [f"item {i} is {'red' if i % 2 else 'blue'} stuff {'red' if i % 2 else 'blue'}" for i in range(n)]
    return rp.Task.from_texts(rows, ["warm" if i % 2 else "cold" for i in range(n)], name="moods")


# -- the prompt --------------------------------------------------------------------------------------------------------


def test_what_is_shown_is_what_is_kept_and_what_is_read(tmp_path):
    source, task = hash_source(), opinions()
    program = rp.build("few_shot", source, task, shots=3, instruction="Judge.", words=("bad", "funny", "very good"))
    spec = program.origin.task
    assert len(spec.context) == 3
    prompt = program.input.edits[0].show({"text": "a film"}).prompt
    blocks = prompt.split("\n\n")
    words = {"good": "very good"}
    assert blocks == ["Judge.", *(f"{e.texts[0]}\nLabel: {words.get(e.answer, e.answer)}" for e in spec.context),
                      "a film\nLabel:"]  # fmt: skip
    assert program.output.reading.choices == (" bad", " funny", " very good")
    rp.fit(program, task, out=tmp_path / "icl.safetensors", options=QUIET)
    again = rp.load(tmp_path / "icl.safetensors", source)
    assert again.input.edits[0].show({"text": "a film"}).prompt == prompt
    assert again.count().allocated == again.count().fitted == 0


def test_scores_are_the_sources_own_log_probabilities():
    source, task = hash_source(order=30), opinions()
    program = rp.build("few_shot", source, task, shots=2, normalise="byte")
    text = "the film was best"
    prompt = program.input.edits[0].show({"text": text}).prompt
    want = [source.speaker.score(prompt, f" {name}") / len(f" {name}") for name in task.classes]
    assert program.predict(text).scores[0].tolist() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("select", ["random", "balanced", "first", "bm25"])
def test_examples_come_from_training_alone_each_once(select):
    task = opinions()
    program = rp.build("few_shot", hash_source(), task, shots=6, select=select)
    train = {task.train.fetch(torch.tensor([i])).prompts[0] for i in range(len(task.train))}
    batch = task.test.fetch(torch.arange(4))
    for row in program.input.edits[0].shown(batch):
        texts = [program.origin.task.context[i].texts[0] for i in row.examples]
        assert len(set(texts)) == 6 and set(texts) <= train
    if select == "balanced":
        answers = [e.answer for e in program.origin.task.context]
        assert sorted(answers.count(c) for c in task.classes) == [2, 2, 2]


def test_seeds_choose_other_examples_and_the_same_seed_the_same():
    task = opinions()
    shown = [rp.build("few_shot", hash_source(), task, shots=4, seed=s).origin.task.context for s in (0, 0, 1)]
    assert shown[0] == shown[1] != shown[2]


def test_nearest_examples_help_where_random_ones_do_not():
    """A source that copies what followed the most similar context: the nearest example decides."""
    rows = [f"{thing} {thing}{i}" for i in range(40) for thing in ("apple", "hammer")]
    labels = ["fruit" if r.startswith("apple") else "tool" for r in rows]
    task = rp.Task.from_texts(rows, labels, name="things")
    program = rp.build("few_shot", hash_source(), task, shots=4, select="bm25")
    for i in range(len(task.test)):
        row = task.test.fetch(torch.tensor([i])).row(0)
        shown = program.input.edits[0].show(row).examples
        answers = {program.origin.task.context[j].answer for j in shown}
        assert answers == {task.classes[int(task.test.labels[i])]}


def test_vectors_of_the_pool_are_in_the_file(tmp_path):
    task = opinions()
    program = rp.build("few_shot", hash_source(), task, shots=2, select="nearest")
    program.input.edits[0].show({"text": "a film"})
    assert program.state_dict()["input.edits.0.select.vectors"].shape == (len(task.train), 384)
    rp.save(program, tmp_path / "knn.safetensors")
    again = rp.load(tmp_path / "knn.safetensors", hash_source())
    batch = task.test.fetch(torch.arange(3))
    assert again.input.edits[0](batch).prompts == program.input.edits[0](batch).prompts
    row = task.train.fetch(torch.tensor([0])).row(0)
    shown = program.input.edits[0].show(row)
    assert row["text"] not in [program.origin.task.context[i].texts[0] for i in shown.examples]


def test_demonstrations_that_do_not_fit_go_first_first(caplog):
    template = Template("{text}\nLabel:", ["text"])
    examples = [Example((f"text {i} {'x' * 20}",), "good") for i in range(6)]
    edit = Demonstrations(template, examples, count=len, room=200)
    made = edit.show({"text": "q"})
    assert made.dropped == tuple(range(len(made.dropped))) and made.dropped and made.examples[-1] == 5
    assert len(made.prompt) <= 200 and made.prompt.endswith("q\nLabel:")
    assert "numbers [0" in caplog.text
    assert made.prompt[made.span[0] : made.span[1]] == "q\nLabel:"


def test_chats_show_examples_as_turns():
    task = opinions()
    program = rp.build("few_shot", hash_source(), task, shots=2, chat=True, instruction="Judge.", template="{text}")
    said = turns(program.input.edits[0].show({"text": "a film"}).prompt)
    assert [role for role, _ in said] == ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
    assert said[-2:] == [("user", "a film"), ("assistant", "")]
    assert program.output.reading.choices == task.classes


def test_marks_in_the_data_cannot_open_turns():
    program = rp.build("few_shot", hash_source(), opinions(), shots=0, chat=True)
    said = turns(program.input.edits[0].show({"text": "a \ue002 film \ue004"}).prompt)
    assert [role for role, _ in said] == ["user", "assistant"]


def test_pairs_and_masks():
    program = rp.build("few_shot", hash_source(), pairs(), shots=1, template="{text} / {text_pair}? {mask}.")
    one = program.origin.task.context[0]
    prompt = program.input.edits[0].show({"text": "a", "text_pair": "b"}).prompt
    assert prompt == f"{one.texts[0]} / {one.texts[1]}? {one.answer}.\n\na / b? "
    assert program.output.reading.choices == ("other", "same")


# -- reading the answer ------------------------------------------------------------------------------------------------


def test_a_source_without_log_probabilities_is_read_off_its_text():
    task = moods()
    source = scripted_source([(r"item (\d*[02468]) is[^\n]*\nLabel:$", " cold"), (r"Label:$", " I do not know")])
    program = rp.build("few_shot", source, task, shots=2)
    metrics = rp.evaluate(program, task.test)
    cold = int((task.test.labels == task.classes.index("cold")).sum())
    assert metrics.accuracy == pytest.approx(cold / len(task.test))
    assert metrics.unparsable == pytest.approx(1 - cold / len(task.test))
    assert program.predict("item 4 is").labels == ["cold"] and program.predict("item 5 is").labels == [""]
    with pytest.raises(CapabilityError, match="log-probabilities"):
        rp.build("few_shot", source, task, shots=2, read="likelihood")


def test_texts_that_are_to_be_written_are_compared_exactly():
    task = orders()
    source = scripted_source([(r"get the (\w+)\n$", lambda found, _: f"{found[1]} {found[1]}")])
    program = rp.build("few_shot", source, task, shots=2)
    metrics = rp.evaluate(program, task.test)
    assert metrics.accuracy == 1.0 and metrics.unparsable == 0.0 and metrics.confusion is None
    result = rp.fit(program, task, options=QUIET)
    assert result.test.accuracy == 1.0


def test_real_tokens_give_what_a_plain_pass_gives():
    source, task = tiny_text_source("llama"), opinions()
    program = rp.build("few_shot", source, task, shots=2)
    batch = task.test.fetch(torch.arange(5))
    got = program(batch)
    for i, prompt in enumerate(program.input(batch, "input").prompts):
        for t, name in enumerate(task.classes):
            ids = torch.tensor([[*source.tokeniser.before, *source.encode(f"{prompt} {name}")]])
            n = len(source.encode(f" {name}"))
            with torch.no_grad():
                chances = source.module(ids).logits[0].log_softmax(-1)
            want = sum(float(chances[ids.shape[1] - n - 1 + k, ids[0, ids.shape[1] - n + k]]) for k in range(n))
            assert float(got[i, t]) == pytest.approx(want, abs=1e-4)


# -- calibration -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["contextual", "domain", "pmi", "batch"])
def test_calibrations_do_not_see_what_a_class_gets_for_free(kind):
    """The prior is that of the rows said; for one row, a constant on one label's score everywhere changes nothing."""
    task = opinions()
    plain = rp.build("few_shot", hash_source(order=40), task, shots=2, calibration=kind)
    rp.fit(plain, task, options=QUIET)
    rows = plain.outputs(task.test.fetch(torch.arange(6)))
    bent = replace(rows, choices=rows.choices + torch.tensor([3.0, 0.0, 0.0]))
    other = Calibrated(Likelihood([[f" {c}"] for c in task.classes]), 3, floor=plain.output.floor)
    own, bump = plain.output.rows, torch.tensor([3.0, 0.0, 0.0])
    own = task.train.fetch(torch.arange(len(task.train))) if own is None else own
    seen = plain.source(own, Input() if plain.output.bare else plain.input, plain.output.reading)
    other.observe(replace(seen, choices=seen.choices + bump), torch.zeros(len(own)).long())
    other.refresh()
    if kind == "pmi":  # exact for one row; a mean of several is of probabilities, which a constant bends
        assert torch.allclose(other(bent).log_softmax(1), plain.output(rows).log_softmax(1), atol=1e-4)
    else:
        same = Calibrated(plain.output.inner, 3)
        same.observe(seen, torch.zeros(len(own)).long())
        same.refresh()
        assert torch.allclose(same.prior, plain.output.prior, atol=1e-5)
    assert bool((plain.output.prior != 0).any())
    assert plain.count().fitted == 3


def test_contextual_calibration_by_hand():
    task = opinions()
    program = rp.build("few_shot", hash_source(order=40), task, shots=2, calibration="contextual")
    rp.fit(program, task, options=QUIET)
    source, edit = program.source, program.input.edits[0]
    free = [edit.show({"text": text}).prompt for text in ("N/A", "[MASK]", "none")]
    chances = torch.tensor([[source.speaker.score(p, f" {c}") for c in task.classes] for p in free]).softmax(1).mean(0)
    batch = task.test.fetch(torch.arange(4))
    bare = torch.tensor([[source.speaker.score(p, f" {c}") for c in task.classes] for p in edit(batch).prompts])
    assert torch.allclose(program(batch), bare - chances.log(), atol=1e-4)


def test_pmi_is_the_score_less_that_of_the_words_before_the_answer():
    task = opinions()
    program = rp.build("few_shot", hash_source(order=40), task, shots=1, calibration="pmi")
    rp.fit(program, task, options=QUIET)
    source = program.source
    batch = task.test.fetch(torch.arange(4))
    bare = torch.tensor(
        [[source.speaker.score(p, f" {c}") for c in task.classes] for p in program.input(batch).prompts]
    )
    free = torch.tensor([source.speaker.score("Label:", f" {c}") for c in task.classes])
    assert torch.allclose(program(batch).log_softmax(1), (bare - free).log_softmax(1), atol=1e-4)


def test_refusals():
    task = opinions()
    with pytest.raises(ConfigError, match="every text's own examples"):
        rp.build("few_shot", hash_source(), task, select="bm25", calibration="contextual")
    with pytest.raises(ConfigError, match="must have 8 examples to show"):
        rp.build("few_shot", hash_source(), task.spec)
    with pytest.raises(ConfigError, match="at most the 32 training"):
        rp.build("few_shot", hash_source(), task.limit(train=32), shots=33)
    with pytest.raises(ConfigError, match="examples to take words from"):
        rp.build("few_shot", hash_source(), task, shots=0, calibration="domain")
    with pytest.raises(ConfigError, match=r"bundled/\.\.\. or hf/"):
        rp.build("few_shot", hash_source(), task, select="nearest", embedder="endpoint/http://127.0.0.1:9/v1")
    with pytest.raises(ConfigError, match="Did you mean"):
        rp.build("few_shot", hash_source(), task, shots=1, template="{txt} is")
    with pytest.raises(CapabilityError, match="generation"):
        rp.build("few_shot", tiny_text_source("bert_encoder"), task)
    with pytest.raises(ConfigError, match="stand for one class"):
        rp.build("few_shot", hash_source(), task, shots=0, words=("a", "a", "b"))
    assert domain_rows([Example(("a b",), "x")], ["text"]) is not None


def test_a_fixed_program_runs_on_another_source_and_a_calibrated_one_does_not(tmp_path, caplog):
    task = opinions()
    program = rp.build("few_shot", hash_source(seed=1), task, shots=2)
    rp.save(program, tmp_path / "a.safetensors")
    with caplog.at_level("INFO", "reprogram"):
        again = rp.load(tmp_path / "a.safetensors", hash_source(seed=2))
    assert "nothing in it depends" in caplog.text
    assert again.predict("a film").scores.shape == (1, 3)
    fitted = rp.build("few_shot", hash_source(seed=1), task, shots=2, calibration="batch")
    rp.fit(fitted, task, options=QUIET)
    rp.save(fitted, tmp_path / "b.safetensors")
    with pytest.raises(FingerprintError):
        rp.load(tmp_path / "b.safetensors", hash_source(seed=2))


# -- groups ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_one_group_is_ordinary_in_context_learning(kind):
    source, task = tiny_text_source(kind), opinions()
    program = rp.build("structured_prompting", source, task, groups=1, shots=2)
    template = Template("{text}\nLabel:", ["text"])
    plain = Demonstrations(template, program.origin.task.context)
    batch = task.test.fetch(torch.arange(6))
    reading = Reading(choices=tuple(f" {c}" for c in task.classes))
    want = source(batch, Input(plain), reading).choices
    got = source(batch, program.input, reading).choices
    assert torch.allclose(got, want, atol=1e-4)


def test_the_order_of_groups_changes_nothing_and_their_texts_do():
    source = tiny_text_source("llama")
    texts = ["the film was good\nLabel: good\n\n", "a dull book\nLabel: bad\n\n", "odd and big\nLabel: funny\n\n"]
    query = Texts({"text": ("the plot was fine\nLabel:",)})
    reading = Reading(choices=(" good", " bad"))
    said = [
        source(query, Input(GroupedDemonstrations(source, t)), reading).choices for t in (texts, texts[::-1], texts[:2])
    ]
    assert torch.allclose(said[0], said[1], atol=1e-4) and not torch.allclose(said[0], said[2], atol=1e-3)


def test_the_texts_own_keys_count_as_often_as_there_are_groups():
    """Against the definition, on attention itself: M copies of one group are one group with its weight unchanged."""
    source = tiny_text_source("gpt2")
    group = "the film was good\nLabel: good\n\n"
    query = Texts({"text": ("the plot was fine\nLabel:",)})
    reading = Reading(choices=(" good", " bad"))
    one = source(query, Input(GroupedDemonstrations(source, [group])), reading).choices
    four = source(query, Input(GroupedDemonstrations(source, [group] * 4)), reading).choices
    assert torch.allclose(one, four, atol=1e-4)  # 4 e^s / 4 + own = e^s + own


def test_a_thousand_tokens_of_groups_do_not_take_the_context():
    source, task = tiny_text_source("gpt2"), opinions(96)
    program = rp.build("structured_prompting", source, task, groups=20, shots=3)
    assert program.input.edits[1].length > source.context
    result = rp.fit(program, task, options=QUIET)
    assert bool(result.test.scores.isfinite().all())
    with pytest.raises(ConfigError, match="few_shot"):
        rp.build("structured_prompting", source, orders(), groups=2, shots=2)


def test_copying_source_learns_in_context():
    """The n-gram source goes on as its prompt did: with examples it tells the classes, without it cannot."""
    task = moods(60)
    source = copying()
    template = "{text}\nLabel:"
    none = rp.evaluate(
        rp.build("few_shot", source, task, shots=0, template=template), task.test.subset(torch.arange(8))
    )
    shown = rp.build("few_shot", source, task, shots=2, select="balanced", template=template)
    some = rp.evaluate(shown, task.test.subset(torch.arange(8)))
    assert none.accuracy <= 0.75 and some.accuracy == 1.0


# -- templates of jinja2 -----------------------------------------------------------------------------------------------

JINJA = "{{ instruction }}{% for e in examples %}<{{ e.text | trim }}|{{ e.answer | upper }}>{% endfor %}<{{ text }}|"


def test_a_whole_prompt_by_jinja(tmp_path):
    task = opinions()
    program = rp.build("few_shot", hash_source(), task, shots=2, jinja=JINJA, instruction="Go: ")
    shown = "".join(f"<{e.texts[0]}|{e.answer.upper()}>" for e in program.origin.task.context)
    assert program.input.edits[0].show({"text": "a film"}).prompt == f"Go: {shown}<a film|"
    rp.save(program, tmp_path / "j.safetensors")
    again = rp.load(tmp_path / "j.safetensors", hash_source())
    assert torch.equal(again.predict("a film").scores, program.predict("a film").scores)


@pytest.mark.parametrize(
    ("jinja", "match"),
    [
        ("{{ txt }}", "name variables among"),
        ("{% for i in range(9) %}{{ text }}{% endfor %}", "loop over"),
        ("{{ text.__class__ }}{{ text.upper() }}", "made of"),
        ("{% for c in text %}{{ c }}{% endfor %}", "loop over"),
        ("{% include 'x' %}{{ text }}", "made of"),
        ("{% macro f() %}{% endmacro %}{{ text }}", "made of"),
        ("{{ text | center(100000000) }}", "filters among"),
        ("{{ text | replace('a', 'aaaaaaaaaa') }}", "filters among"),
        ("{{ 9 ** 9 ** 9 }}{{ text }}", "made of"),
        ("{{ text ", "jinja2 template"),
        ("{% for a in examples %}{% for b in examples %}{{ text }}{% endfor %}{% endfor %}",
         "not within a loop"),
        ("{{ text }}" * 5000, "characters"),
        ("{{ examples[0].nothing }}{{ text }}", "filled in"),
    ],
)  # fmt: skip
def test_templates_that_could_run_away_are_refused(jinja, match):
    with pytest.raises(ConfigError, match=match):
        rp.build("few_shot", hash_source(), opinions(), shots=1, jinja=jinja).input.edits[0].show({"text": "a"})


def test_a_file_cannot_name_a_folder_whose_texts_it_does_not_know(tmp_path):
    """A retriever's corpus comes with the digest of its texts, which a stranger cannot know."""
    from dataclasses import replace as changed

    from reprogram.core.errors import ArtifactError

    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/diary.txt").write_text("the film was shot\n\nthe book was printed")
    source = scripted_source([("", "So the answer is: book.")])
    program = rp.build("ircot", source, orders(), corpus=str(tmp_path / "secret"))
    rp.save(program, tmp_path / "mine.safetensors")
    assert rp.load(tmp_path / "mine.safetensors", source).predict("number 1 get the book").labels == ["book"]
    program.origin = changed(program.origin, config=changed(program.origin.config, digest=""))
    rp.save(program, tmp_path / "theirs.safetensors")
    with pytest.raises(ArtifactError, match="settings as ircot writes them"):
        rp.load(tmp_path / "theirs.safetensors", source)


def test_a_file_cannot_send_texts_to_a_server(tmp_path):
    from reprogram.core.errors import ArtifactError
    from reprogram.testing import FakeServer

    with FakeServer() as server:
        program = rp.build("few_shot", rp.load_source(f"endpoint/{server.url}", cache=False), opinions(), shots=1)
        rp.save(program, tmp_path / "p.safetensors")
        with pytest.raises(ArtifactError, match="nothing is sent there unasked"):
            rp.load(tmp_path / "p.safetensors")
        assert rp.load(tmp_path / "p.safetensors", rp.load_source(f"endpoint/{server.url}", cache=False)) is not None


def test_batch_calibration_takes_as_many_training_texts_as_it_says_the_same_for_a_seed():
    task = opinions(96)
    source = hash_source(order=40)
    program = rp.build("few_shot", source, task, shots=1, calibration="batch", observe=5)
    source.calls.clear()
    rp.fit(program, rp.Task(task.spec, {**task.splits, "val": task.val.subset(torch.arange(0)),
                                        "test": task.test.subset(torch.arange(0))}), seed=3, options=QUIET)  # fmt: skip
    assert len(source.calls) == 5
    prior = program.output.prior.clone()
    again = rp.build("few_shot", source, task, shots=1, calibration="batch", observe=5)
    rp.fit(again, task, seed=3, options=QUIET)
    assert torch.equal(again.output.prior, prior)
    other = rp.build("few_shot", source, task, shots=1, calibration="batch", observe=5)
    rp.fit(other, task, seed=4, options=QUIET)
    assert not torch.equal(other.output.prior, prior)


def test_writing_can_be_held_to_the_label_words():
    source, task = tiny_text_source("gpt2"), opinions()
    free = rp.evaluate(rp.build("few_shot", source, task, shots=1, read="text", new_tokens=6), task.test)
    held = rp.build("few_shot", source, task, shots=1, read="text", new_tokens=6, constrain=True)
    metrics = rp.evaluate(held, task.test)
    assert free.unparsable > 0 and metrics.unparsable == 0.0
    assert {a.value for a in metrics.answers} <= set(task.classes)


def test_writing_can_be_held_to_a_schema():
    schema = json.dumps({"type": "object", "properties": {"a": {"enum": ["film", "book"]}}, "required": ["a"],
                         "additionalProperties": False})  # fmt: skip
    program = rp.build("few_shot", tiny_text_source("gpt2"), orders(), shots=1, schema=schema, answer="json")
    said = program.predict(["number 1 get the film", "number 2 get the book"]).labels
    assert {json.loads(text)["a"] for text in said} <= {"film", "book"}
