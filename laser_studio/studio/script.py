"""The view of a page as a Python script over the library: the same run, with the settings it had at every step."""

from __future__ import annotations

from typing import Any

from laser_studio.studio.controls import RunOptions, TrackerView
from laser_studio.studio.run import Run

_PRINTING = """\
print(f"step {frame.index}: {frame.right} of {frame.total} open cells right, solved: {frame.solved}, q_halt {frame.q_halt:.2f}")
print(f"history: {frame.history.saving:.1%} of {frame.history.full_bytes:,} bytes saved, {frame.resets} resets")
for name, site in frame.sites.items():
    print(f"{name:32} fidelity {site.fidelity:.5f}  rank {site.rank:3} of {site.dim}")"""


_WATCHED = """\
for name, value in session.watches.values(frame, session.frames[frame.index - 1] if frame.index else None).items():
    print(f"{name} = {value}")"""


def write_script(run: Run, at: int) -> str:
    """A script that makes `run` again up to step `at` and prints some of its figures. Raises `StudioError` where it cannot be made."""
    imports, making = run.subject.script()
    asked = run.measured_for(at)
    arguments = ["model", "puzzle", f"policy={_policy(run.settings[0])}", f"history_bytes={run.options.history_bytes}"]
    if run.options.batch > 1:
        arguments.append("companions=companions")
    if run.options.beyond or at > run.session.length:
        arguments.append("beyond=True")
    if measures := _measures(asked[0]):
        arguments.append(f"measures={measures}")
    lines, measured = [], measures
    for step in sorted({*run.settings, *asked} - {0}):
        news = []
        if step in run.settings and step <= at:
            news.append(f"session.set_policy({_policy(run.settings[step])})")
        if step in asked and (measures := _measures(asked[step])) != measured:
            measured = measures
            news.append(f"session.set_measures({measures or 'Measures()'})")
        if news:
            lines += [f"session.seek({step})", *news]
    making_of = ["session = Session(", *(f"    {argument}," for argument in arguments), ")"]
    body = [*making_of, *_marks(run), *lines, f"frame = session.seek({at})", ""]
    names = ["Measures", "Session"] if any("Measures(" in line for line in body) else ["Session"]
    imports = [*imports, f"from laser_studio.debugger import {', '.join(names)}", "from laser_studio.laser import LaserPolicy"]
    return "\n".join(
        [
            f"# LASER Studio, step {at}: run it in the top folder of the clone, or after pip install -e . anywhere.",
            *sorted(imports),
            "",
            *making,
            *body,
            _PRINTING,
            *([_WATCHED] if len(run.session.watches) else []),
            "",
        ]
    )


def _marks(run: Run) -> list[str]:
    """Breakpoints, which `session.run()` stops at, watches and bookmarks."""
    session, lines = run.session, []
    for breakpoint in session.breakpoints:  # noqa: A001 - the word it is called by everywhere
        usual = {"enabled": True, "hits": 1, "once": False, "log": ""}
        others = {name: value for name, value in breakpoint.to_dict().items() if name != "expression" and value != usual.get(name)}
        lines.append(f"session.breakpoints.add({', '.join([repr(breakpoint.expression), *_arguments(others)])})")
    lines += [f"session.watches.add({watch.expression!r}, {watch.name!r})" for watch in session.watches]
    lines += [f"session.bookmarks.add({mark.step}, {mark.name!r}, {mark.note!r})" for mark in session.bookmarks]
    return lines


def _policy(tracker: TrackerView) -> str:
    settings = tracker.policy_settings()
    if not settings["sites"]:
        del settings["sites"]
    return _call("LaserPolicy", settings)


def _measures(options: RunOptions) -> str:
    """The call that asks for the figures of these options; empty where none is asked for."""
    asked = {name: True for name in ("functional", "gradient", "best") if getattr(options, name)}
    return _call("Measures", asked) if asked else ""


def _call(name: str, arguments: dict[str, Any]) -> str:
    return f"{name}({', '.join(_arguments(arguments))})"


def _arguments(arguments: dict[str, Any]) -> list[str]:
    return [f"{key}={value!r}" for key, value in arguments.items()]
