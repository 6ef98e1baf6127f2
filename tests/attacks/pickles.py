"""Pickles that run code, burn time or memory, or say what no trainer writes."""

from __future__ import annotations

import argparse
import collections
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from laser_studio.lab.plain_trm import plain_weights
from tests.trm.helpers import small_model

Maker = Callable[[Path, Path], None]  # (file to write, folder that a payload would make)

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def archive(file: Path, program: bytes, **entries: bytes) -> None:
    """A zip as torch.save makes it around a pickle written by hand."""
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("archive/data.pkl", program)
        made.writestr("archive/byteorder", b"little")
        made.writestr("archive/version", b"3\n")
        for name, content in entries.items():
            made.writestr(f"archive/data/{name}", content)


def weights() -> dict[str, Any]:
    """Of a whole model, which opens where nothing is wrong with it."""
    return {f"inner.{name}": tensor.detach().clone() for name, tensor in plain_weights(small_model()).items()}


def payload_zip(file: Path, proof: Path) -> None:
    torch.save(Payload(proof), file)


def payload_among_weights(file: Path, proof: Path) -> None:
    torch.save(weights() | {"extra": Payload(proof)}, file)


def payload_as_key_of_nothing(file: Path, proof: Path) -> None:
    """Called and thrown away: nothing of it is left in the object."""
    archive(file, b"\x80\x02cposix\nmkdir\n" + _text(str(proof)) + b"\x85R0}.")


def payload_legacy(file: Path, proof: Path) -> None:
    torch.save(Payload(proof), file, _use_new_zipfile_serialization=False)


def payload_legacy_header(file: Path, proof: Path) -> None:
    _legacy(file, MAGIC, PROTOCOL, Payload(proof), {}, [])


def payload_legacy_keys(file: Path, proof: Path) -> None:
    _legacy(file, MAGIC, PROTOCOL, SYSTEM, {}, Payload(proof))


def payload_raw(file: Path, proof: Path) -> None:
    file.write_bytes(pickle.dumps(Payload(proof)))


def payload_text_pickle(file: Path, proof: Path) -> None:
    """Protocol 0: no first byte tells that it is a pickle."""
    file.write_bytes(pickle.dumps(Payload(proof), protocol=0))


def payload_in_protocol_zero(file: Path, proof: Path) -> None:
    archive(file, pickle.dumps({"a": Payload(proof)}, protocol=0))


def payload_by_attribute(file: Path, proof: Path) -> None:
    archive(file, b"\x80\x04cbuiltins\ngetattr\ncos\nmkdir\n" + _text("__call__") + b"\x86R" + _text(str(proof)) + b"\x85R.")


def payload_by_dotted_name(file: Path, proof: Path) -> None:
    archive(file, b"\x80\x04" + _short("torch") + _short("os.mkdir") + b"\x93" + _text(str(proof)) + b"\x85R.")


def payload_through_torch_load(file: Path, proof: Path) -> None:
    """torch's own loader of a storage inside a pickle, which would open the inner pickle without limits."""
    inner = io.BytesIO()
    torch.save(Payload(proof), inner, _use_new_zipfile_serialization=False)
    body = inner.getvalue()
    archive(file, b"\x80\x03ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(body)) + body + b"\x85R.")


def payload_by_instance(file: Path, proof: Path) -> None:
    archive(file, b"\x80\x02(" + _text(str(proof)) + b"ios\nmkdir\n.")


def rewiring_a_maker(file: Path, proof: Path) -> None:
    """BUILD on a function: sets its attributes."""
    archive(file, b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}" + _text("__defaults__") + b"Ns\x86b.")


def rewiring_a_type(file: Path, proof: Path) -> None:
    archive(file, b"\x80\x02ccollections\nOrderedDict\nN}" + _text("__init__") + b"Ns\x86b.")


def _legacy(file: Path, *parts: Any) -> None:
    file.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def _short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def whole_module(file: Path, proof: Path) -> None:
    torch.save(nn.Linear(2, 2), file)


def namespace(file: Path, proof: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=0.1), **weights()}, file)


def numpy_array(file: Path, proof: Path) -> None:
    torch.save({"weights": np.zeros(3)}, file)


def numpy_scalar(file: Path, proof: Path) -> None:
    torch.save(weights() | {"best": np.float64(0.5)}, file)


def default_dict(file: Path, proof: Path) -> None:
    torch.save(weights() | {"seen": collections.defaultdict(list)}, file)


def plain_pickle(file: Path, proof: Path) -> None:
    file.write_bytes(pickle.dumps({"weights": [1.0]}))


def contains_itself(file: Path, proof: Path) -> None:
    loop: dict[str, Any] = weights()
    loop["again"] = loop
    torch.save(loop, file)


def nested_deeply(file: Path, proof: Path) -> None:
    archive(file, b"\x80\x02" + b"]" * 1_000_000 + b"a" * 999_999 + b".")


def nested_dicts(file: Path, proof: Path) -> None:
    deep: dict[str, Any] = weights()
    for _ in range(100):
        deep = {"state_dict": deep}
    torch.save(deep, file)


def doubling(file: Path, proof: Path) -> None:
    """A list of two lists of two lists …: forty lines that stand for 10^12 values."""
    value: list[Any] = [1]
    for _ in range(11):
        value = [value] * 20
    torch.save(value, file)


def number_keys(file: Path, proof: Path) -> None:
    torch.save({1: torch.zeros(3), "inner.H_init": torch.zeros(3)}, file)


def tuple_keys(file: Path, proof: Path) -> None:
    torch.save({"state_dict": {("a", "b"): torch.zeros(3)}}, file)


def one_name_two_ways(file: Path, proof: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(3)}, "state_dict.a": torch.ones(3)}, file)


def large_memo(file: Path, proof: Path) -> None:
    archive(file, b"\x80\x02Nr\xff\xff\xff\x7f.")


def large_text(file: Path, proof: Path) -> None:
    archive(file, b"\x80\x04\x8d" + struct.pack("<Q", 1 << 45) + b"abc.")


def large_number(file: Path, proof: Path) -> None:
    archive(file, b"\x80\x02\x8b" + struct.pack("<i", 0x7FFFFFFF) + b"abc.")


def many_values(file: Path, proof: Path) -> None:
    archive(file, b"\x80\x02](" + b"K\x01" * 5_000_000 + b"e.")


def much_memory(file: Path, proof: Path) -> None:
    archive(file, b"\x80\x02](" + b"}" * 20_000_000 + b"e.")


def colliding_keys(file: Path, proof: Path) -> None:
    """Numbers that all have one hash: a dict of them takes quadratic time."""
    keys = b"".join(b"\x8a\x0c" + (index * ((1 << 61) - 1)).to_bytes(12, "little") + b"N" for index in range(150_000))
    archive(file, b"\x80\x02}(" + keys + b"u.")


def no_end(file: Path, proof: Path) -> None:
    archive(file, b"\x80\x02}")


def nothing_on_the_stack(file: Path, proof: Path) -> None:
    archive(file, b"\x80\x020000u.")


def strange_storage(file: Path, proof: Path) -> None:
    archive(file, b"\x80\x02" + _text("storage") + b"Q.")


def extension_code(file: Path, proof: Path) -> None:
    archive(file, b"\x80\x02\x82\x01.")
