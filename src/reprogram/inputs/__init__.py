"""I: edits, one operator a file."""

from reprogram.inputs.additive import Additive, around_mask, frame_mask, full_mask
from reprogram.inputs.class_prompts import ClassPrompts
from reprogram.inputs.compose import Prompt, padded, pattern, watermarked
from reprogram.inputs.decomposition import Decomposed, Handlers, Limits
from reprogram.inputs.demonstrations import Demonstrations, Shown
from reprogram.inputs.encoded_prompt import EncodedPrompt, Encoder
from reprogram.inputs.entry import Entry, entry
from reprogram.inputs.full_linear import FullLinear
from reprogram.inputs.grids_edits import Examples, GridCanvas, GridQuestions
from reprogram.inputs.grouped import GroupedDemonstrations
from reprogram.inputs.interleaved import Interleaved, Turns
from reprogram.inputs.least_to_most import LeastToMost
from reprogram.inputs.marks import Marks
from reprogram.inputs.marks_concepts import ConceptBoxes
from reprogram.inputs.marks_drawing import Style, mark
from reprogram.inputs.marks_regions import Boxes, Grid, Region, Segments
from reprogram.inputs.mask import SampleMask
from reprogram.inputs.multitask_prompt import MultitaskPrompt, of_tasks
from reprogram.inputs.opening import Opening, open_task, with_classes
from reprogram.inputs.patch import Patch
from reprogram.inputs.pivot import Pivot, Search
from reprogram.inputs.place import Place
from reprogram.inputs.prefix import EncodedPrefix, Prefix
from reprogram.inputs.prompt_mixture import PromptMixture
from reprogram.inputs.prompt_tokens import PromptTokens, ReplacedTokens, patch_size, uniform_start
from reprogram.inputs.reasoning import TwoPasses
from reprogram.inputs.retrieval import Passage, Passages, Retriever, read_passages
from reprogram.inputs.selection import (
    Order,
    arrange,
    balanced_choice,
    dpp,
    nearest,
    random_choice,
    twins,
    vote_k,
    within,
)
from reprogram.inputs.selection_bm25 import bm25
from reprogram.inputs.selection_query import FixedSelector, Selector, VectorSelector, WordSelector
from reprogram.inputs.showing import Showing, asking
from reprogram.inputs.soft_prompt import SoftPrompt
from reprogram.inputs.starts import Start, instruction, prefix_start, prompt_start
from reprogram.inputs.template import Template, default_layout, woven_layout
from reprogram.inputs.transfer import most_similar, prompt_of, similarity, transfer

__all__ = [
    "Additive",
    "Boxes",
    "ClassPrompts",
    "ConceptBoxes",
    "Decomposed",
    "Demonstrations",
    "EncodedPrefix",
    "EncodedPrompt",
    "Encoder",
    "Entry",
    "Examples",
    "FixedSelector",
    "FullLinear",
    "Grid",
    "GridCanvas",
    "GridQuestions",
    "GroupedDemonstrations",
    "Handlers",
    "Interleaved",
    "LeastToMost",
    "Limits",
    "Marks",
    "MultitaskPrompt",
    "Opening",
    "Order",
    "Passage",
    "Passages",
    "Patch",
    "Pivot",
    "Place",
    "Prefix",
    "Prompt",
    "PromptMixture",
    "PromptTokens",
    "Region",
    "ReplacedTokens",
    "Retriever",
    "SampleMask",
    "Search",
    "Segments",
    "Selector",
    "Showing",
    "Shown",
    "SoftPrompt",
    "Start",
    "Style",
    "Template",
    "Turns",
    "TwoPasses",
    "VectorSelector",
    "WordSelector",
    "around_mask",
    "arrange",
    "asking",
    "balanced_choice",
    "bm25",
    "default_layout",
    "dpp",
    "entry",
    "frame_mask",
    "full_mask",
    "instruction",
    "mark",
    "most_similar",
    "nearest",
    "of_tasks",
    "open_task",
    "padded",
    "patch_size",
    "pattern",
    "prefix_start",
    "prompt_of",
    "prompt_start",
    "random_choice",
    "read_passages",
    "similarity",
    "transfer",
    "twins",
    "uniform_start",
    "vote_k",
    "watermarked",
    "with_classes",
    "within",
    "woven_layout",
]
