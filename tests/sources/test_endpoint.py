"""Models behind an HTTP server, with the quirks of the real ones: what comes out is right, or an error says why."""

import json
import logging
import math
import os
import threading
import time
from dataclasses import replace

import pytest
import torch

import reprogram as rp
from reprogram.core.errors import CapabilityError, ConfigError, DataError, SourceError
from reprogram.core.program import Edit, Input
from reprogram.core.source import Capability, PromptSource, Reading, Source, prompt_source
from reprogram.core.taxonomy import Location
from reprogram.core.texts import MASK, SEP, SLOT, Texts
from reprogram.core.writing import ASSISTANT, PICTURE, SYSTEM, USER, Grammar, Writing
from reprogram.sources import (
    BudgetError,
    EndpointError,
    Prices,
    endpoint_client,
    endpoint_messages,
    endpoint_probe,
    load_source,
    source_refs,
)
from reprogram.sources.endpoint_client import checked_url, key_for, retry_after
from reprogram.sources.endpoint_scores import tail_score
from reprogram.testing import tiny_text_task
from reprogram.testing.fake_model import FakeModel
from reprogram.testing.fake_server import FakeServer, Quirks
from reprogram.testing.scripted import PromptFake, cut

WORDS = [" yes", " no", " maybe", " gre", "gre", "at", "en", " good", " bad", "The", " quick", " brown", " fox",
         " jumps", " over", "yes", "no"]  # fmt: skip
RULES = [(r"sky blue\?", " yes"), (r"grass red\?", " no"), (r"[Ss]ay it\.", " over. And"), (r"rose red\?", "yes"),
         (r"rose blue\?", "no"), (r"2 \+ 2 =", " four\n\nQ: 3")]  # fmt: skip
ASK = ("Is the sky blue?", "Is the grass red?", "Is it so?")
FREE = Writing(tokens=12)


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setattr(endpoint_client, "FIRST_WAIT", 0.005)
    monkeypatch.setenv("REPROGRAM_CACHE", str(tmp_path))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "REPROGRAM_API_KEY", "REPROGRAM_API_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve():
    opened = []

    def make(trouble=None, model=None, **quirks):
        server = FakeServer(model or FakeModel(WORDS, RULES), Quirks(**quirks), trouble)
        opened.append(server.__enter__())
        return server

    yield make
    for server in opened:
        server.__exit__()


def connect(server, **options):
    return load_source(f"endpoint/{server.url}", **{"pictures": False} | options)


def write(source, *prompts, writing=FREE, pictures=None):
    return source(Texts({"prompt": prompts}, pictures=pictures), Input(), Reading(writing=writing)).written


def score(source, *prompts, choices=(" yes", " no")):
    return source(Texts({"prompt": prompts}), Input(), Reading(choices=choices))


def right(model, prompts, choices):
    return torch.tensor([[model.score(p, c) for c in choices] for p in prompts])


# -- what it is --------------------------------------------------------------------------------------------------------


def test_it_is_a_prompt_source(serve):
    source = connect(serve())
    assert isinstance(source, Source) and isinstance(source, PromptSource) and prompt_source(source) is source
    assert source.spec.modality == "text" and source.kind == "causal" and source.device.type == "cpu"
    assert dict(source.sites) == {"input": Location.INPUT} and source.to("cpu") is source
    assert source.capabilities == {Capability.GENERATION, Capability.LOG_PROBABILITIES}
    assert source.count("ab\u00e4") >= 4 and source.count(USER + "a") > source.count("a")
    assert source.context is None and source.rendered(USER + "Hi" + SEP + "there") == "[user] Hi\nthere"
    assert len(source.prepare(["a", "b"], None)) == 2


def test_its_reference_loads_it_again(serve):
    server = serve(models=("a/b c", "d"))
    source = load_source(
        f"endpoint/{server.url}?model=a/b%20c&context=2048&rate=60000&timeout=5&concurrency=2&api=chat"
    )
    assert (source.options.context, source.options.rate, source.options.timeout) == (2048, 60000.0, 5.0)
    assert source.options.concurrency == 2 and source.context == 2048
    again = load_source(source.spec.ref)
    assert again.spec == source.spec and again.fingerprint() == source.fingerprint()
    assert again.options.api == "chat" and again.facts.model == "a/b c"
    assert any(ref.startswith("endpoint/") for ref in source_refs())


def test_the_fingerprint_is_the_models_and_not_the_places(serve):
    one, same = connect(serve()), connect(serve())
    assert one.fingerprint() == same.fingerprint() and len(one.fingerprint()) == 64
    others = [
        serve(models=("fake-2",)), serve(system="fp_1"), serve(about={"owned_by": "x"}),
        serve(about={"meta": {"n_params": 7}}),
    ]  # fmt: skip
    found = {connect(other).fingerprint() for other in others}
    assert len(found) == 4 and one.fingerprint() not in found
    assert connect(serve(about={"meta": {"n_params": 7, "n_ctx": 99}})).context == 99
    assert connect(serve(about={"max_model_len": 512})).context == 512


def test_edits_act_before_prompts_are_sent(serve):
    class Ask(Edit):
        site = "input"
        operators = frozenset()

        def forward(self, value):
            return Texts({"prompt": tuple(f"Is the {t} blue?" for t in value.columns["text"])})

    source = connect(serve())
    said = source(Texts({"text": ("sky",)}), Input(Ask()), Reading(writing=FREE)).written
    assert said[0][0].text == " yes"


