"""How a page's request is answered: with what the work gives, or with one sentence on what went wrong. Nothing is raised."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from laser_studio.errors import LaserStudioError
from laser_studio.studio.registry import StudioError

log = logging.getLogger(__name__)

MAX_MESSAGE = 380


def answer(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of `work`, or {"error": sentence, "expired": whether what was asked for is gone}."""
    try:
        return work()
    except LaserStudioError as problem:
        # A message may repeat what was sent.
        text = "".join(character if character.isprintable() else "?" for character in str(problem)[:MAX_MESSAGE])
        told = getattr(problem, "told", {})  # what the page needs to do something about it
        return {"error": text, "expired": isinstance(problem, StudioError) and problem.expired, **told}
    except MemoryError:
        return {"error": "the machine ran out of memory: restart the run, or choose a smaller model", "expired": False}
    except Exception:
        # The cause belongs into the server's log, never onto a stranger's screen.
        log.exception("a page's request failed")
        return {"error": "the studio failed at this request: restart the run; its log has the cause", "expired": False}
