"""What is looked into: cells, sites, findings. Frames that assets/js fills; see `panels` for what may stand in here."""

from __future__ import annotations

FINDINGS = """
<span class="aside num" id="findings-count" data-tip="Detectors go along with the run. A finding that still holds tells since
when.">click to jump</span>
<ol id="findings-list" tabindex="0" aria-label="Findings, newest first"></ol>
<p class="empty" id="findings-empty">Press Play. Fixed points, right and wrong, oscillations, the step at which most cells settle, bursts of
turning bases and sites that reset too often are found here as the run goes on.</p>
"""

SOLVE = """
<div id="solve">
<section class="card" id="cell-card" aria-labelledby="cell-title">
<header><h2 id="cell-title">Cell</h2><span class="aside num" id="cell-says" data-tip="What the model answers here at the step shown, and
how far the last update moved the cell's vector in z_H and in z_L, as a share of its norm.">choose a cell of the board</span></header>
<div class="plot"><canvas id="cell-plot" role="img" aria-label="Token probabilities over time: no cell is chosen"></canvas>
<p class="empty" id="cell-empty">Click a cell of the board: how sure the model was of each token, update by update, and what its latents
did.</p></div>
<div class="legend" data-tip="A column per update of z_H, a row per token; colour: the token's probability under the model's own output
distribution (stablemax). Below, left: how far each update moved the cell's vector, as a share of its norm; right: where it went, in the
plane of the output head's two strongest directions."><span>probability 0</span><canvas id="cell-scale"
aria-hidden="true"></canvas><span>1</span><span class="keys"><span>moved by an update:</span><span><i class="square"></i>z_H</span><span><i
class="round"></i>z_L</span></span></div>
<div class="lane" id="cell-lane"><canvas id="cell-latents" role="img" aria-label="The cell's latents: no cell is
chosen"></canvas></div>
</section>
<div id="solve-lower">
<section class="card" id="reads-card" aria-labelledby="reads-title">
<header><h2 id="reads-title" data-tip="The tokens from which the chosen cell's token takes in this net application.">Reads
from</h2><span class="aside num" id="reads-step"></span></header>
<div class="sub"><span id="reads-kind" class="seg" role="radiogroup" aria-label="Activations read">
<label data-tip="As the model computes it."><input type="radio" name="reads" value="exact" checked><span>exact</span></label>
<label data-tip="The same application, with every site reading what LASER keeps of its input, from the same states."><input type="radio"
name="reads" value="compressed"><span>compressed</span></label>
<label data-tip="Compressed minus exact: amber more, blue less."><input type="radio" name="reads"
value="difference"><span>difference</span></label></span></div>
<div class="sub"><label class="pick">layer <select id="reads-layer" aria-label="Layer"></select></label><label class="pick"
id="reads-heads">head <select id="reads-head" aria-label="Head"></select></label></div>
<div class="plot"><canvas id="reads-plot" role="img" aria-label="Where the cell reads from: nothing yet"></canvas>
<p class="empty" id="reads-empty">Choose a cell, and step on.</p></div>
<p id="reads-note" class="note num" data-tip="Half the sum of the absolute differences of the weights: the share that lies on other tokens
once activations are compressed."></p>
</section>
<section class="card" id="directions-card" aria-labelledby="directions-title">
<header><h2 id="directions-title" data-tip="The leading directions of the site's basis at this step, the most energy first; choose a site in
the site map.">Directions</h2><span class="aside num" id="directions-rank"></span></header>
<div class="plot"><canvas id="directions-plot" role="img" aria-label="Directions of the selected site: nothing yet"></canvas>
<p class="empty" id="directions-empty">Step on: then the selected site has an input.</p></div>
<div class="sub"><span id="directions-note" class="note"></span><button type="button" id="directions-flips" class="quiet" data-tip="Run this
H cycle again from its own start, once without each direction, and compare the answers at its end. Costs time.">measure
flips</button></div>
</section>
</div>
</div>
"""
