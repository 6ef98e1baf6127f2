"""`watch`: trackers on any `nn.Module`, and a frame for every application of its repeated part.

Nothing has to be said about the module. A *site* is one of its linear layers; within a forward a new *step* begins when a site
that this step has seen is seen again, or when the forward ends. So a block that a model applies n times gives n steps, and a
block that you call in a loop of your own gives one step a call. The module is only looked at: its outputs, gradients and random
state stay what they are.
"""

from __future__ import annotations

import math
import os
import secrets
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from laser_studio.debugger.bookmarks import Bookmark, Bookmarks
from laser_studio.debugger.expressions import Scope
from laser_studio.debugger.folding import Folded, Folder
from laser_studio.debugger.frame_store import FrameStore
from laser_studio.debugger.frames import Event, Frame
from laser_studio.debugger.history import History
from laser_studio.debugger.recording import MAX_CURVES, MAX_FRAMES, MAX_NAME, MAX_NOTES, Header, RecordingWriter
from laser_studio.debugger.spectra import Shares, Spectra
from laser_studio.debugger.watches import Watch, Watches
from laser_studio.errors import LaserStudioError
from laser_studio.laser import LaserPolicy, SiteTap
from laser_studio.laser.ledger import EMPTY, LedgerLine

HISTORY_BYTES = 64 << 20
MAX_BYTES = 256 << 20
DEFAULT_RANK = "25%"

Hook = TypeVar("Hook", bound=Callable[..., None])


@dataclass(frozen=True)
class WatchLedger:
    """What the history of a watched run holds, against the same activations at full width."""

    total: LedgerLine
    sites: Mapping[str, LedgerLine]


def watch(
    module: nn.Module,
    path: str | os.PathLike[str] | None = None,
    *,
    policy: LaserPolicy | None = None,
    every: int | None = 8,
    history_bytes: int = HISTORY_BYTES,
    max_bytes: int = MAX_BYTES,
) -> Watcher:
    """Put a tracker on every linear layer of `module`, from now until `close` (or the end of the `with` block).

    >>> loop = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
    >>> with watch(loop, policy=LaserPolicy(rank=2)) as watcher:
    ...     x = torch.ones(4, 8)
    ...     for _ in range(3):
    ...         x = loop(x)
    >>> len(watcher.frames), watcher.frames[3].sites["0"].rank
    (4, 2)

    path: a file that the frames are written to as they come; `python app.py --watch PATH` shows it, also while it grows. An
    older recording there is replaced. policy: the tracker's settings, by default rank 25 % of each width. A window ends with a
    step (`refresh="step"`), with a forward of `module` ("cycle", the default), or with every `every`-th forward ("supervision";
    `every=None`: only when you call `close_window`). history_bytes: kept of the activations, as coefficients, for reading them
    back. max_bytes: the file's limit, at which watching ends with a warning; so it does when the disk is full.

    Raises `PolicyError` where the module has no linear layers or the policy does not fit them, `RecordingError` where `path`
    cannot be written, and `LaserStudioError` for a compiled module, inside which nothing can be seen.
    """
    return Watcher(module, path, policy=policy, every=every, history_bytes=history_bytes, max_bytes=max_bytes)


def _kept_from_compiler(hook: Hook) -> Hook:
    """`torch.compiler.disable`, but the compiler (two seconds of importing) is only loaded where the user has done so: `hook` and all
    it calls run as plain Python also where a module that was watched first is compiled later.
    """
    disabled: Hook | None = None

    @wraps(hook)
    def guarded(*args: Any) -> None:
        nonlocal disabled
        if disabled is None and "torch._dynamo" in sys.modules:
            disabled = torch.compiler.disable(hook)
        (disabled or hook)(*args)

    guarded._torchdynamo_disable = True  # type: ignore[attr-defined]
    return guarded  # type: ignore[return-value]


