"""The official code's checkpoints (TRM, its variants with one state and with six, HRM): a state_dict, and `all_config.yaml` beside it.

Source: SamsungSAILMontreal/TinyRecursiveModels and sapientinc/HRM. Without the yaml, what the tensors do not tell is asked for.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from laser_studio.errors import CheckpointError
from laser_studio.files import atomic_path, read_yaml
from laser_studio.trm.checkpoints.asked import Asked
from laser_studio.trm.checkpoints.json_files import read_json
from laser_studio.trm.checkpoints.loaded import Loaded, agreed, make_config
from laser_studio.trm.checkpoints.needs import HOW, CheckpointNeeds, Need
from laser_studio.trm.checkpoints.payload import Payload
from laser_studio.trm.checkpoints.places import OFFICIAL_CONFIG_FILE
from laser_studio.trm.checkpoints.told import told_expansion, told_layers, told_length
from laser_studio.trm.checkpoints.weights import Weights, choose_weights
from laser_studio.trm.checkpoints.words import first, shown
from laser_studio.trm.config import TRMConfig
from laser_studio.trm.model import TRM

MARK = "embed_tokens.embedding_weight"

# official name (after its prefixes) -> ours
_RENAMED = {
    "embed_tokens.embedding_weight": "embedding.tokens",
    "puzzle_emb.weights": "embedding.puzzles",
    "embed_pos.embedding_weight": "embedding.positions",
}
_KEPT = ("H_init", "L_init", "lm_head.weight", "q_head.weight", "q_head.bias")
_LEVELS = tuple(f"L{level}_init" for level in range(1, 7))
_BLOCK = r"layers\.\d{1,4}\.(?:self_attn|mlp_t|mlp)\.\w{1,40}\.weight"

_MODULES = {"trm": "trm", "trm_singlez": "singlez", "trm_hier6": "hier6", "hrm": "hrm", "hrm_act_v1": "hrm"}
_CYCLES = {"trm": (3, 6), "singlez": (3, 6), "hier6": (3, 6), "hrm": (2, 2)}
_SUDOKU_VOCABULARY = 11
# read from tensors, or from the data: the yaml of a run does not hold them, and a copy of it might hold another run's
_NOT_OF_THE_YAML = ("loss", "batch_size", "seq_len", "vocab_size", "num_puzzle_identifiers")


def official_name(name: str, variant: str = "trm") -> str:
    """The official name (behind `inner.`) of one of our tensors."""
    back = {ours: theirs for theirs, ours in _RENAMED.items()}
    if variant == "hier6" and name == "L_init":
        return "L1_init"
    return back.get(name) or (
        (name.removeprefix("net.") if variant == "hrm" else "L_level." + name.removeprefix("net.")) if name.startswith("net.") else name
    )


def read_official(file: Path, payload: Payload, asked: Asked) -> Loaded:
    """A checkpoint whose token embedding is called `MARK`. Raises `CheckpointNeeds` for what nothing tells."""
    name = shown(file.name)
    weights = choose_weights(payload, file, MARK)
    variant = _variant(weights)
    tensors, original = _renamed(weights, variant, name)
    _check_matrices(tensors, original, weights, name)
    arch = _architecture(file, tensors, variant, asked)
    origin = OFFICIAL_CONFIG_FILE if (file.parent / OFFICIAL_CONFIG_FILE).is_file() else name
    told = told_length(tensors)
    # a mixer or a model with learned positions is refused without a length, and what it is comes from the tensors, prefix excluded
    config = make_config(arch | {"seq_len": told or 1}, origin)
    if told is not None:
        if told <= config.prefix_len:
            raise CheckpointError(f"{name}: {told} positions leave no room behind a prefix of puzzle_emb_len {config.prefix_len}")
        length: int | None = agreed(told - config.prefix_len, asked.seq_len, name)
    else:
        if config.mlp_t or config.pos_encodings == "learned":
            kind = "a mixer (mlp_t)" if config.mlp_t else "learned positions (embed_pos)"
            raise CheckpointError(f"{name} does not match its {origin}: that says {kind}, but there are no such tensors")
        length = asked.seq_len if asked.seq_len is not None else _dataset_length(file.parent / "dataset.json")
    config = replace(config, seq_len=length)
    for ours, tensor in tensors.items():
        dtype = getattr(torch, config.forward_dtype) if ours in ("H_init", "L_init") else torch.float32
        tensors[ours] = tensor if tensor.is_meta else tensor.to(dtype)
    details: dict[str, Any] = {"source": "HRM" if variant == "hrm" else "official", "file": file.name}
    if weights.averaged:
        details["weights"] = "averaged (EMA)"
    if asked.answers.taken:
        details["assumed"] = dict(asked.answers.taken)
    called = {ours: official_name(ours, variant) for ours in TRM_names(config)}
    return Loaded(config, tensors, details, original, called, weights.warnings)


def TRM_names(config: TRMConfig) -> list[str]:  # noqa: N802
    """Names of all tensors of such a model."""
    with torch.device("meta"):
        return list(TRM(config).state_dict())


def _variant(weights: Weights) -> str:
    names = weights.where
    if any(key.startswith("H_level.") for key in names):
        return "hrm"
    if any(key in names for key in _LEVELS):
        return "hier6"
    return "singlez" if "L_init" in names and "H_init" not in names else "trm"


def _renamed(weights: Weights, variant: str, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors under our names, and {our name: the file's}. Refuses every name a model of the variant does not have."""
    tensors: dict[str, Tensor] = {}
    original: dict[str, str] = {}
    unknown = []
    levels: dict[str, Tensor] = {}
    for key, whole in weights.where.items():
        ours = _our_name(key, variant)
        if variant == "hier6" and key in _LEVELS and key in weights.tensors:
            levels[key] = weights.tensors[key]
        elif ours is None:
            unknown.append(whole)
        elif key in weights.tensors:
            tensors[ours], original[ours] = weights.tensors[key], whole
    if unknown:
        kind = {"trm": "a TRM", "hrm": "an HRM"}.get(variant, f"trm_{variant}")
        raise CheckpointError(f"{name} has {len(unknown)} tensors that {kind} does not have: {first(unknown)}")
    if variant == "hier6":
        if missing := [key for key in _LEVELS if key not in levels]:
            raise CheckpointError(f"{name} does not match its configuration, tensors are {len(missing)} missing: {first(missing)}")
        if len({value.shape for value in levels.values()}) == 1:
            tensors["L_init"], original["L_init"] = torch.stack([levels[key] for key in _LEVELS]), weights.where["L1_init"]
    if variant == "singlez" and "L_init" in tensors:  # its one state is both
        tensors["H_init"], original["H_init"] = tensors["L_init"], original["L_init"]
    return tensors, original


