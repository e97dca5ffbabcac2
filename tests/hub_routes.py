"""The routes of the local Hub of `hub_server.py`, as the client asks for them."""

import base64
import contextlib
import hmac
import json
import shutil
from urllib.parse import parse_qs, urlencode, urlsplit

import yaml

from . import hub_metadata
from .hub_repository import HubError, Repository, pieces
from .hub_requests import HubHandler, locked, route


class Handler(HubHandler):
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
