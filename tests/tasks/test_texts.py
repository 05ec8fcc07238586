"""Text tasks: tables, folders of tables, what is in memory, data sets; and the stores behind their splits."""

import csv
import io
import json
import logging
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reprogram.core.errors import ConfigError, DataError
from reprogram.core.task import Sample, TaskSpec
from reprogram.core.texts import Texts
from reprogram.tasks import Split, Task, load_task
from reprogram.tasks.columns import TEXT_COLUMNS, choose_columns
from reprogram.tasks.options import Options
from reprogram.tasks.rows import open_table
from reprogram.tasks.strings import Strings, row_key

SST2 = Path(__file__).resolve().parents[3] / "shared" / "data" / "sst2"
TEXTS = [f"text {i}, of kind {'ab'[i % 2]}" for i in range(20)]
ROWS = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(TEXTS)]


def sizes(task):
    return [len(split) for split in task.splits.values()]


def everything(split):
    return split.fetch(torch.arange(len(split)))


def column(task, name="text"):
    return sorted(text for split in task.splits.values() for text in everything(split).columns[name])


def dump(path, rows, delimiter=",", end="\n", encoding="utf-8", **more):
    with open(path, "w", newline="", encoding=encoding) as file:
        out = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, lineterminator=end, **more)
        out.writeheader()
        out.writerows(rows)
    return path


# -- the store and the split ------------------------------------------------------------------------------------------


def test_a_split_of_texts():
    texts = Texts({"a": ("x", "yy", "zzz"), "b": ("1", "2", "")}, ("t", "uu", "vvv"))
    split = Split("train", texts, torch.zeros(3, dtype=torch.int64))
    assert (len(split), split.shape, split.counts().tolist()) == (3, (), [3])
    got = split.fetch(torch.tensor([2, 0, 0]))
    assert got.columns == {"a": ("zzz", "x", "x"), "b": ("", "1", "1")} and got.targets == ("vvv", "t", "t")
    assert split.lengths().tolist() == [3, 5, 6] and split.lengths().dtype == torch.int64
    part = split.subset(torch.tensor([1, 2]))
    assert part.lengths().tolist() == [5, 6] and part.names == ["train/1", "train/2"]
    assert part.fetch(torch.tensor([0])).row(0) == {"a": "yy", "b": "2"}
    assert repr(split) == "Split(train: 3 texts (a, b) -> targets)"
    assert split.subset(torch.empty(0, dtype=torch.int64)).lengths().tolist() == []
    with pytest.raises(DataError, match="`train` must hold pictures, got 'texts'"):
        split.pictures(torch.tensor([0]))
    with pytest.raises(DataError, match="indices"):
        split.subset(torch.tensor([3]))


def test_pictures_have_no_lengths():
    split = Split("train", torch.zeros(4, 3, 2, 2), torch.tensor([0, 1, 0, 1]))
    assert split.lengths() is None and torch.equal(split.pictures(torch.tensor([1])), torch.zeros(1, 3, 2, 2))


def test_digests_of_texts():
    labels = torch.tensor([0, 1])

    def digest(columns, targets=None, y=labels):
        return Split("train", Texts(columns, targets), y, classes=2).digest()

    one = digest({"text": ("ab", "c")})
    assert one == digest({"text": ("ab", "c")}) and len(one) == 64
    others = [
        digest({"text": ("a", "bc")}),
        digest({"text": ("c", "ab")}),
        digest({"prompt": ("ab", "c")}),
        digest({"text": ("ab", "c")}, y=labels.flip(0)),
        digest({"text": ("ab", "c")}, ("", "")),
        digest({"text": ("ab", "c")}, ("x", "y")),
        digest({"text": ("a", "c"), "text_pair": ("b", "")}),
        digest({"text": ("", "c"), "text_pair": ("ab", "")}),
    ]
    assert len({one, *others}) == len(others) + 1


@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), min_size=1, max_size=6))
def test_the_store_keeps_what_it_is_given(rows):
    store = Strings(Texts({"a": tuple(r[0] for r in rows), "b": tuple(r[1] for r in rows)}))
    back = store.fetch(torch.arange(len(rows)))
    assert [[a, b] for a, b in zip(back.columns["a"], back.columns["b"], strict=True)] == rows
    assert store.lengths().tolist() == [len(a) + len(b) for a, b in rows]
    assert [key == row_key(rows[0]) for key in store.keys()] == [row == rows[0] for row in rows]  # noqa: SIM118


# -- tasks ------------------------------------------------------------------------------------------------------------

GENERATION = Task.from_texts(TEXTS, targets=[text.upper() for text in TEXTS], name="shout")
MOOD = Task.from_texts(TEXTS, ["bad", "good"] * 10, name="mood")


