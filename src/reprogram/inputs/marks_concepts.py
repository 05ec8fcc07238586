"""Boxes with names, for what a question is about: first ask which objects matter, then find and name them.

VTPrompt (Jiang et al. 2024, arXiv:2404.04514): key concepts, a detector, and a picture with labelled boxes.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, final

from jaxtyping import UInt8
from torch import Tensor

from reprogram.core.conversation import Ask, Budget, Pictures, Talk
from reprogram.core.errors import CapabilityError, DataError, say
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator
from reprogram.core.writing import Writing, Written
from reprogram.inputs.marks_drawing import Style, annotate, mark, name_of
from reprogram.inputs.marks_reading import listed_names, named_ids
from reprogram.inputs.marks_regions import Proposer, Region
from reprogram.inputs.showing import asking, listed

Detector = Callable[[Tensor, Sequence[str]], Sequence[Region]]
"""Finds things: a picture [3, height, width] uint8 and names to look for -> regions that have names."""

BOXES = Style(fill=0.0, edge=0, box=True)


@final
class ConceptBoxes(Edit):
    """Ask which objects a question is about, box and name them, and ask the question about the picture with the boxes.

    Args:
        question: about the picture.
        proposer: of regions, for lack of a detector: the source itself is then shown them with numbers and asked which
            shows what. That is only as good as the source's eyes.
        detector: an open-vocabulary detector, which is what the paper uses; None for the above.
        concepts: what to look for; empty to ask the source, which reads the question without the picture.
        style: of the boxes.
        writing: of the last answer, and of the ones before it.
        budget: None for three questions.
    """

    site = "input"
    operators = frozenset({Operator.ADDITIVE, Operator.CONCATENATIVE})

    def __init__(  # noqa: PLR0913 - each is a part of the method that can be replaced
        self,
        question: str,
        proposer: Proposer,
        *,
        detector: Detector | None = None,
        concepts: Sequence[str] = (),
        style: Style = BOXES,
        writing: Writing | None = None,
        budget: Budget | None = None,
    ) -> None:
        super().__init__()
        self.question, self.proposer, self.detector = question, proposer, detector
        self.concepts, self.style = tuple(concepts), style
        self.writing = writing or Writing(tokens=128)
        self.budget = budget or Budget(calls=3, tokens=3 * self.writing.tokens)

    def talk(self, row: Mapping[str, str], pictures: Pictures) -> Talk:
        """The questions about one picture.

        Where nothing was found the question is asked about the picture as it is.

        Raises:
            DataError: there is no picture, or more than one.
        """
        if len(pictures) != 1:
            raise DataError(say("row", "must have one picture to look at", len(pictures)))
        picture = pictures[0]
        concepts = list(self.concepts)
        if not concepts:
            text = f"Which objects must one find in a picture to answer this? Name them, one a line.\n{self.question}"
            said = yield Ask(asking(text, pictures=0), self.writing)
            concepts = listed_names(said.text)
        found = yield from self._found(picture, concepts)
        drawn, note = picture, ""
        if found:
            drawn, _ = annotate(picture, found, [region.name for region in found], self.style)
            names = list(dict.fromkeys(region.name for region in found))
            note = f"Boxes with names are drawn around what matters: {listed(names, 'and')}. First look at these.\n"
        said = yield Ask(asking(note + self.question), self.writing, (drawn,))
        return said

    def forward(self, value: Any) -> Any:
        """A conversation has no single edited value.

        Raises:
            CapabilityError: always; `Program.outputs` has the conversation.
        """
        got = type(value).__name__
        raise CapabilityError(say("concept boxes", "must be run by a program, which has the conversation", got))

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return (f"{self.question!r}, {self.proposer!r}, detector={self.detector!r}, concepts={self.concepts}, "
                f"{self.style!r}, {self.writing!r}, {self.budget!r}")  # fmt: skip

    def _found(
        self, picture: UInt8[Tensor, " channel height width"], concepts: Sequence[str]
    ) -> Generator[Ask, Written, list[Region]]:
        """The regions with the names of concepts."""
        if not concepts:
            return []
        if self.detector is not None:
            return [region for region in self.detector(picture, concepts) if region.name]
        marked = mark(picture, self.proposer(picture))
        regions = list(marked.table.values())
        text = (
            f"The picture has regions numbered from {name_of(1)} to {name_of(len(regions))}. Which of them shows "
            f'{listed(concepts)}? Answer with JSON that has numbers as keys, like {{"1": "{concepts[0]}"}}, and leave '
            "out the regions that show none of these."
        )
        said = yield Ask(asking(text), self.writing, (marked.picture,))
        names = named_ids(said.text, len(regions), concepts)
        return [Region(regions[n - 1].mask, name) for n, name in sorted(names.items())]
