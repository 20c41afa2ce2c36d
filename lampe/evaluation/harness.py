"""lm-evaluation-harness on a model that one of our methods is in: its tasks, its prompts and its scores.

What is ours is how a prompt is read: in chunks, planned for its length, never cut in silence, and with the expected
answer's likelihood beside the model's own words.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import datasets
import lm_eval
import numpy as np
import torch
from huggingface_hub import constants
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Kind
from transformers import StoppingCriteria, StoppingCriteriaList

from lampe.evaluation import leval
from lampe.evaluation.rows import EvaluationError
from lampe.inference.prefill import PromptReader
from lampe.inference.prompt import decode, encode
from lampe.methods import Method
from lampe.models.memory import Taken, cache_bytes, free_bytes
from lampe.patching.patch import Patched, applied

VERSION = version("lm-eval")

WITHOUT_DATA = ("niah_single_1", "niah_multikey_2", "niah_multikey_3", "ruler_vt", "ruler_cwe", "ruler_fwe")
"""Those of RULER's tasks that make all of their text themselves; the others read the Hub."""

_MADE = {*WITHOUT_DATA, "niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multivalue", "niah_multiquery"} | {
    "ruler_qa_squad", "ruler_qa_hotpot",
}  # fmt: skip
"""RULER's: their prompts are made to a length, and all that they expect must be in the answer. Elsewhere a text is as
it is, and what is expected are alternatives."""

_SEED = 1234  # the harness's own, of the examples in a prompt
_AROUND = 200  # characters of an excerpt before and after the place that it is about
_NO_LIMIT = 1 << 30  # tokens: the harness would cut what is longer, on the left and in silence

logging.getLogger("lm_eval").setLevel(logging.ERROR)


def leaves(names: Sequence[str]) -> list[str]:
    """The tasks that names stand for: groups and tags are what is in them.

    Raises
    ------
    EvaluationError
        If the harness knows no task of a name.
    """
    index = _manager([name for name in names if name not in {*leval.TASKS, "leval"}]).task_index

    def under(name: str) -> Iterator[str]:
        entry = index.get(name)
        if name == "leval":
            yield from leval.TASKS
        elif name in leval.TASKS:
            yield name
        elif entry is None:
            near = [known for known in index if name.lower()[:5] in known.lower()][:8]
            hint = f" Is it one of {', '.join(near)}?" if near else ""
            raise EvaluationError(f"lm-evaluation-harness {VERSION} has no task {name!r:.60}.{hint}")
        elif entry.kind is Kind.GROUP:
            inside = (entry.cfg or {}).get("task") or []
            for part in [inside] if isinstance(inside, str) else inside:
                yield from under(part if isinstance(part, str) else part.get("task") or part["group"])
        elif entry.kind is Kind.TAG:
            for part in sorted(entry.tags):
                yield from under(part)
        else:
            yield name

    return list(dict.fromkeys(leaf for name in names for leaf in under(name)))


def _manager(names: Sequence[str], metadata: dict[str, Any] | None = None) -> TaskManager:
    """The harness's tasks, or RULER's alone where no other is named: to know them all takes it half a minute."""
    if not {*names} <= {*_MADE, "ruler"}:
        return _every_task()
    folder = Path(lm_eval.tasks.__file__).parent / "ruler"
    return TaskManager(metadata=metadata, include_defaults=False, include_path=folder)


@cache
def _every_task() -> TaskManager:
    return TaskManager()


def made_to_length(task: str) -> bool:
    """Whether a task's prompts are made to a length; otherwise they are as long as its data."""
    return task in _MADE


