"""What a user writes for a place on the Hub, taken apart and checked before anything is asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from laser_studio.errors import HubError
from laser_studio.untrusted.faults import shown

_FORM = "hf://owner/name, hf://owner/name/file or hf://owner/name/file@revision"


@dataclass(frozen=True)
class HubReference:
    """A place on the Hub. file: "" where the repository's own choice is meant; revision: "" for its newest state."""

    repository: str
    file: str = ""
    revision: str = ""

    def __str__(self) -> str:
        return f"hf://{self.repository}{'/' if self.file else ''}{self.file}{'@' if self.revision else ''}{self.revision}"


def is_reference(text: str | Path) -> bool:
    """Whether this means the Hub and no path; a `Path` has lost one of the slashes."""
    return re.match("hf:/", str(text)) is not None


def parse(text: str | Path) -> HubReference:
    """The parts of a reference. Raises `HubError`.

    >>> parse("hf://owner/name/weights/step_100@main")
    HubReference(repository='owner/name', file='weights/step_100', revision='main')
    """
    body = re.sub("^hf:/{1,2}", "", str(text))
    rest, at, revision = body.rpartition("@") if "@" in body else (body, "", "")
    parts = rest.split("/")
    fault = ""
    owned = len(parts) >= 2 and all(_NAME.fullmatch(part) and "--" not in part and ".." not in part for part in parts[:2])
    if not is_reference(text) or not owned or len("/".join(parts[:2])) > 96:
        fault = "it is no owner/name of the Hub"
    elif len(parts) > 2 and not is_file_name("/".join(parts[2:])):
        fault = "it names no file a repository can have"
    elif at and not (_REVISION.fullmatch(revision) and ".." not in revision):
        fault = "it names no revision a repository can have"
    if fault:
        raise HubError(f"{shown(str(text))} cannot be looked up, {fault}: write {_FORM}")
    return HubReference("/".join(parts[:2]), "/".join(parts[2:]), revision)


_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}")


def is_file_name(name: str) -> bool:
    """Whether a name in a repository may become a path: relative, printable, without a way up."""
    parts = name.split("/")
    plain = name.isprintable() and not any(char in name for char in '\\:@?#%*"<>|')
    return 0 < len(name) <= 400 and plain and all(part not in ("", ".", "..") and len(part.encode()) <= 200 for part in parts)
