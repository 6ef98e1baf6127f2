"""Puzzles: Sudoku, mazes and ARC tasks as text, tokens, rules, generators and solvers, and the bundled sets. Knows nothing of models."""

from laser_studio.puzzles.bundled import bundled_sets, load_puzzles, make_bundled_set
from laser_studio.puzzles.domain import INVALID, Domain
from laser_studio.puzzles.puzzle import DIFFICULTIES, CellIssue, Cells, Comparison, Difficulty, Picture, Puzzle
from laser_studio.puzzles.registry import domain_names, get_domain, parse_puzzle

__all__ = [
    "DIFFICULTIES",
    "INVALID",
    "CellIssue",
    "Cells",
    "Comparison",
    "Difficulty",
    "Domain",
    "Picture",
    "Puzzle",
    "bundled_sets",
    "domain_names",
    "get_domain",
    "load_puzzles",
    "make_bundled_set",
    "parse_puzzle",
]