def _our_name(stripped: str, variant: str) -> str | None:
    if stripped in _RENAMED:
        return _RENAMED[stripped]
    if stripped in _KEPT and not (variant == "hier6" and stripped == "L_init"):
        return stripped
    if variant == "hrm" and re.fullmatch(rf"[HL]_level\.{_BLOCK}", stripped, re.ASCII):
        return f"net.{stripped}"
    block = re.fullmatch(rf"L_level\.({_BLOCK})", stripped, re.ASCII)
    return f"net.{block[1]}" if block and variant != "hrm" else None


def _check_matrices(tensors: Mapping[str, Tensor], original: Mapping[str, str], weights: Weights, name: str) -> None:
    """What the architecture is read from has to be there, and of the right kind."""
    if weights.odd:
        wrong = first(f"{key} is {kind}" for key, kind in weights.odd.items())
        raise CheckpointError(f"{name} is not a state_dict of dense floating-point tensors: {wrong}")
    for ours in ("embedding.tokens", "embedding.puzzles"):
        if ours in tensors and tensors[ours].ndim != 2:
            raise CheckpointError(f"{name}: {shown(original[ours])} is no matrix, so it is not a TRM")


def _architecture(file: Path, tensors: Mapping[str, Tensor], variant: str, asked: Asked) -> dict[str, Any]:
    """`TRMConfig` fields: of the yaml, of the tensors, of what is assumed. Raises once for everything that stays unknown."""
    config_file, name = file.parent / OFFICIAL_CONFIG_FILE, shown(file.name)
    given = _read_arch(config_file, variant) if config_file.is_file() else {}
    tokens, puzzles, answers = tensors["embedding.tokens"], tensors.get("embedding.puzzles"), asked.answers
    ndim = puzzles.shape[1] if puzzles is not None else 0
    mixer = any(".mlp_t." in key for key in tensors)
    learned = "embedding.positions" in tensors
    told: dict[str, Any] = {
        "hidden_size": tokens.shape[1],
        "L_layers": told_layers(tensors, "net.L_level.layers." if variant == "hrm" else "net.layers."),
        "expansion": told_expansion(tensors),
        "mlp_t": mixer,
        "puzzle_emb_ndim": ndim,
    }
    if variant == "hrm":
        told |= {"H_layers": told_layers(tensors, "net.H_level.layers.")}
    if learned or (mixer and "pos_encodings" not in given):
        told["pos_encodings"] = "learned" if learned else "none"
    fixed = {"vocab_size": tokens.shape[0], "num_puzzle_identifiers": puzzles.shape[0] if puzzles is not None else 1, "variant": variant}
    if variant == "hrm":  # its code knows neither setting: the prefix is as long as it must be, and halting weighs both values
        fixed |= {"puzzle_emb_len": 0, "no_ACT_continue": False}
    known = told | given | fixed
    for key, value in known.items():
        answers.know(key, value)
    needs = [need for need in _needs(variant, tokens.shape[0], mixer=mixer, prefix=bool(ndim), yaml=bool(given)) if need.name not in known]
    arch = known | {need.name: answers.ask(need) for need in needs}
    arch |= answers.rest([item.name for item in fields(TRMConfig)], needs)
    if answers.open:
        raise CheckpointNeeds(_asking(answers.open, name, bool(given)), answers.open)
    return arch


