"""Which methods there are, what they need, how to build them and whom to cite."""

from reprogram.catalogue.assemble import build, load
from reprogram.catalogue.config import make_config, setting_names
from reprogram.catalogue.convert import compact_program, compile_program
from reprogram.catalogue.find import AXES, find, methods

__all__ = [
    "AXES",
    "build",
    "compact_program",
    "compile_program",
    "find",
    "load",
    "make_config",
    "methods",
    "setting_names",
]
