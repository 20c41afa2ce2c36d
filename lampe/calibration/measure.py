"""Evaluating points with a model: the loss on a window of text, and how likely the answer about a needle is."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from lampe.calibration.points import CalibrationError, Evaluation, window_end
from lampe.files import Count
from lampe.inference.prefill import PromptReader
from lampe.inference.prompt import ANSWER_PREFIX, around, encode
from lampe.methods import Method, Rope
from lampe.models.memory import cache_bytes, free_bytes
from lampe.needle import TASKS, NeedlePrompt, Needles, TokenizedHaystack, hide_all
from lampe.patching.patch import applied

LAST = 512
"""Tokens at a window's end whose loss is taken; of a window shorter than twice that, its second half."""


@dataclass(frozen=True)
class Outcome:
    """What came of reading a window of the text: its loss, or one needle.

    Parameters
    ----------
    loss : float or None
        A loss: the mean over `tokens`, in nats.
    found : bool or None
        A needle: whether every token of its number is the likeliest one, in a sentence that answers.
    log_likelihood : float or None
        A needle: of its number there, the mean over its `tokens`, in nats.
    tokens : int
        Tokens that were scored.
    seconds : float

    Raises
    ------
    ValueError
        If it is neither a loss nor a needle.
    """

    loss: float | None = None
    found: bool | None = None
    log_likelihood: float | None = None
    tokens: Count = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        given = (self.loss is not None, self.found is not None, self.log_likelihood is not None)
        if given not in ((True, False, False), (False, True, True)):
            raise ValueError("a row holds a loss, or whether a needle was found and its log-likelihood")
        if (self.log_likelihood or 0) > 0:
            raise ValueError("a log-likelihood must be at most 0")


