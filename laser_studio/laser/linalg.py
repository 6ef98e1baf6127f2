"""The linear algebra of a tracker: sketches to bases, singular directions, principal angles, private randomness.

Pure functions on tensors; nothing here knows of windows, rules or sites. Everything is fp32 in and out, small (k × k)
systems are solved in fp64. Orthonormal bases come from Householder QR: Cholesky QR squares the condition number and in fp32 fails
on activations whose first direction holds most of the energy. In fp64 it does not, which is how many sites of a GPU go at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

SHIFT = 2 * torch.finfo(torch.float32).eps
"""Share of the window's energy added to the sketched matrix's diagonal: the rounding of an fp32 sketch."""


def private_generator(*key: object) -> torch.Generator:
    """A CPU generator seeded by `key` alone (any values with a stable `str`); the global generator is untouched."""
    digest = hashlib.blake2b("|".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) >> 1)


def _random(rows: int, columns: int, generator: torch.Generator, device: torch.device) -> Tensor:
    # Drawn on the CPU whatever the device, so that a seed means the same directions everywhere.
    return torch.randn(rows, columns, generator=generator).to(device)


@lru_cache(maxsize=8)
def ones(count: int, device: torch.device) -> Tensor:
    """(count,) ones, fp32, not to be changed: kept, because the sites of a module see the same number of rows again and again."""
    return torch.ones(count, dtype=torch.float32, device=device)


def _solvable(x: Tensor) -> Tensor:
    # MPS has neither fp64 nor these factorisations.
    return x.cpu() if x.is_mps else x


def householder(x: Tensor) -> tuple[Tensor, Tensor]:
    """Reduced QR of x (…, D, m), m ≤ D: Q (…, D, m) with orthonormal columns whatever the rank of x, and R (…, m, m)."""
    q, r = torch.linalg.qr(_solvable(x))
    return (q.to(x.device), r.to(x.device)) if x.is_mps else (q, r)


def without(basis: Tensor, x: Tensor) -> Tensor:
    """The part of x (D, m) orthogonal to the orthonormal `basis` (D, k); projected twice, which is enough."""
    x = x - basis @ (basis.T @ x)
    return x - basis @ (basis.T @ x)


def turned(sketch: Tensor, basis: Tensor, total: float) -> Tensor:
    """orth(AQ), one step of orthogonal iteration on A = XᵀX, as a matrix whose QR is to be taken: (D, k).

    sketch, basis and total as in `leading_directions`; so is the shift, which lets a direction without energy stay where it is.
    """
    scale = 1 / (SHIFT * total)
    if 1e-30 < scale < 1e30:
        return torch.add(basis, sketch, alpha=scale)
    return torch.add(basis, sketch / total, alpha=1 / SHIFT)


def orthonormalised(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Q of the QR of each (D, k) with the diagonal of R positive: the choice that keeps a column steady under iteration.

    On a GPU matrices of equal shape go together: there a batch costs hardly more than one. On a CPU it only costs a copy.
    """
    if not any(matrix.is_cuda for matrix in matrices):
        return [_positive(matrix) for matrix in matrices]
    found: list[Tensor | None] = [None] * len(matrices)
    together: dict[object, list[int]] = {}
    for index, matrix in enumerate(matrices):
        together.setdefault((matrix.shape, matrix.device) if matrix.is_cuda else index, []).append(index)
    for indices in together.values():
        one = len(indices) == 1
        q = _positive(matrices[indices[0]] if one else torch.stack([matrices[index] for index in indices]))
        for index, each in zip(indices, (q,) if one else q, strict=True):
            found[index] = each
    return [each for each in found if each is not None]


def orthonormalised_by_cholesky(x: Tensor) -> Tensor:
    """The same Q of x (…, D, m) fp64 by Cholesky QR, done twice (Yamamoto et al., 2015): products and small triangles, quick on a GPU.

    Not finite where the condition number of x is beyond about 1e8. What `turned` gives lies below 1 / SHIFT, 4e6; squared in fp64 that
    leaves the first pass three digits, and the second makes up for them.
    """
    for _ in range(2):
        factor, _ = torch.linalg.cholesky_ex(x.mT @ x)
        x = torch.linalg.solve_triangular(factor.mT, x, upper=True, left=False)
    return x


