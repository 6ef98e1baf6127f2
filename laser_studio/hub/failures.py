"""Each failure of the Hub, the network and the disk in words of its own."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from laser_studio.errors import HubError, LaserStudioError
from laser_studio.hub.reference import HubReference
from laser_studio.untrusted.faults import shown


@contextmanager
def in_words(where: HubReference) -> Iterator[None]:
    """Every failure of the Hub, the network and the disk as one `HubError`."""
    try:
        yield
    except LaserStudioError:
        raise
    except Exception as failure:
        raise HubError(_sentence(where, failure)) from None


def _sentence(where: HubReference, failure: Exception) -> str:
    from huggingface_hub import errors

    name, login = where.repository, "log in with `hf auth login`"
    cause = failure.__cause__ if isinstance(failure, errors.RevisionResolutionError | errors.LocalEntryNotFoundError) else None
    if isinstance(cause, Exception):
        return _sentence(where, cause)
    status = getattr(getattr(failure, "response", None), "status_code", None)
    if isinstance(failure, errors.RevisionNotFoundError):
        return f"{name} has no revision {shown(where.revision)!r}: give a branch, a tag or a commit, or leave it out for the newest"
    if isinstance(failure, errors.GatedRepoError):
        return f"{name} is given only to those who accepted its terms: open its page on the Hub, accept them, and {login}"
    if isinstance(failure, errors.EntryNotFoundError) and status == 404:
        return f"{name} no longer has this file at this commit: look it up again"
    if status == 404:
        return f"{name} is not on the Hub: check how it is spelled"
    if status == 401:
        return f"{name} is not on the Hub, or it is private (the Hub does not say which): check how it is spelled, or {login}"
    if status == 403:
        return f"{name} may not be read with this login: ask its owner, or {login} under another name"
    if status == 429:
        wait = str(failure.response.headers.get("Retry-After", ""))  # type: ignore[attr-defined]
        when = f"in {wait} seconds" if wait.isdecimal() and len(wait) < 6 else "in some minutes"
        return f"the Hub refuses further requests for now (too many, 429): try again {when}, or {login}, which allows more of them"
    if status is not None:
        return f"the Hub could not answer for {name} (status {status}): try again later"
    if is_unreachable(failure):
        return f"the Hub cannot be reached, and {name} is not in the cache: check the connection (and HF_HUB_OFFLINE), or give a local file"
    if isinstance(failure, OSError) and failure.errno == errno.ENOSPC:
        return f"the disk is full, {name} could not be stored: make room, or set HF_HOME to a folder on another disk"
    if isinstance(failure, OSError) and failure.errno is not None:
        return f"{name} could not be stored: {failure.strerror or 'unknown fault of the disk'}"
    return f"{name} could not be fetched, the connection or the Hub failed halfway: try again, it goes on from there"


def is_unreachable(failure: Exception) -> bool:
    """Whether nobody answered, or nobody was to be asked."""
    from huggingface_hub import errors

    refused = isinstance(failure, errors.OfflineModeIsEnabled | errors.RevisionResolutionError | errors.LocalEntryNotFoundError)
    # the HTTP library below is huggingface_hub's own affair; its status errors are HfHubHTTPErrors
    transport = type(failure).__module__.partition(".")[0].startswith("httpx") and not isinstance(failure, errors.HfHubHTTPError)
    return refused or transport
