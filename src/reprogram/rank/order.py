"""The recommended order: one rule, in one place, with its reason in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reprogram.rank.names import SCORES, label


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the rule looks at, of one source.

    Attributes:
        name: of the source.
        scores: None for one that it does not have.
        at_chance: whether its probe is no better than a constant answer; None without a probe.
    """

    name: str
    scores: Mapping[str, float | None]
    at_chance: bool | None


def recommend(sources: Sequence[Evidence]) -> tuple[list[str], str]:
    """Put sources in order, the best first.

    Args:
        sources: all that could be measured.

    Returns:
        Their names, and a sentence or two on how they were ordered and why.

    >>> def seen(name, accuracy, chance=False):
    ...     return Evidence(name=name, scores={"probe_accuracy": accuracy}, at_chance=chance)
    >>> order, reason = recommend([seen("a", 0.5), seen("b", 0.7), seen("twin", 0.9, chance=True)])
    >>> order
    ['b', 'a', 'twin']
    """
    names, why = _deciding(sources)
    used = [name for name in names if any(s.scores.get(name) is not None for s in sources)]
    order = [
        s.name for chance in (False, True) for s in _group([s for s in sources if bool(s.at_chance) == chance], used)
    ]
    return order, _sentence(used, [n for n in names if n not in used], why, sources)


def _group(sources: Sequence[Evidence], used: Sequence[str]) -> list[Evidence]:
    """Sources by their mean rank among themselves; equal ones by the probe, then as they were given."""
    places = [ranks([s.scores.get(name) for s in sources], higher=SCORES[name].higher) for name in used]

    def key(i: int) -> tuple[float, float, int]:
        probe = sources[i].scores.get("probe_accuracy")
        return sum(column[i] for column in places), -(probe if probe is not None else -1.0), i

    return [sources[i] for i in sorted(range(len(sources)), key=key)]


def _deciding(sources: Sequence[Evidence]) -> tuple[tuple[str, ...], str]:
    """The scores that decide, and why these. The rule; change it here.

    The loss of gradient flow is what the program's kernel predicts; it chose best among trained sources, but random
    networks have the smallest of all. kNN on the source's features tells random from trained, and the probe puts last
    what learns nothing. Of nine rules tried on four rankings this one lost least (0, 0, 0 and 7 points of accuracy
    against the best source), and it was chosen after seeing them (docs/lab/2026-11-22-ranking.md).
    """
    if any(s.scores.get("knn") is not None for s in sources):
        why = "the one says how fast the program can learn, the other tells trained sources from random ones"
        return ("gf_loss", "knn"), why
    return ("gf_loss", "probe_accuracy"), "no source has features for neighbours"


def ranks(values: Sequence[float | None], *, higher: bool) -> list[float]:
    """Places from 1 for the best; equal values share the mean place, and missing ones come last.

    >>> ranks([0.1, None, 0.3, 0.3], higher=True)
    [3.0, 4.0, 1.5, 1.5]
    """
    worst = float("-inf")
    signed = [worst if v is None else (v if higher else -v) for v in values]
    return [1 + sum(o > v for o in signed) + (sum(o == v for o in signed) - 1) / 2 for v in signed]


def _sentence(used: Sequence[str], absent: Sequence[str], why: str, sources: Sequence[Evidence]) -> str:
    called = [label(name) for name in used]
    if not called:
        said = "In the order given, because no source has a score that could decide."
    else:
        by = f"the mean rank of {' and '.join(called)}" if len(called) > 1 else called[0]
        said = f"Ordered by {by}, because {why}."
    said += "".join(f" No source has a {label(name)}." for name in absent if used)
    last = [s.name for s in sources if s.at_chance]
    if last and len(last) < len(sources):
        said += f" Never above one that learned something, because the probe was at chance: {', '.join(last)}."
    return said
