"""Breakpoints, watches, bookmarks, travelling and the inside of a step on the page. Frames that assets/js fills; see `panels`."""

from __future__ import annotations

BREAKPOINTS = """
<form id="breakpoint-form" class="expression-form" aria-label="Add a breakpoint" autocomplete="off">
<div class="line"><input type="text" id="breakpoint-field" class="expression" maxlength="1000" spellcheck="false" role="combobox"
aria-expanded="false" aria-controls="offers" aria-label="Where to stop" placeholder="fidelity &lt; 0.9 | reset">
<button type="submit" class="quiet">add</button></div>
<p id="breakpoint-problem" class="problem" role="alert" hidden></p>
<div class="line builder"><select id="breakpoint-kind" aria-label="Build a condition"></select><span id="breakpoint-values"></span>
<button type="button" id="breakpoint-more" class="quiet" aria-expanded="false" aria-controls="breakpoint-options">options</button></div>
<div class="line" id="breakpoint-options" hidden>
<label data-tip="Which of the frames where it holds count: 3 is from the third on, == 3 the third alone, % 2 every second.">hits <input
type="text" id="breakpoint-hits" size="4" placeholder="1" aria-label="Which hits count"></label>
<label class="switch" data-tip="After it has counted once it is off; it stays in the list."><input type="checkbox" id="breakpoint-once">
once</label>
<label class="grow" data-tip="Write this into the log in place of stopping; what stands in {braces} is evaluated.">log <input type="text"
id="breakpoint-log" maxlength="500" placeholder="step {index}: {residual}" aria-label="Message to log in place of stopping"></label>
</div></form>
<div class="scroller" tabindex="0" aria-label="Breakpoints and what they hit">
<ol id="breakpoint-list" aria-label="Breakpoints"></ol>
<p class="note" id="breakpoint-empty">Type a condition, ↓ lists all that can be written (B). Play stops where it holds, seeking
does not. The fidelity it sees is the one on screen.</p>
<p class="subhead" id="hits-head" hidden>stops and log <b id="hits-count" class="num"></b></p>
<ol id="hits-list" aria-label="Stops and log, newest first"></ol></div>
"""

WATCHES = """
<form id="watch-form" class="expression-form" aria-label="Add a watch" autocomplete="off">
<div class="line"><input type="text" id="watch-field" class="expression" maxlength="1000" spellcheck="false" role="combobox"
aria-expanded="false" aria-controls="offers" aria-label="What to follow" placeholder="min fidelity(*.mlp.*)">
<button type="submit" class="quiet">add</button></div>
<p id="watch-problem" class="problem" role="alert" hidden></p></form>
<div class="scroller" tabindex="0" aria-label="Watches and bookmarks"><ol id="watch-list" aria-label="Watches"></ol>
<p class="note" id="watch-empty">A number or condition is followed over all recorded steps (W): its curve, its range and its
value now. ↓ lists all that can be written.</p>
<p class="subhead">bookmarks <button type="button" id="bookmark-here" class="quiet" data-tip="Mark the step shown (K).">mark this
step</button></p>
<ol id="bookmark-list" aria-label="Bookmarks, by step"></ol></div>
"""

TRANSPORT = """
<div id="travel"><button type="button" id="run-back" aria-keyshortcuts="P" aria-label="Back to the last stop or event"
data-tip="Back to the last recorded step with a reset, a growth, a changed answer or a breakpoint that holds (P)."></button>
<button type="button" id="run-on" aria-keyshortcuts="N" aria-label="On to the next stop or event"
data-tip="On to the next step with a reset, a growth, a changed answer or a breakpoint that stops (N)."></button>
<button type="button" id="into" aria-keyshortcuts="I" aria-label="Into this step"
data-tip="Into this net application: what each site reads and returns (I)."></button>
<button type="button" id="travel-open" popovertarget="travel-menu" aria-haspopup="menu"
data-tip="Steps of other sizes, and what is kept for going back.">by</button></div>
<div id="travel-menu" popover="auto"><div id="travel-moves" role="menu" aria-label="Ways to move"></div>
<section aria-labelledby="kept-title"><h3 id="kept-title">Kept for going back</h3>
<label class="line" data-tip="What activations and keyframes may take together. Over it, steps kept exact are compressed, then keyframes are
thinned, then the oldest activations go.">budget <input type="number" id="history-budget" min="1" max="1024" step="1"> MiB</label>
<dl><dt data-tip="Z of every site and step, with 8 bytes of bookkeeping each.">coefficients</dt><dd id="kept-coefficients"
class="num">–</dd>
<dt data-tip="Every basis that stored coefficients lie in.">bases</dt><dd id="kept-bases" class="num">–</dd>
<dt data-tip="States and trackers as they were at the end of some supervision steps: the ways back.">keyframes</dt><dd id="kept-keyframes"
class="num">–</dd>
<dt data-tip="Net applications that have to be computed again, at most, for the exact state of any recorded step.">longest replay</dt><dd
id="kept-replay" class="num">–</dd>
<dt data-tip="Activations of earlier steps had to go. Frames stay, and exact activations can be computed again.">activations
from</dt><dd id="kept-from" class="num">–</dd></dl>
<p id="kept-said" class="note" role="status">nothing had to go so far</p></section></div>
"""

INSIDE = """
<section class="card" id="inside" aria-labelledby="inside-title" hidden>
<header><h2 id="inside-title">Inside</h2><span class="aside tools"><button type="button" id="inside-before" class="quiet"
data-tip="The site before (↑).">← site</button><button type="button" id="inside-after" class="quiet"
data-tip="The next site; after the last one, the next net application (↓).">site →</button>
<button type="button" id="inside-close" class="quiet" aria-label="Close" data-tip="Out of the step (I or Esc).">✕</button></span></header>
<p class="note" id="inside-says"></p>
<div id="inside-sites" tabindex="0" role="listbox" aria-label="Sites in the order they are applied"><div class="head"
role="presentation"><span></span><span>site</span><span data-tip="Widths of input and output.">D → D′</span><span
data-tip="Frobenius norm of the exact input, over all rows of the batch.">‖X‖</span><span data-tip="The same of the output.">‖Y‖</span><span
data-tip="Share of the input's energy that its coefficients kept when they were stored, as everywhere on screen.">F</span><span
data-tip="Share that the history still keeps of it, after it was carried over to newer bases.">kept</span><span
data-tip="‖X − ZQᵀ‖ / ‖X‖: how far what is read back lies from what was there.">error</span></div><div id="inside-rows"></div></div>
<div class="subhead"><b id="inside-site"></b><span class="num" id="inside-shape"></span></div>
<div id="inside-maps"><figure><canvas id="inside-exact" role="img"></canvas><figcaption data-tip="Mean square over the features of each
cell's row of X, computed again, exactly.">exact X <span class="num"></span></figcaption></figure>
<figure><canvas id="inside-stored" role="img"></canvas><figcaption data-tip="The same of ZQᵀ, which is all that the history
keeps.">ZQᵀ <span class="num"></span></figcaption></figure>
<figure><canvas id="inside-output" role="img"></canvas><figcaption data-tip="The same of the output Y; a colour scale of its
own.">output Y <span class="num"></span></figcaption></figure></div>
<p class="note" id="inside-scale">Mean square of each cell, dark at 0 and light at the largest. X and ZQᵀ share one scale.</p>
</section>
"""
