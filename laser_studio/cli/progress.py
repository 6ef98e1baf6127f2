"""The progress bar of a training run: steps with loss and accuracies, then the last evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from laser_studio.cli.common import stop_on_interrupt

if TYPE_CHECKING:
    from laser_studio.lab.runs import Observer
    from laser_studio.lab.train import Progress


@contextmanager
def training_bar(steps: int, *, quiet: bool = False) -> Iterator[tuple[Any, Observer]]:
    """The bar over so many optimiser steps, and what a run is to tell it; Ctrl-C asks the run to stop. quiet: no bar, no texts."""
    from tqdm import tqdm

    from laser_studio.lab.runs import Observer

    with stop_on_interrupt() as stop, tqdm(total=steps, unit="step", mininterval=1.0, dynamic_ncols=True, disable=quiet) as bar:

        def on_step(progress: Progress) -> None:
            if bar.n == 0:  # a resumed run: what was done before does not count for the speed
                bar.initial = bar.n = progress.step - 1
            held = f"{progress.accuracy.exact[-1]:.1%}" if progress.accuracy else "–"
            bar.set_postfix_str(f"loss {progress.loss:.3f}, exact {progress.exact:.1%}, validation {held}", refresh=False)
            bar.update(progress.step - bar.n)

        def on_evaluated(done: int, total: int) -> None:
            if bar.unit == "step":
                bar.unit = "puzzle"
                bar.set_description("final evaluation", refresh=False)
                bar.set_postfix_str("", refresh=False)
                bar.reset(total)
            bar.update(done)

        say = (lambda _: None) if quiet else bar.write
        yield bar, Observer(on_text=say, on_step=on_step, on_evaluated=on_evaluated, should_stop=lambda: stop[0])
