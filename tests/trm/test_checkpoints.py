"""Checkpoints in and out, and the words for every way in which one can be unusable."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from laser_studio.errors import CheckpointError
from laser_studio.lab.plain_trm import plain_weights
from laser_studio.trm import TRM, load_checkpoint, save_checkpoint
from tests.trm.helpers import CONFORMANCE, LENGTH, small_batch, small_model, write_official


def refused(path: Path, **options: Any) -> str:
    """The message of the refusal, which must be one plain line that gives no path away."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, device="cpu", **options)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1500
    assert str(path.parent) not in message
    assert "weights_only" not in message
    assert "Traceback" not in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


def states(model: TRM) -> dict[str, Tensor]:
    return dict(model.state_dict())


def same(left: TRM, right: TRM) -> None:
    assert list(states(left)) == list(states(right))
    for name, value in states(left).items():
        other = states(right)[name]
        assert value.dtype == other.dtype, name
        assert torch.equal(value.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)), name


# --- what can be read -----------------------------------------------------------------------------------------------

VARIANTS = list(itertools.product((False, True), ("rope", "learned", "none"), ((40, 0), (32, 5), (0, 0)), ("float32", "bfloat16")))


@pytest.mark.parametrize(("mlp_t", "positions", "prefix", "dtype"), VARIANTS)
def test_official_variants(tmp_path: Path, mlp_t: bool, positions: str, prefix: tuple[int, int], dtype: str) -> None:
    model = small_model(mlp_t=mlp_t, pos_encodings=positions, puzzle_emb_ndim=prefix[0], puzzle_emb_len=prefix[1], forward_dtype=dtype)
    loaded = load_checkpoint(write_official(tmp_path, model), device="cpu")
    same(loaded, model)
    told = mlp_t or positions == "learned"
    assert loaded.config.seq_len == (LENGTH if told else None)
    assert loaded.config.num_puzzle_identifiers == (4 if prefix[0] else 1)
    assert loaded.config.vocab_size == 7
    assert not loaded.training
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in loaded.parameters())
    assert loaded.details == {"source": "official", "file": "step_7", "warnings": []}
    batch = small_batch()
    with torch.no_grad():
        assert torch.equal(loaded(loaded.initial_carry(batch), batch)[1].logits, model(model.initial_carry(batch), batch)[1].logits)


@pytest.mark.parametrize(
    "prefix", ["", "inner.", "model.inner.", "_orig_mod.model.inner.", "module._orig_mod.model.inner.", "_orig_mod.module.inner."]
)
def test_prefixes_are_stripped(tmp_path: Path, prefix: str) -> None:
    model = small_model()
    same(load_checkpoint(write_official(tmp_path, model, prefix=prefix), device="cpu"), model)


