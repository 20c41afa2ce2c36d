"""A document in the page, and what was asked and answered about it. No gradio here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.documents.document import Document, Part, text_of
from app.serving.document_cache import LAMPE
from app.serving.evidence import Evidence
from app.serving.reports import Attention, RunReport, Update
from app.serving.requests import Chosen, Variant
from lampe.errors import InputError
from lampe.methods import method_class

MOST_BESIDE = 4
CUT = Variant("rope", cut=True)

Exchanges = tuple[tuple[str, str], ...]
"""Questions, each with its answer."""


@dataclass(frozen=True)
class Opened:
    """A document as it was opened or cut.

    Parameters
    ----------
    parts : tuple of Part
    whole : tuple of Part
        Those it had before it was cut; none where it wasn't.
    """

    parts: tuple[Part, ...]
    whole: tuple[Part, ...] = ()

    @classmethod
    def of(cls, document: Document) -> Opened:
        """A file's parts as they are put into the text box: a PDF's pages begin with their numbers.

        Chapters begin with their headings anyway.
        """
        if document.kind != "pdf":
            return cls(document.parts)
        return cls(tuple(Part(part.label, f"[{part.label}]\n{part.text}") for part in document.parts))

    @property
    def text(self) -> str:
        """As it stands in the text box."""
        return text_of(self.parts)


@dataclass(frozen=True)
class Conversation:
    """What was said about one text.

    Parameters
    ----------
    text : str
    chosen : Chosen
        What answered.
    exchanges : dict of Variant to tuple of (question, answer)
        As each had them; one that was left out of a turn, or stopped in it, has fewer.
    """

    text: str
    chosen: Chosen
    exchanges: Mapping[Variant, Exchanges]


@dataclass
class Turn:
    """One question as it is answered: by LaMPE, then by what stands beside it.

    Parameters
    ----------
    question : str
    variants : sequence of Variant
        Who is asked.
    behind : sequence of Variant
        Who isn't, because they haven't answered every question before this one.
    earlier : mapping of Variant to exchanges
    """

    question: str
    variants: Sequence[Variant]
    behind: Sequence[Variant] = ()
    earlier: Mapping[Variant, Exchanges] = field(default_factory=dict)
    answers: dict[Variant, str] = field(default_factory=dict)
    notes: dict[Variant, str] = field(default_factory=dict)
    reports: list[RunReport] = field(default_factory=list)
    attention: Attention | None = None  # of LaMPE's answer
    evidence: Evidence | None = None  # the same, if it was asked for

    @classmethod
    def new(cls, question: str, beside: Sequence[str], cut_too: bool) -> Turn:
        """The first question on a text: to LaMPE, to methods by their keys, and to plain RoPE on what fits the window.

        Raises
        ------
        InputError, lampe.MethodError
            If these are too many, or one isn't there.
        """
        variants = [LAMPE, *(Variant(method_class(key).key) for key in beside), *[CUT] * cut_too]
        if len(variants) > len(set(variants)) or len(beside) > MOST_BESIDE:
            raise InputError(f"Choose up to {MOST_BESIDE} different methods beside LaMPE.")
        return cls(question, variants)

    def after(self, conversation: Conversation | None, text: str, chosen: Chosen) -> Turn:
        """The same question as a follow-up.

        Raises
        ------
        InputError
            If the conversation was about something else.
        """
        if not conversation or (conversation.text, conversation.chosen) != (text, chosen):
            raise InputError("The conversation was about another text or with another model: ask anew.")
        exchanges = conversation.exchanges
        turns = {variant: len(exchanges.get(variant, ())) for variant in self.variants}
        ready = [variant for variant in self.variants if turns[variant] == turns[LAMPE]]
        behind = [variant for variant in self.variants if variant not in ready]
        return Turn(self.question, ready, behind, exchanges)

    def take(self, variant: Variant, update: Update) -> None:
        """What came of it so far."""
        self.answers[variant] = update.answer
        self.notes[variant] = update.note or self.notes.get(variant, "")
        if update.report:
            self.reports.append(update.report)
            if variant == LAMPE:
                self.attention, self.evidence = update.attention or self.attention, update.evidence

    @property
    def exchanges(self) -> dict[Variant, Exchanges]:
        """All questions with their answers, but for answers that were stopped."""
        answered = (report.variant for report in self.reports if not report.stopped)
        asked = {v: (*self.earlier.get(v, ()), (self.question, self.answers[v])) for v in answered}
        return {**self.earlier, **asked}
