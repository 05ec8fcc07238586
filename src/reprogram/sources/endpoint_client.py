"""The way to a server: one request and its reply, retries, and several requests side by side. Door to `openai`.

The openai client builds and sends requests; its own retries are off, so that there is one layer of them. The key is put
into a request at the last moment, for the one host it is meant for, and taken out of whatever a server says.
"""

import json
import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal, final
from urllib.parse import urlsplit

from reprogram.core.errors import SourceError, missing_extra, say
from reprogram.sources.endpoint_crew import StoppedError
from reprogram.sources.endpoint_limits import EndpointError, Meter, Pace

Route = Literal["completions", "chat"]
PATHS: Mapping[Route, str] = {"completions": "/completions", "chat": "/chat/completions"}

PATIENCE = 120.0
"""Seconds that a server may ask to wait before it is asked again; more is an error."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before the second try, doubled for each one after it, each times a random number from 0.5 to 1."""

_AGAIN = (408, 409, 429)
_DROPPED = ("authorization", "openai-organization", "openai-project", "cookie")
_RAW = {"X-Stainless-Raw-Response": "true"}  # of the openai client: the response, not what it makes of it
_GLANCE = 10.0  # seconds that a server has to say what it is
_log = logging.getLogger("reprogram")


@final
@dataclass(frozen=True, slots=True)
class _Trouble:
    """Why there is no reply: its HTTP status, whether to try again, and when."""

    status: int | None
    said: str
    again: bool
    after: float | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """How one is sent, and its reply read.

    Attributes:
        send: gives the response.
        path: of it, for messages.
        read: a response's body.
        counted: by the meter; questions about the server itself are not.
        pictures: in it.
    """

    send: Callable[[], Any]
    path: str
    read: Callable[[bytes], "dict[str, Any] | _Trouble"]
    counted: bool = True
    pictures: int = 0


