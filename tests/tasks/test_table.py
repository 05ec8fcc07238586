import csv
import json
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reprogram.core.errors import ConfigError, DataError, MissingExtraError
from reprogram.tasks import load_task
from reprogram.tasks.rows import open_table

ROWS = [{"path": f"{c}/{i}.png", "label": c, "split": ("train", "Val", "TEST")[i % 3]} for c in "ab" for i in range(9)]


@pytest.fixture
def home(tmp_path, save):
    home = tmp_path / "home"
    for n, row in enumerate(ROWS):
        save(home / row["path"], n)
    return home


def write(path, rows, *, columns=("path", "label"), delimiter=",", encoding="utf-8", end="\n"):
    with open(path, "w", newline="", encoding=encoding) as file:
        out = csv.DictWriter(file, columns, delimiter=delimiter, extrasaction="ignore", lineterminator=end)
        out.writeheader()
        out.writerows(rows)
    return path


def sizes(task):
    return [len(split) for split in task.splits.values()]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"end": "\r\n"},
        {"delimiter": ";"},
        {"encoding": "utf-8-sig"},
        {"delimiter": "\t"},
        {"columns": ("label", "path")},
    ],
)
def test_csv(how, home):
    task = load_task(write(home / "list.csv", ROWS, **how))
    assert (task.name, task.classes, sizes(task), task.warnings) == ("list", ("a", "b"), [12, 2, 4], ())
    assert task.train.fetch(torch.tensor([0])).shape == (1, 3, 8, 8)
    assert set(task.train.names) < {row["path"] for row in ROWS}


def test_a_table_is_its_folder(home):
    table = load_task(write(home / "list.tsv", ROWS, delimiter="\t"))
    assert table.train.digest() == load_task(home).train.digest()


def test_split_column(home):
    task = load_task(write(home / "list.csv", ROWS, columns=("path", "label", "split")))
    assert sizes(task) == [6, 6, 6] and task.test.names[0] == "a/2.png"


def test_columns(home):
    rows = [{"Image": r["path"], "Class": r["label"], "other": "x", "fold": r["split"]} for r in ROWS]
    path = write(home / "list.csv", rows, columns=("other", "Class", "Image", "fold"))
    assert sizes(load_task(path)) == [12, 2, 4]
    assert sizes(load_task(path, split="fold")) == [6, 6, 6]
    assert load_task(path, label="fold").classes == ("TEST", "Val", "train")
    with pytest.raises(DataError, match=r"must have the column `label=` names, 'nope', got \['other', 'Class'"):
        load_task(path, label="nope")
    path = write(home / "list.csv", rows, columns=("other", "Image"))
    with pytest.raises(DataError, match=r"line 1` must have a column called one of .*Say which with `label=`"):
        load_task(path)


def test_jsonl(home):
    for suffix in ("jsonl", "ndjson", "JSONL"):
        path = home / f"list.{suffix}"
        path.write_text("\n\n".join(json.dumps({**row, "label": int(row["label"] == "b"), "x": [1]}) for row in ROWS))
        task = load_task(path)
        assert task.classes == ("0", "1") and sizes(task) == [6, 6, 6]


def test_parquet(home):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(ROWS), home / "list.parquet")
    assert sizes(load_task(home / "list.parquet")) == [6, 6, 6]
    rows = [
        {"image": {"bytes": (home / r["path"]).read_bytes(), "path": None}, "label": n % 2} for n, r in enumerate(ROWS)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), home / "inside.parquet")
    task = load_task(home / "inside.parquet")
    assert sizes(task) == [12, 2, 4] and task.classes == ("0", "1")
    rows = [{"image": r["image"]["bytes"], "label": "ab"[r["label"]]} for r in rows]
    parquet.write_table(pa.Table.from_pylist(rows), home / "inside.parquet")
    assert load_task(home / "inside.parquet").train.digest() == task.train.digest()


