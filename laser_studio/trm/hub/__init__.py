"""Checkpoints on the Hugging Face Hub: `hf://owner/name[/file][@revision]`, found, measured, fetched and kept in the Hub's own cache.

`look_up` asks what there is and what it weighs, `fetch` brings it. Both talk through huggingface_hub, so HF_ENDPOINT, HF_HOME, HF_TOKEN
and HF_HUB_OFFLINE mean what they mean everywhere. A fetched file is a stranger's file like any other; nothing is opened here.
"""

from laser_studio.trm.hub.found import HubCheckpoint, HubFile, look_up, megabytes
from laser_studio.trm.hub.reference import HubReference, is_reference, parse
from laser_studio.trm.hub.transfer import Progress, fetch

__all__ = ["HubCheckpoint", "HubFile", "HubReference", "Progress", "fetch", "is_reference", "look_up", "megabytes", "parse"]
