"""What a reference stands for: one file of weights and what lies beside it, at one commit, with sizes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from laser_studio.errors import HubError
from laser_studio.hub.failures import in_words, is_unreachable
from laser_studio.hub.places import endpoint, snapshot_folder
from laser_studio.hub.reference import HubReference, is_file_name, parse
from laser_studio.untrusted.faults import shown

MAX_BYTES = 8 << 30  # of one checkpoint; the largest known of this kind has 2.5 GB
MAX_COMPANION = 64 << 20  # bytes of a file beside the weights
COMPANIONS = ("all_config.yaml", "config.json", "config.yaml", "dataset.json", "identifiers.json")
_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
_TIMEOUT_SECS = 10.0


@dataclass(frozen=True)
class HubFile:
    """A file of a repository, its bytes, and whether the cache has it."""

    name: str
    size: int
    cached: bool


@dataclass(frozen=True)
class HubCheckpoint:
    """What a reference stands for: one file of weights and what lies beside it, at one commit. offline: the Hub was not asked."""

    reference: HubReference
    commit: str
    weights: HubFile
    companions: tuple[HubFile, ...]
    offline: bool = False

    @property
    def files(self) -> tuple[HubFile, ...]:
        """All that is fetched, the weights last."""
        return (*self.companions, self.weights)

    @property
    def missing_bytes(self) -> int:
        """Bytes that are still to be fetched."""
        return sum(file.size for file in self.files if not file.cached)

    @property
    def pinned(self) -> str:
        """The reference that will always mean these very files."""
        return str(HubReference(self.reference.repository, self.weights.name, self.commit))

    def __str__(self) -> str:
        beside = f" with {', '.join(file.name for file in self.companions)}" if self.companions else ""
        need = f"{megabytes(self.missing_bytes)} to download" if self.missing_bytes else "all of it in the cache"
        return f"{shown(self.pinned, 200)} ({megabytes(self.weights.size)}){beside}: {need}"


def megabytes(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def look_up(reference: HubReference | str, *, cache: Path | None = None, login: bool = True, max_bytes: int = MAX_BYTES) -> HubCheckpoint:
    """What a reference stands for now, and what it would cost to fetch; downloads nothing.

    cache: folder in place of the Hub's own; login: whether to use the login of whoever runs this program: leave it out for what a
    visitor of a hosted page names. Where the Hub cannot be reached the cache answers, as far as it can. Raises `HubError`.
    """
    where = parse(str(reference))
    with in_words(where):
        from huggingface_hub import HfApi

        api = HfApi(endpoint=endpoint(), token=None if login else False)
        resolved = api.resolve_revision(where.repository, revision=where.revision or None, cache_dir=cache)
        commit = str(resolved.resolved)
        if not re.fullmatch(r"[0-9a-f]{40}", commit):
            raise HubError(f"{where.repository}: the Hub names no commit for it: try again later")
        snapshot = snapshot_folder(where, commit, cache)
        try:
            info = api.model_info(where.repository, revision=commit, files_metadata=True, timeout=_TIMEOUT_SECS)
            sizes = {one.rfilename: int(one.size or 0) for one in info.siblings or [] if is_file_name(one.rfilename)}
            offline = False
        except Exception as failure:
            if not is_unreachable(failure) or not snapshot.is_dir():
                raise
            found = (path for path in snapshot.rglob("*") if path.is_file())
            sizes = {path.relative_to(snapshot).as_posix(): path.stat().st_size for path in found}
            offline = True
    name = _choose(where, sizes)
    if sizes[name] > max_bytes:
        raise HubError(f"{shown(name)} of {where.repository} has {megabytes(sizes[name])}, more than the {megabytes(max_bytes)} taken here")
    beside = (str(PurePosixPath(name).parent / companion) for companion in COMPANIONS)
    files = [HubFile(one, sizes[one], (snapshot / one).is_file()) for one in (*beside, name) if one in sizes]
    return HubCheckpoint(where, commit, files[-1], tuple(file for file in files[:-1] if file.size <= MAX_COMPANION), offline)


def _choose(where: HubReference, sizes: dict[str, int]) -> str:
    """The file of weights: the one that was named, or the only sensible one of the repository (or of the folder that was named)."""
    if where.file in sizes:
        return where.file
    folder = f"{where.file}/" if where.file else ""
    inside = [name for name in sizes if name.startswith(folder)]
    if where.file and not inside:
        raise HubError(f"{where.repository} has no file {shown(where.file)}: it has {_some(list(sizes))}")
    top = [name for name in inside if "/" not in name[len(folder) :]]
    for names in (top, inside):
        if f"{folder}model.safetensors" in names:
            return f"{folder}model.safetensors"
        places = {str(PurePosixPath(name).parent) for name in names if _STEP.fullmatch(PurePosixPath(name).name)}
        if len(places) == 1:
            return max((name for name in names if _STEP.fullmatch(PurePosixPath(name).name)), key=_step)
        weights = [name for name in names if name.endswith(_SUFFIXES) or PurePosixPath(name).name == "checkpoint"]
        if len(weights) == 1 and not places:
            return weights[0]
        if weights or places:
            steps = [name for name in names if _STEP.fullmatch(PurePosixPath(name).name)]
            raise HubError(
                f"{where.repository} has several files that may be meant: name one, as in hf://{where.repository}/FILE; "
                f"it has {_some([*steps, *weights])}"
            )
    raise HubError(f"{where.repository} holds no weights that are known by their name (step_N, checkpoint, {', '.join(_SUFFIXES)})")


_STEP = re.compile(r"step_\d{1,18}", re.ASCII)


def _step(name: str) -> int:
    return int(name.rpartition("_")[2])


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(shown(name, 60) for name in names[:5])
    return f"{listed} … and {len(names) - 5} more" if len(names) > 5 else listed or "no files"
