"""The README's picture: `python docs/pictures/make.py demo/blm_plus.safetensors`, after `make demo`."""

import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

import reprogram as rp
from reprogram.core.program import Input
from reprogram.media import to_picture

SIDE, GAP, NAMES = 150, 14, 62


def rows(program: rp.Program, task: rp.Task, count: int = 6):
    """Per class: the picture, the edited picture, the source's words for it, the program's answer."""
    spec = program.source.spec
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (spec.preprocessing.mean, spec.preprocessing.std))
    for label in range(count):
        index = (task.test.labels == label).nonzero()[1]
        x = task.test.fetch(index).float() / 255
        place = program.input(x, "input")
        edited = program.input((place - mean) / std, "normalised") * std + mean
        plain = program.source(x, Input(program.input.edits[0])).logits.argmax(1)
        with torch.no_grad():
            seen = program.source(x, program.input).logits.softmax(1).max(1)
        answer = program.predict(x)
        yield x[0], edited[0].detach().clamp(0, 1), spec.label(int(plain)), spec.label(int(seen.indices)), answer


def main() -> None:
    """Draw and save beside this file."""
    task = rp.load_task("bundled/mnist5k")
    program = rp.load(sys.argv[1] if len(sys.argv) > 1 else "demo/blm_plus.safetensors")
    cells = list(rows(program, task))
    sheet = Image.new("RGB", (len(cells) * (SIDE + GAP) + GAP, 2 * SIDE + 2 * NAMES + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    bold = ImageFont.load_default(17)
    for i, (x, edited, plain, seen, answer) in enumerate(cells):
        left = GAP + i * (SIDE + GAP)
        for top, picture, text in ((GAP, x, f"{plain}?"), (GAP + SIDE + NAMES, edited, f"{seen}?")):
            sheet.paste(to_picture(picture).resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, top))
            draw.text((left + SIDE / 2, top + SIDE + 14), text, fill="#555", font=font, anchor="mm")
        said = f"read as {answer.labels[0]} ({float(answer.confidence[0]):.0%})"
        draw.text((left + SIDE / 2, 2 * SIDE + 2 * NAMES - 14), said, fill="black", font=bold, anchor="mm")
    sheet.save(Path(__file__).parent / "digits.png", optimize=True)


if __name__ == "__main__":
    main()
