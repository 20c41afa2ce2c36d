"""The public endpoints, called as a program would."""

from __future__ import annotations

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

import lampe
from app.ask.examples import EXAMPLES
from lampe.methods import METHODS
from tests.app.samples import pdf
from tests.app.test_service import QUESTION, TEXT


@pytest.fixture(scope="module")
def client(server):
    return Client(server, verbose=False)


def test_only_these_endpoints_are_public(client):
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {
        "/ask", "/document", "/cut", "/position_map", "/methods", "/needle", "/needle_grid",
    }  # fmt: skip


@pytest.mark.long
def test_ask_answers_with_its_figures(client):
    answer, figures = client.predict(TEXT, QUESTION, "lampe", 8, api_name="/ask")
    assert "Heron" in answer
    assert figures["method"] == "lampe"
    assert figures["input_length"] == figures["mapping_length"] < 100
    assert figures["window"] == 8192
    assert figures["regions"][0]["share"] == pytest.approx(1, abs=1e-3)
    assert figures["prefill_seconds"] > 0
    plain, figures = client.predict(TEXT, QUESTION, "rope", 8, api_name="/ask")
    assert plain == answer
    assert figures["regions"] == [{"name": "All", "role": "near", "keys": figures["input_length"], "share": None}]


@pytest.mark.long
def test_ten_callers_at_once_each_get_their_own_answer(server):
    names = ["Heron", "Puffin", "Kestrel", "Swan", "Eagle", "Falcon", "Robin", "Raven", "Sparrow", "Pelican"]
    callers = [Client(server, verbose=False) for _ in names]
    jobs = [
        caller.submit(f"The boat is called {name}. The lamp is green.", QUESTION, "lampe", 8, api_name="/ask")
        for caller, name in zip(callers, names, strict=True)
    ]
    for name, job in zip(names, jobs, strict=True):
        answer = job.result(timeout=300)[0]
        assert [one for one in names if one in answer] == [name]
    for caller in callers:
        caller.close()


