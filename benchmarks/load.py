"""The page under load: ten visitors at once, again and again, each with a document and a secret of their own.

    python -m benchmarks.load [--quick] [--fresh]

Starts `app.py`, and calls /ask as a program would. Prints a line for each round of ten: the longest wait, how many got
their own secret, how many somebody else's, how many nothing, and the server's memory; then its memory after the first
ten and at the end of 200 asks. The rows are kept in load.jsonl beside this file. About ten minutes on two cores.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from gradio_client import Client

from app.ask.examples import EXAMPLES
from benchmarks.measure import Rows, arguments

VISITORS, ROUNDS = 10, 20
QUESTION = "What is the secret number of the boat?"
NOTICED = 20  # seconds after which the server has noticed that visitors left


def main() -> None:
    given = arguments(__doc__).parse_args()
    visitors, rounds = (2, 2) if given.quick else (VISITORS, ROUNDS)
    rows = Rows(None if given.quick else "load", fresh=True)  # half a run says nothing about the memory at its end
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1"}
    folder = Path(__file__).parent.parent
    server = subprocess.Popen([sys.executable, "app.py"], cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, server)
        for number in range(rounds):
            row = _round(url, number, visitors)
            if number in (0, rounds - 1) and not given.quick:
                time.sleep(NOTICED)
            rows.add(**row, megabytes=round(_memory(server.pid) / 1e6))
        first, last = rows.rows[0]["megabytes"], rows.rows[-1]["megabytes"]
        own, others, lost = (sum(row[kind] for row in rows.rows) for kind in ("own", "others", "lost"))
        print(
            f"{rounds * visitors} asks: {first:,} MB after the first {visitors}, {last:,} MB at the end "
            f"({last / first - 1:+.1%}). {own} got their own secret, {others} somebody else's, {lost} were lost."
        )
    finally:
        server.terminate()
        server.wait(30)


def _round(url: str, number: int, visitors: int) -> dict[str, Any]:
    """Visitors who come, ask at once and leave."""
    draw = random.Random(number)
    secrets = [str(draw.randrange(10**6, 10**7)) for _ in range(visitors)]

    def visit(place: int) -> tuple[str, float]:
        secret = secrets[place]
        # Some 600 tokens that nobody else has: another part of the text for each visitor and round.
        start = 997 * (number * visitors + place) % 40_000
        text = f"{EXAMPLES[1].text[start : start + 2400]}\n\nThe secret number of the boat is {secret}."
        client = Client(url, verbose=False)
        started = time.perf_counter()
        try:
            answer, _ = client.predict(text, QUESTION, "lampe", 24, api_name="/ask")
        except Exception as error:  # a lost request is a result
            print(error, flush=True)
            return "lost", time.perf_counter() - started
        finally:
            client.close()
        told = {one for one in secrets if one in answer}
        return ("others" if told - {secret} else "own" if told else "none"), time.perf_counter() - started

    with ThreadPoolExecutor(visitors) as pool:
        came = list(pool.map(visit, range(visitors)))
    kinds = [kind for kind, _ in came]
    counts = {kind: kinds.count(kind) for kind in ("own", "others", "none", "lost")}
    return {"round": number, "visitors": visitors, **counts, "longest": round(max(took for _, took in came), 1)}


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
