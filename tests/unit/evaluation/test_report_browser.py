"""The report in a real browser: offline, on a phone, on a dark screen and on paper."""

import io

import numpy as np
import pytest
from matplotlib.image import imread

from chromium import DESKTOP, MARKS, PHONE
from itemese.evaluation.report.write import render

pytestmark = MARKS
FOLDED = "[...document.querySelectorAll('details > :not(summary)')].map(e => e.checkVisibility())"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture
def opened(browser, tmp_path, four_results):
    """What opens the comparison on a screen; the page must not fail or ask for anything."""
    file = tmp_path / "report.html"
    file.write_text(render(four_results), encoding="utf-8")
    pages, faults, asked = [], [], []

    def show(viewport, scheme="light"):
        page = browser.new_page(viewport=viewport, color_scheme=scheme)
        pages.append(page)
        page.on("console", lambda said: faults.append(said.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        return page

    yield show
    for page in pages:
        page.close()
    assert not faults
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()] * len(pages)


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP])
def test_the_first_screen_holds_the_verdict_and_nothing_is_cut_off(opened, viewport):
    page = opened(viewport)
    box = page.locator(".verdict").bounding_box()
    assert box["y"] + box["height"] < viewport["height"]
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    sizes = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth])")
    assert len(sizes) == 8
    assert all(complete and width > 0 for complete, width in sizes)
    width = page.locator("figure img").first.bounding_box()["width"]
    assert width > (500 if viewport is DESKTOP else 330), "large enough to read"


def luminance(page):
    """Return the grey values of the first figure, from 0 to 255."""
    shot = page.locator("figure img").first.screenshot()
    return 255 * imread(io.BytesIO(shot))[..., :3].mean(axis=-1)


def test_a_dark_screen_has_dark_figures_with_light_text(opened):
    light, dark = (luminance(opened(DESKTOP, scheme)) for scheme in ("light", "dark"))
    assert np.median(light) > 250
    assert np.median(dark) < 40
    names = light.shape[1] // 6  # the left of the figure, where nothing but names of runs stands
    assert light[:, :names].min() < 80, "dark text on a light page"
    assert dark[:, :names].max() > 180, "light text on a dark page"


def test_a_print_is_light_and_opens_what_is_folded(opened):
    page = opened(DESKTOP, "dark")
    assert not any(page.evaluate(FOLDED))
    assert page.evaluate(BACKGROUND) != "rgb(255, 255, 255)"
    page.emulate_media(media="print")
    assert all(page.evaluate(FOLDED))
    assert page.evaluate(BACKGROUND) == "rgb(255, 255, 255)"
    assert np.median(luminance(page)) > 250, "figures are light too"


def test_what_is_folded_opens_by_its_line(opened):
    page = opened(PHONE)
    page.get_by_text("Semantic IDs: health of the codes").click()
    assert page.get_by_role("img", name="Figure: semantic_id_lm.").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.get_by_role("table", name="Items that share codes").is_visible()
