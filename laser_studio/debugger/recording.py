"""The file a watched run is written to while it goes on: JSON lines, appended step by step, read by another process meanwhile.

The first line says what was watched (`Header`); each later one is a frame with its spectra, a noted value, a bookmark, a watch, or the
end. Recordings of before bookmarks and watches are read as ever. Numbers
are written so that they are read back bit for bit. A reader trusts nothing: types, sizes and ranges are checked, and whatever
is wrong becomes one `RecordingError` that names the line and the cause. A last line without its newline is still being written,
or was cut off by a crash; it is left alone.
"""

from __future__ import annotations

import json
import math
import os
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, Union, get_args, get_origin, get_type_hints

from laser_studio.debugger.bookmarks import Bookmark
from laser_studio.debugger.expressions import Expression, Scope
from laser_studio.debugger.frames import Frame
from laser_studio.debugger.spectra import WIDEST, Shares
from laser_studio.debugger.watches import Watch
from laser_studio.errors import BookmarkError, ExpressionError, PolicyError, RecordingError, WatchError
from laser_studio.laser import LaserPolicy
from laser_studio.untrusted.faults import shown

FORMAT, VERSION = "laser-studio-recording", 1
MAX_FILE = 1 << 30  # bytes
MAX_LINE = 8 << 20  # bytes
MAX_SITES = 4_096
MAX_ITEMS = 65_536  # of one list
MAX_FRAMES = 1_000_000
MAX_CURVES = 64
MAX_NOTES = 2_000_000
MAX_TEXT = 2_000  # characters
MAX_NAME = 300


@dataclass(frozen=True)
class Header:
    """What was watched: class of the module, width of each site, tracker settings, forwards per supervision window (None: by hand).

    run: a random name that no other run has; parameters: their number; device and dtype: of the first one, "" where the module
    has none.
    """

    run: str
    module: str
    sites: Mapping[str, int]
    policy: LaserPolicy
    every: int | None
    parameters: int
    device: str
    dtype: str


@dataclass(frozen=True, slots=True)
class FrameLine:
    """A frame, and the energy shares of each site's directions at that step."""

    frame: Frame
    spectra: Mapping[str, Shares]


@dataclass(frozen=True, slots=True)
class NoteLine:
    """A value noted at a step, such as the loss; None where it was not finite."""

    note: str
    step: int
    value: float | None


@dataclass(frozen=True, slots=True)
class BookmarkLine:
    """A place in the run to come back to."""

    bookmark: Bookmark


@dataclass(frozen=True, slots=True)
class WatchLine:
    """An expression to follow over the run's frames."""

    watch: Watch


@dataclass(frozen=True, slots=True)
class EndLine:
    """The watched run has ended, and why."""

    end: str