class Watcher:
    """Frames of a watched module; made by `watch`. It lives as long as its module or until it is closed, and belongs to one thread.

    Frame 0 is the state before anything was seen. A frame's address: s, the forward; l, the step in it; h, the window in it. What
    a puzzle's frame says of answers and halting is empty here. residual: how far the input of the first repeated site has moved
    since it was last seen (Frobenius norm; 0 where shapes differ). training: bytes of one forward's linear inputs, in full and as
    Z. batch: length of the first axis of what the step read first. ends_supervision: the forward ended here.

    Steps that autograd repeats in a backward pass (activation checkpointing) are left out, as are calls of a part of the module
    from outside its forward.
    """

    def __init__(
        self,
        module: nn.Module,
        path: str | os.PathLike[str] | None,
        *,
        policy: LaserPolicy | None,
        every: int | None,
        history_bytes: int,
        max_bytes: int,
    ) -> None:
        _refuse_compiled(module)
        if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
            raise LaserStudioError(f"every: a number of forwards from 1 on, or None for windows closed by hand; got {every!r:.80}")
        self.module, self.every = module, every
        self.policy = policy or LaserPolicy(rank=DEFAULT_RANK)
        self.notes: dict[str, list[tuple[int, float | None]]] = {}
        """Noted curves by name: (step, value), value None where it was not finite."""
        self._tap = _Tap(module, self.policy, self._see)
        self.sites = {name: layer.in_features for name, layer in self._tap.sites.items()}
        self.bookmarks = Bookmarks()
        self.watches = Watches(Scope(tuple(self.sites)))
        self._dtypes: dict[str, torch.dtype] = {}
        self._folder = Folder(History(history_bytes), self.sites, self._dtypes)
        self._frames = FrameStore([_first_frame()])
        self._spectra = Spectra()
        self._handles: list[RemovableHandle] = []
        self._ended = ""  # why nothing is seen any more
        self._inside = 0  # forwards of the module under way; more than one where it calls itself
        self._seen: set[str] = set()
        self._forwards = self._steps = self._windows = 0  # all forwards; steps and closed windows of the one under way
        self._rows: dict[str, int] = {}  # of each site in the forward under way
        self._rows_before: dict[str, int] = {}  # in the forward before
        self._repeats = False  # whether a site was seen again within a forward
        self._pivot = ""  # the first site seen, or better the first seen again
        self._pivot_input: Tensor | None = None
        self._moved, self._batch = 0.0, 0
        self._full = False
        self._pending: list[Event] = []  # of windows closed between steps
        self._noted = 0
        self._started = time.perf_counter()
        parameter = next(module.parameters(), None)
        self._writer: RecordingWriter | None = None
        if path is not None:
            header = Header(
                run=secrets.token_hex(16),
                module=type(module).__name__,
                sites=self.sites,
                policy=self.policy,
                every=every,
                parameters=sum(weight.numel() for weight in module.parameters()),
                device=str(parameter.device) if parameter is not None else "",
                dtype=str(parameter.dtype).removeprefix("torch.") if parameter is not None else "",
            )
            self._writer = RecordingWriter(path, header, max_bytes=max_bytes)
            # A script that simply ends has ended its run, too.
            self._at_exit = weakref.finalize(self, self._writer.close, "the watching process let go of it")
            self._writer.frame(self._frames[0], {})
        self.attach()

    # What was seen

    @property
    def frames(self) -> Sequence[Frame]:
        """All frames; `frames[t].index == t`."""
        return self._frames

    @property
    def frame(self) -> Frame:
        """The newest frame."""
        return self._frames[-1]

    @property
    def head(self) -> int:
        """Index of the newest frame."""
        return len(self._frames) - 1

    def ledger(self) -> WatchLedger:
        """Bytes that the history holds of each site, and of all."""
        history = self._folder.history
        return WatchLedger(history.ledger, {name: site.ledger for name, site in history.sites.items()})

    def spectra(self, site: str, start: int, stop: int) -> list[Shares | None]:
        """Energy shares of a site's coefficients, descending, at most 64, per step in [start, stop); None where there are none."""
        return self._spectra.read(site, start, min(stop, len(self._frames)))

    def activations(self, index: int, site: str) -> tuple[Tensor, float] | None:
        """A site's input at a step, read back as ZQᵀ (N, D), and the share of its energy kept; None where it was dropped."""
        history = self._folder.history.sites.get(site)
        return history.read(index) if history is not None else None

    # Watching

    @property
    def attached(self) -> bool:
        """Whether the module is being watched."""
        return bool(self._handles) and not self._ended

    def attach(self) -> Self:
        """Watch (again); harmless where it does. Raises `LaserStudioError` where watching has ended."""
        if self._ended:
            raise LaserStudioError(f"watching has ended ({self._ended}): call watch() again")
        if not self._handles:
            _refuse_compiled(self.module)
            # These hold the watcher, so that it lives as long as the module even where nobody keeps it.
            self._handles = [
                self.module.register_forward_pre_hook(lambda module, *_: self._enter(module), prepend=True),
                self.module.register_forward_hook(lambda module, *_: self._leave(module), always_call=True),
            ]
            self._tap.attach()
        return self

    def detach(self) -> None:
        """Take every hook away; `attach` goes on. Not to be called inside a forward of the module."""
        self._tap.detach()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._inside = 0
        self._end_step()

    def close(self) -> None:
        """Stop watching for good and end the recording; frames and history stay readable."""
        self.detach()
        if not self._forwards and not self._ended:
            told = "the module was not called while it was watched (or a version of it that was compiled before, which shows nothing)"
            warnings.warn(f"laser_studio.watch: nothing was seen: {told}", RuntimeWarning, stacklevel=2)
        self._end("closed")

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            self.detach()
            self._end(f"stopped by {type(error).__name__}")

    def close_window(self) -> None:
        """End the window now: inside a forward together with the step under way. Between forwards, the next frame tells of it."""
        if self._ended:
            return
        if self._inside and self._seen:
            self._end_step(closes=True)
        else:
            with _plain_fp32(self.module):
                self._pending += self._folder.close(len(self._frames), self._tap.refresh())

    def note(self, name: str, value: float | Tensor) -> None:
        """Note a value, such as the loss, at the newest step. One that is not finite becomes a gap in the curve."""
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
            raise LaserStudioError(f"a note needs a name of 1 to {MAX_NAME} characters, got {name!r:.80}")
        if name not in self.notes and len(self.notes) >= MAX_CURVES:
            raise LaserStudioError(f"more than {MAX_CURVES} noted curves: note {name!r:.80} under one of the names in use")
        number = float(value.detach() if isinstance(value, Tensor) else value)
        finite = number if math.isfinite(number) else None
        if self._ended or self._noted >= MAX_NOTES:
            return
        self._noted += 1
        self.notes.setdefault(name, []).append((self.head, finite))
        if self._writer is not None:
            self._writer.note(name, self.head, finite)
            self._look_after_file()

    def bookmark(self, name: str = "", note: str = "") -> Bookmark:
        """Mark the newest step, to come back to; kept in the recording. Raises `BookmarkError`."""
        bookmark = self.bookmarks.add(self.head, name, note)
        if self._writer is not None and not self._ended:
            self._writer.bookmark(bookmark)
            self._look_after_file()
        return bookmark

    def follow(self, expression: str, name: str = "") -> Watch:
        """Watch an expression (docs/breakpoints.md); kept in the recording. Raises `ExpressionError` and `WatchError`."""
        followed = self.watches.add(expression, name)
        if self._writer is not None and not self._ended:
            self._writer.watch(followed)
            self._look_after_file()
        return followed

    # The hooks

    @_kept_from_compiler
    def _enter(self, module: nn.Module) -> None:
        if self._ended or _in_backward() or module is not self.module:  # a copy of the module has copies of its hooks
            return
        if self._inside and _calls_under_way(self.module) < 2:
            self._inside = 0  # the forward before was cut off, by Ctrl-C for one
            self._end_step()
        self._inside += 1
        if self._inside == 1:
            self._forwards += 1
            self._steps = self._windows = 0
            self._rows_before, self._rows = self._rows or self._rows_before, {}
            self._started = time.perf_counter()

    @_kept_from_compiler
    def _leave(self, module: nn.Module) -> None:
        if self._ended or _in_backward() or module is not self.module or not self._inside:
            return
        self._inside -= 1
        if not self._inside:
            refresh = self.policy.refresh
            turn = self.every is not None and self._forwards % self.every == 0
            self._end_step(closes=refresh == "cycle" or (refresh == "supervision" and turn), leaves=True)

    def _see(self, name: str, x: Any) -> bool:
        """Whether the tracker of site `name` is to observe x; called before it does."""
        if not self._inside or self._ended or _in_backward() or not self.policy.enabled_for(name):
            return False
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim == 0:
            return True  # the tracker says what is wrong
        if name in self._seen:
            self._end_step()
            if not self._repeats:
                self._repeats = True
                if self._pivot != name:
                    self._pivot, self._pivot_input = name, None
        self._pivot = self._pivot or name
        if not self._seen:
            self._batch = len(x) if x.ndim > 1 else 1
        self._seen.add(name)
        self._dtypes[name] = x.dtype
        self._rows[name] = self._rows.get(name, 0) + x.numel() // max(1, x.shape[-1])
        if name == self._pivot:
            self._moved = self._movement(x)
        return True

    def _movement(self, x: Tensor) -> float:
        """‖x − x′‖ from what the pivot read before."""
        with _plain_fp32(self.module):
            before, now = self._pivot_input, x.detach().clone()  # the module may go on to change x in place
            self._pivot_input = now
            if before is None or before.shape != now.shape or before.device != now.device:
                return 0.0
            return float((now.float() - before.float()).norm())

    def _end_step(self, *, closes: bool = False, leaves: bool = False) -> None:
        """Fold what the step saw into a frame; `closes`: the window ends with it, `leaves`: the forward does."""
        self._seen.clear()
        observed = self._tap.take()
        if self._ended:
            return
        with _plain_fp32(self.module):
            closed = self._tap.refresh() if closes else {name: event for name, event in observed.items() if event.closes}
            index = len(self._frames)
            if not observed:
                self._pending += self._folder.close(index, closed)
                return
            folded = self._folder.fold(index, self.policy, observed, closed)
            finite = all(event.sums.finite for event in observed.values())
            frame = self._frame(index, folded, leaves=leaves, finite=finite)
            if not finite:
                folded.events.append(Event(index, "not finite", f"activations are not finite at step {index}"))
            spent = sum(event.seconds for event in (*observed.values(), *(closed.values() if closes else ())))
            now = time.perf_counter()
            events = tuple(event for event in (*self._pending, *folded.events) if self._is_news(event))
            frame = replace(frame, events=events, tracker_seconds=spent, seconds=now - self._started)
            self._pending, self._started = [], now
            self._keep(frame, folded)
        if closes:
            self._windows += 1

    def _is_news(self, event: Event) -> bool:
        """A history that is full drops its oldest steps again and again; it is told once, because a long run would tell nothing else."""
        if event.kind != "budget" or "dropped" not in event.text:
            return True
        told, self._full = self._full, True
        return not told

    def _frame(self, index: int, folded: Folded, *, leaves: bool, finite: bool) -> Frame:
        self._steps += 1
        sites = {name: replace(site, training=self._training(name, site.rank)) for name, site in folded.sites.items()}
        device = next((parameter.device for parameter in self.module.parameters()), torch.device("cpu"))
        moved, self._moved = self._moved, 0.0
        return replace(
            _first_frame(),
            index=index,
            s=max(1, self._forwards),
            h=self._windows + 1,
            l=self._steps,
            residual=moved if math.isfinite(moved) else 0.0,
            sites=sites,
            history=self._folder.history.ledger,
            training=sum((site.training for site in sites.values()), EMPTY),
            break_even=self._folder.break_even,
            resets=self._folder.resets,
            ends_supervision=leaves,
            finite=finite,
            step_full=folded.full,
            step_stored=folded.stored,
            batch=self._batch,
            allocated=torch.cuda.memory_allocated(device) if device.type == "cuda" else None,
            peak=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        )

    def _training(self, name: str, rank: int) -> LedgerLine:
        """Bytes of one forward's inputs of a site, of which the longer of this one and the last is known so far."""
        dim = self.sites[name]
        numbers = max(self._rows.get(name, 0), self._rows_before.get(name, 0)) * self._dtypes[name].itemsize
        return LedgerLine(numbers * dim, numbers * (rank or dim), dim * rank * 4)

    def _keep(self, frame: Frame, folded: Folded) -> None:
        self._frames.append(frame)
        shares: dict[str, Shares] = {}
        for name, values in folded.spectra.items():
            self._spectra.add(name, frame.index, values)
            if (kept := self._spectra.read(name, frame.index, frame.index + 1)[0]) is not None:
                shares[name] = kept
        if self._writer is not None:
            self._writer.frame(frame, shares)
            self._look_after_file()
        if len(self._frames) >= MAX_FRAMES and not self._ended:
            self._end(f"{MAX_FRAMES:,} steps were recorded")
            warnings.warn(f"laser_studio.watch: watching ended: {self._ended}", RuntimeWarning, stacklevel=2)

    def _look_after_file(self) -> None:
        """Where the file takes no more, watching is over: say so once, and leave the module to itself."""
        if self._writer is not None and self._writer.problem and not self._ended:
            self._end(self._writer.problem)
            warnings.warn(f"laser_studio.watch: watching ended: {self._ended}", RuntimeWarning, stacklevel=2)

    def _end(self, cause: str) -> None:
        # The hooks stay where they are: this may run inside one, and a module does not bear losing hooks while it goes through them.
        if not self._ended:
            self._ended = cause
            if self._writer is not None:
                self._at_exit.detach()
                self._writer.close(cause)


