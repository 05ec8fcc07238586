"""A program on disk: one safetensors file with a JSON card in its header, written in one step, read with distrust.

`write_atomic` knows bytes, `write_tensors` and `read_tensors` know tensors and a card, `save`, `read`, `restore` and
`check_source` know programs, `push_to_hub` and `from_hub` know a model hub. Building a program from its card is the
business of the rooms above.
"""

from reprogram.store.atomic import write_atomic
from reprogram.store.card import ProgramCard
from reprogram.store.hub import from_hub, push_to_hub
from reprogram.store.program import StoredProgram, check_source, read, restore, save
from reprogram.store.tensors import Limits, read_tensors, write_tensors

__all__ = [
    "Limits",
    "ProgramCard",
    "StoredProgram",
    "check_source",
    "from_hub",
    "push_to_hub",
    "read",
    "read_tensors",
    "restore",
    "save",
    "write_atomic",
    "write_tensors",
]
