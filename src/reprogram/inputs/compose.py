"""Compositions of edits that several papers share, so that a method file says only what is its own."""

from typing import Literal

from reprogram.core.program import Edit
from reprogram.core.source import SourceSpec
from reprogram.core.task import TaskSpec
from reprogram.inputs.additive import Additive, Init, Squash, around_mask, full_mask
from reprogram.inputs.place import Place


def padded(
    source: SourceSpec,
    task: TaskSpec,
    *,
    canvas: int | None = None,
    inner: int | None = None,
    squash: Squash = "sigmoid",
    init: Init = "zeros",
) -> list[Edit]:
    """The image in the middle of a learned frame (ILM-VP, BLM, AttrVR, DVP): ``pad(x) + squash(delta) * mask``.

    `inner` is the image's size on the canvas, None its own size; the frame is what is left.

    Raises:
        ConfigError: nothing is left.
    """
    size = source.canvas(canvas)
    place = Place(size, inner)
    hole = place.size(task.sample.height, task.sample.width)
    return [place, Additive(around_mask(size, *hole), channels=task.sample.shape[0], squash=squash, init=init)]


def watermarked(source: SourceSpec, task: TaskSpec, *, canvas: int | None = None) -> list[Edit]:
    """The image scaled to the whole canvas and a learned pattern over all of it, after normalisation.

    "Watermarking" in BLM, "full" in SMM: no squash, starts at zeros, that is, at no change.
    """
    size = source.canvas(canvas)
    return [Place(size, size), Additive(full_mask(size), channels=task.sample.shape[0], site="normalised")]


Prompt = Literal["pad", "watermark"]


def pattern(
    prompt: Prompt, source: SourceSpec, task: TaskSpec, *, canvas: int | None = None, inner: int | None = None
) -> list[Edit]:
    """The two input patterns that label-mapping papers choose between: "pad" is `padded`, "watermark" `watermarked`."""
    if prompt == "pad":
        return padded(source, task, canvas=canvas, inner=inner)
    return watermarked(source, task, canvas=canvas)
