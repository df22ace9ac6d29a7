"""The pages in a real browser: what they show, what they send, and to whom."""

import re
import shutil

import numpy as np
import pytest
import torch

from itemese.core.artifacts import Folder
from itemese.core.bundle import write_bundle
from itemese.core.vectors import SemanticIds
from itemese.serving.config import ServeArgs
from itemese.serving.registry import promote, try_out
from itemese.serving.replica import Replica

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (or Google Chrome) on the PATH"),
]
TOKEN = "a-long-secret-token"
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture
def registry(tmp_path, catalog):
    """A champion that counts up and a canary that counts down, both with semantic IDs."""
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [1, 2]], np.int32)
    places = []
    for name, counts in (("up", [1.0, 2, 3, 4, 5]), ("down", [5.0, 4, 3, 2, 1])):
        folder = Folder.at(tmp_path / name)
        write_bundle(
            folder,
            experiment={"name": name, "evaluation": {"exclude_seen": True}},
            method_config={"name": "popularity"},
            state={"count_of": torch.tensor(counts).double()},
            catalog=catalog,
            artifacts={"codebooks": SemanticIds(codes, (2, 3))},
            metrics={},
            ancestry={},
        )
        places.append(folder.uri)
    registry = Folder.at(tmp_path / "registry")
    promote(registry, places[0])
    try_out(registry, places[1], 0.5)
    return registry.uri


@pytest.fixture
def serving(listening):
    """What puts a replica of these settings behind a real server."""
    return lambda **args: listening(Replica(ServeArgs(log_requests=False, **args)))


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        # As root, which containers often are, Chromium has no sandbox of its own.
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page that must not fail, open a dialogue, or ask anybody but the service."""
    page = browser.new_page(viewport=DESKTOP)
    page.set_default_timeout(20_000)
    faults, asked = [], []
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    origin = re.match(r"http://[^/]+/", page.url)[0]
    page.close()
    assert not faults
    assert all(url.startswith(origin) for url in asked), asked


def test_a_pasted_history_is_answered_by_champion_and_canary_side_by_side(page, registry, serving):
    with serving(bundle=registry) as url:
        page.goto(url)
        assert "5 items" in page.get_by_role("status").first.text_content()
        page.get_by_label("Or paste item ids").fill("c, a\nzz")
        page.get_by_role("button", name="Add these").click()
        listed = page.get_by_role("list", name="History, oldest first").get_by_role("button")
        assert listed.all_text_contents() == ["c", "a", "zz"]
        page.locator("#status", has_text="zz").wait_for()
        page.locator("#other-status", has_text="zz").wait_for()
        told = {}
        for name in ("Recommended items", "Items recommended by the canary"):
            items = page.get_by_role("list", name=name).get_by_role("listitem")
            told[name] = items.all_text_contents()
        champion, canary = told.values()
        assert champion[0] == (
            "Epsilone · score 4.0000Codes 1 2 Shares 1 code with c, seen beforeSiblings: c · Delta"
        )
        assert "score 3.0000Codes 0 1 Shares 1 code with Alpha" in canary[0]
        assert len(champion) == len(canary) == 3, "side by side"
        boxes = [page.locator(place).bounding_box() for place in ("#items", "#other-items")]
        assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
        said = page.locator("#status").text_content()
        assert re.match(r"up@\w+: [\d.]+ ms in the service, \d+ ms here; unknown: zz\.", said)
        page.get_by_role("button", name="Clear").click()
        page.locator("#status", has_text="popular").wait_for()


def test_the_keyboard_is_enough(page, registry, serving):
    with serving(bundle=registry) as url:
        page.goto(url)
        page.keyboard.press("Tab")
        page.keyboard.type("SCRIPT")
        found = page.get_by_role("list", name="Items found").get_by_role("button")
        assert found.text_content() == "<script>alert('a')</script> & | \u00e9", "text, not markup"
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        assert focused.text_content() == found.text_content()
        assert focused.evaluate("e => getComputedStyle(e).outlineStyle") == "solid", "it is seen"
        page.keyboard.press("Enter")
        taken = page.get_by_role("button", name="Take out <script>")
        assert taken.text_content() == found.text_content()
        page.locator("#status", has_not_text="popular").wait_for()
        page.get_by_role("button", name="Add Delta to the history").first.press("Enter")
        page.get_by_role("button", name="Take out Delta").press("Space")
        assert page.get_by_role("list", name="History").get_by_role("listitem").count() == 1
        nameless = page.locator("button, input, textarea, a").evaluate_all(
            "all => all.filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() ||"
            " [...(e.labels || [])].some(l => l.textContent.trim()))).map(e => e.outerHTML)"
        )
        assert nameless == []


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_hangs_over_the_edge(page, registry, size, serving):
    page.set_viewport_size(size)
    with serving(bundle=registry) as url:
        page.goto(url)
        page.get_by_role("listitem").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_token_is_asked_for_and_sent(browser, bundle_of, serving):
    page = browser.new_page()
    with serving(bundle=bundle_of(), token=TOKEN) as url:
        page.goto(url)
        page.get_by_text("`Authorization` must be").first.wait_for()
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Tab")
        page.get_by_role("list", name="Recommended").get_by_role("listitem").first.wait_for()
        assert page.get_by_role("heading", name="The canary's answer").is_hidden()
        page.goto(f"{url}/docs")
        page.get_by_role("button", name="Authorize").wait_for()
    page.close()


def test_the_documentation_shows_every_address(page, registry, serving):
    with serving(bundle=registry) as url:
        page.goto(f"{url}/docs")
        page.locator(".opblock-summary-path", has_text="/v1/score").wait_for()
        spec = page.request.get(f"{url}/openapi.json").json()
        operations = sum(len(operations) for operations in spec["paths"].values())
        assert page.locator(".opblock").count() == operations