@pytest.mark.long
def test_a_second_question_and_a_follow_up_reuse_what_was_read(client):
    text = EXAMPLES[0].text[:5000]
    answer, first = client.predict(text, QUESTION, "lampe", 8, api_name="/ask")
    _, second = client.predict(text, "Who is in it?", "lampe", 8, api_name="/ask")
    earlier = [[QUESTION, answer]]
    _, third = client.predict(text, "Why?", "lampe", 8, 0.0, 1.0, 0, earlier, api_name="/ask")
    assert first["kept"] == 0
    for figures in (second, third):
        assert figures["kept"] >= 512 * (first["input_length"] // 512 - 1)
    assert third["input_length"] > first["input_length"]


def test_a_conversation_has_a_longest_length_and_two_sides(client):
    for earlier, message in (
        ([[QUESTION, "Heron"]] * 41, "has 41 turns; at most 40"),
        ([[QUESTION]], "Each earlier turn"),
    ):
        with pytest.raises(AppError, match=message):
            client.predict(TEXT, QUESTION, "lampe", 4, 0.0, 1.0, 0, earlier, api_name="/ask")


@pytest.mark.long
def test_another_precision_and_the_cut_text(client):
    answer, figures = client.predict(
        TEXT, QUESTION, "rope", 8, 0.0, 1.0, 0, [], 0, "SmolLM2-135M-Instruct", 16, True, api_name="/ask"
    )
    assert "Heron" in answer
    assert (figures["method"], figures["cut"], figures["bits"], figures["left_out"]) == ("rope", True, 16, 0)


@pytest.mark.long
def test_the_methods_are_listed_and_each_key_can_be_asked(client):
    listed = client.predict(api_name="/methods")
    assert [one["key"] for one in listed] == list(METHODS)
    for one in listed:
        assert METHODS[one["key"]].from_settings(one["settings"]).title == one["title"]
    answer, figures = client.predict(TEXT, QUESTION, "selfextend", 8, api_name="/ask")
    assert "Heron" in answer
    assert figures["method"] == "selfextend"
    with pytest.raises(AppError, match="There is no method 'alibi'; the methods are rope, lampe, "):
        client.predict(TEXT, QUESTION, "alibi", 8, api_name="/ask")


def test_what_is_drawn_comes_again_with_its_seed(client):
    drawn = [client.predict(TEXT, QUESTION, "lampe", 6, 1.5, 1.0, seed, api_name="/ask") for seed in (1, 1, 2, 3)]
    assert drawn[0][0] == drawn[1][0]
    assert len({answer for answer, _ in drawn}) > 1
    assert [figures["seed"] for _, figures in drawn] == [1, 1, 2, 3]


def test_the_passages_that_were_looked_at_come_on_demand(client):
    answer, figures = client.predict(TEXT, QUESTION, "lampe", 12, 0.0, 1.0, 0, [], 2, api_name="/ask")
    assert "Heron" in answer
    shares = [one["share"] for one in figures["passages"]]
    assert 1 <= len(shares) <= 2
    assert shares == sorted(shares, reverse=True)
    assert all(one["text"] in TEXT for one in figures["passages"])
    assert "passages" not in client.predict(TEXT, QUESTION, "lampe", 4, api_name="/ask")[1]


def test_a_document_is_opened_and_cut(client, tmp_path):
    path = tmp_path / "two.pdf"
    path.write_bytes(pdf(["The boat is called Heron.", "The lamp is green."]))
    found = client.predict(handle_file(path), api_name="/document")
    assert found["kind"] == "pdf"
    assert [part["label"] for part in found["parts"]] == ["Page 1", "Page 2"]
    parts = [part["text"] for part in found["parts"]]
    assert "Heron" in parts[0]
    cut = client.predict(parts, QUESTION, "parts", None, 2, 2, api_name="/cut")
    assert cut["text"].strip() == "The lamp is green."
    assert "Part 1" in cut["left_out"]
    for keep in ("beginning", "both ends"):
        cut = client.predict(["word " * 3000], QUESTION, keep, 500, api_name="/cut")
        assert 450 < cut["tokens"] <= 500
    with pytest.raises(AppError, match="must be one of beginning, both ends, parts"):
        client.predict(parts, QUESTION, "middle", api_name="/cut")
    (tmp_path / "lying.docx").write_bytes(b"%PDF-1.7 no")
    with pytest.raises(AppError, match=r"lying\.docx"):
        client.predict(handle_file(tmp_path / "lying.docx"), api_name="/document")


def test_a_file_of_the_server_isnt_opened(client):
    with pytest.raises(AppError):
        client.predict({"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, api_name="/document")


def test_a_model_that_isnt_offered_is_refused(client):
    with pytest.raises(AppError, match="isn't offered here; choose one of SmolLM2-135M-Instruct"):
        client.predict(TEXT, QUESTION, "lampe", 4, 0.0, 1.0, 0, [], 0, "owner/name", api_name="/ask")
    with pytest.raises(AppError, match="in 4 or in 16 bits, not 3"):
        client.predict(TEXT, QUESTION, "lampe", 4, 0.0, 1.0, 0, [], 0, None, 3, api_name="/ask")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (("", QUESTION, "lampe", 8), "There is no text"),
        ((TEXT, "", "lampe", 8), "There is no question"),
        ((TEXT, QUESTION, "magic", 8), "There is no method 'magic'; the methods are rope, "),
        ((TEXT, QUESTION, "lampe", 0), "1 to 512"),
        ((TEXT, QUESTION, "lampe", "many"), "whole number"),
        ((TEXT, QUESTION, "lampe", 3.5), "whole number"),
        ((None, QUESTION, "lampe", 8), "must both be text"),
        (("word " * 21_000, QUESTION, "lampe", 8), "the limit here is 20,000"),
        (("word " * 1_100_000, QUESTION, "lampe", 8), "5,500,000 characters"),
    ],
)
def test_bad_requests_get_a_sentence(client, request_, message):
    with pytest.raises(AppError, match=message):
        client.predict(*request_, api_name="/ask")


def test_after_bad_requests_the_app_goes_on(client):
    assert "Heron" in client.predict(TEXT, QUESTION, "lampe", 8, api_name="/ask")[0]


@pytest.mark.parametrize(("length", "mapping"), [(12_000, 2048), (12_000, 3000), (1_048_576, 8000), (100, 2048)])
def test_position_map_is_the_librarys(client, length, mapping):
    got = client.predict(length, 8192, 512, 200, mapping, api_name="/position_map")
    position_map = lampe.position_map(lampe.LampeConfig(8192, 512, 200, mapping), length)
    assert got["mapping_length"] == position_map.mapping_length
    assert [region["name"] for region in got["regions"]] == [region.name for region in position_map.regions]
    for curve in got["points"]:
        distances = np.array(curve["distances"])
        assert (position_map.relative(length - 1, length - 1 - distances) == curve["positions"]).all()


def test_without_a_mapping_length_the_models_own_or_the_rescaled_curve_is_used(client):
    own = client.predict(12_000, 8192, 512, 200, None, api_name="/position_map")
    assert (own["mapping_length"], own["basis"]) == (lampe.PRESETS["smollm2"].mapping_length(12_000), "measured")
    curve = lampe.ScaledSigmoid(0.75 * 4096, 0.00010493097327094324 * 2, -2.466638011138158)
    got = client.predict(12_000, 4096, 256, 100, None, api_name="/position_map")
    assert (got["mapping_length"], got["basis"]) == (curve(12_000), "rescaled")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ((0, 8192, 512, 200, 2048), "at least 1 token"),
        ((12_000, 0, 512, 200, 2048), "window"),
        ((12_000, 8192, -1, 200, 2048), "negative"),
        ((12_000, 8192, 1900, 200, 2048), "must be less than the mapping length"),
        ((2_000_000, 8192, 512, 200, 2048), "at most 1,048,576"),
        ((12_000, 8192, 512, 200, 0), "at least 1 position"),
        ((12_000, 400, 512, 200, None), "must be less than the mapping length"),
        ((10**30, 8192, 512, 200, None), "at most 1,048,576"),
        ((12_000.5, 8192, 512, 200, 2048), "whole number"),
        ((12_000, 8192, 512, 200, "x"), "whole number"),
    ],
)
def test_impossible_maps_say_what_is_wrong(client, request_, message):
    with pytest.raises(AppError, match=message):
        client.predict(*request_, api_name="/position_map")