class RecordingWriter:
    """Appends lines to a new file, each whole and at once with the system, so that a reader sees it and a crash loses nothing.

    An older recording at `path` is replaced; any other file there is left alone. Raises `RecordingError` where the file cannot
    be made. Later failures never raise: they end the recording (`problem` says why), because nothing may stop what is watched.
    """

    def __init__(self, path: str | os.PathLike[str], header: Header, *, max_bytes: int) -> None:
        self.path, self.max_bytes, self.problem = Path(path), max_bytes, ""
        self.written = 0
        self._file: BinaryIO | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and not is_recording(self.path):
                raise RecordingError(f"{self.path}: there is another file of this name, which is no recording: choose another path")
            # A new file, not the old one emptied: whoever reads the old one must see that it was replaced.
            self.path.unlink(missing_ok=True)
            self._file = open(self.path, "xb", buffering=0)  # noqa: SIM115 - closed by `close`
        except OSError as failure:
            raise RecordingError(f"{self.path}: cannot be written: {failure.strerror or failure}") from None
        policy = {item.name: getattr(header.policy, item.name) for item in fields(header.policy)}
        described = {item.name: getattr(header, item.name) for item in fields(header)} | {"policy": policy}
        self._write({"format": FORMAT, "version": VERSION, **described})

    @property
    def open(self) -> bool:
        """Whether lines are still taken."""
        return self._file is not None

    def frame(self, frame: Frame, spectra: Mapping[str, Shares]) -> None:
        """The next frame."""
        self._write({"frame": frame, "spectra": spectra})

    def note(self, name: str, step: int, value: float | None) -> None:
        """A value noted at a step that is already there."""
        self._write({"note": name, "step": step, "value": value})

    def bookmark(self, bookmark: Bookmark) -> None:
        """A bookmark at a step that is already there."""
        self._write({"bookmark": bookmark})

    def watch(self, watch: Watch) -> None:
        """A watch."""
        self._write({"watch": watch})

    def close(self, cause: str) -> None:
        """Write the end and close the file; harmless where it is closed."""
        if self._file is not None:
            self._write({"end": cause}, last=True)
        self.abandon()

    def abandon(self) -> None:
        """Close the file without an end."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, record: Mapping[str, Any], *, last: bool = False) -> None:
        if self._file is None:
            return
        line = json.dumps(_plain(record), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        if not last and self.written + len(line) > self.max_bytes:
            self.problem = f"{self.path} has reached {self.max_bytes:,} bytes (max_bytes)"
            return
        try:
            if self._file.write(line) != len(line):
                raise OSError("not all of a line could be written")
            self.written += len(line)
        except OSError as failure:
            self.problem = f"{self.path} cannot be written any more: {failure.strerror or failure}"
            self.abandon()


def is_recording(path: Path) -> bool:
    """Whether a file starts as a recording does."""
    return path.is_file() and _head(path).startswith(f'{{"format":"{FORMAT}"'.encode())


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _plain(value: Any) -> Any:
    """Plain JSON values, floats as they are."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}


# Reading


class LineError(ValueError):
    """What is wrong with a line; `where` is the way to the value, from the outside in."""

    def __init__(self, cause: str, where: tuple[str, ...] = ()) -> None:
        super().__init__(cause)
        self.cause, self.where = cause, where

    def __str__(self) -> str:
        # names in a file are a stranger's: no line breaks or escape codes in a message
        return f"{shown('.'.join(self.where), 200)}: {self.cause}" if self.where else self.cause


def parse(line: bytes) -> dict[str, Any]:
    """One line as a JSON object. Raises `LineError`."""
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
        # half of a pair that JSON may write as \ud800 is no text: nothing could be sent on that holds it
        if b"\\ud" in line.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise LineError("is not UTF-8 text") from None
    except RecursionError:
        raise LineError("nests too deeply") from None
    except json.JSONDecodeError as failure:
        raise LineError(f"is not JSON ({failure.msg} at character {failure.pos})") from None
    except ValueError as failure:  # a constant refused, or a number of thousands of digits
        raise LineError(f"is not JSON ({str(failure)[:80]})") from None
    if not isinstance(value, dict):
        raise LineError(f"holds {_kind(value)} where an object is due")
    return value


def read_header(line: bytes) -> Header:
    """The first line. Raises `LineError`."""
    record = parse(line)
    if record.pop("format", None) != FORMAT:
        raise LineError("does not start a recording of LASER Studio")
    version = record.pop("version", None)
    if version != VERSION:
        raise LineError(f"is of version {str(version)[:20]}, this LASER Studio reads version {VERSION}")
    policy = record.pop("policy", None)
    if not isinstance(policy, dict) or len(policy) > 64 or not all(map(str.isidentifier, policy)):
        raise LineError("is no set of tracker settings", ("policy",))
    if isinstance(overrides := policy.get("sites"), dict) and len(overrides) > MAX_SITES:
        raise LineError(f"more than {MAX_SITES} overrides", ("policy", "sites"))
    try:
        record["policy"] = LaserPolicy(**policy)
    except (PolicyError, TypeError) as problem:
        raise LineError(str(problem)[:300], ("policy",)) from None
    header: Header = _object(Header, {"policy": lambda value: value})(record)
    if not header.sites:
        raise LineError("names no site", ("sites",))
    if wrong := [name for name, dim in header.sites.items() if not 1 <= dim <= 1 << 24]:
        raise LineError("a width lies between 1 and 16,777,216", ("sites", wrong[0]))
    if header.every is not None and header.every < 1:
        raise LineError("is below 1", ("every",))
    return header


