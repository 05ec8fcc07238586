"""Which methods there are, what they need, how to build them and whom to cite."""

from reprogram.catalogue.assemble import build, load
from reprogram.catalogue.config import make_config, setting_names
from reprogram.catalogue.convert import compact_program, compile_program
from reprogram.catalogue.find import AXES, find, methods
from reprogram.catalogue.peft import export_peft, import_peft, import_tensor
from reprogram.catalogue.prompts import NearToken, combine, nearest_tokens

__all__ = [
    "AXES",
    "NearToken",
    "build",
    "combine",
    "compact_program",
    "compile_program",
    "export_peft",
    "find",
    "import_peft",
    "import_tensor",
    "load",
    "make_config",
    "methods",
    "nearest_tokens",
    "setting_names",
]
