"""The self-drawn parts of the page as plain HTML: frames that hold their size before anything has run.

assets/js fills them. The ids are fixed: tests, style sheet and script use them. No `${`, backtick or `{{` may stand in here,
because Gradio reads a template as a JavaScript template string.
"""

from __future__ import annotations

LOGO = """
<div id="brand" aria-label="LASER Studio"><svg width="26" height="20" viewBox="0 0 26 20" aria-hidden="true">
<circle cx="8.5" cy="12" r="6.2" fill="none" stroke="currentColor" stroke-width="2.2"/>
<path d="M8.5 12 24 3.4" stroke="currentColor" stroke-width="2.2" stroke-linecap="round"/></svg><h1>LASER Studio</h1></div>
"""

ABOUT = """<div id="about" data-tip="Where the model runs, its number format, and how many puzzles the run carries.">loading the model
…</div>"""

BOARD = """
<section class="card" id="board-card" aria-labelledby="board-title">
<header><h2 id="board-title">Board</h2><span class="aside num" id="board-step">step 0</span></header>
<div class="board-fit"><div id="board" role="img" aria-label="The board is being loaded"></div></div>
<div class="foot">
<div class="legend"><span data-tip="The model's own probability of the digit it answers, from its output distribution.">confidence</span>
<i class="tint" aria-hidden="true"></i>
<span class="key changed" data-tip="Cells whose answer this step changed; fainter, those of the last z_H update, between which the
answer rests."><i></i>changed</span>
<span class="key wrong" data-tip="Cells that differ from the known solution, or break a rule where none is
known."><i></i>wrong</span></div>
<div class="verdict"><b id="board-right" class="num" data-tip="Right answers among the cells that were not given.">–</b>
<span id="board-halt" class="num" data-tip="The model's own halting logit; above 0 it would stop here in training.">q_halt –</span></div>
</div>
</section>
"""

TRACKER_HEAD = """<header><h2>Tracker</h2><span class="aside" data-tip="Settings act from the step after the one shown; a rank, from the
next refresh. What was recorded beyond is computed anew.">acts from the next step</span></header>"""

RECURSION = """
<section class="card" id="recursion-card" aria-labelledby="recursion-title">
<header><h2 id="recursion-title">Recursion</h2><span class="aside num" id="address">before the first step</span></header>
<div id="track" role="img" aria-label="Recursion track" data-tip="One supervision step: each dot is one application of the net. z_L is
updated L times,
then z_H once; that is one H cycle."></div>
<div id="site-map" role="group" aria-label="Site map"></div>
<div class="legend" data-tip="One scale for colours and lines. It counts nines: 0.9, 0.99 and 0.999 are equally far apart."><span>site
colour: fidelity</span>
<span id="scale-low" class="num">0.80</span><canvas id="scale" aria-hidden="true"></canvas><span id="scale-high"
class="num">0.9999</span></div>
</section>
"""

HEADLINE = """
<div id="headline">
<div class="tile" data-tip="Bytes not held by time travel: 1 − (coefficients + bases) / full activations, bases counted. Net, history
ledger.">
<span>memory saved</span><b id="tile-saving" class="num green">–</b></div>
<div class="tile" data-tip="Mean over all sites of the energy of this step's input that the stored coefficients keep.">
<span>mean fidelity</span><b id="tile-fidelity" class="num">–</b></div>
<div class="tile" data-tip="SVD resets since step 0, all sites.">
<span>resets</span><b id="tile-resets" class="num amber">0</b></div>
<div class="tile" data-tip="Time of the tracker over the time of everything else, up to this step, on this machine.">
<span>tracker cost</span><b id="tile-cost" class="num">–</b></div>
</div>
"""

EVENTS = """
<section class="card" id="events-panel" aria-labelledby="events-title">
<header><h2 id="events-title">Events</h2><span class="aside">click to jump</span></header>
<ol id="events-list" tabindex="0" aria-label="Events, newest first"></ol>
<p class="empty" id="events-empty">Press Play. Bases started, misses, growth, resets and changed answers are listed here, newest
first.</p>
</section>
"""

