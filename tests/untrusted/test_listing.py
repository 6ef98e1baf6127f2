"""The child and its parent: what is listed is what torch reads, and neither a file nor a child gone wrong gets past the limits."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from laser_studio.errors import CheckpointError
from laser_studio.trm.checkpoints.payload import read_payload, read_rows
from laser_studio.trm.checkpoints.stored import read_tensors
from laser_studio.untrusted import child
from laser_studio.untrusted.listing import LIMITS, Limits, list_tensors

BASE = torch.arange(24.0).reshape(4, 6)
TENSORS: dict[str, Tensor] = {
    "whole": BASE,
    "transposed": BASE.t(),
    "column": BASE[:, 2],
    "block": BASE[1:3, 1:4],
    "every second": BASE[::2],
    "permuted": torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
    "whole numbers": torch.arange(5),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "truths": torch.tensor([True, False, True]),
    "halves": torch.randn(3, 2, generator=torch.Generator().manual_seed(1)).bfloat16(),
    "doubles": torch.randn(3, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64),
    "nothing": torch.empty(0, 3),
    "scalar": torch.tensor(3.5),
    "parameter": nn.Parameter(torch.ones(2)),
    "not a number": torch.tensor([float("nan"), float("inf")]),
}


def same(got: Tensor, wanted: Tensor) -> bool:
    return got.dtype == wanted.dtype and got.shape == wanted.shape and torch.equal(got.nan_to_num(), wanted.detach().nan_to_num())


@pytest.mark.parametrize("container", ["zip", "legacy", "safetensors"])
def test_what_is_listed_is_what_torch_reads(tmp_path: Path, container: str) -> None:
    file = tmp_path / "file"
    if container == "safetensors":
        save_file({name: tensor.contiguous().clone() for name, tensor in TENSORS.items()}, file)
    else:
        torch.save(TENSORS, file, _use_new_zipfile_serialization=container == "zip")
    listing = list_tensors(file)
    read = read_tensors(file, listing)
    assert listing.container == container and read.keys() == TENSORS.keys() and not listing.odd
    for name, tensor in TENSORS.items():
        assert same(read[name], tensor), name
        assert read[name].is_contiguous()
    assert len({tensor.untyped_storage().data_ptr() for tensor in read.values() if tensor.numel()}) == len(TENSORS) - 1


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol(tmp_path: Path, protocol: int) -> None:
    torch.save(TENSORS, tmp_path / "file", pickle_protocol=protocol)
    assert all(same(tensor, TENSORS[name]) for name, tensor in read_tensors(tmp_path / "file", list_tensors(tmp_path / "file")).items())


def test_a_state_dict_with_its_attributes(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    torch.save(model.state_dict(), tmp_path / "file")
    read = read_tensors(tmp_path / "file", list_tensors(tmp_path / "file"))
    assert read.keys() == model.state_dict().keys()
    assert all(same(read[name], value) for name, value in model.state_dict().items())


def test_tensors_with_attributes(tmp_path: Path) -> None:
    marked, parameter = torch.ones(3), nn.Parameter(torch.zeros(2))
    marked.origin = "here"  # type: ignore[attr-defined]
    parameter.shard = 1  # type: ignore[attr-defined]
    torch.save({"marked": marked, "parameter": parameter}, tmp_path / "file")
    read = read_tensors(tmp_path / "file", list_tensors(tmp_path / "file"))
    assert same(read["marked"], torch.ones(3)) and same(read["parameter"], torch.zeros(2))


def test_names_and_facts(tmp_path: Path) -> None:
    record: dict[str, Any] = {
        "state_dict": {"a.b": torch.ones(2), "deeper": {0: torch.zeros(1), "c": [torch.zeros(2), 3]}},
        "epoch": 7,
        "hyper_parameters": {"lr": 1e-4, "names": ["x", None, True], "nested": {"k": 1}},
        "device": torch.device("cpu"),
        "shape": torch.Size([2, 3]),
        "optimizer": {"state": {("odd", "key"): torch.zeros(9)}},
        "large": 1 << 70,
    }
    torch.save(record, tmp_path / "file")
    listing = list_tensors(tmp_path / "file")
    assert list(listing.tensors) == ["state_dict.a.b", "state_dict.deeper.0", "state_dict.deeper.c.0"]
    assert listing.facts == {
        "state_dict": {"deeper": {"c": [3]}},
        "epoch": 7,
        "hyper_parameters": record["hyper_parameters"],
        "device": "cpu",
        "shape": [2, 3],
    }


def test_rows_are_read_alone(tmp_path: Path) -> None:
    table = torch.randn(1_000, 64, generator=torch.Generator().manual_seed(3))
    torch.save({"table": table, "turned": table.t()}, tmp_path / "file")
    assert torch.equal(read_rows(tmp_path / "file", "table", [999, 0, 0]), table[[999, 0, 0]])
    assert torch.equal(read_rows(tmp_path / "file", "turned", [63, 1]), table.t()[[63, 1]])
    assert torch.equal(read_rows(tmp_path / "file", "table"), table)
    assert read_rows(tmp_path / "file", "table", []).shape == (0, 64)
    with pytest.raises(CheckpointError, match="table has rows 0 to 999, not 1000"):
        read_rows(tmp_path / "file", "table", [1_000])
    with pytest.raises(CheckpointError, match="has no tensor chair"):
        read_rows(tmp_path / "file", "chair", [0])


def test_a_large_tensor_stays_in_the_file(tmp_path: Path) -> None:
    torch.save({"large": torch.ones(9_000, 1_024), "small": torch.ones(2)}, tmp_path / "file")
    payload = read_payload(tmp_path / "file")
    assert payload.tensors["large"].is_meta and payload.tensors["large"].shape == (9_000, 1_024)
    assert torch.equal(payload.tensors["small"], torch.ones(2))


def test_a_file_that_changes_between_looking_and_reading(tmp_path: Path) -> None:
    file = tmp_path / "file"
    torch.save({"a": torch.ones(3)}, file)
    listing = list_tensors(file)
    torch.save({"a": torch.ones(4)}, file)
    with pytest.raises(CheckpointError, match="was changed while it was read"):
        read_tensors(file, listing)
    assert read_payload(file).tensors["a"].shape == (4,)
    torch.save({"a": torch.zeros(5)}, file)
    assert read_payload(file).tensors["a"].shape == (5,)  # a listing that is kept is of the file as it was


def test_no_memory_for_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "file")
    listing = list_tensors(tmp_path / "file")

    def none_left(*_: object, **__: object) -> Tensor:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "empty", none_left)
    with pytest.raises(CheckpointError, match=r"^file does not fit into memory$"):
        read_tensors(tmp_path / "file", listing)


# --- the child's own limits -----------------------------------------------------------------------------------------


def in_a_child(body: str) -> subprocess.CompletedProcess[bytes]:
    """Run `body` where the child would look into a file: with its limits, behind its lock."""
    program = f"""
