"""What an inspection says of a checkpoint, against the model itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from laser_studio.lab.inspection import inspect_checkpoint
from laser_studio.laser import find_sites
from laser_studio.trm import TRM, load_checkpoint, save_checkpoint
from tests.trm.helpers import LENGTH, small_batch, small_model, write_official
from tests.trm.test_variants import variant_model, written


@pytest.mark.parametrize("variant", ["trm", "singlez", "hier6", "hrm"])
@pytest.mark.parametrize("mlp_t", [False, True])
def test_counts_are_those_of_the_model(tmp_path: Path, variant: str, mlp_t: bool) -> None:
    model = variant_model(variant, mlp_t=mlp_t)
    save_checkpoint(model, tmp_path)
    found = inspect_checkpoint(tmp_path)
    assert found.parameters["total"] == sum(value.numel() for value in model.state_dict().values())
    assert [site.name for site in found.sites] == list(find_sites(model.net))
    assert (found.variant, found.needs, found.puzzle_rows) == (variant, (), 4)
    assert json.loads(json.dumps(found.to_json()))["architecture"]["L_cycles"] == 3
    batch = {name: value[:1] for name, value in small_batch().items()}
    # other attention kernels of a CPU are not counted
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(model.initial_carry(batch), batch)
    assert found.cost.flops_supervision == counter.get_total_flops()
    assert found.cost.flops_run == found.cost.flops_supervision * model.config.halt_max_steps
    calls = dict.fromkeys(find_sites(model.net), 0)
    for name, layer in find_sites(model.net).items():
        layer.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    with torch.no_grad():
        model(model.initial_carry(batch), batch)
    assert {site.name: site.applications for site in found.sites} == calls
    tokens = LENGTH + model.config.prefix_len
    assert found.cost.tokens == tokens
    assert found.cost.weight_bytes == 4 * found.parameters["total"]
    assert found.cost.state_bytes == {"singlez": 1, "hier6": 7}.get(variant, 2) * tokens * 32 * 4


def test_bytes_saved_for_backward_are_those_of_a_training_step(tmp_path: Path) -> None:
    model = small_model(H_cycles=1)
    save_checkpoint(model, tmp_path)
    batch = {name: value[:1] for name, value in small_batch().items()}
    kept: dict[int, int] = {}
    weights = {value.untyped_storage().data_ptr() for value in model.state_dict().values()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _, outputs = model(model.initial_carry(batch), batch)
    saved = inspect_checkpoint(tmp_path).cost.saved_bytes
    assert saved is not None and outputs.logits.requires_grad
    assert saved == pytest.approx(sum(kept.values()), rel=0.15)  # embedding and heads are beside the net


def test_unknowns_are_listed_and_nothing_is_asked(tmp_path: Path) -> None:
    file = write_official(tmp_path, small_model(hidden_size=64, num_heads=8, puzzle_emb_ndim=64, puzzle_emb_len=16))
    (tmp_path / "all_config.yaml").unlink()
    found = inspect_checkpoint(file)
    names = " ".join(need.name for need in found.needs)
    assert names == "H_cycles L_cycles halt_max_steps num_heads pos_encodings puzzle_emb_len forward_dtype"
    assert found.architecture["H_cycles"] == 3
    assert found.cost.tokens is None and found.cost.saved_bytes is None
    found = inspect_checkpoint(file, seq_len=36, assume={"H_cycles": 2})
    assert found.cost.tokens == 52 and found.architecture["H_cycles"] == 2
    assert "H_cycles" not in [need.name for need in found.needs]


def warned(folder: Path, model: TRM) -> list[str]:
    save_checkpoint(model, folder)
    return list(inspect_checkpoint(folder).warnings)


def test_warnings(tmp_path: Path) -> None:
    fresh = TRM(small_model().config, seed=1)
    assert [warning.split(":")[0] for warning in warned(tmp_path, fresh)] == [
        "the halting head is untrained",
        "the puzzle embedding is untrained",
        "the net is untrained",
    ]
    model = small_model()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.startswith(("net.", "lm_head")):
                value.normal_(std=value.shape[1] ** -0.5)  # no longer cut at two deviations
    assert warned(tmp_path, model) == []
    with torch.no_grad():
        model.lm_head.weight.mul_(100)
        model.net.get_parameter("layers.0.mlp.down_proj.weight").zero_()
        model.net.get_parameter("layers.1.mlp.down_proj.weight")[0, 0] = float("nan")
    found = warned(tmp_path, model)
    assert "net.layers.1.mlp.down_proj.weight has 1 values that are not finite" in found
    assert "net.layers.0.mlp.down_proj.weight is 0 throughout" in found
    assert any(warning.startswith("lm_head.weight has an odd norm: its weights are ") for warning in found)


def test_shipped_models_give_no_warning() -> None:
    for name in ("sudoku-4x4", "maze-9x9-mixer-early"):
        assert inspect_checkpoint(Path("assets/checkpoints") / name).warnings == ()


def test_other_formats(tmp_path: Path) -> None:
    found = inspect_checkpoint(written(tmp_path, variant_model("hrm")))
    assert found.source == "HRM"
    loaded = load_checkpoint(tmp_path, device="cpu")
    assert found.parameters["total"] == sum(value.numel() for value in loaded.state_dict().values())
