"""Reads a report as a browser would, far enough to check it."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "br", "col", "link", "input", "hr"}


@dataclass
class Page:
    text: str = ""
    tags: list[tuple[str, dict]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    misnested: list[str] = field(default_factory=list)
    scripts: list[tuple[dict, str]] = field(default_factory=list)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def sections(self) -> list[str]:
        return [a["id"] for a in self.all("section")]

    @property
    def figures(self) -> dict:
        found = [body for a, body in self.scripts if a.get("id") == "figures"]
        return json.loads(found[0]) if found else {}

    @property
    def places(self) -> set[str]:
        return {a["data-figure"] for _, a in self.tags if "data-figure" in a}


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.page = Page()

    def handle_starttag(self, tag, attrs):
        self.page.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.page.scripts.append((dict(attrs), ""))
        if tag not in VOID:
            self.page.open.append(tag)

    def handle_endtag(self, tag):
        if not self.page.open or self.page.open.pop() != tag:
            self.page.misnested.append(tag)

    def handle_data(self, data):
        inside = self.page.open[-1] if self.page.open else ""
        if inside == "script":
            attrs, body = self.page.scripts[-1]
            self.page.scripts[-1] = (attrs, body + data)
        elif inside != "style":
            self.page.text += data


def read_page(path: Path) -> Page:
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    reader.page.text = " ".join(reader.page.text.split())
    return reader.page