# -- writing -----------------------------------------------------------------------------------------------------------


def test_it_writes_in_order_whatever_the_concurrency(serve):
    server = serve(trouble=lambda n, body: "slow 0.05" if "sky" in str(body) else None)
    for threads in (1, 8):
        source = connect(server, concurrency=threads, cache=False)
        texts = write(source, *ASK[:2], *ASK[:2])
        assert [row[0].text for row in texts] == [" yes", " no", " yes", " no"]
        assert all(row[0].finish == "stop" and row[0].tokens == 1 for row in texts)
        model = server.model
        assert texts[0][0].logprob == pytest.approx(model.score(ASK[0], " yes"), abs=1e-6)
    assert server.most_at_once >= 2


@pytest.mark.parametrize("stop", ["before", "kept", "ignored"])
@pytest.mark.parametrize("route", ["completions", "chat"])
def test_texts_end_before_stop_texts_whatever_the_server_does(serve, stop, route):
    source = connect(serve(stop=stop, routes=frozenset({route})))
    said = write(source, "2 + 2 =", writing=Writing(tokens=30, stop=("\n\n", "Q:", "x", "yy", "zz", "our")))[0][0]
    assert said.text == " f" and said.finish == "stop"
    assert write(source, "2 + 2 =", writing=Writing(tokens=2))[0][0].finish == "length"


def test_samples_have_seeds_of_their_own_and_are_kept(serve):
    server = serve()
    drawn = Writing(tokens=6, samples=4, temperature=1.0, seed=10, top_p=0.9)
    source = connect(server)
    first = write(source, "Is it so?", "And so?", writing=drawn)
    assert [len(row) for row in first] == [4, 4] and len({one.text for one in first[0]}) > 1
    sent = [b for b in server.answered() if b["temperature"] == 1.0]
    assert sorted(b["seed"] for b in sent) == [10, 10, 11, 11, 12, 12, 13, 13] and sent[0]["top_p"] == 0.9
    assert write(connect(server), "Is it so?", "And so?", writing=drawn) == first
    assert len([b for b in server.answered() if b["temperature"] == 1.0]) == 8
    more = write(
        connect(server), "Is it so?", writing=Writing(tokens=6, samples=5, temperature=1.0, seed=10, top_p=0.9)
    )
    assert more[0][:4] == first[0]


def test_greedy_writing_sends_no_seed(serve):
    server = serve(strict=True)
    write(connect(server), "Is it so?")
    assert "seed" not in server.answered()[-1] and server.answered()[-1]["temperature"] == 0


def test_plain_prompts_go_to_completions_and_turns_to_the_chat(serve):
    server = serve()
    source = connect(server)
    write(source, "Is the sky blue?", SYSTEM + "Brief." + USER + "Is the sky blue?" + ASSISTANT)
    assert server.settled()
    plain, chat = sorted(server.calls[-2:], key=lambda c: c.path, reverse=True)
    assert plain.path == "/v1/completions" and plain.body["prompt"] == "Is the sky blue?"
    assert chat.body["messages"] == [{"role": "system", "content": "Brief."},
                                     {"role": "user", "content": "Is the sky blue?"}]  # fmt: skip
    assert source.notes == ()


def test_without_completions_plain_prompts_are_turns_which_is_said_once(serve, caplog):
    server = serve(routes=frozenset({"chat"}))
    source = connect(server)
    with caplog.at_level(logging.WARNING):
        write(source, "Say it.")
        write(source, "Do say it.")
    assert len(source.notes) == 1 and "one turn of the user's" in source.notes[0]
    assert len(caplog.records) == 1
    assert server.answered()[-1]["messages"] == [{"role": "user", "content": "Do say it."}]


def test_turns_need_a_chat_route(serve):
    source = connect(serve(routes=frozenset({"completions"})))
    with pytest.raises(CapabilityError, match="chat route"):
        write(source, USER + "Hi" + ASSISTANT)
    with pytest.raises(CapabilityError, match="chat route"):
        write(connect(serve(), api="completions"), USER + "Hi" + ASSISTANT)


def test_words_of_the_assistants_own_are_sent_as_such(serve):
    server = serve()
    source = connect(server)
    write(source, USER + "Say it." + ASSISTANT + "Well,")
    assert server.answered()[-1]["messages"][-1] == {"role": "assistant", "content": "Well,"}
    assert "begins a new turn" in source.notes[0]


def test_servers_that_want_another_field_for_the_number_of_tokens(serve):
    server = serve(routes=frozenset({"chat"}), limit="max_completion_tokens")
    source = connect(server)
    assert write(source, "Say it.", writing=Writing(tokens=3))[0][0].tokens == 3
    assert server.answered()[-1]["max_completion_tokens"] == 3


def test_a_templates_marks_are_resolved(serve):
    server = serve()
    source = connect(server)
    write(source, "a" + SEP + "b:" + MASK)
    assert server.answered()[-1]["prompt"] == "a\nb:"
    with pytest.raises(DataError, match="mask"):
        write(source, "a" + MASK + "b")
    with pytest.raises(CapabilityError, match="soft"):
        write(source, "a" + chr(SLOT) + "b")
    with pytest.raises(DataError, match="at least one character"):
        write(source, "")


