"""What each method costs beside plain RoPE: seconds of a reading and of a token, and on a GPU memory.

    python -m benchmarks.methods_cost [--lengths 4096 8192 12288 16384] [--methods rope,lampe,…] [--repeats 1] [--quick]
                                      [--fresh]

The default model in 4 bits, each method as its authors' rule has it: one that leaves a length as it is costs there what
the library's attention does without a map. Text is read in chunks, as the page reads, by each method in turn; their
caches take 47 kB a token and method, 15 GB for all at 16k. Rows go to methods_cost.jsonl beside this file, one for each
machine, length and what was measured.
"""

from __future__ import annotations

import lampe
from benchmarks.measure import Rows, arguments, machine, reading_and_tokens
from benchmarks.methods import LENGTHS
from lampe.cli.arguments import list_of
from lampe.families import family_config
from lampe.methods import METHODS, methods_for

_TURNS = 5  # of a few tokens; quick beside a reading


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--methods", type=list_of(str), default=list(METHODS), help=f"of {', '.join(METHODS)}")
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args()
    keys = ["rope", "lampe", "dca"] if given.quick else ["rope", *(key for key in given.methods if key != "rope")]
    rows = Rows(None if given.quick else "methods_cost", given.fresh)
    ways = methods_for(keys, family_config("smollm2"))
    model, _ = lampe.load(bits=4)
    for length in [900] if given.quick else given.lengths:
        asked = {"where": machine()["machine"], "tokens": length}
        if not rows.has(**asked, what="a token"):  # the last that comes
            for what, row in reading_and_tokens(model, ways, length, given.repeats, _TURNS).items():
                rows.add(**asked, what=what, **row)


if __name__ == "__main__":
    main()
