"""Branches and comparison on the page. Frames that assets/js fills; see `panels` for what may stand in here."""

from __future__ import annotations

BRANCHES = """
<div class="branch-top" id="branch-top"><button type="button" id="branch-new" class="quiet" aria-keyshortcuts="Shift+B"
data-tip="Change something at the step shown and go on from there, really computed again. This run stays as it is (Shift B).">new branch
here</button><span class="num" id="branch-count"></span></div>
<ol id="branch-list" tabindex="0" aria-label="This run and its branches"></ol>
<p class="note" id="branch-empty">A branch goes on from the step shown with one thing changed: sites that read their rank-k
reconstruction, a direction taken away, a state set to zero or moved by noise, another token, more or fewer cycles. It is
computed again for real and can be stepped, branched and compared like any run.</p>
<form id="branch-form" autocomplete="off" aria-label="A new branch" hidden>
<div class="branch-line"><select id="branch-kind" aria-label="What is changed"><option value="reconstruct">use the compressed
activations</option><option value="scale">scale a direction</option><option value="state">change a state</option>
<option value="edit">edit a token</option><option value="cycles">add or skip cycles</option></select>
<button type="button" id="branch-cancel" class="quiet">cancel</button></div>
<div class="branch-line" data-kind="reconstruct"><select id="branch-where" aria-label="At which sites"></select>
<label data-tip="Directions used, at most those in force. Empty: all of them.">rank <input type="number" id="branch-rank" min="1"
max="65536" step="1"></label><label data-tip="The tracker's basis as it turns, or held as it is here."><select id="branch-basis"
aria-label="Basis"><option value="live">live basis</option><option value="held">held basis</option></select></label></div>
<div class="branch-line" data-kind="scale"><select id="branch-site" aria-label="Site"></select>
<label data-tip="Which direction of the basis, the strongest is 0.">direction <input type="number" id="branch-index" min="0" max="65535"
step="1" value="0"></label><label data-tip="What the part along it is multiplied with; 0 takes it away.">× <input type="number"
id="branch-factor" min="-100" max="100" step="any" value="0"></label></div>
<div class="branch-line" data-kind="state"><select id="branch-state" aria-label="State"><option value="H">z_H, the answer</option>
<option value="L">z_L, the reasoning</option></select><select id="branch-change" aria-label="Change"><option value="zero">set to
zero</option><option value="noise">noise of size</option></select><label data-tip="Relative to the state's norm."><input type="number"
id="branch-size" min="0" max="100" step="any" value="0.5" aria-label="Relative size of the noise"></label><label>seed <input
type="number" id="branch-seed" min="0" step="1" value="0"></label></div>
<div class="branch-line" data-kind="edit"><label data-tip="Or click a cell of the board.">row <input type="number" id="branch-row" min="1"
max="1000" step="1" value="1"></label><label>column <input type="number" id="branch-column" min="1" max="1000" step="1"
value="1"></label><label>becomes <select id="branch-value" aria-label="Value"></select></label></div>
<div class="branch-line" data-kind="cycles"><label data-tip="Below 0: so many are left out."><input type="number" id="branch-cycles"
min="-1000" max="1000" step="1" value="1" aria-label="How many more"></label><select id="branch-level" aria-label="Of what"><option
value="L">L updates more</option><option value="H">H cycles more</option></select><select id="branch-every" aria-label="Where"><option
value="">in the one under way</option><option value="1">in every one from here</option></select></div>
<div class="branch-line" id="branch-time"><label data-tip="Empty: to the end of the run.">for <input type="number" id="branch-steps"
min="1" max="10000000" step="1" placeholder="all"> steps</label></div>
<p class="note" id="branch-says"></p>
<div class="branch-line"><input type="text" id="branch-title" maxlength="40" spellcheck="false" placeholder="name it, if you like"
aria-label="Name of the branch"><button type="submit" id="branch-make">branch</button></div>
</form>
"""

COMPARE = """
<section class="card" id="compare-card" aria-labelledby="compare-title">
<header><h2 id="compare-title" data-tip="This page's run, A, and another, B, at the same step: the transport moves both.">Compare</h2>
<span class="aside tools"><label class="pick">with <select id="compare-with" aria-label="What to compare this run
with"></select></label></span></header>
<p class="empty" id="compare-empty">Choose a branch, another model of this task, another puzzle or other settings of the tracker. It runs
beside this run, step by step, and both are shown at the same step.</p>
<div id="compare-body" hidden>
<div id="compare-boards" data-tip="What each model answers, in given cells too (bold). Red: wrong. On amber: the two differ.">
<figure><figcaption><i class="dot a"></i><b>A</b> <span id="compare-name-a"></span></figcaption><div class="plot"><canvas
id="compare-a" role="img" aria-label="A's answer"></canvas></div><p id="compare-says-a" class="num"></p></figure>
<figure><figcaption><i class="dot b"></i><b>B</b> <span id="compare-name-b"></span></figcaption><div class="plot"><canvas
id="compare-b" role="img" aria-label="B's answer"></canvas></div><p id="compare-says-b" class="num"></p></figure></div>
<div id="compare-facts"><span data-tip="Where what the two models compute first differs; what the trackers tell, and the answer. Click to
go there.">parted: <button type="button" class="quiet num" id="compare-model">–</button> answer <button type="button" class="quiet num"
id="compare-answer">–</button> tracker <button type="button" class="quiet num" id="compare-tracker">–</button></span>
<span id="compare-cells" class="num"></span></div>
<div id="compare-curves"><figure><figcaption data-tip="KL(A ‖ B) of the output, in nats per cell that neither puzzle fixes, under the
model's own stablemax.">KL <b id="compare-kl-now" class="num">–</b> nats a cell</figcaption><div class="plot"><canvas id="compare-kl"
role="img" aria-label="KL of B's output from A's over time"></canvas></div></figure>
<figure><figcaption data-tip="The halting logit at this step; the curves are the probability to halt.">q_halt A <b
id="compare-halt-a" class="num">–</b> B <b id="compare-halt-b" class="num">–</b></figcaption><div class="plot"><canvas
id="compare-halt" role="img" aria-label="Probability to halt of both over time"></canvas></div></figure></div>
<div id="compare-sites" tabindex="0" aria-label="Sites of both runs"><div class="head"><span>site</span><span data-tip="Energy fidelity of
this step's input.">F of A</span><span>F of B</span><span data-tip="B − A.">differ</span><span data-tip="Ranks in force.">ranks</span><span
data-tip="Principal angles between the two bases, in degrees: the largest and the mean.">angles</span></div><div
id="compare-rows"></div></div>
</div>
</section>
"""
