"""Image classifiers behind a real HTTP server: the scores are the model's own, or an error says why not."""

import threading
from dataclasses import replace

import pytest
import torch

import reprogram as rp
from reprogram.catalogue import find
from reprogram.core.errors import ArtifactError, CapabilityError, ConfigError, DataError, SourceError
from reprogram.core.program import Edit, Input
from reprogram.core.source import Reading, Source
from reprogram.core.taxonomy import Location
from reprogram.core.texts import Texts
from reprogram.core.writing import Writing
from reprogram.sources import BudgetError, EndpointError, EndpointImageSource, EndpointSource, Prices, endpoint_client
from reprogram.sources import load_source as load
from reprogram.testing import check_method, tiny_source, tiny_task
from reprogram.testing.fake_server import FakeServer
from reprogram.testing.image_server import ImageQuirks, ImageServer

PICTURES = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(3))
NOTHING = Input()


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setattr(endpoint_client, "FIRST_WAIT", 0.005)
    monkeypatch.setenv("REPROGRAM_CACHE", str(tmp_path))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "REPROGRAM_API_KEY", "REPROGRAM_API_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def model():
    return tiny_source()


@pytest.fixture
def serve(model):
    opened = []

    def make(trouble=None, own=model, port=0, **quirks):
        server = ImageServer(own, quirks=ImageQuirks(**quirks), trouble=trouble, port=port)
        opened.append(server.__enter__())
        return server

    yield make
    for server in opened:
        server.__exit__()


def connect(server, **options):
    return load(f"endpoint/{server.url}", **options)


def right(model, x=PICTURES):
    return model(x, NOTHING).logits.log_softmax(1)


def first(word, times=1):
    return lambda number: word if number < times else None


# -- what it is --------------------------------------------------------------------------------------------------------


def test_it_is_a_source_of_scores_and_nothing_else(serve, model):
    source = connect(serve())
    assert isinstance(source, Source) and isinstance(source, EndpointImageSource)
    assert source.spec.modality == "image" and source.spec.input_shape == (3, 16, 16) and source.spec.resizable
    assert source.spec.outputs == 12 and source.spec.labels == model.spec.labels
    assert dict(source.sites) == {"input": Location.INPUT} and source.capabilities == frozenset()
    assert source.to("cpu") is source and source.device.type == "cpu"
    for reading in (Reading(features=True), Reading(choices=("a",)), Reading(writing=Writing()), Reading(local=True)):
        with pytest.raises(CapabilityError, match="must give"):
            source(PICTURES, NOTHING, reading)
        with pytest.raises(CapabilityError, match="must give"):
            source.attach([], reading)
    for wrong in ({"sites": ["hidden.0"]}, {"sites": [], "reading": Reading(sites=("hidden.0",))}):
        with pytest.raises(CapabilityError, match='must be "input"'):
            source.attach(**wrong)
    with pytest.raises(CapabilityError, match="language model"):
        source(Texts({"text": ("a",)}), NOTHING)


def test_its_reference_loads_it_again(serve):
    server = serve(gives="logits")
    source = load(f"endpoint/{server.url}?as=image&pixels=png&batch=3&size=16")
    again = load(source.spec.ref)
    assert again.spec == source.spec and again.fingerprint() == source.fingerprint()
    assert (again.facts.pixels, again.facts.batch, again.spec.resizable) == ("png", 3, False)


def test_the_fingerprint_is_the_models_and_not_the_places(serve, model):
    one = connect(serve())
    assert connect(serve()).fingerprint() == one.fingerprint()
    assert connect(serve(own=tiny_source(seed=1))).fingerprint() != one.fingerprint()
    assert connect(serve(gives="logits")).fingerprint() != one.fingerprint()
    silent = [load(f"endpoint/{serve(described=False).url}?classes=12&size=16") for _ in range(2)]
    assert silent[0].fingerprint() != silent[1].fingerprint()  # nothing but the address tells them apart


