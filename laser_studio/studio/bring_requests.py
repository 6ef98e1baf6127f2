"""What a page may ask about models it brings, as settings classes."""

from __future__ import annotations

from typing import Any

from laser_studio.settings import setting, settings
from laser_studio.studio.registry import StudioError


@settings(StudioError)
class LookRequest:
    """What does this reference stand for?"""

    reference: str = setting(help="hf://owner/name[/file][@revision], or the address of a page of the Hub.")

    def __post_init__(self) -> None:
        if not 0 < len(self.reference.strip()) <= 300:
            raise StudioError("name a model of the Hub, such as hf://owner/name")


@settings(StudioError)
class FetchRequest:
    """Fetch what was found."""

    pinned: str = setting(help="The reference as `look` has pinned it.")

    def __post_init__(self) -> None:
        if not self.pinned.startswith("hf://") or len(self.pinned) > 400:
            raise StudioError("look the model up first")


@settings(StudioError)
class FollowRequest:
    """How does a download stand?"""

    job: str = setting(help="Number of the job.")
    stop: bool = setting(default=False, help="Whether to end it.")


@settings(StudioError)
class SentRequest:
    """Files were sent to the server."""

    paths: list[str] = setting(help="Where the server says it has put them.")

    def __post_init__(self) -> None:
        if not 1 <= len(self.paths) <= 5 or any(not path or len(path) > 1_000 or "\0" in path for path in self.paths):
            raise StudioError("send one file of weights, with up to four configurations beside it")


@settings(StudioError)
class AnswerRequest:
    """What a file does not tell."""

    token: str = setting(help="Of the file that waits.")
    assume: dict[str, Any] = setting(help="Values by name.")

    def __post_init__(self) -> None:
        plain = all(isinstance(value, int | float | str | bool) and len(str(value)) <= 80 for value in self.assume.values())
        if len(self.assume) > 30 or not plain or any(len(name) > 60 for name in self.assume):
            raise StudioError("these answers are not such as were asked for: reload the page")
