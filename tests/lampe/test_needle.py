"""Needles: hidden where they should be, never there by chance, scored exactly, and shared work that changes nothing."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

import lampe
from lampe import __main__ as cli
from lampe.cli import needle as needle_command
from lampe.inference.prefill import CHUNK, PromptReader
from lampe.inference.prompt import around
from lampe.methods import METHODS, LampeConfig, ScaledSigmoid
from lampe.models.load import load_config
from lampe.needle import (
    HAYSTACKS,
    TASKS,
    Cell,
    Haystack,
    NeedleError,
    Needles,
    Result,
    TokenizedHaystack,
    grid,
    hide,
    mcnemar,
    paired_rows,
    prompt_of,
    read_results,
    run,
    steps,
    summary,
    to_read,
    wilson,
)
from tests.lampe.tiny import FAMILIES, build, tokens

FACTS = "Water boils. The tide turns twice a day! Is the lamp lit? Nobody knows. " * 40


@pytest.fixture(scope="module")
def loaded(small):
    return lampe.load(small["llama"], bits=16)


@pytest.fixture(scope="module")
def tokenized(loaded):
    return TokenizedHaystack(Haystack("facts", FACTS), loaded[1])


@pytest.fixture(scope="module")
def reference(loaded):
    return TokenizedHaystack(HAYSTACKS["reference"](), loaded[1])


@pytest.mark.parametrize("name", TASKS)
def test_each_task_hides_what_it_asks_for(name):
    task = TASKS[name]
    needles = task.draw(random.Random(1))
    text = " ".join(needles.sentences)
    assert len(needles.sentences) == task.keys * task.values
    assert len(needles.expected) == task.asked * task.values
    for value in needles.expected:
        assert value in text
        assert value not in needles.question + needles.prefix
    assert needles.score(f"{needles.prefix} {' and '.join(needles.expected)}.") == 1
    assert needles.score("I don't know.") == 0
    assert TASKS[name].draw(random.Random(1)) == needles, "the same chance, the same needle"


def test_the_same_seed_gives_the_same_needle_on_any_machine():
    cell = Cell("single", 4096, 0.5, "lampe", trial=3, seed=7)
    drawn = TASKS["single"].draw(cell.rng())
    assert drawn.sentences == ("The secret number of the silver piano is 7212450.",)
    assert replace(cell, method="rope").rng().random() == cell.rng().random(), "methods see the same needle"
    assert replace(cell, trial=4).rng().random() != cell.rng().random()


def test_no_key_and_no_value_stands_in_the_haystack_by_chance():
    first = TASKS["single"].draw(random.Random(5))
    key = first.question.removeprefix("What is the secret number of the ").removesuffix("?")
    other = TASKS["single"].draw(random.Random(5), unlike=f"A {key.upper()} stood there.")
    assert key not in other.question
    rng = random.Random(5)
    drawn = " ".join(str(rng.randrange(1_000_000, 10_000_000)) for _ in range(1000))
    with pytest.raises(NeedleError, match="every key"):
        TASKS["passkey"].draw(random.Random(5), unlike=drawn)


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("8203571", 1),
        ("It is 8203571.", 1),
        ("**8203571**", 1),
        ("88203571", 0),
        ("82035712", 0),
        ("820-3571", 0),
        ("", 0),
    ],
)
def test_a_value_counts_only_by_itself(answer, score):
    assert Needles(("x",), "?", "", ("8203571",)).score(answer) == score


def test_a_share_of_several_values_is_a_share():
    assert Needles(("x",), "?", "", ("12", "34", "56", "78")).score("78, 12 and 99") == 0.5


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(200, 3000), st.floats(0, 1), st.sampled_from(list(TASKS)), st.integers(0, 10**6))
def test_a_prompt_has_exactly_its_length_and_the_needle_at_its_depth(tokenized, length, depth, name, seed):
    rng = random.Random(seed)
    needles = TASKS[name].draw(rng, unlike=FACTS)
    prompt = hide(tokenized, needles, length, depth, rng)
    tokenizer = tokenized.tokenizer
    assert len(prompt.ids) == length
    for sentence, (start, stop) in zip(needles.sentences, prompt.spans, strict=True):
        assert tokenizer.decode(prompt.ids[start:stop]) == f" {sentence}"
    assert tokenizer.decode(prompt.ids).endswith(needles.prefix)
    inserted = sum(stop - start for start, stop in prompt.spans)
    first = prompt.spans[0][0]
    if 0.05 < depth < 0.95:
        before = tokenizer.decode(prompt.ids[:first]).removesuffix("\n")  # where the text begins anew
        assert before.endswith((".", "!", "?")), "it stands between two sentences"
    # Among the haystack's own tokens it lies where it should; no sentence of this one is longer than 16.
    template = len(around(tokenizer, needles.question, needles.prefix)[0])
    earlier = sum(stop - start for start, stop in prompt.spans[1:] if start < first)
    frame = sum(map(len, around(tokenizer, needles.question, needles.prefix)))
    assert abs(first - template - earlier - depth * (length - inserted - frame)) <= 16


def test_a_short_text_is_repeated_and_says_so(tokenized):
    needles = TASKS["single"].draw(random.Random(0))
    assert hide(tokenized, needles, 5000, 0.5, random.Random(0)).repeated
    assert not hide(tokenized, needles, 500, 0.5, random.Random(0)).repeated


@pytest.mark.parametrize("text", [FACTS, "no end " * 40_000, ". " * 40_000, "One. Two", "word" * 40_000])
def test_the_beginning_of_a_long_text_is_that_of_the_whole(loaded, text):
    haystack = Haystack("some", text)
    whole, part = TokenizedHaystack(haystack, loaded[1]), TokenizedHaystack(haystack, loaded[1], most=700)
    assert len(part.ids) >= min(700, len(whole.ids))
    assert len(part.ids) < 700 + 65_536, "and not much more"
    assert part.ids == whole.ids[: len(part.ids)]
    assert part.breaks == whole.breaks[: len(part.breaks)]
    assert part.take(700) == whole.take(700)


def test_others_may_use_the_model_between_two_steps(loaded, tokenized):
    """Two runs that take turns give what each gives alone, and between them the model isn't patched."""
    cells = {method: grid("single", [1200], [0.2, 0.9], [method], 1) for method in ("lampe", "dca", "rope")}
    alone = {method: [row.answer for row in run(loaded[0], tokenized, some)] for method, some in cells.items()}
    going = {method: steps(loaded[0], tokenized, some) for method, some in cells.items()}
    together = {method: [] for method in cells}
    while going:
        for method, run_ in list(going.items()):
            step = next(run_, None)
            assert loaded[0].config._attn_implementation == "sdpa"
            assert not any(module._forward_pre_hooks or module._forward_hooks for module in loaded[0].modules())
            if step is None:
                del going[method]
            elif isinstance(step, Result):
                together[method].append(step.answer)
    assert together == alone


