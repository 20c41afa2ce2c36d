"""Reading prompts with a model, and scoring its answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Annotated, Any, NamedTuple

import msgspec
import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from lampe.files import Count
from lampe.inference.prefill import CHUNK, PromptReader
from lampe.inference.prompt import decode, encode
from lampe.methods import Method, Rope, method_class, methods_for
from lampe.needle.cells import Cell, NeedlePrompt, prompt_of
from lampe.needle.haystacks import TokenizedHaystack
from lampe.patching.patch import Patched, in_steps
from lampe.positions import PositionMap

_AROUND = 40  # tokens of the excerpt before and after the needle


@dataclass(frozen=True)
class Result:
    """What came of a cell.

    Parameters
    ----------
    task, length, depth, method, trial, seed
        The cell's.
    haystack : str
    repeated : bool
        See `NeedlePrompt`.
    question : str
    expected : tuple of str
    answer : str
        As the model gave it, after the answer's prefix.
    score : float
        Share of what was expected that stands in the answer.
    place : int
        Token index of the needle's last token.
    distance, mapped_position : int
        From the prompt's last token to it: in tokens, and as it was mapped.
    region : str
        The region of the map it lies in.
    mapping_length, head, tail : int
    attention_scale : float
        Of the map that it was read by.
    attention : float or None
        Share of the prompt's last token's attention that fell on the needle, the mean over layers and heads; None for
        a model that ran unpatched.
    excerpt : str
        The prompt around the needle, as text.
    settings : dict or None
        The method's, as its `settings` gives them; None in older rows, which are plain RoPE's and LaMPE's.
    basis : str or None
        What LaMPE's mapping length rests on, see `lampe.methods.BASES`; None for other methods, and in older rows.
    read_tokens : int
        Tokens that were read for this cell; the others were kept from the one before.
    seconds : float
    megabytes : int or None
        Of memory that it took at most, beyond the loaded model; None where nobody measured it or could.
    """

    task: str
    length: int
    depth: float
    method: str
    trial: int
    seed: int
    haystack: str
    repeated: bool
    question: str
    expected: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    answer: str
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]
    place: int
    distance: int
    mapped_position: int
    region: str
    mapping_length: int
    head: int
    tail: int
    attention_scale: float
    attention: float | None
    excerpt: str
    read_tokens: int
    seconds: float
    basis: str | None = None
    settings: dict[str, Any] | None = None
    megabytes: Count | None = None

    @property
    def cell(self) -> Cell:
        """The cell that this came of."""
        return Cell(**{field.name: getattr(self, field.name) for field in fields(Cell)})

    def ran_by(self, methods: Mapping[str, Method]) -> bool:
        """Whether it would run alike with these settings of its method, or there are none that it could."""
        method = methods.get(self.method)
        if method is None or isinstance(method, Rope):
            return True
        made = method.position_map(self.length)
        if self.settings is not None:
            own = method_class(self.method).from_settings(self.settings)
            ours, theirs = (
                (one.position_map(self.length), one.frequencies(self.length), one.attention_scale)
                for one in (own, method)
            )
            return ours == theirs
        asked = (made.mapping_length, made.head, made.tail, method.attention_scale)
        return asked == (self.mapping_length, self.head, self.tail, self.attention_scale)


class Reading(NamedTuple):
    """A cell is being read.

    Parameters
    ----------
    cell : Cell
    tokens : int
        That have been read of it.
    """

    cell: Cell
    tokens: int


def steps(
    model: Any,
    tokenized: TokenizedHaystack,
    cells: Sequence[Cell],
    methods: Mapping[str, Method] | None = None,
    stop: Callable[[], bool] = lambda: False,
    make: Callable[[TokenizedHaystack, Cell], NeedlePrompt] = prompt_of,
) -> Iterator[Reading | Result]:
    """Answer cells, greedily, one after the other; those of one length and method together, the deepest first.

    A cell keeps from the one before whole chunks of what both prompts begin with: under one plan their keys are
    the same, and each result is that of the cell alone. Between two steps the model isn't patched, and others may
    use it.

    Parameters
    ----------
    model : transformers model
        Not patched.
    tokenized : TokenizedHaystack
    cells : sequence of Cell
    methods : mapping of key to Method, optional
        What a method runs with; those that aren't in it have their own settings for the model.
    stop : callable
        Asked before each layer and after each token; True ends the run without a result for the cell under way.
    make : callable
        Gives a cell's prompt; `prompt_of` draws its needle.

    Yields
    ------
    Reading
        After each chunk.
    Result
        Of each cell.

    Raises
    ------
    NeedleError
        If a cell can't be made.
    """
    ran = methods_for(dict.fromkeys(cell.method for cell in cells), model, methods)
    for (length, key), group in _groups(cells).items():
        work = partial(_run_group, model, tokenized, group, ran[key], ran[key].position_map(length), stop, make)
        yield from in_steps(model, ran[key], work)
        if stop():
            return


def run(*args: Any, **settings: Any) -> Iterator[Result]:
    """The results alone; arguments as in `steps`."""
    return (step for step in steps(*args, **settings) if isinstance(step, Result))


def _run_group(
    model: Any,
    tokenized: TokenizedHaystack,
    group: Sequence[Cell],
    method: Method,
    position_map: PositionMap,
    stop: Callable[[], bool],
    make: Callable[[TokenizedHaystack, Cell], NeedlePrompt],
    patched: Patched | None,
) -> Iterator[Reading | Result]:
    """Cells of one length and method; arguments as in `run`."""
    if patched:
        patched.plan(position_map.length)
    reader = PromptReader(model)
    for cell in group:
        started = time.perf_counter()
        prompt = make(tokenized, cell)
        for done in reader.read(prompt.ids, position_map if patched else None, stop):
            yield Reading(cell, done)
        if stop():
            return
        answer, attention = _answer(reader, tokenized.tokenizer, prompt, stop, patched)
        if stop():
            return
        read = len(prompt.ids) - reader.kept
        yield _result(cell, tokenized, prompt, position_map, method, answer, attention, read, started)


def _groups(cells: Sequence[Cell]) -> dict[tuple[int, str], list[Cell]]:
    """The cells by length and method, each group the deepest first."""
    groups: dict[tuple[int, str], list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: -cell.depth):
        groups.setdefault((cell.length, cell.method), []).append(cell)
    return {key: groups[key] for key in dict.fromkeys((cell.length, cell.method) for cell in cells)}


def to_read(cells: Sequence[Cell], chunk: int = CHUNK) -> dict[Cell, int]:
    """The token from which each cell will be read, in the order of `run`, in chunks of so many tokens: about, since its
    needle isn't placed yet."""
    return {
        cell: round(cell.depth * cell.length) // chunk * chunk if number else 0
        for group in _groups(cells).values()
        for number, cell in enumerate(group)
    }