@dataclass(frozen=True)
class Row(Outcome, Evaluation):
    """What came of an evaluation; its fields are those of `Evaluation` and of `Outcome`.

    Raises
    ------
    ValueError
        If it isn't what was evaluated.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.kind == "loss") != (self.loss is not None):
            raise ValueError("a row of a loss holds a loss, and a row of a needle holds none")

    @property
    def evaluation(self) -> Evaluation:
        """What it came of."""
        return Evaluation(**{name: getattr(self, name) for name in Evaluation.__dataclass_fields__})


def evaluate(model: Any, tokenized: TokenizedHaystack, wanted: Iterable[Evaluation], window: int) -> Iterator[Row]:
    """Measure one evaluation after the other; those of one window that follow each other share its read.

    Parameters
    ----------
    model : transformers model
        Not patched.
    tokenized : TokenizedHaystack
        The text that windows are cut from, and needles hidden in.
    wanted : iterable of Evaluation
    window : int
        W₀, in tokens.
    """
    for reading, group in itertools.groupby(wanted, key=lambda evaluation: evaluation.reading):
        plain = reading.mapping_length >= reading.length
        method = Rope(window) if plain else reading.config(window)
        text = text_of(tokenized, reading.length, reading.text_window, reading.hidden, reading.seed)
        evaluations = list(group)
        outcomes = read_window(model, tokenized.tokenizer, method, text, [one.asked for one in evaluations])
        for evaluation, outcome in zip(evaluations, outcomes, strict=True):
            yield Row(**asdict(evaluation), **asdict(outcome))


def read_window(
    model: Any, tokenizer: Any, method: Method, text: Text, asked: Iterable[int | None]
) -> Iterator[Outcome]:
    """Read a window of the text under a method, for its loss (None) and for needles, by their numbers.

    The text is read once; each needle's question and what its Tail touches are read for themselves.

    Parameters
    ----------
    model : transformers model
        Not patched.
    tokenizer : transformers tokenizer
    method : Method
    text : Text
    asked : iterable of int or None
    """
    with applied(model, method) as patched:
        reader = PromptReader(model, step=1)
        for number in asked:
            started = time.perf_counter()
            prompt = text.prompts[number or 0]
            position_map = patched.plan(text.length, len(prompt.ids)) if patched else None
            for _ in reader.read(prompt.ids, position_map):
                pass
            if number is None:
                outcome = Outcome(loss=mean_loss(reader, text.scored), tokens=len(text.scored))
            else:
                # The words before the number are given: a small model asked about technical prose often begins to tell
                # something else, however its positions are mapped.
                answer, count = answer_tokens(tokenizer, prompt.needles)
                likelihood, found = reader.score(answer, count)
                outcome = Outcome(found=found, log_likelihood=likelihood, tokens=count)
            yield replace(outcome, seconds=round(time.perf_counter() - started, 3))


@dataclass(frozen=True)
class Text:
    """What is read for a window of the text.

    Parameters
    ----------
    length : int
        That it is planned for, in tokens.
    prompts : list of NeedlePrompt
        One for each needle, alike up to the question; or the window alone.
    scored : list of int
        The tokens whose loss is taken, by their place in the prompts: the window's last ones, without those of needles.
    """

    length: int
    prompts: list[NeedlePrompt]
    scored: list[int]


def text_of(tokenized: TokenizedHaystack, length: int, text_window: int, hidden: int, seed: int) -> Text:
    """A window's prompts, asked as the page asks; no key and no number is there twice. See `Evaluation`."""
    stop, tokenizer = window_end(text_window, len(tokenized.ids)), tokenized.tokenizer
    if not hidden:
        before = tokenizer.encode("")  # what the tokenizer begins a text with
        ids = [*before, *tokenized.window(stop, length - len(before)).ids]
        prompts, last = [NeedlePrompt(ids, Needles((), "", "", ()), (), False)], len(ids)
    else:
        rng = random.Random(f"{seed} {length} {text_window} {hidden}")
        prompts = hide_all(tokenized, needles_alike(tokenized, hidden, rng), length, stop)
        after = around(tokenizer, prompts[0].needles.question, prompts[0].needles.prefix)[1]
        last = len(prompts[0].ids) - len(after)
    needles = {token for prompt in prompts for span in prompt.spans for token in range(*span)}
    first = last - min(LAST, length // 2)
    return Text(length, prompts, [token for token in range(first, last) if token not in needles])


def needles_alike(tokenized: TokenizedHaystack, count: int, rng: random.Random) -> list[Needles]:
    """Needles whose questions have as many tokens as the first one's: their prompts then end at the same token."""
    drawn: list[Needles] = []
    seen, wanted = tokenized.haystack.text, 0
    while len(drawn) < count:
        one = replace(TASKS["single"].draw(rng, unlike=seen), prefix=ANSWER_PREFIX)
        tokens = len(encode(tokenized.tokenizer, f" {one.question}"))
        if tokens == (wanted := wanted or tokens):
            drawn.append(one)
            seen += one.sentences[0]
    return drawn


@torch.inference_mode()
def mean_loss(reader: PromptReader, scored: Sequence[int]) -> float:
    """Mean loss of some tokens of a prompt that was read, in nats; all from the first one on is read again."""
    first = scored[0] - 1
    reader.cache.crop(first - reader.cache.get_seq_length())
    logits = reader.model(reader.ids[:, first:-1], past_key_values=reader.cache, use_cache=True).logits[0]
    places = torch.tensor(scored, device=logits.device)
    return torch.nn.functional.cross_entropy(logits[places - 1 - first].float(), reader.ids[0, places]).item()


def answer_tokens(tokenizer: Any, needles: Needles) -> tuple[list[int], int]:
    """The tokens of the sentence that answers, after the prompt's prefix; how many, the last, are the number."""
    asked, (value,), fact = needles.prefix, needles.expected, needles.sentences[0].removesuffix(".")
    sentence = encode(tokenizer, f"{asked} {fact[0].lower()}{fact[1:]}")[len(encode(tokenizer, asked)) :]
    return sentence, len(encode(tokenizer, f" {value}"))


def check_memory(model: Any, lengths: Iterable[int]) -> None:
    """Refuse lengths that don't fit in the free memory.

    A length takes its keys and values three times over (the cache, the copy that grows it, and a chunk's activations),
    and the logits of the last tokens as the model gives them, exact, and as a softmax.

    Raises
    ------
    CalibrationError
        If one doesn't fit.
    """
    each = torch.finfo(model.dtype).bits // 8
    per_token = 3 * cache_bytes(model.config, 1, each)
    logits = LAST * model.config.get_text_config().vocab_size * (each + 4 + 4)
    free = free_bytes(model.device)
    longest, fitting = max(lengths), max(0, int((free - logits) / per_token))
    if longest > fitting:
        raise CalibrationError(
            f"{longest:,} tokens take about {(per_token * longest + logits) / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are free: take lengths of at most {fitting:,} tokens."
        )
