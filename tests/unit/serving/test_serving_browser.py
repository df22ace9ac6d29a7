"""The pages in a real browser: what they show, what they send, and to whom."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from urllib.parse import quote

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
MARKUP = "<script>alert('a')</script> & | \u00e9"
CODES = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [1, 2]], np.int32)
NARROW, PHONE, DESKTOP = (
    {"width": 360, "height": 740},
    {"width": 390, "height": 844},
    {"width": 1280, "height": 900},
)


@pytest.fixture
def bundle_with_codes(tmp_path, catalog):
    """Write a bundle with semantic IDs into a folder of that name and return its URI."""

    def make(name, method, state):
        folder = Folder.at(tmp_path / name)
        write_bundle(
            folder,
            experiment={"name": name, "evaluation": {"exclude_seen": True}},
            method_config=method,
            state=state,
            catalog=catalog,
            artifacts={"codebooks": SemanticIds(CODES, (2, 3))},
            metrics={},
            ancestry={},
        )
        return folder.uri

    return make


@pytest.fixture
def registry(tmp_path, bundle_with_codes):
    """A champion that counts up and a canary that counts down, both with semantic IDs."""
    places = [
        bundle_with_codes(name, {"name": "popularity"}, {"count_of": torch.tensor(counts).double()})
        for name, counts in (("up", [1.0, 2, 3, 4, 5]), ("down", [5.0, 4, 3, 2, 1]))
    ]
    registry = Folder.at(tmp_path / "registry")
    promote(registry, places[0])
    try_out(registry, places[1], 0.5)
    return registry.uri


@pytest.fixture
def neighbours(bundle_with_codes):
    """A bundle whose answers rest on the history: a and b lead to d, a little; c leads to e."""
    state = {
        "neighbor": torch.tensor([[3], [3], [4], [0], [0]]),
        "weight": torch.tensor([[0.4], [0.4], [0.6], [0.0], [0.0]]),
        "fallback": torch.tensor([0.003, 0.002, 0.0015, 0.001, 0.0005]),
    }
    return bundle_with_codes("knn", {"name": "item_knn", "decay": 1.0}, state)


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


@contextlib.contextmanager
def opened(browser, *, may_fail, **options):
    """Open a page that must not raise, open a dialogue, or ask anyone but the service."""
    page = browser.new_page(viewport=DESKTOP, **options)
    page.set_default_timeout(20_000)
    faults, asked = [], []

    def note(said):
        refused = said.text.startswith("Failed to load resource")
        if said.type in ("error", "warning") and not (may_fail and refused):
            faults.append(said.text)

    page.on("console", note)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    origin = re.match(r"http://[^/]+/", page.url)[0]
    page.close()
    assert not faults
    assert all(url.startswith(origin) for url in asked), asked


@pytest.fixture
def page(browser):
    """A page whose requests must all succeed."""
    with opened(browser, may_fail=False) as page:
        yield page


@pytest.fixture
def failing_page(browser):
    """A page whose requests may be refused."""
    with opened(browser, may_fail=True) as page:
        yield page


def cards(page, name):
    return page.get_by_role("list", name=name).locator("> li")


def shown(page, name, *titles):
    """Wait until a list shows items of these titles, and is not busy; return their cards."""
    found, deadline = None, time.monotonic() + 20
    while found != list(titles):
        assert time.monotonic() < deadline, f"{name}: {found}"
        page.wait_for_timeout(30)  # a wait in the page itself would need eval, which it forbids
        found = page.evaluate(_TITLES, name)
    return cards(page, name)


_TITLES = """(name) => {
  const isMeant = (section) => section.querySelector("h3").textContent.includes(name);
  const section = [...document.querySelectorAll("#columns > section")].find(isMeant);
  if (!section || section.querySelector("[aria-busy]")) return null;
  return [...section.querySelectorAll("h4")].map((title) => title.textContent);
}"""


def history(page):
    rows = page.get_by_role("list", name="History, oldest first").locator("> li > span")
    return rows.all_text_contents()


def test_search_works_with_the_keyboard(page, neighbours, serving):
    with serving(bundle=neighbours) as url:
        page.goto(url)
        field = page.get_by_role("combobox", name="Find an item")
        options = page.get_by_role("listbox", name="Items found").get_by_role("option")
        shown(page, "Most popular items", MARKUP, "Delta", "c", "Alpha", "Epsilon")
        field.focus()
        assert field.evaluate("e => getComputedStyle(e).outlineStyle") == "solid", "it is seen"
        page.keyboard.type("L")
        options.nth(2).wait_for()
        page.keyboard.type("TA")
        page.get_by_text("1 item found").wait_for(state="attached")
        assert options.locator(".title").all_text_contents() == ["Delta"]
        assert field.get_attribute("aria-expanded") == "true"
        assert field.get_attribute("aria-activedescendant") is None
        page.keyboard.press("Escape")
        assert field.get_attribute("aria-expanded") == "false"
        assert field.input_value() == "LTA"
        page.keyboard.press("Escape")
        assert field.input_value() == ""

        page.keyboard.type("l")
        options.nth(2).wait_for()
        order = options.locator(".title").all_text_contents()
        assert order == [MARKUP, "Delta", "Alpha", "Epsilon"][: len(order)], "text, not markup"
        for key, place in (("ArrowDown", 0), ("ArrowDown", 1), ("ArrowUp", 0), ("ArrowUp", -1)):
            page.keyboard.press(key)
            active = field.get_attribute("aria-activedescendant")
            assert page.locator(f"[id='{active}'] .title").text_content() == order[place], key
            assert options.locator("xpath=self::*[@aria-selected='true']").count() == 1
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        assert history(page) == [MARKUP]
        page.keyboard.type("Delta")
        page.keyboard.press("Enter")  # before its list is there
        page.get_by_role("button", name="Remove Delta").press("Enter")
        field.focus()
        page.keyboard.type("Script")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Remove <script>").nth(1).press("Enter")
        assert history(page) == [MARKUP]
        field.focus()
        assert page.locator("#done").text_content().startswith(f"Removed {MARKUP}. 1 item in")
        assert field.input_value() == ""
        assert field.evaluate("e => e === document.activeElement")

        page.keyboard.type("nothing at all")
        page.get_by_text("No item contains \u201cnothing at all\u201d").first.wait_for()
        remove = page.get_by_role("button", name="Remove <script>")
        remove.focus()
        page.keyboard.press("Space")
        assert history(page) == []
        assert page.locator("#search").evaluate("e => e === document.activeElement")


def test_an_item_is_found_with_a_finger(browser, neighbours, serving):
    with (
        serving(bundle=neighbours) as url,
        opened(browser, may_fail=False, has_touch=True) as page,
    ):
        page.set_viewport_size(PHONE)
        page.goto(url)
        page.get_by_role("combobox", name="Find an item").tap()
        page.keyboard.type("eps")
        page.get_by_role("option", name="Epsilon").tap()
        shown(page, "knn", "Alpha", MARKUP, "c", "Delta")
        assert history(page) == ["Epsilon"]
        assert not page.get_by_label("Number of items").is_visible(), "the items come first"


def test_every_control_has_a_name_and_the_skip_link_keeps_the_state(page, registry, serving):
    with serving(bundle=registry) as url:
        page.goto(f"{url}/#h=c")
        shown(page, "Champion", "Epsilon", "Delta", MARKUP, "Alpha")
        nameless = page.locator("button, input, textarea, select, a, summary").evaluate_all(
            "all => all.filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() ||"
            " [...(e.labels || [])].some(l => l.textContent.trim()))).map(e => e.outerHTML)"
        )
        assert nameless == []
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.locator(":focus").text_content() == "Recommendations"
        assert page.url.endswith("#h=c")
        page.get_by_role("button", name="Add Delta to the history").first.press("Enter")
        shown(page, "Champion", "Epsilon", MARKUP, "Alpha")
        assert page.locator(":focus").evaluate("e => e.matches('.add')"), "the focus stays there"


def test_cards_say_in_words_what_they_rest_on(page, neighbours, serving):
    with serving(bundle=neighbours) as url:
        page.goto(f"{url}/#h=a&h=b&h=c")
        found = shown(page, "knn", "Delta", "Epsilon")
        reasons = found.locator(".reason")
        reasons.first.get_by_text("Because of").wait_for()
        assert reasons.all_text_contents() == [
            f"Because of {MARKUP} and Alpha; shares group 1 with c.",
            "Shares group 1 with c.",
        ]
        found.first.get_by_text("Details").click()
        assert found.first.locator(".more li").all_text_contents() == [
            f"Without {MARKUP}: place 2 instead of 1.",
            "Without Alpha: place 2 instead of 1.",
            "Semantic ID: 1-1",
            "Group 1 has c too.",
            "Group 1 has Epsilon too.",
        ]
        page.get_by_label("Give reasons").uncheck()
        page.locator(".reason", has_text="Shares").first.wait_for(state="detached")
        assert page.url.endswith("#h=a&h=b&h=c&reasons=no")
        page.get_by_role("button", name="Clear").click()
        found = shown(page, "Most popular items", MARKUP, "Delta", "c", "Alpha", "Epsilon")
        first = found.first.locator(".reason").text_content()
        assert first == "One of the most popular items: 50 events in training."


def test_champion_and_challenger_stand_side_by_side(page, registry, serving):
    with serving(bundle=registry) as url:
        page.goto(url)
        page.get_by_text("Paste your own history").click()
        page.get_by_label("Item ids or whole titles").fill("c, a\nzz")
        page.get_by_role("button", name="Use this history").click()
        champion = shown(page, "Champion", "Epsilon", "Delta", MARKUP)
        challenger = shown(page, "Challenger", MARKUP, "Delta", "Epsilon")
        assert history(page) == ["c", "Alpha", "zz not in the catalogue, ignored"]
        page.get_by_text("3 of 3 items are in both lists", exact=True).wait_for()
        there = ["In both lists, place 3 there", "In both lists, same place"]
        assert champion.locator(".agrees").all_text_contents() == [
            *there,
            there[0][:-7] + "1 there",
        ]
        assert challenger.locator(".agrees:visible").count() == 3
        heading = page.get_by_role("heading", name="Challenger down@")
        assert heading.is_visible()
        boxes = [page.locator(place).bounding_box() for place in ("#first", "#second")]
        assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
        page.get_by_label("Compare with").select_option("none")
        heading.wait_for(state="hidden")
        page.locator("#first .agrees").first.wait_for(state="hidden")


def test_one_model_stands_beside_the_popular_items(page, neighbours, serving):
    with serving(bundle=neighbours) as url:
        page.goto(f"{url}/#h=a&h=c&k=2")
        shown(page, "knn", "Epsilon", "Delta")
        assert page.get_by_text("The service has one model.").is_visible()
        page.get_by_label("Compare with").select_option("popular")
        popular = shown(page, "Most popular items", MARKUP, "Delta")
        page.get_by_text("1 of 2 items are in both lists", exact=True).wait_for()
        assert popular.locator(".agrees:visible").all_text_contents() == [
            "In both lists, same place"
        ]
        assert page.url.endswith("#h=a&h=c&k=2&with=popular")


def test_where_popularity_answers_it_is_no_comparison(page, bundle_of, serving):
    with serving(bundle=bundle_of()) as url:
        page.goto(f"{url}/#h=a&with=canary")
        page.get_by_text("The link asks for a challenger").wait_for()
        shown(page, "tiny", "Epsilon", "Delta", "c", MARKUP)
        assert page.get_by_label("Compare with").locator("option").all_text_contents() == [
            "Nothing"
        ]
        assert page.get_by_text("This model is the list of popular items").is_visible()
        kept = "Keeps its place without any one item of the history."
        page.get_by_text(kept).first.wait_for()


def test_filters_are_chosen_shown_and_cleared(page, neighbours, serving):
    with serving(bundle=neighbours) as url:
        page.goto(f"{url}/#h=e")
        shown(page, "knn", "Alpha", MARKUP, "c", "Delta")
        page.locator("#filters summary", has_text="genres").click()
        page.get_by_role("checkbox", name="Drama").check()
        shown(page, "knn", "Alpha", MARKUP)
        page.locator("#filters summary", has_text="free").click()
        page.get_by_role("checkbox", name="false").check()
        shown(page, "knn", MARKUP)
        used = page.get_by_role("list", name="Filters in use").get_by_role("listitem")
        assert [text[:-1] for text in used.all_text_contents()] == ["genres: Drama", "free: false"]
        wanted = quote('{"genres":["Drama"],"free":[false]}', safe="*-._")
        assert page.url.endswith(f"#h=e&filter={wanted}")
        page.get_by_role("button", name="Remove the filter free: false").click()
        shown(page, "knn", "Alpha", MARKUP)
        page.locator("#filters summary", has_text="year").click()
        page.get_by_role("checkbox", name="1999").check()
        page.get_by_text("No item passes these filters.").wait_for()
        page.get_by_role("button", name="Clear filters").click()
        shown(page, "knn", "Alpha", MARKUP, "c", "Delta")
        assert not page.get_by_role("checkbox", name="Drama").is_checked()


def test_a_value_that_is_not_listed_can_be_typed(page, neighbours, serving):
    listed = [{"value": "Comedy", "num_items": 2}]
    columns = [{"name": "genres", "num_values": 2, "values": listed}]
    with serving(bundle=neighbours) as url:
        page.route("**/v1/filters", lambda route: route.fulfill(json={"columns": columns}))
        page.goto(f"{url}/#h=e")
        page.locator("#filters summary", has_text="genres").click()
        page.get_by_label("Another of 2 values").fill("Drama")
        page.keyboard.press("Enter")
        shown(page, "knn", "Alpha", MARKUP)
        page.get_by_role("button", name="Remove the filter genres: Drama").click()
        shown(page, "knn", "Alpha", MARKUP, "c", "Delta")


def test_a_link_brings_everything_back(page, neighbours, serving):
    link = "#h=a&h=c&k=1&filter=%7B%22year%22%3A%5B1999%2C1991%5D%7D&with=popular&reasons=no"
    with serving(bundle=neighbours) as url:
        page.goto(f"{url}/{link}")
        shown(page, "knn", "Epsilon")
        shown(page, "Most popular items", MARKUP)
        assert history(page) == ["Alpha", "c"]
        assert page.get_by_label("Number of items").input_value() == "1"
        assert page.get_by_label("Compare with").input_value() == "popular"
        assert not page.get_by_label("Give reasons").is_checked()
        page.get_by_label("Number of items").fill("2")
        page.get_by_label("Number of items").press("Enter")
        shown(page, "knn", "Epsilon", MARKUP)
        assert page.url.endswith(link.replace("k=1", "k=2"))
        page.reload()
        shown(page, "knn", "Epsilon", MARKUP)
        page.evaluate("location.hash = '#h=b&k=900&filter=[[1]]'")
        page.get_by_text("The link asks for 900 items; 1 to 50 are possible.").wait_for()
        assert page.get_by_text("The filter of the link cannot be read").is_visible()
        shown(page, "knn", "Delta", "Alpha", "c", "Epsilon")


def test_example_users_are_made_of_popular_items(page, neighbours, serving):
    with serving(bundle=neighbours) as url:
        page.goto(url)
        examples = page.get_by_role("list", name="Example users").get_by_role("button")
        examples.first.wait_for()
        assert examples.locator("b").all_text_contents() == ["Comedy", "Drama", "Popular items"]
        page.get_by_role("button", name="Comedy").click()
        shown(page, "knn", "Epsilon", "Delta", "Alpha")
        assert history(page) == [MARKUP, "c"]
        assert not examples.first.is_visible(), "the answer matters now"


def test_the_requests_shown_run_elsewhere(failing_page, neighbours, serving):
    page = failing_page
    strange = quote('it\'s "$HOME" \\ \u00e9', safe="")
    wanted = quote('{"genres":["Drama","Comedy"],"free":[false]}')
    environment = {**os.environ, "ITEMESE_TOKEN": TOKEN, "PYTHONPATH": os.pathsep.join(sys.path)}

    def run(*command):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with serving(bundle=neighbours, token=TOKEN) as url:
        page.goto(f"{url}/#h=a&h={strange}&filter={wanted}&k=3")
        page.get_by_role("button", name="Enter the token").click()
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Use this token").click()
        shown(page, "knn", MARKUP)
        page.locator("#code", has_text="ITEMESE_TOKEN").wait_for()
        shell = page.locator("#code").text_content()
        page.get_by_role("tab", name="curl").focus()
        page.keyboard.press("ArrowRight")
        assert page.get_by_role("tab", name="Python").get_attribute("aria-selected") == "true"
        program = page.get_by_role("tabpanel", name="Python").text_content()
        assert TOKEN not in shell + program
        assert TOKEN not in page.url
        printed = run(sys.executable, "-c", program)
        assert re.fullmatch(r"0\.002\d* b " + re.escape(MARKUP) + "\n", printed), printed
        if shutil.which("curl"):
            answer = json.loads(run("bash", "-c", shell))
            assert [item["item_id"] for item in answer["items"]] == ["b"]
            assert answer["unknown_items"] == ['it\'s "$HOME" \\ \u00e9']


def test_a_busy_service_is_asked_again_and_the_person_is_informed(
    failing_page, neighbours, serving
):
    page, refused = failing_page, []
    error = {"error": {"code": "unavailable", "message": "Busy.", "field": None, "request_id": "1"}}

    def refuse(route):
        refused.append(route.request.url)
        if len(refused) in (1, 3, 4, 5):
            route.fulfill(status=503, json=error, headers={"Retry-After": "1"})
        else:
            route.continue_()

    with serving(bundle=neighbours) as url:
        page.route("**/v1/recommend", refuse)
        page.goto(f"{url}/#h=c&reasons=no")
        page.get_by_text("The service is busy. The page asks again in 1 second.").wait_for()
        shown(page, "knn", "Epsilon", "Alpha", MARKUP, "Delta")
        assert page.locator("#first .notice").is_hidden()
        page.get_by_label("Number of items").fill("1")
        page.get_by_label("Number of items").press("Enter")
        page.get_by_text("The service is overloaded: it refused 3 attempts.").wait_for()
        assert cards(page, "knn").count() == 0, "no answer to an earlier request stays"
        page.get_by_role("button", name="Try again").click()
        shown(page, "knn", "Epsilon")
        assert len(refused) == 6


def test_failures_are_said_in_words(failing_page, neighbours, serving):
    page = failing_page
    with serving(bundle=neighbours) as url:
        page.goto(f"{url}/#h=c&filter=%7B%22genre%22%3A%5B%22x%22%5D%7D")
        alert = page.get_by_role("alert")
        alert.get_by_text("must be a column of the catalogue").wait_for()
        assert alert.locator("code").first.text_content() == "filter.genre"
        page.get_by_role("button", name="Clear filters").click()
        shown(page, "knn", "Epsilon", "Alpha", MARKUP, "Delta")
        page.route("**/v1/recommend/batch", lambda route: route.abort())
        page.get_by_label("Number of items").fill("1")
        page.get_by_label("Number of items").press("Enter")
        alert.get_by_text("The reasons are missing. The service does not answer.").wait_for()
        assert cards(page, "knn").count() == 1, "the answer stays"
        page.route("**/v1/**", lambda route: route.abort())
        page.get_by_label("Number of items").fill("2")
        page.get_by_label("Number of items").press("Enter")
        alert.get_by_text(f"Check that it runs at {url}, then try again.").first.wait_for()
        page.unroute_all()
        page.get_by_role("button", name="Try again").click()
        shown(page, "knn", "Epsilon", "Alpha")


def test_the_token_is_asked_for_and_sent(failing_page, bundle_of, serving):
    page = failing_page
    with serving(bundle=bundle_of(), token=TOKEN) as url:
        page.goto(f"{url}/#h=a")
        page.get_by_text("This service answers with a token only.").wait_for()
        page.get_by_role("button", name="Enter the token").click()
        assert page.locator(":focus").get_attribute("id") == "token"
        page.keyboard.type("another")
        page.keyboard.press("Enter")
        page.get_by_text("The service refuses this token.").wait_for()
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        shown(page, "tiny", "Epsilon", "Delta", "c", MARKUP)
        page.goto(f"{url}/docs")
        page.get_by_role("button", name="Authorize").wait_for()


@pytest.mark.parametrize("size", [NARROW, PHONE, DESKTOP], ids=["narrow", "phone", "desktop"])
def test_nothing_hangs_over_the_edge(page, registry, size, serving):
    page.set_viewport_size(size)
    with serving(bundle=registry) as url:
        page.goto(f"{url}/#h=c&h={'long' * 40}")
        shown(page, "Champion", "Epsilon", "Delta", MARKUP, "Alpha")
        page.evaluate("for (const e of document.querySelectorAll('details')) e.open = true")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        small = page.locator("button:visible, select:visible").evaluate_all(
            "all => all.filter(e => e.getBoundingClientRect().height < 24).map(e => e.outerHTML)"
        )
        assert small == [], "large enough for a finger"


def test_light_and_dark_follow_the_system_or_the_person(browser, registry, serving):
    with (
        serving(bundle=registry) as url,
        opened(browser, may_fail=False, color_scheme="dark", reduced_motion="reduce") as page,
    ):
        page.goto(f"{url}/#h=c")
        shown(page, "Champion", "Epsilon", "Delta", MARKUP, "Alpha")
        assert page.locator(".cards").first.evaluate(_CONTRAST)[1] > 4.5

        def ground():
            return page.evaluate("getComputedStyle(document.body).backgroundColor")

        dark, toggle = ground(), page.get_by_role("button", name="Dark")
        assert toggle.get_attribute("aria-pressed") == "true"
        moving = "e => getComputedStyle(e).transitionDuration"
        assert page.locator(".cards").first.evaluate(moving) == "0s"
        toggle.click()
        light = ground()
        assert light != dark
        assert toggle.get_attribute("aria-pressed") == "false"
        assert page.locator(".cards").first.evaluate(_CONTRAST)[1] > 4.5
        page.reload()
        assert ground() == light, "it is remembered"


_CONTRAST = """() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map((c) => c / 255)
      .map((c) => (c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = (e) => {
    const ground = getComputedStyle(e).backgroundColor;
    return ground.startsWith("rgba(0, 0, 0, 0") ? behind(e.parentElement) : ground;
  };
  const found = [...document.querySelectorAll("main *, header *")]
    .filter((e) => e.checkVisibility())
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((e) => {
      const [one, two] = [light(getComputedStyle(e).color), light(behind(e))];
      return [e.outerHTML.slice(0, 80), (Math.max(one, two) + .05) / (Math.min(one, two) + .05)];
    });
  return found.sort((one, two) => one[1] - two[1])[0];
}"""
"""Returns the element with the least contrast between text and ground, and that contrast."""


def test_the_documentation_shows_every_address(page, registry, serving):
    with serving(bundle=registry) as url:
        page.goto(f"{url}/docs")
        page.locator(".opblock-summary-path", has_text="/v1/score").wait_for()
        spec = page.request.get(f"{url}/openapi.json").json()
        operations = sum(len(operations) for operations in spec["paths"].values())
        assert page.locator(".opblock").count() == operations
