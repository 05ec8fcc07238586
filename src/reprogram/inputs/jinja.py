"""Prompts laid out by a jinja2 template, of which only what cannot run away is allowed.

A template comes with a program file and so from strangers: loops go over the examples only, there are no calls, macros,
imports or ranges, and filters are a few that take no more than the text they are given.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, final

from reprogram.core.errors import ConfigError, MissingExtraError, say

_PARTS = (
    "Template", "Output", "TemplateData", "Name", "For", "If", "Const", "Compare", "Operand", "And", "Or", "Not",
    "Getattr", "Getitem", "Filter", "CondExpr", "Concat", "Test",
)  # fmt: skip
NODES = frozenset(_PARTS)
FILTERS = frozenset(("capitalize", "default", "first", "last", "length", "lower", "title", "trim", "truncate", "upper"))
TESTS = frozenset(("defined", "divisibleby", "eq", "equalto", "even", "ne", "odd", "undefined"))
LONGEST = 20_000
"""Characters of a template."""


@final
class JinjaLayout:
    r"""A prompt as a jinja2 template.

    Its variables: `examples`, a list of mappings with a text for each column and "answer"; the columns of the text that
    is asked about, by their names; `instruction`.

    Args:
        text: the template.
        columns: of the task.

    Raises:
        ConfigError: it is no template, uses what is not allowed, or names a variable that does not exist.
        MissingExtraError: jinja2 is not installed.

    >>> text = "{% for e in examples %}{{ e.text }} -> {{ e.answer }}\n{% endfor %}{{ text }} ->"
    >>> layout = JinjaLayout(text, ["text"])
    >>> layout.render([{"text": "a", "answer": "A"}], {"text": "b"}, "")
    'a -> A\nb ->'
    """

    def __init__(self, text: str, columns: Sequence[str]) -> None:
        try:
            jinja2 = importlib.import_module("jinja2")
            sandbox = importlib.import_module("jinja2.sandbox")
            nodes, meta = importlib.import_module("jinja2.nodes"), importlib.import_module("jinja2.meta")
        except ModuleNotFoundError as problem:
            raise MissingExtraError(say("jinja2", "must be installed for a template of its kind", "it is not",
                                        'pip install "reprogram[report]"')) from problem  # fmt: skip
        if len(text) > LONGEST:
            raise ConfigError(say("jinja", f"must have at most {LONGEST} characters", len(text)))
        self.text = text
        made = sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
        try:
            tree = made.parse(text)
            known = {"examples", "instruction", *columns}
            strange = sorted(meta.find_undeclared_variables(tree) - known)
            if strange:
                raise ConfigError(say("jinja", f"must name variables among {sorted(known)}", strange))
            _check(tree, nodes, 0)
            self._template = made.from_string(text)
        except jinja2.TemplateError as problem:
            raise ConfigError(say("jinja", "must be a jinja2 template", str(problem))) from problem
        self._failed = jinja2.TemplateError

    def render(self, examples: Sequence[Mapping[str, str]], row: Mapping[str, str], instruction: str) -> str:
        """The prompt.

        Raises:
            ConfigError: a variable is used that an example does not have.
        """
        try:
            return self._template.render(examples=list(examples), instruction=instruction, **row)
        except (self._failed, TypeError, ValueError) as problem:
            raise ConfigError(say("jinja", "must be a template that can be filled in", str(problem))) from problem


def _check(node: Any, nodes: Any, loops: int) -> None:
    """Raise ConfigError for a node that is not allowed."""
    kind = type(node).__name__
    if kind not in NODES:
        raise ConfigError(say("jinja", f"must be made of {sorted(NODES - {'Template', 'TemplateData'})}", kind))
    if kind in ("Filter", "Test"):
        allowed = FILTERS if kind == "Filter" else TESTS
        if node.name not in allowed:
            raise ConfigError(say("jinja", f"must use {kind.lower()}s among {sorted(allowed)}", node.name))
    if kind == "For":
        loops += 1
        over = node.iter
        plain = isinstance(over, nodes.Name) and over.name == "examples"
        if not plain or loops > 1 or node.recursive:
            need = "must loop over `examples` alone, and not within a loop"
            raise ConfigError(say("jinja", need, getattr(over, "name", type(over).__name__)))
    for child in node.iter_child_nodes():
        _check(child, nodes, loops)
