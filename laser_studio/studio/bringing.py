"""Models that pages bring: from the Hub, or as files they send. What is asked, fetched, checked and then offered.

A brought model is loaded at once and stays in memory under a name of its own; a sent file is gone as soon as it was read. Every file
is a stranger's: `trm.load_checkpoint` opens it as it opens all. No torch here until one is loaded.
"""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laser_studio.errors import CheckpointError, LaserStudioError
from laser_studio.studio.bring_requests import AnswerRequest, FetchRequest, FollowRequest, LookRequest, SentRequest
from laser_studio.studio.catalogue import Catalogue, clean
from laser_studio.studio.registry import StudioError
from laser_studio.studio.requests import chosen, read_request
from laser_studio.untrusted.upload import BESIDE, MAX_UPLOAD, Upload, accept_upload

if TYPE_CHECKING:
    from laser_studio.trm import TRM

log = logging.getLogger(__name__)

MAX_BYTES = MAX_UPLOAD  # of what a page may send or have fetched; larger ones are named when the studio is started
MAX_JOBS, KEPT_JOBS = 4, 20
MAX_WAITING = 8  # files kept while their page answers what they do not tell


@dataclass
class _Job:
    """A download under way or over. result: as a page gets it, once it is done."""

    state: str = "running"  # then "done", "stopped" or "error"
    done: int = 0
    total: int = 0
    problem: str = ""
    result: dict[str, Any] | None = None
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class _Waiting:
    """A sound file that does not tell everything, and how it came here; of an upload its folder, which goes with it."""

    path: Path
    source: str
    upload: Upload | None = None
    answered: Mapping[str, Any] = field(default_factory=dict)  # so far: a file may ask again

    @property
    def name(self) -> str:
        """What the model is called here: a repository of the Hub, or a file."""
        return "/".join(self.source.removeprefix("hf://").split("/")[:2]) if self.source.startswith("hf://") else self.path.name


class UnansweredError(StudioError):
    """A model cannot be opened until its file's open questions are answered; told: what the page asks with."""

    def __init__(self, message: str, told: dict[str, Any]) -> None:
        super().__init__(message)
        self.told = told


class _StoppedError(Exception):
    """The page does not want this download any more."""


