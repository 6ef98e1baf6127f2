"""What every site of one net application reads and returns, in figures small enough for a screen: norms, and mean squares per cell.

The exact tensors come from a replay (`Session.inside`); beside each stands what the history still holds of the same input, ZQᵀ, with
the share of its energy that is left.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from laser_studio.debugger.session import Session

Cells = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SiteSummary:
    """One linear layer within a net application.

    rows: N, of the whole batch; dim_in, dim_out: widths of input X and output Y; input_norm, output_norm: ‖X‖_F and ‖Y‖_F over all
    rows. inputs, outputs: per cell of the puzzle shown the mean square over the features; None where the layer mixes cells, so that
    its rows or columns are no cells. read_back: the same of ZQᵀ, None where the history has dropped it; kept: ‖ZQᵀ‖² / ‖X‖², the
    share of energy that the history still holds of this step; error: ‖X − ZQᵀ‖ / ‖X‖. fidelity, rank: of the frame.
    """

    site: str
    rows: int
    dim_in: int
    dim_out: int
    input_norm: float
    output_norm: float
    inputs: Cells | None
    outputs: Cells | None
    read_back: Cells | None
    kept: float | None
    error: float | None
    fidelity: float | None
    rank: int


def summaries(session: Session, index: int) -> tuple[SiteSummary, ...]:
    """Every site within the net application that led to frame `index`, in order; none for frame 0. Moves nothing.

    Raises IndexError for a step that is not recorded.
    """
    visits = session.inside(index)
    if not visits:
        return ()
    frame, prefix = session.frames[index], session.model.config.prefix_len
    cells = len(frame.answer)
    tokens = prefix + cells
    found = []
    for visit in visits:
        x, y = visit.inputs.float(), visit.outputs.float()

        def per_cell(values: Tensor, site: str = visit.site) -> Cells | None:
            squares = _per_token(values, site, session.batch, tokens)
            return None if squares is None else tuple(squares[prefix:].tolist())

        stored = session.activations(index, visit.site)
        back = None if stored is None else stored[0].float()
        norm = float(x.norm())
        recorded = frame.sites.get(visit.site)
        found.append(
            SiteSummary(
                site=visit.site,
                rows=x.shape[0],
                dim_in=x.shape[1],
                dim_out=y.shape[1],
                input_norm=norm,
                output_norm=float(y.norm()),
                inputs=per_cell(x),
                outputs=per_cell(y),
                read_back=None if back is None else per_cell(back),
                kept=None if stored is None else stored[1],
                error=None if back is None else float((x - back).norm()) / norm if norm > 0 else 0.0,
                fidelity=recorded.fidelity if recorded is not None else None,
                rank=recorded.rank if recorded is not None else 0,
            )
        )
    return tuple(found)


def _per_token(values: Tensor, site: str, batch: int, tokens: int) -> Tensor | None:
    """(P + T,) mean square of each token of the first puzzle, of values (N, D); None where neither rows nor columns are tokens."""
    if ".mlp_t." in f".{site}":  # mixes tokens: a row is a feature of one puzzle
        return values.reshape(batch, -1, tokens)[0].square().mean(0) if values.shape[1] == tokens else None
    return values.reshape(batch, tokens, -1)[0].square().mean(-1) if values.shape[0] == batch * tokens else None
