"""Bringing a model of one's own: the button beside the model, and its dialog. See `panels` for what may stand in here."""

from __future__ import annotations

OPENER = """<button type="button" id="open-model" aria-label="Open a model of your own" data-tip="Open a model of your own: from the Hugging
Face Hub, or a file (U).">+</button>
<dialog id="models" aria-labelledby="models-title"><header><h2 id="models-title">Open a model</h2><button type="button" id="models-close"
class="quiet" aria-label="Close">×</button></header>
<form id="models-hub"><label for="models-reference">From the Hugging Face Hub</label><div class="line"><input type="text"
id="models-reference" placeholder="hf://owner/name[/file][@revision]" autocomplete="off" spellcheck="false"><button
type="submit">Look up</button></div>
<div id="models-found" hidden><p id="models-what" class="num"></p><button type="button" id="models-fetch">Download and
open</button></div></form>
<form id="models-file"><label for="models-files">From a file</label><div class="line"><input type="file" id="models-files" multiple>
<button type="submit" disabled>Send and open</button></div>
<p class="note">A TRM checkpoint or a relative of it (safetensors, or what torch.save wrote), with its all_config.yaml or config.json where
there is one: choose both at once. Nothing in a file is ever run.</p></form>
<div id="models-progress" hidden><div class="bar"
role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-label="Progress"><i></i></div>
<span id="models-doing" class="num"></span><button type="button" id="models-stop" class="quiet">stop</button></div>
<form id="models-needs" hidden><p id="models-asks"></p><div id="models-fields"></div><button type="submit">Open with these</button></form>
<p id="models-problem" role="alert" hidden></p></dialog>"""
