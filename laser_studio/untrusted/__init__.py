"""Strangers' model files: what is in them is found out by a child process with limits, and only numbers come back.

`listing.list_tensors` is what the rest of the program calls. `child` and the modules it uses (`faults`, `descriptions`, `flatten`,
`pickled`, `zipped`, `legacy`, `header`) run inside the child, know only the standard library, and never make a tensor: they tell where
in the file each one's bytes lie. See docs/safety.md.
"""