class Bringing:
    """Looks up, fetches, takes in and asks. Methods take a request and return JSON; they raise `LaserStudioError`.

    uploads: the folder where the server puts what pages send; None: nothing can be sent. login: whether the login of whoever started the
    studio may be used at the Hub: not where strangers reach the page.
    """

    def __init__(self, catalogue: Catalogue, *, uploads: Path | None = None, login: bool = False) -> None:
        self.catalogue, self.uploads, self.login = catalogue, uploads, login
        self._jobs: dict[str, _Job] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._numbers = itertools.count(1)
        self._guard = threading.Lock()

    def look(self, request: LookRequest) -> dict[str, Any]:
        """What a reference stands for: file, bytes, what is to be fetched, and the commit."""
        from laser_studio.hub import look_up, megabytes

        found = look_up(_reference(request.reference), login=self.login, max_bytes=MAX_BYTES)
        return {
            "file": clean(found.weights.name),
            "beside": [clean(file.name) for file in found.companions],
            "size": megabytes(found.weights.size),
            "missing": megabytes(found.missing_bytes) if found.missing_bytes else "",
            "commit": found.commit,
            "pinned": found.pinned,
            "offline": found.offline,
        }

    def fetch(self, request: FetchRequest) -> dict[str, Any]:
        """Start fetching what `look` found; the job's number."""
        with self._guard:
            if sum(job.state == "running" for job in self._jobs.values()) >= MAX_JOBS:
                raise StudioError(f"{MAX_JOBS} downloads are under way: wait for one, or stop it")
            number = str(next(self._numbers))
            job = self._jobs[number] = _Job()
            for old in [key for key, one in self._jobs.items() if one.state != "running"][:-KEPT_JOBS]:
                del self._jobs[old]
        threading.Thread(target=self._fetch, args=(job, request.pinned), name=f"studio-download-{number}", daemon=True).start()
        return {"job": number}

    def follow(self, request: FollowRequest) -> dict[str, Any]:
        """How a download stands; `stop` ends it, and what it has is kept for the next time."""
        job = self._jobs.get(request.job)
        if job is None:
            raise StudioError("this download is not known any more: start it again")
        if request.stop:
            job.stop.set()
        return {"state": job.state, "done": job.done, "total": job.total, "problem": job.problem, "result": job.result}

    def sent(self, request: SentRequest) -> dict[str, Any]:
        """Take in files that the server has put into its folder of uploads: the weights, and what belongs to them."""
        paths = [self._upload(text) for text in request.paths]
        try:
            beside = {path.name: path for path in paths if path.name in BESIDE}
            weights = [path for path in paths if path.name not in BESIDE]
            if len(weights) != 1 or len(beside) + 1 != len(paths):
                raise StudioError("send one file of weights, with its configuration beside it")
            upload = accept_upload(weights[0], beside=beside, size_limit=MAX_BYTES)
        finally:
            for path in paths:
                path.unlink(missing_ok=True)
        return self._take(_Waiting(upload.file, "a file", upload), {})

    def answer(self, request: AnswerRequest) -> dict[str, Any]:
        """Load a model whose file did not tell everything, with what the page answered."""
        with self._guard:
            waiting = self._waiting.pop(request.token, None)
        if waiting is None:
            raise StudioError("this file is not kept any more: open it again")
        from laser_studio.trm.checkpoints.needs import read_answers

        return self._take(waiting, read_answers(request.assume))

    def do(self, data: Any) -> dict[str, Any]:
        """What a page asks for by `name`: look, fetch, follow, sent or answer."""
        (request, work), given = chosen(data, "name", _ASKED)
        return work(self, read_request(request, given))

    def load(self, name: str) -> TRM:
        """A model of the catalogue. Raises `UnansweredError` where its file leaves questions open, and `LaserStudioError`."""
        try:
            return self.catalogue.load(name)
        except CheckpointError as problem:
            if not (needs := getattr(problem, "needs", ())):
                raise
            waiting = _Waiting(self.catalogue.entries[name].path, "named at the start")
            raise UnansweredError(str(problem), self._questions(waiting, needs)) from None

    def _questions(self, waiting: _Waiting, needs: Sequence[Any]) -> dict[str, Any]:
        asked = [{"name": one.name, "why": one.why, "proposed": one.proposed, "choices": list(one.choices)} for one in needs]
        return {"needs": asked, "token": self._keep(waiting), "file": clean(waiting.name)}

    def close(self) -> None:
        """Stop all downloads and delete every file that is kept."""
        for job in self._jobs.values():
            job.stop.set()
        for waiting in self._waiting.values():
            _forget(waiting)
        self._waiting.clear()

    def _fetch(self, job: _Job, pinned: str) -> None:
        from laser_studio.hub import fetch, look_up

        def progress(done: int, total: int) -> None:
            job.done, job.total = done, total
            if job.stop.is_set():
                raise _StoppedError

        try:
            path = fetch(look_up(pinned, login=self.login, max_bytes=MAX_BYTES), on_progress=progress, login=self.login)
            job.result = self._take(_Waiting(path, pinned), {})
            job.state = "done"
        except _StoppedError:
            job.state = "stopped"
        except LaserStudioError as problem:
            job.problem, job.state = str(problem)[:380], "error"
        except Exception:
            log.exception("a download failed")
            job.problem, job.state = "the download failed: the studio's log has the cause", "error"

    def _take(self, waiting: _Waiting, answers: Mapping[str, Any]) -> dict[str, Any]:
        """Offer the model of a file, or ask for what the file does not tell; a wrong answer is told, and the file waits for another."""
        from laser_studio.trm import load_checkpoint
        from laser_studio.trm.checkpoints import CheckpointNeeds

        assume = {**waiting.answered, **answers}
        try:
            model = load_checkpoint(waiting.path, device=self.catalogue.device, assume=assume or None)
        except CheckpointNeeds as needs:
            return self._questions(replace(waiting, answered=assume), needs.needs)
        except CheckpointError as problem:
            if answers:
                return {"problem": str(problem)[:380], "token": self._keep(waiting)}
            _forget(waiting)
            raise
        except BaseException:
            _forget(waiting)
            raise
        try:
            return self._offer(waiting, model)
        finally:
            _forget(waiting)

    def _offer(self, waiting: _Waiting, model: TRM) -> dict[str, Any]:
        name = self.catalogue.bring(waiting.name, model)
        config = model.config
        return {
            "name": name,
            "label": self.catalogue.entries[name].label,
            "facts": {
                "format": str(model.details.get("source", "")),
                "width": config.hidden_size,
                "cycles": f"{config.H_cycles} H × {config.L_cycles} L, {config.halt_max_steps} supervision steps",
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "from": waiting.source[:200],
            },
            "warnings": [str(warning)[:200] for warning in model.details.get("warnings", ())][:5],
        }

    def _keep(self, waiting: _Waiting) -> str:
        token = secrets.token_urlsafe(18)
        with self._guard:
            self._waiting[token] = waiting
            leaving = [self._waiting.pop(old) for old in list(self._waiting)[:-MAX_WAITING]]
        for one in leaving:
            _forget(one)
        return token

    def _upload(self, text: str) -> Path:
        """A file of this page's upload. Nothing outside the server's folder of uploads is one, whatever a page says."""
        path = Path(text)
        try:
            inside = self.uploads is not None and path.resolve(strict=True).is_relative_to(self.uploads.resolve())
            if not inside or path.is_symlink() or not path.is_file():
                raise StudioError("this upload is not there any more: send the file again")
        except (OSError, ValueError, RuntimeError):
            raise StudioError("this upload is not there any more: send the file again") from None
        return path


def _reference(text: str) -> str:
    """A reference as people write it: with hf://, as a page of the Hub, or as owner/name alone."""
    text = re.sub(r"^https?://(www\.)?huggingface\.co/", "", text.strip())
    text = re.sub(r"^(?!hf:/)", "hf://", text)
    # A page of one file: owner/name/blob/REVISION/FILE, or resolve.
    page = re.fullmatch(r"hf:/+([^/]+/[^/]+)/(?:blob|resolve|tree)/([^/]+)(/.+?)?(?:\?.*)?", text)
    return f"hf://{page[1]}{page[3] or ''}@{page[2]}" if page else text


def _forget(waiting: _Waiting) -> None:
    if waiting.upload is not None:
        waiting.upload.close()


_ASKED: dict[str, tuple[type[Any], Callable[[Bringing, Any], dict[str, Any]]]] = {
    "look": (LookRequest, Bringing.look),
    "fetch": (FetchRequest, Bringing.fetch),
    "follow": (FollowRequest, Bringing.follow),
    "sent": (SentRequest, Bringing.sent),
    "answer": (AnswerRequest, Bringing.answer),
}
