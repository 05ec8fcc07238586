"""A real HTTP server on this machine that speaks the OpenAI protocol, with the quirks of the real ones.

What goes wrong with servers goes wrong at the level of HTTP and JSON, so tests go through sockets. The model behind it
is a `FakeModel`, whose probabilities are known, so that what comes out of a source can be compared with what is right.
"""

import base64
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, final

from reprogram.testing.fake_model import END, FakeModel, allowed
from reprogram.testing.json_server import Body, JsonHandler, JsonServer, RefusedError

_PICTURE_TOKENS = 64
_KNOWN = {
    "model", "prompt", "messages", "max_tokens", "temperature", "top_p", "stop", "seed", "echo", "logprobs",
    "top_logprobs", "response_format",
}  # fmt: skip


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """What kind of server it is.

    Attributes:
        routes: that it has.
        models: that it lists.
        about: of each model, more fields in the list.
        system: "system_fingerprint" of replies.
        echo: what it makes of `echo`: does it, refuses (400), ignores it, or crashes (500); or does it and gives wrong
            numbers: all 0, all the same, not finite, or not as many as tokens.
        likeliest: at most so many likeliest tokens; asked for more it refuses. 0 ignores the field.
        likeliest_are: right, or all 0, or those of another place.
        strict: unknown fields are refused (422) instead of ignored.
        stop: it ends before stop texts, or keeps them in the text, or ignores them.
        limit: the only field for the number of tokens that the chat route takes.
        grammar: the field it takes grammars from; "lie" obeys only in the test that everybody does first.
        pictures: it reads them, refuses them, leaves them out, or takes their letters for text.
        key: without it in the header there is 401.
        first: a token that it puts before every text.
        one_form: log-probabilities have the chat's form on both routes.
        marks: token texts have a mark in place of the leading space.
        usage: replies say how many tokens there were.
    """

    routes: frozenset[str] = frozenset({"completions", "chat"})
    models: tuple[str, ...] = ("fake-1",)
    about: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None
    echo: Literal["right", "refused", "ignored", "crash", "zeros", "same", "infinite", "short"] = "right"
    likeliest: int = 20
    likeliest_are: Literal["right", "zeros", "elsewhere"] = "right"
    strict: bool = False
    stop: Literal["before", "kept", "ignored"] = "before"
    limit: str = "max_tokens"
    grammar: Literal["none", "structured_outputs", "response_format", "guided", "lie"] = "none"
    pictures: Literal["read", "refused", "dropped", "text"] = "refused"
    key: str | None = None
    first: str = ""
    one_form: bool = False
    marks: bool = False
    usage: bool = True


@final
@dataclass(frozen=True, slots=True)
class Call:
    """A request that came in.

    Attributes:
        number: counted from 0, for requests with a body.
        path: of the request.
        body: its JSON.
        headers: in lower case.
        status: of the response; 0 for one that was dropped or held back, -1 for one that was cut off.
    """

    number: int
    path: str
    body: Body
    headers: Mapping[str, str]
    status: int


Trouble = Callable[[int, Body], str | None]
"""Of a request's number and body: None, or what goes wrong: "429", "429 retry-after=0.1", "500", "drop", "cut" (half of
the JSON), "empty" (no choices), "hold" (until the server stops), "slow 0.2" (seconds)."""


