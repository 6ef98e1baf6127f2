"""Where the Hub is, and where its cache keeps things, as huggingface_hub has it."""

from __future__ import annotations

import os
from pathlib import Path

from laser_studio.hub.reference import HubReference


def endpoint() -> str | None:
    """The server to ask; None means the Hub itself."""
    return os.environ.get("HF_ENDPOINT") or None  # as it is now: huggingface_hub remembers what it was at its import


def storage(where: HubReference, cache: Path | None) -> Path:
    """The folder of a repository in the cache."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    return Path(cache or HF_HUB_CACHE).expanduser() / repo_folder_name(repo_id=where.repository, repo_type="model")


def snapshot_folder(where: HubReference, commit: str, cache: Path | None) -> Path:
    """The folder that shows a repository as it was at a commit, as far as it was fetched."""
    return storage(where, cache) / "snapshots" / commit
