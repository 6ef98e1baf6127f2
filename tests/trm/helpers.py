"""Small models, batches and files that the tests of `trm` share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from laser_studio.lab.plain_trm import plain_weights
from laser_studio.trm import TRM, TRMConfig

CONFORMANCE = Path(__file__).resolve().parent.parent / "data" / "conformance"
LENGTH, VOCABULARY, PUZZLES = 12, 7, 4


def small_config(**changes: Any) -> TRMConfig:
    """H_cycles 2, L_cycles 2, two blocks of width 32; everything may be changed."""
    values: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "seq_len": LENGTH,
        "num_puzzle_identifiers": PUZZLES,
        "H_cycles": 2,
        "L_cycles": 2,
        "hidden_size": 32,
        "num_heads": 4,
        "forward_dtype": "float32",
        "puzzle_emb_ndim": 40,
        "puzzle_emb_len": 0,
        "halt_max_steps": 3,
    }
    return TRMConfig(**(values | changes))


def small_model(seed: int = 1, **changes: Any) -> TRM:
    """A model whose halting head and puzzle embedding are random too (both start at zero otherwise, which would hide faults)."""
    model = TRM(small_config(**changes), seed=seed).eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.q_head.weight.normal_(generator=draw)
        if model.embedding.puzzles is not None:
            model.embedding.puzzles.normal_(generator=draw)
    return model


def small_batch(size: int = 3, seed: int = 2) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "inputs": torch.randint(0, VOCABULARY, (size, LENGTH), generator=draw),
        "puzzle_identifiers": torch.randint(0, PUZZLES, (size,), generator=draw),
    }


def write_official(folder: Path, model: TRM, *, prefix: str = "_orig_mod.model.inner.", step: int = 7, **arch: Any) -> Path:
    """`model` as the official trainer writes it; `arch` changes the yaml, None removes a line. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"step_{step}"
    torch.save({prefix + name: tensor.detach().clone() for name, tensor in plain_weights(model).items()}, file)
    config = model.config
    names = (
        "H_cycles L_cycles H_layers L_layers hidden_size num_heads expansion pos_encodings forward_dtype mlp_t "
        "puzzle_emb_ndim puzzle_emb_len halt_max_steps halt_exploration_prob no_ACT_continue"
    )
    record: dict[str, Any] = {name: getattr(config, name) for name in names.split()}
    record |= {"name": "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1", "loss": {"name": "losses@ACTLossHead"}} | arch
    text = yaml.safe_dump({"arch": {key: value for key, value in record.items() if value is not None}, "ema": True})
    (folder / "all_config.yaml").write_text(text)
    return file
