"""The puzzle dialog and an ARC task's demonstrations as plain HTML; assets/js/puzzles.js fills them."""

from __future__ import annotations

DEMONSTRATIONS = """
<div id="demonstrations" hidden><p class="note" id="demonstrations-says"></p><div id="demonstrations-list" role="list"
aria-label="Demonstrations of the task: input and output" tabindex="0"></div></div>
"""

DIALOG = """
<dialog id="puzzles" aria-labelledby="puzzles-title">
<header><h2 id="puzzles-title">Puzzle</h2><div class="tabs" id="puzzles-tabs" role="tablist" aria-label="Where the puzzle comes from">
<button type="button" role="tab" id="tab-typed" aria-controls="typed-body">Type or paste</button>
<button type="button" role="tab" id="tab-file" aria-controls="file-body">File</button>
<button type="button" role="tab" id="tab-browse" aria-controls="browse-body">Browse</button></div>
<a id="puzzles-batch" href="batch" data-tip="Run many puzzles and see which are solved.">batch</a>
<button type="button" class="close" id="puzzles-close" aria-label="Close">×</button></header>
<div class="sides">
<div class="side">
<div class="tabbody" id="typed-body" role="tabpanel" aria-labelledby="tab-typed">
<div class="line"><label>kind <select id="typed-kind" aria-label="Kind of puzzle"><option value="">by its characters</option><option
value="sudoku">Sudoku</option><option value="maze">maze</option><option value="arc">ARC</option></select></label>
<button type="button" id="typed-blank" data-tip="An empty board of this model's size.">empty board</button>
<button type="button" id="typed-now" data-tip="The puzzle that is open now.">this puzzle</button></div>
<textarea id="typed-text" spellcheck="false" aria-label="Puzzle as text"></textarea>
<p id="typed-problem" class="problem" role="status"></p>
<p class="note">Sudoku: 4×4, 6×6, 9×9 or 16×16 in rows or one line, blanks as 0 . _ or spaces, CSV, JSON lists. Maze: # walls, spaces, S and
G. ARC: a task as JSON with "train" and "test", or a grid of digits.</p>
</div>
<div class="tabbody" id="file-body" role="tabpanel" aria-labelledby="tab-file" hidden>
<label id="file-drop"><input type="file" id="file-input" accept=".txt,.csv,.tsv,.json,.npy,text/plain,text/csv,application/json"><b>Choose
a file</b><span>or drop it here: txt, csv (source,q,a,rating), json, npy, up to 8 MiB</span></label>
<p id="file-problem" class="problem" role="status"></p>
<p class="note">The file is held in the studio's memory until newer ones need its room. Larger files and whole data set folders
(train and test with all__inputs.npy, dataset.json, identifiers.json) are named when the studio is started: --puzzles PATH.</p>
</div>
<div class="tabbody" id="browse-body" role="tabpanel" aria-labelledby="tab-browse" hidden>
<div class="line"><select id="browse-source" aria-label="Source of puzzles"></select><select id="browse-split" aria-label="Split"></select>
<select id="browse-band" aria-label="Difficulty"></select></div>
<div class="line"><input type="search" id="browse-find" placeholder="find an id" maxlength="80" aria-label="Find an id"><label
class="switch" data-tip="Only puzzles that a batch run here, or the model's evaluation report, found it to fail."><input type="checkbox"
id="browse-fails"> model fails this</label><span class="gap"></span><span id="browse-count" class="num"></span></div>
<p id="browse-problem" class="problem" role="status"></p>
<div id="browse-list" role="listbox" aria-label="Puzzles"></div>
<div class="line pager"><button type="button" id="browse-back" aria-label="Page before">←</button><span id="browse-page"
class="num"></span><button type="button" id="browse-on" aria-label="Next page">→</button></div>
</div>
</div>
<div class="mine">
<div class="line"><b id="mine-title"></b><span class="gap"></span><span id="mine-size" hidden><input type="number" id="mine-rows" min="1"
max="30" aria-label="Rows"> × <input type="number" id="mine-columns" min="1" max="30" aria-label="Columns"></span></div>
<div class="fit"><canvas id="mine-board" tabindex="0" role="img" aria-label="No puzzle yet"></canvas></div>
<div id="mine-palette" role="group" aria-label="Cell values"></div>
<p id="mine-says" role="status"></p>
<div id="mine-demonstrations" role="list" aria-label="Demonstrations of the task"></div>
<ul id="mine-issues" aria-label="Problems by cell"></ul>
<p id="mine-misfit" class="problem"></p>
<div class="line"><label id="mine-model-line">model <select id="mine-model" aria-label="Model to open it with"></select></label><span
class="gap"></span><button type="button" id="mine-open" class="primary" disabled>Open</button></div>
</div>
</div>
</dialog>
"""