def test_odd_characters_are_data_and_half_ones_an_error(serve):
    server = serve()
    source = connect(server)
    odd = "a\x00\x1b[2J\u202eb\u200f\ufeff\U0001f600\r\n"
    write(source, odd)
    assert server.answered()[-1]["prompt"] == odd
    with pytest.raises(DataError, match=r"lone surrogates.*character 1"):
        write(source, "a\ud800b")


def test_content_that_is_null_is_an_empty_text_and_filters_are_named(serve):
    server = serve(routes=frozenset({"chat"}), likeliest=0)
    usual = server.reply

    def reply(route, body):
        said = usual(route, body)
        said["choices"][0]["message"]["content"] = None
        said["choices"][0]["finish_reason"] = "content_filter"
        return said

    server.reply = reply
    said = write(connect(server), "Hi")[0][0]
    assert (said.text, said.finish, said.logprob) == ("", "error", None) and "content_filter" in said.reason


# -- scores ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scoring", "quirks"), [
    ("auto", {}), ("echo", {}), ("steps", {}), ("auto", {"likeliest": 0}), ("auto", {"echo": "refused"}),
    ("auto", {"likeliest": 5}), ("steps", {"marks": True}), ("echo", {"marks": True}), ("echo", {"first": "<s>"}),
    ("echo", {"usage": False}), ("steps", {"one_form": True}),
])  # fmt: skip
def test_scores_of_one_token_are_the_models(serve, scoring, quirks):
    server = serve(**quirks)
    source = connect(server, scoring=scoring)
    choices = (" yes", " no", " maybe")
    if quirks.get("likeliest") == 5:
        choices = (" yes", " yes")
    said = score(source, ASK[0], choices=choices)
    assert said.exact and said.choice_tokens.tolist() == [[1] * len(choices)]
    assert torch.allclose(said.choices, right(server.model, ASK[:1], choices), atol=1e-5)
    assert said.choices.dtype == torch.float32 and said.choice_tokens.dtype == torch.int64
    if not quirks and scoring == "auto":
        assert source.scoring == ("steps",)


@pytest.mark.parametrize("quirks", [{}, {"likeliest": 0}, {"likeliest": 5}])
def test_scores_of_several_tokens_are_exact_where_the_server_echoes(serve, quirks):
    server = serve(**quirks)
    source = connect(server)
    choices = (" great", " green", " yes", " good and bad")
    for _ in range(2):
        said = score(source, *ASK, choices=choices)
        assert said.exact and "echo" in source.scoring
        assert torch.allclose(said.choices, right(server.model, ASK, choices), atol=1e-4)
        assert said.choice_tokens[0].tolist() == [2, 2, 1, 6]


def test_steps_go_on_only_where_choices_begin_alike(serve):
    server = serve(echo="refused")
    source = connect(server)
    before = len(server.answered())
    choices = (" great", " green", " yes")
    said = score(source, "Is it so?", choices=choices)
    wanted = right(server.model, ["Is it so?"], choices)
    assert torch.allclose(said.choices, wanted, atol=1e-5) and said.exact  # "at" and "en" end them
    assert [b["prompt"] for b in server.answered()[before:]] == ["Is it so?", "Is it so? gre"]
    lone = score(source, "Is it so?", choices=(" great", " yes"))
    assert not lone.exact and len(server.answered()) == before + 2  # " gre" tells it apart: nothing more is asked
    assert lone.choices[0, 0] == pytest.approx(server.model.next(b"Is it so?")[b" gre"], abs=1e-5)


def test_a_choice_that_begins_another_ends_where_it_ends(serve):
    server = serve(echo="refused", model=FakeModel([" 1", "0"]))
    said = score(connect(server), "n =", choices=(" 1", " 10"))
    assert torch.allclose(said.choices, right(server.model, ["n ="], (" 1", " 10")), atol=1e-5) and said.exact


def test_choices_beyond_the_likeliest_get_a_bound_that_keeps_the_order(serve):
    server = serve(echo="refused", likeliest=5)
    said = score(connect(server), ASK[0], choices=(" yes", "~", "|"))
    true = right(server.model, ASK[:1], (" yes", "~", "|"))
    assert not said.exact and said.choices.argmax() == 0
    assert bool((said.choices >= true - 1e-5).all()) and said.choices[0, 1] < said.choices[0, 0]


def test_choices_that_cannot_be_had_are_refused(serve):
    source = connect(serve(echo="refused", likeliest=5))
    with pytest.raises(CapabilityError, match="5 likeliest tokens"):
        score(source, ASK[0], choices=("~", "|"))
    chat = connect(serve(routes=frozenset({"chat"})))
    with pytest.raises(CapabilityError, match=r"first token.*great.*green"):
        score(chat, "Is it so?", choices=(" great", " green"))
    with pytest.raises(DataError, match="not empty"):
        score(source, ASK[0], choices=("", " yes"))


def test_chats_score_choices_without_their_leading_space(serve):
    server = serve(routes=frozenset({"chat"}))
    said = score(connect(server), "Is it so?", choices=(" yes", " no"))
    read = "user: Is it so?\nassistant:"
    assert torch.allclose(said.choices, right(server.model, [read], ("yes", "no")), atol=1e-5) and said.exact