FIDELITY = """
<section class="card" id="fidelity-panel" aria-labelledby="fidelity-title">
<header><h2 id="fidelity-title">Fidelity by site</h2>
<span class="aside"><span data-tip="Share of each input's energy kept, step by step, unsmoothed; where steps share a pixel, their
lowest and
highest.">energy · raw</span> · <button type="button" id="scale-kind" class="quiet"
data-tip="How fidelities are spread over lines and colours: by their nines (0.9, 0.99, 0.999 equally far apart), or evenly.">scale:
nines</button></span></header>
<div class="plot"><canvas id="fidelity-plot" role="img" aria-label="Fidelity by site: nothing has run yet"></canvas>
<p class="empty" id="fidelity-empty">Press Play: one line per site</p></div>
</section>
"""

MEMORY = """
<div id="memory-body"><header><h2>Memory by site</h2></header>
<div id="memory-rows" role="table" aria-label="Memory by site"></div>
<div class="sums">
<div><span data-tip="What the same activations would take at full width.">full <b id="memory-full" class="num">–</b></span>
<span data-tip="Coefficients and bases together.">kept <b id="memory-kept" class="num">–</b></span></div>
<div><span data-tip="All basis versions that are still needed.">bases <b id="memory-basis" class="num">–</b></span>
<span data-tip="The first step at which coefficients and bases together were smaller than the activations." id="memory-even">break-even
–</span></div>
</div></div>
"""

BASIS = """
<section class="card" id="basis-panel" aria-labelledby="basis-title">
<header><h2 id="basis-title">Basis</h2><span class="aside num" id="basis-rank">rank –</span></header>
<div class="lane"><span data-tip="Directions kept at each site, step by step; the selected site is drawn strong.">rank by site</span>
<canvas id="rank-plot" role="img" aria-label="Rank by site over time"></canvas></div>
<div class="lane"><span data-tip="Largest principal angle between each site's basis before and after a refresh.">turn at each refresh
<b id="basis-turn" class="num">–</b></span>
<canvas id="turn-plot" role="img" aria-label="Largest principal angle by site over time"></canvas></div>
<div class="lane"><span data-tip="All principal angles of the selected site at its last refresh, largest first.">angles since last refresh
<b id="basis-step" class="num"></b></span><canvas id="angle-plot" role="img" aria-label="Principal angles of the selected
site"></canvas></div>
<p id="basis-cause" data-tip="What the rule last decided for this site, and why.">no basis yet: the first window is kept exact</p>
</section>
"""

STATUS = """
<div id="status" class="num" role="status" aria-live="polite" data-step="0" data-state="paused" data-saving="0.0000" data-resets="0"
data-solved="unknown" data-tip="Step shown, its address (supervision s, H cycle h, L cycle l), and what the run is doing."><span
id="status-pill">loading</span><span id="status-text">t = 0</span></div>
"""

TIMELINE = """
<div id="timeline" role="slider" tabindex="0" aria-label="Timeline" aria-valuemin="0" aria-valuemax="0" aria-valuenow="0"
data-tip="Drag to travel in time. Lanes: changed cells; growth and resets; the halting probability; the residual of the state, on a
logarithmic scale."><canvas
id="timeline-plot"></canvas></div>
"""

HUB = """
<div id="notice" role="status" aria-live="polite" hidden></div>
<div id="tip" role="tooltip" hidden></div>
<dialog id="help" aria-labelledby="help-title"><h2 id="help-title">Keys</h2>
<dl><dt><kbd>Space</kbd></dt><dd>play or pause</dd><dt><kbd>→</kbd></dt><dd>one recursion step</dd><dt><kbd>←</kbd></dt><dd>one step
back</dd>
<dt><kbd>R</kbd></dt><dd>restart, with the settings as they are now</dd><dt><kbd>?</kbd></dt><dd>this help</dd></dl>
<h2>Reading the screen</h2>
<p>The model solves the puzzle by applying one small net again and again. Each application is a step. Beside it the LASER tracker
keeps, for every linear layer it watches (a <em>site</em>), only the part of the layer's input that lies in a small subspace, the
<em>basis</em>.</p>
<p><em>Fidelity</em> is the share of the input's energy that is kept. A window below ε is a miss: the basis grows. After p misses
in a row it is reset by SVD. <em>Memory saved</em> is net: the bases themselves are counted.</p>
<p>Every number is computed from the forward pass of the loaded weights. Point at a number to learn what it is. Click a site to see its
basis.</p>
<form method="dialog"><button>Close</button></form></dialog>
"""
