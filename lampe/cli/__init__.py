"""The commands of `python -m lampe`, one file each: `add` describes its arguments, `run` does it."""