def test_what_it_is():
    assert repr(MOOD) == "Task(mood: 2 classes, text, train 14, val 2, test 4)"
    assert repr(GENERATION) == "Task(shout: generation, text, train 14, val 2, test 4)"
    assert MOOD.spec == TaskSpec(
        name="mood", classes=("bad", "good"), modality="text", sample=Sample(shape=(), fit="exact", columns=("text",))
    )
    assert GENERATION.spec.generates and GENERATION.classes == () and GENERATION.spec.modality == "text"
    assert repr(MOOD.val) == "Split(val: 2 texts (text), 2 classes)"
    got = everything(GENERATION.test)
    assert got.targets == tuple(text.upper() for text in got.columns["text"])
    assert GENERATION.test.labels.tolist() == [0] * 4 and everything(MOOD.test).targets is None
    for row, text in enumerate(everything(MOOD.train).columns["text"]):
        assert MOOD.classes[MOOD.train.labels[row]] == {"a": "bad", "b": "good"}[text[-1]]


@given(st.integers(1, 14), st.integers(0, 30))
def test_few_shot_of_generation(shots, seed):
    task = GENERATION.few_shot(shots, seed)
    assert sizes(task) == [shots, min(shots, 2), 4] and task.spec == GENERATION.spec
    assert set(task.train.names) <= set(GENERATION.train.names)
    if shots < 14:
        assert set(task.train.names) < set(GENERATION.few_shot(shots + 1, seed).train.names)


def test_few_shot_and_limit():
    assert MOOD.few_shot(3).train.counts().tolist() == [3, 3]
    assert GENERATION.limit(train=5, val=1, test=3).train.counts().tolist() == [5]
    with pytest.raises(DataError, match=r"`shots` must be at most .*Too few: all \(14\)"):
        GENERATION.few_shot(15)
    with pytest.raises(ConfigError, match="`train` must be 1 or more"):
        GENERATION.limit(train=0)


def test_tasks_travel():
    for task in (MOOD, GENERATION):
        back = pickle.loads(pickle.dumps(task.few_shot(2)))  # noqa: S301 (as processes do)
        assert back.train.digest() == task.few_shot(2).train.digest()


def test_splits_of_another_kind():
    pictures = Split("val", torch.zeros(4, 3, 2, 2), torch.zeros(4, dtype=torch.int64), classes=2)
    with pytest.raises(DataError, match=r"`mood.val` must have 2 classes and texts, got \(2, \(3, 2, 2\)\)"):
        Task(MOOD.spec, {**MOOD.splits, "val": pictures})


# -- in memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "texts",
    [
        [(text, "q") for text in TEXTS],
        [[text, "q"] for text in TEXTS],
        [{"text": text, "text_pair": "q"} for text in TEXTS],
        {"text": TEXTS, "text_pair": ["q"] * 20},
        {"text": np.array(TEXTS), "text_pair": tuple("q" * 20)},
    ],
)
@pytest.mark.parametrize("labels", [[0, 1] * 10, np.arange(20) % 2, torch.arange(20) % 2, ["0", "1"] * 10])
def test_kinds_of_texts_and_labels(texts, labels):
    task = Task.from_texts(texts, labels)
    assert (task.classes, task.spec.sample.columns, sizes(task)) == (("0", "1"), ("text", "text_pair"), [14, 2, 4])
    assert column(task) == sorted(TEXTS) and set(column(task, "text_pair")) == {"q"}
    wanted = Task.from_texts([(text, "q") for text in TEXTS], ["0", "1"] * 10)
    assert task.train.digest() == wanted.train.digest()


def test_more_columns_have_numbers():
    assert Task.from_texts([("a", "b", "c")] * 2, [0, 1], val=0, test=0).spec.sample.columns == (
        "text_1", "text_2", "text_3",
    )  # fmt: skip


def test_given_splits_and_class_names():
    task = Task.from_texts(TEXTS, [0, 1] * 10, classes=["no", "yes"], val=(["v"], [1]), test=(["w", "x"], ["no", "1"]))
    assert (sizes(task), task.val.labels.tolist(), task.test.labels.tolist()) == ([20, 1, 2], [1], [0, 1])
    assert task.classes == ("no", "yes") and task.test.names == ["test/0", "test/1"]
    by_name = Task.from_texts(["x", "y"], ["yes", "no"], classes=["no", "yes"], val=0, test=0)
    assert by_name.train.labels.tolist() == [1, 0]
    digits = Task.from_texts(["x", "y"], ["1", "2"], classes=["1", "2"], val=0, test=0)  # names before indices
    assert digits.train.labels.tolist() == [0, 1]


