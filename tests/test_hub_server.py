"""The local Hub of the tests, driven by the unmodified client."""

import hashlib
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import AutoConfig

from . import hub_metadata
from .hub_requests import Token

REPO = "tester/model"
WEIGHTS = bytes(range(256)) * 2000
CARD = (
    "---\nlicense: apache-2.0\npipeline_tag: video-text-to-text\nlibrary_name: transformers\ntags: [omnivinci]\n---\n"
)


@pytest.fixture
def api(hub):
    return HfApi(token="hf_write")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    (folder / "llm").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    (folder / "llm" / "model.safetensors").write_bytes(WEIGHTS)
    return folder


@pytest.fixture
def repo(hub, folder):
    hub.create_repo(REPO)
    hub.add_commit(REPO, folder)
    return REPO


def contents(folder):
    paths = [path for path in Path(folder).rglob("*") if path.is_file() and ".cache" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def uploads(hub):
    return [request for request in hub.requests if request.method == "PUT"]


def test_a_folder_is_uploaded_in_one_commit_and_comes_back(hub, api, folder):
    assert api.create_repo(REPO).repo_id == REPO
    commit = api.upload_folder(repo_id=REPO, folder_path=folder, commit_message="First version")
    info = api.model_info(REPO, files_metadata=True)
    assert info.sha == commit.oid and not info.private
    assert (info.pipeline_tag, info.library_name, info.tags) == ("video-text-to-text", "transformers", ["omnivinci"])
    large = {sibling.rfilename: sibling.lfs.sha256 for sibling in info.siblings if sibling.lfs}
    assert large == {"llm/model.safetensors": hashlib.sha256(WEIGHTS).hexdigest()}
    assert [entry.title for entry in api.list_repo_commits(REPO)] == ["First version", "initial commit"]
    snapshot = contents(snapshot_download(REPO))
    assert snapshot.pop(".gitattributes")
    assert snapshot == contents(folder)
    assert [request.received for request in uploads(hub)] == [len(WEIGHTS)]


def test_large_files_go_to_and_come_from_another_origin_that_gets_no_token(hub, api, folder):
    api.create_repo(REPO, private=True)
    api.upload_folder(repo_id=REPO, folder_path=folder)
    snapshot_download(REPO, token="hf_read")
    storage = [request for request in hub.requests if request.cdn]
    assert [request.method for request in storage] == ["PUT", "GET"]
    assert not any("Authorization" in request.headers for request in storage)


def test_an_upload_in_parts_is_put_together(hub, api, folder):
    hub.part_size = 100_000
    api.create_repo(REPO)
    api.upload_folder(repo_id=REPO, folder_path=folder)
    assert sorted(request.received for request in uploads(hub)) == [12_000] + [100_000] * 5
    assert hub.files(REPO)["llm/model.safetensors"].read_bytes() == WEIGHTS


def test_unchanged_files_are_not_sent_again(hub, api, folder):
    api.create_repo(REPO)
    first = api.upload_folder(repo_id=REPO, folder_path=folder)
    assert api.upload_folder(repo_id=REPO, folder_path=folder).oid == first.oid
    (folder / "config.json").write_text("{}")
    second = api.upload_folder(repo_id=REPO, folder_path=folder)
    api.upload_file(repo_id=REPO, path_or_fileobj=WEIGHTS, path_in_repo="copy.safetensors")
    assert second.oid != first.oid and len(uploads(hub)) == 1


def test_a_commit_adds_copies_and_deletes(hub, api, repo):
    operations = [
        CommitOperationCopy("llm/model.safetensors", "model.safetensors"),
        CommitOperationDelete("llm/"),
        CommitOperationDelete("config.json"),
        CommitOperationAdd("notes.txt", b"notes"),
    ]
    api.create_commit(repo, operations, commit_message="Move")
    assert sorted(hub.files(repo)) == [".gitattributes", "README.md", "model.safetensors", "notes.txt"]
    with pytest.raises(RemoteEntryNotFoundError):
        api.delete_file("config.json", repo)


def test_a_commit_onto_another_than_its_parent_is_refused(api, repo):
    parent = api.model_info(repo).sha
    api.upload_file(repo_id=repo, path_or_fileobj=b"1", path_in_repo="a", parent_commit=parent)
    with pytest.raises(HfHubHTTPError, match="412") as error:
        api.upload_file(repo_id=repo, path_or_fileobj=b"2", path_in_repo="a", parent_commit=parent)
    assert "A commit has happened since" in str(error.value)


def test_branches_tags_and_commits_are_revisions(hub, api, repo):
    first = api.model_info(repo).sha
    api.create_tag(repo, tag="v1")
    api.create_branch(repo, branch="feature/new", revision="v1")
    second = api.upload_file(repo_id=repo, path_or_fileobj=b"new", path_in_repo="config.json", revision="feature/new")
    texts = {
        revision: Path(hf_hub_download(repo, "config.json", revision=revision)).read_text()
        for revision in ("main", "v1", "feature/new", first, second.oid)
    }
    old = '{"model_type": "qwen2"}'
    assert texts == {"main": old, "v1": old, "feature/new": "new", first: old, second.oid: "new"}
    refs = api.list_repo_refs(repo)
    assert {branch.name: branch.target_commit for branch in refs.branches} == {
        "main": first,
        "feature/new": second.oid,
    }
    assert [tag.name for tag in refs.tags] == ["v1"]
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag(repo, tag="v1")
    api.create_tag(repo, tag="v1", exist_ok=True)
    api.delete_tag(repo, tag="v1")
    api.delete_branch(repo, branch="feature/new")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repo, revision="v1")


