"""The evaluation page: how well a model does, by difficulty and step, whether it knows, and what compression costs it.

Plain HTML that assets/js/evaluation.js fills; the numbers come from `lab.examine` through the channel. No maths and no state here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from laser_studio.studio import panels
from laser_studio.studio.engine import Live
from laser_studio.studio.scripts import joined_scripts

PATH = "evaluation"
SCRIPTS = ("base.js", "plotly.js", "evaluation.js")

PAGE = f"""
<div id="evaluation" data-state="loading">
<header id="eval-bar">
{panels.LOGO}
<nav><a data-debugger href="./">debugger</a><b aria-current="page">evaluation</b><a
href="batch">batch</a><a href="train">train</a></nav>
<label>model <select id="eval-model" aria-label="Model"></select></label>
<label data-tip="Held-out puzzles of each difficulty: easy, medium, hard. None is a symmetric image of anything trained
on.">puzzles of each <input id="eval-each" type="number" min="1" max="1000" step="1" value="50" required></label>
<label data-tip="Shares of each site's width, or numbers of directions, separated by commas. Each is a run of its own in which every
linear layer reads the reconstruction XQQᵀ of its input.">ranks <input id="eval-ranks" type="text" value="75%, 50%, 25%"
maxlength="80"></label>
<button type="button" id="eval-run">Evaluate</button>
<button type="button" id="eval-stop" hidden>Stop</button>
<div id="eval-progress" role="progressbar" aria-label="Evaluation" aria-valuemin="0" aria-valuemax="100" hidden><i></i><span
class="num"></span></div>
<span class="gap"></span>
<button type="button" id="eval-save" disabled data-tip="The report as JSON, as the report command writes it.">save
report</button>
<button type="button" id="eval-theme" data-tip="Light or dark (D)">◐ theme</button>
</header>
<p id="eval-problem" role="status" hidden></p>
<div id="eval-empty"><p>No report of this model yet.</p><p>Press <b>Evaluate</b>: held-out puzzles of each difficulty are run to the trained
depth, once with exact activations and once at each rank.</p></div>
<div id="eval-head" class="num">
<div data-tip="All cells right after the last supervision step, exact activations, all difficulties."><span>exact</span><b
id="eval-exact">–</b><small id="eval-count"></small></div>
<div data-tip="The same with every linear layer reading its rank-k reconstruction, at the last rank listed."><span>compressed</span><b
id="eval-cost">–</b><small id="eval-cost-of"></small></div>
<div data-tip="Supervision steps until the model itself would stop (q_halt above 0), mean over puzzles."><span>steps to halt</span><b
id="eval-steps">–</b><small id="eval-halted"></small></div>
<div data-tip="Expected calibration error: how far the probability that q_halt says is from the share that is right, mean over
answers."><span>calibration error</span><b id="eval-ece">–</b><small>0 is perfect</small></div>
<div data-tip="Puzzles whose last answer is wrong; they are listed below and open in the debugger."><span>failures</span><b
id="eval-wrong">–</b><small>puzzles end wrong</small></div>
<p id="eval-when" data-tip=""></p>
</div>
<div id="eval-grid">
<section class="card" id="accuracy-card" aria-labelledby="accuracy-title"><header><h2 id="accuracy-title"
data-tip="One field per difficulty. The shaded band is the 95 % interval of exact activations.">Exact accuracy by supervision
step</h2></header><div class="chart" id="accuracy-plot" role="img"></div></section>
<section class="card" id="cost-card" aria-labelledby="cost-title"><header><h2 id="cost-title" data-tip="Every linear layer reads XQQᵀ in
place of its input X, with the basis its tracker had before; the first H cycle of each batch is read exactly.">Compression at
inference</h2></header><div class="scroll"><table class="num"><thead><tr id="cost-head"></tr></thead><tbody
id="cost-rows"></tbody></table></div><p class="note">Exact share after the last supervision step, by what the linear layers
read.</p></section>
<section class="card" id="calibration-card" aria-labelledby="calibration-title"><header><h2 id="calibration-title"
data-tip="All answers of all supervision steps in ten bins; larger dots hold more. On the dotted line the model knows exactly how often it
is right.">Does it know when it is right?</h2></header><div class="chart" id="calibration-plot" role="img"></div></section>
<section class="card" id="steps-card" aria-labelledby="steps-title"><header><h2 id="steps-title"
data-tip="The first supervision step from which the answer stays right to the end.">Steps to solution</h2></header><div class="chart"
id="steps-plot" role="img"></div></section>
<section class="card" id="failures-card" aria-labelledby="failures-title"><header><h2 id="failures-title"
data-tip="Puzzles whose last answer is wrong. Open one to watch where it goes wrong.">Failures</h2><span class="aside"><select
id="failures-filter" aria-label="Difficulty of the failures"><option value="">all</option><option>easy</option><option>medium</option>
<option>hard</option></select></span></header><p id="failures-note" class="note"></p><div class="scroll"><table id="failures-table"
class="num"><thead><tr><th scope="col">puzzle</th><th scope="col">wrong cells</th><th scope="col" data-tip="Probability of being right
that q_halt gave the wrong answer.">said right</th><th scope="col" data-tip="Whether an earlier answer of the same run was
right.">was right</th></tr></thead><tbody id="failure-rows"></tbody></table></div></section>
</div>
<div id="tip" role="tooltip" hidden></div>
</div>
"""


def build_evaluation_page(page: gr.Blocks, channel: Live) -> None:
    """Add the page to the app, at /evaluation."""
    with page.route("Evaluation", PATH, show_in_navbar=False):
        gr.HTML(
            PAGE,
            elem_id="evaluation-hub",
            elem_classes="panel",
            js_on_load=joined_scripts(SCRIPTS),
            apply_default_css=False,
            server_functions=_served(channel),
        )


def _served(channel: Live) -> list[Callable[[Any], dict[str, Any]]]:
    def report_of(data: Any) -> dict[str, Any]:
        return channel.report(data)

    def evaluate_model(data: Any) -> dict[str, Any]:
        return channel.evaluate(data)

    def follow_job(data: Any) -> dict[str, Any]:
        return channel.follow(data)

    return [report_of, evaluate_model, follow_job]
