"""Regenerate the parts of docs/ that come from the code: `make docs`. With --check, fail if they are out of date."""

import sys
from dataclasses import asdict
from pathlib import Path

from reprogram.catalogue import methods, setting_names
from reprogram.core.method import Recipe
from reprogram.sources import source_refs
from reprogram.tasks import task_refs

DOCS = Path(__file__).parent
HEAD = "<!-- Made by `make docs` from the code. Do not edit. -->\n\n"


def methods_page() -> str:
    """Every method: tuple, citation, settings."""
    lines = [
        "# Methods\n",
        "A method is one file in `src/reprogram/methods/`. The tuple is (configuration; location; operator;",
    ]
    lines += ["alignment), read off the built program and compared with the declared one by a test.\n"]
    lines += ["| method | what it does | tuple | citation |", "|---|---|---|---|"]
    for m in methods():
        paper = f"[arXiv:{m.paper.arxiv}](https://arxiv.org/abs/{m.paper.arxiv})" if m.paper.arxiv else "control"
        lines.append(f"| `{m.name}` | {m.summary} | {m.taxonomy} | {paper} |")
    usual = Recipe()
    lines += [
        "\n## Recipes\n",
        "Every method has a recipe, `recipe.<setting>`. Below, a method's own table has only those settings",
    ]
    lines += ["that differ from these.\n", "| setting | default |", "|---|---|"]
    lines += [f"| `recipe.{name}` | `{value}` |" for name, value in asdict(usual).items() if name != "search"]
    lines += [f"| `recipe.search.{name}` | `{value}` |" for name, value in asdict(usual.search).items()]
    for m in methods():
        lines += [f"\n## `{m.name}`\n", f"{m.paper.authors}: *{m.paper.title}*, {m.paper.year}.\n"]
        lines += [f"The paper's own tags: {m.paper_tags}.\n"] if m.paper_tags else []
        lines += ["| setting | paper | cpu |", "|---|---|---|"]
        cpu = m.presets.get("cpu", {})
        for name in setting_names(m):
            value: object = m.config()
            common: object = usual if name.startswith("recipe.") else None
            for part in name.split("."):
                value = getattr(value, part)
                common = getattr(common, part, common) if part != "recipe" else common
            if name.startswith("recipe.") and value == common and name not in cpu:
                continue
            lines.append(f"| `{name}` | `{value}` | {f'`{cpu[name]}`' if name in cpu else ''} |")
    return HEAD + "\n".join(lines) + "\n"


def lists_page() -> str:
    """Sources and bundled tasks."""
    lines = ["# Sources and tasks\n", "| source | |", "|---|---|"]
    lines += [f"| `{ref}` | {about} |" for ref, about in source_refs().items()]
    lines += ["| `rp.wrap(module, input_shape=...)` | any `torch.nn.Module` that maps images to class scores |"]
    lines += ["| `rp.wrap(model, tokenizer)` | a model of transformers in memory, quantised ones too |"]
    lines += ["\n| task | |", "|---|---|"]
    lines += [f"| `{ref}` | {about} |" for ref, about in task_refs().items()]
    lines += [
        "| a folder | `class/picture.jpg`, or `train/class/...`, `val/...`, `test/...` |",
        "| a zip of a folder | read in place |",
        "| `.csv`, `.tsv`, `.jsonl`, `.parquet` | columns for the picture's path, the class and optionally the split |",
        "| the same | columns for a text or several, and a class or a text to be written (`target`) |",
        "| a folder of such tables | `train.tsv`, `dev.tsv`, `test.tsv`, or other suffixes |",
        "| `rp.Task.from_texts(texts, labels)` | strings, pairs, rows; `targets=` for texts to be written |",
        "| `rp.Task.from_arrays(x, y)` | NumPy arrays or tensors |",
        "| `rp.Task.from_dataset(d)` | a torch data set, or a Hugging Face `Dataset` or `DatasetDict` |",
    ]
    return HEAD + "\n".join(lines) + "\n"


def main() -> None:
    """Write, or compare."""
    pages = {"methods.md": methods_page(), "sources-and-tasks.md": lists_page()}
    stale = [n for n, text in pages.items() if not (DOCS / n).exists() or (DOCS / n).read_text() != text]
    if "--check" in sys.argv:
        if stale:
            raise SystemExit(f"docs out of date: {', '.join(stale)}. Run: make docs")
        return
    for name in stale:
        (DOCS / name).write_text(pages[name])


if __name__ == "__main__":
    main()
