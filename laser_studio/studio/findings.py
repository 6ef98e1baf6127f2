"""What the detectors found in a run, for its page: each reply tells whether there is more, an inquiry brings it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from laser_studio.debugger import Detectors, Finding
    from laser_studio.studio.live import LiveSession
    from laser_studio.studio.requests import PageRequest
    from laser_studio.studio.run import Run

MOST_SHOWN = 200  # the newest by step


class Findings:
    """The detectors of the session that a run shows, taken along with every reply."""

    def __init__(self) -> None:
        self._session: LiveSession | None = None
        self._detectors: Detectors | None = None

    def more(self, run: Run, request: PageRequest) -> dict[str, Any]:
        """How many findings there are, and a number that changes when they do."""
        found, version = self._follow(run)
        return {"findings": {"version": version, "count": len(found)}}

    def close(self) -> None:
        """Let go of what was found."""
        self._session = self._detectors = None

    def to_json(self, run: Run) -> dict[str, Any]:
        """The newest findings, the last step first."""
        found, version = self._follow(run)
        return {
            "version": version,
            "count": len(found),
            "findings": [
                {
                    "kind": one.kind,
                    "step": one.step,
                    "span": one.span,
                    "text": one.text,
                    "sites": one.sites,
                    "cells": one.cells,
                    "measured": {
                        name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in one.measured.items()
                    },
                }
                for one in reversed(found[-MOST_SHOWN:])
            ],
        }

    def _follow(self, run: Run) -> tuple[Sequence[Finding], int]:
        from laser_studio.debugger import Detectors, Session

        session = run.session
        assert isinstance(session, Session)  # only such runs get this part
        if self._detectors is None or session is not self._session:
            self._session, self._detectors = session, Detectors.of(session)
        return self._detectors.follow(session), self._detectors.version
