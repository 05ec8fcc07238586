"""The hooks of a language model, and what they are told about the pass that is running."""

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn

from reprogram.core.program import Input
from reprogram.core.slot import Slot
from reprogram.sources._describe import Kind, body_of, head_of
from reprogram.sources._frozen import EditSites
from reprogram.sources.transformers_attention import AttentionCall, install


@dataclass(slots=True, eq=False)
class LanguageCall(AttentionCall):
    """One forward pass: the edits of its hooks, what its layers find before the sequence, where to look afterwards."""

    input: Input | None = None
    places: Tensor | None = None
    features: Tensor | None = None
    inside: bool = False


@final
class Wiring:
    """The hooks of one model, set once, however many sources are made of it."""

    def __init__(self, model: Any, kind: Kind, blocks: tuple[str, ...]) -> None:
        self.kind, self.blocks = kind, blocks
        self.slot = Slot[LanguageCall]()
        self.hooks = EditSites(model, blocks, self._bound)
        self.body = body_of(model, kind)
        if self.body is not model:
            self.body.register_forward_hook(self._gather)
        self.head = None if kind == "encoder" else head_of(model)
        if self.head is not None:
            self.head.register_forward_pre_hook(self._keep_features)
        self.prefixes = install(model, blocks, self.slot)  # type: ignore[arg-type]  # a call is an AttentionCall

    @classmethod
    def of(cls, model: Any, kind: Kind, blocks: tuple[str, ...]) -> "Wiring":
        """That of a model; made the first time."""
        found = model.__dict__.get("reprogram_wiring")
        if found is None or (found.kind, found.blocks) != (kind, blocks):
            found = model.__dict__["reprogram_wiring"] = cls(model, kind, blocks)
        return found

    def _bound(self) -> Input | None:
        call = self.slot.current()
        return None if call is None else call.input

    def _gather(self, _: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
        """After the body, before the head: keep the places that are read."""
        call = self.slot.current()
        if call is None or not call.inside or call.places is None:
            return result
        hidden = result["last_hidden_state"]
        if call.places.ndim == 1:  # places of all rows, one after another
            kept = hidden.flatten(0, 1)[call.places][None]
        else:
            kept = hidden.gather(1, call.places[..., None].expand(-1, -1, hidden.shape[-1]))
        result["last_hidden_state"] = kept
        return result

    def _keep_features(self, _: nn.Module, args: tuple[Any, ...]) -> None:
        call = self.slot.current()
        if call is not None and call.inside:
            call.features = args[0]