@pytest.mark.parametrize("form", ["json", "multipart"])
@pytest.mark.parametrize("gives", ["logits", "probabilities", "top", "label"])
def test_scores_are_the_models(serve, model, gives, form):
    server = serve(gives=gives, batch=5, top=12)
    got = connect(server, format=form)(PICTURES, NOTHING).logits
    seen = PICTURES if form == "json" else (PICTURES * 255).round() / 255
    wanted = right(model, seen)
    if gives == "label":
        assert torch.equal(got.argmax(1), wanted.argmax(1))
        assert torch.equal(got.amax(1), torch.zeros(12)) and (got < -18).sum() == 12 * 11
    else:
        torch.testing.assert_close(got.log_softmax(1), wanted, atol=2e-5, rtol=0)
    if gives == "logits":
        torch.testing.assert_close(got, model(seen, NOTHING).logits, atol=1e-5, rtol=0)
    assert server.statuses == [200] * 3


def test_bytes_are_the_pixels_they_mean(serve, model):
    small = (PICTURES * 255).to(torch.uint8)
    got = connect(serve())(small, NOTHING).logits
    torch.testing.assert_close(got, right(model, small.float() / 255), atol=2e-5, rtol=0)
    assert connect(serve())(small[:0], NOTHING).logits.shape == (0, 12)


def test_a_png_loses_small_changes_and_floats_do_not(serve):
    server = serve(gives="logits")
    base = (PICTURES[:1] * 255).round() / 255
    moved = base + 0.4 / 255
    exact, rounded = connect(server), connect(server, pixels="png")
    assert not torch.equal(exact(base, NOTHING).logits, exact(moved, NOTHING).logits)
    assert torch.equal(rounded(base, NOTHING).logits, rounded(moved, NOTHING).logits)
    over = exact(base + 0.5, NOTHING).logits  # what an edit adds above white is not clipped
    assert not torch.allclose(over, exact((base + 0.5).clamp(0, 1), NOTHING).logits)


def test_edits_act_before_pictures_are_sent_and_can_be_read(serve, model):
    class Darker(Edit):
        site = "input"
        operators = frozenset()

        def __init__(self):
            super().__init__()
            self.by = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, value):
            return value * self.by

    said = connect(serve())(PICTURES, Input(Darker()), Reading(sites=("input",)))
    torch.testing.assert_close(said.logits, right(model, PICTURES / 2), atol=2e-5, rtol=0)
    assert torch.equal(said.at["input"], PICTURES / 2)
    assert not said.logits.requires_grad and not said.at["input"].requires_grad


def test_sizes_are_checked_before_anything_is_sent(serve, model):
    server = serve()
    fixed = load(f"endpoint/{server.url}?size=16")
    for wrong in (PICTURES[:, :, :8], PICTURES[:, :1], PICTURES[0]):
        with pytest.raises(CapabilityError, match=r"must be \[3, 16, 16\]"):
            fixed(wrong, NOTHING)
    with pytest.raises(CapabilityError, match="finite"):
        fixed(PICTURES * float("nan"), NOTHING)
    assert server.statuses == []
    larger = torch.rand(2, 3, 20, 20)
    torch.testing.assert_close(connect(server)(larger, NOTHING).logits, right(model, larger), atol=2e-5, rtol=0)


# -- which server it is ------------------------------------------------------------------------------------------------


def test_language_models_are_found_at_addresses_too(serve):
    with FakeServer() as server:
        assert isinstance(connect(server, pictures=False), EndpointSource)
        assert isinstance(load(f"endpoint/{server.url}"), EndpointSource)
        assert isinstance(load(f"endpoint/{server.url}?as=text"), EndpointSource)
        with pytest.raises(ConfigError, match="`classes` must be known"):
            load(f"endpoint/{server.url}?as=image")
    with pytest.raises(SourceError):
        load(f"endpoint/{serve().url}?as=text", retries=0)
    with pytest.raises(SourceError, match='must be "image" or "text"'):
        load("endpoint/http://127.0.0.1:1?as=sound")
    with pytest.raises(EndpointError, match="Start the server"):
        load("endpoint/http://127.0.0.1:1", retries=0)


