"""What tests read off the playground: cards, titles, the history."""

import contextlib
import re
import time

from chromium import DESKTOP

TOKEN = "a-long-secret-token"
MARKUP = "<script>alert('a')</script> & | \u00e9"


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
