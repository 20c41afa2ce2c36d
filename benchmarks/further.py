"""What a further question on a document costs, against the first: tokens that are read, and seconds until its answer.

    python -m benchmarks.further [--quick] [--fresh]

Three questions on the page's 12,000-token example, asked as one visitor asks them, with the default model in 4 bits.
Tail belongs to each question's own end, so the document's last tokens are read again, in whole chunks; all else is
kept. A row for each question is kept in further.jsonl beside this file. Five minutes on two cores.
"""

from __future__ import annotations

from app.ask.examples import EXAMPLES
from app.serving.requests import Request
from app.serving.start import start
from app.serving.visitors import Visitor
from app.settings import Settings
from benchmarks.measure import Rows, arguments

QUESTIONS = (
    EXAMPLES[1].question,
    "Who keeps the light on the island, and what is kept beside it?",
    "What is it about?",
)


def main() -> None:
    given = arguments(__doc__).parse_args()
    rows = Rows(None if given.quick else "further", given.fresh)
    service, text = start(Settings(None, 4, 65_536)), EXAMPLES[1].text
    if given.quick:
        text = text[:9000]
    if all(rows.has(question=question) for question in QUESTIONS):
        return
    for question in QUESTIONS:
        *_, last = service.ask(Request(text, question, "lampe", 24), visitor=Visitor("benchmark"))
        report = last.report
        assert report is not None
        keys = {row["name"]: row["keys"] for row in report.regions}
        rows.add(
            question=question,
            tokens=report.input_length,
            planned=report.planned_length,
            read=report.input_length - report.kept,
            seconds=round(report.prefill_seconds, 2),
            tail=keys.get("Tail", 0),
            answer=last.answer,
        )


if __name__ == "__main__":
    main()
