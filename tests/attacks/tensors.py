"""Files whose tensors are not what they say."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.attacks.pickles import archive, weights


def _save(file: Path, name: str, tensor: Tensor) -> None:
    torch.save(weights() | {name: tensor}, file)


def sparse_with_lying_indices(file: Path, proof: Path) -> None:
    indices, values = torch.tensor([[0, 10**9], [0, 10**9]]), torch.ones(2)
    with torch.sparse.check_sparse_tensor_invariants(False):
        _save(file, "inner.lm_head.weight", torch.sparse_coo_tensor(indices, values, (7, 32), check_invariants=False))


def sparse_rows_with_lying_indices(file: Path, proof: Path) -> None:
    with torch.sparse.check_sparse_tensor_invariants(False):
        lying = torch.sparse_csr_tensor(
            torch.tensor([0, 5, 10**9]), torch.tensor([10**9, 3]), torch.ones(2), (2, 32), check_invariants=False
        )
        _save(file, "inner.lm_head.weight", lying)


def quantised(file: Path, proof: Path) -> None:
    _save(file, "inner.lm_head.weight", torch.quantize_per_tensor(torch.ones(7, 32), 0.1, 0, torch.qint8))


def complex_numbers(file: Path, proof: Path) -> None:
    _save(file, "inner.lm_head.weight", torch.zeros(7, 32, dtype=torch.complex64))


def whole_numbers(file: Path, proof: Path) -> None:
    _save(file, "inner.lm_head.weight", torch.zeros(7, 32, dtype=torch.int64))


def meta_of_terabytes(file: Path, proof: Path) -> None:
    _save(file, "inner.lm_head.weight", torch.zeros(10**6, 10**6, device="meta"))


def stride_zero(file: Path, proof: Path) -> None:
    _save(file, "inner.lm_head.weight", torch.zeros(1).expand(10**8, 40))


def stride_zero_of_terabytes(file: Path, proof: Path) -> None:
    _save(file, "inner.lm_head.weight", torch.zeros(1).expand(10**6, 10**6))


def one_storage_many_times(file: Path, proof: Path) -> None:
    """Views of one megabyte under a thousand names."""
    one = torch.zeros(262_144)
    torch.save(weights() | {f"inner.copy{index}": one for index in range(1_000)}, file)


def more_than_the_storage(file: Path, proof: Path) -> None:
    """The pickle names a matrix, the entry of its storage holds 4 bytes."""
    torch.save(weights(), file)
    _rewrite(file, lambda name, content: content[:4] if name.endswith("data/1") else content)


class _Claim:
    """Pickled as a tensor with any numbers."""

    def __init__(self, offset: Any, shape: Any, stride: Any) -> None:
        self.given = offset, shape, stride

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, ("the storage", *self.given, False, OrderedDict())


class _Pickler(pickle.Pickler):
    def __init__(self, stream: io.BytesIO, elements: Any) -> None:
        super().__init__(stream, protocol=2)
        self.elements = elements

    def persistent_id(self, thing: Any) -> Any:
        return ("storage", torch.FloatStorage, "0", "cpu", self.elements) if thing == "the storage" else None


def _claim(file: Path, offset: Any, shape: Any, stride: Any, elements: Any = 32) -> None:
    stream = io.BytesIO()
    _Pickler(stream, elements).dump({"inner.H_init": _Claim(offset, shape, stride)})
    archive(file, stream.getvalue(), **{"0": bytes(128)})


def offset_behind_the_storage(file: Path, proof: Path) -> None:
    _claim(file, 1, (32,), (1,))


def offset_of_terabytes(file: Path, proof: Path) -> None:
    _claim(file, 1 << 45, (1,), (1,))


def offset_below_zero(file: Path, proof: Path) -> None:
    _claim(file, -32, (32,), (1,))


def stride_below_zero(file: Path, proof: Path) -> None:
    _claim(file, 31, (32,), (-1,))


def stride_of_terabytes(file: Path, proof: Path) -> None:
    _claim(file, 0, (2,), (1 << 39,))


def shape_below_zero(file: Path, proof: Path) -> None:
    _claim(file, 0, (-4, -8), (8, 1))


def shape_beyond_words(file: Path, proof: Path) -> None:
    _claim(file, 0, (1 << 80,), (1,))


def shape_of_truths(file: Path, proof: Path) -> None:
    _claim(file, 0, (True,), (1,))


def shape_of_a_thousand(file: Path, proof: Path) -> None:
    _claim(file, 0, (1,) * 1_000, (1,) * 1_000)


def shape_without_strides(file: Path, proof: Path) -> None:
    _claim(file, 0, (4, 8), (1,))


def storage_of_text(file: Path, proof: Path) -> None:
    _claim(file, 0, (32,), (1,), "many")


def no_storage(file: Path, proof: Path) -> None:
    torch.save(weights(), file)
    _rewrite(file, lambda name, content: None if name.endswith("data/1") else content)


def _rewrite(file: Path, change: Any) -> None:
    with zipfile.ZipFile(file) as old:
        entries = [(entry.filename, old.read(entry)) for entry in old.infolist()]
    with zipfile.ZipFile(file, "w") as new:
        for name, content in entries:
            if (changed := change(name, content)) is not None:
                new.writestr(name, changed)


def safetensors(file: Path, header: Any, body: bytes = b"") -> None:
    """A safetensors file around a header written by hand: an object, or the text itself."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + body)


def _entry(start: int, end: int, shape: list[Any] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - start) // 4] if shape is None else shape, "data_offsets": [start, end]}


def header_names_one_twice(file: Path, proof: Path) -> None:
    entry = json.dumps(_entry(0, 8))
    safetensors(file, f'{{"a": {entry}, "a": {entry}}}'.encode(), bytes(8))


def header_overlaps(file: Path, proof: Path) -> None:
    safetensors(file, {"a": _entry(0, 8), "b": _entry(4, 12)}, bytes(12))


def header_leaves_a_hole(file: Path, proof: Path) -> None:
    safetensors(file, {"a": _entry(0, 8), "b": _entry(12, 16)}, bytes(16))


def header_hides_a_rest(file: Path, proof: Path) -> None:
    safetensors(file, {"a": _entry(0, 8)}, bytes(8) + b"something else")


def header_longer_than_the_file(file: Path, proof: Path) -> None:
    file.write_bytes((1 << 40).to_bytes(8, "little") + b'{"a": 1}')


def header_of_megabytes(file: Path, proof: Path) -> None:
    safetensors(file, b"{" + b" " * (9 << 20) + b"}")


def header_nests_deeply(file: Path, proof: Path) -> None:
    safetensors(file, b'{"a":' + b"[" * 1_000_000)


def header_claims_terabytes(file: Path, proof: Path) -> None:
    safetensors(file, {"a": _entry(0, 8, [1 << 20, 1 << 20])}, bytes(8))


def header_overflows(file: Path, proof: Path) -> None:
    safetensors(file, {"a": _entry(0, 8, [1 << 63, 1 << 63, 1 << 63])}, bytes(8))


def header_of_many(file: Path, proof: Path) -> None:
    safetensors(file, {f"t{index}": _entry(0, 0) for index in range(10_001)})


def header_with_odd_numbers(file: Path, proof: Path) -> None:
    safetensors(file, b'{"a": {"dtype": "F32", "shape": [1e400, NaN, true], "data_offsets": [0, 8]}}', bytes(8))


def header_is_a_list(file: Path, proof: Path) -> None:
    safetensors(file, b"{}"[:1] + b'"a"}')