def test_a_pull_request_leaves_main_alone(hub, api, repo):
    hub.tokens["hf_guest"] = Token("guest", write=True)
    before = api.model_info(repo).sha
    with pytest.raises(HfHubHTTPError, match="create_pr=1"):
        api.upload_file(repo_id=repo, path_or_fileobj=b"new", path_in_repo="a.txt", token="hf_guest")
    pull_request = api.upload_file(
        repo_id=repo, path_or_fileobj=b"new", path_in_repo="a.txt", create_pr=True, token="hf_guest"
    )
    assert pull_request.pr_revision == "refs/pr/1" and pull_request.pr_url == f"{hub.url}/{repo}/discussions/1"
    assert api.model_info(repo).sha == before and "a.txt" not in hub.files(repo)
    assert Path(hf_hub_download(repo, "a.txt", revision="refs/pr/1")).read_bytes() == b"new"


def test_the_tree_comes_in_pages_with_folders_and_last_commits(hub, api, repo):
    hub.add_commit(repo, {"config.json": "{}"}, message="Change the config")
    hub.page_size = 2
    paths = [entry.path for entry in api.list_repo_tree(repo, recursive=True)]
    assert paths == [".gitattributes", "README.md", "config.json", "llm", "llm/model.safetensors"]
    assert len([request for request in hub.requests if "/tree/" in request.path]) == 3
    assert [entry.path for entry in api.list_repo_tree(repo, "llm")] == ["llm/model.safetensors"]
    assert "llm/model.safetensors" not in [entry.path for entry in api.list_repo_tree(repo)]
    config, missing = api.get_paths_info(repo, ["config.json", "llm"], expand=True)
    assert config.last_commit.title == "Change the config" and missing.last_commit.title == "Add files"
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(repo, "none"))


