"""From nested dicts and lists to names joined by dots, within bounds: depth, number of things, no loops, no key that is no text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from laser_studio.untrusted.descriptions import Described, Odd
from laser_studio.untrusted.faults import Refused

MAX_DEPTH = 12
MAX_NODES = 200_000
MAX_TENSORS = 10_000
MAX_NAME = 1_000  # characters
MAX_TEXT = 20_000  # characters of one fact

# What training keeps beside the weights, under these names at the top; it is neither looked at nor taken for weights.
TRAINING_STATE = (
    "optimizer", "optimizers", "optimizer_state", "optimizer_states", "optimizer_state_dict", "optim", "lr_scheduler", "lr_schedulers",
    "scheduler", "scheduler_state_dict", "scaler", "grad_scaler", "rng", "rng_state", "rng_states", "cuda_rng_state", "loops",
    "carry", "train_state", "averaging_state",
)  # fmt: skip


@dataclass
class Flat:
    """Tensors and odd tensors by name, and what stands beside them, in the order of the file.

    facts: scalars and texts as they are; dicts without their tensors; lists of scalars and of such dicts.
    """

    tensors: dict[str, Described] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    facts: Any = None


def flatten(payload: Any) -> Flat:
    """Raises `Refused` for what no trainer writes."""
    walk = _Walk()
    walk.flat.facts = walk.visit(payload, "", 0)
    return walk.flat


_NOTHING = object()  # a tensor's place among the facts


class _Walk:
    def __init__(self) -> None:
        self.flat, self.nodes, self.above = Flat(), 0, set[int]()

    def visit(self, value: Any, name: str, depth: int) -> Any:
        """What `value` leaves among the facts."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise Refused("much", f"{MAX_NODES:,} values")
        if isinstance(value, (Described, Odd)):
            self._keep(value, name)
            return _NOTHING
        if isinstance(value, (dict, list, tuple)):
            return self._inside(value, name, depth)
        if value is None or isinstance(value, (bool, float)):
            return value
        if isinstance(value, int):
            return value if -(1 << 63) <= value < 1 << 64 else _NOTHING
        return value if isinstance(value, str) and len(value) <= MAX_TEXT else _NOTHING

    def _inside(self, value: Any, name: str, depth: int) -> Any:
        if id(value) in self.above:
            raise Refused("loop")
        if depth >= MAX_DEPTH:
            raise Refused("deep", f"{MAX_DEPTH} levels")
        self.above.add(id(value))
        if isinstance(value, dict):
            found: Any = {}
            for key, item in value.items():
                if depth == 0 and key in TRAINING_STATE:
                    continue
                if (kept := self.visit(item, self._below(name, key, depth), depth + 1)) is not _NOTHING:
                    found[str(key)] = kept
        else:
            visited = [self.visit(item, self._below(name, place, depth + 1), depth + 1) for place, item in enumerate(value)]
            found = [kept for kept in visited if kept is not _NOTHING]
        self.above.remove(id(value))
        return found

    @staticmethod
    def _below(name: str, key: Any, depth: int) -> str:
        # Optimisers number their parameters; a state_dict is named by text alone.
        if not isinstance(key, str) and (depth == 0 or type(key) is not int):
            where = f" of {name[:80]}" if name else ""
            raise Refused("keys", f"a key{where} is no text but of type {type(key).__name__}")
        full = f"{name}.{key}" if name else str(key)
        if len(full) > MAX_NAME:
            raise Refused("keys", f"a name has more than {MAX_NAME:,} characters")
        return full

    def _keep(self, value: Described | Odd, name: str) -> None:
        if name in self.flat.tensors or name in self.flat.odd:
            raise Refused("twice", name)
        if len(self.flat.tensors) + len(self.flat.odd) >= MAX_TENSORS:
            raise Refused("much", f"{MAX_TENSORS:,} tensors")
        if isinstance(value, Described):
            self.flat.tensors[name] = value
        else:
            self.flat.odd[name] = value.kind
