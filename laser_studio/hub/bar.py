"""A download in a terminal: what was found and its size first, then a bar."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from laser_studio.hub.found import HubCheckpoint
from laser_studio.hub.transfer import Progress


@contextmanager
def fetch_bar(found: HubCheckpoint) -> Iterator[Progress]:
    """Prints the pinned reference and the bytes to fetch to standard error, and draws a bar there if there are any."""
    from tqdm import tqdm

    print(found, file=sys.stderr)
    size = sum(file.size for file in found.files)
    with tqdm(total=size, unit="B", unit_scale=True, dynamic_ncols=True, disable=not found.missing_bytes, file=sys.stderr) as bar:

        def show(done: int, total: int) -> None:
            bar.update(done - bar.n)

        yield show