@final
class Client:
    """Sends requests to one server.

    Args:
        url: the part before "/completions", such as "http://127.0.0.1:8000/v1".
        meter: counts.
        pace: says when.
        timeout: seconds for one request.
        retries: tries after the first one.
        key_env: the environment variable with the key for this host; None for the rules of `key_for`.

    Raises:
        MissingExtraError: the extra "endpoint" is not installed.
        SourceError: the address is none, or holds a password.
    """

    def __init__(
        self, url: str, meter: Meter, pace: Pace, *, timeout: float, retries: int, key_env: str | None = None
    ) -> None:
        self.url = checked_url(url)
        self.meter, self.pace, self.retries, self.timeout = meter, pace, retries, timeout
        self._key = os.environ.get(key_env) if key_env else key_for(self.url)
        openai = _openai()
        key = self._key

        def last_moment(request: Any) -> None:
            for name in _DROPPED:
                request.headers.pop(name, None)
            if key:
                request.headers["authorization"] = f"Bearer {key}"

        # A server on this machine is not asked through a proxy. Redirects could lead the key elsewhere.
        parts = urlsplit(self.url)
        local = parts.hostname in ("127.0.0.1", "localhost", "::1")
        http = openai.DefaultHttpxClient(
            timeout=timeout,
            follow_redirects=False,
            trust_env=not local,
            verify=parts.scheme == "https",  # without TLS there is nothing to verify, and loading certificates is slow
            event_hooks={"request": [last_moment]},
        )
        self._openai: Any = openai
        self._client: Any = openai.OpenAI(
            api_key="none", base_url=self.url, timeout=timeout, max_retries=0, http_client=http
        )
        self._finalizer = weakref.finalize(self, http.close)

    def close(self) -> None:
        """Close the connections."""
        self._finalizer()

    def models(self) -> list[dict[str, Any]]:
        """What the server says of its models; none if it has no such list.

        Raises:
            EndpointError: it cannot be reached, or does not let us in.
        """
        request = _Request(send=self._client.models.with_raw_response.list, path="/models",
                           read=lambda content: _read(content, complete=False), counted=False)  # fmt: skip
        try:
            reply = self._tried(request, threading.Event(), min(self.retries, 2))
        except EndpointError as problem:
            if problem.status is None or problem.status in (401, 403, 429):
                raise
            return []
        listed = reply.get("data")
        return [m for m in listed if isinstance(m, dict) and m.get("id")] if isinstance(listed, list) else []

    def ask(
        self, route: Route, body: Mapping[str, Any], stop: threading.Event | None = None, retries: int | None = None
    ) -> dict[str, Any]:
        """The reply to one request, with at least one choice.

        Args:
            route: where to send it.
            body: what to send, "model" included.
            stop: ends waiting and trying again.
            retries: other than this client's.

        Raises:
            EndpointError: there is none, after all tries.
            BudgetError: it may not be sent.
        """
        body = dict(body)
        named = {name: body.pop(name) for name in ("model", "messages" if route == "chat" else "prompt")}
        resource = self._client.chat.completions if route == "chat" else self._client.completions

        def send() -> Any:
            return resource.with_raw_response.create(**named, extra_body=body)

        tries = self.retries if retries is None else retries
        request = _Request(send=send, path=PATHS[route], read=lambda content: _read(content, complete=True))
        return self._tried(request, stop or threading.Event(), tries)

    def about(self) -> dict[str, Any] | None:
        """What a GET of the address itself gives, asked once; None if that is no JSON object."""

        def send() -> Any:
            options = {"headers": _RAW, "timeout": min(self.timeout, _GLANCE)}
            return self._client.get(self.url, cast_to=object, options=options)

        request = _Request(send=send, path="", read=lambda content: _read(content, complete=False), counted=False)
        try:
            return self._tried(request, threading.Event(), 0)
        except EndpointError:
            return None

    def post(
        self,
        body: Mapping[str, Any] | None,
        files: list[tuple[str, Any]] | None,
        pictures: int,
        stop: threading.Event | None = None,
    ) -> dict[str, Any]:
        """The reply to pictures that are sent to the address itself; a reply that is a JSON list is under "answers".

        Args:
            body: what to send as JSON; None to send files.
            files: (field, (name, bytes, type)) to send as multipart.
            pictures: in the request.
            stop: ends waiting and trying again.

        Raises:
            EndpointError: there is none, after all tries.
            BudgetError: it may not be sent.
        """
        kind = {"Content-Type": "multipart/form-data"} if files else {}

        def send() -> Any:
            options = {"headers": _RAW | kind}
            return self._client.post(self.url, cast_to=object, body=body, files=files, options=options)

        request = _Request(send=send, path="", read=_read_any, pictures=pictures)
        return self._tried(request, stop or threading.Event(), self.retries)

    def _tried(self, request: _Request, stop: threading.Event, retries: int) -> dict[str, Any]:
        for number in range(retries + 1):
            self.pace.wait(stop)
            if stop.is_set():
                raise StoppedError
            found = self._once(request)
            if not isinstance(found, _Trouble):
                return found
            wait = found.after if found.after is not None else _backoff(number)
            if not found.again or number == retries or wait > PATIENCE:
                raise EndpointError(self._worded(found, request.path, number + 1, wait), found.status)
            _log.info("%s%s: %r. Trying again in %.1f s.", self.url, request.path, found.said, wait)
            if found.after is not None:
                self.pace.hold(found.after)  # what one is told holds for all
            stop.wait(wait)
        raise AssertionError

    def _once(self, request: _Request) -> dict[str, Any] | _Trouble:
        """One try."""
        if request.counted:
            self.meter.start(request.pictures)
        began, reply, passed = time.monotonic(), None, (0, 0)
        try:
            response = request.send().http_response
            passed = (_sent(response), len(response.content))
            found = request.read(response.content)
            reply = found if isinstance(found, dict) else None
        except self._openai.APIStatusError as problem:
            found = self._refused(problem)
            passed = (_sent(problem.response), len(problem.response.content))
        except self._openai.APITimeoutError:
            found = _Trouble(None, "no reply in time", again=True)
        except self._openai.APIConnectionError as problem:
            found = _Trouble(None, f"no connection ({problem.__cause__ or problem})", again=True)
        finally:
            if request.counted:
                self.meter.end(time.monotonic() - began, reply, passed)
        return found

    def _refused(self, problem: Any) -> _Trouble:
        status, headers = int(problem.status_code), problem.response.headers
        said = _message(problem.response.content) or problem.response.reason_phrase
        broke = "insufficient_quota" in said
        again = (status in _AGAIN or status >= 500) and status != 501 and not broke
        return _Trouble(status, said, again, retry_after(headers) if again else None)

    def _worded(self, trouble: _Trouble, path: str, tries: int, wait: float) -> str:
        came = trouble.said if trouble.status is None else f"HTTP {trouble.status}: {trouble.said}"
        if self._key:
            came = came.replace(self._key, "***")
        count = f" after {tries} tries" if tries > 1 else ""
        wish = f" It asks to wait {wait:.0f} s." if trouble.again and wait > PATIENCE else ""
        return say(f"{self.url}{path}", f"must give a reply{count}", came, self._remedy(trouble, path) + wish)

    def _remedy(self, trouble: _Trouble, path: str) -> str:
        if trouble.status is None:
            hint = "; it ends in /v1 for most servers" if path else ""
            return f"Start the server, or correct the address{hint}."
        if trouble.status in (401, 403):
            return _key_remedy(self.url, bool(self._key))
        if trouble.status == 404 and path:
            return "Check the address, which ends in /v1 for most servers, and the model's name."
        if trouble.status == 429:
            return "Set a lower `rate` (requests a minute) or `concurrency`, and run it again."
        if trouble.status >= 500:
            return "Look at the server's log, and run it again: what was answered is in the cache."
        return "The server does not take this request; the message is its own."