def test_a_token_across_the_end_of_a_prompt_is_refused(serve):
    source = connect(serve(likeliest=0))
    with pytest.raises(DataError, match=r"begin where a token does.*without a space"):
        score(source, "Is it so? ", choices=("yes", "no"))
    assert tail_score([("ä".encode(), None), (b" \xc3", -1.0), (b"\xa4", -2.0)], "ä", " ä").value == -3.0


def test_prompts_of_both_routes_in_one_batch(serve):
    server = serve()
    said = score(connect(server), ASK[0], USER + "Is it so?" + ASSISTANT, ASK[1])
    assert torch.allclose(said.choices[[0, 2]], right(server.model, ASK[:2], (" yes", " no")), atol=1e-5)
    read = "user: Is it so?\nassistant:"
    assert torch.allclose(said.choices[1], right(server.model, [read], ("yes", "no"))[0], atol=1e-5)


@pytest.mark.parametrize("echo", ["zeros", "same", "infinite", "short", "ignored", "refused", "crash"])
def test_servers_that_lie_about_the_prompts_scores_are_found_out(serve, echo):
    server = serve(echo=echo, likeliest=0)
    source = connect(server)
    assert not source.facts.echo and Capability.LOG_PROBABILITIES not in source.capabilities
    assert source.facts.sure == (echo != "crash")
    with pytest.raises(CapabilityError, match="scoring"):
        score(connect(server, scoring="echo"), ASK[0])


@pytest.mark.parametrize("quirks", [{"likeliest_are": "zeros"}, {"likeliest_are": "elsewhere"}, {"likeliest": 0}])
@pytest.mark.parametrize("route", ["completions", "chat"])
def test_servers_that_lie_about_the_likeliest_tokens_are_found_out(serve, route, quirks):
    source = connect(serve(routes=frozenset({route}), echo="refused", **quirks))
    assert source.facts.top(route) == 0 and Capability.LOG_PROBABILITIES not in source.capabilities
    assert write(source, "Is it so?")[0][0].logprob is None


def test_a_server_that_begins_to_lie_later_is_found_out(serve):
    server = serve(likeliest=0)
    source = connect(server)
    server.quirks = Quirks(echo="zeros", likeliest=0)
    with pytest.raises(CapabilityError, match="all are 0"):
        score(source, "The quick brown fox")
    server.quirks = Quirks(likeliest=0)
    said = score(source, "The quick brown fox")  # the lie was not kept
    assert torch.allclose(said.choices, right(server.model, ["The quick brown fox"], (" yes", " no")), atol=1e-4)


def test_what_was_found_out_is_kept_until_something_fails(serve):
    server = serve(likeliest=0)
    asked = [connect(server).usage.requests for _ in range(2)]
    assert asked[0] > 0 == asked[1]
    source = connect(server)
    server.quirks = Quirks(echo="ignored", likeliest=0)  # another server at the same address
    with pytest.raises(CapabilityError, match=r"another text|none"):
        score(source, "The quick brown fox")
    again = connect(server)
    assert again.usage.requests > 0 and not again.facts.echo


@pytest.mark.parametrize("grammar", ["none", "structured_outputs", "response_format", "guided"])
def test_without_probabilities_choices_are_counted(serve, grammar):
    server = serve(echo="ignored", likeliest=0, grammar=grammar)
    source = connect(server)
    said = score(source, "Is a rose red?\n", "Is a rose blue?\n")
    assert not said.exact and source.scoring == ("writing",)
    assert said.choices.argmax(1).tolist() == [0, 1] and bool((said.choices < 0).all())
    assert torch.allclose(said.choices.exp().sum(1), torch.ones(2))


def test_prompts_after_which_no_choice_is_written_are_told(serve, caplog):
    source = connect(serve(echo="ignored", likeliest=0))
    said = score(source, ASK[0], choices=(" good", " bad"))
    assert said.choices[0, 0] == said.choices[0, 1]
    assert "none of the choices" in caplog.text


# -- grammars ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["structured_outputs", "response_format", "guided"])
@pytest.mark.parametrize("route", ["completions", "chat"])
def test_grammars_by_the_field_that_works(serve, field, route):
    source = connect(serve(grammar=field, routes=frozenset({route})))
    choice = Grammar(kind="choice", text=" maybe\n good")
    assert write(source, "Is it so?", writing=Writing(grammar=choice))[0][0].text in (" maybe", " good")
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    said = write(source, "Is it so?", writing=Writing(grammar=Grammar(kind="json", text=json.dumps(schema))))[0][0]
    assert isinstance(json.loads(said.text)["n"], int)
    regex = Writing(grammar=Grammar(kind="regex", text="[0-9]{2}"))
    if field == "response_format":
        with pytest.raises(CapabilityError, match="regex"):
            write(source, "Is it so?", writing=regex)
    else:
        assert write(source, "Is it so?", writing=regex)[0][0].text.isdecimal()


def test_servers_that_ignore_or_refuse_grammars_are_found_out(serve):
    grammar = Writing(grammar=Grammar(kind="choice", text="a\nb"))
    for quirks in ({}, {"strict": True}):
        with pytest.raises(CapabilityError, match="grammar of kind 'choice'"):
            write(connect(serve(**quirks)), "Is it so?", writing=grammar)


