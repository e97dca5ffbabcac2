"""A model repository of the local Hub of `hub_server.py`, kept in a folder:

repo.json             visibility, branches, tags, pull requests, and the commits with their files
snapshots/COMMIT/...  the files of a commit, hard links where nothing changed
lfs/SHA256            the large files; parts/SHA256 what came of them in parts
"""

import fnmatch
import hashlib
import json
import os
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

LFS_PATTERNS = """*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.model *.msgpack *.npy *.npz *.onnx *.ot
    *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors *.tar *.tflite *.tgz *.xz *.zip *.zst""".split()  # noqa: SIM905
LFS_SIZE = 10 * 2**20  # bytes: files from this size on are large whatever their name
CHUNK = 2**16


class HubError(Exception):
    """An error answer: `code` is the `X-Error-Code` by which the client picks its exception."""

    def __init__(self, status, message, code=None, **headers):
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = headers | {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})


class Repository:
    """A model repository: `state` is the content of its `repo.json`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.state = json.loads((folder / "repo.json").read_text())
        self.refs, self.commits = self.state["refs"], self.state["commits"]

    @classmethod
    def create(cls, folder: Path, private: bool, gated: bool, author: str) -> "Repository":
        for name in ("lfs", "parts"):
            (folder / name).mkdir(parents=True)
        state = {"private": private, "gated": gated, "refs": {}, "commits": {}}
        (folder / "repo.json").write_text(json.dumps(state))
        repository = cls(folder)
        attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS)
        repository.commit("refs/heads/main", {".gitattributes": attributes.encode()}, "initial commit", author)
        return repository

    def save(self):
        temporary = self.folder / "repo.json.new"
        temporary.write_text(json.dumps(self.state, indent=1))
        temporary.replace(self.folder / "repo.json")

    def resolve(self, revision: str) -> str:
        """The commit of a branch, a tag, a pull request (`refs/pr/1`) or of a commit."""
        for ref in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if ref in self.refs:
                return self.refs[ref]
        if revision in self.commits:
            return revision
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def files(self, commit: str) -> dict[str, dict]:
        return self.commits[commit]["files"]

    def path(self, commit: str, path: str) -> Path:
        return self.folder / "snapshots" / commit / path

    def is_large(self, commit: str, path: str, size: int, sample: bytes) -> bool:
        attributes = self.path(commit, ".gitattributes")
        lines = attributes.read_text().split("\n") if attributes.is_file() else []
        patterns = [line.split()[0] for line in lines if "filter=lfs" in line]
        large = any(fnmatch.fnmatch(path, name) or fnmatch.fnmatch(path.split("/")[-1], name) for name in patterns)
        return size > 0 and (large or size >= LFS_SIZE or b"\0" in sample)

    def store(self, chunks, sha256: str | None = None, kind: str = "lfs") -> str:
        """Keep a large file, or a part of one, once all has come and, if `sha256` is given, is what it should be."""
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix="upload.") as file:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            if sha256 not in (None, digest.hexdigest()):
                raise HubError(400, f"The content has the sha256 {digest.hexdigest()}, not {sha256}.")
            target = self.folder / kind / digest.hexdigest()
            if not target.exists():
                os.link(file.name, target)
        return digest.hexdigest()

    def commit(self, ref: str, changes: dict, title: str, author: str, message: str = "", parent=None) -> str:
        """Add a commit to `ref`. `changes` maps paths to bytes, to the sha256 of a stored large file, or to `None`."""
        parent = parent or self.refs.get(ref)
        files = dict(self.files(parent)) if parent else {}
        for path, content in changes.items():
            parts = PurePosixPath(path).parts
            if not parts or path.startswith("/") or {"..", ".git"} & set(parts):
                raise HubError(400, f"Invalid path: {path}")
            if content is None:
                if path not in files:
                    raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
                del files[path]
            elif isinstance(content, bytes):
                files[path] = {"oid": git_oid(content), "size": len(content)}
            else:
                stored = self.folder / "lfs" / content
                if not re.fullmatch("[0-9a-f]{64}", content) or not stored.exists():
                    raise HubError(400, f"LFS pointer pointed to a file that does not exist: {path}")
                size = stored.stat().st_size
                pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{content}\nsize {size}\n".encode()
                lfs = {"oid": content, "size": size, "pointerSize": len(pointer)}
                files[path] = {"oid": git_oid(pointer), "size": size, "lfs": lfs}
        identity = json.dumps([len(self.commits), parent, title, files], sort_keys=True)
        commit = hashlib.sha1(identity.encode()).hexdigest()
        for path, entry in files.items():
            target = self.path(commit, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if "lfs" in entry:
                os.link(self.folder / "lfs" / entry["lfs"]["oid"], target)
            elif path in changes:
                target.write_bytes(changes[path])
            else:
                os.link(self.path(parent, path), target)
        date = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.commits[commit] = {
            "parent": parent, "title": title, "message": message, "author": author, "date": date, "files": files,
        }  # fmt: skip
        self.refs[ref] = commit
        self.save()
        return commit

    def history(self, commit: str):
        while commit:
            yield commit, self.commits[commit]
            commit = self.commits[commit]["parent"]

    def last_change(self, commit: str, path: str) -> dict:
        """The last commit that changed a file or something in a folder, as the API gives it."""

        def content(sha):
            return {name: item["oid"] for name, item in self.files(sha).items() if f"{name}/".startswith(f"{path}/")}

        for sha, entry in self.history(commit):  # noqa: B007
            if entry["parent"] is None or content(entry["parent"]) != content(commit):
                break
        return {"id": sha, "title": entry["title"], "date": entry["date"]}

    def entries(self, commit: str, expand: bool = False) -> dict[str, dict]:
        """Every file and folder of a commit by its path, as the API gives them."""
        result = {path: {"type": "file", "path": path} | entry for path, entry in self.files(commit).items()}
        for path in list(result):
            for parent in PurePosixPath(path).parents[:-1]:
                inside = [f"{p} {e['oid']}" for p, e in self.files(commit).items() if p.startswith(f"{parent}/")]
                oid = git_oid("\n".join(sorted(inside)).encode())
                result[str(parent)] = {"type": "directory", "path": str(parent), "oid": oid, "size": 0}
        if expand:
            for path, entry in result.items():
                entry["lastCommit"] = self.last_change(commit, path)
        return dict(sorted(result.items()))


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def pieces(path: Path, start: int = 0, stop: int | None = None):
    with open(path, "rb") as file:
        file.seek(start)
        left = (path.stat().st_size if stop is None else stop) - start
        while left > 0 and (piece := file.read(min(CHUNK, left))):
            left -= len(piece)
            yield piece
