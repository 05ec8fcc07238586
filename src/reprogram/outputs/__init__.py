"""O: how the source's outputs are read as the target's, one alignment a file.

Outputs that are linear in class scores or features have `fold()` [S, T] and `offset()` [T] with
``forward == scores @ fold() + offset()``, for export and for checks; those that count or measure have `observe`,
`refresh`, `forget`, `statistics` and `load_statistics`.
"""

from reprogram.outputs.aligned import AlignedScores, token_similarity
from reprogram.outputs.answers import answers, head_on_features
from reprogram.outputs.arithmetic import evaluate, recomputed
from reprogram.outputs.attribute_choice import representatives
from reprogram.outputs.attribute_scores import AttributeScores, Guidance
from reprogram.outputs.calibrated import Calibrated, content_free
from reprogram.outputs.choose import class_output, label_map
from reprogram.outputs.class_scores import ClassScores, check_names, template_scores, texts_for
from reprogram.outputs.class_texts import article, named, text_encoder, text_vectors
from reprogram.outputs.clusters import k_means
from reprogram.outputs.consistent_scores import ConsistentScores
from reprogram.outputs.deranged import Deranged, derangement, supervised_contrast
from reprogram.outputs.distilled import DistilledClasses, Projector
from reprogram.outputs.ensemble import (
    ClassTexts,
    PromptEnsemble,
    prompt_bias,
    prompt_scores,
    prompt_weights,
    standing_out,
)
from reprogram.outputs.hierarchy import HierarchyHead, hierarchy_by_name, levels_of, token_start
from reprogram.outputs.identity import Identity
from reprogram.outputs.label_words import Words, tokenised_words, words_of
from reprogram.outputs.likelihood import Likelihood
from reprogram.outputs.linear import Linear
from reprogram.outputs.mapped_texts import MappedTexts
from reprogram.outputs.marked import MarkedClasses, NamedAnswer, PointClasses, QuadrantColours
from reprogram.outputs.mixture import MixtureOfAnswers
from reprogram.outputs.nearest_descriptions import NearestDescriptions
from reprogram.outputs.parsing import Parser
from reprogram.outputs.pixel_decoder import Frame, PixelDecoder, ReadMap
from reprogram.outputs.probability_map import ProbabilityMap, focal_loss
from reprogram.outputs.prototypes import NearestNeighbours, Prototypes
from reprogram.outputs.residual_scores import ResidualScores, contrastive_focal
from reprogram.outputs.reweighting import ReweightedDescriptions, count_nearest, reweighted
from reprogram.outputs.rule_verbalizer import RuleVerbalizer
from reprogram.outputs.rules import FirstClasses, NamedClasses
from reprogram.outputs.semantic import ChosenClasses, semantic_map
from reprogram.outputs.soft_verbalizer import SoftVerbalizer, soft_verbalizer
from reprogram.outputs.statistical import BayesianMap, BayesianMapPlus, FrequencyMap, RandomMap
from reprogram.outputs.token_scores import TokenScores
from reprogram.outputs.transport import Transport, sinkhorn, transported
from reprogram.outputs.transport_scores import TransportScores
from reprogram.outputs.verbalizer import ContinuationVerbalizer, Verbalizer, verbalizer
from reprogram.outputs.voted import ParsedText, Voted, decided, majority_at, vote

__all__ = [
    "AlignedScores",
    "AttributeScores",
    "BayesianMap",
    "BayesianMapPlus",
    "Calibrated",
    "ChosenClasses",
    "ClassScores",
    "ClassTexts",
    "ConsistentScores",
    "ContinuationVerbalizer",
    "Deranged",
    "DistilledClasses",
    "FirstClasses",
    "Frame",
    "FrequencyMap",
    "Guidance",
    "HierarchyHead",
    "Identity",
    "Likelihood",
    "Linear",
    "MappedTexts",
    "MarkedClasses",
    "MixtureOfAnswers",
    "NamedAnswer",
    "NamedClasses",
    "NearestDescriptions",
    "NearestNeighbours",
    "ParsedText",
    "Parser",
    "PixelDecoder",
    "PointClasses",
    "ProbabilityMap",
    "Projector",
    "PromptEnsemble",
    "Prototypes",
    "QuadrantColours",
    "RandomMap",
    "ReadMap",
    "ResidualScores",
    "ReweightedDescriptions",
    "RuleVerbalizer",
    "SoftVerbalizer",
    "TokenScores",
    "Transport",
    "TransportScores",
    "Verbalizer",
    "Voted",
    "Words",
    "answers",
    "article",
    "check_names",
    "class_output",
    "content_free",
    "contrastive_focal",
    "count_nearest",
    "decided",
    "derangement",
    "evaluate",
    "focal_loss",
    "head_on_features",
    "hierarchy_by_name",
    "k_means",
    "label_map",
    "levels_of",
    "majority_at",
    "named",
    "prompt_bias",
    "prompt_scores",
    "prompt_weights",
    "recomputed",
    "representatives",
    "reweighted",
    "semantic_map",
    "sinkhorn",
    "soft_verbalizer",
    "standing_out",
    "supervised_contrast",
    "template_scores",
    "text_encoder",
    "text_vectors",
    "texts_for",
    "token_similarity",
    "token_start",
    "tokenised_words",
    "transported",
    "verbalizer",
    "vote",
    "words_of",
]
