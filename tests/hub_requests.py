"""How the local Hub of `hub_server.py` reads requests, lets them go wrong, and knows who asks."""

import json
import re
import socket
import struct
import time
from dataclasses import dataclass
from email.message import Message
from functools import wraps
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from .hub_repository import CHUNK, HubError, Repository, pieces


@dataclass(frozen=True)
class Token:
    """Rights of an access token: `user` and `namespaces` are the owners whose private repositories it may read and,
    with `write`, whose repositories it may change."""

    user: str
    namespaces: tuple[str, ...] = ()
    write: bool = False

    def of(self, repo_id: str) -> bool:
        return repo_id.split("/")[0] in (self.user, *self.namespaces)


@dataclass
class Request:
    """One request that the server got. `status` is `None` where the connection was cut before an answer; `file` is the
    path in its repository of the file whose content was answered."""

    method: str
    path: str
    headers: Message
    cdn: bool
    status: int | None = None
    file: str | None = None
    received: int = 0
    sent: int = 0


@dataclass
class Fault:
    """What goes wrong with the next `count` requests whose path with query, which names the file, has `pattern`.

    Args:
        pattern: regular expression that is searched for.
        method: only for this HTTP method.
        status: answer this HTTP status.
        delay: seconds before the answer.
        cut_request: reset the connection once so many bytes of the body have come.
        cut_response: end the connection, or `reset` it, after so many bytes of the promised body."""

    pattern: str
    method: str | None = None
    count: int = 1
    status: int | None = None
    delay: float = 0.0
    cut_request: int | None = None
    cut_response: int | None = None
    reset: bool = False

    def hits(self, request: Request) -> bool:
        # What has no body cannot be cut in it.
        spared = (
            ("GET", "HEAD") if self.cut_request is not None else ("HEAD",) if self.cut_response is not None else ()
        )
        possible = self.method in (None, request.method) and request.method not in spared
        return self.count > 0 and possible and re.search(self.pattern, request.path) is not None


class _Cut(ConnectionError):
    """The connection was closed on purpose, or by the client."""


ROUTES = []


def route(method: str, pattern: str, cdn: bool = False):
    """Let a method of the handler answer `method` on paths of this form; its arguments are the parts in braces."""
    for name, form in {"repo": "[^/]+/[^/]+?", "revision": "[^/]+", "name": "[^/]+", "oid": "[0-9a-f]{64}"}.items():
        pattern = pattern.replace(f"{{{name}}}", f"(?P<{name}>{form})")
    pattern = re.compile(pattern.replace("{path}", "(?P<path>.+)"))

    def register(function):
        ROUTES.append((method, cdn, pattern, function))
        return function

    return register


def locked(function):
    """What changes a repository does so alone."""

    @wraps(function)
    def alone(self, *args, **kwargs):
        with self.hub.lock:
            return function(self, *args, **kwargs)

    return alone