def test_only_the_wanted_files_are_downloaded_and_only_once(hub, repo):
    snapshot = snapshot_download(repo, allow_patterns=["*.json", "*.md"])
    assert sorted(contents(snapshot)) == ["README.md", "config.json"] == sorted(hub.downloads())
    hub.requests.clear()
    assert snapshot_download(repo, allow_patterns=["*.json", "*.md"]) == snapshot
    hf_hub_download(repo, "config.json")
    assert hub.downloads() == []
    hub.add_commit(repo, {"README.md": CARD + "More."})
    snapshot_download(repo, allow_patterns=["*.json", "*.md"])
    assert hub.downloads() == ["README.md"]


def test_an_interrupted_download_goes_on_where_it_stopped(hub, repo):
    content, step = WEIGHTS * 25, huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE  # the client keeps whole steps
    hub.add_commit(repo, {"large.safetensors": content})
    hub.fail("large.safetensors", "GET", cut_response=step + 1000)
    assert Path(hf_hub_download(repo, "large.safetensors")).read_bytes() == content
    first, second = (request for request in hub.requests if request.file)
    assert (first.status, first.sent) == (200, step + 1000)
    assert (second.status, second.sent) == (206, len(content) - step)
    assert second.headers["Range"] == f"bytes={step}-"


def test_a_reset_download_fails_and_leaves_no_file(hub, repo, tmp_path):
    hub.fail("model.safetensors", "GET", cut_response=200_000, reset=True)
    with pytest.raises(Exception, match="(?i)reset"):
        hf_hub_download(repo, "llm/model.safetensors")
    assert not [
        path for path in (tmp_path / "huggingface").rglob("*") if path.is_file() and b"\xff" in path.read_bytes()
    ]
    assert Path(hf_hub_download(repo, "llm/model.safetensors")).read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    "range_, status, content",
    [
        ("bytes=0-9", 206, WEIGHTS[:10]),
        ("bytes=511990-", 206, WEIGHTS[-10:]),
        ("bytes=-10", 206, WEIGHTS[-10:]),
        ("bytes=511990-999999", 206, WEIGHTS[-10:]),
        ("bytes=512000-", 416, None),
        (None, 200, WEIGHTS),
    ],
)
def test_ranges(hub, repo, range_, status, content):
    session, headers = huggingface_hub.get_session(), {"Range": range_} if range_ else {}
    answer = session.get(huggingface_hub.hf_hub_url(repo, "llm/model.safetensors"), headers=headers)
    assert answer.status_code == status
    if content is None:
        assert answer.headers["Content-Range"] == f"bytes */{len(WEIGHTS)}"
    else:
        assert answer.content == content


def test_without_rights_there_is_no_private_repository(hub, api, repo):
    api.update_repo_settings(repo, private=True)
    hub.tokens["hf_guest"] = Token("guest")
    assert api.whoami()["name"] == "tester" and api.model_info(repo, token="hf_read").private
    hub.requests.clear()
    for token in (False, "hf_guest"):
        for ask in (
            lambda: api.model_info(repo, token=token),  # noqa: B023
            lambda: hf_hub_download(repo, "config.json", token=token),  # noqa: B023
            lambda: snapshot_download(repo, token=token),  # noqa: B023
        ):
            with pytest.raises(RepositoryNotFoundError):
                ask()
    assert hub.downloads() == []
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        api.model_info(repo, token="hf_unknown")


def test_a_gated_repository_shows_itself_but_not_its_files(hub):
    hub.create_repo("tester/gated", gated=True)
    hub.add_commit("tester/gated", {"config.json": "{}"})
    assert HfApi().model_info("tester/gated").gated == "auto"
    with pytest.raises(GatedRepoError):
        hf_hub_download("tester/gated", "config.json")
    assert hf_hub_download("tester/gated", "config.json", token="hf_read")