def test_bad_cells_are_a_sentence(tokenized):
    for wrong, message in (
        ({"depth": 1.5}, "from 0"),
        ({"depth": float("nan")}, "from 0"),
        ({"task": "magic"}, "one of single"),
        ({"method": "magic"}, "There is no method 'magic'; the methods are rope, "),
        ({"length": 0}, "at least 1 token"),
    ):
        with pytest.raises(NeedleError, match=message):
            Cell(**{"task": "single", "length": 100, "depth": 0.5, "method": "rope", **wrong})
    with pytest.raises(NeedleError, match="can't hold them"):
        prompt_of(tokenized, Cell("single", 20, 0.5, "rope"))
    with pytest.raises(NeedleError, match="empty"):
        Haystack("nothing", "  \n")
    with pytest.raises(NeedleError, match="isn't text"):
        Haystack("picture", "PNG\x00")
    with pytest.raises(NeedleError, match="no cells"):
        grid("single", [], [0.5], ["rope"], 1)


def test_whole_depths_draw_the_same_needles_as_an_integer():
    assert Cell("single", 900, 1, "rope").rng().random() == Cell("single", 900, 1.0, "rope").rng().random()
    assert len(grid("single", [900, 900], [0, 0.0], ["rope", "rope"], 1)) == 1


