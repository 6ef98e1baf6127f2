"""Sound checkpoints made unsound at random, by seed: bytes of the file, of the pickle behind valid checksums, of the header's text."""

from __future__ import annotations

import io
import random
import re
import zipfile

_NUMBERS = (0, 1, -1, 127, 128, 255, 256, 65_535, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 62, (1 << 63) - 1, 1 << 64, 10**30)
_OPCODES = b"(.012FIJKLMNPQRSTUVX]abcdeghijlopqrstu}" + bytes(range(0x80, 0x99))


def mutated(content: bytes, container: str, seed: int) -> bytes:
    """`content`, a file of this container ("zip", "legacy", "safetensors"), with one to eight faults; the same for the same seed."""
    draw = random.Random(f"{container} {seed}")
    if container == "zip" and draw.random() < 0.7:
        return _rezipped(content, draw)
    if container == "safetensors" and draw.random() < 0.7:
        return _reheaded(content, draw)
    return _spoiled(content, draw, draw.randint(1, 8), front=draw.random() < 0.6)


def _spoiled(content: bytes, draw: random.Random, faults: int, *, front: bool = False) -> bytes:
    """Bits flipped; runs of bytes overwritten, removed, doubled, moved, inserted; cut short. front: mostly among the first kilobytes."""
    data = bytearray(content)
    for _ in range(faults):
        if not data:
            break
        place = draw.randrange(min(len(data), 4_000)) if front else draw.randrange(len(data))
        length = min(draw.choice((1, 2, 4, 8, 30, 300)), len(data) - place)
        kind = draw.randrange(8)
        if kind == 0:
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[place : place + length] = draw.randbytes(length)
        elif kind == 2:
            del data[place : place + length]
        elif kind == 3:
            data[place:place] = data[place : place + length]
        elif kind == 4:
            data[place:place] = draw.randbytes(length)
        elif kind == 5:
            other = draw.randrange(len(data))
            data[place : place + length] = data[other : other + length]
        elif kind == 6:
            size = draw.choice((1, 2, 4, 8))
            data[place : place + size] = (draw.choice(_NUMBERS) & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        elif draw.random() < 0.3:
            del data[place:]
        else:
            data[place] = draw.choice(_OPCODES)
    return bytes(data)


def _rezipped(content: bytes, draw: random.Random) -> bytes:
    """One entry spoiled, mostly the pickle, in an archive whose checksums are right again: a fault that reaches the reader behind them."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    chosen = next(place for place, (name, _) in enumerate(entries) if name.endswith("data.pkl"))
    if draw.random() < 0.2:
        chosen = draw.randrange(len(entries))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for place, (name, body) in enumerate(entries):
            archive.writestr(name, _spoiled(body, draw, draw.randint(1, 4)) if place == chosen else body)
    return made.getvalue()


def _reheaded(content: bytes, draw: random.Random) -> bytes:
    """The header's text spoiled, its length told rightly."""
    length = int.from_bytes(content[:8], "little")
    text, body = content[8 : 8 + length], content[8 + length :]
    if draw.random() < 0.6:
        numbers = list(re.finditer(rb"\d+", text))
        for match in sorted(draw.sample(numbers, min(len(numbers), draw.randint(1, 3))), key=lambda match: -match.start()):
            value = draw.choice([*_NUMBERS, int(match[0]) + 1, int(match[0]) - 1, int(match[0]) * 2, 1.5])
            text = text[: match.start()] + str(value).encode() + text[match.end() :]
    else:
        text = _spoiled(text, draw, draw.randint(1, 4))
    return len(text).to_bytes(8, "little") + text + body