@pytest.mark.parametrize(
    "token, message", [(False, "Invalid username or password"), ("hf_read", "write token"), ("hf_guest", "rights")]
)
def test_writing_needs_a_token_with_the_right(token, message, hub, api, repo):
    hub.tokens["hf_guest"] = Token("guest", write=True)
    before = hub.find(repo).state
    with pytest.raises(HfHubHTTPError, match=message):
        api.create_repo("tester/other", token=token)
    for write in (
        lambda: api.upload_file(repo_id=repo, path_or_fileobj=WEIGHTS, path_in_repo="new.bin", token=token),
        lambda: api.create_branch(repo, branch="new", token=token),
        lambda: api.delete_repo(repo, token=token),
    ):
        with pytest.raises(HfHubHTTPError, match="40[13]"):
            write()
    assert hub.find(repo).state == before and not hub.find("tester/other") and not uploads(hub)


def test_what_does_not_exist_has_an_error_of_its_own(api, repo):
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("tester/none", "config.json")
    with pytest.raises(RepositoryNotFoundError):
        snapshot_download("tester/none", token="hf_read")
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(repo, "config.json", revision="none")
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(repo, "none.json")
    assert not api.repo_exists("tester/none") and not api.file_exists(repo, "none.json")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo(repo)
    assert api.create_repo(repo, exist_ok=True).repo_id == repo
    api.delete_repo(repo)
    assert not api.repo_exists(repo)


def test_an_upload_cut_in_the_middle_leaves_no_commit_and_a_rerun_succeeds(hub, api, repo, folder):
    before = api.model_info(repo).sha
    (folder / "llm" / "model.safetensors").write_bytes(WEIGHTS[::-1])
    hub.fail("/upload/", "PUT", cut_request=100_000, count=6)
    with pytest.raises(RuntimeError, match="Error while uploading"):
        api.upload_folder(repo_id=repo, folder_path=folder)
    assert api.model_info(repo).sha == before
    assert len(list((hub.root / repo / "lfs").iterdir())) == 1
    api.upload_folder(repo_id=repo, folder_path=folder)
    assert hub.files(repo)["llm/model.safetensors"].read_bytes() == WEIGHTS[::-1]


def test_an_upload_with_another_checksum_is_refused(hub, api, repo):
    addition = CommitOperationAdd("new.bin", WEIGHTS[:-1])
    addition.upload_info.sha256 = hashlib.sha256(b"something else").digest()
    with pytest.raises(RuntimeError, match="Error while uploading") as error:
        api.create_commit(repo, [addition], commit_message="Wrong")
    assert isinstance(error.value.__cause__, BadRequestError) and "sha256" in str(error.value.__cause__)
    assert "new.bin" not in hub.files(repo)


def test_a_commit_cut_in_the_middle_does_not_happen(hub, api, repo):
    hub.fail("/commit/", cut_request=10)
    with pytest.raises(Exception, match="(?i)reset|disconnected|broken pipe"):
        api.upload_file(repo_id=repo, path_or_fileobj=b"new", path_in_repo="a.txt")
    assert "a.txt" not in hub.files(repo)


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, api, repo):
    hub.fail("/commit/", cut_response=0)
    with pytest.raises(Exception, match="peer closed connection"):
        api.upload_file(repo_id=repo, path_or_fileobj=b"new", path_in_repo="a.txt")
    commit = api.upload_file(repo_id=repo, path_or_fileobj=b"new", path_in_repo="a.txt")
    assert len(api.list_repo_commits(repo)) == 3 and commit.oid == api.model_info(repo).sha


def test_the_client_tries_again_when_the_hub_is_busy(hub, repo):
    hub.fail("config.json", status=503, count=2)
    assert Path(hf_hub_download(repo, "config.json")).read_text() == '{"model_type": "qwen2"}'
    assert [request.status for request in hub.requests if "config.json" in request.path] == [503, 503, 200, 200]


def test_a_slow_answer_is_a_timeout(hub, repo):
    hub.fail("/api/models/", delay=0.5)
    with pytest.raises(Exception, match="(?i)timed out"):
        HfApi().model_info(repo, timeout=0.1)


