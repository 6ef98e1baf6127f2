"""The page: Gradio's controls beside self-drawn panels. No maths and no state here.

Controls are Gradio components with `js=` listeners, so nothing but the live channel talks to the server; panels are HTML that
assets/js draws. Style sheet and scripts are sent inside the page, which therefore works without any other host.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from laser_studio.assets import asset_path
from laser_studio.settings import SettingInfo
from laser_studio.studio import panels, panels_branches, panels_deeper, panels_models, panels_travel
from laser_studio.studio.catalogue import DIFFICULTY_NAMES, FAILS, FIRST_DIFFICULTY, Catalogue
from laser_studio.studio.engine import Live
from laser_studio.studio.links import CONTROLS
from laser_studio.studio.scripts import joined_scripts

# In this order, as one function: each file uses what stands before it.
SCRIPTS = (
    "base.js", "commands.js", "columns.js", "samples.js", "store.js", "board.js", "watched.js", "recursion.js", "plots.js",
    "fidelity.js", "memory.js",
    "halting.js", "latents.js", "spectrum.js", "basis.js", "panels.js", "timeline.js", "goto.js",
    "tabs.js", "views.js", "inquire.js", "palette.js", "models.js", "travel.js", "expressions.js", "breakpoints.js", "watches.js",
    "bookmarks.js", "inside.js", "cells.js", "puzzles.js",
    "branches.js", "compare.js",
    "tuning.js", "older.js", "tables.js", "figures.js", "plotly.js", "zoom.js", "player.js",
    "asker.js", "picked.js", "findings.js", "boardmap.js", "cellview.js", "readsview.js", "heat.js", "directionsview.js",
    "studio.js",
)  # fmt: skip
STYLES = ("studio.css", "models.css", "travel.css", "branches.css", "deeper.css", "puzzles.css")
SPEED_DEFAULT, SPEED_MAX = 15, 60  # steps per second; the top of the slider means "as fast as it goes"

# No font is fetched: these are the names of what is installed.
SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")
MONO = ("ui-monospace", "DejaVu Sans Mono", "monospace")


def script() -> str:
    """The page's program, as one function body."""
    return joined_scripts(SCRIPTS)


def head() -> str:
    """What stands in the page's head from the first byte: the style sheet, and the theme, chosen before anything is painted."""
    style = "\n".join(asset_path("css", name).read_text(encoding="utf-8") for name in STYLES)
    return f'<style id="studio-style">{style}</style><script>{asset_path("js", "early.js").read_text(encoding="utf-8")}</script>'


def favicon() -> Path:
    """The logo as a file."""
    return asset_path("logo.svg")


def theme() -> gr.themes.Base:
    """A plain Gradio theme on installed fonts; the style sheet does the rest."""
    return gr.themes.Base(font=list(SANS), font_mono=list(MONO))


