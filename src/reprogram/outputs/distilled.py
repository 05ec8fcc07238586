"""Pictures against a teacher's class vectors, learned from the teacher's answers alone (PromptKD; Li et al. 2024)."""

import hashlib
from collections.abc import Callable
from typing import Literal, Protocol, final, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import Reading, SourceOutput
from reprogram.core.taxonomy import Alignment

Norm = Literal["batch", "layer", "none"]

KEPT = 1 << 28
"""Numbers of the teacher's answers that are remembered at most (1 GB of float32)."""


@runtime_checkable
class Teacher(Protocol):
    """Who is asked: another image-text model, with the same classes."""

    def vectors(self) -> Tensor:
        """Its class texts, [T, d], of length 1."""
        ...

    def answers(self, pictures: Tensor) -> Tensor:
        """Its class scores [B, T] of pictures [B, channel, height, width] in [0, 1], detached."""
        ...


@final
class Projector(nn.Module):
    """Linear(width, d), normalisation, ReLU, Linear(d, d): the student's vectors in the teacher's space.

    Args:
        width: of the student's vectors.
        d: of the teacher's.
        norm: "batch" (as published), "layer", which does not mind small batches, or "none".

    Raises:
        ConfigError: an unknown normalisation.

    >>> sum(p.numel() for p in Projector(512, 768).parameters())  # as published for ViT-B/16 and ViT-L/14
    986112
    """

    def __init__(self, width: int, d: int, norm: Norm = "batch") -> None:
        super().__init__()
        kinds: dict[str, Callable[[], nn.Module]] = {
            "batch": lambda: nn.BatchNorm1d(d), "layer": lambda: nn.LayerNorm(d), "none": nn.Identity,
        }  # fmt: skip
        if norm not in kinds:
            raise ConfigError(say("norm", f"must be one of {list(kinds)}", norm))
        self.first, self.norm, self.last = nn.Linear(width, d), kinds[norm](), nn.Linear(d, d)

    def forward(self, vectors: Float[Tensor, " batch width"]) -> Float[Tensor, " batch d"]:
        """The vectors there, not yet of length 1."""
        return self.last(F.relu(self._normed(self.first(vectors))))

    def _normed(self, value: Tensor) -> Tensor:
        norm = self.norm
        if isinstance(norm, nn.BatchNorm1d) and norm.training and len(value) < 2:  # a last batch of one: no statistics
            return F.batch_norm(value, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return norm(value)


@final
class DistilledClasses(Output):
    """``y_t = scale * cos(projector(v), w_t)`` with the teacher's class vectors w; the loss asks the teacher, no label.

    ``loss = weight * temperature^2 / (B T) * sum KL(softmax(teacher / temperature) || softmax(y / temperature))``.

    The teacher looks at each picture as the source was given it, before anything learned is added: at `site`, on the
    source's canvas. Its answers are remembered by the picture's bytes, so that over many epochs without augmentation it
    looks at each picture once. They are not part of the program's state; its class vectors are, so that a program that
    is fitted needs no teacher.

    Args:
        projector: from the source's vectors to the teacher's space.
        shape: (T, d) of the class vectors.
        teacher: makes it; called when it is first asked.
        scale: of the teacher's cosines.
        temperature: of both sides (paper: 1).
        weight: of the loss (paper: 1,000; 200 for three data sets).
        site: where pictures are in shape and still as they are.

    Raises:
        ConfigError: a temperature, scale or weight that is not above 0.
    """

    alignment = Alignment.LINEAR
    reads_features = True
    vectors: Tensor

    def __init__(  # noqa: PLR0913 - the parts and the published settings
        self, projector: Projector, shape: tuple[int, int], teacher: Callable[[], Teacher], *, scale: float,
        temperature: float = 1.0, weight: float = 1000.0, site: str = "input",
    ) -> None:  # fmt: skip
        super().__init__()
        for name, value in (("scale", scale), ("temperature", temperature), ("weight", weight)):
            if not 0 < value < float("inf"):
                raise ConfigError(say(name, "must be a finite number above 0", value))
        self.projector, self.scale, self.temperature, self.weight = projector, scale, temperature, weight
        self.site = site
        self._teacher = teacher
        self._known = False
        self._answers: dict[bytes, Tensor] = {}
        self.register_buffer("vectors", torch.zeros(shape))

    @property
    def reading(self) -> Reading:
        """The pictures' vectors, and while learning the pictures themselves."""
        return Reading(sites=(self.site,)) if self.training else Reading()

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Scores of the classes."""
        if output.features is None:
            raise CapabilityError(say("source", "must give the vectors of pictures", "none"))
        mine = F.normalize(self.projector(output.features).float(), dim=-1)
        return self.scale * mine @ self.class_vectors().T

    def class_vectors(self) -> Float[Tensor, " target d"]:
        """w, from the program's state; of a program that is new, from the teacher."""
        if not self._known:
            if not bool(self.vectors.any()):
                with torch.no_grad():
                    self.vectors.copy_(self._teacher().vectors())
            self._known = True
        return self.vectors

    def loss(self, output: SourceOutput, scores: Tensor, target: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
        """How far the scores are from the teacher's; no use is made of `target`.

        Raises:
            CapabilityError: the source did not give the pictures at `site`.
        """
        pictures = output.at.get(self.site)
        if pictures is None:
            raise CapabilityError(say("source", f"must give the pictures at `{self.site}`", sorted(output.at)))
        taught = self.answers(pictures.detach()).to(scores.device)
        mine = F.log_softmax(scores.float() / self.temperature, dim=1)
        theirs = F.softmax(taught / self.temperature, dim=1)
        far = F.kl_div(mine, theirs, reduction="sum")
        return self.weight * self.temperature**2 / scores.numel() * far

    @torch.no_grad()
    def answers(self, pictures: Float[Tensor, " batch channel height width"]) -> Float[Tensor, " batch target"]:
        """The teacher's scores, asked for once for each picture. On the CPU."""
        keys = [hashlib.blake2b(one.numpy().tobytes(), digest_size=16).digest() for one in pictures.float().cpu()]
        new = [i for i, key in enumerate(keys) if key not in self._answers]
        fresh: dict[bytes, Tensor] = {}
        if new:
            said = self._teacher().answers(pictures[torch.tensor(new, device=pictures.device)]).float().cpu()
            fresh = {keys[i]: row for i, row in zip(new, said, strict=True)}
        found = torch.stack([fresh[key] if key in fresh else self._answers[key] for key in keys])
        if len(self._answers) * len(self.vectors) < KEPT:
            self._answers.update(fresh)
        return found

    def extra_repr(self) -> str:
        """Settings."""
        shape = tuple(self.vectors.shape)
        return f"vectors={shape}, scale={self.scale:g}, temperature={self.temperature:g}, weight={self.weight:g}"
