"""Several puzzles in one run: the picture follows one, trackers and statistics see all."""

from __future__ import annotations

import pytest
import torch

from laser_studio.debugger import Session
from laser_studio.errors import PuzzleError
from laser_studio.laser import LaserPolicy
from laser_studio.puzzles import Puzzle, get_domain
from laser_studio.trm import TRM

POLICY = LaserPolicy(rank=4, min_fidelity=0.9, patience=2, growth=2)


def others(count: int) -> list[Puzzle]:
    return [get_domain("sudoku").generate(seed, size=4, difficulty="medium") for seed in range(10, 10 + count)]


def test_the_picture_follows_the_first_and_statistics_see_all(model: TRM, puzzle: Puzzle) -> None:
    companions = others(3)
    session = Session(model, puzzle, policy=POLICY, companions=companions)
    session.run()
    alone = [Session(model, one, policy=POLICY) for one in (puzzle, *companions)]
    for single in alone:
        single.run()
    for frame in session.frames:
        single_frames = [single.frames[frame.index] for single in alone]
        assert frame.answer == single_frames[0].answer and frame.changed == single_frames[0].changed
        assert frame.q_halt == pytest.approx(single_frames[0].q_halt, abs=1e-4)
        assert frame.residual == pytest.approx(single_frames[0].residual, rel=1e-3, abs=1e-4)
        assert frame.latent == pytest.approx(single_frames[0].latent, abs=1e-4)
        assert frame.batch == 4
        assert frame.batch_solved == sum(one.solved is True for one in single_frames)
        assert frame.batch_right == sum(one.right for one in single_frames) / sum(one.total for one in single_frames)
        # one tracker saw the rows of all puzzles
        assert frame.history.full_bytes == sum(one.history.full_bytes for one in single_frames)
        assert frame.step_full == sum(one.step_full for one in single_frames)
        assert frame.training.full_bytes == single_frames[0].training.full_bytes  # of one training step, whatever runs here
    last = session.frame
    kept = session.activations(last.index, "layers.0.mlp.down_proj")
    assert kept is not None and len(kept[0]) == 4 * len(alone[0].activations(last.index, "layers.0.mlp.down_proj")[0])  # type: ignore[index]


def test_bytes_of_a_step_add_up_to_the_ledger(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=POLICY)
    session.seek(3)
    exact = session.frame
    assert exact.step_full == exact.step_stored > 0
    frame = session.seek(5)
    ranks = {name: site.rank for name, site in session.frames[4].sites.items()}
    rows = {name: site.history.full_bytes // (5 * site.dim * 4) for name, site in frame.sites.items()}
    assert frame.step_stored == sum(4 * rows[name] * rank for name, rank in ranks.items())
    assert sum(one.step_full for one in session.frames) == frame.history.full_bytes


def test_the_latent_path_is_the_mean_cell_in_the_heads_plane(model: TRM, puzzle: Puzzle) -> None:
    frame = Session(model, puzzle, policy=POLICY).seek(4)
    batch = {
        "inputs": torch.as_tensor(get_domain("sudoku").encode(puzzle))[None],
        "puzzle_identifiers": torch.zeros(1, dtype=torch.long),
    }
    with torch.no_grad():
        step = list(model.recurse(model.initial_carry(batch), batch))[3]
    head = model.lm_head.weight.detach()
    vectors = torch.linalg.eigh(head.T @ head)[1]
    for axis in (0, 1):
        direction = vectors[:, -1 - axis]
        for place, state in ((axis, step.z_H), (2 + axis, step.z_L)):
            along = float(state[0, model.config.prefix_len :].mean(0) @ direction)
            assert abs(frame.latent[place]) == pytest.approx(abs(along), abs=1e-4)


def test_what_does_not_fit_together_is_refused(model: TRM, puzzle: Puzzle) -> None:
    with pytest.raises(PuzzleError, match="one kind and size"):
        Session(model, puzzle, companions=[get_domain("sudoku").generate(0, size=6, difficulty="easy")])
    with pytest.raises(PuzzleError, match="at most 64"):
        Session(model, puzzle, companions=[puzzle] * 64)