class HubHandler(BaseHTTPRequestHandler):
    """Answers requests by [`route`]."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def dispatch(self):
        self.hub, url = self.server.hub, urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        self.record = Request(self.command, unquote(self.path), self.headers, self.server.cdn)
        self.hub.requests.append(self.record)
        self.fault = self.hub.take_fault(self.record)
        self.unread = -1 if "chunked" in self.headers.get("Transfer-Encoding", "") else 0
        self.unread = self.unread or int(self.headers.get("Content-Length") or 0)
        try:
            if self.fault and self.fault.delay:
                time.sleep(self.fault.delay)
            if self.fault and self.fault.status:
                raise HubError(self.fault.status, "Internal Error - We're working hard to fix this!")
            wanted = ("GET" if self.command == "HEAD" else self.command, self.server.cdn)
            for method, cdn, pattern, function in ROUTES:
                if (method, cdn) == wanted and (match := pattern.fullmatch(url.path)):
                    return function(self, **{key: unquote(value or "") for key, value in match.groupdict().items()})
            self.token()
            raise HubError(404, "Repository not found", "RepoNotFound")
        except HubError as error:
            self.reply(error.status, {"error": error.message}, **error.headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = dispatch

    # Bodies

    def cut(self, reset: bool):
        """Close the connection at once; a reset reaches the client as an error, an end as too short an answer."""
        if reset:
            time.sleep(0.05)  # a reset also drops what was sent but not yet read
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for stream in (self.rfile, self.wfile, self.connection):
            stream.close()
        raise _Cut

    def pieces_of_body(self):
        while self.unread:
            if self.unread < 0:
                size = int(self.rfile.readline(), 16)
                piece = self.rfile.read(size + 2)[:size]
                self.unread = -1 if size else 0
            else:
                piece = self.rfile.read(min(CHUNK, self.unread))
                if not piece:
                    self.cut(reset=True)
                self.unread -= len(piece)
            self.record.received += len(piece)
            limit = self.fault and self.fault.cut_request
            if limit is not None and self.record.received >= limit:
                self.cut(reset=True)
            yield piece

    def body(self) -> bytes:
        return b"".join(self.pieces_of_body())

    def json(self) -> dict:
        return json.loads(self.body() or b"{}")

    def send(self, status: int, length: int, pieces, headers: dict):
        for _ in self.pieces_of_body():
            pass  # what is left of it, as the connection is used again
        self.record.status = status
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(length)}).items():
            self.send_header(name, value)
        self.end_headers()
        limit = self.fault and self.fault.cut_response
        for piece in pieces if self.command != "HEAD" else ():
            part = piece if limit is None else piece[: limit - self.record.sent]
            self.wfile.write(part)
            self.record.sent += len(part)
            if limit is not None and self.record.sent >= limit:
                self.cut(self.fault.reset)

    def reply(self, status: int, content, **headers):
        data = json.dumps(content).encode()
        headers = {
            name.replace("_", "-"): value.replace("\n", " ").encode("ascii", "replace").decode()
            for name, value in headers.items()
        }
        self.send(status, len(data), [data], {"Content-Type": "application/json; charset=utf-8"} | headers)

    def send_file(self, path: Path, name: str, headers: dict):
        size, status = path.stat().st_size, 200
        start, stop = 0, size
        if wanted := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            first, last = wanted.groups()
            start = int(first) if first else max(0, size - int(last or 0))
            stop = min(size, int(last) + 1) if first and last else size
            if start >= stop:
                raise HubError(416, "Range Not Satisfiable", Content_Range=f"bytes */{size}")
            status, headers = 206, headers | {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
        self.record.file = name if self.command == "GET" else None
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"} | headers
        self.send(status, stop - start, pieces(path, start, stop), headers)

    # Rights

    def token(self) -> Token | None:
        authorization = self.headers.get("Authorization")
        if authorization is None:
            return None
        try:
            return self.hub.tokens[authorization.removeprefix("Bearer ")]
        except KeyError:
            raise HubError(401, "Invalid credentials in Authorization header") from None

    def user(self, write: bool = False) -> Token:
        if (token := self.token()) is None:
            raise HubError(401, "Invalid username or password.")
        if write and not token.write:
            raise HubError(403, "Forbidden: you must use a write token to upload to a repository.")
        return token

    def repository(self, repo: str, write: bool = False, pull_request: bool = False) -> Repository:
        """The repository, if who asks may read it and, for `write`, change it or open a pull request."""
        token, repository = self.token(), self.hub.find(repo)
        member = token is not None and token.of(repo)
        if repository is None or (repository.state["private"] and not member):
            # The client tells a missing repository from its address only where that is https: the code says it too.
            status, message = (404, "Repository not found") if token else (401, "Invalid username or password.")
            raise HubError(status, message, "RepoNotFound")
        if write:
            self.user(write=True)
            if not member and not pull_request:
                raise HubError(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
        return repository
