"""I: edits, one operator a file."""

from reprogram.inputs.absorbed import JoiningTokens, LeavingTokens
from reprogram.inputs.additive import Additive, Init, around_mask, frame_mask, full_mask
from reprogram.inputs.blocks import Block, block_paths, look_at_blocks
from reprogram.inputs.bounded_frame import BoundedFrame
from reprogram.inputs.class_prompts import ClassPrompts
from reprogram.inputs.codes import Components, Remembered
from reprogram.inputs.compose import Prompt, padded, pattern, watermarked
from reprogram.inputs.conditioned_context import ConditionedContext
from reprogram.inputs.contexts import ClassContexts, context_layout, context_start
from reprogram.inputs.coordinator import Coordinator, PromptDecoder
from reprogram.inputs.decomposition import Decomposed, Handlers, Limits
from reprogram.inputs.deep_prompts import (
    CoupledTokens,
    TrailingTokens,
    VisionPrompt,
    coupled_prompts,
    image_prompts,
    image_width,
    or_plot,
    pixel_frame,
    text_prompts,
)
from reprogram.inputs.demonstrations import Demonstrations, Shown, demonstrated
from reprogram.inputs.described import at_most, drawn_descriptions, needed, settings_only
from reprogram.inputs.descriptions import as_examples, cause_sets, exactly, from_examples, read_descriptions
from reprogram.inputs.encoded_prompt import EncodedPrompt, Encoder
from reprogram.inputs.entry import Entry, entry
from reprogram.inputs.explicit_prompts import ExplicitPrompt, HighFrequency, high_frequencies
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
from reprogram.inputs.prompt_sets import (
    FreshSets,
    set_starts,
    text_sets,
)
from reprogram.inputs.prompt_tokens import PromptTokens, ReplacedTokens, patch_size, uniform_start
from reprogram.inputs.proportion import in_proportion
from reprogram.inputs.reasoning import TwoPasses
from reprogram.inputs.retrieval import Passage, Passages, Retriever, read_passages
from reprogram.inputs.scale import ScaledFrame, scaled_about_centre
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
from reprogram.inputs.several_frames import SeveralFrames
from reprogram.inputs.showing import Showing, asking
from reprogram.inputs.soft_prompt import SoftPrompt
from reprogram.inputs.starts import Start, instruction, prefix_start, prompt_start
from reprogram.inputs.template import Template, default_layout, woven_layout
from reprogram.inputs.token_delta import TokenDelta
from reprogram.inputs.transfer import most_similar, prompt_of, similarity, transfer
from reprogram.inputs.unet import Redraw, UNet
from reprogram.inputs.valid import Valid

__all__ = [
    "Additive",
    "Block",
    "BoundedFrame",
    "Boxes",
    "ClassContexts",
    "ClassPrompts",
    "Components",
    "ConceptBoxes",
    "ConditionedContext",
    "Coordinator",
    "CoupledTokens",
    "Decomposed",
    "Demonstrations",
    "EncodedPrefix",
    "EncodedPrompt",
    "Encoder",
    "Entry",
    "Examples",
    "ExplicitPrompt",
    "FixedSelector",
    "FreshSets",
    "FullLinear",
    "Grid",
    "GridCanvas",
    "GridQuestions",
    "GroupedDemonstrations",
    "Handlers",
    "HighFrequency",
    "Init",
    "Interleaved",
    "JoiningTokens",
    "LeastToMost",
    "LeavingTokens",
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
    "PromptDecoder",
    "PromptMixture",
    "PromptTokens",
    "Redraw",
    "Region",
    "Remembered",
    "ReplacedTokens",
    "Retriever",
    "SampleMask",
    "ScaledFrame",
    "Search",
    "Segments",
    "Selector",
    "SeveralFrames",
    "Showing",
    "Shown",
    "SoftPrompt",
    "Start",
    "Style",
    "Template",
    "TokenDelta",
    "TrailingTokens",
    "Turns",
    "TwoPasses",
    "UNet",
    "Valid",
    "VectorSelector",
    "VisionPrompt",
    "WordSelector",
    "around_mask",
    "arrange",
    "as_examples",
    "asking",
    "at_most",
    "balanced_choice",
    "block_paths",
    "bm25",
    "cause_sets",
    "context_layout",
    "context_start",
    "coupled_prompts",
    "default_layout",
    "demonstrated",
    "dpp",
    "drawn_descriptions",
    "entry",
    "exactly",
    "frame_mask",
    "from_examples",
    "full_mask",
    "high_frequencies",
    "image_prompts",
    "image_width",
    "in_proportion",
    "instruction",
    "look_at_blocks",
    "mark",
    "most_similar",
    "nearest",
    "needed",
    "of_tasks",
    "open_task",
    "or_plot",
    "padded",
    "patch_size",
    "pattern",
    "pixel_frame",
    "prefix_start",
    "prompt_of",
    "prompt_start",
    "random_choice",
    "read_descriptions",
    "read_passages",
    "scaled_about_centre",
    "set_starts",
    "settings_only",
    "similarity",
    "text_prompts",
    "text_sets",
    "transfer",
    "twins",
    "uniform_start",
    "vote_k",
    "watermarked",
    "with_classes",
    "within",
    "woven_layout",
]
