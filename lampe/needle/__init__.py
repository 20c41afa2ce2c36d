"""Needle-in-a-haystack tests: a fact hidden in a long text, asked back, and scored by exact match.

A `Task` says what is hidden and asked; a `Haystack` is the text it is hidden in; `prompt_of` puts both together into a
prompt of an exact length; `run` reads prompts with a model and scores its answers. The same seed and text give the same
prompt on any machine; the language reference is the Python version's own. The kinds of tasks are RULER's
(arXiv 2404.06654), the sentences are ours.
"""

from lampe.needle.cells import Cell, NeedlePrompt, grid, hide, hide_all, prompt_of
from lampe.needle.haystacks import HAYSTACKS, Haystack, TokenizedHaystack
from lampe.needle.results import mcnemar, paired_rows, read_results, read_rows, row_of, summary, summary_rows, wilson
from lampe.needle.running import Reading, Result, run, steps, to_read
from lampe.needle.tasks import TASKS, NeedleError, Needles, Task, file_needles

__all__ = [
    "HAYSTACKS",
    "TASKS",
    "Cell",
    "Haystack",
    "NeedleError",
    "NeedlePrompt",
    "Needles",
    "Reading",
    "Result",
    "Task",
    "TokenizedHaystack",
    "file_needles",
    "grid",
    "hide",
    "hide_all",
    "mcnemar",
    "paired_rows",
    "prompt_of",
    "read_results",
    "read_rows",
    "row_of",
    "run",
    "steps",
    "summary",
    "summary_rows",
    "to_read",
    "wilson",
]