MEMORY_FAULTS = [
    (([], []), {}, "`texts of train` must hold at least one text"),
    (("abc", [0, 1, 0]), {}, "`texts of train` must be a list, got 'str'"),
    ((5, [0]), {}, "must be a list, got 'int'"),
    ((["a", "b"], [0]), {}, "`labels of train` must have 2 rows, got 1"),
    ((["a", "b"], "ab"), {}, "`labels of train` must be a list"),
    ((["a", 3], [0, 1]), {}, r"`texts\[train/1\]|`texts\[train\]\[1\]` must have a text in the column `text`, got 3"),
    ((["a", " \n"], [0, 1]), {}, r"\[1\]` must have a text in the column `text`"),
    ((["a", "b\0"], [0, 1]), {}, r"must have characters that can be written in `text`, got 'U\+0000 at 1'"),
    ((["a", "b\ud800"], [0, 1]), {}, r"got 'U\+D800 at 1'"),
    (([("a", "b"), ("c",)], [0, 1]), {}, r"`texts of train\[1\]` must have 2 texts, got \('c',\)"),
    (([("a", "b"), ("c", "")], [0, 1]), {}, "must have a text in the column `text_pair`"),
    (([{"a": "x"}, {"b": "y"}], [0, 1]), {}, r"must have the columns \['a'\] as the first row has, got \['b'\]"),
    (({"a": ["x", "y"], "b": ["z"]}, [0, 1]), {}, "`texts of train, b` must have 2 rows, got 1"),
    ((["a", "b"], [0, None]), {}, "must have a class, got None"),
    ((["a", "b"], [0, 0.5]), {}, r"must have a class, got 0\.5"),
    ((["a", "b"], [0, 0]), {}, r"must have texts of at least two classes, got \['0'\]"),
    ((["a", "b"], [0, 2]), {"classes": ["x", "y"]}, r"must be among the 2 classes \['x', 'y'\], got \[2\]"),
    ((["a", "b"], ["x", "z"]), {"classes": ["x", "y"]}, r"got \['z'\]. Add them to `classes`"),
    ((["a", "b"], [0, -1]), {"classes": ["x", "y"]}, "must have a class, got -1"),
    ((["a", "b"], [0, 1]), {"memory": 60}, r"`texts` must fit into 60 bytes, got .*texts\[train\]\[0\].*more `memory`"),
]


@pytest.mark.parametrize(("args", "more", "match"), MEMORY_FAULTS, ids=lambda v: repr(v)[:40])
def test_faults_in_memory(args, more, match):
    with pytest.raises(DataError, match=match):
        Task.from_texts(*args, **more)


@pytest.mark.parametrize("targets", [["x", " "], ["x", None], ["x", 1.5], ["x", "\0"], ["x"]])
def test_faulty_targets(targets):
    with pytest.raises(DataError, match=r"must have (a text that is to be written|characters|2 rows)"):
        Task.from_texts(["a", "b"], targets=targets)


def test_faulty_options():
    for labels, targets in ((None, None), ([0], ["x"])):
        with pytest.raises(ConfigError, match="`labels, targets` must be one or the other"):
            Task.from_texts(["a"], labels, targets=targets)
    with pytest.raises(ConfigError, match="`classes` must be names that are all different"):
        Task.from_texts(["a", "b"], [0, 1], classes=["x", "x"])
    with pytest.raises(ConfigError, match="`size` must be left out for texts, got 8"):
        Task.from_texts(["a", "b"], [0, 1], size=8)
    with pytest.raises(ConfigError, match="Did you mean `on_error`"):
        Task.from_texts(["a"], [0], on_eror="skip")


def test_numbers_as_targets_and_skipped_rows():
    task = Task.from_texts(["a", "", "c", "d"], targets=[1, 2, None, "4"], on_error="skip", val=0, test=0)
    assert everything(task.train).targets == ("1", "4")
    assert task.warnings == ("2 unusable rows are left out: texts[train][1], texts[train][2].",)
    with pytest.raises(DataError, match="must hold at least one row of text with an answer, got 'none but"):
        Task.from_texts(["", " "], [0, 1], on_error="skip")


def test_the_same_text_twice(caplog):
    with caplog.at_level(logging.WARNING, logger="reprogram"):
        task = Task.from_texts(["a", "b", "a"], ["x", "y", "y"], val=0.0, test=(["b"], ["y"]))
    assert task.warnings == (
        "Classes with a single example, which goes to train: x.",
        "The same content is in test and in train, which flatters test scores: test/0 is train/1.",
        "The same content has two labels: train/2 is train/0.",
    )
    assert len(caplog.records) == 3


def test_splits_without_answers_are_left_out():
    task = Task.from_texts(
        TEXTS, [0, 1] * 10, val=(["v", "w"], [1, 0]), test=(["x", "y"], [-1, -1]), classes=["n", "p"]
    )
    assert sizes(task) == [18, 2, 2] and task.test.names == ["val/0", "val/1"]
    assert task.warnings[0] == "The test split has no answers and is left out." and "no test split" in task.warnings[1]
    with pytest.raises(DataError, match=r"\[test\]\[1\]` must have an answer, got None"):
        Task.from_texts(TEXTS, [0, 1] * 10, test=(["x", "y"], [1, None]))