def test_a_server_that_says_nothing_needs_options(serve, model, tmp_path):
    url = serve(described=False).url
    with pytest.raises(ConfigError, match="classes"):
        load(f"endpoint/{url}?as=image")
    with pytest.raises(ConfigError, match="size"):
        load(f"endpoint/{url}?classes=12")
    source = load(f"endpoint/{url}?classes=12&size=16")
    assert source.facts.field == "image" and not source.facts.listed and source.facts.pixels == "png"
    seen = (PICTURES * 255).round() / 255
    torch.testing.assert_close(source(PICTURES, NOTHING).logits, right(model, seen), atol=2e-5, rtol=0)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(model.spec.labels) + "\n", encoding="utf-8")
    assert load(f"endpoint/{url}", labels=str(names), size=16).spec.labels == model.spec.labels
    with pytest.raises(SourceError, match="labels"):
        load(f"endpoint/{url}", labels="/nowhere", size=16)
    with pytest.raises(ConfigError, match="one number"):
        load(f"endpoint/{url}", labels=["a", "b"], classes=12, size=16)
    with pytest.raises(ConfigError, match="one number"):
        load(f"endpoint/{serve().url}", classes=11)


@pytest.mark.parametrize(
    "options, kind, message",
    [
        ({"classes": 1}, ConfigError, "classes"),
        ({"size": "64.5"}, ConfigError, "size"),
        ({"gives": "smiles"}, ConfigError, "gives"),
        ({"batch": 0}, ConfigError, "batch"),
        ({"floor": 0.0}, ConfigError, "floor"),
        ({"format": "multipart", "pixels": "float32"}, ConfigError, "in a form"),
        ({"max_queries": 0}, ConfigError, "max_queries"),
        ({"gives": "top", "temperature": 1}, SourceError, "temperature"),
    ],
)
def test_options_are_checked(serve, options, kind, message):
    with pytest.raises(kind, match=message):
        connect(serve(), kind="image", **options)


@pytest.mark.parametrize(
    "change",
    [{"labels": "a"}, {"outputs": "12"}, {"outputs": -1}, {"input_shape": [1, 2]}, {"input_shape": [3, 0, 9]},
     {"input_shape": [1, 8, 8]}, {"gives": "smiles"}, {"batch": 10**9}, {"pixels": ["jpeg"]}, {"formats": "post"}],
)  # fmt: skip
def test_descriptions_that_make_no_sense(serve, monkeypatch, change):
    server = serve()
    about = server.description() | change
    monkeypatch.setattr(ImageServer, "description", lambda _: about)
    with pytest.raises(EndpointError):
        connect(server)


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["429", "429 retry-after=0.01", "500", "503", "cut", "drop"])
def test_what_passes_is_tried_again(serve, model, word):
    server = serve(first(word, 2))
    source = connect(server)
    torch.testing.assert_close(source(PICTURES, NOTHING).logits, right(model), atol=2e-5, rtol=0)
    assert source.usage.requests == 3
    assert source.usage.pictures == 36  # what was sent again counts again


def test_a_late_answer_is_asked_for_again(serve, model):
    source = connect(serve(first("slow 1")), timeout=0.2)
    torch.testing.assert_close(source(PICTURES, NOTHING).logits, right(model), atol=2e-5, rtol=0)
    late = connect(serve(lambda _: "hold"), timeout=0.1, retries=1, cache=False)
    with pytest.raises(EndpointError, match=r"after 2 tries, got 'no reply in time'.*0 of 12 answers came"):
        late(PICTURES, NOTHING)


@pytest.mark.parametrize(
    "word, quirks, message",
    [
        ("classes 7", {}, "a score for each of 12 classes, got '7 scores'"),
        ("classes 13", {"gives": "logits"}, "a score for each of 12 classes, got '13 scores'"),
        ("nan", {}, "must be finite"),
        ("odd", {}, "must have one of answers"),
        ("fewer", {}, "an answer for each of 2 pictures, got '1 answers'"),
        ("other", {}, "It was replaced"),
        ("stranger", {"gives": "label"}, "must be one of the 12 classes, got 'no such class'"),
        ("stranger", {"gives": "top"}, "must be one of the 12 classes, got 'no such class'"),
        ("400", {}, "HTTP 400"),
    ],
)
def test_a_server_that_changes_half_way_is_told_and_what_came_is_kept(serve, word, quirks, message):
    server = serve(lambda number: word if number >= 2 else None, batch=2, **quirks)
    source = connect(server, concurrency=1)
    with pytest.raises(EndpointError, match=message) as caught:
        source(PICTURES, NOTHING)
    assert "4 of 12 answers came and are kept" in str(caught.value)
    asked = server.pictures
    connect(server)(PICTURES[:4], NOTHING)
    assert server.pictures == asked


