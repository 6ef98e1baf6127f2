"""Sites that compute on reconstructions: exact at full rank, projected at less, gone without a trace afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from laser_studio.errors import LaserStudioError
from laser_studio.laser import LaserPolicy
from laser_studio.laser.reconstruct import ReconstructedSites
from tests.laser.helpers import normal, traces


def looped(seed: int) -> tuple[nn.Sequential, torch.Tensor]:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)), normal(40, 6, seed=seed)


@torch.no_grad()
@pytest.mark.parametrize("rank", [6, 2])
def test_each_site_reads_its_input_projected_on_the_basis_it_had(rank: int) -> None:
    module, x = looped(0)
    with ReconstructedSites(module, LaserPolicy(rank=rank, max_rank=rank)) as sites:
        assert torch.equal(module(x), nn.Sequential(*module.children())(x))  # no basis yet
        sites.refresh()
        trackers = sites._tap.trackers
        bases = {name: tracker.basis for name, tracker in trackers.items() if tracker.basis is not None}
        y = normal(10, 6, seed=5)
        seen = module(y)
        events = sites.refresh()
    first, second = module[0], module[2]
    inside = torch.tanh(first(y @ bases["0"] @ bases["0"].T))
    torch.testing.assert_close(seen, second(inside @ bases["2"] @ bases["2"].T))
    if rank == 6:
        torch.testing.assert_close(seen, module(y), rtol=1e-4, atol=1e-5)
    # the tracker was shown what reached the site, not the reconstruction
    expected = float((inside @ bases["2"]).square().sum() / inside.square().sum())
    assert events["2"].fidelity == pytest.approx(expected, abs=1e-5)


@torch.no_grad()
def test_the_module_is_itself_again_afterwards_also_after_a_failure() -> None:
    module, x = looped(1)
    exact = module(x)

    def interrupted() -> None:
        with ReconstructedSites(module, LaserPolicy(rank=1, max_rank=1)) as sites:
            module(x)
            sites.refresh()
            assert not torch.allclose(module(x), exact)
            module(torch.ones(2, 5))

    with pytest.raises(LaserStudioError, match="last axis"):
        interrupted()
    assert torch.equal(module(x), exact)
    assert traces(module) == 0


@torch.no_grad()
def test_a_site_that_is_switched_off_stays_exact() -> None:
    module, x = looped(2)
    policy = LaserPolicy(rank=1, max_rank=1, sites={"2": {"enabled": False}})
    with ReconstructedSites(module, policy) as sites:
        module(x)
        sites.refresh()
        basis = sites._tap.trackers["0"].basis
        assert basis is not None and "2" not in sites._tap.trackers
        seen = module(x)
    torch.testing.assert_close(seen, module[2](torch.tanh(module[0](x @ basis @ basis.T))))