# -- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", [{}, {"end": "\r\n"}, {"delimiter": ";"}, {"encoding": "utf-8-sig"}, {"quoting": csv.QUOTE_ALL}]
)
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_tables(how, suffix, tmp_path):
    if suffix == "tsv":
        how = {**how, "delimiter": "\t"}
    task = load_task(dump(tmp_path / f"mood.{suffix}", ROWS, **how))
    assert repr(task) == "Task(mood: 2 classes, text, train 14, val 2, test 4)" and task.classes == ("a", "b")
    assert column(task) == sorted(TEXTS) and task.warnings == ()
    assert set(task.train.names) < {f"mood.{suffix}:{n}" for n in range(2, 22)}
    for split in task.splits.values():
        for row, name in enumerate(split.names):
            assert split.fetch(torch.tensor([row])).columns["text"][0] == TEXTS[int(name.split(":")[1]) - 2]


def test_json_lines_and_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    wanted = load_task(dump(tmp_path / "mood.csv", ROWS))
    (tmp_path / "mood.jsonl").write_text("\n\n".join(map(json.dumps, ROWS)))
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "mood.parquet")
    for suffix in ("jsonl", "parquet"):
        assert load_task(tmp_path / f"mood.{suffix}").train.digest() == wanted.train.digest()


COLUMNS = [
    ("text,label", {}, (("text",), "label", False, None)),
    ("id,Sentence,LABEL", {}, (("Sentence",), "LABEL", False, None)),
    ("label,hypothesis,premise,split", {}, (("premise", "hypothesis"), "label", False, "split")),
    ("sentence1,sentence2,class", {}, (("sentence1", "sentence2"), "class", False, None)),
    ("text_a,text_b,category", {}, (("text_a", "text_b"), "category", False, None)),
    ("question,context,answer", {}, (("question", "context"), "answer", True, None)),
    ("question,answer", {}, (("question",), "answer", True, None)),
    ("prompt,completion", {}, (("prompt",), "completion", True, None)),
    ("input,target", {}, (("input",), "target", True, None)),
    ("text,target", {}, (("text",), "target", False, None)),
    ("text,target", {"target": "target"}, (("text",), "target", True, None)),
    ("instruction,input,output", {}, (("instruction", "input"), "output", True, None)),
    ("prompt,completion,label", {}, (("prompt",), "label", False, None)),
    ("prompt,completion,label", {"target": "completion"}, (("prompt",), "completion", True, None)),
    ("a,b,c,d", {"text": "b, a", "label": "d", "split": "c"}, (("b", "a"), "d", False, "c")),
    ("a,b,text", {"text": ["a"], "target": "b"}, (("a",), "b", True, None)),
    ("text,sentence,label", {"text": "sentence"}, (("sentence",), "label", False, None)),
    ("review,text,rating", {"text": "review", "label": "rating"}, (("review",), "rating", False, None)),
]


@pytest.mark.parametrize(("header", "options", "wanted"), COLUMNS, ids=lambda v: str(v)[:40])
def test_columns_are_found(header, options, wanted):
    found = choose_columns(header.split(","), Options(**options), DataError)
    assert (found.texts, found.answer, found.generates, found.split) == wanted


def test_every_known_group_is_found():
    for group in TEXT_COLUMNS:
        assert choose_columns([name.upper() for name in (*group, "label")], Options(), DataError).texts == tuple(
            name.upper() for name in group
        )


def test_options_of_tables(tmp_path):
    rows = [
        {"a": text, "b": "x", "c": "ab"[i % 2], "d": ["train", "dev", "TEST"][i % 3]} for i, text in enumerate(TEXTS)
    ]
    path = dump(tmp_path / "x.csv", rows)
    task = load_task(path, text=("b", "a"), label="c", split="d")
    assert task.spec.sample.columns == ("b", "a") and sizes(task) == [7, 7, 6]
    assert load_task(path, text="a", target="b").spec.generates
    with pytest.raises(DataError, match=r"line 1` must have the columns \['nope'\], got \['a', 'b', 'c', 'd'\]"):
        load_task(path, text="nope")
    with pytest.raises(
        DataError, match=r"must have a column called one of .*got \['a', 'b', 'c', 'd'\]. Say which with"
    ):
        load_task(path, text="a")
    with pytest.raises(DataError, match=r"must name the columns of texts and classes, got .*say `text=` and `label=`"):
        load_task(path, kind="text")
    for options in ({"label": "c", "target": "b"}, {"text": "a,a"}, {"text": " ,"}, {"kind": "sound"},
                    {"image": "a", "text": "b"}, {"kind": "image", "classes": ["x"]}):  # fmt: skip
        with pytest.raises(ConfigError):
            load_task(path, **options)
    with pytest.raises(ConfigError, match="`size` must be left out for texts"):
        load_task(path, text="a", label="c", size=4)


