"""Uploads a checkpoint to the Hub in one commit, if it loads."""

from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError
from huggingface_hub.utils import filter_repo_objects, validate_repo_id

from ..configuration_omnivinci import OmniVinciConfig
from ..hub_options import plain_transfer_errors
from ..publishing.card import build_card, name_repository
from ..weight_files import check_files, quantization_of
from .conversion_plan import plan_conversion

REPLACED = ["*.safetensors", "*.safetensors.index.json", "*.py"]
"""Files that are deleted from the repository if the folder lacks them, or they would be loaded with the new ones."""
PRIVATE = [".*", "*/.*", "__pycache__/*", "*/__pycache__/*"]
"""Caches and files of Git, which are not uploaded."""


def push(
    folder,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    token: str | None = None,
) -> CommitInfo:
    """
    Uploads a checkpoint in either layout as one commit, and creates the repository and the branch if necessary. Files
    that arrived before an upload broke off are not sent again.

    Args:
        folder (`str` or `Path`): The checkpoint.
        repo_id (`str`): `owner/name`.
        private (`bool`, *optional*, defaults to `False`): Whether a new repository is private.
        revision (`str`, *optional*): The branch. Default: the main one.
        create_pr (`bool`, *optional*, defaults to `False`): Whether the commit becomes a pull request.
        commit_message (`str`, *optional*): The subject of the commit.
        token (`str`, *optional*): A token that may write. Default: that of the user who is logged in.

    Returns:
        [`~huggingface_hub.CommitInfo`]: with `commit_url`, and `pr_url` of a pull request.

    Raises:
        OSError, ValueError: the folder does not load, `repo_id` is not one, or the Hub cannot be reached or refuses.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise OSError(f"There is no folder {str(folder)!r}: the folder of a checkpoint is accepted.")
    validate_repo_id(repo_id)
    config = _check_loads(folder)
    card_file = folder / "README.md"
    card = ModelCard.load(card_file) if card_file.is_file() else build_card(source=folder)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    uploaded = list(filter_repo_objects(names, ignore_patterns=[*PRIVATE, card_file.name]))
    additions = [CommitOperationAdd(name, folder / name) for name in uploaded]
    additions.append(CommitOperationAdd(card_file.name, str(name_repository(card, repo_id)).encode()))
    api = HfApi(token=token, library_name="transformers_omnivinci")
    try:
        with plain_transfer_errors(f"The upload to {repo_id}", "Another call does not send again what has arrived."):
            api.create_repo(repo_id, private=private, exist_ok=True)
            if revision is not None and not create_pr:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            deletions = _delete_stale(api, repo_id, revision, uploaded)
            # Not `upload_folder`, which makes several commits of a large upload.
            subject = commit_message or f"Upload {config.architectures[0]}"
            return api.create_commit(
                repo_id, [*additions, *deletions], commit_message=subject, revision=revision, create_pr=create_pr
            )
    except HfHubHTTPError as error:
        if error.response.status_code not in (401, 403):
            raise
        raise OSError(
            f"The Hub does not let this token write {repo_id}: one with that right is accepted (`hf auth login`)."
        ) from error


def _check_loads(folder: Path) -> OmniVinciConfig:
    """The config of a folder whose files, as far as headers tell, are those of a checkpoint."""
    if quantization_of(folder) is None:
        return plan_conversion(folder).config
    from ..processing import OmniVinciProcessor

    OmniVinciProcessor.from_pretrained(folder)
    check_files(folder, use_safetensors=True)
    return OmniVinciConfig.from_pretrained(folder)


def _delete_stale(api: HfApi, repo_id: str, revision: str | None, uploaded: list[str]) -> list[CommitOperationDelete]:
    """What deletes the files of the repository that are to be replaced, but are not uploaded."""
    try:
        present = api.list_repo_files(repo_id, revision=revision)
    except RevisionNotFoundError:  # a repository without a commit
        return []
    stale = set(filter_repo_objects(present, allow_patterns=REPLACED)).difference(uploaded)
    return [CommitOperationDelete(name) for name in sorted(stale)]
