"""The server's page in a real Chromium: a dropped picture, its answers, and the batcher's state as it changes."""

from __future__ import annotations

import base64
import hashlib
import re

import numpy as np
import pytest
from PIL import Image

import toolkit
from tests.serve.chromium import Page
from tests.serve.serving import infer
from toolkit.serve.page import PAGE

DD = "document.querySelector('[data-model=\\'[\"net\",\"3\"]\\'] [data-name=\"{}\"] dd').textContent"
SAID = "document.getElementById('said').textContent"
ROWS = "[...document.querySelectorAll('#answers tr')].map(row => [row.cells[0].textContent, row.cells[1].firstChild.value])"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    made = Page(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    file = tmp_path_factory.mktemp("pictures") / "boot.png"
    values = np.random.default_rng(1).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(values).save(file)
    return file


def test_it_takes_a_picture_and_shows_the_answers_and_the_state_live(page, server, engines, images, picture):
    with toolkit.load(engines / "fp32", threads=1) as runner:
        [expected] = runner.classify(picture)
    page.go(server.url + "/")
    page.until("document.querySelectorAll('#model option').length === 3")
    page.run("document.getElementById('model').selectedIndex = 1")
    assert page.run("document.getElementById('model').value") == '["net","3"]'
    page.drop("#drop", picture)
    page.until("document.querySelectorAll('#answers tr').length === 5")
    found = page.run(ROWS)
    assert [label for label, _ in found] == [p.label for p in expected]
    np.testing.assert_allclose([value for _, value in found], [p.probability for p in expected], rtol=0, atol=0)
    assert "net version 3" in page.until(f"{SAID}.includes('ms') && {SAID}")
    assert page.run("document.getElementById('preview').naturalWidth") == 28

    page.until(f"+{DD.format('requests')} >= 1")
    before = page.run(f"+{DD.format('requests')}")
    for i in range(5):
        server.ask("POST", "/v2/models/net/infer", infer(images[i : i + 4]))
    page.until(f"+{DD.format('requests')} === {before + 5}")
    assert page.run(DD.format("full batch")) == "8"
    assert re.fullmatch(r"0 of \d+", page.run(DD.format("waiting")))
    assert page.until(f"{DD.format('p99')} !== '–' && {DD.format('p99')}").endswith("s")
    assert 1 <= float(page.run(DD.format("images a batch"))) <= 4

    page.choose("#file", picture)
    page.until("document.querySelectorAll('#answers tr').length === 5")
    assert page.complaints() == []
    assert {url for url in page.asked() if not url.startswith((server.url + "/", "blob:"))} == set()


def test_what_is_no_picture_is_said_and_the_page_goes_on(page, server, picture, tmp_path):
    page.go(server.url + "/")
    page.until("document.querySelectorAll('#model option').length === 3")
    (tmp_path / "text.png").write_text("not a picture")
    page.drop("#drop", tmp_path / "text.png")
    assert "cannot be read as an image" in page.until(f"document.getElementById('said').className && {SAID}")
    assert page.run("document.querySelectorAll('#answers tr').length") == 0
    page.drop("#drop", picture)
    page.until("document.querySelectorAll('#answers tr').length === 5")


def test_of_several_pictures_the_first_is_answered_and_it_is_said(page, server, picture, tmp_path):
    page.go(server.url + "/")
    page.until("document.querySelectorAll('#model option').length === 3")
    (tmp_path / "text.png").write_text("not a picture")
    page.drop("#drop", picture, tmp_path / "text.png")
    assert "the first of 2 files" in page.until(f"{SAID}.includes('ms') && {SAID}")
    assert page.run("document.querySelectorAll('#answers tr').length") == 5


def test_an_answer_to_an_earlier_picture_comes_too_late(page, server, picture):
    page.go(server.url + "/")
    page.until("document.querySelectorAll('#model option').length === 3")
    page.run("""{
        const real = window.fetch;
        let first = true;
        window.fetch = (path, how) => {
            if (!how || !first) return real(path, how);
            first = false;
            const late = {model_name: "late", model_version: "0", predictions: [{label: "late", probability: 1}]};
            return new Promise(done => { window.release = () => done(new Response(JSON.stringify(late))); });
        };
    }""")
    for _ in range(2):
        page.drop("#drop", picture)
    page.until("document.querySelectorAll('#answers tr').length === 5")
    page.run("window.release(); new Promise(done => setTimeout(done, 100))")
    assert page.run("document.querySelectorAll('#answers tr').length") == 5
    assert "net version" in page.run(SAID)


def test_what_is_dropped_beside_does_not_take_the_browser_away_and_what_it_cannot_show_is_not_shown(page, server, tmp_path):
    page.go(server.url + "/")
    page.until("document.querySelectorAll('#model option').length === 3")
    (tmp_path / "text.png").write_text("not a picture")
    page.drop("h1", tmp_path / "text.png")
    assert page.run("location.pathname") == "/"
    page.drop("#drop", tmp_path / "text.png")
    page.until("document.getElementById('said').className")
    page.until("!document.getElementById('preview').hasAttribute('src')")


def test_it_fits_a_phone_and_hostile_names_are_text(page, server):
    page.go(server.url + "/")
    page.until("document.querySelectorAll('section.model').length === 3")
    page.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    page.run("show([{label: '<img src=x onerror=document.title=1>' + 'w'.repeat(300), probability: 0.5}])")
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert page.run("document.querySelectorAll('#answers img').length") == 0
    page.call("Emulation.clearDeviceMetricsOverride")


def test_it_is_one_file_and_its_policy_runs_its_own_script_alone(server):
    reply = server.ask("GET", "/")
    text = reply.body.decode()
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//|@import|url\(""", text)
    policy = dict(part.split(" ", 1) for part in reply.headers["Content-Security-Policy"].split("; "))
    [script] = re.findall("<script>(.*?)</script>", text, re.S)
    assert policy["script-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    assert policy["default-src"] == "'none'"
    assert len(PAGE.body) < 20_000
