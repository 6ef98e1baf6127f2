"""The history of a run: steps as they are, then lowest and highest of blocks, in bounded memory, sent and saved without loss."""

from __future__ import annotations

import json
import math
import random

import pytest

from laser_studio.errors import TrainingError
from laser_studio.lab.history import MOST_NOTES, History


def recorded(steps: int, blocks: int = 8) -> tuple[History, list[float | None]]:
    rng = random.Random(steps)
    history, values = History(blocks), list[float | None]()
    for step in range(1, steps + 1):
        value = rng.gauss(0, 1) if step % 5 else None
        values.append(value)
        figures = {"loss": value, "late": float(step) if step > 6 else math.nan}
        history.add(figures, ["reset:a"] * (step % 3 == 0), {"rank": step} if step % 4 == 0 else None)
    return history, values


@pytest.mark.parametrize("steps", [1, 7, 8, 9, 16, 17, 100, 1_000])
def test_every_block_holds_the_lowest_and_highest_of_its_steps_and_counts_are_exact(steps: int) -> None:
    history, values = recorded(steps)
    assert history.steps == steps and history.blocks <= 8 and history.size == max(1, 2 ** math.ceil(math.log2(steps / 8)))
    for block in range(history.blocks):
        inside = [value for value in values[block * history.size : (block + 1) * history.size] if value is not None]
        expected = (min(inside), max(inside)) if inside else (None, None)
        column = history.low["loss"], history.high["loss"]
        assert (column[0][block], column[1][block]) == expected if block < len(column[0]) else not inside
    assert sum(history.counts.get("reset:a", [])) == steps // 3
    assert history.notes == [(step, {"rank": step}) for step in range(4, steps + 1, 4)]
    assert history.newest("loss") == next((v for v in reversed(history.low["loss"]) if v is not None), None)
    assert history.newest("nothing") is None


@pytest.mark.parametrize("steps", [3, 8, 21])
def test_it_is_read_back_whole_and_goes_on_alike(steps: int) -> None:
    history, _ = recorded(steps)
    again = History.from_json(json.loads(json.dumps(history.to_json())))
    assert vars(again) == vars(history)
    for one in (history, again):
        one.add({"loss": 2.0, "new": 1.0}, ["grow:b"])
    assert vars(again) == vars(history)


def test_who_asks_again_and_again_has_it_all() -> None:
    """A reader that only knows what it was sent ends with the same columns, whenever it asks."""
    rng = random.Random(1)
    history = History(16)
    size, held = 1, dict[str, list[float | None]]()
    for step in range(1, 301):
        history.add({"loss": rng.random(), "rare": rng.random() if step % 7 == 0 else None})
        if rng.random() < 0.3:
            news = history.since(max((len(column) for column in held.values()), default=0) - 1, size)
            if news["start"] == 0:
                held = {}
            size = news["size"]
            for name, column in (news["high"] or news["low"]).items():
                known = held.setdefault(name, [])[: news["start"]]
                held[name] = known + [None] * (news["start"] - len(known)) + column
    news = history.since(len(held["loss"]) - 1, size)
    for name, column in (news["high"] or news["low"]).items():
        held[name] = held[name][: news["start"]] + column
    assert held == history.high


def test_notes_are_bounded_and_keep_the_first_and_the_newest() -> None:
    history = History()
    for step in range(1, MOST_NOTES + 500):
        history.add({}, note={"step": step})
    assert len(history.notes) == MOST_NOTES and history.notes[0][0] == 1 and history.notes[-1][0] == MOST_NOTES + 499


@pytest.mark.parametrize("broken", [None, {}, {"format": "other"}, {"size": 0}, {"steps": 3}, {"low": {"loss": ["x"]}}, {"limit": 3}])
def test_what_is_no_history_is_refused(broken: dict[str, object] | None) -> None:
    data = None if broken is None else {**recorded(20)[0].to_json(), **broken} if broken else {}
    with pytest.raises(TrainingError, match=r"history"):
        History.from_json(data)
