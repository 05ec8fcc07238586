"""The cache of answers: kept by one process for all, whatever happens to the file."""

import json
import logging
import multiprocessing
import os
import sqlite3
import stat
import threading
import time

import pytest
import torch

from reprogram.core.errors import SourceError
from reprogram.core.writing import PICTURE
from reprogram.sources.endpoint_asking import Question
from reprogram.sources.endpoint_cache import SCHEMA, ReplyCache, digest
from reprogram.sources.endpoint_messages import messages


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "replies.sqlite3"


def rows(path):
    db = sqlite3.connect(path)
    try:
        return db.execute(f"SELECT key, value FROM replies_{SCHEMA} ORDER BY at, rowid").fetchall()
    finally:
        db.close()


def test_what_is_put_is_there_for_the_next_one(path):
    cache = ReplyCache(path)
    cache.put("a", {"text": "\u202eä\x00", "n": [1, None, 2.5]})
    cache.put("b", 2)
    cache.put("b", 3)
    assert cache.get(["a", "b", "c"]) == {"a": {"text": "\u202eä\x00", "n": [1, None, 2.5]}, "b": 3}
    assert len(cache) == 2 and cache.get([]) == {}
    cache.close()
    again = ReplyCache(path)
    assert again.get(["a"])["a"]["n"] == [1, None, 2.5] and len(again) == 2


def test_many_keys_at_once(path):
    cache = ReplyCache(path)
    for i in range(1201):
        cache.put(str(i), i)
    assert cache.get([str(i) for i in range(1300)]) == {str(i): i for i in range(1201)}


def test_the_file_is_its_owners_and_holds_json_text_only(path):
    ReplyCache(path).put("a", {"x": 1})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (key, value), = rows(path)  # fmt: skip
    assert key == "a" and json.loads(value) == {"x": 1}
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


def test_values_that_are_no_json_are_not_kept(path):
    cache = ReplyCache(path)
    with pytest.raises(TypeError):
        cache.put("a", {"x": object()})
    assert len(cache) == 0


@pytest.mark.parametrize(
    "data", [b"not a database at all, but long enough to be one" * 100, b"SQLite format 3\x00" + bytes(4096)]
)
def test_a_file_that_is_none_of_ours_is_moved_aside(path, data, caplog):
    path.parent.mkdir()
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        cache = ReplyCache(path)
    cache.put("a", 1)
    assert cache.get(["a"]) == {"a": 1}
    aside = [p for p in path.parent.iterdir() if ".damaged-" in p.name]
    assert [p.read_bytes() for p in aside] == [data] and "damaged" in caplog.text


def test_a_file_that_is_damaged_later_is_moved_aside(path, caplog):
    cache = ReplyCache(path)
    for i in range(400):
        cache.put(f"{i}", "x" * 500)
    cache.close()
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)
    again = ReplyCache(path)
    assert again.get([str(i) for i in range(400)]) == {}
    again.put("a", 1)
    assert again.get(["a"]) == {"a": 1} and "damaged" in caplog.text


def test_an_empty_file_is_a_new_one(path):
    path.parent.mkdir()
    path.touch()
    ReplyCache(path).put("a", 1)
    assert len(list(rows(path))) == 1


def test_a_damaged_answer_is_asked_for_again(path, caplog):
    cache = ReplyCache(path)
    cache.put("a", {"x": 1})
    db = sqlite3.connect(path)
    db.execute(f"UPDATE replies_{SCHEMA} SET value = '{{\"x\": '")
    db.commit()
    db.close()
    assert cache.get(["a"]) == {} and "asked for again" in caplog.text


def test_a_place_that_cannot_be_written_to_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match=r"REPROGRAM_CACHE.*cache=False"):
        ReplyCache(tmp_path / "file" / "replies.sqlite3")
    (tmp_path / "replies").mkdir()
    with pytest.raises(SourceError, match="can be written to"):
        ReplyCache(tmp_path / "replies")


def test_the_oldest_go_first(path):
    cache = ReplyCache(path, limit=20_000)
    for i in range(60):
        cache.put(str(i), "x" * 998)
    assert cache.size() <= 21_000
    kept = sorted(int(key) for key, _ in rows(path))
    assert kept == list(range(60 - len(kept), 60)) and len(kept) >= 18
    cache.close()
    assert ReplyCache(path, limit=5_000).size() <= 5_000


def test_threads_share_it(path):
    cache = ReplyCache(path)

    def work(name):
        for i in range(50):
            cache.put(f"{name}-{i}", i)
            assert cache.get([f"{name}-{i}"]) == {f"{name}-{i}": i}

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache) == 200


def _fill(path, name):
    cache = ReplyCache(path)
    for i in range(40):
        cache.put(f"{name}-{i}", i)
    cache.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12
def test_processes_share_it(path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_fill, args=(path, name)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(ReplyCache(path)) == 120


def _put_and_wait(path, ready):
    cache = ReplyCache(path)
    for i in range(30):
        cache.put(str(i), i)
    ready.set()
    time.sleep(60)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12
def test_what_was_put_survives_a_kill(path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    worker = context.Process(target=_put_and_wait, args=(path, ready))
    worker.start()
    assert ready.wait(30)
    worker.kill()
    worker.join(10)
    assert ReplyCache(path).get([str(i) for i in range(30)]) == {str(i): i for i in range(30)}


# -- keys --------------------------------------------------------------------------------------------------------------


def test_keys_differ_where_answers_may():
    body = {"prompt": "a", "max_tokens": 3, "temperature": 0.0}
    base = Question("completions", body)
    others = [Question("chat", body), Question("completions", body, sample=1)]
    more = ({"prompt": "b"}, {"seed": 1}, {"structured_outputs": {"regex": "a"}})
    others += [Question("completions", body | one) for one in more]
    keys = {base.key("model"), base.key("other model"), *(other.key("model") for other in others)}
    assert len(keys) == 7
    assert base.key("model") == Question("completions", dict(reversed(body.items()))).key("model")


def test_pictures_count_by_their_hash():
    def key(value):
        picture = torch.full((3, 8, 8), value, dtype=torch.uint8)
        return Question("chat", {"messages": messages(f"a{PICTURE}", (picture,))}).key("model")

    assert key(1) == key(1) != key(2)


def test_digests_are_of_canonical_json():
    assert digest({"a": [1, "ä"]}) == digest(json.loads('{"a": [1, "\\u00e4"]}'))
    assert digest(1) != digest("1") != digest([1])
    with pytest.raises(ValueError, match="JSON"):
        digest(float("nan"))