import os, sys
sys.path.append({str(Path(child.__file__).parents[2])!r})
from laser_studio.untrusted import child
child.limit({256 << 20}, 1)
child.lock()
{textwrap.dedent(body)}
os._exit(0)
"""
    return subprocess.run([sys.executable, "-I", "-S", "-B", "-c", program], capture_output=True, timeout=60)


@pytest.mark.parametrize(
    "body",
    [
        "open('/etc/hostname')",
        "os.open('/tmp', 0)",
        "os.system('true')",
        "os.mkdir('/tmp/laser studio was here')",
        "os.listdir('/')",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "import socket",
        "import ctypes",
        "eval('1')",
        "exec('1')",
        "compile('1', 'x', 'eval')",
        "__import__('socket')",
        "sys.settrace(print)",
        "import pickle; pickle.loads(b'cos\\nsystem\\n.')",
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="uses POSIX calls")
def test_the_child_ends_at_the_first_thing_it_may_not(body: str) -> None:
    assert in_a_child(body).returncode == child.LOCKED
    assert not Path("/tmp/laser studio was here").exists()


def test_the_child_may_calculate_and_answer() -> None:
    ended = in_a_child("sys.stdout.buffer.write(str(sum(range(10))).encode()); sys.stdout.flush()")
    assert ended.returncode == 0 and ended.stdout == b"45"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count otherwise")
def test_the_system_holds_the_child_to_its_limits() -> None:
    assert b"MemoryError" in in_a_child("x = bytearray(400 << 20)").stderr
    begin = time.monotonic()
    assert in_a_child("while True: pass").returncode < 0
    assert time.monotonic() - begin < 30


# --- a child that went wrong ----------------------------------------------------------------------------------------


@pytest.fixture
def instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Answers as a child would that was taken over: runs the given program in its place on a sound file."""
    torch.save({"a": torch.ones(8)}, tmp_path / "file")

    def answer(body: str, **limits: int) -> str:
        program = tmp_path / "child.py"
        program.write_text(textwrap.dedent(body))
        monkeypatch.setattr(child, "__file__", str(program))
        with pytest.raises(CheckpointError) as caught:
            list_tensors(tmp_path / "file", limits=Limits(**limits))
        return str(caught.value)

    return answer


