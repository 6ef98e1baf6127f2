"""One kind of question: what it is given, and what answers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from laser_studio.settings import setting, settings
from laser_studio.studio.links import MAX_STEP
from laser_studio.studio.registry import StudioError

if TYPE_CHECKING:
    from laser_studio.studio.channel import Channel
    from laser_studio.studio.run import Run


@settings(StudioError)
class InquiryRequest:
    """A page asks something of its run at the step it shows. Inquiries that need more derive from this."""

    run: str = setting(help="Id of the run.")
    at: int = setting(low=0, high=MAX_STEP, unit="steps", help="The step the page shows.")


@dataclass(frozen=True)
class Context:
    """What an inquiry may use beside its run: the channel's catalogue and registry, and the run's own id."""

    channel: Channel
    run_id: str


@dataclass(frozen=True)
class Inquiry:
    """request: a class derived from `InquiryRequest`; work: answers it, under the run's lock, with the run's cursor at the step the
    page shows, and gives what is sent back as JSON. Raises `LaserStudioError` for what cannot be done, and has changed nothing then.
    """

    request: type[Any]
    work: Callable[[Context, Run, Any], dict[str, Any]]
