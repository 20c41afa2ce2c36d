"""What the tabs' handlers give, without a browser: a small model with random weights answers."""

from __future__ import annotations

import html

import gradio as gr
import pytest

import lampe
from app.ask.conversation import Opened
from app.ask.page import AskTab
from app.calibration.page import CalibrationTab
from app.documents.cutting import WAYS
from app.documents.document import Part
from app.map.page import MapTab
from app.map.scenes import SCENES
from app.needle.page import NeedleTab
from app.needle.results import GridResults
from app.serving.document_cache import LAMPE
from app.serving.requests import Chosen, Variant
from app.serving.start import start
from app.settings import Settings
from app.ui.mapping_row import MappingRow
from app.ui.model_row import ModelRow
from app.ui.state import PageState
from tests.app.sweeps import made

TEXT = "The boat is called Heron. The lamp is green. " * 70
VISITOR = gr.Request(session_hash="ann")


class Page:
    """The tabs of one visitor."""

    def __init__(self, settings):
        self.service = start(settings)
        with gr.Blocks() as demo:
            self.state = PageState(settings.own)
            self.model_row = ModelRow(self.service, self.state)
            self.mapping = MappingRow(self.service.published, self.state)
            with gr.Tabs() as tabs, gr.Tab("All") as tab:
                self.ask = AskTab(self.service, self.state)
                self.needle = NeedleTab(self.service, demo, tab, self.ask.text, self.state)
                self.map = MapTab(self.service, demo, tabs, tab, self.state)
                self.calibration = CalibrationTab(self.service, demo, self.state, self.mapping)
        # Their config is transformers' own; this one maps what they read here.
        self.chosen = Chosen(settings.own, lampe.LampeConfig(4096, 128, 64, 500))
        self.label = self.state.choose(self.chosen)[self.state.label]
        self.controls = [control.value for control in self.map.controls.values()]


@pytest.fixture(scope="module")
def page(small):
    return Page(Settings(small["llama"], 16, 6_000))


def answered(page, question="What?", beside=("rope",), following=False, conversation=None, text=TEXT, budget=4):
    given = [following, text, question, list(beside), False, False, budget, 0, 1, 0, conversation, page.chosen]
    return list(page.ask.answer(*given, page.label, VISITOR))


def test_answers_come_one_after_the_other_and_can_be_followed_up(page):
    ask = page.ask
    *progress, done = answered(page)
    assert any("LaMPE: Reading" in shown[ask.status] for shown in progress)
    assert "Done." in done[ask.status]
    assert done[ask.on].interactive
    assert done[page.state.attention].method == page.chosen.config
    conversation = done[ask.conversation]
    assert set(conversation.exchanges) == {LAMPE, Variant("rope")}
    more = answered(page, "Why?", ("rope", "yarn"), True, conversation)[-1]
    assert "YaRN: not asked" in more[ask.status]
    assert [len(turns) for turns in more[ask.conversation].exchanges.values()] == [2, 2]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"beside": ("rope", "rope")}, "Choose up to 4 different methods"),
        ({"beside": ("lampe",)}, "Choose up to 4 different methods"),
        ({"beside": ("alibi",)}, "There is no method"),
        ({"following": True}, "about another text or with another model"),
        ({"text": " "}, "There is no text"),
        ({"budget": 0.5}, "must be a whole number"),
    ],
)
def test_what_cant_be_asked_is_a_sentence_and_leaves_the_rest_as_it_is(page, given, words):
    shown = answered(page, **given)[-1]
    assert words in shown[page.ask.status]
    assert page.ask.conversation not in shown