def test_class_names_of_tables(tmp_path):
    path = dump(tmp_path / "x.csv", [{"text": t, "label": i % 2} for i, t in enumerate(TEXTS)])
    assert load_task(path).classes == ("0", "1")
    named = load_task(path, classes=["negative", "positive"])
    assert named.classes == ("negative", "positive")
    assert torch.equal(named.train.labels, load_task(path).train.labels)


def test_picture_tables_stay_so(tmp_path, save):
    rows = [{"path": f"{i}.png", "text": text, "label": "ab"[i % 2]} for i, text in enumerate(TEXTS)]
    for i, row in enumerate(rows):
        save(tmp_path / row["path"], i)
    path = dump(tmp_path / "x.csv", rows)
    assert load_task(path).spec.modality == "image"
    for options in ({"kind": "text"}, {"text": "text"}):
        assert load_task(path, **options).spec.sample.columns == ("text",)
    renamed = dump(tmp_path / "y.csv", [{"text": row["path"], "label": row["label"]} for row in rows])
    assert load_task(renamed).spec.modality == "text"
    assert load_task(renamed, image="text").spec.modality == "image"


def test_cells_of_several_lines(tmp_path):
    rows = [{"text": f'He said "no"\nand\r\nleft, {i}', "label": i % 2} for i in range(10)]
    path = dump(tmp_path / "x.csv", rows)
    assert column(load_task(path)) == sorted(row["text"] for row in rows)
    path.write_bytes(path.read_bytes() + b'"a\nb",\n')
    with pytest.raises(DataError, match=r"x\.csv line 32` must have a class, got ''"):  # where the row begins
        load_task(path)
    quoted = dump(tmp_path / "x.tsv", rows, delimiter="\t")
    assert column(load_task(quoted)) == sorted(row["text"] for row in rows)