def test_the_cache_serves_while_the_hub_is_down(hub, repo):
    snapshot = snapshot_download(repo)
    hub.stop()
    assert snapshot_download(repo) == snapshot
    assert hf_hub_download(repo, "config.json") == f"{snapshot}/config.json"
    with pytest.raises(LocalEntryNotFoundError):
        snapshot_download("tester/other")
    hub.start()
    assert HfApi().model_info(repo).sha == Path(snapshot).name


def test_transformers_of_this_process_asks_this_hub(hub, repo):
    assert AutoConfig.from_pretrained(repo).model_type == "qwen2"
    assert hub.downloads() == ["config.json"]


RESULT = (
    "  - task: {type: question-answering}\n    dataset: {type: a/b, name: B}\n    metrics: [{type: acc, value: 1}]\n"
)
INDEX = "model-index:\n- name: omnivinci\n  results:\n"


@pytest.mark.parametrize(
    "metadata",
    [
        "license: apache-2.0\nlanguage: [en, multilingual]\nbase_model: a/b\nbase_model_relation: finetune",
        "license: other\nlicense_name: nvidia-oneway-noncommercial\nlicense_link: https://example.com/license",
        "widget:\n- src: https://example.com/a.mp4\n  example_title: A video\n- text: Hello.\n  output: {text: Hi.}",
        "widget:\n- messages: [{role: user, content: Hello.}]",
        INDEX + RESULT + "    source: {url: https://arxiv.org/abs/2510.15870}",
    ],
)
def test_valid_metadata(hub, metadata):
    assert hub_metadata.validate(f"---\n{metadata}\n---\n# Card\n") == {"errors": [], "warnings": []}
    ModelCard(f"---\n{metadata}\n---\n# Card\n").validate()


@pytest.mark.parametrize(
    "metadata, message",
    [
        ("license: gpl-2.0-or-later", '"license" must be one of'),
        ("license: other", '"license_name" is required'),
        ("license: other\nlicense_name: mine", '"license_link" is required'),
        ("language: english", '"language" with value "english" is not valid'),
        ("base_model: ./local/folder", '"base_model" with value "./local/folder" is not valid'),
        ("tags: omnivinci", '"tags" must be an array'),
        ("base_model_relation: child", '"base_model_relation" must be one of'),
        ("widget: Hello.", '"widget" must be an array'),
        ("widget: [{title: Hello}]", r'"widget\[0\]" must have one of'),
        ("widget: [{messages: [{role: robot, content: Hello.}]}]", r'"widget\[0\].messages\[0\].role" must be one of'),
        ("model-index: {name: a}", '"model-index" must be an array'),
        (INDEX + RESULT.replace("type: question-answering", "name: QA"), r'results\[0\].task.type" is required'),
        (INDEX + RESULT.replace(", name: B", ""), r'results\[0\].dataset.name" is required'),
        (INDEX + RESULT.replace(", value: 1", ""), r'metrics\[0\].value" is required'),
        (INDEX + RESULT + "    source: {name: Paper}", r'results\[0\].source.url" is required'),
        ("- a\n- b", '"metadata" must be of type object'),
        ("a: [", "Invalid YAML"),
    ],
)
def test_a_card_with_invalid_metadata_is_refused(metadata, message, hub, api):
    hub.create_repo(REPO)
    content = f"---\n{metadata}\n---\n# Card\n".encode()
    with pytest.raises(ValueError, match=message):
        api.upload_file(repo_id=REPO, path_or_fileobj=content, path_in_repo="README.md")
    assert sorted(hub.files(REPO)) == [".gitattributes"]


@pytest.mark.parametrize(
    "content, message",
    [("# Card", "empty or missing yaml"), ("---\npipeline_tag: a\n---\n", "not in the official list")],
)
def test_a_card_may_get_a_warning(content, message, api, repo):
    with pytest.warns(UserWarning, match=message):
        api.upload_file(repo_id=repo, path_or_fileobj=content.encode(), path_in_repo="README.md")