def test_sliding_layers_share_nothing_and_still_read_the_whole():
    """They drop keys, so that a cache can't be cut back to what the next prompt begins with."""
    model = build(FAMILIES["gemma3"])
    reader, ids = PromptReader(model), tokens(700, seed=3)[0].tolist()
    for changed in (0, 650):
        ids[changed] = 5
        for _ in reader.read(ids):
            pass
        alone = PromptReader(model)
        for _ in alone.read(ids):
            pass
        assert reader.kept == 0
        torch.testing.assert_close(reader.cache.layers[1].keys, alone.cache.layers[1].keys)


@pytest.mark.parametrize("family", ["llama-dynamic", "phi3-longrope"])
def test_an_unpatched_model_whose_frequencies_grow_is_read_as_in_one_forward(family):
    """In chunks, the first would be turned by the frequencies of a shorter text."""
    model, ids = build(FAMILIES[family]), tokens(700, seed=3)
    reader = PromptReader(model)
    for _ in range(2):
        for _ in reader.read(ids[0].tolist()):
            pass
        whole = DynamicCache(config=model.config)
        with torch.inference_mode():
            model(ids[:, :-1], past_key_values=whole)
        torch.testing.assert_close(reader.cache.layers[0].keys, whole.layers[0].keys)
    with lampe.patch(model, LampeConfig(64, 10, 6, 32)) as patched:  # patched, the frequencies are held
        patched.plan(700)
        assert next(PromptReader(model).read(ids[0].tolist())) == CHUNK


def test_what_will_be_read_is_known_before():
    cells = grid("single", [4096, 1000], [0, 0.5, 1], ["rope", "lampe"], 2)
    starts = to_read(cells)
    assert list(starts) == sorted(cells, key=lambda cell: (cell.length, cell.method == "lampe", -cell.depth))
    assert [start for cell, start in starts.items() if cell.length == 4096] == [0, 4096, 2048, 2048, 0, 0] * 2


@pytest.mark.parametrize("method", ["rope", "lampe"])
def test_shared_work_changes_no_result(loaded, reference, method):
    """Oracle: each cell of a grid against the cell run alone."""
    model = loaded[0]
    config, length = lampe.LampeConfig(4096, 128, 64, 600), 1100
    methods = {"lampe": config}
    cells = [Cell("single", length, depth, method, trial) for depth in (0.2, 0.8) for trial in (0, 1)]
    together = list(run(model, reference, cells, methods))
    assert [r.depth for r in together] == [0.8, 0.8, 0.2, 0.2]
    assert [length - r.read_tokens for r in together] == [0, CHUNK, 0, 0], "the text before a needle isn't read again"
    position_map = lampe.position_map(config, length)
    for result in together:
        cell = next(c for c in cells if (c.depth, c.trial) == (result.depth, result.trial))
        (alone,) = run(model, reference, [cell], methods)
        assert replace(result, seconds=0, read_tokens=0) == replace(alone, seconds=0, read_tokens=0)
        assert f"is {result.expected[0]}." in result.excerpt
        if method == "lampe":
            assert result.mapped_position == position_map.relative(length - 1, result.place)
            assert result.region == position_map.regions[position_map.region(length - 1, result.place)].name
        else:
            assert (result.mapped_position, result.region) == (result.distance, "All")