@torch.inference_mode()
def _answer(
    reader: PromptReader, tokenizer: Any, prompt: NeedlePrompt, stop: Callable[[], bool], patched: Patched | None
) -> tuple[str, float | None]:
    longest = encode(tokenizer, " and ".join(prompt.needles.expected))
    ids = reader.ids
    watch = _Watch(stop, patched, prompt.spans[0])
    made = reader.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        past_key_values=reader.cache,
        max_new_tokens=len(longest) + 16,
        do_sample=False,
        stopping_criteria=StoppingCriteriaList([watch]),
    )
    return decode(tokenizer, made[0, ids.shape[1] :].tolist(), special=False).strip(), watch.attention


class _Watch(StoppingCriteria):
    """Passes on a Stop, and notes how much of the first query's attention fell on the needle."""

    def __init__(self, stop: Callable[[], bool], patched: Patched | None, span: tuple[int, int]) -> None:
        self.stop, self.patched, self.span = stop, patched, span
        self.attention: float | None = None
        if patched:
            patched.keep_weights = True

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        if self.patched and self.attention is None:
            self.attention = self.patched.key_weights()[..., slice(*self.span)].sum(-1).mean().item()
            self.patched.keep_weights = False
        return torch.full((len(input_ids),), self.stop(), device=input_ids.device)


def _result(
    cell: Cell,
    tokenized: TokenizedHaystack,
    prompt: NeedlePrompt,
    position_map: PositionMap,
    method: Method,
    answer: str,
    attention: float | None,
    read: int,
    started: float,
) -> Result:
    start, stop = prompt.spans[0]
    last, place = len(prompt.ids) - 1, stop - 1
    return Result(
        **asdict(cell),
        haystack=tokenized.haystack.name,
        repeated=prompt.repeated,
        question=prompt.needles.question,
        expected=prompt.needles.expected,
        answer=answer,
        score=prompt.needles.score(answer),
        place=place,
        distance=last - place,
        mapped_position=position_map.relative(last, place),
        region=position_map.regions[position_map.region(last, place)].name,
        mapping_length=position_map.mapping_length,
        head=position_map.head,
        tail=position_map.tail,
        attention_scale=method.attention_scale,
        attention=attention,
        excerpt=decode(tokenized.tokenizer, prompt.ids[max(0, start - _AROUND) : stop + _AROUND]),
        read_tokens=read,
        seconds=time.perf_counter() - started,
        basis=getattr(method, "basis", None),
        settings=method.settings(),
    )
