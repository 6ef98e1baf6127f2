"""The shipped sets: sound, made by the code that is here, and never trained on; and files of the same form."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from laser_studio.assets import asset_path
from laser_studio.errors import PuzzleError
from laser_studio.lab.augment import apply
from laser_studio.lab.tasks import Task, get_task
from laser_studio.puzzles import DIFFICULTIES, bundled_sets, get_domain, load_puzzles, make_bundled_set, maze_rules, sudoku_rules
from laser_studio.puzzles.bundled import PLANS
from laser_studio.puzzles.puzzle import Cells

each_set = pytest.mark.parametrize("name", PLANS)


def entries(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(asset_path("puzzles", f"{name}.json").read_text(encoding="utf-8"))
    return data


def test_all_planned_sets_are_shipped() -> None:
    assert bundled_sets() == tuple(PLANS)
    assert sorted(path.stem for path in asset_path("puzzles").glob("*.json")) == sorted(PLANS)


@each_set
def test_sets_hold_what_they_say(name: str) -> None:
    plan, data, puzzles = PLANS[name], entries(name), load_puzzles(name)
    assert (data["domain"], data["size"], data["split"]) == (plan.domain, plan.size, "held-out")
    assert data["made_by"] == f"python -m laser_studio puzzles make {name}"
    assert Counter(puzzle.difficulty for puzzle in puzzles) == dict.fromkeys(DIFFICULTIES, plan.each)
    assert [puzzle.name for puzzle in puzzles] == [f"{d}-{n:04d}" for d in DIFFICULTIES for n in range(1, plan.each + 1)]
    assert len({puzzle.cells for puzzle in puzzles}) == len(puzzles)
    domain = get_domain(plan.domain)
    for puzzle, entry in zip(puzzles, data["puzzles"], strict=True):
        assert puzzle.domain == plan.domain and puzzle.shape == (plan.size, plan.size)
        assert domain.validate(puzzle) == []
        assert domain.solutions(puzzle, 2) == [puzzle.solution], "exactly one solution"
        assert domain.measures(puzzle).items() <= entry.items()
    assert load_puzzles(name) == puzzles and load_puzzles(name) is not puzzles


@each_set
def test_sets_are_held_out(name: str) -> None:
    for puzzle in load_puzzles(name):
        assert puzzle.solution is not None
        if puzzle.domain == "sudoku":
            assert sudoku_rules.split_of(puzzle.cells, puzzle.solution) == "held-out"
        else:
            assert maze_rules.split_of(puzzle.cells, *puzzle.shape) == "held-out"


@each_set
def test_the_same_seeds_give_the_same_files(name: str, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    few = json.loads(
        make_bundled_set(name, folder=tmp_path, each=2, progress=lambda done, all_: steps.append((done, all_))).read_text(encoding="utf-8")
    )
    assert few["puzzles"] == [entry for entry in entries(name)["puzzles"] if entry["name"].endswith(("-0001", "-0002"))]
    assert few["made_by"].endswith(f"make {name} --each 2")
    assert steps == [(n, 6) for n in range(1, 7)]
    plan = PLANS[name]
    middle = entries(name)["puzzles"][plan.each + plan.each // 2]
    puzzle = get_domain(plan.domain).generate(middle["seed"], size=plan.size, difficulty=middle["difficulty"])
    assert get_domain(plan.domain).format(puzzle) == middle["text"]


@pytest.mark.parametrize("name", ["sudoku-4x4", "sudoku-6x6", "sudoku-9x9", "maze-9x9"])
def test_bundled_sets_share_nothing_with_training_whatever_the_symmetry(name: str) -> None:
    """Held-out puzzles against training ones and many random symmetric images of them: solutions, or at 4×4 whole puzzles."""
    task = get_task(name)
    data = task.puzzles(60 if name == "sudoku-9x9" else 200, 0, "train")
    generator, trained = torch.Generator().manual_seed(0), set()
    for _ in range(20):
        assert data.symmetry is not None
        cells, names = data.symmetry.draw(len(data), generator)
        inputs, labels = apply(data.inputs, cells, names) - 1, apply(data.labels, cells, names) - 1
        for puzzle, solution in zip(inputs.tolist(), labels.tolist(), strict=True):
            trained.add(trace(task, tuple(puzzle), tuple(solution)))
    shipped = {trace(task, puzzle.cells, puzzle.solution) for puzzle in load_puzzles(name) if puzzle.solution}
    assert len(trained) > 100 and len(shipped) > 30 and not trained & shipped


def trace(task: Task, cells: Cells, solution: Cells) -> object:
    """What may not stand on both sides: the walls of a maze; a solution, digits renamed; a 4×4 puzzle as a whole."""
    if task.domain == "maze":
        return tuple(value == maze_rules.WALL for value in cells)
    named = sudoku_rules.relabelled(solution)
    return (named, tuple(value > 0 for value in cells)) if task.size == 4 else named


def written(tmp_path: Path, text: str | bytes, name: str = "set.json") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_files_of_text_and_json(tmp_path: Path) -> None:
    lines = "\ufeff1234341221434321\r\n\r\n.234341221434321\r\n"
    first, second = load_puzzles(written(tmp_path, lines, "many.txt"))
    assert (first.name, second.name, second.cells[:2]) == ("puzzle-0001", "puzzle-0002", (0, 2))
    (one,) = load_puzzles(str(written(tmp_path, "1234\n3412\n2143\n432.", "one.txt")))
    assert one.shape == (4, 4) and one.cells[-1] == 0
    (maze,) = load_puzzles(written(tmp_path, "S #\n# G\n", "maze.txt"))
    assert maze.domain == "maze" and maze.shape == (2, 3)
    (bare,) = load_puzzles(written(tmp_path, json.dumps({"domain": "maze", "puzzles": [{"text": "S G", "solution": "SoG"}]})))
    assert (bare.name, bare.difficulty, bare.solution) == ("puzzle-0001", "", (2, 4, 3))


TEXT = "1234341221434321"
BROKEN: dict[str, tuple[str | bytes | dict[str, Any], str]] = {
    "empty": ("", "file 'set.json': the puzzle is empty: type or paste its cells"),
    "not JSON": ("{", "file 'set.json': not valid JSON: check brackets, quotes and commas"),
    "deep": ('{"a":' * 50_000, "file 'set.json': not valid JSON: check brackets, quotes and commas"),
    "binary": (b"\x80\x02", "file 'set.json' is no UTF-8 text: save it as plain text or JSON"),
    "huge": (b"1" * 5_000_001, "file 'set.json' is larger than 5,000,000 bytes: split it"),
    "no domain": ({"puzzles": []}, "unknown kind of puzzle 'None'"),
    "no puzzles": ({"domain": "sudoku", "puzzles": {}}, 'a set of puzzles has a list "puzzles"'),
    "no text": ({"domain": "sudoku", "puzzles": [{"text": 5}]}, 'puzzle 1: it needs a "text" with its cells'),
    "too many": ({"domain": "sudoku", "puzzles": [{}] * 10_001}, "10,001 puzzles are too many for one file"),
    "name": ({"domain": "sudoku", "puzzles": [{"text": TEXT, "name": "\x1b"}]}, '"name" is a text of 1 to 80'),
    "difficulty": ({"domain": "sudoku", "puzzles": [{"text": TEXT, "difficulty": []}]}, '"difficulty" is one of easy'),
    "twice": ({"domain": "sudoku", "puzzles": [{"text": TEXT, "name": "a"}] * 2}, "puzzle 2: a second puzzle of the name 'a'"),
    "solution": ({"domain": "sudoku", "puzzles": [{"text": TEXT, "solution": "1" * 16}]}, "puzzle 1: the solution does not solve it"),
    "its shape": ({"domain": "sudoku", "puzzles": [{"text": TEXT, "solution": "1" * 36}]}, "puzzle 1: the solution does not solve it"),
    "its kind": ({"domain": "sudoku", "puzzles": [{"text": TEXT, "solution": [1]}]}, 'puzzle 1: "solution" is a text like "text"'),
    "third line": (f"{TEXT}\n{TEXT}\n1234", "file 'set.json': 4 cells: a Sudoku has 16, 36, 81 or 256"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_get_one_plain_message(case: str, tmp_path: Path) -> None:
    content, message = BROKEN[case]
    text = json.dumps(content) if isinstance(content, dict) else content
    with pytest.raises(PuzzleError) as caught:
        load_puzzles(written(tmp_path, text))
    assert message in str(caught.value) and str(caught.value).isprintable() and str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("path", ["sudoku-7x7", "../../etc/nothing", "a\0b", ".", "x" * 5_000])
def test_what_is_no_file_names_the_sets_there_are(path: str) -> None:
    with pytest.raises(PuzzleError, match="cannot be read: give a puzzle file, or one of the sets sudoku-6x6, sudoku-4x4"):
        load_puzzles(path)


def test_sets_without_a_plan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PuzzleError, match="no plan for a set 'chess': choose one of sudoku-6x6"):
        make_bundled_set("chess", folder=tmp_path)
    with pytest.raises(PuzzleError, match=r"puzzles per difficulty: 1 to 3,333 \(got 0\)"):
        make_bundled_set("sudoku-4x4", folder=tmp_path, each=0)
    assert list(tmp_path.iterdir()) == []
