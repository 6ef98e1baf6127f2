"""Interventions as records: JSON both ways, sentences, bounds, what they do to tensors, puzzles and the order of steps."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from laser_studio.debugger.interventions import (
    ChangeCycles,
    ChangeState,
    EditToken,
    Intervention,
    Planned,
    Reconstruct,
    ScaleDirection,
    edited,
    read_intervention,
    read_planned,
)
from laser_studio.debugger.schedule import CycleChange, Schedule, Size
from laser_studio.errors import InterventionError
from laser_studio.puzzles import Puzzle, get_domain
from tests.debugger.conftest import tiny_model

EVERY_KIND: list[Intervention] = [
    EditToken(row=2, column=3, value=4),
    Reconstruct(),
    Reconstruct(sites=("layers.0.mlp.down_proj",), rank="25%", basis="held", steps=6),
    Reconstruct(rank=3),
    ScaleDirection(site="layers.0.mlp.down_proj", index=2, factor=-1.5, basis="live"),
    ChangeState(state="L", change="noise", size=0.25, seed=7),
    ChangeState(),
    ChangeCycles(level="H", change=-1, every=True),
]


@pytest.mark.parametrize("what", EVERY_KIND, ids=lambda what: what.kind)
def test_json_is_read_back_equal(what: Intervention) -> None:
    planned = Planned(12, what)
    assert read_intervention(json.loads(json.dumps(what.to_json()))) == what
    assert read_planned(json.loads(json.dumps(planned.to_json()))) == planned


def test_sentences_say_what_from_when_and_how_long() -> None:
    assert [Planned(12, what).text for what in EVERY_KIND] == [
        "cell R2C3 of the puzzle set to 4, from step 13 on",
        "every site reads its reconstruction from the basis in force, from step 13 on",
        "layers.0.mlp.down_proj reads its reconstruction from rank 25%, held, steps 13 to 18",
        "every site reads its reconstruction from rank 3, from step 13 on",
        "direction 2 of layers.0.mlp.down_proj scaled by -1.5, as it turns, from step 13 on",
        "noise of 0.25 of its norm added to z_L (seed 7), once, after step 12",
        "z_H set to zero, once, after step 12",
        "1 H cycle left out of every supervision step, from step 13 on",
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "dictionary"),
        ([], "dictionary"),
        ({}, "no intervention is called ''"),
        ({"kind": "explode"}, "edit, reconstruct, scale, state, cycles"),
        ({"kind": ["edit"]}, "no intervention"),
        ({"kind": "edit", "row": 0, "column": 1, "value": 1}, "row"),
        ({"kind": "edit", "row": 1, "column": 1}, "value"),
        ({"kind": "edit", "row": 1, "column": 1, "value": 1, "colour": 2}, "no 'colour'"),
        ({"kind": "reconstruct", "rank": "0%"}, "above 0%"),
        ({"kind": "reconstruct", "rank": 0}, "between 1"),
        ({"kind": "reconstruct", "steps": 0}, "steps"),
        ({"kind": "reconstruct", "sites": ["x"] * 65}, "at most 64"),
        ({"kind": "scale", "site": "a", "factor": float("nan")}, "factor"),
        ({"kind": "scale", "index": 1}, "site"),
        ({"kind": "state", "state": "X"}, "state"),
        ({"kind": "state", "size": 1e9}, "size"),
        ({"kind": "cycles", "change": 0}, "add"),
        ({"kind": "cycles", "change": 10**9}, "change"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(data: Any, message: str) -> None:
    with pytest.raises(InterventionError, match=message):
        read_intervention(data)


@pytest.mark.parametrize("at", [None, -1, True, "3", 10**9])
def test_a_step_that_is_none_is_refused(at: Any) -> None:
    with pytest.raises(InterventionError, match="begins after a step"):
        read_planned({"kind": "state", "at": at})


def test_noise_has_the_asked_size_and_is_the_same_for_a_seed_whatever_runs_along() -> None:
    z = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    noisy = ChangeState(state="L", change="noise", size=0.3, seed=4).applied(z)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.allclose((noisy - z).flatten(1).norm(dim=1) / z.flatten(1).norm(dim=1), torch.full((3,), 0.3), rtol=1e-5)
    assert torch.equal(ChangeState(state="L", change="noise", size=0.3, seed=4).applied(z[:1]), noisy[:1])
    assert not torch.equal(ChangeState(state="L", change="noise", size=0.3, seed=5).applied(z), noisy)
    assert not torch.equal(ChangeState(state="H", change="noise", size=0.3, seed=4).applied(z), noisy)
    assert torch.equal(ChangeState(change="noise", size=0).applied(z), z)
    assert ChangeState(change="noise").applied(torch.zeros(1, 2, 3)).isfinite().all()


def test_site_interventions_are_the_projections_they_name() -> None:
    generator = torch.Generator().manual_seed(0)
    x, basis = torch.randn(2, 7, 6, generator=generator), torch.linalg.qr(torch.randn(6, 4, generator=generator))[0]
    projector = basis[:, :2] @ basis[:, :2].T
    some = Reconstruct(rank=2)
    torch.testing.assert_close(some.replaced(x, some.directions(basis)), x @ projector)
    one = ScaleDirection(site="s", index=1, factor=0.25)
    matrix = torch.eye(6) - 0.75 * torch.outer(basis[:, 1], basis[:, 1])
    torch.testing.assert_close(one.replaced(x, one.directions(basis)), x @ matrix)
    assert one.directions(basis[:, :1]).shape == (6, 0)  # a direction that is gone since
    assert torch.equal(one.replaced(x, basis[:, :0]), x)


def test_an_edited_puzzle_keeps_its_solution_where_it_still_is_one(puzzle: Puzzle) -> None:
    domain, solution = get_domain("sudoku"), puzzle.solution
    assert solution is not None
    given = next(cell for cell, value in enumerate(puzzle.cells) if value)
    blank = next(cell for cell, value in enumerate(puzzle.cells) if not value)

    def edit(cell: int, value: int) -> EditToken:
        return EditToken(row=cell // 4 + 1, column=cell % 4 + 1, value=value)

    assert edit(given, 0).applied(puzzle).solution == solution
    assert edit(blank, solution[blank]).applied(puzzle).solution == solution
    wrong = edit(blank, solution[blank] % 4 + 1).applied(puzzle)
    assert wrong.cells[blank] == solution[blank] % 4 + 1
    assert wrong.solution == domain.with_solution(replace(wrong, solution=None)).solution != solution
    twice = [Planned(3, edit(blank, solution[blank] % 4 + 1)), Planned(5, edit(blank, 0))]
    assert edited(puzzle, twice).cells == puzzle.cells
    for bad, message in ((EditToken(row=5, column=1, value=0), "no cell R5C1"), (EditToken(row=1, column=1, value=5), "value")):
        with pytest.raises(InterventionError, match=message):
            bad.applied(puzzle)


def addresses(config: Any, changes: list[CycleChange], count: int) -> list[tuple[int, int, int | str]]:
    """The order of steps by brute force: a list of supervision steps, changed one after another."""
    steps = [[config.L_cycles] * config.H_cycles for _ in range(count)]
    for change in changes:
        index = 0
        for s, cycles in enumerate(steps):
            length = sum(cycles) + len(cycles)
            if index <= change.at < index + length:
                left, h = change.at - index, 0
                while left > cycles[h]:
                    left -= cycles[h] + 1
                    h += 1
                later = [(s2, h2) for s2 in range(s, count) for h2 in range(len(steps[s2])) if (s2, h2) > (s, h)]
                if change.level == "L":
                    cycles[h] = max(left, cycles[h] + change.change)
                    for s2, h2 in later if change.every else ():
                        steps[s2][h2] = max(0, steps[s2][h2] + change.change)
                else:
                    for s2 in range(s, count) if change.every else (s,):
                        least = h + 1 if s2 == s else 1
                        wanted = max(least, len(steps[s2]) + change.change)
                        usual = steps[s2 + 1][-1] if s2 + 1 < count else steps[s2][-1]
                        steps[s2] = [*steps[s2], *[usual] * wanted][:wanted]
                break
            index += length
    return [(s, h, kind) for s, cycles in enumerate(steps, 1) for h, n in enumerate(cycles, 1) for kind in (*range(1, n + 1), "H")]


def test_the_order_of_steps_is_that_of_brute_force() -> None:
    config = tiny_model().config
    draw = random.Random(0)
    for _ in range(200):
        changes = [
            CycleChange(at, draw.choice("LH"), draw.choice([-2, -1, 1, 2]), draw.random() < 0.4)  # type: ignore[arg-type]
            for at in sorted(draw.sample(range(20), draw.randint(0, 3)))
        ]
        schedule, order = Schedule(config, changes), addresses(config, changes, 12)
        ends: dict[Size, Sequence[int]] = {"net": range(len(order) + 1)}
        ends["cycle"] = [0, *(i for i, (_, _, kind) in enumerate(order, 1) if kind == "H")]
        ends["supervision"] = [0, *(i for i, (one, two) in enumerate(pairwise(order), 1) if one[0] != two[0])]
        assert schedule.length == ends["supervision"][config.halt_max_steps]
        for index in range(ends["supervision"][8]):
            for size, places in ends.items():
                assert schedule.next_end(index, size) == min(end for end in places if end > index), (changes, index, size)
                assert schedule.begun(index, size) == max(end for end in places if end <= index)
                assert schedule.previous_end(index, size) == max((end for end in places if end < index), default=0)
            (_, h, kind), (finished, made) = order[index], schedule.done(index)
            assert (finished, made) == (h - 1, schedule.cycles(index)[h - 1] if kind == "H" else int(kind) - 1)
    with pytest.raises(ValueError, match="net, cycle, supervision"):
        Schedule(config).next_end(0, "token")  # type: ignore[arg-type]
