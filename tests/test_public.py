"""The public surface: what is there, what importing it costs, and that names stay what they are."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import reprogram as rp


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_exported_members_are_sorted_and_importable():
    assert len(set(rp.__all__)) == len(rp.__all__) <= 48
    for name in rp.__all__:
        assert getattr(rp, name) is not None
    assert set(rp.__all__) == {*rp._HOME, "__version__"}
    assert set(dir(rp)) == set(rp.__all__)


ROOMS = [
    "catalogue", "experiments", "fit", "inputs", "ntk", "outputs", "rank", "report", "search", "sources", "store",
    "tasks", "testing",
]  # fmt: skip


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_say_what_is_public(room):
    module = importlib.import_module(f"reprogram.{room}")
    assert list(module.__all__) == sorted(module.__all__)
    tree = ast.parse(Path(module.__file__).read_text())
    imported = {a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert set(module.__all__) == imported


def test_import_is_silent_and_light():
    heavy = ("torch", "numpy", "pydantic", "PIL", "rich")
    out = run(f"import sys, reprogram; print([m for m in {heavy} if m in sys.modules])")
    assert out.strip() == "[]"


def test_the_api_brings_torch_and_nothing_heavier():
    heavy = ("torchvision", "timm", "transformers", "sklearn", "pandas", "plotly", "matplotlib", "datasets", "mlxtend")
    use = "import sys, reprogram as rp; rp.build, rp.fit, rp.load_source, rp.load_task"
    out = run(f"{use}; print([m for m in {heavy} if m in sys.modules])")
    assert out.strip() == "[]"


def test_functions_keep_their_names_when_rooms_of_that_name_are_imported():
    out = run(
        "import reprogram as rp\n"
        "assert callable(rp.fit) and callable(rp.methods)\n"
        "import reprogram.fit.engine, reprogram.methods.blm, reprogram.rank.diagnose\n"
        "from reprogram.fit import engine\n"
        "assert callable(rp.fit) and callable(rp.methods), rp.fit\n"
        "assert rp.fit is engine.fit\n"
        "import reprogram.ntk\n"
        "assert callable(rp.rank) and callable(rp.diagnose) and rp.diagnose is not reprogram.ntk.diagnose\n"
        "print(len(rp.methods()) > 5)"
    )
    assert out.strip() == "True"


def test_the_rooms_above_bring_nothing_heavier_either():
    heavy = ("torchvision", "timm", "transformers", "sklearn", "pandas", "plotly", "matplotlib", "scipy")
    use = "import sys, reprogram as rp; rp.diagnose, rp.rank, rp.Diagnosis, rp.Ranking; import reprogram.experiments"
    out = run(f"{use}; print([m for m in {heavy} if m in sys.modules])")
    assert out.strip() == "[]"


def test_what_is_promised_of_the_new_rooms():
    names = {"Diagnosis", "Ranking", "diagnose", "rank"}
    assert names <= set(rp.__all__)
    wanted = {
        "ntk": {"Diagnosis", "DiagnoseOptions", "diagnose", "program_kernel", "source_kernel", "spectrum", "Spectrum"},
        "rank": {"RankOptions", "Ranking", "diagnose", "rank", "target_sample"},
        "experiments": {"EXPERIMENTS", "Options", "run"},
        "report": {"write_diagnosis"},
    }
    for room, few in wanted.items():
        assert few <= set(importlib.import_module(f"reprogram.{room}").__all__), room


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = rp.nonsense
