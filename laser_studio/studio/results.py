"""Which puzzles a model was seen to solve or to fail: from batches run here, and from its evaluation report."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

KEPT = 64  # pairs of model and source whose results are kept, those used last


class Results:
    """Outcomes by model, source and puzzle id, in bounded memory."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], dict[str, bool]] = OrderedDict()
        self._guard = threading.Lock()

    def tell(self, model: str, source: str, puzzle_id: str, solved: bool) -> None:
        """A puzzle was run to the end."""
        with self._guard:
            self._kept.setdefault((model, source), {})[puzzle_id] = solved
            self._kept.move_to_end((model, source))
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)

    def known(self, model: str, source: str) -> Mapping[str, bool]:
        """Whether the model solves it, by puzzle id, as far as that is known."""
        with self._guard:
            return dict(self._kept.get((model, source), {}))
