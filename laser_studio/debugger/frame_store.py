"""The recorded frames of a run: a sequence whose older part lies packed and put aside, so that ten thousand steps stay small."""

from __future__ import annotations

import pickle
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import overload

from laser_studio.debugger.aside import Aside, Spool
from laser_studio.debugger.frames import Frame

CHUNK = 64  # frames packed together: neighbours resemble one another, so they pack to a tenth
LIVE = 512  # newest frames kept as they are
UNPACKED = 8  # chunks kept open for whoever looks back


class FrameStore(Sequence[Frame]):
    """Frames by index. Only this process packs and unpacks them, so nothing foreign is ever unpickled."""

    def __init__(self, frames: Iterable[Frame] = ()) -> None:
        self._packed: list[Aside] = []  # chunk i holds the frames from CHUNK · i on
        self._spool = Spool()
        self._live: list[Frame] = []
        self._open: OrderedDict[int, list[Frame]] = OrderedDict()
        for frame in frames:
            self.append(frame)

    def __len__(self) -> int:
        return CHUNK * len(self._packed) + len(self._live)

    @overload
    def __getitem__(self, index: int) -> Frame: ...

    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...

    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        if isinstance(index, slice):
            return [self._at(one) for one in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return self._at(position)

    @property
    def packed_bytes(self) -> int:
        """Bytes of the packed part."""
        return sum(chunk.size for chunk in self._packed)

    def append(self, frame: Frame) -> None:
        """Add the next frame."""
        self._live.append(frame)
        if len(self._live) >= LIVE + CHUNK:
            packed = zlib.compress(pickle.dumps(self._live[:CHUNK], protocol=pickle.HIGHEST_PROTOCOL), 3)
            self._packed.append(self._spool.put(packed))
            del self._live[:CHUNK]

    def copy(self, length: int) -> FrameStore:
        """The frames before index `length` in a store of their own; the packed ones are shared."""
        twin = FrameStore()
        twin._packed, twin._live = list(self._packed), list(self._live)
        twin.cut(length)
        return twin

    def cut(self, length: int) -> None:
        """Forget all frames from index `length` on."""
        whole, rest = divmod(length, CHUNK)
        if whole < len(self._packed):
            self._live = self._chunk(whole)[:rest]
            del self._packed[whole:]
            self._open.clear()
        else:
            del self._live[length - CHUNK * len(self._packed) :]

    def _at(self, position: int) -> Frame:
        chunk, place = divmod(position, CHUNK)
        if chunk < len(self._packed):
            return self._chunk(chunk)[place]
        return self._live[position - CHUNK * len(self._packed)]

    def _chunk(self, number: int) -> list[Frame]:
        if number not in self._open:
            self._open[number] = pickle.loads(zlib.decompress(self._packed[number].read()))
            if len(self._open) > UNPACKED:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]