def _needs(variant: str, vocabulary: int, *, mixer: bool, prefix: bool, yaml: bool) -> list[Need]:
    """What tensors never tell, in the order to ask it."""
    H_cycles, L_cycles = _CYCLES[variant]
    if variant == "trm" and vocabulary != _SUDOKU_VOCABULARY:
        L_cycles = 4  # Maze and ARC
    needs = [
        Need("H_cycles", "cycles that end in an update of z_H, per supervision step", H_cycles),
        Need("L_cycles", "updates of z_L in each of them", L_cycles),
        Need("halt_max_steps", "supervision steps of a run", 16),
    ]
    if not mixer:
        needs.append(Need("num_heads", "attention heads", 8))
        needs.append(Need("pos_encodings", "how attention knows places", "rope", ("rope", "none")))
    if not yaml:  # the official code has defaults for these, so a yaml without them means the defaults
        if prefix and variant != "hrm":
            needs.append(Need("puzzle_emb_len", "tokens the puzzle embedding takes; 0: as few as hold it", 16))
        needs.append(Need("forward_dtype", "dtype of states and matrix products", "bfloat16", ("bfloat16", "float32")))
    return needs


def _asking(needs: tuple[Need, ...], name: str, has_yaml: bool) -> str:
    if has_yaml:
        return f"{OFFICIAL_CONFIG_FILE} lacks {', '.join('arch.' + str(need) for need in needs)}, which the tensors do not tell: {HOW}"
    return (
        f"no {OFFICIAL_CONFIG_FILE} beside {name}: the tensors do not tell {', '.join(map(str, needs))}; "
        f"put the one of the training run there, or {HOW}"
    )


