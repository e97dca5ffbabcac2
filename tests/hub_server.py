"""A local Hugging Face Hub for tests: the HTTP interface that the unmodified `huggingface_hub` client uses for models.

    with HubServer(folder) as hub:
        hub.create_repo("nvidia/omnivinci")
        commit = hub.add_commit("nvidia/omnivinci", "path/to/checkpoint")
        subprocess.run(["hf", "download", "nvidia/omnivinci"], env=hub.environment())

Two origins are served, as on the real Hub: the Hub itself (`url`) and the storage of large files (`cdn_url`), which
takes signed URLs and no tokens. Repositories are the folders FOLDER/owner/name (`hub_repository.py`).

Left out: data sets and Spaces, Xet (clients that upload need `HF_HUB_DISABLE_XET=1`, see `HubServer.environment`),
discussions, `.gitignore` rules, ids without an owner."""

import base64
import contextlib
import hmac
import json
import os
import re
import secrets
import shutil
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from email.message import Message
from functools import wraps
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import yaml

from . import hub_metadata
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


class Handler(BaseHTTPRequestHandler):
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

    # Users and repositories

    @route("GET", "/api/whoami-v2")
    def whoami(self):
        token = self.user()
        access = {"displayName": token.user, "role": "write" if token.write else "read"}
        organizations = [{"type": "org", "name": name, "fullname": name} for name in token.namespaces]
        user = {"type": "user", "id": token.user, "name": token.user, "fullname": token.user, "orgs": organizations}
        self.reply(200, user | {"auth": {"type": "access_token", "accessToken": access}})

    def repo_of_payload(self) -> str:
        payload = self.payload = self.json()
        token = self.user(write=True)
        repo_id = f"{payload.get('organization') or token.user}/{payload['name']}"
        if payload.get("type", "model") != "model":
            raise HubError(400, f"Only models are served, not type {payload['type']}")
        if not token.of(repo_id):
            raise HubError(403, f"You don't have the rights to change a model under the namespace {repo_id}")
        return repo_id

    @route("POST", "/api/repos/create")
    @locked
    def create(self):
        repo_id = self.repo_of_payload()
        answer = {"url": f"{self.hub.url}/{repo_id}", "name": repo_id}
        if self.hub.find(repo_id):
            return self.reply(409, answer | {"error": "You already created this model repo"})
        private = self.payload.get("visibility") == "private" or bool(self.payload.get("private"))
        Repository.create(self.hub.root / repo_id, private, False, self.token().user)
        self.reply(200, answer)

    @route("DELETE", "/api/repos/delete")
    @locked
    def delete(self):
        shutil.rmtree(self.repository(self.repo_of_payload(), write=True).folder)
        self.reply(200, {})

    @route("PUT", "/api/models/{repo}/settings")
    @locked
    def settings(self, repo):
        repository, payload = self.repository(repo, write=True), self.json()
        if "visibility" in payload:
            repository.state["private"] = payload["visibility"] == "private"
        if "gated" in payload:
            repository.state["gated"] = bool(payload["gated"])
        repository.save()
        self.reply(200, payload)

    @route("GET", "/api/models/{repo}/auth-check(?P<write>/write)?")
    def auth_check(self, repo, write):
        self.gate(self.repository(repo, write=bool(write)), repo)
        self.reply(200, {})

    @route("POST", "/api/validate-yaml")
    def validate_yaml(self):
        answer = hub_metadata.validate(self.json()["content"])
        self.reply(400 if answer["errors"] else 200, answer)

    # Reading

    @route("GET", "/api/models/{repo}(?:/revision/{revision})?")
    def model_info(self, repo, revision):
        repository = self.repository(repo)
        commit = repository.resolve(revision or "main")
        entry, files = repository.commits[commit], repository.files(commit)
        siblings = [{"rfilename": path} for path in files]
        if "blobs" in self.query:
            for sibling in siblings:
                file = files[sibling["rfilename"]]
                lfs = {"sha256": file["lfs"]["oid"]} | file["lfs"] if "lfs" in file else None
                sibling |= {"size": file["size"], "blobId": file["oid"], "lfs": lfs}
        card = {}
        if "README.md" in files:
            # The Hub shows a repository whose card has no valid metadata without it.
            with contextlib.suppress(yaml.YAMLError):
                card = hub_metadata.front_matter(repository.path(commit, "README.md").read_text()) or {}
        created = list(repository.commits.values())[0]["date"]
        answer = {"_id": repo, "id": repo, "modelId": repo, "author": repo.split("/")[0], "sha": commit}
        answer |= {"private": repository.state["private"], "gated": "auto" if repository.state["gated"] else False}
        answer |= {"disabled": False, "downloads": 0, "likes": 0, "lastModified": entry["date"], "createdAt": created}
        answer |= {"siblings": siblings, "tags": card.get("tags", []), "cardData": card}
        self.reply(200, answer | {key: card[key] for key in ("pipeline_tag", "library_name") if key in card})

    @route("GET", "/api/models/{repo}/tree/{revision}(?:/{path})?")
    def tree(self, repo, revision, path):
        repository = self.repository(repo)
        commit = repository.resolve(revision)
        flag = {key: self.query.get(key, "").lower() in ("1", "true") for key in ("recursive", "expand")}
        prefix = f"{path.rstrip('/')}/" if path else ""
        entries = [
            entry
            for name, entry in repository.entries(commit, flag["expand"]).items()
            if name.startswith(prefix) and (flag["recursive"] or "/" not in name[len(prefix) :])
        ]
        if prefix and not entries:
            raise HubError(404, f"{path} does not exist on {revision}", "EntryNotFound", X_Repo_Commit=commit)
        limit = int(self.query.get("limit", self.hub.page_size))
        start = int(self.query.get("cursor", 0))
        more = {}
        if start + limit < len(entries):
            address = f"{self.hub.url}{urlsplit(self.path).path}?{urlencode(self.query | {'cursor': start + limit})}"
            more["Link"] = f'<{address}>; rel="next"'
        self.reply(200, entries[start : start + limit], **more)

    @route("POST", "/api/models/{repo}/paths-info/{revision}")
    def paths_info(self, repo, revision):
        form = parse_qs(self.body().decode())
        repository = self.repository(repo)
        entries = repository.entries(repository.resolve(revision), form.get("expand", [""])[0].lower() == "true")
        wanted = [path.rstrip("/") for path in form.get("paths", [])]
        self.reply(200, [entries[path] for path in wanted if path in entries])

    @route("GET", "/api/models/{repo}/commits/{revision}")
    def list_commits(self, repo, revision):
        repository = self.repository(repo)
        history = repository.history(repository.resolve(revision))
        shown = ("title", "message", "date")
        commits = [(sha, entry["author"], {key: entry[key] for key in shown}) for sha, entry in history]
        self.reply(200, [{"id": sha, "authors": [{"user": author}]} | entry for sha, author, entry in commits])

    def gate(self, repository: Repository, repo: str):
        if repository.state["gated"] and not ((token := self.token()) and token.of(repo)):
            message = f"Access to model {repo} is restricted. You must have access to it and be authenticated."
            raise HubError(403 if self.token() else 401, message, "GatedRepo")

    @route("GET", "/{repo}/resolve/{revision}/{path}")
    def resolve(self, repo, revision, path):
        repository = self.repository(repo)
        self.gate(repository, repo)
        commit = repository.resolve(revision)
        entry = repository.files(commit).get(path)
        if entry is None:
            raise HubError(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{entry["oid"]}"'}
        if "lfs" not in entry:
            return self.send_file(repository.path(commit, path), path, headers)
        sha256, size = entry["lfs"]["oid"], str(entry["size"])
        headers |= {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": size, "Accept-Ranges": "bytes"}
        self.send(302, 0, [], headers | {"Location": self.hub.sign(f"/lfs/{repo}/{sha256}", file=path)})

    # Storage of large files

    def signed(self):
        if not hmac.compare_digest(self.query.get("signature", ""), self.hub.signature(urlsplit(self.path).path)):
            raise HubError(403, "Access Denied")

    @route("GET", "/lfs/{repo}/{oid}", cdn=True)
    def download(self, repo, oid):
        self.signed()
        self.send_file(self.hub.find(repo).folder / "lfs" / oid, self.query["file"], {"ETag": f'"{oid}"'})

    @route("PUT", "/upload/{repo}/{oid}", cdn=True)
    def upload(self, repo, oid):
        self.signed()
        self.hub.find(repo).store(self.pieces_of_body(), sha256=oid)
        self.reply(200, {})

    @route("PUT", "/upload/{repo}/{oid}/{name}", cdn=True)
    def upload_part(self, repo, oid, name):
        self.signed()
        self.reply(200, {}, ETag=self.hub.find(repo).store(self.pieces_of_body(), kind="parts"))

    @route("POST", "/api/complete-multipart/{repo}/{oid}")
    def complete_upload(self, repo, oid):
        self.signed()
        repository = self.hub.find(repo)
        parts = [repository.folder / "parts" / part["etag"] for part in self.json()["parts"]]
        repository.store((piece for part in parts for piece in pieces(part)), sha256=oid)
        self.reply(200, {})

    @route("POST", "/{repo}.git/info/lfs/objects/batch")
    def batch(self, repo):
        payload = self.json()
        repository = self.repository(repo, write=True, pull_request="ref" not in payload)
        answers, size = [], self.hub.part_size
        multipart = "multipart" in payload["transfers"]
        for item in payload["objects"]:
            answer, path = {"oid": item["oid"], "size": item["size"]}, f"{repo}/{item['oid']}"
            if not (repository.folder / "lfs" / item["oid"]).exists():
                upload = {"href": self.hub.sign(f"/upload/{path}")}
                if multipart and item["size"] > size:
                    count = -(-item["size"] // size)
                    urls = {str(n): self.hub.sign(f"/upload/{path}/{n}") for n in range(1, count + 1)}
                    href = self.hub.sign(f"/api/complete-multipart/{path}", origin=self.hub.url)
                    upload = {"href": href, "header": {"chunk_size": str(size)} | urls}
                verify = {"href": f"{self.hub.url}/{repo}.git/info/lfs/objects/verify"}
                answer["actions"] = {"upload": upload, "verify": verify}
            answers.append(answer)
        self.reply(200, {"transfer": "multipart" if multipart else "basic", "objects": answers})

    @route("POST", "/{repo}.git/info/lfs/objects/verify")
    def verify(self, repo):
        payload = self.json()
        stored = self.repository(repo, write=True, pull_request=True).folder / "lfs" / payload["oid"]
        if not stored.exists() or stored.stat().st_size != payload["size"]:
            raise HubError(404, "The file was not uploaded.")
        self.reply(200, {})

    # Writing

    @route("POST", "/api/models/{repo}/preupload/{revision}")
    def preupload(self, repo, revision):
        payload = self.json()
        repository = self.repository(repo, write=True, pull_request="create_pr" in self.query)
        commit, answers = repository.resolve(revision), []
        for file in payload["files"]:
            large = repository.is_large(commit, file["path"], file["size"], base64.b64decode(file["sample"]))
            answer = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if entry := repository.files(commit).get(file["path"]):
                answer["oid"] = entry.get("lfs", entry)["oid"]
            answers.append(answer)
        self.reply(200, {"files": answers, "commitOid": commit})

    @route("POST", "/api/models/{repo}/commit/{revision}")
    @locked
    def commit(self, repo, revision):
        lines = [json.loads(line) for line in self.body().splitlines() if line.strip()]
        pull_request = self.query.get("create_pr") == "1"
        repository = self.repository(repo, write=True, pull_request=pull_request)
        head = repository.resolve(revision)
        ref = next((ref for ref in (revision, f"refs/heads/{revision}") if ref in repository.refs), None)
        if ref is None and not pull_request:
            raise HubError(400, f"Not a branch: {revision}")
        header, changes = {}, {}
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                header = value
            elif line["key"] == "file":
                text = value["content"]
                changes[value["path"]] = base64.b64decode(text) if value.get("encoding") == "base64" else text.encode()
            elif line["key"] == "lfsFile":
                changes[value["path"]] = value["oid"]
            elif line["key"] == "deletedFile":
                changes[value["path"]] = None
            elif line["key"] == "deletedFolder":
                inside = [p for p in repository.files(head) if p.startswith(value["path"].rstrip("/") + "/")]
                changes |= dict.fromkeys(inside)
            else:
                raise HubError(400, f"Unknown operation: {line['key']}")
        if header.get("parentCommit", head) != head:
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        card = changes.get("README.md")
        if isinstance(card, bytes) and (errors := hub_metadata.validate(card.decode())["errors"]):
            raise HubError(400, "Invalid metadata in README.md: " + "; ".join(error["message"] for error in errors))
        answer = {"success": True, "hookOutput": ""}
        if pull_request:
            number = 1 + sum(name.startswith("refs/pr/") for name in repository.refs)
            ref, answer["pullRequestUrl"] = f"refs/pr/{number}", f"{self.hub.url}/{repo}/discussions/{number}"
        title, message = header.get("summary", ""), header.get("description", "")
        commit = repository.commit(ref, changes, title, self.token().user, message, parent=head)
        self.reply(200, answer | {"commitOid": commit, "commitUrl": f"{self.hub.url}/{repo}/commit/{commit}"})

    @route("GET", "/api/models/{repo}/refs")
    def list_refs(self, repo):
        refs = self.repository(repo).refs.items()
        kinds = {"branches": "heads/", "tags": "tags/", "pullRequests": "pr/", "converts": "convert/"}
        answer = {kind: [] for kind in kinds}
        for kind, prefix in kinds.items():
            for ref, commit in refs:
                if ref.startswith(f"refs/{prefix}"):
                    name = ref.removeprefix(f"refs/{prefix}")
                    answer[kind].append({"name": name, "ref": ref, "targetCommit": commit})
        self.reply(200, answer)

    def add_ref(self, repository, ref, revision):
        if ref in repository.refs:
            raise HubError(409, f"Reference already exists: {ref}")
        repository.refs[ref] = repository.resolve(revision)
        repository.save()
        self.reply(200, {})

    @route("POST", "/api/models/{repo}/branch/{name}")
    @locked
    def create_branch(self, repo, name):
        payload = self.json()
        if name.startswith("refs/"):
            raise HubError(400, f"Invalid reference for a branch: {name}")
        self.add_ref(self.repository(repo, write=True), f"refs/heads/{name}", payload.get("startingPoint", "main"))

    @route("POST", "/api/models/{repo}/tag/{revision}")
    @locked
    def create_tag(self, repo, revision):
        self.add_ref(self.repository(repo, write=True), f"refs/tags/{self.json()['tag']}", revision)

    @route("DELETE", "/api/models/{repo}/(?P<kind>branch|tag)/{name}")
    @locked
    def delete_ref(self, repo, kind, name):
        repository = self.repository(repo, write=True)
        ref = f"refs/{'heads' if kind == 'branch' else 'tags'}/{name}"
        if repository.refs.pop(ref, None) is None:
            raise HubError(404, f"Reference does not exist: {ref}", "RevisionNotFound")
        repository.save()
        self.reply(200, {})


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub, port, cdn):
        super().__init__(("127.0.0.1", port), Handler)
        self.hub, self.cdn, self.connections = hub, cdn, set()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def process_request(self, request, client_address):
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def close(self):
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            super().shutdown_request(connection)


@dataclass
class HubServer:
    """A Hub on 127.0.0.1 that runs in threads of this process.

    Args:
        root: folder of the repositories; those in it are served.
        port: port of the Hub, 0 for a free one.
        page_size: entries on a page of the tree API.
        part_size: bytes from which on, and pieces in which, large files are uploaded in parts.

    Attributes:
        tokens: the access tokens that are known, and their rights.
        requests: every request that came, in order."""

    root: Path
    port: int = 0
    page_size: int = 1000
    part_size: int = 2**30
    tokens: dict[str, Token] = field(
        default_factory=lambda: {"hf_write": Token("tester", write=True), "hf_read": Token("tester")}
    )
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self):
        self.root = Path(self.root)
        self.lock, self.faults, self._listeners = threading.RLock(), [], []
        self._secret, self._cdn_port = secrets.token_bytes(), 0

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exception):
        self.stop()

    def start(self):
        self._listeners = [_Listener(self, self.port, cdn=False), _Listener(self, self._cdn_port, cdn=True)]
        self.port, self._cdn_port = (listener.server_address[1] for listener in self._listeners)

    def stop(self):
        """Close both origins and every open connection; `start` opens the same ports again."""
        while self._listeners:
            self._listeners.pop().close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def cdn_url(self) -> str:
        return f"http://localhost:{self._cdn_port}"  # another host, for clients tell by it that they leave the Hub

    def signature(self, path: str) -> str:
        return hmac.new(self._secret, unquote(path).encode(), "sha256").hexdigest()

    def sign(self, path: str, origin: str | None = None, **query) -> str:
        return f"{origin or self.cdn_url}{quote(path)}?{urlencode(query | {'signature': self.signature(path)})}"

    def find(self, repo_id: str) -> Repository | None:
        folder = self.root / repo_id
        with self.lock:
            return Repository(folder) if (folder / "repo.json").is_file() else None

    def create_repo(self, repo_id: str, private: bool = False, gated: bool = False):
        """An empty repository: like the Hub's it has a `.gitattributes`."""
        Repository.create(self.root / repo_id, private, gated, repo_id.split("/")[0])

    def add_commit(self, repo_id: str, files, revision: str = "main", message: str = "Add files") -> str:
        """Commit a folder, or a dict of paths to bytes, text, a local `Path`, or `None` to delete; returns the commit.

        The branch `revision` is made from `main` if there is none."""
        repository = self.find(repo_id)
        if not isinstance(files, dict):
            folder = Path(files)
            files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
        head = repository.refs.get(f"refs/heads/{revision}") or repository.resolve("main")
        changes = {}
        for path, content in files.items():
            if isinstance(content, Path):
                with open(content, "rb") as file:
                    large = repository.is_large(head, path, content.stat().st_size, file.read(512))
                content = repository.store(pieces(content)) if large else content.read_bytes()
            elif content is not None:
                content = content.encode() if isinstance(content, str) else content
                if repository.is_large(head, path, len(content), content[:512]):
                    content = repository.store([content])
            changes[path] = content
        with self.lock:
            return repository.commit(f"refs/heads/{revision}", changes, message, repo_id.split("/")[0], parent=head)

    def files(self, repo_id: str, revision: str = "main") -> dict[str, Path]:
        """The files of a commit, by their path in the repository."""
        repository = self.find(repo_id)
        commit = repository.resolve(revision)
        return {path: repository.path(commit, path) for path in repository.files(commit)}

    def downloads(self) -> list[str]:
        """Paths of the files whose content was asked for, in order."""
        return [request.file for request in list(self.requests) if request.file]

    def fail(self, pattern: str, method: str | None = None, **fault):
        """Let requests go wrong: arguments as of `Fault`."""
        self.faults.append(Fault(pattern, method, **fault))

    def take_fault(self, request: Request) -> Fault | None:
        with self.lock:
            fault = next((fault for fault in self.faults if fault.hits(request)), None)
            if fault:
                fault.count -= 1
        return fault

    def environment(self, token: str | None = None, home: Path | None = None) -> dict[str, str]:
        """The environment of a process whose client speaks to this Hub: nothing else of it is changed.

        Args:
            token: value of `HF_TOKEN`.
            home: `HF_HOME` of the process, a folder beside `root` by default."""
        others = ("HF_", "HUGGING", "TRANSFORMERS_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(others)}
        disabled = ("XET", "TELEMETRY", "UPDATE_CHECK")
        kept |= {f"HF_HUB_DISABLE_{name}": "1" for name in disabled} | {"NO_PROXY": "127.0.0.1,localhost"}
        kept |= {"HF_ENDPOINT": self.url, "HF_HOME": str(home or self.root.parent / "huggingface")}
        return kept | ({"HF_TOKEN": token} if token else {})