@contextmanager
def plain_tokenizer(tokenizer: Any) -> Iterator[str]:
    """A folder with the tokenizer, and no word of any code: the harness would load it with `trust_remote_code`."""
    folder = Path(tempfile.mkdtemp(prefix="lampe-tokenizer-"))
    try:
        tokenizer.save_pretrained(folder)
        for file in folder.glob("*.json"):
            content = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(content, dict) and content.pop("auto_map", None) is not None:
                file.write_text(json.dumps(content), encoding="utf-8")
        yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prepared(
    name: str, length: int, count: int, tokenizer: str, kept: Path, leval_texts: Path | None = None
) -> ConfigurableTask:
    """A task with its samples.

    The harness makes 500 for each length, which takes minutes: the first ones are kept in a file, and taken from
    there.

    Parameters
    ----------
    name : str
        Of one task.
    length : int
        Tokens; 0 for a task whose texts are as they are.
    count : int
        Samples that are wanted.
    tokenizer : str
        A folder.
    kept : Path
        A folder for the samples.
    leval_texts : Path, optional
        The folder of L-Eval's closed tasks.

    Raises
    ------
    EvaluationError
        If its data can't be had.
    """
    if name in leval.TASKS:
        with _given(leval.docs_of(name, leval_texts)):
            task = ConfigurableTask(config=leval.config_of(name))
        task.set_config(key="num_fewshot", value=0)
        return task
    own = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(Path(tokenizer).glob("tokenizer.*"))))
    file = kept / f"{name}-{length}-{own.hexdigest()[:8]}-{VERSION}.json"
    docs = json.loads(file.read_text(encoding="utf-8")) if length and file.exists() else []
    random.seed(0)
    np.random.seed(0)
    manager = _manager([name], {"tokenizer": tokenizer, "max_seq_lengths": [length]} if length else None)
    try:
        # What the tasks' scripts say of their progress isn't the run's output.
        with redirect_stdout(sys.stderr), _offline(), _given(docs) if docs and len(docs) >= count else nullcontext():
            task = manager.load([name])["tasks"][name]
    except Exception as error:  # whatever fetching raises, and each of the tasks' own scripts
        raise EvaluationError(
            f"The data of {name} can't be had ({type(error).__name__}: {error!s:.200}). Where no Hub can be reached, "
            f"only {', '.join(WITHOUT_DATA)} run."
        ) from error
    if task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=_SEED)
    if length and len(docs) < count:
        first = [dict(doc) for doc, _ in zip(task.eval_docs, range(count), strict=False)]
        kept.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(first), encoding="utf-8")
    return task


@contextmanager
def _offline() -> Iterator[None]:
    """No sentence splitter is looked for in the network where none is to be used; the six tasks don't need it."""
    with mock.patch("nltk.download", return_value=False) if constants.HF_HUB_OFFLINE else nullcontext():
        yield


@contextmanager
def _given(docs: list[dict[str, Any]]) -> Iterator[None]:
    """Samples that a task is to have instead of those that it would make."""

    def download(task: ConfigurableTask, *_: Any, **__: Any) -> None:
        task.dataset = {task.config.test_split or task.config.validation_split: datasets.Dataset.from_list(docs)}

    with mock.patch.object(ConfigurableTask, "download", download):
        yield


@dataclass(frozen=True)
class Reading:
    """How a prompt was read, and what came of it; the fields are those of `lampe.evaluation.Row`."""

    prompt: str
    tokens: int
    left_out: int
    excerpt: str = ""
    answer: str = ""
    log_likelihood: float | None = None