def checked_url(url: str) -> str:
    """The address without a slash at its end.

    Raises:
        SourceError: it is none, or holds a password, which would end up in program files.

    >>> checked_url("http://127.0.0.1:8000/v1/")
    'http://127.0.0.1:8000/v1'
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.username is not None or parts.password is not None:
        remedy = "Put the key into REPROGRAM_API_KEY and its host into REPROGRAM_API_HOST."
        raise SourceError(say("endpoint", "must be an address without a name and password", f"…@{host}", remedy))
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise SourceError(say("endpoint", "must be an address like http://127.0.0.1:8000/v1", url))
    place = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{place}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"


def key_for(url: str) -> str | None:
    """The key that the environment holds for a host, so that no address in somebody's file can ask for it.

    REPROGRAM_API_KEY goes to the host (or host:port) that REPROGRAM_API_HOST names, and OPENAI_API_KEY to
    api.openai.com or the host of OPENAI_BASE_URL.
    """
    parts = urlsplit(url)
    place = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
    if os.environ.get("REPROGRAM_API_HOST") in (parts.hostname, place, parts.netloc):
        return os.environ.get("REPROGRAM_API_KEY")
    official = urlsplit(os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1")
    if (parts.scheme, parts.hostname, parts.port) == (official.scheme, official.hostname, official.port):
        return os.environ.get("OPENAI_API_KEY")
    return None


def _key_remedy(url: str, sent: bool) -> str:
    if sent:
        return "It does not accept the key."
    host = urlsplit(url).hostname
    return f"Put the key into REPROGRAM_API_KEY and set REPROGRAM_API_HOST={host}: keys go to the host you name only."


def _openai() -> Any:
    try:
        import openai
    except ImportError as problem:
        raise missing_extra("openai", "endpoint", "A model behind an HTTP server") from problem
    return openai


def _read(content: bytes, complete: bool) -> dict[str, Any] | _Trouble:
    """The reply in a response's body; cut off JSON and replies without an answer are trouble that may pass."""
    try:
        reply = json.loads(content)
    except (ValueError, RecursionError):
        return _Trouble(200, f"a body that is no JSON, {content[:80]!r}", again=True)
    if not isinstance(reply, dict):
        return _Trouble(200, "JSON that is no object", again=True)
    if reply.get("error") and not reply.get("choices"):
        return _Trouble(200, _message(content) or "an error", again=True)
    choices = reply.get("choices")
    if complete and not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
        return _Trouble(200, "a reply without choices", again=True)
    return reply


def _read_any(content: bytes) -> dict[str, Any] | _Trouble:
    """The same of a reply that may be a list."""
    if content.lstrip()[:1] != b"[":
        return _read(content, complete=False)
    try:
        return {"answers": json.loads(content)}
    except (ValueError, RecursionError):
        return _Trouble(200, f"a body that is no JSON, {content[:80]!r}", again=True)


def _sent(response: Any) -> int:
    """Bytes of a request's body."""
    length = response.request.headers.get("content-length", "0")
    return int(length) if length.isdecimal() else 0


def _message(content: bytes) -> str:
    """What a server says of an error, however it wraps it, shortened."""
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        return content.decode("utf-8", "replace").strip()[:300]
    for name in ("error", "detail", "message"):
        if isinstance(said, dict) and name in said:
            said = said[name]
    if isinstance(said, dict):
        said = " ".join(str(said[name]) for name in ("code", "message", "type") if said.get(name))
    return str(said)[:300]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: a number, a date, or milliseconds; None if it does not say.

    >>> retry_after({"retry-after": "3"}), retry_after({"retry-after-ms": "250"}), retry_after({"retry-after": "soon"})
    (3.0, 0.25, None)
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            return max(0.0, float(text) * scale)
        except ValueError:
            pass
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        except ValueError:
            pass
    return None


def _backoff(number: int) -> float:
    return min(LONGEST_WAIT, FIRST_WAIT * 2**number) * random.uniform(0.5, 1)
