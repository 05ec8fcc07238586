"""A real HTTP server around an image source that runs here: to try what only answers, and to test what goes wrong.

    python -m reprogram.testing.image_server --source bundled/efficientnet-lite0 --port 8766 --canvas 64

answers GET / with what it is, GET /health, and POST / with pictures (see `sources.endpoint_images`). Whoever reaches
the port may ask.
"""

import argparse
import base64
import json
import math
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, final

import numpy as np
import torch
from torch import Tensor

from reprogram.core.errors import DataError, ReprogramError, SourceError, say
from reprogram.core.program import Input
from reprogram.core.source import Source
from reprogram.core.task import Sample
from reprogram.media import as_unit, read_image, to_sample
from reprogram.testing.json_server import Body, JsonHandler, JsonServer, RefusedError

MAX_BODY = 64 * 2**20
"""Bytes of a request at most."""

MAX_BATCH = 64
"""Pictures in a request at most."""

Trouble = Callable[[int], str | None]
"""Of a request's number: None, or what goes wrong: "429", "429 retry-after=0.1", "500", "drop", "hold" (until the
server stops), "slow 0.2" (seconds), "cut" (half of the JSON), "odd" (JSON of another kind), "nan", "fewer" (one answer
less than pictures), "classes 7" (scores of so many classes), "other" (of another model), "stranger" (a class that is
none)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ImageQuirks:
    """What kind of server it is.

    Attributes:
        gives: what answers are.
        described: it says so, on GET.
        formats: in which it is asked.
        pixels: how pixels come in JSON.
        batch: pictures in a request at most.
        top: how many classes, for gives="top".
        index: an entry of these has the class's number, too.
        key: without it in the header there is 401.
    """

    gives: Literal["logits", "probabilities", "top", "label"] = "probabilities"
    described: bool = True
    formats: tuple[str, ...] = ("json", "multipart")
    pixels: tuple[str, ...] = ("float32", "png")
    batch: int = MAX_BATCH
    top: int = 5
    index: bool = True
    key: str | None = None


@final
class ImageServer(JsonServer):
    """Serves a source while it is open.

    Args:
        source: what answers; it gives class scores of pictures.
        canvas: pixels of the square pictures that it is to take; None for the source's own.
        quirks: what kind of server it is.
        trouble: what goes wrong, and when.
        port: 0 for any that is free.
        host: to listen at.

    Attributes:
        pictures: how many were answered.
        statuses: of the responses to POST, in order; 0 for those that were dropped, -1 for those cut off.

    Raises:
        SourceError: the source is none of pictures, or the port is taken.

    Example:
        with ImageServer(tiny_source()) as server:
            source = load_source(f"endpoint/{server.url}")
    """

    def __init__(
        self, source: Source, *, canvas: int | None = None, quirks: ImageQuirks = ImageQuirks(),
        trouble: Trouble | None = None, port: int = 0, host: str = "127.0.0.1",
    ) -> None:  # fmt: skip
        side, self._print = source.spec.canvas(canvas), source.fingerprint()
        try:
            super().__init__(_Handler, host=host, port=port, key=quirks.key)
        except OSError as problem:
            raise SourceError(say("port", f"must be free at {host}", port, str(problem))) from None
        self.source, self.quirks, self.trouble = source, quirks, trouble
        self.shape = (3, side, side)
        self.resizable = source.spec.resizable and canvas is None
        self.pictures = 0
        self.statuses: list[int] = []
        self._busy = threading.Lock()

    @property
    def url(self) -> str:
        """The address."""
        return self.address

    def __enter__(self) -> "ImageServer":
        super().__enter__()
        return self

    def description(self) -> Body:
        """What it says of itself."""
        spec, own = self.source.spec, self.quirks
        return {
            "task": "image-classification", "labels": list(spec.labels) if spec.labels else None,
            "outputs": spec.outputs, "input_shape": list(self.shape), "resizable": self.resizable,
            "gives": own.gives, "format": own.formats[0], "formats": list(own.formats), "pixels": list(own.pixels),
            "batch": own.batch, "model": f"{spec.ref} {self._print}",
        }  # fmt: skip

    def reply(self, pictures: Sequence[Tensor], trouble: str) -> Body:
        """The answers, but for the trouble."""
        word, _, rest = trouble.partition(" ")
        if not pictures or len(pictures) > self.quirks.batch:
            raise RefusedError(422, f"1 to {self.quirks.batch} pictures to a request, not {len(pictures)}")
        if len({tuple(one.shape) for one in pictures}) > 1:
            raise RefusedError(422, "pictures of one request must have one shape")
        with torch.no_grad(), self._busy:
            scores = self.source(torch.stack(list(pictures)).to(self.source.device), Input()).logits.float().cpu()
        with self.lock:
            self.pictures += len(pictures)
        answers = self._answers(scores)
        if word == "fewer":
            answers = answers[:-1]
        if word == "classes":
            answers = [(one * 2)[: int(rest)] for one in answers]
        if word == "nan":
            answers[0] = [math.nan, *answers[0][1:]]
        if word == "stranger":
            answers[0] = "no such class" if self.quirks.gives == "label" else [{"label": "no such class", "score": 0.5}]
        said = self.description()["model"]
        return {"answers": answers, "model": f"not {said}" if word == "other" else said}

    def _answers(self, scores: Tensor) -> list[Any]:
        own = self.quirks
        if own.gives == "label":
            return [self.source.spec.label(int(one)) for one in scores.argmax(1)]
        values = scores if own.gives == "logits" else scores.softmax(1)
        if own.gives != "top":
            return cast("list[Any]", values.tolist())
        best = values.topk(min(own.top, values.shape[1]), 1)
        return [[self._entry(i, score) for i, score in zip(places, chances, strict=True)]
                for places, chances in zip(best.indices.tolist(), best.values.tolist(), strict=True)]  # fmt: skip

    def _entry(self, place: int, score: float) -> Body:
        entry = {"label": self.source.spec.label(place), "score": score}
        return entry | ({"index": place} if self.quirks.index else {})

    def read(self, content: bytes, kind: str) -> list[Tensor]:
        """The pictures in a request's body, floats [3, height, width].

        Raises:
            RefusedError: they cannot be read.
        """
        try:
            if kind.startswith("multipart/form-data"):
                self._must("multipart" in self.quirks.formats, "pictures must come as JSON")
                return [self._decoded(one) for one in form_files(content, kind)]
            self._must("json" in self.quirks.formats, "pictures must come in a form")
            body = json.loads(content)
            self._must(isinstance(body, dict), "the body must be a JSON object")
            several = body.get("pictures", [body["image"]] if "image" in body else None)
            self._must(isinstance(several, list) and len(several) <= self.quirks.batch, "pictures must be in a list")
            return [self._picture(one) for one in several]
        except (DataError, ValueError, RecursionError) as problem:
            raise RefusedError(422, str(problem)) from problem

    def _picture(self, given: object) -> Tensor:
        if isinstance(given, str):
            self._must("png" in self.quirks.pixels, "pictures must be arrays of float32")
            return self._decoded(base64.b64decode(given, validate=True))
        self._must(isinstance(given, dict) and "float32" in self.quirks.pixels, "a picture must be the text of a PNG")
        found = cast("dict[str, Any]", given)
        shape = found.get("shape")
        fits = isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and n > 0 for n in shape)
        self._must(fits, "a picture must have a shape [3, height, width]")
        data = base64.b64decode(str(found.get("float32")), validate=True)
        self._must(len(data) == 4 * math.prod(cast("list[int]", shape)), "a picture must have the bytes of its shape")
        picture = torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32)).reshape(cast("list[int]", shape))
        right = tuple(picture.shape) == self.shape or (self.resizable and picture.shape[0] == 3)
        self._must(right, f"a picture must be {list(self.shape)}, not {list(picture.shape)}")
        self._must(bool(picture.isfinite().all()), "a picture must be of finite numbers")
        return picture

    def _decoded(self, data: bytes) -> Tensor:
        """A file as a picture; of another size it is scaled and cut."""
        return as_unit(to_sample(read_image(data), Sample(shape=self.shape)))

    @staticmethod
    def _must(truth: bool, what: str) -> None:
        if not truth:
            raise RefusedError(422, what)


def form_files(content: bytes, kind: str) -> list[bytes]:
    r"""The files in a form's body.

    Raises:
        ValueError: it is none.

    >>> body = b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n\x01\r\n\x02\r\n--x--\r\n'
    >>> form_files(body, "multipart/form-data; boundary=x")
    [b'\x01\r\n\x02']
    """
    boundary = kind.partition("boundary=")[2].partition(";")[0].strip().strip('"')
    if not boundary:
        msg = "a form must name its boundary"
        raise ValueError(msg)
    found = list[bytes]()
    for part in (b"\r\n" + content).split(b"\r\n--" + boundary.encode())[1:]:
        if part.startswith(b"--"):
            return found
        head, gap, data = part.partition(b"\r\n\r\n")
        if not gap:
            break
        if b"filename=" in head.lower():
            found.append(data)
    msg = "a form must end with its boundary"
    raise ValueError(msg)


@final
class _Handler(JsonHandler):
    @property
    def owner(self) -> ImageServer:
        """What it answers for."""
        return cast("ImageServer", super().owner)

    def do_GET(self) -> None:
        """What it is, and whether it is there."""
        if self.locked():
            return
        if self.path == "/health":
            self.send(200, {"status": "ok"})
        elif self.path == "/" and self.owner.quirks.described:
            self.send(200, self.owner.description())
        else:
            self.send(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        """Pictures."""
        owner = self.owner
        number, status = owner.began(), 0
        try:
            status = self._answer(owner, (owner.trouble(number) if owner.trouble is not None else None) or "")
        except OSError:
            self.close_connection = True  # the other side has gone
        finally:
            owner.statuses.append(status)
            owner.left()

    def _answer(self, owner: ImageServer, trouble: str) -> int:
        """Send what is right, or the trouble; the status."""
        content = self._content()
        if content is None:
            self.close_connection = True
            return self.send(413, {"error": {"message": f"A body of 1 to {MAX_BODY} bytes, please"}})
        failed = self.failed(trouble)
        if failed is not None:
            return failed
        if self.locked():
            return 401
        if trouble == "odd":
            return self.send(200, {"weather": "fine"})
        try:
            pictures = owner.read(content, self.headers.get("content-type", ""))
            return self.send(200, owner.reply(pictures, trouble), cut=trouble == "cut")
        except RefusedError as refused:
            return self.send(refused.status, {"error": {"message": str(refused)}})

    def _content(self) -> bytes | None:
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or not 0 < int(length) <= MAX_BODY:
            return None
        return self.rfile.read(int(length))


def main(args: Sequence[str] | None = None) -> int:
    """Serve until interrupted; returns the exit code."""
    from reprogram.sources import load_source

    parser = argparse.ArgumentParser(prog="python -m reprogram.testing.image_server", description=__doc__)
    parser.add_argument("--source", required=True, help="such as bundled/efficientnet-lite0")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8766)
    parser.add_argument("--canvas", type=int, default=None, help="pixels of the pictures it takes")
    parser.add_argument("--gives", default="probabilities", choices=["logits", "probabilities", "top", "label"])
    said = parser.parse_args(args)
    try:
        server = ImageServer(load_source(said.source), canvas=said.canvas, quirks=ImageQuirks(gives=said.gives),
                             port=said.port, host=said.host)  # fmt: skip
    except ReprogramError as problem:
        sys.stderr.write(f"error: {problem}\n")
        return 1
    with server:
        sys.stdout.write(f"{said.source} is at {server.url}\n")
        sys.stdout.flush()
        try:
            server.wait()
        except KeyboardInterrupt:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
