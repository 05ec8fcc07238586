"""What the HTTP servers for tests share: JSON answers, requests counted, and answers that fail to come."""

import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

Body = dict[str, Any]


class RefusedError(Exception):
    """The request gets an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class JsonServer:
    """Listens while it is open; each request is answered in a thread of its own.

    Args:
        handler: what answers a request; it finds this server as `owner`.
        host: to listen at.
        port: 0 for any that is free.
        key: without it in the header there is 401.

    Attributes:
        most_at_once: requests that were being answered at the same time.
        closing: set when the server stops.

    Raises:
        OSError: the port is taken.
    """

    def __init__(
        self, handler: "type[JsonHandler]", *, host: str = "127.0.0.1", port: int = 0, key: str | None = None
    ) -> None:
        self.key = key
        self.most_at_once = 0
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self._number = self._now = 0
        self._http = _Http((host, port), handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def address(self) -> str:
        """Where it listens."""
        host, port = self._http.server_address[:2]
        return f"http://{host if isinstance(host, str) else host.decode()}:{port}"

    def __enter__(self) -> "JsonServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()

    def wait(self) -> None:
        """Until it is stopped."""
        while self._thread.is_alive():
            self._thread.join(0.5)

    def began(self) -> int:
        """Count a request that comes in; its number, from 0."""
        with self.lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            self._number += 1
            return self._number - 1

    def left(self) -> None:
        """A request is done with."""
        with self.lock:
            self._now -= 1

    def settled(self, seconds: float = 5.0) -> bool:
        """Wait until no request is being answered; False if that took too long."""
        end = time.monotonic() + seconds
        while self._now and time.monotonic() < end:
            time.sleep(0.002)
        return self._now == 0


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    owner: JsonServer


class JsonHandler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    disable_nagle_algorithm = True  # headers and body are two writes

    @property
    def owner(self) -> JsonServer:
        """What it answers for."""
        return cast("_Http", self.server).owner

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def locked(self) -> bool:
        """The key is wrong, and 401 was sent."""
        given = self.headers.get("authorization")
        if self.owner.key is None or given == f"Bearer {self.owner.key}":
            return False
        self.send(401, {"error": {"message": f"Wrong key: {given}"}})
        return True

    def failed(self, trouble: str | None) -> int | None:
        """The status if the trouble is "429", "429 retry-after=0.1", "drop" or "hold"; None after "slow 0.2"."""
        word, _, rest = (trouble or "").partition(" ")
        if word == "slow":
            time.sleep(float(rest))
        if word.isdecimal():
            name, _, value = rest.partition("=")
            return self.send(int(word), {"error": {"message": "for now"}}, {name: value} if name else {})
        if word not in ("drop", "hold"):
            return None
        if word == "hold":
            self.owner.closing.wait()
        self.close_connection = True
        return 0

    def send(self, status: int, said: Body, headers: Mapping[str, str] | None = None, *, cut: bool = False) -> int:
        """Send JSON, or the first half of it; the status, or -1 for a half."""
        data = json.dumps(said).encode()
        data = data[: len(data) // 2] if cut else data
        self.send_response(status)
        sizes = {"content-type": "application/json", "content-length": str(len(data))}
        for name, value in (sizes | dict(headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()
        return -1 if cut else status
