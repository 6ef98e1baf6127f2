"""lucidrains/tiny-recursive-model around its MLPMixer1D, compared with its arithmetic restated; around other networks refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from laser_studio.debugger import Measures, Session
from laser_studio.errors import CheckpointError
from laser_studio.laser import LaserPolicy
from laser_studio.puzzles import load_puzzles
from laser_studio.trm import CheckpointNeeds, load_checkpoint, save_checkpoint, save_official
from tests.trm.references import lucid_step
from tests.trm.test_checkpoints import refused, same

CELLS, VOCABULARY, WIDTH = 36, 8, 16
CYCLES = {"H_cycles": 2, "L_cycles": 3, "halt_max_steps": 4}


def lucid_weights(registers: int = 2, seed: int = 1) -> dict[str, Tensor]:
    """Random weights under its names."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw) / max(shape[-1], shape[1] if len(shape) == 3 else 1) ** 0.5

    length = CELLS + registers
    found = {
        "input_embed.weight": torch.randn(VOCABULARY, WIDTH, generator=draw),
        "output_init_embed": normal(WIDTH),
        "latent_init_embed": normal(WIDTH),
        "register_tokens": torch.randn(registers, WIDTH, generator=draw),
        "to_pred.weight": normal(VOCABULARY, WIDTH),
        "to_halt_pred.1.weight": normal(1, WIDTH),
    }
    for block in range(2):
        at = f"network.{block}"
        found |= {f"{at}.{part}.norm.weight": 1 + 0.1 * torch.randn(WIDTH, generator=draw) for part in (0, 1)}
        found |= {f"{at}.0.fn.0.weight": normal(64, length, 1), f"{at}.0.fn.0.bias": normal(64)}
        found |= {f"{at}.0.fn.3.weight": normal(length, 64, 1), f"{at}.0.fn.3.bias": normal(length)}
        found |= {f"{at}.1.fn.0.weight": normal(8, WIDTH), f"{at}.1.fn.0.bias": normal(8)}
        found |= {f"{at}.1.fn.3.weight": normal(WIDTH, 8), f"{at}.1.fn.3.bias": normal(WIDTH)}
    found["network.2.weight"] = 1 + 0.1 * torch.randn(WIDTH, generator=draw)
    return found


@pytest.mark.parametrize("registers", [0, 2])
def test_loaded_models_equal_their_reference(tmp_path: Path, registers: int) -> None:
    weights = lucid_weights(registers)
    torch.save(weights, tmp_path / "model.pt")
    model = load_checkpoint(tmp_path, device="cpu", assume=CYCLES)
    assert model.details["source"] == "lucidrains" and model.config.prefix_len == registers
    tokens = torch.randint(0, VOCABULARY, (3, CELLS), generator=torch.Generator().manual_seed(2))
    x = torch.cat([weights["register_tokens"].expand(3, registers, WIDTH), weights["input_embed.weight"][tokens]], 1)
    states: Any = weights["output_init_embed"].expand_as(x), weights["latent_init_embed"].expand_as(x)
    batch = {"inputs": tokens, "puzzle_identifiers": torch.zeros(3, dtype=torch.long)}
    carry = model.initial_carry(batch)
    with torch.no_grad():
        for _ in range(4):
            states, logits, halt = lucid_step(weights, states, x, 2, 3)
            carry, outputs = model(carry, batch)
            torch.testing.assert_close(outputs.logits, logits, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(outputs.q_halt_logits, halt, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(carry.z_L, states[1], rtol=1e-4, atol=1e-4)
            carry = replace(carry, z_H=states[0], z_L=states[1])
    assert logits.std() > 0.1


def test_needs_round_trip_and_session(tmp_path: Path) -> None:
    torch.save({"model": lucid_weights()}, tmp_path / "model.pt")
    with pytest.raises(CheckpointNeeds) as caught:
        load_checkpoint(tmp_path, device="cpu")
    assert caught.value.proposal == {"H_cycles": 3, "L_cycles": 6, "halt_max_steps": 12}
    model = load_checkpoint(tmp_path, device="cpu", assume=CYCLES)
    save_checkpoint(model, tmp_path / "own")
    same(load_checkpoint(tmp_path / "own", device="cpu"), model)
    with pytest.raises(CheckpointError, match="the official code has no lucidrains model"):
        save_official(model, tmp_path / "official")
    policy, measures = LaserPolicy(rank="100%"), Measures(functional=True, gradient=True)
    session = Session(model, load_puzzles("sudoku-6x6")[0], policy=policy, measures=measures, seed=0)
    frames = [session.step() for _ in range(2 * model.config.steps_per_supervision)]
    assert set(frames[-1].sites) == set(session.sites) and len(session.sites) == 8
    assert frames[-1].functional == pytest.approx(1, abs=1e-4) and frames[-1].training_all.full_bytes > 0


def test_faults(tmp_path: Path) -> None:
    weights = lucid_weights()
    around = {name: value for name, value in weights.items() if "network" not in name} | {
        "network.layers.0.1.to_q.weight": torch.zeros(3, 3)
    }
    torch.save(around, tmp_path / "step_1")
    assert "around a network other than its MLPMixer1D, which is not supported" in refused(tmp_path)
    torch.save(weights | {"network.0.2.fn.0.weight": torch.zeros(3)}, tmp_path / "step_1")
    assert "1 tensors that a lucidrains TRM with MLPMixer1D does not have: network.0.2.fn.0.weight" in refused(tmp_path)
    torch.save({name: value for name, value in weights.items() if name != "network.1.0.norm.weight"}, tmp_path / "step_1")
    assert "1 missing: net.layers.1.token_norm.weight" in refused(tmp_path, assume=CYCLES)
    torch.save(weights | {"register_tokens": torch.zeros(2, 5)}, tmp_path / "step_1")
    assert "register_tokens is 2×5, the tokens are 16 wide" in refused(tmp_path, assume=CYCLES)
