"""Our own format: `model.safetensors` and `config.json` in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_safetensors

from laser_studio.errors import CheckpointError
from laser_studio.files import atomic_path
from laser_studio.trm.checkpoints.json_files import plain, read_json
from laser_studio.trm.checkpoints.loaded import Loaded, agreed, make_config
from laser_studio.trm.checkpoints.payload import Payload, read_rows
from laser_studio.trm.checkpoints.places import CONFIG_FILE, OFFICIAL_CONFIG_FILE, WEIGHTS_FILE
from laser_studio.trm.checkpoints.words import first, shown
from laser_studio.trm.model import TRM

FORMAT, VERSION = "laser-studio-trm", 1
MARK, EMBEDDING = "embedding.tokens", "embedding.puzzles"


def save_checkpoint(model: TRM, folder: str | Path, *, details: Mapping[str, Any] | None = None, half: bool = False) -> None:
    """Write `model.safetensors` and `config.json` into `folder`; a reader sees the old pair or the new one, never half a file.

    details: what to remember about the model (task, domain, accuracy …), as JSON; by default what the model was loaded
    with. `load_checkpoint` gives back every tensor bit for bit; with `half`, fp32 tensors go to disk as fp16 and come back as
    fp32 rounded that way. Raises `CheckpointError` where it cannot be written.
    """
    folder = Path(folder)
    if details is None:
        details = {key: value for key, value in model.details.items() if key != "warnings"}  # found anew by each load
    record = {"format": FORMAT, "version": VERSION, "architecture": asdict(model.config), "details": dict(details)}
    try:
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as failure:
        raise CheckpointError(f"details cannot be written as JSON: {failure}") from None
    # clone: safetensors refuses tensors that share memory, and a view would drag its whole storage along
    tensors = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in model.state_dict().items()}
    if half:
        tensors = {name: value.half() if value.dtype == torch.float32 else value for name, value in tensors.items()}
    try:
        # Both are written before either is renamed, so that old and new files mix only if the process dies between two renames.
        with atomic_path(folder / CONFIG_FILE) as config, atomic_path(folder / WEIGHTS_FILE) as weights:
            weights.write_bytes(save_safetensors(tensors, metadata={"format": FORMAT, "version": str(VERSION)}))
            config.write_text(text, encoding="utf-8")
    except OSError as failure:
        raise CheckpointError(f"{shown(folder.name)} cannot be written: {failure.strerror or 'unknown fault of the disk'}") from None


def read_own(file: Path, payload: Payload, seq_len: int | None) -> Loaded:
    """Architecture and details from `config.json` beside the file, tensors from it."""
    name, config_file = shown(file.name), file.parent / CONFIG_FILE
    if not config_file.is_file():
        raise CheckpointError(f"no {CONFIG_FILE} beside {name}: put the one that was saved with it there")
    record = read_json(config_file)
    if record.get("format") != FORMAT:
        raise CheckpointError(
            f"{CONFIG_FILE} beside {name} was not written by LASER Studio: give an official step_N with {OFFICIAL_CONFIG_FILE}"
        )
    if record.get("version") != VERSION:
        raise CheckpointError(
            f"{CONFIG_FILE} is of format version {shown(str(record.get('version')))}, this program reads {VERSION}: update it"
        )
    architecture, details = record.get("architecture"), record.get("details", {})
    if not isinstance(architecture, dict) or not isinstance(details, dict):
        raise CheckpointError(f"{CONFIG_FILE} lacks its architecture or details: take the file that was saved with {name}")
    config = make_config(architecture, CONFIG_FILE)
    if seq_len is not None:
        config = replace(config, seq_len=seq_len if config.seq_len is None else agreed(config.seq_len, seq_len, name))
    if payload.others:
        raise CheckpointError(f"{name} holds tensors that are not floating-point: {first(payload.others)}")
    # Halves are a saving of disk only: the model computes as it was trained.
    tensors = {
        key: tensor.float() if tensor.dtype == torch.float16 and not tensor.is_meta else tensor for key, tensor in payload.tensors.items()
    }
    for key, tensor in tensors.items():
        if tensor.is_meta and key != EMBEDDING:  # wide layers are read whole, of a large puzzle embedding rows are chosen later
            tensors[key] = read_rows(file, key)
    original = {key: key for key in tensors}
    return Loaded(config, tensors, {"source": "laser-studio", **plain(details), "file": file.name}, original)