def test_quotation_marks_of_tables_with_tabs(tmp_path):
    """Texts with bare marks, as most tables with tabs have them, stay as they are; no row swallows others."""
    texts = ['"so what" she said', '"an opening', 'and its end"', 'a "b" c', '"', '"whole"', '"do ""it"""', 'x\\"y']
    path = tmp_path / "x.tsv"
    path.write_text("sentence\tlabel\n" + "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(texts)))
    task = load_task(path, val=0, test=0)
    assert list(everything(task.train).columns["sentence"]) == [
        *texts[:5], "whole", 'do "it"', 'x\\"y',
    ]  # fmt: skip


CELLS = st.text(st.characters(exclude_characters="\t\n\r\0", exclude_categories=["Cs"]), min_size=1)


@given(
    rows=st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=6),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_tabs_written_with_quotes_are_read_back(rows, quoting, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "tabs.tsv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t", quoting=quoting).writerows([["text", "label"], *rows])
    assert [list(row.cells.values()) for row in open_table(path).rows(())] == rows


NO_HEADER = "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(TEXTS))


def test_tables_without_names(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text(NO_HEADER)
    task = load_task(path)
    assert task.spec.sample.columns == ("text",) and column(task) == sorted(TEXTS) and task.classes == ("0", "1")
    swapped = tmp_path / "y.tsv"
    swapped.write_text("".join(f"{i % 2}\t{text}\n" for i, text in enumerate(TEXTS)))
    assert load_task(swapped).train.digest() == task.train.digest()
    commas = tmp_path / "z.csv"
    commas.write_text("".join(f'"{text}",{i % 2}\n' for i, text in enumerate(TEXTS)))
    assert load_task(commas).train.digest() == task.train.digest()
    three = tmp_path / "w.csv"
    three.write_text("".join(f'{i % 2},"{text}",q\n' for i, text in enumerate(TEXTS)))
    assert load_task(three, text="2", label="1").train.digest() == task.train.digest()
    assert load_task(three, text="2,3", label="1").spec.sample.columns == ("text", "text_pair")
    assert load_task(three, text="2", target="3").spec.generates
    with pytest.raises(DataError, match=r"must have the column `label=` names, '9', got \['1', '2', '3'\]"):
        load_task(three, text="2", label="9")


def test_unknown_names_are_no_example(tmp_path):
    """A first line that could be names is never silently a row."""
    path = tmp_path / "x.tsv"
    path.write_text("tweet2\tmood\n" + NO_HEADER)
    with pytest.raises(
        DataError,
        match=r"or have a class that other rows have, too, got .'tweet2', 'mood'",
    ):
        load_task(path)
    assert column(load_task(path, text="tweet2", label="mood"), "tweet2") == sorted(TEXTS)
    path.write_text("a\tb\tc\n")
    with pytest.raises(DataError, match="must name the columns of texts and classes"):
        load_task(path, kind="text")
    with pytest.raises(DataError, match=r"must have a column called one of .*`text=` for a task of texts"):
        load_task(path)


CSV_FAULTS = {
    "text,label\n": "must hold at least one row of text with an answer, got 'none'",
    "text,label\n,a\nx,b\n": r"x\.csv line 2` must have a text in the column `text`, got .*on_error=",
    "text,label\nx,a\n\n  ,b\n": r"line 4` must have a text",
    "text,label\nx,a\ny,\n": r"line 3` must have a class, got ''",
    "text,label\nx,a\ny,a\n": r"`x` must have texts of at least two classes, got \['a'\]",
    "text,label\nx,a\ny\n": "line 3` must have 2 cells as the first line has, got 1",
    "text,label\nx\0y,a\nz,b\n": r"line 2` must have characters that can be written in `text`, got 'U\+0000 at 1'",
    "text,text\nx,a\n": "line 1` must name each column once",
    'text,label\n"x,a\ny,b\n': "line 2` must be a row of a CSV table.*Check its quotation marks",
    "text,label,split\nx,a,train\ny,b,mayby\n": "line 3` must have train, val or test in the column `split`",
    "text,label\n" + "x" * 2**20 + ",a\n": "line 2` must have at most 1048576 bytes",
    "text,answer\nx,\ny,b\n": "line 2` must have a text that is to be written, got ''",
    "text,other\nx,a\n": r"must have a column called one of \['label'.*got \['text', 'other'\]",
}


@pytest.mark.parametrize("text", CSV_FAULTS, ids=lambda t: t[:40].replace("\0", "NUL"))
def test_faults_of_tables(text, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(text, newline="")
    with pytest.raises(DataError, match=CSV_FAULTS[text]):
        load_task(path)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_what_is_no_utf8(suffix, tmp_path):
    path = tmp_path / f"x.{suffix}"
    first = '{"text": "a", "label": 1}\n' if suffix == "jsonl" else "text\tlabel\n"
    path.write_bytes(first.encode() + b"caf\xe9\t1\n")
    with pytest.raises(DataError, match=rf"x\.{suffix} line 2` must be UTF-8 text.*Save the table as UTF-8"):
        load_task(path)


JSON_FAULTS = {
    '{"text": "x", "label": 0}\n{"label": 1}': r"line 2` must have a text in the column `text`, got None",
    '{"text": "x", "label": 0}\n{"text": [1], "label": 1}': r"line 2` must have a text .*got \[1\]",
    '{"text": "x", "label": 0}\n{"text": "y"}': "line 2` must have a class, got None",
    '{"text": "x", "label": 0}\n{"text": "y", "label": 1.5}': r"line 2` must have a class, got 1\.5",
    '{"text": "\\ud800", "label": 0}\n{"text": "y", "label": 1}': r"line 1` must have characters.*U\+D800",
    '{"prompt": "x", "output": {"a": 1}}': "line 1` must have a text that is to be written",
}


@pytest.mark.parametrize("text", JSON_FAULTS)
def test_faults_of_json_lines(text, tmp_path):
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(DataError, match=JSON_FAULTS[text]):
        load_task(tmp_path / "x.jsonl")


def test_true_and_false_are_classes(tmp_path):
    rows = [{"question": f"q{i}", "passage": "p", "answer": i % 2 == 0} for i in range(20)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = load_task(tmp_path / "x.jsonl", label="answer")
    assert task.classes == ("false", "true") and task.spec.sample.columns == ("question", "passage")


def test_skipped_rows_of_tables(tmp_path):
    path = dump(tmp_path / "x.csv", [*ROWS, {"text": "", "label": "a"}, {"text": "x", "label": " "}])
    task = load_task(path, on_error="skip")
    assert sum(sizes(task)) == 20 and task.warnings == (
        f"2 unusable rows are left out: {path} line 22, {path} line 23.",
    )


def test_memory_is_bounded(tmp_path):
    path = dump(tmp_path / "x.csv", [{"text": "x" * 1000, "label": i % 2} for i in range(100)])
    with pytest.raises(DataError, match=r"`x` must fit into 20000 bytes, got 'more up to .*line (19|20)'"):
        load_task(path, memory=20_000)
    assert sum(sizes(load_task(path, memory=200_000))) == 100


def test_many_classes_are_noted(tmp_path):
    path = dump(tmp_path / "x.csv", [{"text": f"t{i}", "target": f"answer {i}"} for i in range(100)])
    assert any(
        "100 classes in 100 rows: `target=` makes it a task of generation" in w for w in load_task(path).warnings
    )
    assert load_task(path, target="target").warnings == ()


# -- folders ----------------------------------------------------------------------------------------------------------


def folder(root, splits, suffix="tsv", write=None):
    root.mkdir()
    for s, split in enumerate(splits):
        rows = [{"text": f"{split} {text}", "label": row["label"]} for row, text in zip(ROWS, TEXTS[s:], strict=False)]
        if suffix == "jsonl":
            (root / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        else:
            dump(root / f"{split}.{suffix}", rows, delimiter="\t" if suffix == "tsv" else ",")
    return root


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("names", [("train", "dev", "test"), ("Train", "VALID", "Testing")])
def test_a_folder_with_a_table_a_split(suffix, names, tmp_path):
    root = folder(tmp_path / "mood", names, suffix)
    (root / "README.md").write_text("about")
    task = load_task(root)
    assert repr(task) == "Task(mood: 2 classes, text, train 20, val 19, test 18)" and task.warnings == ()
    assert task.val.names[0].startswith(f"{names[1]}.{suffix}:")
    assert all(text.startswith(names[2]) for text in everything(task.test).columns["text"])


def test_missing_splits_are_made(tmp_path):
    assert sizes(load_task(folder(tmp_path / "a", ["train", "test"]))) == [18, 2, 19]
    assert sizes(load_task(folder(tmp_path / "b", ["train"]))) == [14, 2, 4]
    task = load_task(folder(tmp_path / "c", ["train", "dev"]))
    assert sizes(task) == [18, 2, 19] and "no test split" in task.warnings[0]


def test_a_test_without_labels(tmp_path):
    root = folder(tmp_path / "x", ["train", "dev"])
    dump(root / "test.tsv", [{"index": i, "text": text} for i, text in enumerate(TEXTS)], delimiter="\t")
    task = load_task(root)
    assert sizes(task) == [18, 2, 19] and task.warnings[0] == "The test split has no answers and is left out."


def test_parts_of_a_split(tmp_path):
    root = folder(tmp_path / "x", ["train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"])
    assert sizes(load_task(root)) == [35, 4, 18]


def test_folders_that_do_not_fit(tmp_path, save):
    root = folder(tmp_path / "x", ["train", "dev", "val"])
    with pytest.raises(DataError, match=r"must have one table for each split, got \['dev.tsv', 'val.tsv'\]"):
        load_task(root)
    (root / "val.tsv").unlink()
    with pytest.raises(ConfigError, match="`split` must be left out"):
        load_task(root, split="label")
    dump(root / "dev.tsv", [{"sentence": "a", "label": "a"}], delimiter="\t")
    with pytest.raises(
        DataError, match=r"dev\.tsv line 1` must have the columns \['text'\], as the table of train has"
    ):
        load_task(root)
    (root / "dev.tsv").rename(root / "more.tsv")
    assert load_task(root).warnings == ("1 other tables are left out: more.tsv.",)
    with pytest.raises(DataError, match=r"must hold a table called train .*got \[\]"):
        load_task(save(tmp_path / "y" / "a" / "1.png").parent.parent, kind="text")


def test_folders_of_pictures_with_a_table_stay_so(pets):
    dump(pets / "train.csv", ROWS)
    task = load_task(pets)
    assert task.spec.modality == "image" and "train.csv" in task.warnings[0]
    assert load_task(pets, kind="text").spec.modality == "text"
    with pytest.raises(DataError, match="must hold a table called train"):
        load_task(pets / "cat", classes=["a", "b"])


@pytest.mark.skipif(not SST2.is_dir(), reason="the shared development data are not here")
def test_sst2():
    task = load_task(SST2)
    assert repr(task) == "Task(sst2: 2 classes, text, train 6920, val 872, test 1821)"
    assert (
        everything(task.train).columns["text"][1]
        == "apparently reassembled from the cutting room floor of any given daytime soap"
    )
    assert task.train.labels[:3].tolist() == [1, 0, 0] and task.val.counts().tolist() == [428, 444]
    assert sizes(load_task(SST2 / "dev.tsv", few_shot=16)) == [32, 8, 174]


# -- data sets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        ROWS,
        [(row["text"], row["label"]) for row in ROWS],
        {"text": TEXTS, "label": ["a", "b"] * 10},
        {"train": {"text": TEXTS, "label": ["a", "b"] * 10}},
        {"train": ROWS},
    ],
    ids=["rows", "tuples", "columns", "split of columns", "split of rows"],
)
def test_lists_and_mappings(data):
    wanted = Task.from_texts(TEXTS, ["a", "b"] * 10)
    assert Task.from_dataset(data).train.digest() == wanted.train.digest()


def test_tuples_of_pairs_and_options():
    task = Task.from_dataset([(text, "q", i % 2) for i, text in enumerate(TEXTS)], classes=["no", "yes"])
    assert task.classes == ("no", "yes") and task.spec.sample.columns == ("text", "text_pair")
    rows = [{"q": text, "a": str(i)} for i, text in enumerate(TEXTS)]
    assert Task.from_dataset(rows, text="q", target="a").spec.generates
    with pytest.raises(DataError, match=r"`dataset` must have a column called one of"):
        Task.from_dataset(rows, text="q")
    with pytest.raises(DataError, match=r"`dataset\[train\]\[1\]` must be a row of texts and a class"):
        Task.from_dataset([("a", 0), ("b",)])
    with pytest.raises(DataError, match=r"must have the columns \['text'\] in test, as train has"):
        Task.from_dataset({"train": ROWS, "test": [{"x": "a", "label": "b"}]})


def test_names_of_files_are_pictures(tmp_path, save):
    data = [(str(save(tmp_path / f"{i}.png", i)), "ab"[i % 2]) for i in range(10)]
    assert Task.from_dataset(data).spec.modality == "image"
    assert Task.from_dataset(data, kind="text").spec.modality == "text"


@pytest.fixture(scope="module")
def hf():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what its many imports warn about is not ours
        return pytest.importorskip("datasets")


def test_hugging_face(hf):
    features = hf.Features(
        sentence=hf.Value("string"), label=hf.ClassLabel(names=["neg", "pos"]), idx=hf.Value("int32")
    )

    def part(n, label=None):
        labels = [i % 2 if label is None else label for i in range(n)]
        return hf.Dataset.from_dict({"sentence": TEXTS[:n], "label": labels, "idx": list(range(n))}, features=features)

    task = Task.from_dataset(hf.DatasetDict(train=part(20), validation=part(6), test=part(4, -1)), name="glue")
    assert repr(task) == "Task(glue: 2 classes, text, train 18, val 2, test 6)" and task.classes == ("neg", "pos")
    assert "The test split has no answers and is left out." in task.warnings
    assert Task.from_dataset(part(20), classes=["n", "p"]).classes == ("n", "p")
    assert Task.from_dataset(part(20).with_format("torch")).train.digest() == Task.from_dataset(part(20)).train.digest()
    with pytest.raises(DataError, match=r"dataset\[train\]\[0\]` must have a class, got -1"):
        Task.from_dataset(part(4, -1))
    pairs = hf.Dataset.from_dict({"premise": TEXTS, "hypothesis": TEXTS[::-1], "label": ["y", "n"] * 10})
    assert Task.from_dataset(pairs).spec.sample.columns == ("premise", "hypothesis")
    made = hf.Dataset.from_dict({"prompt": TEXTS, "completion": TEXTS})
    assert Task.from_dataset(made).spec.generates


# -- anything at all --------------------------------------------------------------------------------------------------


@given(data=st.binary(max_size=200), suffix=st.sampled_from([".csv", ".tsv", ".jsonl"]))
def test_fuzz(data, suffix, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"fuzz-text{suffix}"
    path.write_bytes(
        b"text,label\n" + data if suffix == ".csv" else b"text\tlabel\n" + data if suffix == ".tsv" else data
    )
    try:
        task = load_task(path, kind="text", on_error="skip")
    except DataError:
        return
    assert all(text.strip() for text in column(task, task.spec.sample.columns[0])) and len(task.train) > 0


def test_damaged_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "x.parquet"
    parquet.write_table(pa.Table.from_pylist(ROWS), path)
    whole, draw = path.read_bytes(), random.Random(0)
    for _ in range(100):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data[: draw.choice([len(data), draw.randrange(len(data))])])
        try:
            assert len(load_task(path, kind="text").train) > 0
        except DataError:
            continue


def test_what_csv_writes_is_a_task(tmp_path):
    """Every string of a nasty collection survives CSV, TSV and JSON lines."""
    nasty = [
        "a,b",
        'say "hi"',
        "two\nlines",
        "tab\there",
        "  spaces  ",
        "ünï",
        "'",
        "🙂",
        "-1",
        "null",
        "\ufeffbom",
        "a\\nb",
    ]
    rows = [{"text": text, "label": i % 2} for i, text in enumerate(nasty)]
    out = io.StringIO()
    json_lines = "\n".join(map(json.dumps, rows))
    (tmp_path / "x.jsonl").write_text(json_lines, encoding="utf-8")
    paths = [dump(tmp_path / "x.csv", rows), dump(tmp_path / "x.tsv", rows, delimiter="\t"), tmp_path / "x.jsonl"]
    for path in paths:
        assert column(load_task(path)) == sorted(nasty), out


def test_json_lines_may_be_called_json_and_lists_of_texts_are_lines(tmp_path):
    rows = [
        {"question": f"What is {i}?", "options": [f"A){i}", f"B){i + 1}"], "correct": "AB"[i % 2]} for i in range(20)
    ]
    (tmp_path / "quiz.json").write_text("\n".join(json.dumps(row) for row in rows))
    task = load_task(tmp_path / "quiz.json", text=["question", "options"], label="correct")
    assert task.classes == ("A", "B")
    one = task.train.fetch(torch.tensor([0])).row(0)
    assert one["options"].split("\n")[1].startswith("B)")
    (tmp_path / "list.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match="JSON object"):
        load_task(tmp_path / "list.json", text=["question"], label="correct")
