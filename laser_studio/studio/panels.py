"""The self-drawn parts of the page as plain HTML: frames that hold their size before anything has run.

assets/js fills them. The ids are fixed: tests, style sheet and script use them. No `${`, backtick or `{{` may stand in here,
because Gradio reads a template as a JavaScript template string.
"""

from __future__ import annotations

from laser_studio.studio import panels_branches, panels_deeper, panels_puzzles, panels_travel

LOGO = """
<div id="brand" aria-label="LASER Studio"><svg width="26" height="20" viewBox="0 0 26 20" aria-hidden="true">
<circle cx="8.5" cy="12" r="6.2" fill="none" stroke="currentColor" stroke-width="2.2"/>
<path d="M8.5 12 24 3.4" stroke="currentColor" stroke-width="2.2" stroke-linecap="round"/></svg><h1>LASER Studio</h1></div>
"""

ABOUT = """<div id="about-line"><span id="about" data-tip="Where the model runs, and its number
format.">loading the model …</span><a id="evaluate" href="evaluation" data-tip="How accurate this model is, whether it knows, and what
compression costs it.">evaluation</a><a id="train" href="train" data-tip="Train a small model with LASER and without, side
by side.">train</a></div>"""

BOARD = f"""
<section class="card" id="board-card" aria-labelledby="board-title">
<header><h2 id="board-title">Board</h2><span class="aside num"><span id="board-batch" data-tip="Puzzles of the batch whose answer is
right at this step; the picture follows the first."></span> <span id="board-step">step 0</span></span></header>
<div id="watched" hidden><div class="sub"><b id="watched-name"></b><span id="watched-file" class="num"></span><button type="button"
id="watched-newest" class="quiet" data-tip="Go to the newest recorded step; Play follows from there.">newest step</button></div>
<div class="plot"><canvas id="notes-plot" role="img" aria-label="Noted curves: none yet" data-tip=""></canvas></div>
<div id="watched-list" class="num" role="list" aria-label="Noted values at the step shown"></div>
<p id="watched-says" class="note num"></p></div>
<div class="board-fit"><div id="board" role="img" aria-label="The board is being loaded"></div></div>
{panels_puzzles.DEMONSTRATIONS}<div class="foot">
<div class="legend"><span id="board-confidence" data-tip="The model's own probability of the digit it answers, from its output
distribution.">confidence <i class="tint" aria-hidden="true"></i></span>
<span id="heat-legend" class="num" data-tip="" hidden><span id="heat-from">0</span> <i id="heat-scale" aria-hidden="true"></i>
<span id="heat-to"></span></span>
<span class="key changed" data-tip="Cells whose answer this step changed; fainter, those of the last z_H update, between which the
answer rests."><i></i>changed</span>
<span class="key wrong" data-tip="Cells that differ from the known solution, or break a rule where none is
known."><i></i>wrong</span>
<button type="button" id="board-reads" class="quiet" aria-pressed="false" data-tip="Colour the board by what the chosen cell reads in this
net application." hidden>reads</button></div>
<div class="verdict"><b id="board-right" class="num" data-tip="Right answers among the cells that were not given.">–</b>
<span id="board-halt" class="num" data-tip="The model's own halting logit; above 0 it would stop here in training.">q_halt –</span></div>
</div>
</section>
"""

TRACKER_HEAD = """<header><h2 data-tip="Settings act from the step after the one shown; a rank, from the next refresh. What was recorded
beyond is computed anew.">Tracker</h2><span class="aside tools"><label class="pick">preset <select id="preset"
aria-label="Preset of the tracker's settings"></select></label><button type="button" id="defaults" class="quiet"
data-tip="Back to the settings that a page starts with, at every site.">reset</button><button type="button" id="more-open" class="quiet"
aria-expanded="false" aria-controls="more" data-tip="Growth, and which further figures are measured.">more</button></span></header>"""

RANK_NOTE = """<p id="rank-note" class="note num" data-tip="What the rank slider stands for at the step shown. Sites grow at misses; moving
the slider sets every site that has no rank of its own.">the first bases come with the first refresh</p>"""

