"""A frozen ImageNet classifier learns a task, is saved, loaded and asked: `python examples/quickstart.py [--small]`."""

import sys
import tempfile
from pathlib import Path

import reprogram as rp

source = rp.load_source("bundled/efficientnet-lite0")
task = rp.load_task("bundled/digits")
small = {"canvas": 32, "epochs": 1} if "--small" in sys.argv else {}
task = task.limit(train=60, val=20, test=40) if small else task

program = rp.build("blm", source, task, preset="cpu", **small)
print(f"{program.taxonomy}: {program.count().effective:,} numbers to learn")

out = Path(tempfile.mkdtemp()) / "digits.safetensors"
result = rp.fit(program, task, out=out)
assert result.test is not None
print(f"test accuracy {result.test.accuracy:.1%}, {out.stat().st_size:,} bytes")

pictures = task.test.fetch(task.test.labels.argsort()[:3])
print("says", rp.load(out).predict(pictures).labels)
