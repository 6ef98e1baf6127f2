"""Mazes as mathematics: distances, shortest paths, carving, the split. Cells are flat tuples of values, row by row.

No text, tokens or drawing here; `maze` adds those.
"""

from __future__ import annotations

import hashlib
from collections import deque

import numpy as np

from laser_studio.puzzles.puzzle import Cells
from laser_studio.puzzles.sudoku_rules import Split

WALL, OPEN, START, GOAL, PATH = range(5)


def neighbours(cell: int, height: int, width: int) -> list[int]:
    """The cells above, left, right and below, as far as the board has them."""
    row, column = divmod(cell, width)
    found = []
    if row:
        found.append(cell - width)
    if column:
        found.append(cell - 1)
    if column + 1 < width:
        found.append(cell + 1)
    if row + 1 < height:
        found.append(cell + width)
    return found


def distances(cells: Cells, height: int, width: int, source: int) -> dict[int, int]:
    """Steps from `source` to every cell that can be reached without crossing a wall, by breadth-first search."""
    steps = {source: 0}
    queue = deque([source])
    while queue:
        cell = queue.popleft()
        for other in neighbours(cell, height, width):
            if cells[other] != WALL and other not in steps:
                steps[other] = steps[cell] + 1
                queue.append(other)
    return steps


def shortest_paths(cells: Cells, height: int, width: int, start: int, goal: int, limit: int) -> list[list[int]]:
    """Up to `limit` shortest paths, each as its cells from start to goal; none where the goal cannot be reached."""
    steps = distances(cells, height, width, goal)
    if start not in steps:
        return []
    # Every prefix kept here can still reach the goal in time, so cutting to `limit` prefixes loses nothing that is asked for.
    paths = [[start]]
    for left in range(steps[start] - 1, -1, -1):
        longer = [[*path, other] for path in paths for other in neighbours(path[-1], height, width) if steps.get(other) == left]
        paths = longer[:limit]
    return paths


def carve(size: int, rng: np.random.Generator) -> list[int]:
    """A perfect maze of size × size cells (odd): walls around, rooms at odd rows and columns, one path between any two.

    Depth-first carving with backtracking, which favours long corridors.
    """
    cells = [WALL] * size**2
    side = size // 2
    here = int(rng.integers(side**2))
    cells[_room_cell(here, side, size)] = OPEN
    trail = [here]
    while trail:
        here = trail[-1]
        closed = [room for room in neighbours(here, side, side) if cells[_room_cell(room, side, size)] == WALL]
        if not closed:
            trail.pop()
            continue
        room = closed[int(rng.integers(len(closed)))]
        cells[_room_cell(room, side, size)] = OPEN
        # The wall between two neighbouring rooms is the cell midway between theirs.
        cells[(_room_cell(here, side, size) + _room_cell(room, side, size)) // 2] = OPEN
        trail.append(room)
    return cells


def _room_cell(room: int, side: int, size: int) -> int:
    row, column = divmod(room, side)
    return (2 * row + 1) * size + 2 * column + 1


def room_cells(size: int) -> list[int]:
    """The cells of all rooms of a carved maze."""
    side = size // 2
    return [_room_cell(room, side, size) for room in range(side**2)]


def split_of(cells: Cells, height: int, width: int) -> Split:
    """Which side a maze belongs to, by its walls alone: no walls of a held-out maze were trained on, wherever start and
    goal were, and however the maze was turned or mirrored. Training takes four fifths."""
    walls = (np.asarray(cells, dtype=np.int64).reshape(height, width) == WALL).astype(np.uint8)
    views = [turned for grid in (walls, walls[:, ::-1]) for turned in (np.rot90(grid, k) for k in range(4))]
    digest = hashlib.blake2b(min(bytes(view.shape) + view.tobytes() for view in views), digest_size=8).digest()
    return "held-out" if int.from_bytes(digest) % 5 == 0 else "train"


def marked(cells: Cells, path: list[int]) -> Cells:
    """The maze with a path from start to goal drawn in; both ends keep their values."""
    between = set(path[1:-1])
    return tuple(PATH if cell in between else value for cell, value in enumerate(cells))


def random_maze(size: int, steps: tuple[int, int], rng: np.random.Generator, split: Split) -> tuple[Cells, Cells]:
    """A perfect maze of that side of the split, and the same with its only path, whose steps are in the inclusive range.

    Mazes of the other side, and those where no goal lies at such a distance from the start that was drawn, are thrown away.
    """
    low, high = steps
    rooms = room_cells(size)
    while True:
        walls = carve(size, rng)
        if split_of(tuple(walls), size, size) != split:
            continue
        start = rooms[int(rng.integers(len(rooms)))]
        far = distances(tuple(walls), size, size, start)
        goals = [room for room in rooms if low <= far[room] <= high]
        if not goals:
            continue
        goal = goals[int(rng.integers(len(goals)))]
        walls[start], walls[goal] = START, GOAL
        cells = tuple(walls)
        return cells, marked(cells, shortest_paths(cells, size, size, start, goal, 1)[0])
