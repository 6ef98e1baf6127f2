"""Checkpoints on the Hugging Face Hub: `hf://owner/name[/file][@revision]`, found, measured, fetched and kept in the Hub's own cache.

`look_up` asks what there is and what it weighs, `fetch` brings it, `obtain` does both. They talk through huggingface_hub, so
HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE mean what they mean everywhere. A fetched file is a stranger's file like any other;
nothing is opened here, and torch is not imported.
"""

from laser_studio.hub.bar import fetch_bar
from laser_studio.hub.found import HubCheckpoint, HubFile, look_up, megabytes
from laser_studio.hub.reference import HubReference, is_reference, parse
from laser_studio.hub.transfer import OnFetch, Progress, fetch, obtain

__all__ = [
    "HubCheckpoint",
    "HubFile",
    "HubReference",
    "OnFetch",
    "Progress",
    "fetch",
    "fetch_bar",
    "is_reference",
    "look_up",
    "megabytes",
    "obtain",
    "parse",
]
