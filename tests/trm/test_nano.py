"""nano-trm's Lightning files: hyper-parameters, averaged weights, tokens of its own; compared with its arithmetic restated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from laser_studio.debugger import Session
from laser_studio.errors import CompressionError
from laser_studio.laser import LaserPolicy, compress
from laser_studio.puzzles import get_domain, load_puzzles
from laser_studio.trm import CheckpointNeeds, load_checkpoint, save_checkpoint
from tests.trm.references import Reference, nano_step, turns_by_place, turns_by_row_and_column
from tests.trm.test_checkpoints import refused, same

SIDE, WIDTH, HEADS, PREFIX = 6, 32, 2, 2
CELLS, VOCABULARY = SIDE * SIDE, SIDE + 3


def nano_weights(seed: int = 1, *, mixer: bool = False, prefix: int = PREFIX, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random weights under nano-trm's names."""
    draw = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=draw) / columns**0.5

    found = {
        "z_H_init": torch.randn(WIDTH, generator=draw).to(dtype),
        "z_L_init": torch.randn(WIDTH, generator=draw).to(dtype),
        "input_embedding.embedding_weight": matrix(VOCABULARY, WIDTH),
        "lm_head.weight": matrix(VOCABULARY, WIDTH),
        "q_head.weight": matrix(1, WIDTH),
        "q_head.bias": torch.full((1,), -5.0),
    }
    for block in range(2):
        at = f"lenet.layers.{block}"
        if mixer:
            length = CELLS + prefix
            found |= {f"{at}.mlp_t.gate_up_proj.weight": matrix(512, length), f"{at}.mlp_t.down_proj.weight": matrix(length, 256)}
        else:
            found |= {f"{at}.self_attn.qkv_proj.weight": matrix(3 * WIDTH, WIDTH), f"{at}.self_attn.o_proj.weight": matrix(WIDTH, WIDTH)}
        found |= {f"{at}.mlp.gate_up_proj.weight": matrix(512, WIDTH), f"{at}.mlp.down_proj.weight": matrix(WIDTH, 256)}
    if prefix:
        found["puzzle_emb.weights"] = torch.randn(3, 40, generator=draw)
    return found


def hyper_parameters(**changes: Any) -> dict[str, Any]:
    return {
        "hidden_size": WIDTH, "num_layers": 2, "num_heads": HEADS, "max_grid_size": SIDE, "H_cycles": 2, "L_cycles": 3, "N_supervision": 5,
        "N_supervision_val": 3, "ffn_expansion": 2, "learning_rate": 1e-4, "halt_exploration_prob": 0.1, "puzzle_emb_dim": 40,
        "puzzle_emb_len": PREFIX, "rope_theta": 10000, "pos_emb_type": "1d", "use_conv_swiglu": False, "use_mlp": False,
        "attn_gate_type": None, "vocab_size": VOCABULARY, "num_puzzles": 3, "batch_size": 8, "pad_value": -1, "seq_len": CELLS,
        "output_dir": None,
    } | changes  # fmt: skip


def lightning(weights: dict[str, Tensor], **changes: Any) -> dict[str, Any]:
    return {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.5.5",
        "state_dict": weights,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val/exact_accuracy'}": {"best_model_score": torch.tensor(0.5), "dirpath": "x"}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(9)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": hyper_parameters(**changes),
    }


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "by place": ({}, {}, {}),
    "by row and column": ({}, {"pos_emb_type": "2d"}, {}),
    "early version": ({}, {"use_2d_rope": True}, {}),
    "no positions": ({}, {"pos_emb_type": None}, {}),
    "no puzzle embedding": ({"prefix": 0}, {"puzzle_emb_dim": 0, "puzzle_emb_len": 0}, {}),
    # Of other weights: eight applications of those of seed 1 amplify rounding so that on some processors one value in 4,864 is 2.5e-4 off.
    "mixer, late": ({"mixer": True, "seed": 37}, {"use_mlp": True}, {"mixer_norm": "features"}),
    "mixer, early": ({"mixer": True}, {"use_mlp": True}, {"mixer_norm": "sequence"}),
}


