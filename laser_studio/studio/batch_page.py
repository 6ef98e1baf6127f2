"""The batch page: many puzzles through one model, row by row, with progress and stop. No maths and no state here.

Plain HTML that assets/js/batch.js fills; the rows come from `lab.batch_run` through the channel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from laser_studio.studio import panels
from laser_studio.studio.engine import Live
from laser_studio.studio.scripts import joined_scripts

PATH = "batch"
SCRIPTS = ("base.js", "plotly.js", "tables.js", "batch.js")

PAGE = f"""
<div id="batch-page" data-state="loading">
<header id="batch-bar">
{panels.LOGO}
<nav><a data-debugger href="./">debugger</a><a data-evaluation href="evaluation">evaluation</a><b aria-current="page">batch</b><a
href="train">train</a></nav>
<select id="batch-model" aria-label="Model" data-tip="Model."></select>
<select id="batch-source" aria-label="Source of puzzles" data-tip="Where the puzzles are from."></select>
<select id="batch-split" aria-label="Split" data-tip="Split of the data set."></select>
<select id="batch-band" aria-label="Difficulty" data-tip="Difficulty."></select>
<label data-tip="The first so many of what the filters leave.">count <input id="batch-count" type="number" min="1" max="10000" step="1"
value="20" required></label>
<label class="switch" data-tip="Only puzzles that a batch run here, or the model's evaluation report, found it to fail."><input
type="checkbox" id="batch-fails"> failed only</label>
<label class="switch" data-tip="Track subspaces: each puzzle is a run of its own, with fidelity and resets as the debugger shows them.
Without, puzzles share batches and are many times faster."><input type="checkbox" id="batch-tracker" checked> track</label>
<button type="button" id="batch-run">Run</button>
<button type="button" id="batch-stop" hidden>Stop</button>
<span class="gap"></span>
<button type="button" id="batch-save" disabled data-tip="All rows as CSV, in the order they were run.">CSV</button>
<button type="button" id="batch-theme" data-tip="Light or dark (D)" aria-label="Light or dark">◐</button>
</header>
<p id="batch-problem" role="status" hidden></p>
<div id="batch-head" class="num">
<div id="batch-progress" role="progressbar" aria-label="Batch" aria-valuemin="0" aria-valuemax="100"><i></i><span></span></div>
<div><span>solved</span><b id="batch-solved">–</b><small id="batch-solved-of"></small></div>
<div data-tip="Median number of recursion steps until the answer was right for good, of the puzzles solved."><span>steps to
solution</span><b id="batch-steps">–</b><small>median</small></div>
<div data-tip="Mean over the puzzles of the mean over steps and sites of the energy kept."><span>mean fidelity</span><b
id="batch-fidelity">–</b></div>
<div><span>resets</span><b id="batch-resets">–</b><small>per puzzle</small></div>
<span class="gap"></span>
<div class="filters"><span id="batch-outcomes" class="seg" role="radiogroup" aria-label="Rows shown">
<label><input type="radio" name="outcome" value="" checked><span>all</span></label>
<label><input type="radio" name="outcome" value="solved"><span>solved</span></label>
<label><input type="radio" name="outcome" value="wrong"><span>wrong</span></label>
<label><input type="radio" name="outcome" value="not run"><span>not run</span></label></span>
<input type="search" id="batch-find" placeholder="find an id" maxlength="80" aria-label="Find an id"></div>
</div>
<div id="batch-empty"><p>No batch has been run here yet.</p><p>Choose a model and its puzzles, and press <b>Run</b>: each puzzle goes to the
trained depth. Files and data set folders named with --puzzles when the studio is started, and files uploaded in the debugger's puzzle
dialog, are among the puzzles.</p></div>
<div class="scroll" id="batch-scroll" tabindex="0" role="region" aria-label="Rows"><table class="num"><thead><tr
id="batch-heads"></tr></thead><tbody id="batch-rows"></tbody></table><p id="batch-more" class="note"></p></div>
<div id="tip" role="tooltip" hidden></div>
</div>
"""


def build_batch_page(page: gr.Blocks, channel: Live) -> None:
    """Add the page to the app, at /batch."""
    with page.route("Batch", PATH, show_in_navbar=False):
        gr.HTML(
            PAGE,
            elem_id="batch-hub",
            elem_classes="panel",
            js_on_load=joined_scripts(SCRIPTS),
            apply_default_css=False,
            server_functions=_served(channel),
        )


def _served(channel: Live) -> list[Callable[[Any], dict[str, Any]]]:
    def ask_batch(data: Any) -> dict[str, Any]:
        return channel.batch(data)

    return [ask_batch]