def test_a_child_that_never_answers(instead: Any) -> None:
    begin = time.monotonic()
    assert "takes longer to look through" in instead("import time; time.sleep(600)", clock_secs=1)
    assert time.monotonic() - begin < 20


def test_a_child_that_answers_without_end(instead: Any) -> None:
    assert "holds more than" in instead("import sys\nwhile True: sys.stdout.write('x' * 65536)", answer=1 << 20)


@pytest.mark.parametrize(
    "body",
    [
        "pass",
        "import os; os.abort()",
        "print('no JSON')",
        "print('[' * 100000)",
        "print('[1, 2]')",
        "print('{}')",
        'print(\'{"refused": "something new", "what": "{0.__class__}"}\')',
    ],
)
def test_a_child_that_answers_nonsense(instead: Any, body: str) -> None:
    assert "could not be looked through, the process that read it ended at once" in instead(body)


@pytest.mark.parametrize(
    "tensor",
    [
        ["a", "float32", [8], [1], 0, 1 << 40],
        ["a", "float32", [8], [1], 1 << 40, 32],
        ["a", "float32", [8], [1], -8, 32],
        ["a", "float32", [9], [1], 0, 32],
        ["a", "float32", [1 << 30], [0], 0, 4],
        ["a", "object", [8], [1], 0, 32],
        ["a", "float32", [8, 1], [1], 0, 32],
        [1, "float32", [8], [1], 0, 32],
        ["a", "float32", [True], [1], 0, 4],
        ["a" * 2_000, "float32", [8], [1], 0, 32],
        ["a", "float32", [8], [1], 0],
        None,
    ],
)
def test_a_child_that_lies(instead: Any, tensor: Any) -> None:
    reply = {"container": "zip", "root": "of type dict", "tensors": [tensor], "odd": {}, "facts": {}}
    assert "could not be looked through" in instead(f"import json; print(json.dumps({reply!r}))")


def test_what_the_child_says_is_made_fit_to_show(instead: Any) -> None:
    message = instead(
        'print(\'{"refused": "object", "what": "\\\\u001b[31m<b>\\\\n" + "x" * 5000 + ""}\')'.replace('" + "x" * 5000 + "', "x" * 5_000)
    )
    assert message.isprintable() and len(message) < 600 and "?[31m<b>?" in message


def test_the_child_knows_nothing_of_the_place_or_the_user(instead: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    what = "' '.join([*sys.argv[1:], *os.environ.values()])"
    message = instead(f"import json, os, sys; print(json.dumps({{'refused': 'object', 'what': {what}}}))")
    assert "secret" not in message and str(tmp_path) not in message and str(LIMITS.memory) in message


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_looking_in_leaves_no_process_and_no_open_file(tmp_path: Path) -> None:
    def held() -> tuple[int, int]:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return len(children), len(os.listdir("/proc/self/fd"))

    torch.save({"a": torch.ones(8)}, tmp_path / "file")
    list_tensors(tmp_path / "file")
    before = held()
    for _ in range(5):
        list_tensors(tmp_path / "file")
    assert all(now <= then for now, then in zip(held(), before, strict=True))
