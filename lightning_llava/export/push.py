"""The push to the Hub, which only `--push-to-hub` starts."""

from pathlib import Path

from huggingface_hub import HfApi

from lightning_llava.errors import SettingError


def push(folder: Path, repository: str, private: bool) -> str:
    """Upload a folder; the token is that of the environment or of `hf auth login`.

    Args:
        folder: what is uploaded.
        repository: `owner/name`, created if need be.
        private: whether a repository that is created is private.

    Returns:
        The address of the commit.

    Raises:
        SettingError: the hub cannot be reached or refuses.
    """
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Export of lightning_llava"
        )
    except Exception as error:  # the hub's own kinds, its HTTP library's, and the system's
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise SettingError(
            f"--push-to-hub: {repository!r} could not be written ({reason}); the folder is "
            f"complete in {str(folder)!r}: log in with `hf auth login` and upload it with "
            f"`hf upload {repository} {folder}`"
        ) from error
    return str(commit.commit_url)