def build_page(catalogue: Catalogue, channel: Live) -> gr.Blocks:
    """The page, not yet served."""
    with (
        gr.Blocks(title="LASER Studio", analytics_enabled=False, fill_width=True, delete_cache=(600, 3_600)) as page,
        gr.Column(elem_id="page"),
    ):
        with gr.Row(elem_id="topbar"):
            _panel(panels.LOGO, "brand-block")
            model = gr.Dropdown(
                list(catalogue.choices),
                value=catalogue.opening,
                label="Model",
                show_label=False,
                elem_id="model",
                interactive=True,
                filterable=False,
            )
            _panel(panels_models.OPENER, "open-model-block")
            difficulty = gr.Dropdown(
                [*DIFFICULTY_NAMES, FAILS],
                value=FIRST_DIFFICULTY,
                label="Difficulty",
                show_label=False,
                elem_id="difficulty",
                interactive=True,
                filterable=False,
            )
            puzzle = gr.Dropdown([], label="Puzzle", show_label=False, elem_id="puzzle", interactive=True, num_choices_shown=None)
            new_puzzle = gr.Button("new", elem_id="new-puzzle")
            gr.Button("✎", elem_id="own-puzzle")
            _panel(panels.ABOUT, "about-block")
            _panel(panels.VIEWS, "views-block")
            python = gr.Button("Python", elem_id="copy-python")
            share = gr.Button("link", elem_id="share-link")
            keys = gr.Button("?", elem_id="keys")
            look = gr.Button("◐", elem_id="theme")

        with gr.Row(elem_id="stage"):
            with gr.Column(elem_id="left"):
                _panel(panels.BOARD, "board-block")
                with gr.Column(elem_id="tracker", elem_classes="card"):
                    _panel(panels.TRACKER_HEAD, "tracker-head")
                    rank = _slider("rank", "rank", step=1)
                    min_fidelity = _slider("min_fidelity", "min fidelity ε", step=0.005)
                    _panel(panels.RANK_NOTE, "rank-note-block")
                    patience = _slider("patience", "patience p", step=1)
                    refresh = _radio("refresh", "refresh", ("step", "cycle", ("superv.", "supervision")))
                    measure = _radio("measure", "rule reads", ("energy", "centred", "functional"))
                    with gr.Column(elem_id="more"):
                        growth = _slider("growth", "growth at a miss", step=1)
                        _panel(panels.MORE, "more-block")
            with gr.Column(elem_id="middle"):
                _panel(panels.RECURSION, "recursion-block")
                _panel(panels.HEADLINE, "headline-block")
                _panel(panels.EVENTS, "events-block")
            with gr.Column(elem_id="right"):
                with gr.Column(elem_id="view-compress"):
                    _panel(panels.FIDELITY, "fidelity-block")
                    with gr.Row(elem_id="lower-right"):
                        _panel(panels.MEMORY, "memory-block")
                        _panel(panels.BASIS, "basis-block")
                _panel(panels_deeper.SOLVE, "view-solve")
                _panel(panels_branches.COMPARE, "view-compare")
                _panel(panels_travel.INSIDE, "inside-block")

        with gr.Column(elem_id="deck", elem_classes="card"):
            with gr.Row(elem_id="transport"):
                buttons = {name: gr.Button(text, elem_id=name) for name, text in _TRANSPORT}
                _panel(panels_travel.TRANSPORT, "travel-block")
                speed = gr.Slider(1, SPEED_MAX, value=SPEED_DEFAULT, step=1, label="speed", elem_id="speed", interactive=True, buttons=[])
                _panel(panels.DEPTH, "depth-block")
                _panel(panels.STATUS, "status-block")
            _panel(panels.TIMELINE, "timeline-block")

        hub = gr.HTML(
            panels.HUB,
            elem_id="hub",
            js_on_load=script(),
            apply_default_css=False,
            server_functions=_served(channel),
        )

        others = (("python", python), ("share", share), ("help", keys), ("theme", look), ("generate", new_puzzle))
        for name, button in (*buttons.items(), *others):
            button.click(fn=None, js=_tell(name), show_progress="hidden")
        for control in (model, difficulty, puzzle, rank, min_fidelity, patience, refresh, measure, growth, speed):
            control.input(fn=None, inputs=[control], js=_tell(str(control.elem_id), "value"), show_progress="hidden")
        shown = [model, difficulty, puzzle, rank, min_fidelity, patience, refresh, measure, growth]
        # The other way: the script asks for the controls to show what the run really uses.
        hub.sync(fn=None, js="() => window.laserStudio.controls()", outputs=shown, show_progress="hidden")
    return page


_TRANSPORT = (("restart", "Restart"), ("back", "Back"), ("play", "Play"), ("pause", "Pause"), ("step", "Step"))


def _tell(name: str, value: str = "") -> str:
    """A listener that hands a control's name and value to the script."""
    return f"({value}) => {{ window.laserStudio?.on({name!r}{', value' if value else ''}); return []; }}"


def _served(channel: Live) -> list[Callable[[Any], dict[str, Any]]]:
    # Gradio marks what it serves with an attribute, which bound methods cannot carry; it also takes their names.
    def open_run(data: Any) -> dict[str, Any]:
        return channel.open(data)

    def advance_run(data: Any) -> dict[str, Any]:
        return channel.advance(data)

    def command_run(data: Any) -> dict[str, Any]:
        return channel.command(data)

    def tune_run(data: Any) -> dict[str, Any]:
        return channel.tune(data)

    def inquire_run(data: Any) -> dict[str, Any]:
        return channel.inquire(data)

    def bring_model(data: Any) -> dict[str, Any]:
        return channel.bring(data)

    def python_run(data: Any) -> dict[str, Any]:
        return channel.python(data)

    def ask_puzzles(data: Any) -> dict[str, Any]:
        return channel.puzzles(data)

    def leave_run(data: Any) -> dict[str, Any]:
        return channel.leave(data)

    def close_run(data: Any) -> dict[str, Any]:
        return channel.close(data)

    return [open_run, advance_run, command_run, tune_run, inquire_run, bring_model, python_run, ask_puzzles, leave_run, close_run]


def _panel(html: str, elem_id: str) -> gr.HTML:
    return gr.HTML(html, elem_id=elem_id, elem_classes="panel", js_on_load=None, apply_default_css=False)


def _slider(name: str, label: str, *, step: float) -> gr.Slider:
    info: SettingInfo = CONTROLS[name]
    assert info.low is not None and info.high is not None
    # No reset button: the number itself can be typed.
    return gr.Slider(
        info.low, info.high, value=info.default, step=step, label=label, elem_id=name.replace("_", "-"), interactive=True, buttons=[]
    )


def _radio(name: str, label: str, choices: tuple[str | tuple[str, str], ...]) -> gr.Radio:
    return gr.Radio(
        [choice if isinstance(choice, tuple) else (choice, choice) for choice in choices],
        value=CONTROLS[name].default,
        label=label,
        elem_id=name,
        elem_classes="segmented",
        interactive=True,
    )
