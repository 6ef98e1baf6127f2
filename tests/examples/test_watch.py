"""The example of docs/watch.md: it runs, watching changes nothing of its training, and what it records is what plain torch computes."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from examples import looped_transformer as example
from laser_studio import watch
from laser_studio.debugger import WatchedRun
from laser_studio.laser import LaserPolicy

SITES = ["block.qkv", "block.out", "block.up", "block.down"]


def test_watched_and_unwatched_training_give_the_same_weights(tmp_path: Path) -> None:
    plain, plain_losses = example.train(12, watched=False)
    seen, losses = example.train(12, record=tmp_path / "run.jsonl")
    assert losses == plain_losses
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), seen.parameters(), strict=True))
    run = WatchedRun(tmp_path / "run.jsonl")
    assert run.head == 12 * example.LOOPS and run.ended == "closed"
    assert run.notes["loss"] == [(example.LOOPS * (step + 1), loss) for step, loss in enumerate(losses)]


def test_recorded_fidelities_are_those_of_plain_torch(tmp_path: Path) -> None:
    """In fp64: the first basis is an SVD of the first forward's inputs, the next ones orth(Σ XᵀXQ) of the forward before."""
    torch.manual_seed(0)
    model = example.LoopedTransformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    seen: dict[str, list[Tensor]] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_pre_hook(lambda _, args, name=name: seen.setdefault(name, []).append(args[0].detach().double()))
    with watch(model, tmp_path / "run.jsonl", policy=LaserPolicy(rank="25%", min_fidelity=0)):
        for _ in range(4):
            digits = torch.randint(example.DIGITS, (8, example.LENGTH))
            optimizer.zero_grad()
            model(digits).square().mean().backward()
            optimizer.step()
    run = WatchedRun(tmp_path / "run.jsonl")
    for site in SITES:
        forwards = [
            [x.flatten(0, -2) for x in seen[site][start : start + example.LOOPS]] for start in range(0, 4 * example.LOOPS, example.LOOPS)
        ]
        width = run.sites[site]
        basis = torch.linalg.svd(torch.cat(forwards[0]), full_matrices=False).Vh[: width // 4].T
        for number, xs in enumerate(forwards[1:], 1):
            for step in (1, example.LOOPS):
                x = xs[step - 1]
                recorded = run.frames[number * example.LOOPS + step].sites[site]
                assert recorded.fidelity == pytest.approx(float((x @ basis).square().sum() / x.square().sum()), abs=2e-5), (
                    site,
                    number,
                    step,
                )
                assert recorded.rank == width // 4
            rows = torch.cat(xs)
            basis = torch.linalg.qr(rows.T @ (rows @ basis)).Q


def test_the_page_of_the_docs_says_what_is_there(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (repository / "docs" / "watch.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    source = (repository / "examples" / "looped_transformer.py").read_text(encoding="utf-8")
    assert len(blocks) == 3 and blocks[0] in source
    monkeypatch.chdir(tmp_path)
    example.train(3, record=Path("runs/looped.jsonl"))
    for block in blocks[1:]:
        exec(block, {})


@pytest.mark.slow
def test_the_example_runs_learns_and_is_quick(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [sys.executable, "examples/looped_transformer.py", "--record", path],
        cwd=repository,
        env={"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert f"python app.py --watch {path}" in result.stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 20  # seconds of one core
    run = WatchedRun(path)
    loss = [value for _, value in run.notes["loss"] if value is not None]
    assert len(loss) == 100 and loss[0] > 2 and sum(loss[-10:]) / 10 < 0.1
    assert run.seek(run.head).history.saving > 0.5