def test_parquet_faults(home, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = home / "list.parquet"
    parquet.write_table(pa.Table.from_pylist([*ROWS, {"path": "a/1.png", "label": None, "split": "train"}]), path)
    with pytest.raises(DataError, match=r"list\.parquet line 19` must have a class in the column `label`, got None"):
        load_task(path)
    parquet.write_table(pa.Table.from_pylist([{"path": "a/1.png", "label": 0.5}]), path)
    with pytest.raises(DataError, match=r"must have a class in the column `label`, got 0\.5"):
        load_task(path)
    whole, draw = path.read_bytes(), random.Random(0)
    for _ in range(200):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data[: draw.choice([len(data), draw.randrange(len(data))])])
        with pytest.raises(DataError):
            load_task(path)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r'pip install "reprogram\[data\]"'):
        load_task(path)


def test_paths_that_lead_out(home, save):
    away = save(home.parent / "away" / "x.png", 99)
    (home / "link.png").symlink_to(away)
    for name in ("../away/x.png", str(away), "a/../../away/x.png", "link.png"):
        path = write(home / "list.csv", [*ROWS, {"path": name, "label": "a"}])
        with pytest.raises(DataError, match=r"list\.csv line 20` must name a picture inside the table's folder"):
            load_task(path)
        assert sum(sizes(load_task(path, allow_outside=True))) == 19


CSV_FAULTS = {
    "": "must name each column once, got 'no column names'",
    "\n": "must name each column once",
    "path,path\n": r"line 1` must name each column once, got \['path'\]",
    '"path,label\n': "line 1` must name the columns",
    "path,label\n": r"must have rows, got 'only column names'",
    "path,label\n\n\n": "must have rows",
    "path,label\na/1.png,a,x\n": "line 2` must have 2 cells as the first line has, got 3",
    "path,label\na/1.png,a\n\na/1.png\n": "line 4` must have 2 cells as the first line has, got 1",
    "path,label\na/1.png,\n": "line 2` must have a class in the column `label`, got ''",
    "path,label\na/1.png,  \n": "line 2` must have a class",
    "path,label\n,a\n": "line 2` must name a picture file, got ''",
    "path,label\na\0.png,a\n": "line 2` must name a picture file",
    "path,label\nhttps://x.org/1.png,a\n": "line 2` must name a file on this machine",
    'path,label\n"a/1.png,a\nb/1.png,b\n': "must be a row of a CSV table",
    'path,label\n"a"b,a\n': "line 2` must be a row of a CSV table",
    "path,label,split\na/1.png,a,maybe\n": "line 2` must have train, val or test in the column `split`, got 'maybe'",
    "path,label,split\na/1.png,a,\n": "line 2` must have train, val or test",
    "path,label\n" + "x" * 2**20 + ",a\n": "line 2` must have at most 1048576 bytes",
    "path,label\n" + "x" * 200_000 + ",a\n": "line 2` must be a row of a CSV table.*field larger than field limit",
    "path,label\na/1.png,a\nmissing.png,b\n": r"`missing\.png \(.*list\.csv line 3\)` must be a readable file",
    "path,label\na/1.png,a\na,b\n": r"`a \(.*list\.csv line 3\)` must be a file",
    "path,label\na/1.png,a\nlist.csv,b\n": r"`list\.csv \(.*line 3\)` must be a PNG, JPEG or WEBP",
}


@pytest.mark.parametrize("text", CSV_FAULTS, ids=lambda t: t[:40].replace("\0", "NUL"))
def test_csv_faults(text, home):
    path = home / "list.csv"
    path.write_text(text, newline="")
    with pytest.raises(DataError, match=CSV_FAULTS[text]):
        load_task(path)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_other_encodings(encoding, home):
    path = write(home / "list.csv", [*ROWS, {"path": "a/1.png", "label": "Bär"}], encoding=encoding)
    with pytest.raises(DataError, match=r"line (1|20)` must be UTF-8 text.*Save the table as UTF-8"):
        load_task(path)


