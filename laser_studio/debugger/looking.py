"""Looking into cells and sites: token probabilities and latents of a cell over time, and what a site's directions stand for.

Everything comes from exact states: of the past what was taken live (`state_trail`), of one step a net application done again beside
the run (`net_application`), which is never touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from laser_studio.debugger.measures import Probe
from laser_studio.debugger.net_application import NetApplication
from laser_studio.debugger.session import Session
from laser_studio.errors import InspectionError
from laser_studio.laser.linalg import right_singular
from laser_studio.laser.patches import Reads
from laser_studio.puzzles import get_domain
from laser_studio.trm.layers import drop_casts, hold_casts
from laser_studio.trm.stablemax import log_stablemax

MOST_STEPS = 1_024  # updates in one answer, the newest of the range asked for
MOST_DIRECTIONS = 16


@dataclass(frozen=True, eq=False)
class TokenProbabilities:
    """How sure the model was of every token in one cell, each time z_H was updated.

    labels: of the tokens, by id; steps: of the z_H updates, ascending; values: (steps, vocab) fp32, stablemax, rows sum to 1.
    """

    cell: int
    labels: tuple[str, ...]
    steps: tuple[int, ...]
    values: Tensor


@dataclass(frozen=True, eq=False)
class Latents:
    """One cell of a state over time.

    values: (steps, 4) fp32: the norm of its vector; its place (x, y) in the plane of the output head's two leading right singular
    vectors, the plane of the latent path; and how far it moved in this update, ‖v_t − v_{t−1}‖ / ‖v_t‖. A net that ends with a weightless
    RMS norm over the features, as a TRM's does, gives every vector the norm √D: then the norm says nothing.
    """

    state: Literal["z_H", "z_L"]
    cell: int
    steps: tuple[int, ...]
    values: Tensor


@dataclass(frozen=True, eq=False)
class Direction:
    """One direction of a site.

    share: of the energy of the site's input at this step; cells: (T,) fp32 and prefix: (P,), its activity per token (see `Directions`);
    vector: (D,) fp32, of norm 1.
    """

    share: float
    cells: Tensor
    prefix: Tensor
    vector: Tensor


@dataclass(frozen=True, eq=False)
class Directions:
    """The leading directions of a site's input at one step, within the basis that stored it; without one, of the input itself.

    The basis Q is turned within its span to the principal axes of this step's coefficients, Z = UΣVᵀ, directions QV, the most energy
    first. activity says what is shown per token:

    - "coefficient": the input's rows are tokens; (ZV)ᵢⱼ, how much of direction j is in token i;
    - "loading": the rows are channels and the columns tokens (the mixer's first layer); the direction's own entries times the root mean
      square of its coefficients;
    - "written": the columns are inner features of the mixer (its second layer); what its weight makes of the direction, W·QVⱼ, times
      the same.

    rank: of the basis, None where there was none; kept: share of the energy that it keeps.
    """

    site: str
    index: int
    activity: Literal["coefficient", "loading", "written"]
    rank: int | None
    kept: float
    directions: tuple[Direction, ...]


@dataclass(frozen=True)
class Removal:
    """The answer at the end of an H cycle, had one direction been taken out of a site's input throughout it.

    flips: cells whose value differs, with the value they take; kl: nats per open cell from the answer's distribution.
    """

    flips: Mapping[int, int]
    kl: float


def token_labels(session: Session) -> tuple[str, ...]:
    """What each token id stands for on the board: its symbol, "blank" for the empty one, "–" where it stands for no cell."""
    puzzle, domain = session.puzzle, get_domain(session.puzzle.domain)
    labels = []
    for token in range(session.model.config.vocab_size):
        value = domain.decode([token] * len(puzzle.cells), shape=puzzle.shape)[0]
        labels.append(domain.symbol(value) or "blank" if value >= 0 else "–")
    return tuple(labels)


def token_probabilities(session: Session, cell: int, start: int = 0, stop: int | None = None) -> TokenProbabilities:
    """Of one cell over the z_H updates at steps in [start, stop), as far as they are kept, at most the newest `MOST_STEPS`.

    Raises `InspectionError` where there is no such cell.
    """
    _check_cell(session, cell)
    found = session.trail.probabilities(start, session.head + 1 if stop is None else stop)[-MOST_STEPS:]
    labels = token_labels(session)
    values = torch.stack([each[cell] for _, each in found]) if found else torch.empty(0, len(labels))
    return TokenProbabilities(cell, labels, tuple(step for step, _ in found), values)


def latents(session: Session, cell: int, state: Literal["z_H", "z_L"], start: int = 0, stop: int | None = None) -> Latents:
    """One cell of z_H or z_L over its updates at steps in [start, stop), as far as they are kept, at most the newest `MOST_STEPS`.

    Raises `InspectionError` where there is no such cell.
    """
    _check_cell(session, cell)
    found = session.trail.cells(state, start, session.head + 1 if stop is None else stop)[-MOST_STEPS:]
    values = torch.stack([each[cell] for _, each in found]) if found else torch.empty(0, 4)
    return Latents(state, cell, tuple(step for step, _ in found), values)


def directions(session: Session, site: str, index: int, count: int = 6) -> Directions:
    """The `count` leading directions of a site at net application `index`, on the puzzle shown. Raises `InspectionError`."""
    application = NetApplication(session, index)
    layer = application.sites.get(site)
    if layer is None:
        raise InspectionError(f"no site {site[:60]!r} in this model: choose one of {', '.join(application.sites)}")
    if not 1 <= count <= MOST_DIRECTIONS:
        raise InspectionError(f"{count} directions cannot be shown: ask for 1 to {MOST_DIRECTIONS}")
    x = application.inputs(layer).flatten(0, -2).float()  # (N, D)
    if not x.isfinite().all():
        raise InspectionError(f"the activations of {site} are not finite at step {index}: look at an earlier step")
    basis = application.bases.get(site)
    span = right_singular([x])[0] if basis is None else basis
    z = x @ span
    _, sizes, turn = torch.linalg.svd(z, full_matrices=False)
    count = min(count, len(sizes))
    vectors, z = span @ turn[:count].T, z @ turn[:count].T  # (D, count), (N, count)
    energy = float(x.double().square().sum())
    rms = sizes[:count] / len(x) ** 0.5
    activity, shown = _activity(site, layer, vectors, z, rms)
    sign = torch.where(shown.sum(0) < 0, -1.0, 1.0)  # a sign of its own, so that a picture does not blink
    shown, vectors = (shown * sign).cpu(), vectors * sign
    prefix = session.model.config.prefix_len
    shares = (sizes[:count].double().square() / energy).tolist() if energy > 0 else [0.0] * count
    found = (Direction(shares[j], shown[prefix:, j], shown[:prefix, j], vectors[:, j]) for j in range(count))
    kept = min(1.0, float(sizes.double().square().sum()) / energy) if energy > 0 else 1.0
    return Directions(site, index, activity, None if basis is None else basis.shape[1], kept, tuple(found))


def removals(session: Session, found: Directions) -> tuple[Removal, ...]:
    """What becomes of the answer without each of some directions: the H cycle they were found in, run again from its own start.

    One batch does it all: row 0 as it was, row 1 + j with direction j taken out of the site's input, X(I − vvᵀ), at every net application
    of the cycle. Raises `InspectionError` where the step is no longer recorded.
    """
    application = NetApplication(session, found.index)
    rows = 1 + len(found.directions)
    start = application.before.start.map(lambda state: state[:1].expand(rows, *state.shape[1:]))
    x = application.x.expand(rows, *application.x.shape[1:])
    probe = Probe(session.model)
    application.reading.attach(probe.layers)
    cycles, (h, _) = session.schedule.cycles(found.index - 1), session.schedule.done(found.index - 1)
    updates = cycles[h]
    hold_casts(probe.model, probe.model.forward_dtype)
    try:
        with torch.no_grad(), _without(probe.layers[found.site], [one.vector for one in found.directions]):
            logits = probe.model.read_out(probe.run(start, x, updates)).logits  # (rows, T, vocab)
    finally:
        drop_casts(probe.model)
    puzzle, domain = session.puzzle, get_domain(session.puzzle.domain)
    answers = [domain.decode(row, shape=puzzle.shape) for row in logits.argmax(-1).cpu().numpy()]
    is_open = ~torch.tensor(domain.given(puzzle), device=logits.device)
    log_p = log_stablemax(logits[:, is_open])
    kl = (log_p[:1].exp() * (log_p[:1] - log_p)).sum((1, 2)) / max(1, int(is_open.sum()))
    kl = kl.clamp(min=0).nan_to_num(nan=700.0)  # a direction whose removal leaves nothing finite costs more than any other
    return tuple(
        Removal({cell: new for cell, (new, old) in enumerate(zip(answer, answers[0], strict=True)) if new != old}, nats)
        for answer, nats in zip(answers[1:], kl[1:].tolist(), strict=True)
    )


def _activity(
    site: str, layer: nn.Linear, vectors: Tensor, z: Tensor, rms: Tensor
) -> tuple[Literal["coefficient", "loading", "written"], Tensor]:
    """What of directions (D, count) is shown per token, (P + T, count); z: (N, count), rms: (count,)."""
    parts = site.split(".")
    if "mlp_t" not in parts:
        return "coefficient", z
    if parts[-1] == "gate_up_proj":
        return "loading", vectors * rms
    return "written", (layer.weight.detach().float() @ vectors) * rms


@contextmanager
def _without(layer: nn.Linear, vectors: list[Tensor]) -> Iterator[None]:
    """While it lasts, row 1 + j of the layer's input lacks direction j."""

    def without(x: Tensor) -> Tensor:
        x = x.clone()
        for row, vector in enumerate(vectors, 1):
            wide = x[row].float()
            x[row] = (wide - (wide @ vector)[..., None] * vector).to(x.dtype)
        return x

    patch = Reads(layer, without)
    try:
        yield
    finally:
        patch.remove()


def _check_cell(session: Session, cell: int) -> None:
    count = len(session.puzzle.cells)
    if not 0 <= cell < count:
        raise InspectionError(f"there is no cell {cell}: this board has {count}, counted row by row from 0")
