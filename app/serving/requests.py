"""What a visitor asks: checked, put into a prompt, and planned. No gradio and no model here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from app.limits import MAX_CHARACTERS, too_long, whole_number
from app.settings import ModelChoice
from lampe.errors import InputError
from lampe.methods import METHODS, LampeConfig, Method, MethodError, method_class

MAX_NEW_TOKENS = 512
MAX_TURNS = 40
MAX_QUESTION = 20_000
"""Characters of a question, and of each earlier turn."""
_ROOM = 1024
"""Plans are made for a multiple of this: most questions on one text, and some turns more, have the same plan."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Parameters
    ----------
    temperature : float
        From 0 to 2; 0 is greedy: always the likeliest token.
    top_p : float
        Above 0, at most 1: the share of probability that is drawn from.
    seed : int
        From 0; what is drawn with it is drawn again with it.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Chosen:
    """What a visitor runs.

    Parameters
    ----------
    model : ModelChoice
    config : LampeConfig, optional
        What LaMPE runs with; the model's own by default.
    """

    model: ModelChoice
    config: LampeConfig | None = None


class Variant(NamedTuple):
    """A method, and whether it reads only what fits the window of the text."""

    method: str
    cut: bool = False

    @property
    def title(self) -> str:
        """Its name for people."""
        return METHODS[self.method].title + (", cut text" if self.cut else "")

    @property
    def slug(self) -> str:
        """Its name in the page."""
        return self.method.replace("+", "-") + ("-cut" if self.cut else "")


@dataclass(frozen=True)
class Request:
    """A question about a text, and how it is to be answered.

    Parameters
    ----------
    text, question : str
    method : str
        A key of `lampe.METHODS`.
    max_new_tokens : int
        From 1 to `MAX_NEW_TOKENS`.
    earlier : tuple of (question, answer)
        The turns before this one.
    sampling : Sampling
    chosen : Chosen, optional
        What answers; the deployment's own by default.
    cut : bool
        Whether only the beginning of the text is read, as much as the window holds.
    look : bool
        Whether to find at once where the answer looked.
    """

    text: str
    question: str
    method: str = "lampe"
    max_new_tokens: int = 48
    earlier: tuple[tuple[str, str], ...] = ()
    sampling: Sampling = Sampling()
    chosen: Chosen | None = None
    cut: bool = False
    look: bool = False

    @property
    def variant(self) -> Variant:
        """What tells this request from others about the same text and question."""
        return Variant(self.method, self.cut)

    def check(self) -> None:
        """Refuse what can't be run, before anything is done.

        Raises
        ------
        InputError
        """
        if not (isinstance(self.text, str) and isinstance(self.question, str)):
            raise InputError("The text and the question must both be text.")
        try:
            method_class(self.method)
        except MethodError as error:
            raise InputError(str(error)) from None
        if not isinstance(self.cut, bool):
            raise InputError(f"Whether the text is cut is true or false, not {self.cut!r:.40}.")
        budget = whole_number("The answer's length", self.max_new_tokens)
        if not 1 <= budget <= MAX_NEW_TOKENS:
            raise InputError(f"The answer's length must be 1 to {MAX_NEW_TOKENS} tokens, not {budget}.")
        if len(self.earlier) > MAX_TURNS:
            raise InputError(
                f"This conversation has {len(self.earlier)} turns; at most {MAX_TURNS} are read. Ask anew."
            )
        self.check_length()
        sampling = self.sampling
        for name, value, least, most in (
            ("The temperature", sampling.temperature, 0, 2),
            ("Top-p", sampling.top_p, 0.01, 1),
            ("The seed", sampling.seed, 0, 2**32 - 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise InputError(f"{name} must be a number from {least:,} to {most:,}, not {value!r:.40}.")
        whole_number("The seed", sampling.seed)
        if not self.text.strip():
            raise InputError("There is no text to ask about: paste one, upload a file or take an example.")
        if not self.question.strip():
            raise InputError("There is no question: type what you want to know about the text.")

    def check_length(self) -> None:
        """Refuse what is too long to be counted.

        Raises
        ------
        InputError
        """
        if len(self.text) > MAX_CHARACTERS:
            raise InputError(too_long(self.text))
        for said in (self.question, *(part for turn in self.earlier for part in turn)):
            check_question(said)


def check_question(question: str) -> None:
    """Refuse a question that is no question by its length; an earlier one, or an answer, too.

    Raises
    ------
    InputError
    """
    if len(question) > MAX_QUESTION:
        raise InputError(
            f"The question has {len(question):,} characters; at most {MAX_QUESTION:,} are taken for one. Put the rest "
            "into the document."
        )


@dataclass(frozen=True)
class Prompt:
    """A request as tokens.

    Parameters
    ----------
    ids : list of int
        Those of a text beyond the limit aren't all there.
    length : int
        How many there are.
    document : (int, int)
        Where the text lies among them: first token, one past the last.
    left_out : int
        Tokens of the text that aren't in it.
    """

    ids: list[int]
    length: int
    document: tuple[int, int]
    left_out: int


def planned_length(prompt_tokens: int, max_new_tokens: int, method: Method) -> int:
    """The length that a prompt and its answer are mapped for, in tokens; Tail is measured from the prompt's own end.

    A function of the prompt's own length alone, so that an answer is the same whatever was asked before; rounded up, so
    that further questions on the text have the same plan and reuse what was read. A prompt within Head + Tail, of which
    nothing could be mapped, is planned for itself.
    """
    length = -(-(prompt_tokens + max_new_tokens) // _ROOM) * _ROOM
    planned = method.position_map(length)
    return prompt_tokens if planned.compresses and prompt_tokens <= planned.head + planned.tail else length