@pytest.mark.parametrize("gives, wrong", [("logits", "probabilities"), ("top", "probabilities"), ("label", "logits"),
                                          ("probabilities", "top")])  # fmt: skip
def test_answers_of_another_kind_than_was_said(serve, gives, wrong):
    with pytest.raises(EndpointError, match="gives="):
        connect(serve(gives=gives), gives=wrong)(PICTURES, NOTHING)


def test_keys_go_to_the_host_that_the_user_named(serve, model, monkeypatch):
    server = serve(key="secret")
    with pytest.raises(SourceError):
        connect(server)  # it says nothing to strangers
    monkeypatch.setenv("MY_KEY", "secret")
    source = connect(server, key_env="MY_KEY")
    torch.testing.assert_close(source(PICTURES, NOTHING).logits, right(model), atol=2e-5, rtol=0)
    monkeypatch.setenv("MY_KEY", "wrong one")
    bad = connect(server, key_env="MY_KEY", kind="image", classes=12, size=16, cache=False)
    with pytest.raises(EndpointError, match="does not accept the key") as caught:
        bad(PICTURES, NOTHING)
    assert "wrong one" not in str(caught.value)


# -- what it costs -----------------------------------------------------------------------------------------------------


def test_the_budget_is_kept_and_what_was_paid_for_too(serve, model):
    server = serve(batch=4)
    source = connect(server, max_queries=10, concurrency=1, prices=Prices(picture=1e6))
    source(PICTURES[:8], NOTHING)
    with pytest.raises(BudgetError, match="max_queries` allows 10 pictures, got '8 sent and 4 to send'"):
        source(PICTURES, NOTHING)
    assert server.pictures == 8 and source.usage.pictures == 8 and source.usage.cost == 8.0
    source(PICTURES[:8], NOTHING)  # costs nothing
    assert source.usage.hits == 8
    more = connect(server, max_queries=4)
    torch.testing.assert_close(more(PICTURES, NOTHING).logits, right(model), atol=2e-5, rtol=0)
    assert server.pictures == 12 and (more.usage.pictures, more.usage.hits) == (4, 8)


def test_failures_eat_the_budget_too(serve):
    source = connect(serve(lambda _: "500"), max_queries=30)
    with pytest.raises(BudgetError, match="got '24 sent and 12 to send'"):
        source(PICTURES, NOTHING)


def test_equal_pictures_are_asked_about_once(serve):
    server = serve()
    source = connect(server, cache=False)
    got = source(PICTURES[[0, 1, 0, 0]], NOTHING).logits
    assert server.pictures == 2 and torch.equal(got[0], got[2]) and torch.equal(got[0], got[3])
    assert (source.usage.pictures, source.usage.hits) == (2, 2)
    source(PICTURES[:2], NOTHING)
    assert server.pictures == 4  # without a cache


def test_another_way_of_asking_has_answers_of_its_own(serve):
    server = serve()
    for options in ({}, {"pixels": "png"}, {"floor": 1e-3}):
        before = server.pictures
        connect(server, **options)(PICTURES, NOTHING)
        assert server.pictures == before + 12


def test_a_damaged_answer_is_asked_for_again(serve, model):
    server = serve()
    source = connect(server)
    source(PICTURES, NOTHING)
    source._cache._db.execute("UPDATE replies_1 SET value = '\"abc\"'")
    torch.testing.assert_close(source(PICTURES, NOTHING).logits, right(model), atol=2e-5, rtol=0)
    assert server.pictures == 24


def test_requests_go_out_side_by_side_and_answers_come_in_order(serve, model):
    server = serve(lambda number: f"slow {0.05 if number % 2 else 0.01}", batch=1)
    got = connect(server, concurrency=4)(PICTURES, NOTHING).logits
    torch.testing.assert_close(got, right(model), atol=2e-5, rtol=0)
    assert 2 <= server.most_at_once <= 4


