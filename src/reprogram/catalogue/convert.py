"""The same program in a form that is smaller or faster to use."""

from dataclasses import replace
from typing import Any

import torch

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.inserting import Compacting, Inserting, Prefixing
from reprogram.core.method import Form
from reprogram.core.program import Edit, Input, Program
from reprogram.inputs import Prefix


def compact_program(program: Program) -> Program:
    """The program without what only training needs, such as the network that makes a prefix. Predicts the same.

    Raises:
        ConfigError: no method made it.
    """
    edits = [edit.compact() if isinstance(edit, Compacting) else edit for edit in program.input]
    return _formed(program, edits, "compact")


@torch.no_grad()
def compile_program(program: Program) -> Program:
    """The program with its learned tokens as the keys and values that its source makes of them.

    Exact for causal models: what stands before the text does not depend on the text. The source need not run the
    learned tokens again, so that an input costs what it costs without a prompt (but for attention to n more keys). The
    file is larger: 2 * layers * heads * head width numbers a token in place of d.

    Raises:
        ConfigError: no method made it.
        CapabilityError: the source is not a causal language model, or learned tokens are inside or after the text.
    """
    source: Any = program.source
    if not hasattr(source, "record"):
        raise CapabilityError(say("source", "must be a causal language model to compile a prompt", source.spec.ref))
    stands = [e for e in program.input if isinstance(e, (Inserting, Prefixing))]
    if not stands:
        raise CapabilityError(
            say("program", "must have learned tokens to compile", program.origin and program.origin.method)
        )
    made = source.record(Input(*stands))
    edits = [e for e in program.input if not isinstance(e, (Inserting, Prefixing))]
    return _formed(program, [*edits, Prefix(made.float())], "compiled")


def formed(program: Program, form: Form) -> Program:
    """A program in a form, for a file that was saved in it."""
    if form == "compact":
        return compact_program(program)
    return compile_program(program) if form == "compiled" else program


def _formed(program: Program, edits: list[Edit], form: Form) -> Program:
    if program.origin is None:
        raise ConfigError(say("program", "must come from a method to be converted", "parts put together by hand"))
    made = Program(edits, program.source, program.output, origin=replace(program.origin, form=form))
    return made.to(program.source.device).train(program.training)
