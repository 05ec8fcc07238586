"""Passages: BM25 against the formula written out, files of both kinds, near duplicates."""

import json
import math
import random

import pytest

from reprogram.core.errors import DataError
from reprogram.inputs.retrieval import Passage, Passages, Retriever, near_duplicate, overlap, read_passages
from reprogram.inputs.selection_bm25 import words

pytest.importorskip("bm25s")


def reference(passages, query, k1=1.5, b=0.75):
    """Scores word by word."""
    texts = [words(f"{p.title} {p.text}") for p in passages]
    mean = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        total = 0.0
        for word in words(query):
            holding = sum(word in other for other in texts)
            if not holding:
                continue
            rarity = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
            count = text.count(word)
            total += rarity * count / (count + k1 * (1 - b + b * len(text) / mean))
        scores.append(total)
    return scores


def test_the_ranking_is_bm25():
    draw = random.Random(0)
    names = ["river", "hill", "sea", "town", "king", "queen", "fish", "bread", "stone", "year"]
    passages = [Passage(draw.choice(names), " ".join(draw.choices(names, k=draw.randint(3, 30)))) for _ in range(40)]
    found = Passages(passages)
    assert isinstance(found, Retriever)
    for _ in range(20):
        query = " ".join(draw.choices([*names, "unknown"], k=draw.randint(1, 4)))
        scores = reference(passages, query)
        wanted = [i for i in sorted(range(40), key=lambda i: -scores[i]) if scores[i] > 0][:7]
        got = [next(i for i, p in enumerate(passages) if p is one) for one in found.retrieve(query, 7)]
        assert [scores[i] for i in got] == pytest.approx([scores[i] for i in wanted], rel=1e-5)


def test_nothing_is_found_without_a_common_word():
    found = Passages([Passage("Danube", "a river"), Passage("Rila", "a mountain")])
    assert found.retrieve("whale", 2) == [] and found.retrieve("?!", 2) == []
    assert [p.title for p in found.retrieve("The RIVER", 5)] == ["Danube"]
    assert found.digest() == Passages([Passage("Danube", "a river"), Passage("Rila", "a mountain")]).digest()
    assert found.digest() != Passages([Passage("Danube", "a river")]).digest()
    with pytest.raises(DataError):
        Passages([])
    with pytest.raises(DataError):
        Passages([Passage("", "...")])


def test_a_folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.txt").write_text("one two\n\nthree\n \n" + "long " * 250 + "\n\nlast")
    (tmp_path / "deep" / "a.md").write_text("# The title\n\nSome text.\n\n## More\nOther text.")
    (tmp_path / "c.csv").write_text("no")
    (tmp_path / "empty.txt").write_text("\n")
    found = read_passages(tmp_path)
    assert [(p.title, len(p.text.split())) for p in found] == [("b", 3), ("b", 250), ("b", 1), ("The title", 4)]
    assert found[0].text == "one two\nthree" and found[3].text == "Some text.\nOther text."
    assert read_passages(str(tmp_path)) == found


def test_json_lines(tmp_path):
    file = tmp_path / "kb.jsonl"
    file.write_text('{"title": "A", "text": "x", "id": 3}\n\n{"text": "y"}\n')
    assert read_passages(file) == [Passage("A", "x"), Passage("", "y")]
    for line in ('{"text": 3}', "[1]", "{", '{"title": "A"}', '{"text": " "}', '{"title": 1, "text": "a"}'):
        file.write_text('{"text": "fine"}\n' + line)
        with pytest.raises(DataError, match="line 2"):
            read_passages(file)


def test_what_is_no_corpus(tmp_path):
    with pytest.raises(DataError, match="folder"):
        read_passages(tmp_path / "none")
    with pytest.raises(DataError, match="texts"):
        read_passages(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match="UTF-8"):
        read_passages(tmp_path)


def test_near_duplicates():
    text = " ".join(f"word{i}" for i in range(60))
    one = Passage("T", text)
    assert near_duplicate(one, Passage("t.", text + " more"))
    assert not near_duplicate(one, Passage("U", text))
    assert not near_duplicate(one, Passage("T", text.replace("word30", "x").replace("word10", "x")))
    assert overlap("", "") == 1.0 and overlap("a", "b") == 0.0 and overlap("a b c d", "a b c e") == 1 / 3
    assert json.dumps(overlap("a", "a b c d")) == "0.25"