def test_stop_ends_a_run_within_a_layer(loaded, reference):
    asked, layers = [], loaded[0].config.num_hidden_layers

    def stop():
        asked.append(1)
        return len(asked) > 3 * layers + 1

    cell = Cell("single", 4000, 0.5, "lampe")
    assert list(steps(loaded[0], reference, [cell], stop=stop)) == [(cell, read) for read in (512, 1024, 1536)]
    assert len(asked) == 3 * layers + 2 + 2, "one layer of the fourth chunk was read; then the run itself looks"


def test_the_wilson_interval_is_the_published_one():
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-3)
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-3)


def test_mcnemars_exact_test():
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1
    assert mcnemar(0, 5) == mcnemar(5, 0) == pytest.approx(2 / 2**5)
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)  # Siegel & Castellan's binomial table


def test_methods_are_compared_on_the_tests_that_both_have_done(loaded, tokenized):
    cells = grid("single", [600], [0.1, 0.9], ["lampe", "selfextend"], 1, 0)
    one, *others = run(loaded[0], tokenized, cells)
    scored = [replace(result, score=float(result.method == "lampe" or result.depth > 0.5)) for result in [one, *others]]
    assert paired_rows(scored) == [(600, "selfextend", 0, 1, 2, 1.0)]
    assert paired_rows(scored[1:]) == [(600, "selfextend", 0, 1, 1, 1.0)]
    assert paired_rows(scored, base="selfextend") == [(600, "lampe", 1, 0, 2, 1.0)]
    assert "selfextend  found alone 0, LaMPE alone 1, of 2 tests of both" in summary(scored)


def test_the_command_lists_and_refuses_methods(default_folder, tmp_path, capsys):
    assert cli.main(["methods"]) == 0
    told = capsys.readouterr().out
    assert all(f"{key}: {method.title}\n" in told for key, method in METHODS.items())
    command = ["needle", "--lengths", "600", "--methods", "lampe,alibi", "--out", str(tmp_path / "needle.jsonl")]
    assert cli.main(command) == 2
    assert "There is no method 'alibi'; the methods are rope, lampe, " in capsys.readouterr().err


@pytest.mark.long
def test_tuned_settings_are_found_written_and_run_with(small, tmp_path, capsys, monkeypatch):
    out, model = tmp_path / "tuned.json", ["--model", small["llama"], "--bits", "16"]
    monkeypatch.setattr(METHODS["rerope"], "candidates", lambda self: [self, replace(self, near=64)])
    tune = ["tune", "rerope", "--lengths", "700", "--needles", "2", "--out", str(out), *model]
    assert cli.main(tune) == 0
    told = capsys.readouterr().out
    assert "(authors' rule)" in told
    assert "(best)" in told
    best = json.loads(out.read_text(encoding="utf-8"))
    assert best["method"] == "rerope"
    rows = (tmp_path / "tuned.jsonl").read_text(encoding="utf-8")
    assert rows.count("\n") == 6
    assert cli.main(tune) == 0
    assert capsys.readouterr().out == told
    assert (tmp_path / "tuned.jsonl").read_text(encoding="utf-8") == rows, "nothing is measured again"
    needles = tmp_path / "needle.jsonl"
    command = ["needle", "--lengths", "700", "--depths", "0.5", "--methods", "rerope", "--out", str(needles), *model]
    assert cli.main([*command, "--settings", str(out)]) == 0
    assert [row.settings for row in read_results(needles)] == [best["settings"]]
    out.write_text('{"method": "rerope"}', encoding="utf-8")
    assert cli.main([*command, "--settings", str(out)]) == 2
    assert "tuned.json has no settings of a method" in capsys.readouterr().err