def test_several_threads_may_ask(serve, model):
    source, got = connect(serve(batch=3)), {}

    def ask(i):
        got[i] = source(PICTURES.roll(i, 0), NOTHING).logits

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        torch.testing.assert_close(got[i], right(model).roll(i, 0), atol=2e-5, rtol=0)


def test_what_was_asked_is_counted(serve):
    source = connect(serve(batch=4))
    source(PICTURES, NOTHING)
    used = source.usage
    assert (used.requests, used.pictures, used.hits, used.prompt_tokens) == (3, 12, 0, 0)
    assert used.sent > 12 * 3 * 16 * 16 * 4 and used.received > 12 * 12 and used.seconds > 0
    source.close()


# -- programs ----------------------------------------------------------------------------------------------------------


def test_a_label_map_is_the_same_as_on_the_source_itself(serve, model):
    task, fitted = tiny_task(), {}
    for name, source in (("here", model), ("there", connect(serve(gives="logits")))):
        program = rp.build("no_edit", source, task, mapping="frequency", canvas=16)
        fitted[name] = rp.fit(program, task)
    assert torch.equal(fitted["here"].program.output.index, fitted["there"].program.output.index)
    assert fitted["here"].test.accuracy == fitted["there"].test.accuracy


def test_the_contract_holds_for_a_label_map(serve):
    check_method(find("no_edit"), source=connect(serve()), canvas=16)


def test_what_learns_by_gradients_is_refused(serve):
    with pytest.raises(CapabilityError, match="gradients"):
        rp.build("ilm_vp", connect(serve()), tiny_task())


def test_a_run_that_was_cut_short_asks_for_the_rest_only(serve):
    task = tiny_task()
    server = serve(own=tiny_source(seed=9), batch=4)  # of a model that this process has no outputs of yet
    poor = connect(server, max_queries=35)
    with pytest.raises(BudgetError, match="35 pictures"):
        rp.fit(rp.build("no_edit", poor, task, canvas=16), task)
    assert 0 < server.pictures <= 35
    rich = connect(server)
    assert rp.fit(rp.build("no_edit", rich, task, canvas=16), task).test is not None
    assert server.pictures == 48 == sum(map(len, task.splits.values()))


def test_a_program_file_names_the_server_but_sends_it_nothing(serve, tmp_path):
    server, task = serve(), tiny_task()
    source, path = connect(server, cache=False), tmp_path / "p.safetensors"
    program = rp.fit(rp.build("no_edit", source, task, canvas=16), task, out=path).program
    asked, gets = server.pictures, []
    server.description = lambda: gets.append(1)
    with pytest.raises(ArtifactError, match="nothing is sent there unasked"):
        rp.load(path)
    assert server.pictures == asked and gets == []
    del server.description
    again = rp.load(path, source=connect(server, cache=False))
    x = task.test.fetch(torch.arange(4))
    assert torch.equal(again.predict(x).scores, program.predict(x).scores)
    elsewhere = connect(serve(), cache=False)  # the same model at another port
    assert torch.equal(rp.load(path, source=elsewhere).predict(x).scores, program.predict(x).scores)
    other = connect(serve(own=tiny_source(seed=1)))
    with pytest.raises(SourceError):
        rp.load(path, source=other)


def test_predicting_files(serve, tmp_path):
    from reprogram.media import to_picture

    task, source = tiny_task(), connect(serve())
    program = rp.fit(rp.build("no_edit", source, task, canvas=16), task).program
    to_picture(task.test.pictures(torch.tensor([0]))[0]).save(tmp_path / "a.png")
    assert program.predict([str(tmp_path / "a.png")]).scores.shape == (1, 3)
    with pytest.raises(DataError):
        program.predict([str(tmp_path / "none.png")])


def test_facts_can_be_looked_at(serve):
    facts = connect(serve()).facts
    assert facts.model.startswith("module:TinyNet ")
    assert replace(facts, model="").fingerprint("a") != replace(facts, model="").fingerprint("b")
