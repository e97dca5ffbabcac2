"""A local Hugging Face Hub for tests: the HTTP interface that the unmodified `huggingface_hub` client uses for models.

    with HubServer(folder) as hub:
        hub.create_repo("nvidia/omnivinci")
        commit = hub.add_commit("nvidia/omnivinci", "path/to/checkpoint")
        subprocess.run(["hf", "download", "nvidia/omnivinci"], env=hub.environment())

Two origins are served, as on the real Hub: the Hub itself (`url`) and the storage of large files (`cdn_url`), which
takes signed URLs and no tokens. Repositories are the folders FOLDER/owner/name (`hub_repository.py`).

Left out: data sets and Spaces, Xet (clients that upload need `HF_HUB_DISABLE_XET=1`, see `HubServer.environment`),
discussions, `.gitignore` rules, ids without an owner."""

import hmac
import os
import secrets
import sys
import threading
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlencode

from .hub_repository import Repository, pieces
from .hub_requests import Fault, Request, Token
from .hub_routes import Handler


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