def test_what_the_server_has_forgotten_isnt_run_under_the_pages_label(page):
    """A page that was left for long still says "LaMPE as published"; the server has what is chosen at first."""
    first = Chosen(page.state.own)
    assert page.state.choose(first)[page.state.label] == ""
    given = [TEXT, "What?", [], False, False, 4, 0, 1, 0, None]
    grid = "filler", "single", ["rope"], 0
    for ran in (
        page.ask.answer(False, *given, first, page.label, VISITOR),
        page.needle.run_one(*grid, 600, 0.5, "", "", "", first, page.label, VISITOR),
        page.needle.run_grid(GridResults(), *grid, "600", "0.5", 1, "", first, page.label, VISITOR),
        [page.mapping.publish(first, page.label)],
        [page.mapping.leave(first, page.label)],
        [page.calibration.use_it(None, first, page.label)],
    ):
        (shown,) = ran
        assert "has forgotten what was chosen in it. Nothing was run" in next(iter(shown.values()))


def test_where_an_answer_looked_is_shown_for_some_of_its_layers(page):
    ask = page.ask
    attention = answered(page)[-1][page.state.attention]
    *_, done = ask.look_back(attention, VISITOR)
    assert "Heron" in done[ask.evidence]
    assert done[ask.evidence] != ask.show_evidence(done[ask.found], "Last third")
    (nothing,) = ask.look_back(None, VISITOR)
    assert "There is no answer yet" in nothing[ask.status]


def test_a_text_is_counted_and_drawn_and_one_that_is_too_long_is_told(page):
    ask = page.ask
    *_, shown = ask.count(TEXT, "What?", 48, False, page.chosen, VISITOR)
    end, planned = shown[page.state.lengths]
    assert f"{end:,} tokens" in shown[ask.length]
    assert planned >= end + 48
    assert "64 keep exact distances" in shown[ask.sentence]
    (none,) = ask.count("  ", "", 48, False, page.chosen, VISITOR)
    assert "No text yet" in none[ask.length]
    (long,) = ask.count("word " * 1_000_001, "", 48, False, page.chosen, VISITOR)
    assert "more than 5,000,000 are not counted" in long[ask.length]


def test_a_cut_text_cant_be_edited_and_comes_back_whole(page, tmp_path):
    ask = page.ask
    path = tmp_path / "boat.txt"
    path.write_text(TEXT, encoding="utf-8")
    *_, read = ask.open_file(str(path), VISITOR)
    opened = read[ask.opened]
    text = opened.text
    assert read[ask.text].value == text
    cut = ask.cut_text(text, "What?", opened, WAYS[0], 1, 1, 300, page.chosen, VISITOR)
    assert not cut[ask.text].interactive
    assert cut[ask.uncut].visible
    assert len(cut[ask.text].value) < len(text) / 2
    again = ask.cut_text(cut[ask.text].value, "What?", cut[ask.opened], WAYS[0], 1, 1, 400, page.chosen, VISITOR)
    assert len(again[ask.text].value) > len(cut[ask.text].value), "of the whole text"
    back = ask.take_back(again[ask.opened])
    assert back[ask.text].interactive
    assert back[ask.text].value == text
    assert (
        "There is no text to cut" in ask.cut_text(" ", "", None, WAYS[0], 1, 1, 300, page.chosen, VISITOR)[ask.status]
    )


def test_another_text_isnt_the_files(page):
    opened = Opened((Part("the text", "cut"),), (Part("the text", "the whole"),))
    for text in ("cut", "the whole"):
        assert page.ask.about not in page.ask.new_text(text, opened), "its own change, which may come late"
    over = page.ask.new_text("another", opened)
    assert over[page.ask.opened] is None
    assert over[page.ask.about] == ""


