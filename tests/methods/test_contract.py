"""Every method that discovery finds keeps the contract; a copied file is found and tested with no other edit."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import reprogram
from reprogram.catalogue import methods
from reprogram.testing import ContractError, check_method
from tests.methods.text_tasks import suiting

ALL = methods()


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.name)
def test_contract(method):
    source, task, settings = suiting(method)
    check_method(method, source=source, task=task, **settings)


def test_the_family_is_complete():
    names = {m.name for m in ALL}
    assert names >= {
        "adversarial_reprogramming", "vp", "flm", "ilm_vp", "blm", "blm_plus", "smm", "no_edit", "linear_probe",
    }  # fmt: skip


COPY = """
import shutil, sys
from pathlib import Path
import reprogram
from reprogram.catalogue import find, methods
from reprogram.testing import check_method
assert "blm2" in [m.name for m in methods()]
check_method(find("blm2"))
print("tested blm2")
"""


def test_copying_a_file_adds_a_tested_method(tmp_path):
    """In a copy of the package, so that this checkout stays as it is."""
    package = Path(reprogram.__file__).parent
    shutil.copytree(package, tmp_path / "reprogram", ignore=shutil.ignore_patterns("__pycache__"))
    text = (package / "methods/blm.py").read_text().replace('name="blm"', 'name="blm2"')
    (tmp_path / "reprogram/methods/blm2.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", COPY], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin"},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "tested blm2" in done.stdout


def test_the_contract_can_fail():
    from dataclasses import replace

    from reprogram.catalogue import find
    from reprogram.core.taxonomy import Alignment, Taxonomy

    lying = replace(find("blm"), taxonomy=Taxonomy.of(Alignment.LINEAR))
    with pytest.raises(ContractError, match=r"declared \(–; –; –; linear\), but its parts are"):
        check_method(lying)
