"""Where a cell reads from: against the attention module's own output, finite differences, and sites changed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from laser_studio.debugger import Session
from laser_studio.debugger.mixing import attention_rows, mixer_row, mixing
from laser_studio.debugger.net_application import NetApplication
from laser_studio.errors import InspectionError
from laser_studio.laser import LaserPolicy, find_sites
from laser_studio.puzzles import Puzzle
from laser_studio.trm import TRM, TRMConfig
from laser_studio.trm.layers import Attention, Block, SwiGLU, rope_table
from tests.debugger.conftest import tiny_model
from tests.laser.helpers import traces

POLICY = LaserPolicy(rank=5, min_fidelity=0.0)


def session_of(model: TRM, puzzle: Puzzle, steps: int = 12) -> Session:
    session = Session(model, puzzle, policy=POLICY)
    session.seek(steps)
    return session


@pytest.mark.parametrize("positions", ["rope", "none"])
def test_attention_weights_times_values_are_what_the_module_mixes(positions: str) -> None:
    torch.manual_seed(0)
    config = TRMConfig(vocab_size=6, seq_len=9, hidden_size=32, num_heads=4, pos_encodings=positions)  # type: ignore[arg-type]
    attention, x = Attention(config), 3 * torch.randn(1, 9, 32)
    rope = rope_table(9, config.head_dim, 10_000.0, torch.device("cpu")) if positions == "rope" else None
    with torch.no_grad():
        qkv = attention.qkv_proj(x)
        _, _, v = attention.heads(qkv, rope)
        mixed = attention.mix(qkv, rope)  # what o_proj reads
        for token in range(9):
            weights = attention_rows(attention, x, rope, token)
            assert weights.shape == (4, 9)
            torch.testing.assert_close(weights.sum(1), torch.ones(4))
            torch.testing.assert_close((weights[:, None] @ v[0])[:, 0].flatten(), mixed[0, token], atol=1e-5, rtol=1e-4)


def test_the_weights_are_those_of_the_run(model: TRM, puzzle: Puzzle) -> None:
    """o_proj's recorded input of the cell is the weights times the values of the layer's recorded qkv output."""
    session = session_of(model, puzzle)
    prefix, heads = model.config.prefix_len, model.config.num_heads
    for index in (2, 9, 11):
        visits = {visit.site: visit for visit in session.inside(index)}
        for layer in range(2):
            found = mixing(session, cell=5, index=index, layer=layer)
            assert found.kind == "attention" and found.exact.weights.shape == (heads, prefix + 16)
            torch.testing.assert_close(found.exact.weights.sum(1), torch.ones(heads))
            torch.testing.assert_close(found.exact.mean.sum(), torch.tensor(1.0))
            qkv = visits[f"layers.{layer}.self_attn.qkv_proj"].outputs
            v = qkv[:, 2 * model.config.hidden_size :].view(len(qkv), heads, -1)  # (P + T, heads, head_dim)
            mixed = torch.einsum("ht,thd->hd", found.exact.weights, v).flatten()
            torch.testing.assert_close(mixed, visits[f"layers.{layer}.self_attn.o_proj"].inputs[prefix + 5], atol=1e-5, rtol=1e-4)


def test_the_mixers_row_is_that_of_finite_differences() -> None:
    torch.manual_seed(1)
    mixer, x, token = SwiGLU(10, 2.0).double(), torch.randn(7, 10).double(), 4
    mixer_32, x_32 = SwiGLU(10, 2.0), x.float()
    mixer_32.load_state_dict({name: value.float() for name, value in mixer.state_dict().items()})
    row = mixer_row(mixer_32, x_32, token)
    step, expected = 1e-5, torch.zeros(10).double()
    with torch.no_grad():
        for j in range(10):
            moved = torch.zeros_like(x)
            moved[:, j] = step
            slope = (mixer(x + moved)[:, token] - mixer(x - moved)[:, token]) / (2 * step)  # per channel: they do not mix
            expected[j] = slope.abs().mean()
    torch.testing.assert_close(row.double(), expected, rtol=1e-3, atol=1e-6)
    assert float(row.std()) > 0


def test_a_mixer_reads_its_layers_input(puzzle: Puzzle) -> None:
    model = tiny_model(mlp_t=True)
    session = session_of(model, puzzle)
    found = mixing(session, cell=3, index=11, layer=1)
    x = next(visit.inputs for visit in session.inside(11) if visit.site == "layers.1.mlp_t.gate_up_proj")  # (D, P + T)
    block = model.nets[0].layers[1]
    assert isinstance(block, Block)
    mixer, token = block.mlp_t, model.config.prefix_len + 3
    rows = torch.autograd.functional.jacobian(lambda row: mixer(row)[token], x[0])  # one channel by itself
    assert rows.shape == (18,)
    every = torch.stack([torch.autograd.functional.jacobian(lambda row: mixer(row)[token], channel) for channel in x]).abs().mean(0)
    assert found.kind == "mixer" and found.exact.weights.shape == (1, 18)
    torch.testing.assert_close(found.exact.weights[0], every / every.sum(), rtol=1e-4, atol=1e-6)
    assert float(found.exact.total) == pytest.approx(float(every.sum()), rel=1e-4)


@pytest.mark.parametrize("mlp_t", [False, True])
@pytest.mark.parametrize("index", [11, 12])
def test_compressed_is_what_weights_that_see_only_the_basis_read(puzzle: Puzzle, mlp_t: bool, index: int) -> None:
    session = session_of(tiny_model(mlp_t=mlp_t), puzzle)
    application = NetApplication(session, index)
    changed = tiny_model(mlp_t=mlp_t)  # W(QQᵀx) = (WQQᵀ)x
    layers = find_sites(changed.net)
    with torch.no_grad():
        for name, basis in application.bases.items():
            layers[name].weight.copy_(layers[name].weight @ basis @ basis.T)
    for layer in range(2):
        found = mixing(session, cell=6, index=index, layer=layer)
        assert found.compressed is not None and found.difference is not None and found.moved is not None
        seen: list[torch.Tensor] = []
        block = changed.nets[0].layers[layer]
        assert isinstance(block, Block)
        module: SwiGLU | Attention = block.mlp_t if mlp_t else block.self_attn
        handle = module.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0].clone()))
        with torch.no_grad():
            changed.net(application.z, application.injection, application.rope)
        handle.remove()
        token = changed.config.prefix_len + 6
        if isinstance(module, SwiGLU):
            expected = mixer_row(module, seen[0][0], token)[None]
        else:
            expected = attention_rows(module, seen[0], application.rope, token).detach()
        expected = F.normalize(expected, p=1, dim=1)
        torch.testing.assert_close(found.compressed.weights, expected, atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(found.difference, found.compressed.weights - found.exact.weights)
        assert 1e-4 < float(found.moved.max()) <= 1
        torch.testing.assert_close(found.moved, found.difference.clamp(min=0).sum(1), atol=1e-5, rtol=1e-3)  # what comes goes


def test_a_complete_basis_reads_as_the_exact_activations_do(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=replace(POLICY, rank="100%"))
    session.seek(8)
    found = mixing(session, 0, 8)
    assert found.moved is not None and float(found.moved.max()) < 1e-5
    assert mixing(session, 0, 2).compressed is None  # the first window has no basis yet


def test_a_run_that_is_asked_goes_on_as_if_it_had_not_been(puzzle: Puzzle) -> None:
    for mlp_t in (False, True):
        model = tiny_model(mlp_t=mlp_t)
        asked, other = (Session(model, puzzle, policy=POLICY) for _ in range(2))
        other.run()
        rows = []
        while not asked.finished:
            asked.step()
            rows.append(mixing(asked, 4, asked.head, layer=1).exact.weights)
            assert torch.equal(mixing(asked, 4, max(1, asked.head - 3), layer=1).exact.weights, rows[max(0, asked.head - 4)])
        assert list(asked.frames) == list(other.frames)
        assert all(parameter.grad is None for parameter in model.parameters())
        assert traces(model) == 0


def test_what_there_is_not_is_refused_by_name(model: TRM, puzzle: Puzzle) -> None:
    session = session_of(model, puzzle, 4)
    for cell, index, layer, says in [
        (16, 2, 0, "no cell 16"),
        (-1, 2, 0, "no cell -1"),
        (0, 0, 0, "step 0"),
        (0, 5, 0, "not recorded"),
        (0, 2, 2, "no layer 2"),
    ]:
        with pytest.raises(InspectionError, match=says):
            mixing(session, cell, index, layer)
