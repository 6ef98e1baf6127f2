"""Training on compressed activations with every fused kernel in use, run by Triton's interpreter where there is no GPU."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not made for this system")

from laser_studio import kernels
from laser_studio.kernels import gates, norms, rotary, rows
from laser_studio.lab.gradcheck import compare_gradients, gradients_of, mixed_steps
from laser_studio.lab.tasks import get_task
from laser_studio.laser import LaserPolicy, compress
from laser_studio.laser.policy import ALL_OFF
from laser_studio.trm import TRM, TRMConfig, layers, pullbacks

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = pytest.mark.parametrize(
    ("mlp_t", "dtype", "storage"),
    [
        (False, "float32", "int8"),
        (False, "float32", "exact"),
        (False, "float32", {"*": "int8", layers.WITHIN_BLOCKS: "recomputed"}),
        (False, "bfloat16", {"*": "int8", layers.WITHIN_BLOCKS: "recomputed"}),
        (False, "bfloat16", "int4"),
        (True, "float32", {"*": "int8", layers.WITHIN_BLOCKS: "recomputed"}),
        (True, "bfloat16", "int8"),
    ],
    ids=str,
)


def cosine(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    return compare_gradients(found, wanted)[0].cosine


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the fused functions that were called."""
    names: set[str] = set()

    def noted(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: names.add(name) or plain(*args)  # type: ignore[func-returns-value]

    for module in (rows, norms, gates, rotary):
        for name, plain in inspect.getmembers(module, inspect.isfunction):
            if plain.__module__ == module.__name__:
                monkeypatch.setattr(module, name, noted(name, plain))
    return names


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("products", ["auto", "bf16"])
@CASES
def test_gradients_are_those_without_the_kernels(
    monkeypatch: pytest.MonkeyPatch, used: set[str], mlp_t: bool, dtype: Any, storage: Any, products: Any
) -> None:
    task = get_task("sudoku-4x4")
    config = TRMConfig(
        vocab_size=task.vocab_size,
        seq_len=task.seq_len,
        num_puzzle_identifiers=task.identifiers(),
        H_cycles=1,
        L_cycles=2,
        hidden_size=64,
        num_heads=2,
        forward_dtype=dtype,
        puzzle_emb_ndim=64,
        mlp_t=mlp_t,
    )
    model = TRM(config, seed=1).to(DEVICE).eval()
    step = next(mixed_steps(model, task.puzzles(8, 0, "held-out"), 2, 0))
    laser = compress(model, LaserPolicy(sites=ALL_OFF), storage=storage, products=products)

    def gradients(by_kernels: bool) -> dict[str, Tensor]:
        used.clear()
        monkeypatch.setattr(kernels, "usable", lambda x: by_kernels)
        monkeypatch.setattr(pullbacks, "is_short", lambda qkv: not by_kernels)
        found = gradients_of(model, *step, laser)[1]
        laser.step()
        return found

    plain, wanted = gradients_of(model, *step)[1], gradients(False)
    assert not used
    found = gradients(True)
    expected = {"gated", "gated_pulled", "norm_pulled"}
    if storage != "exact":
        expected |= {"quantised_in_four", "restored_from_four"} if storage == "int4" else {"quantised", "restored"}
    expected |= set() if mlp_t else {"rotated", "turned_back"}
    expected |= {"normed_sum"} if isinstance(storage, dict) and not mlp_t else set()
    assert expected <= used
    # Where codes are rounded otherwise, by one of 127 steps at most, as the interpreter does; in full only sums are in another order.
    assert cosine(found, wanted) > (0.999 if dtype == "bfloat16" else 0.9998 if storage != "exact" else 0.9999999)
    assert cosine(found, plain) > (0.99 if storage == "int4" else 0.999)
