"""The playground in a real browser: links, requests as code, failures, screens; the API's page."""

import json
import os
import re
import shutil
import subprocess
import sys
from urllib.parse import quote

import pytest

from chromium import DESKTOP, MARKS, NARROW, PHONE
from playground import MARKUP, TOKEN, cards, history, opened, shown

pytestmark = MARKS


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
