"""What pages may open: shipped models and those named at the start, nothing else, and the puzzles that fit them."""

from __future__ import annotations

from pathlib import Path

import pytest

from laser_studio.errors import LaserStudioError
from laser_studio.studio.catalogue import Catalogue, find_models, guess_task
from laser_studio.studio.registry import StudioError


@pytest.mark.parametrize(
    ("seq_len", "vocab_size", "task"),
    [
        (81, 11, ("sudoku", 9)),
        (36, 8, ("sudoku", 6)),
        (16, 6, ("sudoku", 4)),
        (900, 6, ("maze", 30)),
        (81, 6, ("maze", 9)),
        (None, 11, ("sudoku", 9)),
        (900, 12, ("arc", 30)),
        (None, 12, ("arc", 30)),
        (80, 11, None),
        (None, 50_000, None),
    ],
)
def test_the_kind_of_puzzle_follows_from_the_numbers_of_tokens(seq_len: int | None, vocab_size: int, task: tuple[str, int] | None) -> None:
    assert guess_task(seq_len, vocab_size) == task


def test_models_named_at_the_start_are_offered_under_names_of_their_own(small_checkpoint: Path) -> None:
    entries = [entry for entry in find_models([small_checkpoint, small_checkpoint]) if entry.path == small_checkpoint]
    assert [entry.name for entry in entries] == ["small", "small (2)"]
    assert entries[0].task == ("sudoku", 4)


def test_a_path_that_is_not_there_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="no such file"):
        find_models([tmp_path / "missing\x1b[31m"])


def test_without_any_model_the_way_out_is_named() -> None:
    with pytest.raises(StudioError, match="--checkpoint"):
        Catalogue([])


@pytest.mark.parametrize("name", ["", "..", "../small", "/etc/passwd", "small/../small", "SMALL"])
def test_only_offered_names_are_loaded(catalogue: Catalogue, name: str) -> None:
    with pytest.raises(StudioError, match="no model"):
        catalogue.load(name)


def test_a_model_is_loaded_once(catalogue: Catalogue) -> None:
    assert catalogue.load("small") is catalogue.load("small")


@pytest.mark.parametrize(
    "puzzle", ["", "easy-9999", "generated:hard:-1", "generated:hard:1234567", "generated:brutal:1", "../x", "generated:hard:1\n"]
)
def test_only_known_puzzles_are_opened(catalogue: Catalogue, puzzle: str) -> None:
    with pytest.raises(LaserStudioError):
        catalogue.puzzle("small", puzzle)


@pytest.mark.parametrize("difficulty", ["easy", "medium", "hard"])
def test_generated_puzzles_are_held_out_and_the_same_each_time(catalogue: Catalogue, difficulty: str) -> None:
    puzzle = catalogue.puzzle("small", f"generated:{difficulty}:42")
    assert puzzle == catalogue.puzzle("small", f"generated:{difficulty}:42")
    assert puzzle.solution is not None and puzzle.difficulty == difficulty


def test_a_config_that_lies_about_itself_does_no_harm(tmp_path: Path) -> None:
    for text in ("", "[]", '{"details": 5}', '{"details": {"task": 7, "size": true, "accuracy": {"exact": "all"}}}', "[" * 10_000):
        folder = tmp_path / str(abs(hash(text)))
        folder.mkdir()
        (folder / "config.json").write_text(text)
        entry = next(entry for entry in find_models([folder]) if entry.path == folder)
        assert entry.task is None and entry.label == entry.name


def test_a_model_of_arc_tasks_is_offered_with_the_size_of_its_board(tmp_path: Path) -> None:
    folder = tmp_path / "arc-5"
    folder.mkdir()
    (folder / "config.json").write_text('{"details": {"task": "arc-5", "domain": "arc", "size": [5, 5]}}')
    found = next(entry for entry in find_models([folder]) if entry.path == folder)
    assert found.task == ("arc", 5)
    assert len(Catalogue([found]).puzzles(found.name)) == 31