def test_needles_are_tested_one_by_one_and_in_a_grid_that_goes_on(page):
    needle, own = page.needle, [page.chosen, page.label, VISITOR]
    *_, shown, done = needle.run_one("filler", "single", ["rope", "lampe"], 0, 600, 0.5, "", "", "", *own)
    assert "Done." in done[needle.status]
    assert shown[needle.answers].count("<section") == 2
    assert shown[needle.placed][:2] == (page.chosen.config, 600)
    grid = ["filler", "single", ["lampe"], 0, "600", "0.1, 0.9", 1, ""]
    results = list(needle.run_grid(GridResults(), *grid, *own))[-1][needle.results]
    assert len(results.rows) == 2
    assert needle.tell_time(page.chosen, results, "600", "0.1, 0.9", 1, ["lampe"], "single", 0).count("is done") == 1
    (again,) = needle.run_grid(results, *grid, *own)
    assert again[needle.results] == results, "nothing was left to do"
    (refused,) = needle.run_grid(results, "filler", "numbers", *grid[2:], *own)
    assert "Save them and forget them first" in refused[needle.status]
    other = Chosen(page.chosen.model, lampe.LampeConfig(4096, 128, 64, 600))
    (refused,) = needle.run_grid(results, *grid, other, page.state.choose(other)[page.state.label], VISITOR)
    assert "read with other settings" in refused[needle.status]
    name, content = needle.in_file("JSONL", results)
    assert name.endswith(".jsonl")
    assert content.count("\n") == 2


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.label)
def test_each_scene_of_the_map_is_drawn(page, scene):
    *_, shown = page.map.show_scene(scene, False, page.chosen)
    drawn = page.map.redraw(
        VISITOR, True, "", "", page.chosen, *(shown[control] for control in page.map.controls.values())
    )
    assert drawn[page.map.message] == ""
    assert drawn[page.map.plots["distance"]].plot
    assert scene.look in html.unescape(shown[page.map.look])


def test_settings_that_allow_no_map_are_a_sentence_and_change_nothing_else(page):
    names = list(page.map.controls)
    values = dict(zip(names, page.controls, strict=True))
    shown = page.map.redraw(VISITOR, True, "", "", page.chosen, *(values | {"head": 8100}).values())
    assert list(shown) == [page.map.message]
    assert "must be less than the mapping length" in shown[page.map.message]


def test_the_map_follows_prompts_runs_and_pairs_of_the_other_tabs(page):
    tab = page.map
    assert tab.follow_prompt((900, 1024), True)[tab.planned] == 1024
    assert tab.length in tab.follow_prompt((900, 1024), False)
    attention = answered(page)[-1][page.state.attention]
    ran = tab.run_settings(attention, False)
    assert (ran[tab.length], ran[tab.planned]) == (attention.position_map.end, attention.position_map.length)
    assert (ran[tab.head], ran[tab.mapping]) == (128, 500)
    figure, table = tab.show_attention(attention, 99, False)
    assert "answer token" in table
    assert figure.plot
    shown = tab.show_pair((page.chosen.config, 900, 899, 100), False)
    assert (shown[tab.at_query], shown[tab.at_key]) == (899, 100)


def test_a_preset_is_opened_used_and_left_again(page, tmp_path):
    tab, mapping = page.calibration, page.mapping
    assert "No sweep of" in tab.show_own(page.chosen)[tab.sentence]
    path = tmp_path / "own.json"
    lampe.calibration.write_preset(made(), path)
    shown = tab.open_file(str(path))
    assert shown[tab.use].visible
    used = tab.use_it(shown[tab.opened], page.chosen, page.label)
    assert "for a window of" in used[tab.message] or used[page.state.chosen].config.basis == "family"
    published = mapping.publish(page.chosen, page.label)
    assert published[page.state.chosen].config != page.chosen.config
    assert published[mapping.back].visible
    assert mapping.leave(published[page.state.chosen], published[page.state.label])[page.state.chosen].config is None
    path.write_text("{}", encoding="utf-8")
    assert list(tab.open_file(str(path))) == [tab.message]


def test_a_model_that_isnt_offered_leaves_the_visitors_own(page):
    (refused,) = page.model_row.take("somebody/model", 16, page.chosen.model, VISITOR)
    assert "isn&#x27;t offered here" in refused[page.model_row.status]
    assert "Nothing has changed for you" in refused[page.model_row.status]