def test_texts_are_checked_even_if_the_test_went_well(serve):
    server = serve(grammar="lie")
    source = connect(server)
    for _ in range(2):  # and what broke the grammar is not kept
        before = len(server.answered())
        with pytest.raises(CapabilityError, match="keep to the grammar"):
            write(source, ASK[0], writing=Writing(tokens=20, grammar=Grammar(kind="choice", text="yes\nno")))
        assert len(server.answered()) > before


def test_a_schema_that_is_none(serve):
    with pytest.raises(ConfigError, match="JSON schema"):
        write(
            connect(serve(grammar="structured_outputs")), "a", writing=Writing(grammar=Grammar(kind="json", text="["))
        )


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_pictures_are_sent_as_parts_in_their_places(serve):
    server = serve(pictures="read")
    source = connect(server, pictures=None)
    assert Capability.PICTURES in source.capabilities
    red = torch.zeros(3, 5, 4, dtype=torch.uint8)
    red[0] = 255
    blue = red.flip(0)
    write(source, USER + f"A{PICTURE}B{PICTURE}" + ASSISTANT, pictures=((red, blue),))
    parts = server.answered()[-1]["messages"][0]["content"]
    assert [p["type"] for p in parts] == ["text", "image_url", "text", "image_url"]
    assert parts[1]["image_url"]["url"].startswith("data:image/png;base64,") and parts[1] != parts[3]
    plain = f"What is {PICTURE}?"
    first = write(source, plain, pictures=((red,),))
    before = len(server.answered())
    assert write(source, plain, pictures=((red,),)) == first and len(server.answered()) == before
    write(source, plain, pictures=((blue,),))
    assert len(server.answered()) == before + 1
    with pytest.raises(DataError, match="places for 2 pictures"):
        write(source, plain, pictures=((red, blue),))


@pytest.mark.parametrize("pictures", ["refused", "dropped", "text"])
def test_servers_that_do_not_read_pictures_are_found_out(serve, pictures):
    server = serve(pictures=pictures)
    source = connect(server, pictures=None)
    assert Capability.PICTURES not in source.capabilities
    with pytest.raises(CapabilityError, match="pictures"):
        write(source, PICTURE, pictures=((torch.zeros(3, 4, 4, dtype=torch.uint8),),))
    assert Capability.PICTURES in connect(server, pictures=True).capabilities


# -- what it does not do -----------------------------------------------------------------------------------------------


def test_what_servers_do_not_give_is_refused_before_anything_is_asked(serve):
    server = serve()
    source = connect(server)
    assert server.settled()
    before = len(server.calls)
    for reading in (Reading(features=True), Reading(tokens=True), Reading(continuations=((1,),))):
        with pytest.raises(CapabilityError):
            source.attach(["input"], reading)
        with pytest.raises(CapabilityError):
            source(Texts({"p": ("a",)}), Input(), reading)
    with pytest.raises(CapabilityError, match="class scores"):
        source(Texts({"p": ("a",)}), Input(), Reading())
    with pytest.raises(CapabilityError, match="input"):
        source.attach(["hidden.0"])
    with pytest.raises(CapabilityError, match="prompts"):
        source(torch.zeros(1, 3, 4, 4), Input(), Reading(writing=FREE))
    source.attach(["input"], Reading(writing=FREE))
    assert server.settled() and len(server.calls) == before
    empty = source(Texts({"p": ()}), Input(), Reading(choices=("a", "b"), writing=FREE))
    assert empty.choices.shape == (0, 2) and empty.written == ()


# -- programs ----------------------------------------------------------------------------------------------------------


class Here:
    """The model behind the server, without a server."""

    def __init__(self, model):
        self.model = model

    def write(self, prompt, writing, sample):
        made, ended = self.model.write(prompt, writing.tokens, writing.temperature, writing.seed + sample)
        short = cut(b"".join(made).decode("utf-8", "replace"), replace(writing, tokens=10**6))
        return replace(short, finish="stop" if ended or short.finish == "stop" else "length")

    def score(self, prompt, choice):
        return self.model.score(prompt, choice) if prompt else 0.0

    def digest(self):
        return "fake"


@pytest.mark.parametrize("quirks", [{}, {"likeliest": 0}, {"echo": "refused"}])
@pytest.mark.parametrize("settings", [{"shots": 3}, {"shots": 0, "calibration": "contextual"},
                                      {"shots": 2, "calibration": "batch"}])  # fmt: skip
def test_one_program_gives_the_same_here_and_over_http(serve, settings, quirks):
    model = FakeModel([" bad", " good", " fun", "\nLabel:"], [(r"(awful|sad)[a-z ]*\nLabel:", " bad")])
    source, here = connect(serve(model=model, **quirks)), PromptFake(Here(model), "Here")
    task = tiny_text_task(per_class=6)
    found = []
    for one in (source, here):
        program = rp.build("few_shot", one, task, **settings)
        rp.fit(program, task, seed=0)
        found.append(rp.evaluate(program, task.test).scores)
    assert torch.allclose(*found, atol=1e-4) and float(found[0].std()) > 0
    assert source.usage.requests > 0


