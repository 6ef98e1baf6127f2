"""Training on compressed activations: `compress` makes any module with repeatedly applied linear layers keep Z = XQ in place of X.

Here live the sites (which basis, exact or not), the patches that put the functions of `functions` in place of forwards, the optimiser
step as a window, the state and the ledger. Knows nothing of TRM: mode "block" reads modules that describe themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from time import perf_counter
from types import TracebackType
from typing import Any, Literal, Protocol, Self, get_args, runtime_checkable
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.weak import WeakIdKeyDictionary

from laser_studio.errors import CompressionError, LaserStudioError
from laser_studio.laser import functions
from laser_studio.laser.books import CHAIN, Books, Measured
from laser_studio.laser.budget import IN_FULL, Budget, Choice, Option, Run
from laser_studio.laser.chain import Boundary, Formed, Piece, Stage, Weights, chain, kept_whole
from laser_studio.laser.choosing import Chooser, as_policy
from laser_studio.laser.event import TrackerEvent
from laser_studio.laser.ledger import CompressionLedger, TotalLine
from laser_studio.laser.patches import Instead, Patch, Saving, Wrap
from laser_studio.laser.policy import LaserPolicy
from laser_studio.laser.products import Arithmetic, Products, arithmetic, rebuilding_arithmetic
from laser_studio.laser.quantise import Storage, stored_bytes
from laser_studio.laser.rule import Standing
from laser_studio.laser.sites import find_sites
from laser_studio.laser.stored_site import OnMiss, StoredSite
from laser_studio.laser.together import Group
from laser_studio.laser.tracker import Snapshot, refresh_together

Mode = Literal["linear", "block"]
FORMAT = 1


@runtime_checkable
class StagedModule(Protocol):
    """A module that can say its forward as residual stages, for mode "block".

    `residual_stages` takes the arguments of `forward` and returns what enters the first stage, (B, T, D), or a tuple of what it is the
    sum of, and the stages; `forward` must return what the last stage gives, and use its other linear layers nowhere.
    """

    def residual_stages(self, *args: Any, **kwargs: Any) -> tuple[Tensor | tuple[Tensor, ...], Sequence[Stage]]: ...


def compress(
    model: nn.Module,
    policy: LaserPolicy | None = None,
    mode: Mode = "block",
    *,
    budget: str | None = None,
    on_miss: OnMiss = "stay",
    storage: Storage | Mapping[str, Storage] = "exact",
    products: Products = "auto",
    thin: int = 1,
    group: Group | None = None,
) -> Compression:
    """Make the forwards of `model` keep their activations compressed while the returned object is entered.

    >>> _ = torch.manual_seed(0)
    >>> layer = nn.Linear(16, 16)
    >>> laser = compress(layer, LaserPolicy(rank=4), mode="linear")
    >>> x = torch.randn(64, 4) @ torch.randn(4, 16)
    >>> for _ in range(2):
    ...     with laser:
    ...         layer(x).square().sum().backward()
    ...     laser.step()
    >>> line = laser.ledger().sites["linear"]
    >>> line.full_bytes, line.stored_bytes, line.rank
    (4096, 1024, 4)

    policy: may be left out with a budget.
    budget: "cosine=0.99" (with plain autograd's gradient, at least), "bytes=64MiB" or "bytes=3%" (of what plain autograd saves, at most):
    rank and storage of each site are then found by `Compression.choose`, which also tries to make places inside a chain again; until it
    was called, nothing is projected.
    mode: "linear" keeps Z for the input of every linear layer and touches nothing else. "block" keeps, of every module that is a
    `StagedModule`, only Z between its stages and rebuilds the rest in backward; linear layers elsewhere are treated as in "linear".
    on_miss: what the next step keeps at a site whose window missed ε: "stay", Z with the basis the rule gives it; "keep_exact", X
    whole until a window no longer misses. What was stored in the missing window itself stays as it was measured.
    storage: of Z, in the dtype of the activations, as "int8" with a scale per row, or as "int4" with a scale per 32 values; for all, or by
    patterns of site names, of which the last that fits counts. In mode "block" places between stages that the policy switches off
    are stored whole, in the same ways; four bits are made for them, and poor for Z. Of a place that is "recomputed" nothing is
    stored, whatever the policy: backward makes it again from the place before, by running the stage between to its end.
    products: of what is stored in few bits, where backward rebuilds and where weight gradients are summed: "int8", "bf16", "float" as the
    model is, or "auto", the fastest: for a model in fp32 int8 on a CPU that has it and bf16 on a GPU.
    group: the processes that train this model together, each with its equal part of every batch: bases, growth and resets are then those of
    all of them, the same everywhere.
    thin: every so many rows of an application one is looked at for the basis and its fidelity; all are stored. 1 looks at all.

    Raises `CompressionError` for a module without anything to compress or compiled by torch.compile, `PolicyError` for a policy
    that does not fit its sites.
    """
    if policy is None and budget is None:
        raise CompressionError("give a policy, or a budget to find one by")
    wanted = None if budget is None else Budget.read(budget)
    how = {"on_miss": on_miss, "storage": storage, "products": products, "thin": thin, "group": group}
    return Compression(model, policy or LaserPolicy(), mode, budget=wanted, **how)  # type: ignore[arg-type]  # checked there


class Compression:
    """What `compress` returns. ::

        laser = compress(model, policy)
        with laser:                                    # forwards are saved compressed; Q is frozen
            loss_of(model, batch).backward()
        optimizer.step(); laser.step()                 # refresh from the step's sketches, grow, reset

    An optimiser step may have several `with`, forwards and backwards (gradient accumulation). Until the first `step` everything is kept
    exact and starts the bases. Forwards without gradient are left alone: they keep nothing and cost nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        policy: LaserPolicy,
        mode: Mode,
        *,
        budget: Budget | None,
        on_miss: OnMiss,
        storage: Storage | Mapping[str, Storage],
        products: Products,
        thin: int,
        group: Group | None = None,
    ) -> None:
        by_pattern: dict[str, Storage] = {"*": storage} if isinstance(storage, str) else dict(storage)
        kinds = [("mode", mode, Mode), ("on_miss", on_miss, OnMiss), ("products", products, Products)]
        for name, value, kind in (*kinds, *(("storage", value, Storage) for value in by_pattern.values())):
            if value not in get_args(kind):
                raise CompressionError(f"{name} is {' or '.join(map(repr, get_args(kind)))}, not {value!r:.40}")
        if mode == "linear" and "recomputed" in by_pattern.values():
            raise CompressionError(
                'places are "recomputed" in mode="block" only: a linear layer by itself has nothing to make its input from'
            )
        if not isinstance(thin, int) or thin < 1:
            raise CompressionError(f"thin is a whole number from 1 on, not {thin!r:.40}")
        self._patches: list[Patch] = []
        self.model, self.mode, self.on_miss, self.products, self.thin = model, mode, on_miss, products, thin
        self._storage, self.group = by_pattern, group
        self.budget, self._chosen = budget, None if budget is None else dict[str, Option]()  # by place; a place not named is in full
        self._linears = find_sites(model)
        self._chains = dict(_outermost_staged(model)) if mode == "block" else {}
        if mode == "block" and not self._chains:
            raise CompressionError(
                f'{type(model).__name__} has no module with `residual_stages`, which mode "block" needs: use mode="linear", or give it one'
            )
        if not self._linears:
            raise CompressionError(f"{type(model).__name__} has no linear layers to compress")
        self._names = {layer: name for name, layer in self._linears.items()}
        inside = {layer for chain in self._chains.values() for layer in chain.modules()}
        self._alone = {name: layer for name, layer in self._linears.items() if layer not in inside}
        self._inside = {*self._linears, *(self._end(name) for name in self._chains)} - self._alone.keys()
        self._sites: dict[str, StoredSite] = {}
        self._places: dict[str, int] = {}
        self._edges: set[str] = set()  # places that are the first or the last of a chain, and places between those, seen so far
        self._between: set[str] = set()
        self.books = Books(model, self._alone)
        self._casts: dict[tuple[int, torch.dtype], tuple[int, Tensor]] = {}
        self._stand_ins: Any = WeakIdKeyDictionary()  # of weights: what gets their gradients in the open step
        # Tensors kept whole: their version, in which storage, what is kept, which others may share, and by which place.
        self._ends: Any = WeakIdKeyDictionary()
        self._shares: dict[str, set[str]] = {}  # places that read what another keeps: whose, seen so far
        self._formed: WeakValueDictionary[str, Formed] = WeakValueDictionary()  # alive while a graph is that may need it
        self._steps = 0
        self._seconds = [0.0, 0.0]
        self._last: CompressionLedger | None = None
        self._policy = self._checked(policy if self._chosen is None else as_policy(policy, self._chosen))

    # Life

    @property
    def policy(self) -> LaserPolicy:
        """The settings of all sites, with their overrides."""
        return self._policy

    @property
    def attached(self) -> bool:
        """Whether forwards are being compressed."""
        return bool(self._patches)

    @property
    def stored_sites(self) -> Mapping[str, StoredSite]:
        """Every site seen so far, by name."""
        return self._sites

    @property
    def places(self) -> Mapping[str, int]:
        """Width of every place seen so far of which something is kept, with a basis or without, in the order they are met."""
        return self._places

    @property
    def inner_places(self) -> set[str]:
        """Places seen so far in forwards that are neither the first nor the last of a chain: what a budget may have made again.

        The last could be too, but what it frees is then kept by whoever reads it: the next application's first place, and the heads.
        """
        return self._between - self._edges

    @property
    def shared_places(self) -> list[set[str]]:
        """Places seen so far of which, whole and in one storage, one thing is kept: a chain's output, what reads it next, the heads."""
        groups: list[set[str]] = []
        for place, others in self._shares.items():
            joined = {place, *others}
            for group in [one for one in groups if one & joined]:
                groups.remove(group)
                joined |= group
            groups.append(joined)
        return [group for group in groups if len(group) > 1]

    @property
    def bases(self) -> list[Tensor]:
        """Every Q in force and what stands for its WQ: what the ledger counts beside the coefficients."""
        bases = [site.tracker.basis for site in self._sites.values() if site.tracker.basis is not None]
        return bases + [each for site in self._sites.values() for each in site.projections]

    def storage_for(self, name: str) -> Storage:
        """How coefficients of this site are stored, or the whole where it is switched off."""
        if self._chosen is not None:
            return self._chosen.get(name, IN_FULL).storage
        fitting: list[Storage] = [storage for pattern, storage in self._storage.items() if fnmatchcase(name, pattern)]
        found = fitting[-1] if fitting else "exact"
        return found if found != "recomputed" or name in self._inside else "exact"

    @property
    def casts(self) -> list[Tensor]:
        """Weights of layers by themselves as autocast has cast them for the open step: saved for backward, and weights all the same."""
        return [cast for _, cast in self._casts.values()]

    def set_policy(self, policy: LaserPolicy) -> None:
        """Other settings, from the next `step` on; a site switched off is kept whole from the next forward on."""
        self._policy = self._checked(policy)
        for name in list(self._sites):
            if policy.enabled_for(name):
                self._sites[name].tracker.set_policy(replace(policy.for_site(name), refresh="supervision"))
            else:
                del self._sites[name]

    def __enter__(self) -> Self:
        if self._patches:
            raise CompressionError("this compression is already entered: leave it first")
        for name, module in self.model.named_modules():
            if getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod"):
                raise CompressionError(
                    f"{name or type(module).__name__} is compiled by torch.compile, which would pass compression by: train it uncompiled"
                )
        self._forget()
        self.books.open(self._sites)
        self._patches = [Wrap(layer, self._linear_call(name)) for name, layer in self._alone.items()]
        self._patches += [Wrap(module, self._chain_call(name)) for name, module in self._chains.items()]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._unpatch()
        self._ends.clear()
        self.books.close(self._sites, self.bases, kind, error, trace)

    def detach(self) -> None:
        """Give the model its own forwards back and let go of everything held for the open step; bases stay."""
        self._unpatch()
        self.books.drop()
        self._forget()

    def _forget(self) -> None:
        """Let go of what belongs to one step."""
        self._casts.clear()
        self._stand_ins.clear()
        self._ends.clear()
        for site in self._sites.values():
            site.forget_projections()

    def __del__(self) -> None:
        for patch in self.__dict__.get("_patches", ()):
            patch.remove()

    def _unpatch(self) -> None:
        for patch in self._patches:
            patch.remove()
        self._patches = []

    def step(self) -> dict[str, TrackerEvent]:
        """Close the optimiser step: every basis is refreshed from what it has seen, by the policy. Returns the events by site.

        Call it after the last backward of the step. What was saved before keeps the bases it was saved with.
        """
        started = perf_counter()
        self._last = self._ledger()
        seen = [site for site in self._sites.values() if site.applications and not site.is_small]
        if self.group is not None and seen:
            self.group.merge([site.tracker for site in seen])
        events = refresh_together([site.tracker for site in seen], [None] * len(seen)) if seen else []
        told = {site.name: event for site, event in zip(seen, events, strict=True)}
        for site in seen:
            site.closed(told[site.name])
        for site in self._sites.values():
            if site not in seen and site.applications:
                site.closed(site.tracker.refresh())
        self._casts.clear()
        self._stand_ins.clear()
        self._ends.clear()
        self.books.next_step()
        self._steps += 1
        self._seconds[any(event.action == "reset" for event in events)] += perf_counter() - started
        return told

    # Budget

    def choose(self, runs: Sequence[Run], *, checked: int | None = None, rounds: int = 2) -> Choice:
        """Find rank and storage of each site for the budget, by the gradients of `runs`, and go on with them.

        runs: each makes one forward with its backward on a batch of its own, the same at every call, and leaves weights and other
        states as they were. The last `checked` of them, by default half, are measured on: one batch tells little, cosines differ much
        between steps. The others, in `rounds` rounds, make the bases, so that these are never of the batch they compress. Gradients
        that were there stay. Raises `CompressionError` without a budget, inside `with`, or where there are not at least
        `checked` + 1 runs.
        """
        choice, state = self._chooser(runs, checked).choose(rounds)
        steps, seconds = self._steps, self._seconds
        self.load_state_dict(state)
        self._steps, self._seconds = steps, seconds
        return choice

    def hold(self, runs: Sequence[Run], *, checked: int | None = None) -> tuple[float, Choice | None]:
        """The cosine that what was chosen reaches now, mean over the last `checked` runs; chosen anew where that misses the budget.

        Between two optimiser steps; arguments and errors as in `choose`.
        """
        chooser = self._chooser(runs, checked)
        if not self._chosen:
            return 1.0, self.choose(runs, checked=checked)  # so far nothing is projected
        cosine = chooser.cosine(self.state_dict())
        if chooser.budget.cosine is None or cosine >= chooser.budget.cosine:
            return cosine, None
        return cosine, self.choose(runs, checked=checked)

    @property
    def chosen(self) -> Mapping[str, Option] | None:
        """What the budget led to, by place; empty before `choose`, None without a budget."""
        return None if self._chosen is None else dict(self._chosen)

    def _chooser(self, runs: Sequence[Run], checked: int | None) -> Chooser:
        if self.budget is None:
            raise CompressionError('this compression has no budget: compress(model, budget="cosine=0.99")')
        if self._patches:
            raise CompressionError("leave the compression first: choosing enters it by itself")
        return Chooser(self.model, self._policy, self.budget, self._another, runs, checked)

    def _another(self, policy: LaserPolicy, budget: Budget | None) -> Compression:
        how = {"products": self.products, "thin": self.thin, "group": self.group}
        other = Compression(self.model, policy, self.mode, budget=budget, on_miss="stay", storage="exact", **how)  # type: ignore[arg-type]
        other.books.share_with(self.books)
        return other

    # Forwards

    def _site(self, name: str, dim: int, feeds: int = 1) -> StoredSite | None:
        """The site, made when first seen; None where the policy switches it off. feeds: linear layers that read it."""
        site = self._sites.get(name)
        if site is None and self._policy.enabled_for(name) and self.storage_for(name) != "recomputed":
            site = self._sites[name] = self._new_site(name, dim, feeds, self._policy, self.storage_for(name))
        return site

    @property
    def _share(self) -> tuple[int, int]:
        return (0, 1) if self.group is None else (self.group.rank, self.group.size)

    def _new_site(self, name: str, dim: int, feeds: int, policy: LaserPolicy, storage: Storage) -> StoredSite:
        return StoredSite(name, dim, policy.for_site(name), self.on_miss, feeds, storage, self.thin, self._share)

    def _linear_call(self, name: str) -> Callable[..., Tensor]:
        layer = self._alone[name]

        def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            if not (torch.is_grad_enabled() and weight.requires_grad and x.shape[-1:] == (layer.in_features,)):
                return F.linear(x, weight, bias)
            if (site := self._site(name, layer.in_features)) is None:
                return self._whole_product(name, x, weight, bias)
            self._places.setdefault(name, layer.in_features)
            with Saving(self.books.meter, name):
                return self._product(site, x, weight, bias)

        def call(plain: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
            if not torch.is_grad_enabled():
                return plain(*args, **kwargs)
            _refuse_tracing()
            with Instead(product):  # whatever weight the layer's own forward hands to F.linear: itself, or a cast of it
                return plain(*args, **kwargs)

        return call

    def _whole_product(self, name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Of a layer that is switched off: its input is kept as it is, or as a chain has kept it already."""
        piece = self._kept_already(name, x, self.storage_for(name))
        shares = piece is not None and piece.scale is not None and _product_dtype(x) is None
        if self._chains:  # one of the places to choose among; in mode "linear" a layer switched off is none of LASER's
            self._places.setdefault(name, x.shape[-1])
            self.books.note_whole(name, x.nbytes, 0 if shares else x.nbytes)
        if not shares:
            return F.linear(_alone(x), weight, bias)
        assert piece is not None and piece.scale is not None
        self.books.note_shared(x)
        with Saving(self.books.meter, CHAIN):
            return functions.linear_whole(x, weight, bias, piece.values, piece.scale)

    def _kept_already(self, reader: str, x: Tensor, storage: Storage) -> Piece | None:
        """What a chain keeps of x, which a place reads, if it keeps it in that storage."""
        how, piece, keeper = self._ends.get(x, (None, None, None))
        if keeper is not None:
            self._shares.setdefault(reader, set()).add(keeper)
        return piece if how == (x._version, storage) else None

    def _product(self, site: StoredSite, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if (dtype := _product_dtype(x)) is not None:
            x, weight, bias = x.to(dtype), self._cast(weight, dtype), None if bias is None else bias.to(dtype)
            with torch.autocast(x.device.type, enabled=False):
                return self._product(site, x, weight, bias)
        basis = site.basis
        how: Arithmetic = "float"
        if basis is not None and site.storage != "exact":
            how = arithmetic(self.products, x.device, x.dtype, basis.shape[1])
        site.by_row = how == "int8"
        z = site.take(x.detach().reshape(-1, x.shape[-1]))
        if z is None or basis is None:
            return F.linear(_alone(x) if site.is_small else x, weight, bias)
        return functions.linear(x, weight, bias, z, site.projection(weight), basis, storage=site.storage, products=how)

    def _chain_call(self, name: str) -> Callable[..., Tensor]:
        module = self._chains[name]

        def call(plain: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
            if not torch.is_grad_enabled():
                return plain(*args, **kwargs)
            _refuse_tracing()
            assert isinstance(module, StagedModule)
            entering, stages = module.residual_stages(*args, **kwargs)
            parts = entering if isinstance(entering, tuple) else (entering,)
            x = sum(parts[1:], parts[0])
            self.books.note_plain(name, plain, args, kwargs, x)
            with Saving(self.books.meter, CHAIN):
                return self._chain(name, x, parts, stages)

        return call

    def _chain(self, name: str, x: Tensor, parts: Sequence[Tensor], stages: Sequence[Stage]) -> Tensor:
        boundaries: list[Boundary] = []
        weights: list[Weights] = []
        dtype = _product_dtype(x) or x.dtype
        few_bits = False
        places = [(self._names[stage.first], stage.first.in_features, stage.across, 1) for stage in stages]
        places.append((self._end(name), x.shape[-1], False, 0))
        self._edges |= {places[0][0], places[-1][0]}
        self._between |= {place for place, *_ in places[1:-1]}
        for place, width, across, feeds in places:
            site, storage = self._site(place, width, feeds), self.storage_for(place)
            if storage != "recomputed":  # what is made again is no more exact than the place it is made of
                few_bits = storage != "exact"
            columns = width if site is None or site.basis is None else site.basis.shape[1]
            multiplied = (self.products, x.device, dtype, columns)
            hows = (rebuilding_arithmetic(*multiplied), arithmetic(*multiplied)) if few_bits else ("float", "float")
            boundaries.append(self._boundary(place, site, across, width, hows))
            if site is None:
                self.books.note_whole(place, feeds * x.nbytes, _whole_bytes(x, width, storage, boundaries[-1].by_row))
        boundaries[0] = self._shared(places[0][0], places[0][1], boundaries[0], x, parts)
        for stage, boundary, after in zip(stages, boundaries, boundaries[1:], strict=False):
            first, last = stage.first, stage.last
            if _has_bias(first) or _has_bias(last):
                raise CompressionError(f'{name}: mode="block" knows stages without bias only; use mode="linear"')
            projects = boundary.basis is not None
            to_first = self._sites[self._names[first]].projection(first.weight) if projects else self._stand_in(first.weight)
            casts = _in_dtype(first, dtype), _in_dtype(last, dtype)
            weights.append(Weights(first.weight, last.weight, casts, to_first, self._stand_in(last.weight)))
            rows = x.numel() // first.in_features
            self.books.note_stage(self._names[last], last.in_features, rows, x.itemsize, keeps_norm=after.storage != "recomputed")
        out, piece = chain(x, stages, boundaries, weights, dtype)
        if piece is not None:
            self._ends[out] = (out._version, boundaries[-1].storage), piece, self._end(name)
        return out

    @staticmethod
    def _end(name: str) -> str:
        """The place behind the last stage of a chain."""
        return f"{name}.output" if name else "output"

    def _shared(self, name: str, width: int, boundary: Boundary, x: Tensor, parts: Sequence[Tensor]) -> Boundary:
        """The first place of a chain, kept as the sum of its parts where each of them is kept whole, or is to be, in the same way."""
        storage = boundary.storage
        if storage == "recomputed":
            raise CompressionError(f"{name} reads what enters: there is nothing before it to make that of again, so that it is kept")
        alike = all(part.shape == x.shape and part.dtype == x.dtype for part in parts)
        known = [self._kept_already(name, part, storage) for part in parts]
        if name in self._sites or not alike or (len(parts) > 1 and all(piece is None for piece in known)):
            return boundary
        kept, new = [], 0
        for part, piece in zip(parts, known, strict=True):
            if piece is None:
                piece = kept_whole(part, storage, boundary.by_row)
                self._ends[part] = (part._version, storage), piece, name
                new += piece.nbytes
            kept.append(piece)
        self.books.note_whole(name, 0, new - _whole_bytes(x, width, storage, boundary.by_row))  # in place of what was noted
        return replace(boundary, parts=tuple(kept))

    def _boundary(self, name: str, site: StoredSite | None, across: bool, width: int, hows: tuple[Arithmetic, Arithmetic]) -> Boundary:
        basis, storage = None if site is None else site.basis, self.storage_for(name)
        formed = self._formed.get(name)
        if formed is None or formed.basis is not basis:
            formed = self._formed[name] = Formed(basis)
        self._places.setdefault(name, width)
        if site is None:
            return Boundary(lambda rows: None, None, across, *hows, storage, formed)
        if basis is None:
            return Boundary(site.take, None, across, formed=formed)
        boundary = Boundary(site.take, basis, across, *hows, storage, formed)
        site.by_row = boundary.by_row
        return boundary

    def _stand_in(self, weight: Tensor) -> functions.StandIn:
        """What gets the weight's gradient, one for all applications of the open step."""
        known: functions.StandIn | None = self._stand_ins.get(weight)
        if known is None:
            with torch.enable_grad():
                known = self._stand_ins[weight] = functions.stand_in(weight)
        return known

    def _cast(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The weight in `dtype`, cast once per optimiser step."""
        if weight.dtype == dtype:
            return weight
        key = (id(weight), dtype)
        known = self._casts.get(key)
        if known is None or known[0] != weight._version:
            with torch.enable_grad():
                known = self._casts[key] = (weight._version, weight.to(dtype))
        return known[1]

    # State

    def state_dict(self) -> dict[str, Any]:
        """Bases, standings and counts, of plain values and tensors; for between two steps, after `step`."""
        if any(site.applications for site in self._sites.values()):
            raise CompressionError("the optimiser step is still open: call step() before state_dict()")
        sites = {}
        for name, site in self._sites.items():
            now = site.tracker.snapshot()
            sites[name] = {
                "dim": now.dim,
                "basis": now.basis,
                "standing": asdict(now.standing),
                "window": now.window,
                "holds": now.holds,
                "reference": now.reference,
                "feeds": site.feeds,
                "missing": site.missing,
                "fidelity": site.fidelity,
                "counts": [site.misses, site.growths, site.resets],
                "last": [site.last_rows, site.tracker.expected],
            }
        told: dict[str, Any] = {"format": FORMAT, "mode": self.mode, "steps": self._steps, "seconds": list(self._seconds)}
        if self._chosen is not None:
            told["chosen"] = {place: [option.rank, option.storage] for place, option in self._chosen.items()}
        return {**told, "measured": self.books.state(), "sites": sites, "places": dict(self._places)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; the policy is that of this object. Raises `CompressionError` where it belongs to another model or mode."""
        try:
            if state["format"] != FORMAT or state["mode"] != self.mode:
                raise CompressionError(f"the state is of mode {state['mode']!r:.40} (format {state['format']!r:.20}), not of {self.mode!r}")
            if ("chosen" in state) != (self.budget is not None):
                raise CompressionError("the state is of a compression with a budget, this one has none, or the other way round")
            chosen, policy = None, self._policy
            if self.budget is not None:
                chosen = {place: Option(rank, storage) for place, (rank, storage) in state["chosen"].items()}
                policy = self._checked(as_policy(self._policy, chosen))
            sites = {}
            for name, saved in state["sites"].items():
                width = self._linears[name].in_features if name in self._linears else saved["dim"]
                basis = saved["basis"]
                if saved["dim"] != width or (basis is not None and (basis.ndim != 2 or basis.shape[0] != width)):
                    raise CompressionError(f"site {name!r:.80} has width {width}, the state another: it belongs to another model")
                if not policy.enabled_for(name):
                    continue
                storage = self.storage_for(name) if chosen is None else chosen[name].storage
                site = self._new_site(name, width, saved["feeds"], policy, storage)
                site.missing, site.fidelity = saved["missing"], saved["fidelity"]
                site.misses, site.growths, site.resets = saved["counts"]
                site.last_rows, expected = saved["last"]
                site.tracker.expect(expected)
                fields = {key: saved[key] for key in ("window", "holds", "reference")}
                site.tracker.restore(Snapshot(width, site.tracker.policy, Standing(**saved["standing"]), basis=basis, **fields))
                sites[name] = site
            steps, seconds = int(state["steps"]), [float(each) for each in state["seconds"]]
            measured = Measured.of(state["measured"])
            widths = state.get("places", {name: saved["dim"] for name, saved in state["sites"].items()})  # older states lack it
            places = {str(name): int(width) for name, width in widths.items()}
        except LaserStudioError:
            raise
        except Exception as failure:
            raise CompressionError(f"this is not a state of activation compression ({type(failure).__name__})") from failure
        self._sites, self._places, self._steps, self._seconds, self._last = sites, places, steps, seconds, None
        self._policy, self._chosen = policy, chosen
        self.books.take_up(measured)

    def _checked(self, policy: LaserPolicy) -> LaserPolicy:
        ends = [self._end(name) for name in self._chains]
        policy.check_sites({name: layer.in_features for name, layer in self._linears.items()}, ends)
        return policy

    # Bytes

    def ledger(self) -> CompressionLedger:
        """The bytes of the open optimiser step, or of the last one where nothing has been seen since."""
        is_open = self.books.holds_whole or any(site.applications for site in self._sites.values())
        return self._ledger() if is_open or self._last is None else replace(self._last, total=self._with_counts(self._last.total))

    def _ledger(self) -> CompressionLedger:
        total, sites = self.books.lines(self._sites)
        return CompressionLedger(self._with_counts(total), sites)

    def _with_counts(self, total: TotalLine) -> TotalLine:
        counts = {name: sum(getattr(site, name) for site in self._sites.values()) for name in ("misses", "growths", "resets")}
        ordinary, with_reset = self._seconds
        return replace(self.books.measured_in(total), steps=self._steps, refresh_seconds=ordinary, reset_seconds=with_reset, **counts)


def _outermost_staged(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    if isinstance(model, StagedModule):
        yield name, model
        return
    for child_name, child in model.named_children():
        yield from _outermost_staged(child, f"{name}.{child_name}" if name else child_name)


def _product_dtype(x: Tensor) -> torch.dtype | None:
    """What autocast multiplies x in, None where it leaves it alone."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) and x.dtype != torch.float64 else None


def _in_dtype(layer: nn.Linear, dtype: torch.dtype) -> Tensor:
    """The layer's weight without gradient, cast anew unless the layer holds a cast of it, which `weight_as` gives."""
    held: Callable[[torch.dtype], Tensor] | None = getattr(layer, "weight_as", None)
    return (layer.weight.to(dtype) if held is None else held(dtype)).detach()


def _whole_bytes(x: Tensor, width: int, storage: Storage, by_row: bool) -> int:
    """Bytes of x as rows of that width, stored whole."""
    return stored_bytes(x.numel() // width, width, x.itemsize, storage, by_row=by_row)


def _alone(x: Tensor) -> Tensor:
    """x, or a copy where it is a small part of a tensor that it would keep alive."""
    return x.clone() if 2 * x.nbytes <= x.untyped_storage().nbytes() else x


def _has_bias(layer: nn.Module) -> bool:
    return getattr(layer, "bias", None) is not None


def _refuse_tracing() -> None:
    if torch.compiler.is_compiling():
        raise CompressionError("torch.compile cannot trace a compressed forward: train uncompiled")