class Adapter(HFLM):
    """The harness's language model: one prompt at a time, under one method.

    Parameters
    ----------
    model : transformers model
        Not patched.
    tokenizer : transformers tokenizer
    cut : int
        Prompts of more tokens lose their middle; 0 cuts none.
    """

    def __init__(self, model: Any, tokenizer: Any, cut: int = 0) -> None:
        super().__init__(pretrained=model, tokenizer=tokenizer, max_length=_NO_LIMIT, batch_size=1)
        self.cut = cut
        self.taken = Taken(model.device)
        self.method: Method | None = None
        self.reading: Reading | None = None
        self._expected = ""
        self._patched: Patched | None = None
        self._reader: PromptReader | None = None

    @contextmanager
    def under(self, method: Method) -> Iterator[Adapter]:
        """Read with a method, while this lasts."""
        with applied(self.model, method) as patched:
            self.method, self._patched, self._reader = method, patched, PromptReader(self.model)
            try:
                yield self
            finally:
                self._patched = self._reader = None

    def score(self, task: ConfigurableTask, number: int, chat: bool) -> tuple[Reading, list[str], str, float]:
        """Have the harness ask one sample: how it was read, what was expected, the score's name, and the score."""
        name = task.config.task
        doc = task.eval_docs[number]
        expected = _expected(task, doc)
        self._expected = ", ".join(expected) if made_to_length(name) else expected[0]
        self.reading = None
        # `simple_evaluate` is this, and a description of the machine that takes half a minute each time.
        results = lm_eval.evaluate(
            lm=self,
            task_dict={"tasks": {name: task}},
            samples={name: [number]},
            bootstrap_iters=0,
            apply_chat_template=chat and bool(self.tokenizer.chat_template),
            log_samples=True,
        )
        (sample,) = results["samples"][name]
        assert self.reading is not None
        metric = next((key for key in sample["metrics"] if _is_number(sample[key])), None)
        if metric is None:
            raise EvaluationError(f"{name} gives no number for a single sample, so methods can't be paired on it.")
        return self.reading, expected, metric, float(sample[metric])

    # What the harness calls

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        return [self._answered(*request.args) for request in requests]

    def _loglikelihood_tokens(self, requests: list[Any], *_: Any, **__: Any) -> list[tuple[float, bool]]:
        return [self._likelihood(*request) for request in requests]

    # Ours

    def _answered(self, context: str, asked: dict[str, Any]) -> str:
        """The model's words after a prompt."""
        settings = normalize_gen_kwargs(asked, self.max_gen_toks)
        if settings["do_sample"]:
            raise EvaluationError("This task draws its answers; here they are greedy, so that methods can be paired.")
        eos = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        until = handle_stop_sequences(settings["until"], eos=eos)
        most = settings["max_gen_toks"]
        ids = self._read(context, self.tok_encode(context), most)
        reader, made = self._reader, _Stop(self.tokenizer, until, len(ids))
        assert reader is not None
        with torch.inference_mode():
            out = reader.model.generate(
                reader.ids,
                attention_mask=torch.ones_like(reader.ids),
                past_key_values=reader.cache,
                max_new_tokens=most,
                do_sample=False,
                stopping_criteria=StoppingCriteriaList([made]),
            )
        words = decode(self.tokenizer, out[0, len(ids) :].tolist(), special=False)
        answer = postprocess_generated_text(words, until, None)
        likelihood = reader.score(encode(self.tokenizer, f" {self._expected}"))[0] if self._expected else None
        assert self.reading is not None
        self.reading = replace(self.reading, answer=answer, log_likelihood=likelihood)
        return answer

    def _likelihood(self, words: tuple[str, str], context: list[int], rest: list[int]) -> tuple[float, bool]:
        """The log-likelihood of a continuation, and whether it is the likeliest one: for tasks of several choices."""
        self._read(words[0], context, len(rest))
        assert self._reader is not None
        mean, greedy = self._reader.score(rest)
        return mean * len(rest), greedy

    def _read(self, context: str, ids: list[int], more: int) -> list[int]:
        """Read a prompt under the method, cut as asked; refuses what memory can't hold."""
        assert self.method is not None
        assert self._reader is not None
        left_out = max(0, len(ids) - self.cut) if self.cut else 0
        if left_out:
            ids = ids[: self.cut // 2] + ids[len(ids) - (self.cut - self.cut // 2) :]
        needed = 3 * cache_bytes(self.model.config, len(ids) + more, torch.finfo(self.model.dtype).bits // 8)
        free = free_bytes(self.model.device)
        if needed > free:
            raise EvaluationError(
                f"This prompt's {len(ids):,} tokens take about {needed / 1e9:.1f} GB of memory, and "
                f"{free / 1e9:.1f} GB are free: cut prompts with --cut, or leave this length out."
            )
        digest = hashlib.sha256(context.encode()).hexdigest()[:16]
        self.reading = Reading(digest, len(ids), left_out, self._excerpt(context))
        position_map = self.method.position_map(len(ids))
        if self._patched:
            self._patched.plan(len(ids))
        for _ in self._reader.read(ids, position_map if self._patched else None):
            pass
        return ids

    def _excerpt(self, context: str) -> str:
        """A prompt around what is expected."""
        place = context.find(self._expected.split(", ")[0]) if self._expected else -1
        return context[max(0, place - _AROUND) : place + _AROUND] if place >= 0 else context[-2 * _AROUND :]


class _Stop(StoppingCriteria):
    """Ends an answer at one of several words."""

    def __init__(self, tokenizer: Any, until: Sequence[str], start: int) -> None:
        self._tokenizer, self._until, self._start = tokenizer, [word for word in until if word], start

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        words = self._tokenizer.decode(input_ids[0, self._start :], skip_special_tokens=False)
        ended = any(word in words for word in self._until)
        return torch.full((len(input_ids),), ended, device=input_ids.device)


def _expected(task: ConfigurableTask, doc: dict[str, Any]) -> list[str]:
    target = task.doc_to_target(doc)
    if isinstance(target, int):  # of several choices
        target = task.doc_to_choice(doc)[target]
    return [str(one) for one in (target if isinstance(target, list) and target else [target])]


def _is_number(value: Any) -> bool:
    """Whether it is this sample's score: RULER gives −1 for the lengths that aren't its own."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and value != -1


def timed(adapter: Adapter, task: ConfigurableTask, number: int, chat: bool) -> dict[str, Any]:
    """A sample's part of a row: how it was read and its score, or why there is none."""
    adapter.taken.most()  # what making the task took isn't the sample's
    started = time.perf_counter()
    found: dict[str, Any]
    try:
        reading, expected, metric, score = adapter.score(task, number, chat)
        found = {**asdict(reading), "expected": tuple(expected), "metric": metric, "score": score}
    except EvaluationError as error:
        found = {"error": str(error)}
    except OSError:  # a full disk or no network isn't the sample's fault: the same command asks it again
        raise
    except Exception as error:  # whatever a task's own script raises over one answer
        found = {"error": f"{type(error).__name__}: {error!s:.300}"}
    return {**found, "seconds": round(time.perf_counter() - started, 3), "megabytes": adapter.taken.most()}