MORE = """
<div class="switches" role="group" aria-label="Further figures">
<label class="switch" data-tip="At each H cycle's end: how the answer would change had the cycle read the compressed activations (KL of the
output distribution, cells that flip). Costs time."><input type="checkbox" id="option-functional"> functional fidelity, flips, KL</label>
<label class="switch" data-tip="At each H cycle's end: cosine between the exact weight gradient and the one from the stored coefficients.
Costs time."><input type="checkbox" id="option-gradient"> gradient cosine</label>
<label class="switch" data-tip="At each refresh: the best basis of the same rank by SVD of the window, and the angles to it. Holds every
window."><input type="checkbox" id="option-best"> gap to the best basis</label>
</div>
"""

DEPTH = """<div id="run-options"><label class="switch" data-tip="Go on past the supervision steps that the model was trained for. Nothing is
known of its answers there."><input type="checkbox" id="option-beyond"> past the trained depth</label>
<label class="pick" data-tip="Puzzles run together: the picture follows one, the tracker sees all. Opens a new run.">batch <select
id="batch" aria-label="Puzzles run together"><option>1</option><option>4</option><option>16</option><option>64</option></select></label>
</div>"""

RECURSION = """
<section class="card" id="recursion-card" aria-labelledby="recursion-title">
<header><h2 id="recursion-title">Recursion</h2><span class="aside num" id="address">before the first step</span></header>
<div id="track" role="img" aria-label="Recursion track" data-tip="One supervision step: each dot is one application of the net. z_L is
updated L times,
then z_H once; that is one H cycle."></div>
<div id="site-map" role="group" aria-label="Site map"></div>
<div class="legend" data-tip="One scale for colours and lines. It counts nines: 0.9, 0.99 and 0.999 are equally far apart."><span
id="scale-name">site colour: fidelity</span>
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

EVENTS = f"""
<section class="card tabbed" id="events-panel" aria-label="Events, breakpoints, watches, branches and findings">
<header><h2 class="unseen">Events, breakpoints, watches, branches, findings</h2><div class="tabs" id="log-tabs" role="tablist"
aria-label="Log"><button type="button" role="tab" id="tab-events" aria-controls="events-body">Events</button>
<button type="button" role="tab" id="tab-breakpoints" aria-controls="breakpoints-body">Breakpoints</button>
<button type="button" role="tab" id="tab-watches" aria-controls="watches-body">Watches</button>
<button type="button" role="tab" id="tab-branches" aria-controls="branches-body">Branches</button>
<button type="button" role="tab" id="tab-findings" aria-controls="findings-body">Findings</button></div></header>
<div class="tabbody" id="events-body" role="tabpanel" aria-labelledby="tab-events">
<span class="aside num" id="events-count"
data-tip="How many events are recorded. The list holds the newest; growth, resets and solutions before them stay on the
timeline.">click to jump</span>
<ol id="events-list" tabindex="0" aria-label="Events, newest first"></ol>
<p class="empty" id="events-empty">Press Play. Bases started, misses, growth, resets and changed answers are listed here, newest
first.</p></div>
<div class="tabbody" id="breakpoints-body" role="tabpanel" aria-labelledby="tab-breakpoints" hidden>{panels_travel.BREAKPOINTS}</div>
<div class="tabbody" id="watches-body" role="tabpanel" aria-labelledby="tab-watches" hidden>{panels_travel.WATCHES}</div>
<div class="tabbody" id="branches-body" role="tabpanel" aria-labelledby="tab-branches" hidden>{panels_branches.BRANCHES}</div>
<div class="tabbody" id="findings-body" role="tabpanel" aria-labelledby="tab-findings" hidden>{panels_deeper.FINDINGS}</div>
</section>
"""

VIEWS = """<span id="views" class="seg" role="radiogroup" aria-label="Layout">
<label data-tip="Look into the answer: a cell's probabilities, where it reads from, what a site's directions mean (V)."><input type="radio"
name="view" value="solve"><span>solve</span></label>
<label data-tip="Look at the tracker: fidelity, memory, bases (V)."><input type="radio" name="view" value="compress"
checked><span>compress</span></label>
<label data-tip="Two runs side by side: branches, models, puzzles, settings (V)."><input type="radio" name="view"
value="compare"><span>compare</span></label></span>"""

FIDELITY = """
<section class="card" id="fidelity-panel" aria-labelledby="fidelity-title">
<header><h2 id="fidelity-title" data-tip="Share of each input that is kept, step by step, unsmoothed; where steps share a pixel, their
lowest and highest. The rule judges whole windows: a single step may dip below ε.">Fidelity by site</h2>
<span class="aside tools"><span id="kinds" class="seg" role="radiogroup" aria-label="Kind of fidelity shown">
<label data-tip="Share of the input's energy that the stored coefficients keep: ‖XQ‖² / ‖X‖². The mark: the rule reads this one."><input
type="radio" name="kind" value="energy" checked><span>energy</span></label>
<label data-tip="The same with the mean row removed, which one direction keeps alone. The mark: the rule reads this one."><input
type="radio" name="kind" value="centred"><span>centred</span></label>
<label data-tip="exp(−KL) of the model's output had this site alone read what is stored; measured at each H cycle's end. The mark: the rule
reads this one."><input type="radio" name="kind" value="functional"><span>functional</span></label></span>
<button type="button" id="scale-kind" class="quiet"
data-tip="How fidelities are spread over lines and colours: by their nines (0.9, 0.99, 0.999 equally far apart), or evenly.">scale:
nines</button></span></header>
<div class="plot"><canvas id="fidelity-plot" role="img" aria-label="Fidelity by site: nothing has run yet"></canvas>
<p class="empty" id="fidelity-empty">Press Play: one line per site</p></div>
<div id="measures" class="num" role="group" aria-label="All measures at the step shown">
<span data-tip="Energy fidelity, mean over the sites.">energy <b id="m-energy">–</b></span>
<span data-tip="Centred fidelity, mean over the sites: low where energy only keeps the mean.">centred <b id="m-centred">–</b></span>
<button type="button" id="ask-functional" class="quiet" data-tip="Run each H cycle again on the stored coefficients and compare the
answers. Costs time.">measure functional, flips, KL</button>
<span class="functional" hidden data-tip="exp(−KL) of the output with every site compressed at once, at the last H cycle's
end.">functional <b id="m-functional">–</b></span>
<span class="functional" hidden data-tip="Open cells whose answer flips with every site compressed at once.">flips <b
id="m-flips">–</b></span>
<span class="functional" hidden data-tip="Divergence of the output distribution with every site compressed at once, nats per open
cell.">KL <b id="m-kl">–</b></span>
<button type="button" id="ask-gradient" class="quiet" data-tip="Compare the exact weight gradient of each H cycle with the one from the
stored coefficients. Costs time.">measure grad cos</button>
<span class="gradient" hidden data-tip="Cosine of the exact weight gradient and the one from the stored coefficients, all sites
together.">grad cos <b id="m-gradient">–</b></span>
</div>
</section>
"""

MEMORY = """
<section class="card tabbed" id="memory-panel" aria-label="Memory, halting and latent states">
<header><h2 class="unseen">Memory, halting, latent states</h2><div class="tabs" id="memory-tabs" role="tablist" aria-label="Left panel">
<button type="button" role="tab" id="tab-memory" aria-controls="memory-body">Memory</button>
<button type="button" role="tab" id="tab-halting" aria-controls="halting-body">Halting</button>
<button type="button" role="tab" id="tab-latents" aria-controls="latents-body">Latents</button></div><span class="aside"></span></header>
<div class="tabbody" id="memory-body" role="tabpanel" aria-labelledby="tab-memory">
<div class="sub"><span id="ledger" class="seg" role="radiogroup" aria-label="Ledger"
data-tip="history: what time travel really holds. training: what one training step would hold of the linear inputs with these
bases."><label><input type="radio" name="ledger" value="history" checked><span>history</span></label><label><input type="radio"
name="ledger" value="training"><span>training</span></label></span>
<b id="memory-saved" class="num green"
data-tip="1 − (coefficients + bases) / full activations, all sites, of this ledger.">saved –</b></div>
<div id="memory-rows" role="table" aria-label="Memory by site"></div>
<canvas id="memory-plot" role="img" aria-label="Bytes over time: nothing has run yet"></canvas>
<div class="sums num">
<div><span data-tip="What the same activations would take at full width.">full <b id="memory-full">–</b></span>
<span data-tip="Coefficients and bases together.">kept <b id="memory-kept">–</b></span></div>
<div><span data-tip="All basis versions that are still needed.">bases <b id="memory-basis">–</b></span>
<span data-tip="The first step at which coefficients and bases together were smaller than the activations." id="memory-even">break-even
–</span></div>
<div><span data-tip="The activations of this one recursion step, all sites: at full width, and as stored.">this step <b
id="memory-step">–</b></span></div>
<div id="memory-carry"><span data-tip="Stored steps of the selected site whose coefficients were carried over to a newer basis; the energy
that all its stored steps still keep.">carried <b id="memory-carried">–</b>, keeps <b id="memory-retained">–</b></span>
<span data-tip="Basis versions of the selected site that stored steps still need.">versions <b
id="memory-versions">–</b></span></div>
<div id="memory-cuda" hidden><span data-tip="Bytes the CUDA allocator holds for tensors now, and at most so far.">CUDA <b
id="memory-allocated">–</b></span></div>
</div></div>
<div class="tabbody" id="halting-body" role="tabpanel" aria-labelledby="tab-halting" hidden>
<div class="sub"><span data-tip="The model's own probability that it may stop, read from z_H; above one half it
would.">halting <b id="halting-now"
class="num">–</b></span><span id="halting-says">no answer yet</span></div>
<div class="plot"><canvas id="halting-plot" role="img" aria-label="Halting probability over time: no answer yet"></canvas></div>
<div class="keys"><span><i class="line green"></i>halting probability</span><span><i class="line changes"></i>right cells</span>
<span><i class="line dashed"></i>one half: above, it would stop</span></div>
<div class="sums num"><div><span data-tip="Right answers among the cells that were not given.">right <b
id="halting-right">–</b></span></div>
<div id="halting-batch" hidden><span data-tip="Puzzles of the batch that are solved at this step.">solved <b
id="halting-solved">–</b></span><span data-tip="Share of right cells over the whole batch.">right cells of all <b
id="halting-share">–</b></span></div></div>
</div>
<div class="tabbody" id="latents-body" role="tabpanel" aria-labelledby="tab-latents" hidden>
<div class="sub"><span class="keys"><span><i class="square"></i>z_H, the answer</span><span><i class="round"></i>z_L, its
reasoning</span></span></div>
<div class="plot"><canvas id="latent-plot" role="img" aria-label="Path of the states: nothing has run yet"></canvas></div>
<p class="note" data-tip="The two leading right singular vectors of the output head: where the states differ most in what the head reads.
The plane is fixed by the weights, so that paths of different runs can be compared.">Means over the cells, in the plane of the output head's
two strongest directions. Pale is early, strong is late; the large marks are now.</p>
</div>
</section>
"""

BASIS = """
<section class="card tabbed" id="basis-panel" aria-labelledby="basis-title">
<header><h2 class="unseen">Basis of the selected site</h2><div class="tabs" id="basis-tabs" role="tablist" aria-label="Basis panel">
<button type="button" role="tab" id="tab-spectrum" aria-controls="spectrum-body">Spectrum</button>
<button type="button" role="tab" id="tab-angles" aria-controls="angles-body">Angles</button>
<button type="button" role="tab" id="tab-rank" aria-controls="rank-body">Rank</button></div><span class="aside"></span></header>
<div class="sub"><b id="basis-title">Basis</b><span class="num" id="basis-rank"
data-tip="Directions of the selected site's basis, of the width of its input.">rank –</span></div>
<div class="tabbody" id="spectrum-body" role="tabpanel" aria-labelledby="tab-spectrum">
<div class="plot"><canvas id="spectrum-plot" role="img" aria-label="Spectrum: no basis yet"></canvas>
<p class="empty" id="spectrum-empty">appears with the first basis</p></div>
<div class="legend" data-tip="A column per step, a row per component of the stored coefficients, the largest on top; colour: its share of
the input's energy, on a logarithmic scale."><span>share 10⁻⁴</span><canvas id="spectrum-scale" aria-hidden="true"></canvas><span
id="spectrum-high" class="num">1</span>
<span id="spectrum-note" class="num"></span></div>
</div>
<div class="tabbody" id="angles-body" role="tabpanel" aria-labelledby="tab-angles" hidden>
<div class="lane"><span data-tip="Largest principal angle between each site's basis before and after a refresh.">turn at each refresh, by
site</span><canvas id="turn-plot" role="img" aria-label="Largest principal angle by site over time"></canvas></div>
<div class="lane"><span data-tip="All principal angles of the selected site at its last refresh, largest first: to the basis before, and
where it is measured, to the best one."><i>all angles ·
<b id="basis-step" class="num">–</b></i><i id="best-key" hidden>┄ to the best</i></span>
<canvas id="angle-plot" role="img" aria-label="Principal angles of the selected site"></canvas></div>
</div>
<div class="tabbody" id="rank-body" role="tabpanel" aria-labelledby="tab-rank" hidden>
<div class="lane"><span data-tip="Directions kept at each site, step by step; the selected site is drawn strong.">rank by site</span>
<canvas id="rank-plot" role="img" aria-label="Rank by site over time"></canvas></div>
<form id="override" aria-label="Settings of the selected site alone">
<div class="line"><span data-tip="What is set here holds for the selected site alone; an empty field: as all sites.">only <b
id="override-title">this site</b></span><label class="switch"><input type="checkbox" id="site-tracked" checked> on</label>
<button type="button" id="site-reset" class="quiet" data-tip="Take this site's own settings away.">as all sites</button></div>
<div class="line"><label>rank <input type="number" id="site-rank" min="1" max="100" step="1"> %</label><label>ε <input
type="number" id="site-epsilon" min="0.5" max="1" step="any"></label><button type="submit" class="unseen">apply</button></div>
</form>
</div>
<div class="facts">
<div data-tip="Largest principal angle between the selected site's basis before and after its last refresh."><span>turn at the last
refresh</span><b id="basis-turn" class="num">–</b></div>
<div data-tip="How much less energy the basis in force kept of the window just closed than the best basis of its rank would
have."><span>gap to the best basis</span>
<button type="button" id="ask-best" class="quiet" data-tip="Compare each window with the best basis of
the same rank, by SVD. Costs time and holds every window.">measure</button><b id="basis-gap" class="num" hidden>–</b></div>
</div>
<p id="basis-cause" data-tip="What the rule last decided for this site, and why.">no basis yet: first window kept exact</p>
</section>
"""

STATUS = """
<div id="status" class="num" role="status" aria-live="polite" data-step="0" data-state="paused" data-saving="0.0000" data-resets="0"
data-solved="unknown" data-tip="Step shown, its address (supervision s, H cycle h, L cycle l), and what the run is doing. Click to go to a
step by its number (G)."><span
id="status-pill">loading</span><span id="status-text">t = 0</span></div>
"""

TIMELINE = """
<div id="timeline" role="slider" tabindex="0" aria-label="Timeline" aria-valuemin="0" aria-valuemax="0" aria-valuenow="0"
data-tip="Drag to travel in time. Lanes: changed cells; growth and resets; the halting probability; the residual of the state, on a
logarithmic scale."><canvas
id="timeline-plot"></canvas></div>
"""

HUB = f"""
<div id="notice" role="status" aria-live="polite" hidden></div>
<div id="tip" role="tooltip" hidden></div>
<dialog id="help" aria-labelledby="help-title"><h2 id="help-title">Keys</h2>
<div id="help-keys"></div>
<h2>Reading the screen</h2>
<p>The model solves the puzzle by applying one small net again and again. Each application is a step. Beside it the LASER tracker
keeps, for every linear layer it watches (a <em>site</em>), only the part of the layer's input that lies in a small subspace, the
<em>basis</em>.</p>
<p><em>Fidelity</em> is the share of the input's energy that is kept. A window below ε is a miss: the basis grows. After p misses
in a row it is reset by SVD. <em>Memory saved</em> is net: the bases themselves are counted.</p>
<p>Every number is computed from the forward pass of the loaded weights. Point at a number to learn what it is. Click a site and every panel
follows it.</p>
<form method="dialog"><button>Close</button></form></dialog>
{panels_puzzles.DIALOG}"""
