"""The page under load: twenty visitors at once, sixteen of them with a secret of their own, and one who attacks.

    python -m benchmarks.load [--quick] [--minutes 60]

Starts `app.py`, and calls it as programs would, each from an address of its own. Rounds take turns: a quiet one, in
which sixteen visitors ask, two of them about a file and one after three page loads; and one in which four more are
there: one stops a long question, two leave in the middle of one, and one does two things of `benchmarks.attacks`, so
that in twelve rounds all have had their turn; one of the sixteen sends nonsense first. Prints a line for each round:
who got their own secret, who somebody else's, who nothing, whose call was lost, how long they waited, and the server's
memory. At the end: how much longer they waited in the attacked rounds, and how the memory grew. The rows are kept in
load.jsonl beside this file.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from gradio_client import Client, handle_file

from app.ask.examples import EXAMPLES
from benchmarks.attacks import ATTACKS, attack
from benchmarks.measure import Rows, arguments

QUESTION = "What is the secret number of the boat?"
NOTICED = 40  # seconds after which the server has noticed that visitors left
NONSENSE: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("/ask", ("", "", "no such method")), ("/ask", ("A text.", "Why?", "lampe", -5)), ("/cut", ([], "?")),
    ("/needle", (-1,)), ("/needle_grid", ([], [], "many")), ("/position_map", (10**12,)),
)  # fmt: skip


@dataclass(frozen=True)
class Came:
    """What came of a visit: "own", "others", "none" or "lost", and the seconds that its question took."""

    kind: str
    seconds: float


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="(default: 60)")
    given = parser.parse_args()
    asking = 2 if given.quick else 16
    rows = Rows(None if given.quick else "load", fresh=True)  # half a run says nothing about the memory at its end
    with _server() as (url, server):
        _round(url, -1, 1, attacked=False)  # the model is loaded
        until = time.monotonic() + 60 * given.minutes
        number = 0
        while number < 2 or (time.monotonic() < until and not given.quick):
            row = _round(url, number, asking, attacked=number % 2 == 1)
            time.sleep(1 if given.quick else NOTICED)
            rows.add(**row, megabytes=round(_memory(server.pid) / 1e6))
            number += 1
        print(told(rows.rows))


def told(rows: list[dict[str, Any]]) -> str:
    """What the rounds come to."""
    quiet, attacked = ([row for row in rows if bool(row["attack"]) == one] for one in (False, True))
    own, others, none, lost = (sum(row[kind] for row in rows) for kind in ("own", "others", "none", "lost"))
    waited = [median(row["median"] for row in some) for some in (quiet, attacked)]
    longest = [median(row["longest"] for row in some) for some in (quiet, attacked)]
    first, last = rows[1]["megabytes"], rows[-1]["megabytes"]
    return (
        f"{own + others + none + lost} questions: {own} got their own secret, {others} somebody else's, {none} none, "
        f"{lost} were lost. In the middle a question took {waited[0]:.0f} s in a quiet round and {waited[1]:.0f} s in "
        f"an attacked one ({waited[1] / waited[0]:.2f} times), the longest {longest[0]:.0f} and {longest[1]:.0f} s "
        f"({longest[1] / longest[0]:.2f} times). The server took {first:,} MB after two rounds and {last:,} MB after "
        f"{len(rows)} ({last / first - 1:+.1%})."
    )


def _round(url: str, number: int, asking: int, attacked: bool) -> dict[str, Any]:
    """Visitors who come at once; in an attacked round, four more who do harm."""
    draw = random.Random(number)
    secrets = [str(draw.randrange(10**6, 10**7)) for _ in range(asking)]
    harms = [(number - 1 + one) % len(ATTACKS) for one in range(2)] if attacked else []
    loads: list[float] = []  # seconds until the page was there, for visitors who loaded it once

    def visit(place: int) -> Came:
        secret = secrets[place]
        # Some 600 tokens that nobody else has: another part of the text for each visitor and round.
        start = 997 * (number * asking + place) % 40_000
        text = f"{EXAMPLES[1].text[start : start + 2400]}\n\nThe secret number of the boat is {secret}."
        headers, arrived = _address(number, place), time.perf_counter()
        try:
            for _ in range(3 if place == 0 else 0):  # who reloads the page
                _client(url, headers).close()
            started = time.perf_counter()
            with closing(_client(url, headers)) as client:
                loads.append(time.perf_counter() - started)
                if place == 1 and attacked:
                    _nonsense(client)
                if place in (2, 3):
                    text = _uploaded(client, text)
                answer, _ = client.predict(text, QUESTION, "lampe", 24, api_name="/ask")
        except Exception as error:  # a lost request is a result
            print(type(error).__name__, error, flush=True)
            return Came("lost", time.perf_counter() - arrived)
        told = {one for one in secrets if one in answer}
        kind = "others" if told - {secret} else "own" if told else "none"
        return Came(kind, time.perf_counter() - started)

    def harm(place: int) -> None:
        headers = _address(number, asking + place)
        if place == 0:
            for one in harms:
                attack(url, headers, one)
            return
        client = _client(url, headers)
        job = client.submit(f"{number} {EXAMPLES[1].text}", QUESTION, api_name="/ask")
        time.sleep(5)
        if place == 1:
            job.cancel()  # who stops; the others leave
        client.close()

    with ThreadPoolExecutor(asking + 4) as pool:
        done = [pool.submit(harm, place) for place in range(4 * attacked)]
        time.sleep(2 * attacked)
        came = list(pool.map(visit, range(asking)))
        for one in done:
            with suppress(Exception):  # who does harm may be refused
                one.result()
    counts = {kind: sum(one.kind == kind for one in came) for kind in ("own", "others", "none", "lost")}
    waits = [one.seconds for one in came]
    named = ", ".join(ATTACKS[one].__name__ for one in harms)
    return {
        "round": number, "attack": named, "asking": asking, **counts,
        "median": round(median(waits), 1), "longest": round(max(waits), 1),
        "slowest_page": round(max(loads), 1) if loads else None,
    }  # fmt: skip


def _client(url: str, headers: dict[str, str]) -> Client:
    """A caller of the page. Twenty begin at once, each with a page load; browsers wait longer than 5 s."""
    return Client(url, verbose=False, headers=headers, httpx_kwargs={"timeout": 60})


def _address(number: int, place: int) -> dict[str, str]:
    """Each visitor calls from another address, as the page's own machine says; it is believed as a proxy is."""
    return {"X-Forwarded-For": f"10.{number % 250 + 1}.{place}.1"}