def _positive(x: Tensor) -> Tensor:
    q, r = householder(x)
    signs = torch.copysign(ones(1, r.device), r.diagonal(dim1=-2, dim2=-1))
    return q.mul_(signs if x.ndim == 2 else signs.unsqueeze(-2))


def leading_directions(sketch: Tensor, basis: Tensor, total: float) -> tuple[Tensor, Tensor]:
    """One step of subspace iteration with its columns ordered by energy.

    sketch: (D, k), AQ of the window's A = XᵀX; basis: (D, k), the Q it was taken with, orthonormal; total: tr A > 0.
    Returns orth(AQ) as (D, k), rotated so that energy falls from column to column, and each column's share of the
    energy (k,) fp64, descending: never above the true share, so their sum bounds the fidelity of the new basis from below.

    The rotation is Rayleigh–Ritz on the Nyström approximation AQ(QᵀAQ)⁻¹QᵀA ≼ A, which needs no second look at X;
    shifted as in Tropp, Yurtsever, Udell, Cevher, "Fixed-rank approximation of a PSD matrix from streaming data"
    (2017), algorithm 3, so that what fp32 cannot resolve does no harm.
    """
    shifted, whitener = _whitened(sketch, basis, total)
    q, r = torch.linalg.qr(shifted)
    half = r.double() @ whitener
    values, vectors = _eigh(half @ half.T)
    shares = (values.flip(0) - SHIFT).clamp(0, 1)
    return (q @ vectors.flip(1).float()).to(sketch.device), shares.cpu()


def shares_lower_bound(sketch: Tensor, test: Tensor, directions: Tensor, total: float) -> float:
    """A lower bound of ‖X·directions‖² / ‖X‖², from sketch = XᵀX·test (D, m), test (D, m) and directions (D, k) orthonormal."""
    shifted, whitener = _whitened(sketch, test, total)
    seen = (shifted.T @ _solvable(directions)).double()  # (m, k)
    bound = (whitener.T @ seen).square().sum() - SHIFT * directions.shape[1]
    return min(max(float(bound), 0.0), 1.0)


def _whitened(sketch: Tensor, test: Tensor, total: float) -> tuple[Tensor, Tensor]:
    """Y = (A / tr A + SHIFT·I)·test in fp32, and C (m, m) fp64 with CCᵀ = (testᵀY)⁻¹, so that (YC)(YC)ᵀ is the Nyström approximation."""
    test = _solvable(test)
    shifted = _solvable(sketch) / total + SHIFT * test
    core = test.double().T @ shifted.double()
    values, vectors = _eigh((core + core.T) / 2)
    # Exactly computed, no eigenvalue would lie below the shift; rounding must not turn a tiny one into a huge inverse.
    return shifted, vectors * values.clamp(min=SHIFT).rsqrt()


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and vectors of a symmetric positive matrix; by SVD where `eigh` does not converge."""
    try:
        return torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:
        vectors, values, _ = torch.linalg.svd(matrix)
        return values.flip(0), vectors.flip(1)


def directions_outside(basis: Tensor, candidates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` orthonormal directions (D, count) orthogonal to `basis` (D, k): the leading ones of `candidates` first.

    candidates: (D, m), m may be 0. Where they span less than `count` directions beyond the basis, random ones fill up.
    Needs k + count ≤ D.
    """
    dim = basis.shape[0]
    filler = _random(dim, count, generator, basis.device) / dim**0.5
    if candidates.shape[1]:
        left, sizes, _ = torch.linalg.svd(_solvable(without(basis, candidates)), full_matrices=False)
        left, sizes = left.to(basis.device)[:, :count], sizes.to(basis.device)[:count]
        noise = 1e-6 * torch.linalg.vector_norm(candidates)  # what rounding leaves of columns that lie in the basis
        found = torch.where(sizes > noise, left, filler[:, : left.shape[1]])
        filler = torch.cat((found, filler[:, left.shape[1] :]), dim=1)
    return _orthonormal_outside(basis, filler)


def sampled_energy(basis: Tensor, rows: Tensor, count: int, generator: torch.Generator) -> float:
    """Energy that `count` leading directions of the `rows` (m, D) outside `basis` (D, k) keep of rows like them.

    Cross-validated: directions of three quarters of the rows are tried on the fourth, so that none is praised for the rows it
    came from. The directions of all rows together keep a little more in the mean.
    """
    kept = 0.0
    for fold in range(min(4, len(rows))):
        tested = torch.arange(len(rows), device=rows.device) % 4 == fold
        found = directions_outside(basis, rows[~tested].T, count, generator)
        kept += float((rows[tested] @ found).square().sum())
    return kept