@final
class FakeServer(JsonServer):
    """Serves a model while it is open.

    Args:
        model: what answers.
        quirks: what kind of server it is.
        trouble: what goes wrong, and when.

    Attributes:
        calls: every request, in the order in which responses ended.

    Example:
        with FakeServer(FakeModel([" yes", " no"])) as server:
            source = load_source(f"endpoint/{server.url}")
    """

    def __init__(
        self, model: FakeModel | None = None, quirks: Quirks = Quirks(), trouble: Trouble | None = None
    ) -> None:
        super().__init__(_Handler, key=quirks.key)
        self.model, self.quirks, self.trouble = model or FakeModel(), quirks, trouble
        self.calls: list[Call] = []

    @property
    def url(self) -> str:
        """The address, up to "/v1"."""
        return f"{self.address}/v1"

    def __enter__(self) -> "FakeServer":
        super().__enter__()
        return self

    def answered(self) -> list[Body]:
        """The bodies of requests that got their answer. Waits a little for those that just came in."""
        self.settled(0.2)
        return [call.body for call in list(self.calls) if call.status == 200 and call.body]

    # -- answers ---------------------------------------------------------------------------------------------------

    def listed(self) -> Body:
        """The list of models."""
        return {
            "object": "list",
            "data": [{"id": m, "object": "model", **self.quirks.about} for m in self.quirks.models],
        }

    def reply(self, route: str, body: Body) -> Body:
        """The right answer to a request, but for the quirks."""
        if route not in self.quirks.routes:
            raise RefusedError(404, "Not Found")
        if body.get("model") not in self.quirks.models:
            raise RefusedError(404, f"The model {body.get('model')!r} does not exist")
        if self.quirks.strict and set(body) - _KNOWN:
            raise RefusedError(422, f"Unexpected fields in the request: {sorted(set(body) - _KNOWN)}")
        read = self._read(route, body)
        limit = int(body.get(self.quirks.limit if route == "chat" else "max_tokens") or 16)
        made, ended = self._constrained(read, body) or self.model.write(
            read, limit, float(body.get("temperature") or 0), int(body.get("seed") or 0)
        )
        text, ended = self._stopped(b"".join(made).decode("utf-8", "replace"), body, ended)
        choice: Body = {"index": 0, "finish_reason": "stop" if ended else "length", "logprobs": None}
        if route == "chat":
            choice |= {"message": {"role": "assistant", "content": text}, "logprobs": self._chat_step(read, made, body)}
        elif body.get("echo") and self.quirks.echo != "ignored":
            choice |= {"text": read + text, "logprobs": self._echo(read, made, body)}
        else:
            choice |= {"text": text, "logprobs": self._steps(read, made, body)}
        reply: Body = {"id": "fake", "model": body["model"], "choices": [choice]}
        if self.quirks.usage:
            count = len(self.model.tokens(read)) + bool(self.quirks.first)
            reply["usage"] = {"prompt_tokens": count, "completion_tokens": len(made), "total_tokens": count + len(made)}
        return reply | ({"system_fingerprint": self.quirks.system} if self.quirks.system else {})

    def _read(self, route: str, body: Body) -> str:
        """What the model is given to read."""
        if route == "completions":
            return str(body["prompt"])
        if self.quirks.limit not in body and "max_tokens" in body:
            raise RefusedError(400, f"Unsupported parameter: 'max_tokens'. Use '{self.quirks.limit}' instead.")
        said = [f"{m['role']}: {self._content(m['content'])}" for m in body["messages"]]
        return "\n".join([*said, "assistant:"])

    def _content(self, content: str | list[Body]) -> str:
        if isinstance(content, str):
            return content
        return "".join(part.get("text") or self._picture(part["image_url"]["url"]) for part in content)

    def _picture(self, url: str) -> str:
        data = base64.b64decode(url.partition("base64,")[2])
        assert data.startswith(b"\x89PNG")
        if self.quirks.pictures == "refused":
            raise RefusedError(400, "This model takes no pictures")
        return {"read": "#" * _PICTURE_TOKENS, "dropped": "", "text": url}[self.quirks.pictures]

    def _stopped(self, text: str, body: Body, ended: bool) -> tuple[str, bool]:
        ends = [text.find(stop) + len(stop) * (self.quirks.stop == "kept") for stop in body.get("stop") or ()
                if stop in text]  # fmt: skip
        if not ends or self.quirks.stop == "ignored":
            return text, ended
        return text[: min(ends)], True

    def _constrained(self, read: str, body: Body) -> tuple[list[bytes], bool] | None:
        """The likeliest text that a grammar allows; None without one."""
        choices = allowed(body, self.quirks.grammar)
        if not choices:
            return None
        if self.quirks.grammar == "lie" and not any("qzx" in choice for choice in choices):
            return None
        best = max(choices, key=lambda choice: sum(v or 0.0 for _, v in self.model.echo(read + choice)))
        return self.model.tokens(best), True

    # -- log-probabilities -----------------------------------------------------------------------------------------

    def _echo(self, read: str, made: list[bytes], body: Body) -> Body | None:
        if self.quirks.echo == "refused":
            raise RefusedError(400, "Only no echo is supported")
        if self.quirks.echo == "crash":
            raise RefusedError(500, "Internal Server Error")
        if body.get("logprobs") is None:
            return None
        pairs = self.model.echo(read)
        if self.quirks.first:
            pairs = [(self.quirks.first.encode(), None), (pairs[0][0], -5.0), *pairs[1:]]
        pairs += self._chosen(read, made[:1])
        wrong = {"zeros": 0.0, "same": -1.5, "infinite": -math.inf}.get(self.quirks.echo)
        values = [v if wrong is None or v is None else wrong for _, v in pairs]
        tokens = [self._spelled(t) for t, _ in pairs]
        if self.quirks.echo == "short":
            tokens, values = tokens[3:], values[3:]
        return {"tokens": tokens, "token_logprobs": values, "top_logprobs": None, "text_offset": None}

    def _chosen(self, read: str, made: list[bytes]) -> list[tuple[bytes, float | None]]:
        seen, found = read.encode(), list[tuple[bytes, float | None]]()
        for token in made:
            found.append((token, self.model.next(seen).get(token, -30.0)))
            seen += token
        return found

    def _steps(self, read: str, made: list[bytes], body: Body) -> Body | None:
        count = body.get("logprobs")
        if count is None or not self.quirks.likeliest:
            return None
        if self.quirks.one_form:
            return self._chat_step(read, made, {"logprobs": True, "top_logprobs": count})
        pairs = self._chosen(read, made)
        return {
            "tokens": [self._spelled(t) for t, _ in pairs],
            "token_logprobs": [v for _, v in pairs],
            "top_logprobs": [{self._spelled(t): v for t, v in self._top(read, made, i, count)}
                             for i in range(max(1, len(made)))],
        }  # fmt: skip

    def _chat_step(self, read: str, made: list[bytes], body: Body) -> Body | None:
        if not body.get("logprobs") or not self.quirks.likeliest:
            return None
        entries: list[Body] = []
        for i, (token, value) in enumerate(self._chosen(read, made) or [(END, None)]):
            top = self._top(read, made, i, int(body.get("top_logprobs") or 0))
            listed = [{"token": self._spelled(t), "bytes": list(t), "logprob": v} for t, v in top]
            own = value if value is not None else self.model.next(read.encode())[END]
            entries.append({"token": self._spelled(token), "logprob": own, "top_logprobs": listed})
        return {"content": entries}

    def _top(self, read: str, made: list[bytes], place: int, count: int) -> list[tuple[bytes, float]]:
        if count > self.quirks.likeliest:
            raise RefusedError(400, f"logprobs must be at most {self.quirks.likeliest}")
        seen = read.encode() + b"".join(made[:place])
        likely = self.model.next(seen[:-1] if self.quirks.likeliest_are == "elsewhere" else seen)
        best = sorted(likely.items(), key=lambda item: -item[1])[:count]
        return [(t, 0.0) for t, _ in best] if self.quirks.likeliest_are == "zeros" else best

    def _spelled(self, token: bytes) -> str:
        if token == END:
            return "<end>"
        try:
            text = token.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{b:02x}" for b in token)
        return "\u0120" + text[1:] if self.quirks.marks and text.startswith(" ") else text