def _nonsense(client: Client) -> None:
    for endpoint, arguments_ in NONSENSE:
        try:
            client.predict(*arguments_, api_name=endpoint)
        except Exception as error:
            if "Traceback" in str(error):
                raise
        else:
            raise AssertionError(f"{endpoint} took nonsense: {arguments_}")


def _uploaded(client: Client, text: str) -> str:
    """The text as the page reads it from a file."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        document = client.predict(handle_file(file.name), api_name="/document")
    return "\n\n".join(part["text"] for part in document["parts"])


@contextmanager
def _server() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`app.py` on a free port, for as long as the context lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1"}
    folder = Path(__file__).parent.parent
    server = subprocess.Popen([sys.executable, "app.py"], cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, server)
        yield url, server
    finally:
        server.terminate()
        server.wait(30)


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    """Until the page answers."""
    for _ in range(240):
        if server.poll() is not None:
            sys.exit(f"app.py ended with status {server.returncode}.")
        try:
            Client(url, verbose=False).close()
            return
        except Exception:  # not yet
            time.sleep(0.5)
    sys.exit("app.py doesn't answer after two minutes.")


def _memory(process: int) -> int:
    """Bytes of a process and its children in the memory."""
    parent = psutil.Process(process)
    return sum(one.memory_info().rss for one in (parent, *parent.children(recursive=True)))


if __name__ == "__main__":
    main()
