"""Checkpoints as people really have them: wrapped, averaged, split, without their configuration; and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from laser_studio.errors import CheckpointError
from laser_studio.lab.plain_trm import plain_weights
from laser_studio.trm import TRM, CheckpointNeeds, load_checkpoint
from tests.trm.helpers import small_model, write_official
from tests.trm.test_checkpoints import refused, same


def official(model: TRM, prefix: str = "inner.") -> dict[str, Tensor]:
    return {prefix + name: tensor.detach().clone() for name, tensor in plain_weights(model).items()}


def write(folder: Path, payload: Any, model: TRM | None = None) -> Path:
    """The payload under the usual name, beside the yaml of `model`."""
    file = write_official(folder, model or small_model())
    torch.save(payload, file)
    return file


# --- wrappers and averages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", ["model", "ema", "state_dict", "model_state_dict", "model_state", "params"])
@pytest.mark.parametrize("prefix", ["inner.", "_orig_mod.model.inner."])
def test_wrapped_weights(tmp_path: Path, wrapper: str, prefix: str) -> None:
    model = small_model()
    file = write(tmp_path, {wrapper: official(model, prefix), "step": 1, "optimizer": {"state": {0: {"exp_avg": torch.zeros(9)}}}})
    loaded = load_checkpoint(file, device="cpu")
    same(loaded, model)
    assert ("weights" in loaded.details) == (wrapper == "ema")


@pytest.mark.parametrize("plain", ["model", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("average", ["ema", "model_ema", "ema_state_dict", "ema_shadow"])
def test_averaged_weights_come_first(tmp_path: Path, plain: str, average: str) -> None:
    trained, averaged = small_model(seed=1), small_model(seed=2)
    loaded = load_checkpoint(
        write(tmp_path, {plain: official(trained), average: official(averaged, "_orig_mod.model.inner.")}), device="cpu"
    )
    same(loaded, averaged)
    assert loaded.details["weights"] == "averaged (EMA)"


def test_an_average_of_parameters_alone_borrows_the_buffers(tmp_path: Path) -> None:
    trained, averaged = small_model(seed=1), small_model(seed=2)
    buffers = ("inner.H_init", "inner.L_init", "inner.puzzle_emb.weights")
    average = {name: value for name, value in official(averaged).items() if name not in buffers}
    loaded = load_checkpoint(write(tmp_path, {"model": official(trained), "ema": {"shadow": average}}), device="cpu")
    assert torch.equal(loaded.H_init, trained.H_init)
    assert torch.equal(loaded.lm_head.weight, averaged.lm_head.weight)
    assert loaded.details["warnings"] == []
    del average["inner.lm_head.weight"]
    loaded = load_checkpoint(write(tmp_path, {"model": official(trained), "ema": {"shadow": average}}), device="cpu")
    assert loaded.details["warnings"] == ["the averaged weights lack lm_head.weight: taken as trained"]


def test_lightning_keeps_the_average_in_the_usual_place(tmp_path: Path) -> None:
    trained, averaged = small_model(seed=1), small_model(seed=2)
    loaded = load_checkpoint(write(tmp_path, {"current_model_state": official(trained), "state_dict": official(averaged)}), device="cpu")
    same(loaded, averaged)
    assert loaded.details["weights"] == "averaged (EMA)"


def test_several_sets_of_equal_right_are_not_chosen_from(tmp_path: Path) -> None:
    message = refused(write(tmp_path, {"best": official(small_model(1)), "last": official(small_model(2))}))
    assert "several sets of weights, under 'best', 'last'" in message


def test_averaged_weights_without_names_are_mentioned(tmp_path: Path) -> None:
    model = small_model()
    shadows = [tensor.detach().clone() for tensor in model.parameters()]
    loaded = load_checkpoint(write(tmp_path, {"model": official(model), "ema": {"shadow_params": shadows}}), device="cpu")
    same(loaded, model)
    assert "averaged weights without names (ema.shadow_params.0 … and" in loaded.details["warnings"][0]


def test_an_unknown_tensor_beside_wrapped_weights_is_named(tmp_path: Path) -> None:
    message = refused(write(tmp_path, {"model": official(small_model()) | {"inner.gate": torch.zeros(2)}}))
    assert "1 tensors that a TRM does not have: model.inner.gate" in message
    message = refused(write(tmp_path, official(small_model()) | {"inner.count": torch.zeros(2, dtype=torch.int64)}))
    assert "1 tensors that a TRM does not have: inner.count" in message
    message = refused(write(tmp_path, official(small_model()) | {"inner.lm_head.weight": torch.zeros(7, 32, dtype=torch.int32)}))
    assert "inner.lm_head.weight is a strided int32 tensor" in message


@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_split_projections(tmp_path: Path, positions: str) -> None:
    model = small_model(pos_encodings=positions)
    split: dict[str, Tensor] = {}
    for name, value in official(model).items():
        if "qkv_proj" in name:
            split |= {
                name.replace("qkv_proj", part): one.clone()
                for part, one in zip(("q_proj", "k_proj", "v_proj"), value.chunk(3), strict=True)
            }
        elif "gate_up_proj" in name:
            split |= {
                name.replace("gate_up_proj", part): one.clone() for part, one in zip(("gate_proj", "up_proj"), value.chunk(2), strict=True)
            }
        else:
            split[name] = value
    same(load_checkpoint(write(tmp_path, split, model), device="cpu"), model)
    lacking = {name: value for name, value in split.items() if "layers.1.self_attn.k_proj" not in name}
    assert "splits L_level.layers.1.self_attn.qkv_proj but lacks L_level.layers.1.self_attn.k_proj.weight" in refused(
        write(tmp_path, lacking, model)
    )


def test_official_names_in_safetensors(tmp_path: Path) -> None:
    model = small_model()
    write_official(tmp_path, model).unlink()
    save_file(official(model), tmp_path / "model.safetensors")
    same(load_checkpoint(tmp_path, device="cpu"), model)


@pytest.mark.parametrize("name", ["checkpoint", "model.ckpt", "weights.pt", "trm.pth"])
def test_names_of_uploads(tmp_path: Path, name: str) -> None:
    model = small_model()
    write_official(tmp_path, model).rename(tmp_path / name)
    same(load_checkpoint(tmp_path, device="cpu"), model)
    if name.endswith(".pt"):
        (tmp_path / "other.pt").write_bytes(b"x")
        assert "several files of weights, other.pt, weights.pt" in refused(tmp_path)


# --- without a configuration ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mlp_t", [False, True])
@pytest.mark.parametrize("positions", ["rope", "learned", "none"])
def test_what_the_tensors_do_not_tell_is_asked_for(tmp_path: Path, mlp_t: bool, positions: str) -> None:
    model = small_model(mlp_t=mlp_t, pos_encodings=positions, puzzle_emb_len=2)
    file = write_official(tmp_path, model)
    (tmp_path / "all_config.yaml").unlink()
    with pytest.raises(CheckpointNeeds, match=r"no all_config\.yaml beside step_7: the tensors do not tell") as caught:
        load_checkpoint(file, device="cpu")
    asked = ["H_cycles", "L_cycles", "halt_max_steps"]
    if not mlp_t:
        asked.append("num_heads")
        if positions != "learned":
            asked.append("pos_encodings")
    asked += ["puzzle_emb_len", "forward_dtype"]
    assert [need.name for need in caught.value.needs] == asked
    assert caught.value.proposal["H_cycles"] == 3 and caught.value.proposal["halt_max_steps"] == 16
    assert all(need.why for need in caught.value.needs)
    answers = {name: getattr(model.config, name) for name in asked}
    loaded = load_checkpoint(file, device="cpu", assume=answers)
    same(loaded, model)
    assert loaded.details["assumed"] == answers
    left = {name: value for name, value in answers.items() if name != "L_cycles"}
    with pytest.raises(CheckpointNeeds) as caught:
        load_checkpoint(file, device="cpu", assume=left)
    assert [need.name for need in caught.value.needs] == ["L_cycles"]


def test_official_values_by_one_word(tmp_path: Path) -> None:
    model = small_model(hidden_size=64, num_heads=8, puzzle_emb_ndim=64, puzzle_emb_len=16, H_cycles=3, L_cycles=4, halt_max_steps=16)
    file = write_official(tmp_path, model)
    (tmp_path / "all_config.yaml").unlink()
    loaded = load_checkpoint(file, device="cpu", assume="official")
    assert loaded.config.L_cycles == 4  # no Sudoku by its vocabulary
    assert loaded.config.forward_dtype == "bfloat16"
    assert loaded.config.prefix_len == 16


def test_assumptions_at_fault(tmp_path: Path) -> None:
    file = write_official(tmp_path, small_model())
    faults: list[tuple[Any, str]] = [
        ({"H_cycles": 5}, "H_cycles is 2, 5 was assumed"),
        ({"cycles": 5}, "nothing is called cycles here"),
        ("all", 'assume is "official" or a dict'),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps"),
    ]
    for assume, message in faults:
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(file, device="cpu", assume=assume)
    same(load_checkpoint(file, device="cpu", assume={"H_cycles": 2}), small_model())
    (tmp_path / "all_config.yaml").unlink()
    for assume, message in (({"H_cycles": "many"}, "H_cycles"), ({"L_cycles": 10**9}, "L_cycles"), ({"num_heads": 5}, "num_heads 5")):
        known = {"H_cycles": 2, "L_cycles": 2, "halt_max_steps": 3, "num_heads": 4, "pos_encodings": "rope", "puzzle_emb_len": 2}
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(file, device="cpu", assume=known | {"forward_dtype": "float32"} | assume)


# --- what is refused ------------------------------------------------------------------------------------------------

REFUSED: list[tuple[str, Any]] = [
    ("URM", {"model_state_dict": {"inner.layers.0.mlp.dwconv.weight": torch.zeros(3)}, "step": 3}),
    ("URM", {"inner.layers.0.mlp.dwconv.weight": torch.zeros(3), "rng_state": torch.zeros(9, dtype=torch.uint8)}),
    ("a text model", {"model.embed_tokens.weight": torch.zeros(3, 3), "lm_head.weight": torch.zeros(3, 3)}),
    ("a text model", {"state_dict": {"transformer.wte.weight": torch.zeros(3, 3)}}),
]


@pytest.mark.parametrize(("family", "payload"), REFUSED, ids=[f"{index} {family}" for index, (family, _) in enumerate(REFUSED)])
def test_other_families_are_refused_by_name(tmp_path: Path, family: str, payload: Any) -> None:
    torch.save(payload, tmp_path / "step_1")
    message = refused(tmp_path)
    assert f"is a checkpoint of {family}" in message and "not supported" in message


def test_other_lightning_models(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(3)}, "pytorch-lightning_version": "2.5"}, tmp_path / "last.ckpt")
    assert "is a Lightning checkpoint, but not one of nano-trm" in refused(tmp_path)
