"""O: how the source's outputs are read as the target's, one alignment a file.

Outputs that are linear in class scores or features have `fold()` [S, T] and `offset()` [T] with
``forward == scores @ fold() + offset()``, for export and for checks; those that count or measure have `observe`,
`refresh`, `forget`, `statistics` and `load_statistics`.
"""

from reprogram.outputs.answers import answers, head_on_features
from reprogram.outputs.arithmetic import evaluate, recomputed
from reprogram.outputs.calibrated import Calibrated, content_free
from reprogram.outputs.choose import label_map
from reprogram.outputs.class_texts import article, named, text_encoder, text_vectors
from reprogram.outputs.ensemble import (
    ClassTexts,
    PromptEnsemble,
    prompt_bias,
    prompt_scores,
    prompt_weights,
    standing_out,
)
from reprogram.outputs.identity import Identity
from reprogram.outputs.label_words import Words, tokenised_words, words_of
from reprogram.outputs.likelihood import Likelihood
from reprogram.outputs.linear import Linear
from reprogram.outputs.marked import MarkedClasses, NamedAnswer, PointClasses, QuadrantColours
from reprogram.outputs.mixture import MixtureOfAnswers
from reprogram.outputs.parsing import Parser
from reprogram.outputs.prototypes import NearestNeighbours, Prototypes
from reprogram.outputs.rule_verbalizer import RuleVerbalizer
from reprogram.outputs.rules import FirstClasses, NamedClasses
from reprogram.outputs.soft_verbalizer import SoftVerbalizer, soft_verbalizer
from reprogram.outputs.statistical import BayesianMap, BayesianMapPlus, FrequencyMap, RandomMap
from reprogram.outputs.token_scores import TokenScores
from reprogram.outputs.verbalizer import ContinuationVerbalizer, Verbalizer, verbalizer
from reprogram.outputs.voted import ParsedText, Voted, decided, majority_at, vote

__all__ = [
    "BayesianMap",
    "BayesianMapPlus",
    "Calibrated",
    "ClassTexts",
    "ContinuationVerbalizer",
    "FirstClasses",
    "FrequencyMap",
    "Identity",
    "Likelihood",
    "Linear",
    "MarkedClasses",
    "MixtureOfAnswers",
    "NamedAnswer",
    "NamedClasses",
    "NearestNeighbours",
    "ParsedText",
    "Parser",
    "PointClasses",
    "PromptEnsemble",
    "Prototypes",
    "QuadrantColours",
    "RandomMap",
    "RuleVerbalizer",
    "SoftVerbalizer",
    "TokenScores",
    "Verbalizer",
    "Voted",
    "Words",
    "answers",
    "article",
    "content_free",
    "decided",
    "evaluate",
    "head_on_features",
    "label_map",
    "majority_at",
    "named",
    "prompt_bias",
    "prompt_scores",
    "prompt_weights",
    "recomputed",
    "soft_verbalizer",
    "standing_out",
    "text_encoder",
    "text_vectors",
    "tokenised_words",
    "verbalizer",
    "vote",
    "words_of",
]
