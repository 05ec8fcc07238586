import pytest
import torch

from reprogram.catalogue import build
from reprogram.fit import FitOptions, FitResult, fit
from reprogram.report import controls
from reprogram.tasks import Task
from reprogram.testing import tiny_source, tiny_task

QUIET = FitOptions(progress=False)
SMALL = {"epochs": 2, "batch_size": 8}


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def source():
    return tiny_source()


@pytest.fixture(scope="session")
def task():
    return tiny_task(per_class=24)


def fitted(method: str, source, task: Task, out=None, options: FitOptions = QUIET, **settings) -> FitResult:
    small = {**SMALL, **({"patch": 4} if method == "smm" else {"width": 3} if method == "vp" else {}), **settings}
    return fit(build(method, source, task, **small), task, out=out, options=options)


@pytest.fixture(scope="session")
def blm(source, task, tmp_path_factory) -> FitResult:
    out = tmp_path_factory.mktemp("blm") / "blm.safetensors"
    return fitted("blm", source, task, out=out, options=FitOptions(progress=False, track_test=True), epochs=3)


@pytest.fixture(scope="session")
def blm_controls(blm, task):
    return controls(blm, task, full=True)


def renamed(task: Task, classes: tuple[str, ...], name: str = "tiny", warnings: tuple[str, ...] = ()) -> Task:
    """The same pictures under other names."""
    from dataclasses import replace

    return replace(task, spec=replace(task.spec, name=name, classes=classes), warnings=warnings)


def random_task(classes: int, per_class: int = 4, *, val: float = 0.25, test: float = 0.5) -> Task:
    n = classes * per_class
    x = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    names = [f"class {i}" for i in range(classes)]
    return Task.from_arrays(x, torch.arange(n) % classes, classes=names, val=val, test=test, name="noise")
