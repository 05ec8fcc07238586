"""A model hub on the loopback, with as much of the protocol as uploading and fetching one file takes."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeHub:
    """What the server holds, and what it was asked.

    Attributes:
        files: by repository and name.
        requests: "METHOD path" in the order in which they came.
        tokens: authorization headers that were sent.
        broken: answer everything with this status.
        claim: a size that HEAD tells instead of the true one.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.broken: int | None = None
        self.claim: int | None = None
        self.commits = 0
        self.endpoint = ""

    @property
    def commit(self) -> str:
        return hashlib.sha1(str(self.commits).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *args):
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        length = headers.pop("Content_Length", str(len(body)))
        for name, value in {**headers, "Content_Length": length}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, status: int, value: object, **headers: str) -> None:
        self.answer(status, json.dumps(value).encode(), Content_Type="application/json", **headers)

    def begin(self) -> bytes | None:
        """The request's body; None if the hub is broken and has answered."""
        self.hub.requests.append(f"{self.command} {self.path}")
        self.hub.tokens.add(self.headers["Authorization"])
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        if self.hub.broken:
            self.json(self.hub.broken, {"error": "broken"})
            return None
        return body

    def do_POST(self):
        body = self.begin()
        if body is None:
            return
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            self.hub.files.setdefault(repo, {})
            self.hub.private[repo] = asked.get("private") or asked.get("visibility") == "private"
            self.json(200, {"url": f"{self.hub.endpoint}/{repo}", "name": repo})
        elif self.path == "/api/validate-yaml":
            self.json(200, {"warnings": [], "errors": []})
        elif re.fullmatch(r"/api/models/.+/preupload/main", self.path):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self.json(200, {"files": files})
        elif found := re.fullmatch(r"/api/models/(.+)/commit/main", self.path):
            self.commits(found[1], [json.loads(line) for line in body.splitlines()])
        else:
            self.json(404, {"error": "no such page"})

    def commits(self, repo: str, operations: list[dict]) -> None:
        for operation in operations:
            if operation["key"] == "file":
                value = operation["value"]
                self.hub.files[repo][value["path"]] = base64.b64decode(value["content"])
        self.hub.commits += 1
        url = f"{self.hub.endpoint}/{repo}/commit/{self.hub.commit}"
        self.json(200, {"commitUrl": url, "commitOid": self.hub.commit, "success": True})

    def do_GET(self):
        if self.begin() is None:
            return
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        repo, revision, name = found.groups() if found else ("", "", "")
        data = self.hub.files.get(repo, {}).get(name)
        if repo not in self.hub.files:
            self.json(401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        elif revision not in ("main", self.hub.commit):
            self.json(404, {"error": "Revision not found"}, X_Error_Code="RevisionNotFound")
        elif data is None:
            self.json(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        else:
            size = str(self.hub.claim or len(data))
            etag = f'"{hashlib.sha1(data).hexdigest()}"'
            self.answer(200, data, ETag=etag, X_Repo_Commit=self.hub.commit, Content_Length=size)

    do_HEAD = do_GET


@contextmanager
def running() -> Generator[FakeHub]:
    """A hub on a free port of 127.0.0.1."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
