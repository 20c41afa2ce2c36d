"""Twenty questions with known answers over three long texts that everybody who runs this has: what each method finds.

    python -m benchmarks.questions [--quick] [--fresh]

The texts are IDLE's help (with Python) and the descriptions of tqdm and orjson (with their packages), each longer than
the default model's window. They are asked as the page asks: LaMPE, plain RoPE on the same text, and plain RoPE on what
fits its window. As a measure of the model itself, each question is also asked about the 1,400 characters around its
answer alone; about half of the questions were chosen because the default model answers them so. A row for each answer
is kept in questions.jsonl beside this file; the command goes on where it stopped, and prints the table. A quarter of an
hour on two cores.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import asdict, dataclass
from importlib.metadata import distribution
from pathlib import Path

from app.documents.reading import read_document
from app.serving.requests import Request, Variant
from app.serving.start import start
from app.serving.visitors import Visitor
from app.settings import Settings
from benchmarks.measure import Rows, arguments

ANSWER_TOKENS = 40
AROUND = 700  # characters before and after what answers a question, where it is asked about them alone
ALONE = "Plain RoPE, the answer's passage alone"
_ASKED = (Variant("lampe"), Variant("rope"), Variant("rope", cut=True))
WAYS: dict[str, Variant] = {way.title: way for way in _ASKED} | {ALONE: Variant("rope")}
"""The methods, and the measure of the model."""


@dataclass(frozen=True)
class Question:
    """A question on a text.

    Parameters
    ----------
    text : str
        IDLE, or a package's name.
    asked : str
    said : str
        What the text says; its words, with any white space between them.
    accepted : str
        A regular expression; an answer in which it is found is right.
    """

    text: str
    asked: str
    said: str
    accepted: str

    def place(self, text: str) -> tuple[int, int]:
        """Where the text says it.

        Raises
        ------
        SystemExit
            If it doesn't: another version of the text.
        """
        found = re.search(r"\s+".join(re.escape(word) for word in self.said.split()), text)
        if found is None:
            raise SystemExit(f"This version of {self.text} doesn't say {self.said!r} any more.")
        return found.span()


QUESTIONS = (
    Question(
        "IDLE", "What are the two main window types of IDLE?", "IDLE has two main window types", r"Shell.* Editor"
    ),
    Question(
        "IDLE",
        "To how many columns are the lines of a paragraph formatted by default?",
        "less than N columns, where N defaults to 72",
        r"\b72\b",
    ),
    Question(
        "IDLE",
        "What is the initial size of the window, in lines by chars?",
        "The initial size defaults to 40 lines",
        r"\b40 lines",
    ),
    Question("IDLE", "In which directory are breakpoints for a file saved?", ".idlerc directory", r"\.idlerc"),
    Question(
        "IDLE",
        "To what does the maximum number of lines of the code context pane default?",
        "Configure IDLE dialog (which defaults to 15)",
        r"\b15\b",
    ),
    Question(
        "IDLE",
        "What is a common cause of failure of IDLE's connection?",
        "A common cause of failure is a user-written file",
        r"user-written",
    ),
    Question(
        "IDLE",
        "Which command line switch makes IDLE run in a single process?",
        "IDLE is started with the -n command line switch",
        r"(?<!\S)-n\b",
    ),
    Question(
        "tqdm", "From which Arabic word does tqdm derive?", "derives from the Arabic word *taqaddum*", r"(?i)taqaddum"
    ),
    Question(
        "tqdm",
        "What is tqdm an abbreviation for in Spanish?",
        "is an abbreviation for",
        r"I love you|te quiero demasiado",
    ),
    Question("tqdm", "What is the overhead of tqdm per iteration?", "about 60ns per iteration", r"\b60 ?(ns|nano)"),
    Question(
        "tqdm",
        "Via which submodule is IPython/Jupyter supported?",
        "supported via the ``tqdm.notebook`` submodule",
        r"tqdm\.notebook|``notebook``",
    ),
    Question(
        "tqdm",
        "Which warning will autonotebook issue if run in a notebook?",
        "this will issue a ``TqdmExperimentalWarning``",
        r"TqdmExperimentalWarning",
    ),
    Question("tqdm", "Who is the primary maintainer of tqdm?", "__ primary maintainer", r"Casper|casperdcl"),
    Question(
        "orjson", "Up to how many times may an object be handled by default?", "`default` up to 254 times", r"\b254\b"
    ),
    Question(
        "orjson",
        "What is held for the duration of the call?",
        "The global interpreter lock (GIL) is held for the duration of the call",
        r"GIL|interpreter lock",
    ),
    Question(
        "orjson",
        "Which lists of fixtures is orjson tested with?",
        "There are tests against fixtures in the",
        r"JSONTestSuite|nativejson",
    ),
    Question(
        "orjson",
        "How many JSON fixtures from the JSONTestSuite and nativejson-benchmark tests are combined?",
        "a combined 342 JSON fixtures",
        r"\b342\b",
    ),
    Question(
        "orjson",
        "Which Linux container was the performance measured in?",
        "was measured using Python 3.11.10 in a Fedora 42 container",
        r"Fedora",
    ),
    Question(
        "orjson",
        "Which script reproduces the measure of dataclass serialization?",
        "using the `pydataclass` script",
        r"\bpydataclass\b",
    ),
    Question("orjson", "Who wrote orjson?", "orjson was written by ijl", r"\bijl\b"),
)


def text_of(name: str) -> str:
    """A text, as the page would open it."""
    if name == "IDLE":
        found = importlib.util.find_spec("idlelib")
        if found is None or found.origin is None:
            raise SystemExit("This Python comes without IDLE, whose help is one of the texts: take one that has it.")
        return read_document(str(Path(found.origin).with_name("help.html"))).text
    described = distribution(name).read_text("METADATA") or ""
    return described.split("\n\n", 1)[1]  # after the headers


def passage(question: Question, text: str) -> str:
    """The lines around a question's answer."""
    first, stop = question.place(text)
    return text[max(0, first - AROUND) : stop + AROUND]