def test_conversations_over_http(serve):
    rules = [(r"step by step\.$", " So two.\nQ:"), (r"So two\.[^?]*$", " 2."), (r"is\s*$", " 2")]
    model = FakeModel(WORDS, rules)
    source, here = connect(serve(model=model)), PromptFake(Here(model), "Here")
    task = rp.Task.from_texts(["1 and 1?", "3 less 1?"], targets=["2", "2"], name="sums")
    found = [rp.evaluate(rp.build("zero_shot_cot", one, task, answer="number"), task.train) for one in (source, here)]
    assert [a.value for a in found[0].answers] == [a.value for a in found[1].answers]
    assert "2" in [a.value for a in found[0].answers]


def test_a_program_of_fixed_prompts_is_kept_and_runs_behind_another_port(serve, tmp_path):
    task = tiny_text_task(per_class=4)
    one, other = connect(serve(system="fp_1")), connect(serve(system="fp_2"))
    program = rp.build("few_shot", one, task, shots=2)
    card = rp.save(program, tmp_path / "program.safetensors")
    assert card.source.ref == one.spec.ref and card.source.fingerprint == one.fingerprint()
    again = rp.load(tmp_path / "program.safetensors", source=other)
    assert again.source is other
    assert torch.equal(again.predict("a great film").scores, program.predict("a great film").scores)


# -- getting in --------------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there():
    with pytest.raises(SourceError, match=r"http://127\.0\.0\.1:9/v1/models.*Start the server"):
        load_source("endpoint/http://127.0.0.1:9/v1", retries=1)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a/v1", "http://", "http://a:b", "", "file:///etc/passwd"])
def test_addresses_that_are_none(url):
    with pytest.raises(SourceError, match=r"endpoint|reference"):
        load_source(f"endpoint/{url}")


def test_a_password_in_an_address_is_refused_and_not_shown():
    with pytest.raises(SourceError, match="REPROGRAM_API_KEY") as caught:
        load_source("endpoint/http://me:hunter2@host/v1")
    assert "hunter2" not in str(caught.value)
    assert checked_url("http://[::1]:8000/v1/") == "http://[::1]:8000/v1"


def test_options_are_checked(serve):
    server = serve()
    for bad in ({"api": "x"}, {"scoring": "x"}, {"concurrency": 0}, {"rate": 0}, {"timeout": 0}, {"context": 0},
                {"max_requests": 0}, {"retries": -1}):  # fmt: skip
        with pytest.raises(ConfigError):
            connect(server, **bad)
    with pytest.raises(SourceError, match="key"):
        connect(server, api_key="sk-1")
    with pytest.raises(SourceError, match="may be followed by"):
        load_source(f"endpoint/{server.url}?key_env=HOME")
    with pytest.raises(SourceError, match="may be followed by"):
        load_source(f"endpoint/{server.url}?cache=/tmp/x")
    with pytest.raises(ConfigError, match="number"):
        load_source(f"endpoint/{server.url}?rate=fast")


def test_models_must_be_named_where_there_are_several(serve):
    with pytest.raises(SourceError, match=r"must be named.*'a', 'b'.*\?model="):
        connect(serve(models=("a", "b")))
    with pytest.raises(SourceError, match="does not exist"):
        connect(serve(), model="other")
    with pytest.raises(SourceError, match="must answer for the model"):
        connect(serve(routes=frozenset()))


def test_a_key_goes_to_the_host_that_it_is_meant_for_only(serve, monkeypatch):
    secret = "sk-very-secret"
    server = serve(key=secret)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", secret)
    monkeypatch.setenv("REPROGRAM_API_KEY", secret)
    with pytest.raises(EndpointError, match=r"HTTP 401.*REPROGRAM_API_HOST=127\.0\.0\.1") as caught:
        connect(server)
    assert caught.value.status == 401 and secret not in str(caught.value)
    monkeypatch.setenv("REPROGRAM_API_HOST", "127.0.0.1")
    source = connect(server)
    write(source, "Is it so?")
    assert server.settled() and all(c.headers["authorization"] == f"Bearer {secret}" for c in server.calls)
    assert not any("openai-organization" in c.headers for c in server.calls)
    for path in source._cache.path.parent.iterdir():
        assert secret.encode() not in path.read_bytes()
    assert secret not in repr(source.facts) + repr(source.options) + source.spec.ref
    monkeypatch.delenv("REPROGRAM_API_HOST")
    monkeypatch.setenv("MY_KEY", secret)
    assert write(connect(server, key_env="MY_KEY"), "Is it so?")


