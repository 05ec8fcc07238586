"""How a fit runs, as opposed to what it fits: the recipe belongs to the method, these belong to the machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from reprogram.core.errors import ConfigError, say
from reprogram.core.method import Recipe
from reprogram.fit.events import Console, Listener, TensorBoard

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """Settings of the engine.

    Attributes:
        recipe: overrides the method's own.
        device: "cpu", "cuda", ...; None takes a GPU if there is one.
        precision: of the source's forward and backward; the program and the label statistics stay in fp32.
        compile: run the source through `torch.compile`.
        checkpoint_seconds: at most this much work is lost to a kill (and never more than an epoch); 0 for every step.
        track_test: also score every epoch on test, logged apart and never used for selection.
        tensorboard: write TensorBoard files into the run folder (extra: track).
        progress: show a bar on a terminal, a line an epoch elsewhere.
        listener: hears what happens as well; what it raises ends the fit.
    """

    recipe: Recipe | None = None
    device: str | None = None
    precision: Precision = "fp32"
    compile: bool = False
    checkpoint_seconds: float = 10.0
    track_test: bool = False
    tensorboard: bool = False
    progress: bool = True
    listener: Listener | None = None

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise ConfigError(say("precision", "must be fp32, bf16 or fp16", self.precision))
        if not self.checkpoint_seconds >= 0:
            raise ConfigError(say("checkpoint_seconds", "must be 0 or more", self.checkpoint_seconds))

    def autocast(self) -> torch.dtype | None:
        """The type to compute the source in, None for its own."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)

    def listeners(self, folder: Path | None) -> list[Listener]:
        """Who is to hear what happens, besides the event file in the run folder (None if there is no folder)."""
        track = [TensorBoard(folder / "tensorboard")] if self.tensorboard and folder is not None else []
        return [*track, *([Console()] if self.progress else []), *([self.listener] if self.listener else [])]

    def place(self) -> torch.device:
        """The device to fit on.

        Raises:
            ConfigError: it does not exist here.
        """
        name = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as problem:
            raise ConfigError(say("device", "must exist on this machine", name, f"torch said: {problem}")) from problem
        return device
