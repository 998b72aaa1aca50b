"""A model hub on this machine: folders served in the hub's protocol, for HF_ENDPOINT.

Just what huggingface_hub and datasets ask for; the libraries themselves are the real ones.
"""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(BaseHTTPRequestHandler):
    """Serves server.repositories: name -> folder."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path).strip("/")
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.server.asked.append(f"{self.command} {path}")
        api = re.fullmatch(r"api/(?:models|datasets)/([^/]+/[^/]+)(/.*)?", path)
        file = re.fullmatch(r"(?:datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.*)", path)
        name = (api or file or [None, None])[1]
        folder = self.server.repositories.get(name)
        if folder is None:
            self.answer_json({"error": "Repository not found"}, 404, "RepoNotFound")
        elif api:
            self.answer_api(name, folder, api[2] or "", "recursive=true" in url.query.lower(), body)
        else:
            self.answer_file(folder / file[2])

    do_HEAD = do_POST = do_GET

    def answer_api(self, name: str, folder: Path, rest: str, deep: bool, body: bytes) -> None:
        if "/tree/" in rest:
            place = folder / "/".join(rest.split("/")[3:])
            if place.is_dir():
                self.answer_json(entries(folder, place.rglob("*") if deep else place.glob("*")))
            else:
                self.answer_json({"error": "Entry not found"}, 404, "EntryNotFound")
            return
        self.answer_json(self.api(name, folder, rest, body))

    def api(self, name: str, folder: Path, rest: str, body: bytes):
        if "/paths-info/" in rest:
            try:
                wanted = json.loads(body)["paths"]
            except ValueError:
                wanted = [unquote(part.partition("=")[2]) for part in body.decode().split("&")]
            return entries(folder, [folder / path for path in wanted if (folder / path).exists()])
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        siblings = [{"rfilename": str(path.relative_to(folder))} for path in files]
        return {"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False,
                "downloads": 0, "likes": 0, "lastModified": "2026-01-01T00:00:00.000Z"}  # fmt: skip

    def answer_json(self, value, status: int = 200, code: str = "") -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def answer_file(self, path: Path) -> None:
        if not path.is_file():
            self.answer_json({"error": "Entry not found"}, 404, "EntryNotFound")
            return
        data = path.read_bytes()
        etag, size = oid(data), len(data)
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if part:
            data = data[int(part[1]) : int(part[2]) + 1 if part[2] else None]
            start = int(part[1])
        self.send_response(206 if part else 200)
        if part:
            self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{size}")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_) -> None:
        pass


def oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def entries(folder: Path, paths: Iterable[Path]) -> list[dict]:
    """Files and folders as the hub lists them."""
    listing = []
    for path in sorted(paths):
        entry = {"type": "directory", "path": str(path.relative_to(folder)), "oid": "0" * 40}
        if path.is_file():
            data = path.read_bytes()
            entry |= {"type": "file", "size": len(data), "oid": oid(data)}
        listing.append(entry)
    return listing


@contextlib.contextmanager
def serve(repositories: dict[str, Path]) -> Iterator[ThreadingHTTPServer]:
    """A running hub; its address is http://127.0.0.1:{server.server_port}."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.repositories, server.asked = repositories, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def variables(port: int, folder: Path) -> dict[str, str]:
    """The environment of a program that asks the hub at this port and keeps its cache in folder."""
    address = f"http://127.0.0.1:{port}"
    return {"HF_ENDPOINT": address, "HF_HOME": str(folder / "hf home"), "HF_HUB_OFFLINE": "0"}
