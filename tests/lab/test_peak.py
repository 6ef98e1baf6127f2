"""What the ledger of compressed training says is gone, against what the operating system says, at half a gigabyte of activations."""

from __future__ import annotations

import sys

import pytest

from laser_studio.errors import TrainingError
from laser_studio.lab.peak import BLOCKS, WHOLE, check_peak


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own count of peak memory is read")
@pytest.mark.parametrize(("variant", "rank"), [("attention", "25%"), ("mixer", WHOLE), ("attention", BLOCKS), ("mixer", BLOCKS)])
def test_the_ledger_agrees_with_resident_memory(variant: str, rank: str) -> None:
    found = check_peak(variant=variant, batch=36, rank=rank)
    assert found.plain.saved > 500 * 2**20
    assert found.seen == pytest.approx(found.said, rel=0.1)
    assert found.plain.resident - found.compressed.resident == pytest.approx(found.said, rel=0.2)  # transients of both, also declared
    assert found.compressed.saved < 0.04 * found.plain.saved
    assert "of what the ledger says is gone" in str(found)


def test_a_process_that_fails_is_told_in_one_line() -> None:
    with pytest.raises(TrainingError, match=r"failed: .*int9"):
        check_peak(batch=1, storage="int9")
