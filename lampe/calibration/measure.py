"""Evaluating points with a model: the loss on a window of text, and how likely the answer about a needle is."""

from __future__ import annotations

import hashlib
import itertools
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from lampe.calibration.points import CalibrationError, Evaluation
from lampe.memory import cache_bytes, free_bytes
from lampe.needle import TASKS, Prompt, Straw, hide_all
from lampe.needle.prefix import PromptReader
from lampe.patch import patch
from lampe.prompt import encode
from lampe.reading import read

LAST = 512
"""Tokens at a window's end whose loss is taken; of a window shorter than twice that, its second half."""


@dataclass(frozen=True)
class Row(Evaluation):
    """What came of an evaluation.

    Parameters
    ----------
    loss : float or None
        A loss: the mean over `tokens`, in nats.
    found : bool or None
        A needle: whether every token of the answer is the likeliest one, so that greedy decoding begins with it.
    log_likelihood : float or None
        A needle: of the answer given the prompt, the mean over its `tokens`, in nats.
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
    tokens: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        given = (self.loss is not None, self.found is not None, self.log_likelihood is not None)
        if (self.kind, given) not in (("loss", (True, False, False)), ("needle", (False, True, True))):
            raise ValueError("a row holds a loss, or whether a needle was found and its log-likelihood")
        if (self.log_likelihood or 0) > 0:
            raise ValueError("a log-likelihood must be at most 0")

    @property
    def evaluation(self) -> Evaluation:
        """What it came of."""
        return Evaluation(**{name: getattr(self, name) for name in Evaluation.__dataclass_fields__})


def evaluate(model: Any, straw: Straw, wanted: Iterable[Evaluation], window: int) -> Iterator[Row]:
    """Measure one evaluation after the other; those of a point that follow each other share what they can.

    Parameters
    ----------
    model : transformers model
        Not patched.
    straw : Straw
        The text that windows are cut from, and needles hidden in.
    wanted : iterable of Evaluation
    window : int
        W₀, in tokens.
    """
    for point, group in itertools.groupby(wanted, key=lambda evaluation: evaluation.point):
        with patch(model, point.config(window)) as patched:
            patched.plan(point.length)
            reader = PromptReader(model)
            prompts: dict[tuple[int, int], list[Prompt]] = {}
            for evaluation in group:
                started = time.perf_counter()
                if evaluation.kind == "loss":
                    assert evaluation.start is not None
                    ids = text_window(straw, evaluation.start, evaluation.length)
                    last = min(LAST, evaluation.length // 2)
                    measured: dict[str, Any] = {"loss": last_loss(model, ids, last), "tokens": last}
                else:
                    assert evaluation.hidden is not None
                    assert evaluation.asked is not None
                    assert evaluation.seed is not None
                    drawn = evaluation.hidden, evaluation.seed
                    if drawn not in prompts:
                        prompts[drawn] = needle_prompts(straw, point.length, *drawn)
                    prompt = prompts[drawn][evaluation.asked]
                    for _ in reader.read(prompt.ids):
                        pass
                    answer = answer_tokens(straw.tokenizer, prompt)
                    likelihood, found = score_answer(reader, answer)
                    measured = {"found": found, "log_likelihood": likelihood, "tokens": len(answer)}
                yield Row(**asdict(evaluation), **measured, seconds=round(time.perf_counter() - started, 3))


def needle_prompts(straw: Straw, length: int, count: int, seed: int) -> list[Prompt]:
    """The prompts of so many needles that are hidden together; no key and no number is there twice."""
    rng = random.Random(f"{seed} {length} {count}")
    seen, drawn = straw.haystack.text, []
    for _ in range(count):
        drawn.append(TASKS["single"].draw(rng, unlike=seen))
        seen += drawn[-1].sentences[0]
    return hide_all(straw, drawn, length)


def text_window(straw: Straw, start: int, length: int) -> list[int]:
    """`length` tokens of the text, the last ones at ``start + length``, after what the tokenizer begins a text with."""
    before = straw.tokenizer.encode("")
    return [*before, *straw.ids[start + len(before) : start + length]]


@torch.inference_mode()
def last_loss(model: Any, ids: list[int], last: int) -> float:
    """Mean loss of the last tokens, in nats; logits are made for them alone."""
    tokens = torch.tensor([ids], device=model.device)
    cache = DynamicCache(config=model.config)
    for _ in read(model, cache, tokens[:, : -last - 1]):
        pass
    logits = model(tokens[:, -last - 1 : -1], past_key_values=cache, use_cache=True).logits[0]
    return torch.nn.functional.cross_entropy(logits.float(), tokens[0, -last:]).item()


def answer_tokens(tokenizer: Any, prompt: Prompt) -> list[int]:
    """The tokens that the expected answer continues the prompt with."""
    prefix = prompt.needles.prefix
    whole = encode(tokenizer, f"{prefix} {' and '.join(prompt.needles.expected)}")
    return whole[len(encode(tokenizer, prefix)) :]


@torch.inference_mode()
def score_answer(reader: PromptReader, answer: list[int]) -> tuple[float, bool]:
    """An answer's mean log-likelihood after the prompt that was read, and whether greedy decoding begins with it."""
    expected = torch.tensor(answer, device=reader.ids.device)
    forced = torch.cat([reader.last, expected[None, :-1]], dim=1)
    logits: Tensor = reader.model(forced, past_key_values=reader.cache, use_cache=True).logits[0].float()
    likelihood = -torch.nn.functional.cross_entropy(logits, expected)
    return likelihood.item(), bool((logits.argmax(-1) == expected).all())


def weights_hash(model: Any) -> str:
    """Sha256 over the weights as they lie in memory (names, types, shapes and bytes), its first 16 digits.

    The same weights in 4 and in 16 bits have different hashes, and so have two machines that compute in different
    types.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def weight_bits(model: Any) -> int:
    """The bits that a weight takes: 4 where it was quantised, or those of its type."""
    return 4 if getattr(model, "is_loaded_in_4bit", False) else torch.finfo(model.dtype).bits


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
