"""The playground in a real browser: search, cards, two lists, filters."""

from urllib.parse import quote

from chromium import MARKS, PHONE
from playground import MARKUP, history, opened, shown

pytestmark = MARKS


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


def test_a_copied_item_names_what_it_follows(page, copying_bundle, serving):
    with serving(bundle=copying_bundle) as url:
        page.goto(f"{url}/#h=d&h=a")
        card = page.locator("li.card", has=page.get_by_role("heading", name=MARKUP))
        card.get_by_text("ften follows Alpha (").wait_for()
        assert page.locator(".place.coloured").count() == 0, "no codes, no colours"


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
