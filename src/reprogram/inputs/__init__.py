"""I: edits, one operator a file."""

from reprogram.inputs.additive import Additive, around_mask, frame_mask, full_mask
from reprogram.inputs.compose import Prompt, padded, pattern, watermarked
from reprogram.inputs.demonstrations import Chooses, Demonstrations, Shown
from reprogram.inputs.encoded_prompt import EncodedPrompt, Encoder
from reprogram.inputs.entry import Entry, entry
from reprogram.inputs.full_linear import FullLinear
from reprogram.inputs.grouped import GroupedDemonstrations
from reprogram.inputs.mask import SampleMask
from reprogram.inputs.multitask_prompt import MultitaskPrompt, of_tasks
from reprogram.inputs.opening import Opening, open_task, with_classes
from reprogram.inputs.patch import Patch
from reprogram.inputs.place import Place
from reprogram.inputs.prefix import EncodedPrefix, Prefix
from reprogram.inputs.prompt_mixture import PromptMixture
from reprogram.inputs.prompt_tokens import PromptTokens, ReplacedTokens, patch_size, uniform_start
from reprogram.inputs.soft_prompt import SoftPrompt
from reprogram.inputs.starts import Start, instruction, prefix_start, prompt_start
from reprogram.inputs.template import Template, default_layout, woven_layout
from reprogram.inputs.transfer import most_similar, prompt_of, similarity, transfer

__all__ = [
    "Additive",
    "Chooses",
    "Demonstrations",
    "EncodedPrefix",
    "EncodedPrompt",
    "Encoder",
    "Entry",
    "FullLinear",
    "GroupedDemonstrations",
    "MultitaskPrompt",
    "Opening",
    "Patch",
    "Place",
    "Prefix",
    "Prompt",
    "PromptMixture",
    "PromptTokens",
    "ReplacedTokens",
    "SampleMask",
    "Shown",
    "SoftPrompt",
    "Start",
    "Template",
    "around_mask",
    "default_layout",
    "entry",
    "frame_mask",
    "full_mask",
    "instruction",
    "most_similar",
    "of_tasks",
    "open_task",
    "padded",
    "patch_size",
    "pattern",
    "prefix_start",
    "prompt_of",
    "prompt_start",
    "similarity",
    "transfer",
    "uniform_start",
    "watermarked",
    "with_classes",
    "woven_layout",
]