def _orthonormal_outside(basis: Tensor, x: Tensor) -> Tensor:
    q, _ = householder(without(basis, x))
    return householder(without(basis, q))[0]  # x nearly inside the basis loses digits in the first pass


def right_singular(chunks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Right singular vectors of the stacked chunks (N_i, D), N = ΣN_i: V (D, min(N, D)) fp32, σ² (min(N, D),) fp64 on the CPU, descending.

    From the Gram matrix in fp64 where N ≥ D: as exact as an fp32 SVD, cheaper, and the chunks need not be stacked.
    Each way falls back on the other where it does not converge.
    """
    device, dim = chunks[0].device, chunks[0].shape[1]
    work = [_solvable(chunk) for chunk in chunks]
    rows = sum(len(chunk) for chunk in work)
    ways = (_by_gram, _by_svd) if rows >= dim else (_by_svd, _by_gram)
    try:
        directions, energies = ways[0](work)
    except torch.linalg.LinAlgError:
        directions, energies = ways[1](work)
    kept = min(rows, dim)
    return directions[:, :kept].float().to(device), energies[:kept].double().cpu()


def singular_of_gram(gram: Tensor) -> tuple[Tensor, Tensor]:
    """The same from XᵀX (D, D): V (D, D) fp32 and σ² (D,) fp64 on the CPU, descending."""
    energies, directions = _eigh(_solvable(gram).double())
    return directions.flip(1).float().to(gram.device), energies.flip(0).clamp(min=0).cpu()


def singular_energies(x: Tensor) -> Tensor:
    """σ² of x (N, D): (min(N, D),) fp32 on its device, in no order; to fp32 rounding of the largest, from the smaller Gram matrix."""
    gram = _solvable(x.T @ x if x.shape[0] > x.shape[1] else x @ x.T)
    try:
        energies = torch.linalg.eigvalsh(gram).clamp(min=0)
    except torch.linalg.LinAlgError:
        energies = torch.linalg.svdvals(gram)
    return energies.to(x.device)


def _by_svd(chunks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    _, sizes, vectors = torch.linalg.svd(torch.cat(list(chunks)), full_matrices=False)
    return vectors.T, sizes.double().square()


def _by_gram(chunks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    gram = torch.zeros(chunks[0].shape[1], chunks[0].shape[1], dtype=torch.float64, device=chunks[0].device)
    for chunk in chunks:
        wide = chunk.double()
        gram.addmm_(wide.T, wide)
    energies, vectors = torch.linalg.eigh(gram)
    return vectors.flip(1), energies.flip(0).clamp(min=0)


def steady_signs(directions: Tensor, previous: Tensor | None) -> Tensor:
    """`directions` (D, m) with each column's sign chosen so that a picture of it does not blink.

    A column keeps the side of the column of `previous` (D, k) it most resembles; one that resembles none gets its
    largest entry positive.
    """
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))[0]  # (m,)
    if previous is not None and previous.shape[1]:
        overlaps = previous.T @ directions  # (k, m)
        kin = overlaps.gather(0, overlaps.abs().argmax(0, keepdim=True))[0]
        largest = torch.where(kin.abs() >= 0.5, kin, largest)
    return directions * torch.where(largest < 0, -1.0, 1.0)


def principal_angles(first: Tensor, second: Tensor) -> Tensor:
    """Principal angles between the spans of two orthonormal bases (D, k) and (D, m): (min(k, m),) degrees, descending, fp64 on the CPU.

    From the sines (Björck and Golub, 1973): the cosine cannot tell small angles from rounding. Their squares are the eigenvalues of
    a small Gram matrix, exact to 1e-16, hence every angle to 1e-5 degrees at least, and cheaper than singular values.
    """
    small, large = sorted((first.cpu().double(), second.cpu().double()), key=lambda basis: basis.shape[1])
    outside = small - large @ (large.T @ small)
    sines = torch.linalg.eigvalsh(outside.T @ outside).clamp(0, 1).sqrt()
    return torch.rad2deg(torch.asin(sines)).flip(0)
