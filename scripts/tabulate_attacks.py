"""Write the table of attacks in docs/safety.md: every file of tests/attacks/table.py is made, opened, and its answer put down.

python scripts/tabulate_attacks.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from laser_studio.errors import CheckpointError  # noqa: E402
from laser_studio.trm import load_checkpoint, save_checkpoint  # noqa: E402
from tests.attacks.table import ATTACKS, OWN, WEIGHTS, Attack  # noqa: E402
from tests.trm.helpers import small_model, write_official  # noqa: E402

BEGIN, END = "<!-- attacks: scripts/tabulate_attacks.py -->", "<!-- end of attacks -->"


def answer(attack: Attack, folder: Path) -> str:
    """The message the file is answered with."""
    write_official(folder / WEIGHTS, small_model())
    save_checkpoint(small_model(), folder / OWN)
    file, proof = folder / attack.file / attack.file, folder / "it ran"
    attack.make(file, proof)
    try:
        load_checkpoint(file, device="cpu")
    except CheckpointError as refused:
        if proof.exists():
            raise SystemExit(f"{attack.name}: the payload ran") from None
        return str(refused)
    raise SystemExit(f"{attack.name}: the file was opened")


def cell(text: str) -> str:
    """A text as a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "safety.md", help="default docs/safety.md")
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    answers: dict[str, list[str]] = {}
    for attack in ATTACKS:
        with tempfile.TemporaryDirectory() as folder:
            answers.setdefault(answer(attack, Path(folder)).replace(attack.file, "FILE"), []).append(attack.name)
    rows = ["| attacks | answer |", "| --- | --- |"]
    rows += [f"| {cell('; '.join(names))} | {cell(found)} |" for found, names in answers.items()]
    text = flags.out.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    flags.out.write_text(before + "\n".join([BEGIN, *rows, END]) + after, encoding="utf-8")
    print(f"{len(ATTACKS)} attacks, {flags.out.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