def test_a_needle_is_hidden_asked_for_and_scored(client):
    row = client.predict(900, 0.5, 7, "single", "lampe", "The tide turns. " * 100, api_name="/needle")
    assert row["length"] == 900
    assert row["repeated"]
    assert row["expected"][0] in row["excerpt"]
    assert row["score"] == float(row["expected"][0] in row["answer"])
    assert row["distance"] == row["mapped_position"] == 899 - row["place"]
    assert 0 < row["attention"] < 1


@pytest.mark.long
def test_a_grid_streams_its_rows(client):
    job = client.submit([600, 700], [0.2, 0.8], 1, 0, "passkey", ["rope"], None, api_name="/needle_grid")
    job.result(timeout=300)
    rows = job.outputs()
    assert [(row["length"], row["depth"]) for row in rows] == [(600, 0.8), (600, 0.2), (700, 0.8), (700, 0.2)]
    assert {row["haystack"] for row in rows} == {"language reference"}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (([600], [1.5], 1, 0, "single", ["rope"], None), "from 0"),
        (([600], [0.5], 1, 0, "magic", ["rope"], None), "task must be one of"),
        (([600], [0.5], 1, 0, "single", [["rope"]], None), "There is no method"),
        (([600], [0.5], 1, 0, "single", list(METHODS), None), "This grid has 20 methods; at most 6"),
        (([600], [0.5], 1, 0, "single", ["magic"], None), "There is no method 'magic'"),
        (([600], [], 1, 0, "single", ["rope"], None), "no cells"),
        (([25_000], [0.5], 1, 0, "single", ["rope"], None), "limit here is 20,000"),
        (([40], [0.5], 1, 0, "single", ["rope"], None), "can't hold them"),
        (([600], [0.5], 1, 0, "single", ["rope"], "  "), "haystack is empty"),
        (([600.5], [0.5], 1, 0, "single", ["rope"], None), "whole number"),
        (([600], [0.5], 10**9, 0, "single", ["rope"], None), "at most 400"),
        (([600], [0.5], -1, 0, "single", ["rope"], None), "at least 1, not -1"),
        ((list(range(600, 5000)), [n / 4000 for n in range(4000)], -1, 0, "single", ["rope"], None), "4,400 lengths"),
        ((600, [0.5], 1, 0, "single", ["rope"], None), "must be lists"),
    ],
)
def test_a_bad_grid_is_a_sentence(client, request_, message):
    with pytest.raises(AppError, match=message):
        client.submit(*request_, api_name="/needle_grid").result(timeout=60)