def test_the_latest_step_of_a_folder(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        write_official(tmp_path, small_model(seed=step), step=step)
    (tmp_path / "step_500_all_preds").write_bytes(b"no weights")
    (tmp_path / "step_900").mkdir()
    loaded = load_checkpoint(tmp_path, device="cpu")
    assert loaded.details["file"] == "step_100"
    same(loaded, small_model(seed=100))
    same(load_checkpoint(str(tmp_path / "step_9"), device="cpu"), small_model(seed=9))


def test_length_from_argument_and_data_set(tmp_path: Path) -> None:
    write_official(tmp_path, small_model())
    assert load_checkpoint(tmp_path, device="cpu").config.seq_len is None
    (tmp_path / "dataset.json").write_text(json.dumps({"seq_len": 36, "vocab_size": 7}))
    assert load_checkpoint(tmp_path, device="cpu").config.seq_len == 36
    assert load_checkpoint(tmp_path, device="cpu", seq_len=LENGTH).config.seq_len == LENGTH
    assert "seq_len" in refused(tmp_path, seq_len=0)
    for wrong in ("[]", "{", '{"seq_len": "x"}', '{"seq_len": -1}', '{"seq_len": true}'):
        (tmp_path / "dataset.json").write_text(wrong)
        assert refused(tmp_path).startswith("dataset.json")


def test_length_that_contradicts_the_tensors(tmp_path: Path) -> None:
    write_official(tmp_path, small_model(mlp_t=True))
    assert load_checkpoint(tmp_path, device="cpu", seq_len=LENGTH).config.seq_len == LENGTH
    assert "trained on sequences of 12 tokens, seq_len 13 was asked for" in refused(tmp_path, seq_len=13)


def test_start_states_in_bfloat16_and_weights_in_half_precision(tmp_path: Path) -> None:
    model = small_model()
    weights = {f"inner.{name}": value.detach().bfloat16() for name, value in plain_weights(model).items()}
    torch.save(weights, write_official(tmp_path, model))
    loaded = load_checkpoint(tmp_path, device="cpu")
    assert {value.dtype for value in states(loaded).values()} == {torch.float32}
    assert torch.equal(loaded.H_init, model.H_init.bfloat16().float())
    torch.save({name: value.float() for name, value in weights.items()}, write_official(tmp_path, model, forward_dtype="bfloat16"))
    loaded = load_checkpoint(tmp_path, device="cpu")
    assert loaded.H_init.dtype == torch.bfloat16
    assert loaded.lm_head.weight.dtype == torch.float32


def test_weights_that_are_not_finite_load_with_a_warning(tmp_path: Path) -> None:
    model = small_model()
    with torch.no_grad():
        model.lm_head.weight[0, :3] = torch.tensor([float("nan"), float("inf"), float("-inf")])
    for file in (write_official(tmp_path / "official", model), tmp_path / "own"):
        if file.name == "own":
            save_checkpoint(model, file)
        assert load_checkpoint(file, device="cpu").details["warnings"] == ["lm_head.weight has 3 values that are not finite"]


def test_tied_and_cut_out_tensors_get_memory_of_their_own(tmp_path: Path) -> None:
    model = small_model()
    weights = dict(plain_weights(model))
    both = torch.randn(7, 64)
    weights["embed_tokens.embedding_weight"] = weights["lm_head.weight"] = both[:, :32]
    file = write_official(tmp_path, model)
    torch.save({f"inner.{name}": value.detach() for name, value in weights.items()}, file)
    loaded = load_checkpoint(tmp_path, device="cpu")
    assert torch.equal(loaded.lm_head.weight, both[:, :32])
    assert all(value.is_contiguous() for value in states(loaded).values())
    assert len({value.untyped_storage().data_ptr() for value in states(loaded).values()}) == len(states(loaded))


# --- our own format -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mlp_t", "dtype"), list(itertools.product((False, True), ("float32", "bfloat16"))))
def test_round_trip_is_bit_exact(tmp_path: Path, mlp_t: bool, dtype: str) -> None:
    model = small_model(mlp_t=mlp_t, forward_dtype=dtype)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
        model.lm_head.weight[0, 1] = -0.0
        model.q_head.weight.copy_(torch.randn(32, 2).t())
    save_checkpoint(model, tmp_path / "new" / "folder", details={"task": "sudoku", "accuracy": {"exact": 0.96}})
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == ["config.json", "model.safetensors"]
    for path in (tmp_path / "new" / "folder", tmp_path / "new" / "folder" / "model.safetensors"):
        loaded = load_checkpoint(path, device="cpu")
        same(loaded, model)
        assert loaded.config == model.config
        assert loaded.details["task"] == "sudoku"
        assert loaded.details["accuracy"] == {"exact": 0.96}
        assert not loaded.training
    record = json.loads((tmp_path / "new" / "folder" / "config.json").read_text())
    assert (record["format"], record["version"]) == ("laser-studio-trm", 1)
    assert record["architecture"]["L_cycles"] == 2


def test_training_goes_on_from_a_loaded_model(tmp_path: Path) -> None:
    save_checkpoint(small_model(), tmp_path)
    model, batch = load_checkpoint(tmp_path, device="cpu"), small_batch()
    model(model.initial_carry(batch), batch)[1].logits.sum().backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if not name.startswith("q_head"))


def test_official_to_own_keeps_everything(tmp_path: Path) -> None:
    official = load_checkpoint(CONFORMANCE / "mlp_t", device="cpu")
    save_checkpoint(official, tmp_path)
    own = load_checkpoint(tmp_path, device="cpu")
    same(own, official)
    assert own.details["source"] == "official"
    save_checkpoint(own, tmp_path)  # over itself
    same(load_checkpoint(tmp_path, device="cpu"), official)


def test_own_length(tmp_path: Path) -> None:
    save_checkpoint(small_model(), tmp_path)
    assert "trained on sequences of 12 tokens" in refused(tmp_path, seq_len=36)
    save_checkpoint(small_model(seq_len=None), tmp_path)
    assert load_checkpoint(tmp_path, device="cpu", seq_len=36).config.seq_len == 36
    assert load_checkpoint(tmp_path, device="cpu").config.seq_len is None


def test_failed_save_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(small_model(seed=1), tmp_path)

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CheckpointError, match="cannot be written: No space left on device"):
        save_checkpoint(small_model(seed=2), tmp_path)
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]
    same(load_checkpoint(tmp_path, device="cpu"), small_model(seed=1))