def main() -> None:
    given = arguments(__doc__).parse_args()
    service = start(Settings(None, 4, 65_536))
    rows = Rows(None if given.quick else "questions", given.fresh)
    names = list(dict.fromkeys(question.text for question in QUESTIONS))
    texts = {name: text_of(name) for name in (names[:1] if given.quick else names)}
    for name, text in texts.items():
        questions = [one for one in QUESTIONS if one.text == name]
        alone = {one: passage(one, text) for one in questions}
        for way, asked in WAYS.items():
            for question in questions[: 1 if given.quick else None]:
                if rows.has(asked=question.asked, way=way):
                    continue
                read = alone[question] if way == ALONE else text[:3000] if given.quick else text
                request = Request(read, question.asked, asked.method, ANSWER_TOKENS, cut=asked.cut)
                *_, last = service.ask(request, visitor=Visitor("benchmark"))  # a text is read once for its questions
                assert last.report
                rows.add(
                    **asdict(question),
                    way=way,
                    answer=last.answer,
                    right=bool(re.search(question.accepted, last.answer)),
                    tokens=last.report.input_length,
                    left_out=last.report.left_out,
                    mapping_length=last.report.mapping_length,
                )
    if not given.quick:
        print(table(rows.rows))


def table(rows: list[dict]) -> str:
    """Right answers of each way for each text, in Markdown."""
    names = list(dict.fromkeys(row["text"] for row in rows))
    longest = {name: max(row["tokens"] for row in rows if row["text"] == name) for name in names}
    lines = [
        "| right answers | " + " | ".join(f"{name}, {longest[name]:,} tokens" for name in names) + " | together |",
        "|---" * (len(names) + 2) + "|",
    ]
    for way in WAYS:
        of = [[row["right"] for row in rows if (row["text"], row["way"]) == (name, way)] for name in names]
        cells = [f"{sum(right)} of {len(right)}" for right in [*of, [one for right in of for one in right]]]
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
