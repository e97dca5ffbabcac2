"""Publishing of a checkpoint: one commit, after the folder was found to load."""

from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError
from huggingface_hub.utils import validate_repo_id

from ..hub_options import plain_transfer_errors
from .card import build_card, name_repository

REPLACED = ("*.safetensors", "*.safetensors.index.json", "*.py")
"""Files of the repository that vanish where the folder lacks them: a loader would mix them with the new ones."""


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
    Uploads a checkpoint in either layout as one commit. The repository and the branch are made where they are missing.
    What an upload that broke off has sent is not sent again.

    Args:
        folder (`str` or `Path`): The checkpoint.
        repo_id (`str`): `owner/name`.
        private (`bool`, *optional*, defaults to `False`): Whether a new repository is private.
        revision (`str`, *optional*): The branch. `None`: the main one.
        create_pr (`bool`, *optional*, defaults to `False`): Whether the commit becomes a pull request.
        commit_message (`str`, *optional*): Its subject.
        token (`str`, *optional*): With the right to write. `None`: the one that is logged in.

    Returns:
        [`~huggingface_hub.CommitInfo`]: with `commit_url`, and `pr_url` of a pull request.

    Raises:
        OSError: the folder does not load, or the Hub cannot be reached or refuses.
        ValueError: the folder does not load, or `repo_id` is not one.
    """
    from ..conversion.conversion_plan import plan_conversion

    folder = Path(folder)
    if not folder.is_dir():
        raise OSError(f"There is no folder {str(folder)!r}: the folder of a checkpoint is accepted.")
    validate_repo_id(repo_id)
    plan = plan_conversion(folder)
    card_file = folder / "README.md"
    card = ModelCard.load(card_file) if card_file.is_file() else build_card(source=folder)
    additions = [
        CommitOperationAdd(path.relative_to(folder).as_posix(), path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != card_file and not _is_private(path.relative_to(folder))
    ]
    additions.append(CommitOperationAdd("README.md", str(name_repository(card, repo_id)).encode()))
    api = HfApi(token=token, library_name="transformers_omnivinci")
    kept = "Another call does not send again what has arrived."
    try:
        with plain_transfer_errors(f"The upload to {repo_id}", kept):
            api.create_repo(repo_id, private=private, exist_ok=True)
            if revision is not None and not create_pr:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            deletions = _deletions(api, repo_id, revision, {operation.path_in_repo for operation in additions})
            return api.create_commit(
                repo_id,
                [*additions, *deletions],
                commit_message=commit_message or f"Upload {plan.config.architectures[0]}",
                revision=revision,
                create_pr=create_pr,
            )
    except HfHubHTTPError as error:
        if error.response.status_code not in (401, 403):
            raise
        raise OSError(
            f"The Hub does not let this token write {repo_id}: one with that right is accepted (`hf auth login`)."
        ) from error


def _is_private(path: Path) -> bool:
    """Caches and what belongs to Git, not to the checkpoint."""
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def _deletions(api: HfApi, repo_id: str, revision: str | None, kept: set[str]) -> list[CommitOperationDelete]:
    try:
        present = api.list_repo_files(repo_id, revision=revision)
    except RevisionNotFoundError:  # a repository without a commit
        return []
    stale = (path for path in present if path not in kept and any(Path(path).match(glob) for glob in REPLACED))
    return [CommitOperationDelete(path) for path in stale]
