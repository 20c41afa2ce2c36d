"""What a link to the page shows elsewhere."""

from __future__ import annotations

import re

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from fastapi.testclient import TestClient

from app.web.card import DESCRIPTION, PICTURE, Card, described

PAGE = """<!doctype html><html lang="en"><head>
<meta property="og:title" content="Gradio" /><meta
  property="og:image"
  content="https://somewhere/else.jpg"
/><meta name="twitter:title" content="Gradio" /><style>a{}</style></head><body>og:title stays here</body></html>"""


def client():
    app = FastAPI()
    app.get("/", response_class=HTMLResponse)(lambda: PAGE)
    app.get("/other", response_class=HTMLResponse)(lambda: PAGE)
    app.get("/config")(lambda: {"head": PAGE})
    app.add_middleware(Card)
    return TestClient(app, base_url="https://lab.example")


def test_the_page_is_described_by_this_project_and_nobody_else():
    answer = client().get("/")
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert "Gradio" not in answer.text
    assert "somewhere/else" not in answer.text
    titles = re.findall(r'property="og:title" content="([^"]*)"', answer.text)
    assert titles == ["LaMPE Lab"]
    assert DESCRIPTION in answer.text
    assert f'property="og:image" content="https://lab.example{PICTURE}"' in answer.text
    assert "<body>og:title stays here</body>" in answer.text


def test_the_picture_is_there_and_other_addresses_stay_as_they_are():
    picture = client().get(PICTURE)
    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.content.startswith(b"\xff\xd8")
    assert len(picture.content) < 500_000
    assert client().get("/other").text == PAGE
    assert client().get("/config").json() == {"head": PAGE}


def test_no_address_is_a_tag():
    page = described(b"<head></head>", 'https://x"><script>alert(1)</script>').decode()
    assert "<script>" not in page


def test_what_is_to_run_first_comes_first():
    page = described(b"<head><script>2</script></head><body class=a>3", "https://x", "<script>1</script>", "<p>2</p>")
    assert page.startswith(b"<head><script>1</script><meta")
    assert page.endswith(b"<body class=a><p>2</p>3")
