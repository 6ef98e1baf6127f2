"""What the detectors find in runs of shipped models: `python scripts/measure_detectors.py [MODEL …] [--puzzles 12]`.

Of each model the puzzles it is known to fail (by its report), and as many bundled ones, to the trained depth. Prints how many runs have a
finding of each kind, by whether they end solved, and what looking for them costs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from laser_studio.debugger import Detectors, Session
from laser_studio.laser import LaserPolicy
from laser_studio.studio.catalogue import Catalogue, find_models

MODELS = ("maze-9x9-mixer-early", "maze-9x9-mixer", "maze-13x13-mixer", "sudoku-6x6", "sudoku-6x6-mixer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--puzzles", type=int, default=12, help="of each sort")
    told = parser.parse_args()
    catalogue = Catalogue(find_models(), device="cpu")
    for name in told.models:
        model, bundled = catalogue.load(name), catalogue.puzzles(name)
        ids = [failure.puzzle for failure in catalogue.failures(name)[: told.puzzles]]
        ids += [puzzle.name for puzzle in bundled[:: max(1, len(bundled) // told.puzzles)][: told.puzzles]]
        found: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
        runs: Counter[bool] = Counter()
        stepping = looking = 0.0
        for puzzle in ids:
            session = Session(model, catalogue.puzzle(name, puzzle), policy=LaserPolicy())
            started = time.perf_counter()
            solved = session.run().solved is True
            ran = time.perf_counter()
            findings = Detectors.of(session).follow(session)
            stepping, looking = stepping + ran - started, looking + time.perf_counter() - ran
            runs[solved] += 1
            found[solved].update({finding.kind for finding in findings})
            session.close()
        print(f"{name}: looking costs {100 * looking / stepping:.2f} % of stepping")
        for solved, count in sorted(runs.items()):
            kinds = ", ".join(f"{kind} {times}" for kind, times in found[solved].most_common()) or "nothing"
            print(f"  {count} runs that end {'solved' if solved else 'unsolved'}: {kinds}")


if __name__ == "__main__":
    main()