@final
class _Handler(JsonHandler):
    @property
    def owner(self) -> FakeServer:
        """What it answers for."""
        return cast("FakeServer", super().owner)

    def do_GET(self) -> None:
        """The list of models."""
        if not self.locked():
            here = self.path == "/v1/models"
            self.send(200, self.owner.listed()) if here else self.send(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        """A request with a body."""
        owner = self.owner
        number = owner.began()
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        trouble = owner.trouble(number, body) if owner.trouble is not None else None
        status = 0
        try:
            status = self._answer(owner, body, trouble)
        except OSError:
            self.close_connection = True  # the other side has gone
        finally:
            headers = {name.lower(): value for name, value in self.headers.items()}
            owner.calls.append(Call(number, self.path, body, headers, status))
            owner.left()

    def _answer(self, owner: FakeServer, body: Body, trouble: str | None) -> int:
        """Send what is right, or the trouble; the status."""
        failed = self.failed(trouble)
        if failed is not None:
            return failed
        if self.locked():
            return 401
        try:
            reply = owner.reply("chat" if self.path.endswith("/chat/completions") else "completions", body)
        except RefusedError as refused:
            return self.send(refused.status, {"error": {"message": str(refused)}})
        if trouble == "empty":
            return min(0, self.send(200, {"choices": []}))
        return self.send(200, reply, cut=trouble == "cut")