@pytest.mark.parametrize("case", CASES)
def test_loaded_models_equal_their_reference(tmp_path: Path, case: str) -> None:
    made, changes, assume = CASES[case]
    weights, payload = nano_weights(**made), None
    payload = lightning(weights, **changes)
    if case == "early version":
        del payload["hyper_parameters"]["pos_emb_type"]
    torch.save(payload, tmp_path / "last.ckpt")
    model = load_checkpoint(tmp_path, device="cpu", assume=assume or None)
    prefix, width = made.get("prefix", PREFIX), WIDTH // HEADS
    angles = None
    if case in ("by place", "no puzzle embedding"):
        angles = turns_by_place(prefix + CELLS, width)
    elif case in ("by row and column", "early version"):
        angles = turns_by_row_and_column(prefix, SIDE, width)
    reference = Reference(weights, HEADS, prefix, angles, norm_across=case == "mixer, early")
    assert (model.config.H_cycles, model.config.L_cycles, model.config.halt_max_steps) == (2, 3, 3)

    theirs = torch.randint(0, VOCABULARY, (4, CELLS), generator=torch.Generator().manual_seed(3))
    places = [0, *range(2, VOCABULARY), 1]  # our id -> theirs
    ours = torch.tensor([places.index(token) for token in theirs.flatten().tolist()]).view_as(theirs)
    puzzles = torch.tensor([0, 1, 2, 1])
    x = reference.embedded(theirs, puzzles, ("input_embedding.embedding_weight", "puzzle_emb.weights"))
    states: Any = (weights["z_H_init"].expand_as(x), weights["z_L_init"].expand_as(x))
    batch = {"inputs": ours, "puzzle_identifiers": puzzles if prefix else torch.zeros(4, dtype=torch.long)}
    carry = model.initial_carry(batch)
    with torch.no_grad():
        for _ in range(3):
            states, z = nano_step(reference, states, x, 2, 3)
            logits, halting = reference.read(z)
            carry, outputs = model(carry, batch)
            torch.testing.assert_close(outputs.logits, logits[..., places], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(outputs.q_halt_logits, halting[:, 0], rtol=1e-4, atol=1e-4)
            assert not outputs.q_continue_logits.any()
            torch.testing.assert_close(carry.z_H, states[0], rtol=1e-4, atol=1e-4)
            carry = replace(carry, z_H=states[0], z_L=states[1])


def test_averaged_weights_among_the_callbacks(tmp_path: Path) -> None:
    trained, averaged = nano_weights(1), nano_weights(2)
    payload = lightning(trained)
    payload["callbacks"]["EMACallback"] = {"ema_state_dict": {name: value for name, value in averaged.items() if "init" not in name}}
    torch.save(payload, tmp_path / "last.ckpt")
    model = load_checkpoint(tmp_path, device="cpu")
    assert model.details["weights"] == "averaged (EMA)"
    assert torch.equal(model.lm_head.weight[0], averaged["lm_head.weight"][0])
    assert torch.equal(model.H_init, trained["z_H_init"])


def test_forward_dtype_is_that_of_the_starts(tmp_path: Path) -> None:
    torch.save(lightning(nano_weights(dtype=torch.bfloat16)), tmp_path / "last.ckpt")
    assert load_checkpoint(tmp_path, device="cpu").config.forward_dtype == "bfloat16"


def test_sudoku_tokens_are_ours(tmp_path: Path) -> None:
    """A puzzle of this program, encoded by it, reaches the rows that nano-trm trained for the same cells."""
    weights = nano_weights()
    torch.save(lightning(weights), tmp_path / "last.ckpt")
    model = load_checkpoint(tmp_path, device="cpu")
    puzzle = load_puzzles("sudoku-6x6")[0]
    ids = get_domain("sudoku").encode(puzzle)
    theirs = [2 if value == 0 else value + 2 for value in puzzle.cells]
    embedded = model.embedding.tokens[torch.as_tensor(ids)]
    assert torch.equal(embedded, weights["input_embedding.embedding_weight"][torch.tensor(theirs)])
    session = Session(model, puzzle, policy=LaserPolicy(rank="50%"), seed=0)
    assert session.step().finite
    save_checkpoint(model, tmp_path / "own")
    again = load_checkpoint(tmp_path / "own", device="cpu")
    same(again, model)
    assert again.config == model.config and again.details["source"] == "nano-trm"


def test_padded_boards_keep_their_tokens(tmp_path: Path) -> None:
    weights = nano_weights()
    torch.save(lightning(weights, seq_len=64), tmp_path / "last.ckpt")
    model = load_checkpoint(tmp_path, device="cpu")
    assert torch.equal(model.lm_head.weight, weights["lm_head.weight"])
    assert "boards are padded to 64 cells" in model.details["warnings"][0]


def test_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    weights = nano_weights(mixer=True)
    torch.save(lightning(weights, use_mlp=True), tmp_path / "last.ckpt")
    with pytest.raises(CheckpointNeeds) as caught:
        load_checkpoint(tmp_path, device="cpu")
    (need,) = caught.value.needs
    assert (need.name, need.choices) == ("mixer_norm", ("features", "sequence"))
    torch.save({"state_dict": nano_weights()}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointNeeds, match="does not tell H_cycles") as caught:
        load_checkpoint(tmp_path, device="cpu")
    names = " ".join(need.name for need in caught.value.needs)
    assert names == "H_cycles L_cycles halt_max_steps num_heads pos_encodings puzzle_emb_len"
    assert load_checkpoint(tmp_path, device="cpu", assume="official").config.prefix_len == 16


def test_a_late_mixer_is_compressed_site_by_site_only(tmp_path: Path) -> None:
    torch.save(lightning(nano_weights(mixer=True), use_mlp=True), tmp_path / "last.ckpt")
    model = load_checkpoint(tmp_path, device="cpu", assume="official")
    batch = {"inputs": torch.ones(1, CELLS, dtype=torch.long), "puzzle_identifiers": torch.zeros(1, dtype=torch.long)}
    with pytest.raises(CompressionError, match='use mode="linear"'), compress(model.net, LaserPolicy(rank="50%"), mode="block"):
        model(model.initial_carry(batch), batch)
    with compress(model.net, LaserPolicy(rank="50%"), mode="linear"):
        model(model.initial_carry(batch), batch)[1].logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.net.parameters())


def test_relatives_that_do_otherwise_are_refused(tmp_path: Path) -> None:
    torch.save(lightning(nano_weights(), attn_gate_type="headwise"), tmp_path / "last.ckpt")
    assert "nano-trm with attn_gate_type = headwise, which is not supported" in refused(tmp_path)
    torch.save(lightning(nano_weights() | {"lenet.layers.0.mlp.dwconv.weight": torch.zeros(3)}), tmp_path / "last.ckpt")
    assert "convolution" in refused(tmp_path)
    torch.save(lightning(nano_weights() | {"lenet.layers.0.gate.weight": torch.zeros(3)}), tmp_path / "last.ckpt")
    assert "1 tensors that a nano-trm does not have: state_dict.lenet.layers.0.gate.weight" in refused(tmp_path)
    torch.save(lightning({name: value for name, value in nano_weights().items() if name != "q_head.bias"}), tmp_path / "last.ckpt")
    assert "1 missing: q_head.bias" in refused(tmp_path)
