"""The training page: one recipe trained twice side by side, with LASER and without, live, with sliders that act on the next step.

Plain HTML that assets/js/train*.js fills; the numbers come from `lab.paired` through `trainings`. No maths and no state here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from laser_studio.settings import SettingInfo
from laser_studio.studio import panels
from laser_studio.studio.scripts import joined_scripts
from laser_studio.studio.training_requests import LIVE_CONTROLS, PLAN, PLAN_CHOICES
from laser_studio.studio.trainings import Trainings

PATH = "train"
SCRIPTS = ("base.js", "plots.js", "plotly.js", "train-figures.js", "train-plots.js", "train.js")

_STEPS = {"rank": "1", "min_fidelity": "0.005", "patience": "1", "growth": "1"}
_LABELS = {"rank": "rank", "min_fidelity": "min fidelity ε", "patience": "patience p", "growth": "growth"}
_PLAN_LABELS = {
    "keeps": "what is kept", "budget": "budget", "mode": "mode", "storage": "storage", "products": "products", "on_miss": "after a miss",
}  # fmt: skip
_WORDS = {
    "keeps": {
        "bases": "coefficients in bases",
        "whole": "whole places, no bases",
        "blocks": "whole, between blocks only",
        "budget": "found by a budget",
    },
    "budget": {"cosine": "cosine ≥", "bytes": "bytes ≤"},
    "mode": {"block": "block", "linear": "linear"},
    "storage": {"exact": "as they are", "int8": "8 bits", "int4": "4 bits"},
    "products": {"auto": "auto", "float": "in floats", "int8": "in bytes", "bf16": "in bfloat16"},
    "on_miss": {"stay": "coefficients", "keep_exact": "input whole"},
}
_AMOUNTS = {"cosine": (0.95, 0.99, 0.999), "share": (2, 3, 5)}  # what a budget is often asked for


def _slider(name: str, info: SettingInfo) -> str:
    identifier = f"train-{name.replace('_', '-')}"
    unit = f"<small>{info.unit}</small>" if name == "rank" else ""
    bounds = f'min="{info.low:g}" max="{info.high:g}" step="{_STEPS[name]}" value="{info.default:g}"'
    return (
        f'<div class="train-slider" data-tip="{info.help}"><label for="{identifier}">{_LABELS[name]}</label>'
        f'<span><input type="number" id="{identifier}-number" {bounds} aria-label="{_LABELS[name]}, as a number">{unit}</span>'
        f'<input type="range" id="{identifier}" {bounds}></div>'
    )


def _select(name: str) -> str:
    options = "".join(
        f'<option value="{value}"{" selected" * (value == PLAN[name].default)}>{_WORDS[name][value]}</option>'
        for value in PLAN_CHOICES[name]
    )
    wide = ' class="wide"' if name == "keeps" else ""
    picked = f'<select id="train-{name.replace("_", "-")}">{options}</select>'
    return f'<label{wide} data-tip="{PLAN[name].help}">{_PLAN_LABELS[name]} {picked}</label>'


def _amount(name: str, unit: str) -> str:
    info = PLAN[name]
    bounds = f'min="{info.low:g}" max="{info.high:g}" step="any" value="{info.default:g}"'
    known = "".join(f'<option value="{value:g}"></option>' for value in _AMOUNTS.get(name, ()))
    listed = f' list="train-{name}s"' if known else ""
    field = f'<input type="number" id="train-{name}" {bounds}{listed}>'
    return f'<label data-tip="{info.help}">{unit} {field}</label>' + (f'<datalist id="train-{name}s">{known}</datalist>' if known else "")


_SLIDERS = "\n".join(_slider(name, info) for name, info in LIVE_CONTROLS.items())

PAGE = f"""
<div id="train-page" data-state="loading">
<header id="train-bar">
{panels.LOGO}
<nav><a href="./">debugger</a><a href="evaluation">evaluation</a><a href="batch">batch</a><b aria-current="page">train</b></nav>
<span id="train-pill" role="status" aria-live="polite">loading</span>
<span class="gap"></span>
<button type="button" id="train-save" disabled data-tip="All recorded figures by training step, as CSV: of steps that share a block, the
lowest
and the highest.">save curves</button>
<button type="button" id="train-theme" data-tip="Light or dark (D)">◐ theme</button>
</header>
<p id="train-problem" role="alert" hidden></p>
<div id="train-grid">
<aside id="train-side">
<section class="card" id="train-setup" aria-labelledby="setup-title"><header><h2 id="setup-title">Run</h2><span class="aside"
id="train-name">new</span></header>
<div class="train-picks">
<label data-tip="Puzzles that are learnt. Sizes and lengths are those of the laptop preset.">task <select id="train-task"></select></label>
<label data-tip="How tokens are mixed: by an MLP over the cells, which is quick to learn, or by attention.">variant <select
id="train-variant"></select></label>
</div>
<div class="train-picks" id="train-plan" role="group" aria-label="How activations are kept, to the run's end">
{_select("keeps")}
<div id="train-budgets" hidden>
{_select("budget")}
{_amount("cosine", "value")}
{_amount("share", "% of plain")}
{_amount("recheck", "again every")}
</div>
{_select("mode")}
{_select("storage")}
{_select("products")}
{_select("on_miss")}
</div>
<p class="note" id="train-idle" hidden></p>
<div id="train-sliders" role="group" aria-label="LASER's rule, from the next step on">
{_SLIDERS}
</div>
<p class="note" id="train-note">Both sides start from the same weights and see the same puzzles in the same order.</p>
<div id="train-progress" role="progressbar" aria-label="Training" aria-valuemin="0" aria-valuemax="100" hidden><i></i><span
class="num"></span></div>
<div id="train-buttons">
<button type="button" id="train-start" class="primary" disabled>Start</button>
<button type="button" id="train-pause" class="primary" aria-keyshortcuts="Space" data-tip="Pause after this step, with a checkpoint (Space)"
hidden>Pause</button>
<button type="button" id="train-resume" class="primary" aria-keyshortcuts="Space" data-tip="Go on where it stopped: the curve is the one
of a
run that never stopped (Space)" hidden>Resume</button>
<button type="button" id="train-stop" data-tip="End it after this step. The checkpoint stays, and the run can be resumed later."
hidden>Stop</button>
<button type="button" id="train-new" data-tip="Set up another run; this one is kept." hidden>New run</button>
</div>
<div id="train-open" hidden><label data-tip="Averaged weights, as they are evaluated. Opens in a tab of its own, so that the training goes
on.">model of <select id="train-moment" aria-label="Moment"></select></label><select id="train-which" aria-label="Side"><option
value="laser">with LASER</option><option value="plain">without</option></select><button type="button" id="train-debug">Open in
debugger</button></div>
</section>
<section class="card" id="train-kept" aria-labelledby="kept-title"><header><h2 id="kept-title" data-tip="Runs with a checkpoint on this
machine. Click one to look at it; it goes on where it stopped.">Kept runs</h2><span class="aside num" id="train-count"></span></header>
<ul id="train-list"></ul><p class="empty" id="train-list-empty">None yet.</p></section>
</aside>
<div id="train-empty"><h2>Train a model twice at once</h2><p>The same small model learns the same puzzles in the same order, once with
LASER and
once without. Both losses and accuracies are drawn while it runs, and beside them what LASER stores at every site.</p><p>Press
<b>Start</b>. The sliders act on the next step; the model of any moment opens in the debugger. Closing the page saves the run.</p></div>
<div id="train-tiles" class="num">
<div class="tile" data-tip="Of all bytes that autograd would save for backward, the share that is gone in the newest step: net of bases,
projected
weights and bookkeeping."><span>saved bytes gone</span><b id="tile-gone" class="green">–</b></div>
<div class="tile" data-tip="Share of validation puzzles solved at the last evaluation, all cells right: with LASER, and
without."><span>exact:
LASER · without</span><b><i id="tile-laser">–</i> <i id="tile-plain">–</i></b></div>
<div class="tile" data-tip="Time of an optimiser step with LASER over that of one without, the newest steps, on this machine."><span>step
time, LASER / without</span><b id="tile-time">–</b></div>
<div class="tile" data-tip="So far, all sites together: resets by SVD and growths of bases; in 1,000 steps: misses, growths and
resets."><span>resets · growth</span><b><i id="tile-resets" class="red">–</i> <i id="tile-growth" class="amber">–</i></b><small
id="tile-rates"></small></div>
</div>
<section class="card train-chart" id="loss-card" aria-labelledby="loss-title"><header><h2
id="loss-title" data-tip="Thin: loss of each step, as it
is; where steps share a pixel, from the lowest to the highest. Thick: mean of the last 20 steps.">Loss</h2><span class="aside tools
num"><span
class="key laser"><i></i>LASER <b id="loss-laser">–</b></span><span class="key plain"><i></i>without <b id="loss-plain">–</b></span><button
type="button" id="loss-scale" class="quiet" data-tip="Logarithmic or even">scale: log</button></span></header><div class="plot"><canvas
id="loss-plot" role="img" aria-label="Loss: nothing is trained yet"></canvas></div></section>
<section class="card train-chart" id="exact-card" aria-labelledby="exact-title"><header><h2 id="exact-title" data-tip="Dots: validation
puzzles
solved, all cells right, averaged weights. Thin lines: the last training puzzles that halted, current weights.">Exact accuracy</h2><span
class="aside tools num"><span class="key laser"><i></i>LASER <b id="exact-laser">–</b></span><span class="key plain"><i></i>without <b
id="exact-plain">–</b></span></span></header><div class="plot"><canvas id="exact-plot" role="img" aria-label="Exact accuracy: nothing is
trained
yet"></canvas></div></section>
<section class="card train-chart" id="sites-card" aria-labelledby="sites-title"><header><h2 id="sites-title" data-tip="Share of each
site's energy
that was kept in each step. A step below the dashed line is a miss: the rank grows (triangle up), after p misses in a row the basis is
reset by
SVD (triangle down).">Fidelity by site</h2><span class="aside num" id="sites-now"></span></header><div class="plot"><canvas
id="fidelity-plot"
role="img" aria-label="Fidelity by site: nothing is trained yet"></canvas></div>
<p class="train-lane" id="rank-lane" data-tip="Directions in force at each site, as a share of its width.">rank by site, % of D</p>
<div class="plot" id="rank-box"><canvas
id="rank-plot" role="img" aria-label="Rank by site: nothing is trained yet"></canvas></div>
<p class="empty" id="sites-none" hidden></p></section>
<section class="card train-chart" id="bytes-card" aria-labelledby="bytes-title"><header><h2 id="bytes-title" data-tip="Inputs of linear
layers in one
optimiser step: in full, and as stored with what is kept beside them. Click a site to follow it.">Bytes by site</h2><span class="aside num"
id="bytes-of">full → stored, one step</span></header>
<p class="train-lane" id="train-choice" hidden></p>
<div id="train-sites" role="group" aria-label="Sites"></div>
<canvas id="bytes-plot" role="img" aria-label="Bytes over training steps: nothing is trained yet"></canvas>
<div class="sums num"><div><span data-tip="What autograd would save for backward in one optimiser step without LASER.">all saved bytes <b
id="bytes-full">–</b></span><span data-tip="What is saved with LASER, all counted.">kept <b id="bytes-kept">–</b></span><span>gone <b
id="bytes-gone" class="green">–</b></span></div></div></section>
</div>
<div id="tip" role="tooltip" hidden></div>
</div>
"""


def build_train_page(page: gr.Blocks, trainings: Trainings) -> None:
    """Add the page to the app, at /train."""
    with page.route("Train", PATH, show_in_navbar=False):
        gr.HTML(
            PAGE,
            elem_id="train-hub",
            elem_classes="panel",
            js_on_load=script(),
            apply_default_css=False,
            server_functions=_served(trainings),
        )


def script() -> str:
    """The page's program, as one function body."""
    return joined_scripts(SCRIPTS)


def _served(trainings: Trainings) -> list[Callable[[Any], dict[str, Any]]]:
    def train_open(data: Any) -> dict[str, Any]:
        return trainings.open(data)

    def train_start(data: Any) -> dict[str, Any]:
        return trainings.start(data)

    def train_command(data: Any) -> dict[str, Any]:
        return trainings.command(data)

    def train_tune(data: Any) -> dict[str, Any]:
        return trainings.tune(data)

    def train_model(data: Any) -> dict[str, Any]:
        return trainings.model(data)

    def train_follow(data: Any) -> dict[str, Any]:
        return trainings.follow(data)

    return [train_open, train_start, train_command, train_tune, train_model, train_follow]