Line = FrameLine | NoteLine | BookmarkLine | WatchLine | EndLine


def read_line(line: bytes, header: Header, length: int) -> Line:
    """A later line, of a recording that holds `length` frames so far. Raises `LineError`."""
    record = parse(line)
    if "frame" in record:
        entry: FrameLine = _decoder(FrameLine)(record)
        _check_frame(entry, header, length)
        return entry
    if "note" in record:
        note: NoteLine = _decoder(NoteLine)(record)
        if not (0 < len(note.note) <= MAX_NAME and 0 <= note.step < length):
            raise LineError(f"is noted at step {note.step}, of {length} recorded" if note.note else "has no name", ("note",))
        return note
    if "bookmark" in record:
        marked: BookmarkLine = _decoder(BookmarkLine)(record)
        if not (marked.bookmark.name and marked.bookmark.step < length):
            cause = f"stands at step {marked.bookmark.step}, of {length} recorded" if marked.bookmark.name else "has no name"
            raise LineError(cause, ("bookmark",))
        return marked
    if "watch" in record:
        watched: WatchLine = _decoder(WatchLine)(record)
        _check_watch(watched.watch, header)
        return watched
    if "end" in record:
        end: EndLine = _decoder(EndLine)(record)
        return end
    raise LineError("holds no frame, note, bookmark, watch or end")


def _check_watch(watch: Watch, header: Header) -> None:
    if not watch.name:
        raise LineError("has no name", ("watch",))
    try:
        Expression(watch.expression).bind(Scope(tuple(header.sites)))
    except ExpressionError as problem:
        raise LineError(str(problem).partition("\n")[0][:300], ("watch", "expression")) from None


def _check_frame(entry: FrameLine, header: Header, length: int) -> None:
    frame = entry.frame
    if frame.index != length:
        raise LineError(f"step {length} is due here, not {frame.index}", ("frame", "index"))
    if length >= MAX_FRAMES:
        raise LineError(f"more than {MAX_FRAMES:,} steps", ("frame", "index"))
    for name, site in frame.sites.items():
        where = ("frame", "sites", name)
        if header.sites.get(name) != site.dim:
            raise LineError("no site of this name and width is in the first line", where)
        if not (0 <= site.rank <= site.dim and 0 <= site.fidelity <= 1 and 0 <= site.retained <= 1):
            raise LineError("rank or fidelity out of range", where)
    for name, shares in entry.spectra.items():
        if name not in header.sites or len(shares) > WIDEST or not all(0 <= share <= 1.001 for share in shares):
            raise LineError(f"is no spectrum of at most {WIDEST} shares", ("spectra", name))


# A decoder of a type checks a JSON value and gives the value of that type, or raises `LineError`. It is built from the type hints
# of the frame itself, so what a frame holds is written down once.

Decoder = Callable[[Any], Any]


@cache
def _decoder(kind: Any) -> Decoder:
    if (known := _SCALARS.get(kind)) is not None:
        return known
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return lambda value: value if type(value) in (str, int) and value in parts else _wrong(value, f"one of {_listed(parts)}")
    if origin in (Union, types.UnionType):
        return _either([_decoder(part) for part in parts])
    if origin is tuple:
        return _items(_decoder(parts[0])) if parts[1:] == (Ellipsis,) else _fixed([_decoder(part) for part in parts])
    if origin is not None and issubclass(origin, Mapping):
        return _named(_decoder(parts[1]))
    if is_dataclass(kind):
        return _object(kind)
    raise TypeError(f"a recording cannot hold {kind}")  # a field of a new type: this is ours to mend


