"""A hub on this machine: what huggingface_hub asks of one to upload a model."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

#: Larger uploads are refused: tests send models of some kilobytes.
_MOST_BYTES = 5_000_000


@dataclass
class Hub:
    """Repositories, and all that was asked."""

    url: str = ""
    #: Files by path, of the one repository.
    files: dict[str, bytes] = field(default_factory=dict)
    #: Of git LFS, by their SHA-256.
    objects: dict[str, bytes] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)
    #: How many objects are taken before the hub fails once; None: it never does.
    fails_after: int | None = None

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Give the status and the JSON of an answer."""
        match method, path.split("?")[0].strip("/").split("/"):
            case "POST", ["api", "validate-yaml"]:
                return self._validated(json.loads(body)["content"])
            case "POST", ["api", "repos", "create"]:
                self.created.append(json.loads(body))
                name = f"{self.created[-1].get('organization')}/{self.created[-1]['name']}"
                return 200, {"url": f"{self.url}/{name}", "name": name, "id": name}
            case "POST", ["api", "models", _, _, "preupload", "main"]:
                wanted = json.loads(body)["files"]
                return 200, {"files": [self._mode(file["path"]) for file in wanted]}
            case "POST", [_, _, "info", "lfs", "objects", "batch"]:
                return 200, {"objects": [self._batch(o) for o in json.loads(body)["objects"]]}
            case "PUT", ["objects", oid]:
                return self._put(oid, body)
            case "POST", ["verify"]:
                return 200, {}
            case "POST", ["api", "models", owner, name, "commit", "main"]:
                self._commit(body)
                oid = sha256(str(sorted(self.files)).encode()).hexdigest()[:40]
                url = f"{self.url}/{owner}/{name}/commit/{oid}"
                return 200, {"commitUrl": url, "commitOid": oid}
            case "GET", ["api", "models", *_]:
                return 200, {"id": "owner/name", "sha": "0" * 40}
        return 404, {"error": "no such page"}

    def _validated(self, content: str) -> tuple[int, Any]:
        """Check a card as the hub does: base models are names of repositories."""
        data = yaml.safe_load(content.split("---")[1])
        bases = data.get("base_model") or []
        errors = [{"message": f'"base_model" {b} is not valid'} for b in bases if b.count("/") != 1]
        return (400 if errors else 200), {"errors": errors, "warnings": []}

    def _mode(self, path: str) -> dict[str, Any]:
        kind = "lfs" if path.endswith((".safetensors", ".gguf")) else "regular"
        return {"path": path, "uploadMode": kind, "shouldIgnore": False, "oid": None}

    def _batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        oid = asked["oid"]
        if oid in self.objects:
            return {"oid": oid, "size": asked["size"]}
        href = f"{self.url}/objects/{oid}"
        return {"oid": oid, "size": asked["size"], "actions": {"upload": {"href": href}}}

    def _put(self, oid: str, body: bytes) -> tuple[int, Any]:
        if self.fails_after is not None and len(self.objects) >= self.fails_after:
            return 403, {"error": "the connection is gone"}
        assert sha256(body).hexdigest() == oid
        self.objects[oid] = body
        return 200, {}

    def _commit(self, body: bytes) -> None:
        for line in body.splitlines():
            entry = json.loads(line)
            match entry["key"], entry["value"]:
                case "header", header:
                    self.messages.append(header["summary"])
                case "file", file:
                    self.files[file["path"]] = base64.b64decode(file["content"])
                case "lfsFile", file:
                    self.files[file["path"]] = self.objects[file["oid"]]


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve a hub until the block ends, on a port of this machine alone."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            assert length <= _MOST_BYTES
            body = self.rfile.read(length)
            hub.requests.append((self.command, self.path))
            if self.headers.get("Authorization"):
                hub.tokens.add(self.headers["Authorization"])
            status, data = hub.answer(self.command, self.path, body)
            text = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = _answer

        def log_message(self, *_: Any) -> None:
            """Keep the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()