def _read_arch(file: Path, variant: str) -> dict[str, Any]:
    """The `arch` section that configures the forward pass, as `TRMConfig` fields."""
    try:
        record = read_yaml(file)
    except ValueError as problem:
        raise CheckpointError(f"{file.name} {problem}: use the file as the official trainer wrote it") from None
    arch = record.get("arch") if isinstance(record, dict) else None
    if not isinstance(arch, dict) or not arch:
        raise CheckpointError(f"{file.name} has no `arch` section: use the file as the official trainer wrote it")
    arch = {key: value for key, value in arch.items() if key not in _NOT_OF_THE_YAML}
    module = str(arch.pop("name", "")).split("@")[0].split(".")[-1]
    if module and _MODULES.get(module) != variant:
        known = "which is not supported" if module not in _MODULES else f"but the tensors are those of {variant}"
        raise CheckpointError(f"{file.name} names the architecture {shown(module)!r}, {known}: use the file of the same run")
    open_ends = [f"arch.{key} = {value}" for key, value in arch.items() if isinstance(value, str) and "${" in value]
    if open_ends:
        raise CheckpointError(f"{file.name} holds unresolved references: {first(open_ends)}; write the numbers in their place")
    known_fields = {item.name for item in fields(TRMConfig)} - {"variant"}
    # A variant's extra switch may change the arithmetic without changing a shape; switched off it is harmless.
    strange = [str(key) for key, value in arch.items() if key not in known_fields and value not in (None, False, 0, "")]
    if strange:
        raise CheckpointError(
            f"{file.name} has settings the official code does not have: {first(strange)}; if they do not matter, remove them"
        )
    return {key: value for key, value in arch.items() if key in known_fields}


def _dataset_length(file: Path) -> int | None:
    if not file.is_file():
        return None
    length = read_json(file).get("seq_len")
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise CheckpointError(f"{file.name} has no usable seq_len: correct it, or give seq_len")
    return length


# --- writing --------------------------------------------------------------------------------------------------------


def official_weights(model: TRM) -> dict[str, Tensor]:
    """The model's own tensors (not copies) under the official names, without prefix."""
    variant, found = model.config.variant, dict[str, Tensor]()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if variant == "hier6" and name == "L_init":
            found |= {key: tensor[place] for place, key in enumerate(_LEVELS)}
        elif not (variant == "singlez" and name == "H_init"):
            found[official_name(name, variant)] = tensor
    return found


def save_official(model: TRM, folder: str | Path, *, step: int = 0) -> Path:
    """Write `step_N` and `all_config.yaml` as the official trainer does, for its code to load; returns the file.

    Raises `CheckpointError` for a model the official code cannot express, and where it cannot be written.
    """
    config, folder = model.config, Path(folder)
    plain = TRMConfig(vocab_size=2)
    if config.variant not in _MODULES.values():
        raise CheckpointError(f"the official code has no {config.variant} model: it cannot be written in its format")
    own = [name for name in ("mixer_norm", "rope_columns", "rope_grid") if getattr(config, name) != getattr(plain, name)]
    if own:
        raise CheckpointError(f"the official code has no {', '.join(own)}: this model cannot be written in its format")
    module = {variant: name for name, variant in reversed(_MODULES.items())}[config.variant]
    kind = "HierarchicalReasoningModel_ACTV1" if config.variant == "hrm" else "TinyRecursiveReasoningModel_ACTV1"
    left_out = {"variant", "mixer_norm", "rope_columns", "rope_grid", "token_width", "feature_width", *_NOT_OF_THE_YAML}
    if config.variant == "hrm":
        left_out |= {"puzzle_emb_len", "no_ACT_continue"}
    arch = {item.name: getattr(config, item.name) for item in fields(TRMConfig) if item.name not in left_out}
    arch |= {"name": f"recursive_reasoning.{module}@{kind}", "loss": {"name": "losses@ACTLossHead", "loss_type": "stablemax_cross_entropy"}}
    buffer = io.BytesIO()
    torch.save({f"_orig_mod.model.inner.{name}": value.detach().cpu().clone() for name, value in official_weights(model).items()}, buffer)
    file = folder / f"step_{step}"
    try:
        with atomic_path(folder / OFFICIAL_CONFIG_FILE) as text, atomic_path(file) as weights:
            weights.write_bytes(buffer.getvalue())
            text.write_text(yaml.safe_dump({"arch": arch}, sort_keys=False), encoding="utf-8")
    except OSError as failure:
        raise CheckpointError(f"{shown(folder.name)} cannot be written: {failure.strerror or 'unknown fault of the disk'}") from None
    return file
