"""What expressions cost: microseconds a frame, and to read and bind, on a real session of the demo; least of five repeats."""

from __future__ import annotations

import statistics
import timeit
from functools import partial

from laser_studio.debugger import Expression, Session
from laser_studio.laser import LaserPolicy
from laser_studio.puzzles import load_puzzles
from laser_studio.trm import load_checkpoint

EXPRESSIONS = (
    "reset | fidelity < 0.1 | answer_changed & q_halt > 100",  # false to the last, so that all of it is evaluated
    "fidelity < 0.9",
    "cell(1, 2) changed",
    "mean(confidence)",
    "becomes(min fidelity(*.mlp.*) < 0.9) | max(rank) > 1000 | index % 6 == 7",
)


def read_and_bind(text: str, session: Session) -> None:
    Expression(text).bind(session.scope)


def main() -> None:
    model, puzzle = load_checkpoint("assets/checkpoints/sudoku-6x6"), load_puzzles("sudoku-6x6")[0]
    session = Session(model, puzzle, policy=LaserPolicy(rank="25%"), seed=0)
    before = session.seek(9)
    frame = session.step()
    for text in EXPRESSIONS:
        bound = Expression(text).bind(session.scope)
        asked = min(timeit.repeat(partial(bound.value, frame, before), number=5_000, repeat=5)) / 5_000
        read = min(timeit.repeat(partial(read_and_bind, text, session), number=500, repeat=5)) / 500
        print(f"{asked * 1e6:6.2f} µs a frame, {read * 1e6:5.0f} µs to read and bind   {text}")
    session.run()
    print(f"a recursion step: {statistics.median(frame.seconds for frame in session.frames[10:]) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
