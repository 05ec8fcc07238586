"""Which output reads a text task's answers off a source, for methods that leave the choice to source and task."""

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import TextSource
from reprogram.core.task import TaskSpec
from reprogram.outputs.label_words import Words
from reprogram.outputs.linear import Linear
from reprogram.outputs.token_scores import TokenScores
from reprogram.outputs.verbalizer import verbalizer


def answers(source: TextSource, task: TaskSpec | None, words: Words | None = None, *, after: str = "") -> Output:
    """Label words where the source scores a vocabulary, a learned linear layer where it gives a vector.

    For generation, and without a task, the scores of tokens themselves.

    Args:
        source: a language model or text encoder.
        task: None for scores at the input's own tokens.
        words: label words; None for the class names.
        after: the text right before the answer, see `label_words.tokenised_words`.

    Raises:
        CapabilityError: see `verbalizer` and `head_on_features`.
        ConfigError: see `verbalizer`; also label words for a source without a vocabulary.
    """
    if task is None or task.generates:
        return TokenScores()
    if source.kind in ("causal", "masked", "seq2seq"):
        return verbalizer(source, task, words, after=after)
    if words is not None:
        got = f"{source.spec.ref} ({source.kind})"
        raise ConfigError(say("words", "must be for a source that scores a vocabulary", got, "Leave them out."))
    return head_on_features(source, task)


def head_on_features(source: TextSource, task: TaskSpec) -> Linear:
    """A linear layer on what the source's own head would read.

    Raises:
        CapabilityError: the width of that is not known.
    """
    if source.spec.width is None:
        raise CapabilityError(say("source", "must tell the width of its features", source.spec.ref))
    return Linear(source.spec.width, len(task.classes), features=True)