JSON_FAULTS = {
    "": "must have rows, got 'an empty table'",
    "[1]": "line 1` must be a JSON object, got 'list'",
    "{": "line 1` must be a JSON object",
    '{"path": "a/1.png", "path": "x", "label": "a"}': "line 1` must be a JSON object, got .*a name twice",
    '{"path": 3, "label": "a"}': "line 1` must name a picture file, got 3",
    '{"path": "a/1.png", "label": true}': "line 1` must have a class",
    '{"path": "a/1.png", "label": 1.5}': "line 1` must have a class",
    '{"path": "a/1.png", "label": ["a"]}': "line 1` must have a class",
    '{"path": "a/1.png", "label": "a"}\n{"path": "a/2.png"}': "line 2` must have a class.*got None",
    '{"path": "a/1.png", "label": "a"}\n{"path": "a/2.png", "label": "b", "split": "x"}': "line 2` must have train",
    '{"path": "a/1.png", "label": "a", "split": "train"}\n{"path": "a/2.png", "label": "b"}': "line 2` must have train",
    '{"path": "\\ud800.png", "label": "a"}': "line 1` must name a picture inside",
    "[" * 100_000: "line 1` must be a JSON object",
    '{"label": ' + "9" * 5000 + "}": "line 1` must be a JSON object",
}


@pytest.mark.parametrize("text", JSON_FAULTS, ids=lambda t: t[:40])
def test_jsonl_faults(text, home):
    path = home / "list.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=JSON_FAULTS[text]):
        load_task(path)


def test_missing_files_can_be_skipped(home):
    path = write(home / "list.csv", [*ROWS, {"path": "gone.png", "label": "c"}])
    task = load_task(path, on_error="skip")
    assert task.classes == ("a", "b") and "gone.png" in task.warnings[0]


def test_a_picture_listed_twice(home):
    rows = [
        *ROWS,
        {"path": "a/0.png", "label": "a", "split": "test"},
        {"path": "b/0.png", "label": "a", "split": "train"},
    ]
    warnings = load_task(write(home / "list.csv", rows, columns=("path", "label", "split"))).warnings
    assert any("in test and in train" in w and "a/0.png is a/0.png" in w for w in warnings)
    assert any("two labels" in w and "b/0.png" in w for w in warnings)


def test_numeric_labels_are_sorted_as_numbers(home):
    rows = [{"path": r["path"], "label": str(8 + n % 4)} for n, r in enumerate(ROWS)]
    assert load_task(write(home / "list.csv", rows)).classes == ("8", "9", "10", "11")


def test_surrogates_in_class_names_can_be_written(home):
    path = home / "list.jsonl"
    path.write_text("\n".join(json.dumps({**r, "label": r["label"] + "\ud800"}) for r in ROWS))
    assert load_task(path).classes == ("a?", "b?")


@given(data=st.binary(max_size=200), suffix=st.sampled_from([".csv", ".tsv", ".jsonl"]))
def test_fuzz(data, suffix, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"fuzz{suffix}"
    path.write_bytes(b"path,label\n" + data if suffix != ".jsonl" else data)
    with pytest.raises(DataError):
        load_task(path)


@given(rows=st.lists(st.lists(st.text(max_size=8), min_size=2, max_size=2), min_size=1, max_size=8))
def test_what_csv_writes_is_read_back(rows, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "back.csv"
    try:
        with open(path, "w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerows([["path", "label"], *rows])
    except UnicodeEncodeError:
        return
    try:
        read = [list(row.cells.values()) for row in open_table(path).rows(["path", "label"])]
    except DataError as error:
        assert "line" in str(error)  # a lone carriage return in a cell
        return
    assert read == rows


def test_unknown_options(home):
    with pytest.raises(ConfigError, match=r"`option` must be one of .*got 'imge'. Did you mean `image`"):
        load_task(write(home / "list.csv", ROWS), imge="path")