def test_a_wrong_key_is_not_shown(serve, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-wrong")
    with pytest.raises(EndpointError, match="does not accept the key") as caught:
        connect(serve(key="sk-right"), key_env="MY_KEY")
    assert "sk-wrong" not in str(caught.value) and "***" in str(caught.value)


def test_keys_by_host(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "o")
    monkeypatch.setenv("REPROGRAM_API_KEY", "r")
    assert key_for("https://api.openai.com/v1") == "o"
    assert key_for("http://api.openai.com/v1") is None
    assert key_for("https://api.openai.com.evil.com/v1") is None
    assert key_for("http://127.0.0.1:8000/v1") is None
    monkeypatch.setenv("REPROGRAM_API_HOST", "host:8000")
    assert key_for("http://host:8000/v1") == "r" and key_for("http://host:8001/v1") is None
    monkeypatch.setenv("OPENAI_BASE_URL", "http://other:1/v1")
    assert key_for("http://other:1/v1") == "o" and key_for("https://api.openai.com/v1") is None


def test_redirects_are_not_followed(serve):
    other = serve()
    server = serve(trouble=lambda n, body: f"307 location={other.url}/completions")
    with pytest.raises(SourceError, match="307"):
        connect(server)
    assert other.calls == []


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def after_start(what, times=1):
    """Trouble for the first requests that have "sky" in them."""
    left = [times]

    def trouble(number, body):
        if "sky" in json.dumps(body) and left[0]:
            left[0] -= 1
            return what
        return None

    return trouble


TRANSIENT = ["429", "429 retry-after=0.01", "429 retry-after-ms=5", "500", "503", "408", "409", "drop", "cut", "empty"]


@pytest.mark.parametrize("what", TRANSIENT)
def test_what_passes_is_tried_again(serve, what):
    server = serve(trouble=after_start(what, 2))
    source = connect(server)
    before = source.usage.requests
    assert write(source, ASK[0])[0][0].text == " yes"
    assert source.usage.requests == before + 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_does_not_pass_is_not_tried_again(serve, status):
    server = serve(trouble=after_start(str(status), 9))
    source = connect(server)
    before = source.usage.requests
    with pytest.raises(EndpointError, match=rf"/v1/completions.*HTTP {status}: for now") as caught:
        write(source, ASK[0])
    assert caught.value.status == status and source.usage.requests == before + 1


ODD = [None, 1, "x", [], {}, [1], [{}], {"content": 1}, {"content": [1, {}]}, {"content": [{"top_logprobs": [1, {}]}]},
       {"tokens": ["a"], "token_logprobs": ["x"]}, {"tokens": [1], "token_logprobs": [None], "top_logprobs": [[]]},
       {"top_logprobs": [{"a": "x"}]}, {"content": [{"token": 3, "bytes": [999], "logprob": True}]}]  # fmt: skip


@pytest.mark.parametrize("route", ["completions", "chat"])
def test_replies_of_any_form_are_read_or_refused(route):
    for one in ODD:
        for name in ("message", "text", "logprobs", "finish_reason", "usage"):
            choice = {"text": "a", "message": {"content": "a"}, "logprobs": None} | {name: one}
            reply = {"choices": [choice], "usage": one if name == "usage" else None}
            said = endpoint_messages.written(reply, route, FREE, logprobs=True)
            assert isinstance(said.text, str) and said.tokens >= 0
            assert endpoint_probe.echo_fault(reply, "a b") is not None
            assert endpoint_probe.step_fault(reply) is not None
    halves = {"choices": [{"text": "a\ud800b", "message": {"content": "a\ud800b"}}]}
    assert endpoint_messages.written(halves, route, FREE, logprobs=False).text == "a\ufffdb"


BODIES = [b"", b"<html>", b"[1]", b"null", b"[" * 100_000, b'{"choices": {}}', b'{"error": 1}', b'{"choices": [1]}',
          b"\xff\xfe", b'{"error": {"message": "\x1b[31m"}}']  # fmt: skip


@pytest.mark.parametrize("content", BODIES)
def test_bodies_of_any_form_are_trouble(content):
    assert isinstance(endpoint_client._read(content, True), endpoint_client._Trouble)
    assert isinstance(endpoint_client._message(content), str)


def test_tries_come_to_an_end(serve):
    server = serve(trouble=after_start("500", 99))
    source = connect(server, retries=2)
    with pytest.raises(EndpointError, match=r"after 3 tries.*HTTP 500.*server's log"):
        write(source, ASK[0])


def test_a_used_up_account_is_not_tried_again(serve):
    server = serve()
    source = connect(server)
    usual = server.reply

    def broke(route, body):
        from reprogram.testing.json_server import RefusedError

        if "sky" in json.dumps(body):
            raise RefusedError(429, "insufficient_quota")
        return usual(route, body)

    server.reply = broke
    before = source.usage.requests
    with pytest.raises(EndpointError, match="insufficient_quota"):
        write(source, ASK[0])
    assert source.usage.requests == before + 1


def test_a_server_that_asks_for_too_much_patience(serve):
    server = serve(trouble=after_start("429 retry-after=3600", 9))
    with pytest.raises(EndpointError, match="asks to wait 3600 s"):
        write(connect(server), ASK[0])


def test_a_wish_to_wait_holds_for_all(serve):
    server = serve(trouble=after_start("429 retry-after=0.3", 1))
    source = connect(server, concurrency=1)
    began = time.monotonic()
    write(source, ASK[0], "And so?")
    assert time.monotonic() - began >= 0.3


def test_no_reply_in_time(serve):
    server = serve(trouble=after_start("slow 1", 9))
    source = connect(server, timeout=0.1, retries=1)
    with pytest.raises(EndpointError, match=r"after 2 tries.*no reply in time"):
        write(source, ASK[0])


def test_retry_after_may_be_a_date():
    from email.utils import formatdate

    wait = retry_after({"retry-after": formatdate(time.time() + 30, usegmt=True)})
    assert wait is not None and 28 <= wait <= 30
    assert retry_after({}) is None


def test_what_was_answered_before_a_failure_is_kept(serve):
    prompts = [f"Number {i}?" for i in range(12)]
    bad = threading.Event()
    server = serve(trouble=lambda n, body: "400" if body.get("prompt") == "Number 7?" and not bad.is_set() else None)
    source = connect(server, concurrency=3)
    with pytest.raises(EndpointError, match=r"HTTP 400.* of 12 answers came and are kept in the cache") as caught:
        write(source, *prompts)
    assert caught.value.status == 400
    bad.set()
    assert server.settled()
    write(connect(server), *prompts)
    asked = [b.get("prompt") for b in server.answered() if b.get("prompt", "").startswith("Number")]
    assert sorted(asked) == sorted(prompts)  # each was answered once


def test_budgets_end_a_run_and_keep_what_came(serve):
    prompts = [f"Number {i}?" for i in range(8)]
    server = serve()
    start = connect(server, cache=False).usage.requests
    source = connect(server, max_requests=start + 5)
    with pytest.raises(BudgetError, match=r"max_requests.*allow more.* 5 of 8 answers"):
        write(source, *prompts)
    assert source.usage.requests == start + 5
    assert len(write(connect(server), *prompts)) == 8
    assert server.settled() and len([b for b in server.answered() if b.get("prompt", "").startswith("Number")]) == 8
    with pytest.raises(BudgetError, match="max_tokens"):
        write(connect(server, max_tokens=100, concurrency=1, cache=False), *prompts, *ASK)


def test_equal_questions_are_asked_once(serve):
    server = serve()
    for cache in (False, True):
        source = connect(server, cache=cache)
        before = len(server.answered())
        write(source, *["Is it so?"] * 5)
        assert server.settled() and len(server.answered()) == before + 1


def test_threads_that_ask_the_same_ask_once(serve):
    server = serve(trouble=after_start("slow 0.2", 1))
    source = connect(server, cache=False)
    found = []
    threads = [threading.Thread(target=lambda: found.append(write(source, ASK[0])[0][0].text)) for _ in range(4)]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert found == [" yes"] * 4
    assert server.settled() and len([b for b in server.answered() if b.get("prompt") == ASK[0]]) == 1


def test_the_rate_is_kept(serve):
    server = serve()
    source = connect(server, rate=3000, cache=False)
    began = time.monotonic()
    write(source, *[f"{i}?" for i in range(11)])
    assert time.monotonic() - began >= 10 * 60 / 3000


def test_what_it_costs_is_counted(serve):
    server = serve()
    prices = Prices(prompt=1_000_000, completion=2_000_000)
    source = connect(server, prices=prices)
    start = source.usage
    write(source, ASK[0])
    used, tokens = source.usage, len(server.model.tokens(ASK[0]))
    assert used.requests - start.requests == 1 and used.hits == 0
    assert used.prompt_tokens - start.prompt_tokens == tokens and used.seconds > start.seconds
    assert used.completion_tokens - start.completion_tokens == 1
    assert used.cost - start.cost == pytest.approx(tokens + 2)
    write(source, ASK[0])
    later = source.usage
    assert (later.requests, later.cost, later.hits) == (used.requests, used.cost, 1)
    assert later.avoided_tokens == tokens + 1 and later.avoided_cost == pytest.approx(tokens + 2)
    with pytest.raises(ConfigError, match="prices"):
        Prices(prompt=-1)
    assert Prices(prompt=2, completion=0).of(1_000_000, 500_000, 9) == 2


def test_a_model_that_changes_under_way_is_told(serve, caplog):
    server = serve(system="fp_1")
    source = connect(server)
    server.quirks = Quirks(system="fp_2")
    write(source, "Is it so?")
    write(source, "And so?")
    assert len(source.notes) == 1 and "system_fingerprint" in caplog.text


def test_ctrl_c_ends_a_batch_at_once_and_keeps_what_came(serve):
    server = serve(trouble=lambda n, body: "hold" if body.get("prompt", "").startswith("Hold") else None)
    source = connect(server)
    began = time.monotonic()

    def interrupt():
        while len([b for b in server.answered() if b.get("prompt", "").startswith("Go")]) < 3:
            time.sleep(0.01)
        time.sleep(0.05)
        os.kill(os.getpid(), 2)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        write(source, "Go 1", "Go 2", "Go 3", "Hold 1", "Hold 2")
    assert time.monotonic() - began < 5
    thread.join()
    again = connect(server)
    before = len(server.answered())
    write(again, "Go 1", "Go 2", "Go 3")
    assert len(server.answered()) == before and again.usage.hits == 3


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    import sys

    from reprogram.core.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtraError, match=r"reprogram\[endpoint\]"):
        load_source("endpoint/http://127.0.0.1:9/v1")


def test_the_fake_model_is_a_distribution():
    model = FakeModel(WORDS, RULES)
    for context in (b"", b"Is the sky blue?", b"x"):
        assert sum(math.exp(v) for v in model.next(context).values()) == pytest.approx(1)
    assert b"".join(model.tokens("Is the sky \u00e4?")).decode() == "Is the sky \u00e4?"
    assert model.greedy("Is the sky blue?", 5) == ([b" yes"], True)