def test_the_command_appends_resumes_and_survives_an_interrupt(small, tmp_path, monkeypatch, capsys):
    out = tmp_path / "rows" / "needle.jsonl"
    command = [
        "needle", "--lengths", "600,700", "--depths", "0.5", "--methods", "rope,lampe", "--haystack", "filler",
        "--out", str(out), "--model", small["llama"], "--bits", "16",
    ]  # fmt: skip

    def interrupted(*args, **kwargs):
        yield from (result for _, result in zip(range(3), run(*args, **kwargs), strict=False))
        raise KeyboardInterrupt

    monkeypatch.setattr(needle_command.needle, "run", interrupted)
    assert cli.main(command) == 130
    assert len(read_results(out)) == 3
    assert "the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(needle_command.needle, "run", run)
    assert cli.main(command) == 0
    rows = read_results(out)
    assert len(rows) == 4
    assert len({(row.length, row.depth, row.method) for row in rows}) == 4
    assert all(row.megabytes is not None for row in rows) == (sys.platform == "linux")
    table = capsys.readouterr().out
    assert table == summary(rows) + "\n"
    assert table.count("lampe") == 2
    monkeypatch.setattr(needle_command, "load", None)  # a finished grid needs no model
    assert cli.main(command) == 0
    assert all(row.ran_by({"lampe": LampeConfig.for_model(load_config(small["llama"]))}) for row in rows)
    out.write_text("not a row\n", encoding="utf-8")
    assert cli.main(command) == 2
    assert "Line 1 of needle.jsonl is no result" in capsys.readouterr().err
    assert out.read_text(encoding="utf-8") == "not a row\n"


def test_other_settings_are_run_again(loaded, tokenized):
    cells = grid("single", [600], [0.5], ["rope", "lampe"], 1, 0)
    config = LampeConfig(512, 32, 16, 300, 1.1)
    plain, mapped = run(loaded[0], tokenized, cells, {"lampe": config})
    assert (mapped.mapping_length, mapped.head, mapped.tail, mapped.attention_scale) == (300, 32, 16, 1.1)
    assert mapped.ran_by({"lampe": config})
    assert (mapped.settings, plain.settings) == (config.settings(), {"window": 4096})
    curve = ScaledSigmoid(300, 1, 100)
    assert mapped.ran_by({"lampe": replace(config, mapping=curve)}), "at this length a curve gives the same map"
    older = replace(mapped, settings=None)
    for change in ({"mapping": 301}, {"head": 33}, {"tail": 17}, {"attention_scale": 1.0}):
        other = {"lampe": replace(config, **change)}
        assert not mapped.ran_by(other)
        assert not older.ran_by(other)
        assert plain.ran_by(other), "it ran unpatched"


def test_the_command_takes_a_preset(small, tmp_path, monkeypatch, capsys):
    """What was read under other settings stays in the file, and doesn't count."""
    out = tmp_path / "needle.jsonl"
    command = ["needle", "--lengths", "600", "--depths", "0.5", "--haystack", "filler", "--out", str(out)]
    command += ["--model", small["llama"], "--bits", "16"]
    assert cli.main(command) == 0
    monkeypatch.setattr(needle_command, "load_preset", lambda path: LampeConfig(4096, 100, 50, 400))
    assert cli.main([*command, "--preset", "a.json"]) == 0
    assert [(row.method, row.mapping_length) for row in read_results(out)] == [
        ("rope", 600), ("lampe", 600), ("lampe", 400),
    ]  # fmt: skip
    monkeypatch.undo()
    assert cli.main([*command, "--preset", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    picture = tmp_path / "picture.txt"
    picture.write_bytes(b"\x89PNG\xff")
    out = ["--out", str(tmp_path / "x.jsonl")]
    for arguments, words in (
        (["--depths", "2"], "from 0"),
        (["--methods", "magic"], "There is no method 'magic'; the methods are rope, "),
        (["--haystack", str(picture)], "isn't plain text"),
        (["--haystack", str(tmp_path / "none.txt")], "No such file"),
    ):
        assert cli.main(["needle", *arguments, *out]) == 2
        assert words in capsys.readouterr().err
