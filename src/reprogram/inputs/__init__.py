"""I: edits, one operator a file."""

from reprogram.inputs.additive import Additive, around_mask, frame_mask, full_mask
from reprogram.inputs.compose import Prompt, padded, pattern, watermarked
from reprogram.inputs.full_linear import FullLinear
from reprogram.inputs.mask import SampleMask
from reprogram.inputs.patch import Patch
from reprogram.inputs.place import Place

__all__ = [
    "Additive",
    "FullLinear",
    "Patch",
    "Place",
    "Prompt",
    "SampleMask",
    "around_mask",
    "frame_mask",
    "full_mask",
    "padded",
    "pattern",
    "watermarked",
]