@pytest.mark.parametrize("details", [{"x": object()}, {"x": float("nan")}])
def test_details_that_are_no_json(tmp_path: Path, details: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="details cannot be written as JSON"):
        save_checkpoint(small_model(), tmp_path, details=details)
    assert not list(tmp_path.iterdir())


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.update(format="other"), "was not written by LASER Studio"),
        (lambda record: record.update(version=2), "is of format version 2, this program reads 1"),
        (lambda record: record.pop("architecture"), "lacks its architecture"),
        (lambda record: record["architecture"].update(H_cycles=10**9), r"config.json: H_cycles: .*less than or equal to 1000"),
        (lambda record: record["architecture"].update(secret=1), "config.json: secret"),
        (lambda record: record["architecture"].update(vocab_size=8), r"embedding.tokens is 7×32, the configuration says 8×32"),
        (lambda record: record["architecture"].update(L_layers=3), r"4 missing: net.layers.2.self_attn.qkv_proj.weight"),
        (lambda record: record["architecture"].update(L_layers=1), r"4 too many: net.layers.1"),
    ],
)
def test_own_configuration_at_fault(tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    save_checkpoint(small_model(), tmp_path)
    edit(tmp_path / "config.json", change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path, device="cpu")


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    """The first byte of a safetensors file is part of a length, and 0x80 as good as any other."""
    model = small_model()
    save_checkpoint(model, tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    longer = length + (0x80 - length) % 256
    weights.write_bytes(longer.to_bytes(8, "little") + whole[8 : 8 + length].ljust(longer) + whole[8 + length :])
    assert weights.read_bytes()[:1] == b"\x80"
    same = load_checkpoint(tmp_path)
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in model.state_dict().items())


def test_half_precision_is_of_the_file_only(tmp_path: Path) -> None:
    model = small_model()
    save_checkpoint(model, tmp_path, half=True)
    same = load_checkpoint(tmp_path)
    for name, value in model.state_dict().items():
        assert same.state_dict()[name].dtype == value.dtype and torch.equal(same.state_dict()[name], value.half().to(value.dtype))


def test_own_files_at_fault(tmp_path: Path) -> None:
    save_checkpoint(small_model(), tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    whole, text = weights.read_bytes(), config.read_text()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "model.safetensors is damaged or was cut short" in refused(tmp_path)
    weights.write_bytes(b"\xff" * 64)
    assert "damaged" in refused(tmp_path)
    weights.write_bytes(pickle.dumps({"a": 1}))
    assert "holds a pickle" in refused(tmp_path)
    tensors = safetensors.torch.load(whole)
    weights.write_bytes(safetensors.torch.save(tensors | {"H_init": torch.zeros(32, dtype=torch.int64)}))
    assert "not floating-point" in refused(tmp_path)
    weights.write_bytes(whole)
    for wrong, message in (
        ("{", "is not JSON"),
        ("[1]", "not a JSON object"),
        ("[" * 100_000, "not JSON"),
        (" " * 300_000, "larger than 256 KiB"),
    ):
        config.write_text(wrong)
        assert message in refused(tmp_path)
    config.unlink()
    assert "no config.json beside model.safetensors" in refused(tmp_path)
    config.write_text(text)
    same(load_checkpoint(tmp_path, device="cpu"), small_model())


# --- what must be refused -------------------------------------------------------------------------------------------


def test_places(tmp_path: Path) -> None:
    assert "gone does not exist" in refused(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert "empty holds neither model.safetensors nor a step_N file" in refused(tmp_path / "empty")
    write_official(tmp_path, small_model())
    assert "only the configuration" in refused(tmp_path / "all_config.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"\n  <html lang='en'>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-LFS pointer"),
        (b"PK\x03\x04 and nothing more", "damaged or was cut short"),
        (b"just some text", "is not a checkpoint"),
        (b"\x00" * 4096, "is not a checkpoint"),
        (pickle.dumps({"weights": [1.0]}), "bare pickle"),
    ],
)
def test_impostors(tmp_path: Path, content: bytes, message: str) -> None:
    file = write_official(tmp_path, small_model())
    file.write_bytes(content)
    assert message in refused(file)
    assert message in refused(tmp_path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated(tmp_path: Path, share: float) -> None:
    file = write_official(tmp_path, small_model())
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    assert "step_7 is damaged or was cut short: download or copy it again" in refused(file)


def test_one_flipped_bit_in_a_tensor(tmp_path: Path) -> None:
    file = write_official(tmp_path, small_model())
    whole = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    whole[largest.header_offset + largest.file_size // 2] ^= 4
    file.write_bytes(whole)
    torch.load(file, weights_only=True)  # torch itself notices nothing
    assert "damaged" in refused(file)


def test_other_archives(tmp_path: Path) -> None:
    file = write_official(tmp_path, small_model())
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("hello.txt", "hello")
    assert "not one that torch.save wrote" in refused(file)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    assert "compressed archive" in refused(file)


def test_files_from_before_pytorch_1_6(tmp_path: Path) -> None:
    """They are read like any other, and it is said that they have no checksums."""
    file = write_official(tmp_path, small_model())
    weights = torch.load(file, weights_only=True)
    torch.save(weights, file, _use_new_zipfile_serialization=False)
    loaded = load_checkpoint(file, device="cpu")
    same(loaded, small_model())
    assert loaded.details["warnings"] == ["step_7 is of a format without checksums: damage to its weights would go unnoticed"]


class Payload:
    """Writes a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("where", ["zip", "inside", "legacy", "raw", "named safetensors", "zip named safetensors"])
def test_payload_never_runs(tmp_path: Path, where: str) -> None:
    proof, folder = tmp_path / "it ran", tmp_path / "folder"
    file = write_official(folder, small_model())
    payload: Any = Payload(proof)
    if "safetensors" in where:
        save_checkpoint(small_model(), folder)
        file = folder / "model.safetensors"
    if where in ("raw", "named safetensors"):
        file.write_bytes(pickle.dumps(payload))
    else:
        weights = {f"inner.{name}": value for name, value in plain_weights(small_model()).items()}
        torch.save({**weights, "extra": payload} if where == "inside" else payload, file, _use_new_zipfile_serialization=where != "legacy")
    message = refused(file)
    assert "torch.save(model.state_dict()" in message
    assert not proof.exists()
    if where in ("zip", "inside"):
        assert "posix.mkdir" in message
        torch.load(file, weights_only=False)  # the payload does work where it is let
        assert proof.exists()


def test_objects_that_are_no_state_dict(tmp_path: Path) -> None:
    file = write_official(tmp_path, small_model())
    for payload, message in (
        (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        (torch.zeros(3), "not a state_dict"),
        ([torch.zeros(3)], "of type list, not a state_dict"),
        ({}, "not a state_dict"),
        ({1: torch.zeros(3)}, "is not a state_dict: a key is no text but of type int"),
        ({"inner.H_init": 3.0}, "inner.H_init is of type float"),
        ({"inner.H_init": {"deeper": torch.zeros(3)}}, "its first tensors are inner.H_init.deeper"),
        ({"inner.H_init": torch.zeros(32, dtype=torch.int64)}, "inner.H_init is a strided int64 tensor"),
        ({"inner.H_init": torch.zeros(32, dtype=torch.complex64)}, "strided complex64"),
        ({"inner.H_init": torch.zeros(4, 4).to_sparse()}, "sparse_coo"),
        ({"inner.H_init": torch.zeros(32, device="meta")}, "inner.H_init is a strided float32 tensor on meta"),
    ):
        torch.save(payload, file)
        assert message in refused(file), payload


def test_claims_beyond_the_file(tmp_path: Path) -> None:
    model = small_model()
    file = write_official(tmp_path, model)
    weights = {f"inner.{name}": value.detach() for name, value in plain_weights(model).items()}
    weights["inner.puzzle_emb.weights"] = torch.zeros(1).expand(10**8, 40)  # 16 GB out of 4 bytes
    torch.save(weights, file)
    assert "claims more than it holds: inner.puzzle_emb.weights is 100000000×40 float32 in a storage of 4 bytes" in refused(file)


def test_missing_extra_and_doubled_tensors(tmp_path: Path) -> None:
    model = small_model()
    file = write_official(tmp_path, model)
    weights = {f"inner.{name}": value.detach() for name, value in plain_weights(model).items()}

    def message(changes: dict[str, Tensor], without: tuple[str, ...] = ()) -> str:
        torch.save({name: value for name, value in (weights | changes).items() if name not in without}, file)
        return refused(file)

    assert "1 missing: q_head.bias" in message({}, ("inner.q_head.bias",))
    gone = tuple(name for name in weights if ".layers." in name)
    text = message({}, gone)
    assert "8 missing: L_level.layers.0" in text
    assert "… and 3 more" in text
    assert text.count("proj.weight") == 5
    assert "lacks the token embedding" in message({}, ("inner.embed_tokens.embedding_weight",))
    assert "7 tensors that a TRM does not have: inner.new0, " in message({f"inner.new{i}": torch.zeros(1) for i in range(7)})
    assert "… and 2 more" in message({f"inner.new{i}": torch.zeros(1) for i in range(7)})
    assert "1 tensors twice under different prefixes: model.inner.H_init" in message({"model.inner.H_init": torch.zeros(32)})
    assert "inner.lm_head.weight is 7×31, the configuration says 7×32" in message({"inner.lm_head.weight": torch.zeros(7, 31)})
    assert "1 too many: inner.embed_pos.embedding_weight" in message({"inner.embed_pos.embedding_weight": torch.zeros(14, 32)})
    escape = message({"inner.\x1b[31mred\n" + "x" * 500: torch.zeros(1)})
    assert "inner.?[31mred?" in escape


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ({"num_heads": 5}, "hidden_size 32 is not divisible by num_heads 5"),
        ({"H_cycles": 10**9}, "all_config.yaml: H_cycles: .*less than or equal to 1000"),
        ({"L_cycles": -1}, "L_cycles"),
        ({"hidden_size": 64}, r"inner.embed_tokens.embedding_weight is 7×32, the configuration says 7×64"),
        ({"L_layers": 3}, "4 missing: L_level.layers.2"),
        ({"mlp_t": True}, r"says a mixer \(mlp_t\), but there are no such tensors"),
        ({"pos_encodings": "learned"}, r"says learned positions \(embed_pos\), but there are no such tensors"),
        ({"puzzle_emb_ndim": 0}, "1 too many: .*puzzle_emb.weights"),
        ({"puzzle_emb_ndim": 41}, r"puzzle_emb.weights is 4×40, the configuration says 4×41"),
        ({"puzzle_emb_ndim": "${.hidden_size}"}, r"unresolved references: arch.puzzle_emb_ndim = \$\{.hidden_size\}"),
        ({"name": "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1"}, "'hrm_act_v1', but the tensors are those of trm"),
        ({"name": "recursive_reasoning.trm_singlez@X"}, "'trm_singlez', but the tensors are those of trm"),
        ({"name": "recursive_reasoning.trm_mamba@X"}, "'trm_mamba', which is not supported"),
        ({"use_patches": True}, "settings the official code does not have: use_patches"),
        ({"H_cycles": None, "num_heads": None}, r"lacks arch.H_cycles \(official: 3\), arch.num_heads \(official: 8\)"),
        ({"forward_dtype": "float16"}, "forward_dtype"),
    ],
)
def test_configuration_at_fault(tmp_path: Path, arch: dict[str, Any], message: str) -> None:
    write_official(tmp_path, small_model(), **arch)
    refused(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path, device="cpu")


def test_a_switch_that_is_off_does_no_harm(tmp_path: Path) -> None:
    write_official(tmp_path, small_model(), use_patches=False)
    same(load_checkpoint(tmp_path, device="cpu"), small_model())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arch: [1, 2", "is not plain YAML"),
        ("arch: !!python/object/apply:os.mkdir ['{proof}']", "is not plain YAML"),
        ("[" * 10_000, "is not plain YAML"),
        ("just text", "no `arch` section"),
        ("arch: 3", "no `arch` section"),
        ("", "no `arch` section"),
        ("#" * 40_000, "larger than 32 KiB"),
        (
            "a: &a [x, x, x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in itertools.pairwise("abcdefghijklmn")),
            "unfolds to more than 10,000 values",
        ),
        ("arch: \x00", "is not plain YAML"),
    ],
)
def test_yaml_at_fault(tmp_path: Path, text: str, message: str) -> None:
    write_official(tmp_path, small_model())
    (tmp_path / "all_config.yaml").write_text(text.replace("{proof}", str(tmp_path / "proof")))
    assert message in refused(tmp_path)
    assert not (tmp_path / "proof").exists()


def test_missing_yaml(tmp_path: Path) -> None:
    write_official(tmp_path, small_model())
    (tmp_path / "all_config.yaml").unlink()
    message = refused(tmp_path)
    assert message.startswith("no all_config.yaml beside step_7: the tensors do not tell")
    assert all(name in message for name in ("H_cycles", "L_cycles", "num_heads", "halt_max_steps"))


def test_hostile_file_names(tmp_path: Path) -> None:
    file = tmp_path / ("\x1b[2J<img onerror>" + "x" * 150)
    file.write_bytes(b"")
    assert "?[2J<img onerror>x" in refused(file)


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_official(tmp_path, small_model())

    def denied(self: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", denied)
    assert refused(file) == "step_7 cannot be read: Permission denied"