def _object(kind: Any, given: Mapping[str, Decoder] | None = None) -> Decoder:
    hints = get_type_hints(kind)
    decoders = {item.name: (given or {}).get(item.name) or _decoder(hints[item.name]) for item in fields(kind)}
    names = frozenset(decoders)

    def decode(value: Any) -> Any:
        if type(value) is not dict:
            _wrong(value, "an object")
        if value.keys() != names:
            missing, foreign = sorted(names - value.keys()), sorted(value.keys() - names)
            raise LineError(f"{missing[0]} is missing" if missing else f"{foreign[0][:80]!r} is not known here")
        values = {}
        for name, decode_one in decoders.items():
            try:
                values[name] = decode_one(value[name])
            except LineError as problem:
                raise LineError(problem.cause, (name, *problem.where)) from None
        try:
            return kind(**values)
        except (BookmarkError, WatchError, ExpressionError) as problem:
            raise LineError(str(problem).partition("\n")[0][:300]) from None

    return decode


def _named(decode_one: Decoder) -> Decoder:
    def decode(value: Any) -> Any:
        if type(value) is not dict or len(value) > MAX_SITES:
            _wrong(value, f"an object of at most {MAX_SITES} entries")
        decoded = {}
        for name, item in value.items():
            if len(name) > MAX_NAME:
                raise LineError(f"a name of {len(name)} characters")
            try:
                decoded[name] = decode_one(item)
            except LineError as problem:
                raise LineError(problem.cause, (name, *problem.where)) from None
        return decoded

    return decode


def _items(decode_one: Decoder) -> Decoder:
    def decode(value: Any) -> Any:
        if type(value) is not list or len(value) > MAX_ITEMS:
            _wrong(value, f"a list of at most {MAX_ITEMS:,}")
        return tuple(map(decode_one, value))

    return decode


def _fixed(decoders: list[Decoder]) -> Decoder:
    def decode(value: Any) -> Any:
        if type(value) is not list or len(value) != len(decoders):
            _wrong(value, f"a list of {len(decoders)}")
        return tuple(decode_one(item) for decode_one, item in zip(decoders, value, strict=True))

    return decode


def _either(decoders: list[Decoder]) -> Decoder:
    def decode(value: Any) -> Any:
        problems = []
        for decode_one in decoders:
            try:
                return decode_one(value)
            except LineError as problem:
                problems.append(problem)
        raise max(problems, key=lambda problem: len(problem.where))  # the one that came furthest

    return decode


def _whole(value: Any) -> int:
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        _wrong(value, "a whole number")
    return int(value)


def _real(value: Any) -> float:
    if type(value) not in (float, int):
        _wrong(value, "a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        _wrong(value, "a finite number")
    return number


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > MAX_TEXT:
        _wrong(value, f"a text of at most {MAX_TEXT:,} characters")
    return str(value)


def _flag(value: Any) -> bool:
    return value if type(value) is bool else _wrong(value, "true or false")


def _nothing(value: Any) -> None:
    if value is not None:
        _wrong(value, "null")


_SCALARS: dict[Any, Decoder] = {int: _whole, float: _real, str: _text, bool: _flag, type(None): _nothing}


def _wrong(value: Any, due: str) -> Any:
    raise LineError(f"holds {_kind(value)} where {due} is due")


def _kind(value: Any) -> str:
    if isinstance(value, bool | None):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int | float):
        return f"{value!r:.24}" if not isinstance(value, int) or abs(value) < 1 << 64 else "a number of many digits"
    return f"a list of {len(value)}" if isinstance(value, list) else "text" if isinstance(value, str) else "an object"


def _listed(parts: tuple[Any, ...]) -> str:
    return ", ".join(map(str, parts))


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")