class _Tap(SiteTap):
    """A tap that asks before each observation."""

    def __init__(self, module: nn.Module, policy: LaserPolicy, admits: Callable[[str, Any], bool]) -> None:
        super().__init__(module, policy)
        self._admits = admits

    @_kept_from_compiler
    def _see(self, name: str, x: Tensor) -> None:
        if self._admits(name, x):
            super()._see(name, x)


@contextmanager
def _plain_fp32(module: nn.Module) -> Iterator[None]:
    """Without gradient, autocast or inference mode, whatever the caller's."""
    device = next((parameter.device.type for parameter in module.parameters()), "cpu")
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
        yield


def _first_frame() -> Frame:
    """The state before anything was seen, without any figure of a puzzle."""
    return Frame(
        index=0,
        s=0,
        h=0,
        l=0,
        answer=(),
        confidence=(),
        changed=(),
        wrong=None,
        right=0,
        total=0,
        solved=None,
        q_halt=0.0,
        halt_probability=0.0,
        residual=0.0,
        sites={},
        history=EMPTY,
        training=EMPTY,
        training_all=EMPTY,
        break_even=None,
        resets=0,
        events=(),
    )


def _refuse_compiled(module: nn.Module) -> None:
    for name, child in module.named_modules():
        compiled = type(child).__name__ == "OptimizedModule" or getattr(child, "_compiled_call_impl", None) is not None
        if compiled or type(child).__module__.startswith("torch.jit."):
            kind = "compiled" if compiled else "scripted"
            what = f"the part {name!r} of the module" if name else "the module"
            raise LaserStudioError(f"{what} is {kind}, and inside such code nothing can be watched: watch the module before it is {kind}")


def _in_backward() -> bool:
    """Whether autograd is running a backward pass: a forward in there only repeats one that was seen (activation checkpointing)."""
    return torch._C._current_graph_task_id() != -1


def _calls_under_way(module: nn.Module) -> int:
    """How many calls of `module` the caller is inside of."""
    calls = 0
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        calls += frame.f_code is _CALL and frame.f_locals.get("self") is module
        frame = frame.f_back
    return calls


_CALL = nn.Module._wrapped_call_impl.__code__
