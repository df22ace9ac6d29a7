"""The report page: complete, offline, and safe with hostile text."""

import base64
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest

from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError, ConfigError
from itemese.evaluation.report import html as html_page
from itemese.evaluation.report import plots
from itemese.evaluation.report.write import render, write_report

VOID = {"meta", "img", "br"}
BESIDE = "Settings and provenance of "


class Tree(HTMLParser):
    """Collects tags, images and text, and checks that tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.images, self.text, self.attributes = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(html):
    tree = Tree()
    tree.feed(html)
    assert tree.open == []
    return tree


def headings(html):
    return re.findall(r"<h2[^>]*>(.*?)</h2>", html)


def folded(html):
    return re.findall(r"<summary>(.*?)</summary>", html)


def test_all_sections_of_a_comparison(four_results):
    html = render(four_results)
    assert headings(html) == ["Leaderboard", "Figures", "Details"]
    assert folded(html) == [
        "Protocol",
        "All figures of each run",
        "Groups of users and items",
        "Semantic IDs: health of the codes",
        "Checks",
        *[BESIDE + n for n in ("transition_graph", "sasrec", "semantic_id_lm", "popularity")],
    ]
    assert html.index('class="verdict"') < html.index("Leaderboard")
    text = " ".join(parse(html).text)
    for fact in (
        "0.0868 [0.0828-0.0908]",
        "semantic_id_lm is behind the baseline transition_graph in ndcg@10",
        "9f3a1c5577aa01be",
        "leave_one_out",
        "seen items allowed",
        "8.30%",
        "62.0%",
        "201.3",
        "beam_width 50",
        "sequences/a1b2c3d4e5f60718",
        "python jobs/train.py jobs/recipes/sasrec_beauty.yaml",
        "Seeds: 0",
        "61.0%",
    ):
        assert fact in text, fact


def test_every_figure_is_an_inline_svg_with_a_caption(four_results):
    images = parse(render(four_results)).images
    assert len(images) == 8, "2 forests, slices, 2 curves, codes, 2 trade-offs"
    for image in images:
        kind, data = image["src"].split(",", 1)
        assert kind == "data:image/svg+xml;base64"
        assert ElementTree.fromstring(base64.b64decode(data)).tag.endswith("svg")
        assert image["alt"]


def test_page_makes_no_request_and_forbids_scripts(four_results):
    html = render(four_results)
    tree = parse(html)
    assert not {"script", "link", "iframe", "object"} & set(tree.tags)
    links = [v for name, v in tree.attributes if name in {"src", "href", "srcset", "style"}]
    assert links
    assert all(link.startswith("data:") for link in links)
    assert "url(" not in html
    assert "@import" not in html
    assert ("content", "width=device-width, initial-scale=1") in tree.attributes
    policy = [v for n, v in tree.attributes if n == "content" and v and "default-src 'none'" in v]
    assert len(policy) == 1
    assert "script-src" not in policy[0]


def test_hostile_text_stays_text(make_result):
    evil = '</td><script>alert(1)</script><img src=x onerror="alert(1)"> $\\frac{'
    result = make_result(
        evil,
        0.1,
        0.05,
        method=evil,
        command=evil,
        facts={evil: evil},
        environment={evil: evil},
        artifacts={evil: evil},
        recipe={evil: [evil, {"a": evil}]},
        created=evil,
        split_hash=evil,
    )
    result["protocol"][evil] = evil
    result["data"]["source"] = evil
    result["slices"][evil] = {"about": evil, "users": 1}
    result["learning_curve"][0]["val/" + evil] = 0.3
    tree = parse(
        render([result, make_result("b", 0.2, 0.1, protocol=result["protocol"], split_hash=evil)])
    )
    assert "script" not in tree.tags
    assert not [name for name, _ in tree.attributes if name.startswith("on")]
    assert all(image["src"].startswith("data:") for image in tree.images)
    assert sum("<script>alert(1)</script>" in text for text in tree.text) > 8


def test_twins_ceiling_and_leak_are_shown(make_result):
    result = make_result("a", 0.1, 0.05, oracle={"test/recall@10": 0.3, "test/ndcg@10": 0.2})
    result["metrics"]["test_ties_shuffled/ndcg@10"] = {"value": 0.0444, "low": 0.04, "high": 0.05}
    result["leakage"] = {"test": {"older_than_training_share": 0.993}}
    text = " ".join(parse(render([result])).text)
    assert "ndcg@10, ties shuffled" in text
    assert "0.0444" in text
    assert "best achievable" in text
    assert "leaks by design: 99% of the test targets" in text


def test_the_least_that_a_result_must_hold_is_enough():
    result = {
        "name": "least",
        "split_hash": "x",
        "protocol": {},
        "metrics": {"test/recall@10": 0.1, "test/ndcg@10": 0.05},
    }
    html = render([result])
    assert headings(html) == ["Leaderboard", "Figures", "Details"]
    checks = ["Protocol", "All figures of each run", "Checks"]
    assert folded(html) == [*checks, BESIDE + "least"]
    parse(html)


def test_paired_tests_and_seeds_are_shown(make_result):
    test = {
        "name": "b",
        "metric": "ndcg@10",
        "difference": 0.0123,
        "difference_low": 0.01,
        "difference_high": 0.0146,
        "wins": 1200,
        "ties": 20000,
        "losses": 800,
        "effect_size": 0.12,
        "p_holm": 0.0004,
        "significant": True,
    }
    spread = {"mean": 0.21, "std": 0.003, "seeds": 3}
    comparison = {
        "baseline": "a",
        "metrics": ["recall@10", "ndcg@10"],
        "tests": [test],
        "seeds": {"b": {"test/ndcg@10": spread, "test/mrr@5": spread}},
    }
    html = render([make_result("a", 0.2, 0.1), make_result("b", 0.2, 0.2)], comparison)
    text = " ".join(parse(html).text)
    assert "Paired tests against a" in folded(html)
    assert "b beats a: the difference in ndcg@10, +0.0123 [+0.0100, +0.0146]" in text
    assert "+0.0123 [+0.0100, +0.0146], p 0.0004" in text, "in the leaderboard too"
    assert "ndcg@10 less a" in text
    assert "1,200 / 20,000 / 800" in text
    assert text.count("0.2100") == 1


def test_written_to_the_folder_and_the_same_every_time(tmp_path, make_result):
    result = make_result("a", 0.2, 0.1)
    folder = Folder.at(tmp_path / "new")
    uri = write_report(result, folder)
    assert uri == f"{folder.uri}/report.html"
    first = folder.read_bytes("report.html")
    write_report([result], folder)
    assert folder.read_bytes("report.html") == first


def test_runs_of_different_splits_are_not_drawn_together(tmp_path, make_result):
    pair = [make_result("a", 0.2, 0.1), make_result("b", 0.2, 0.1, split_hash="y")]
    with pytest.raises(ConfigError, match="must get results of one split"):
        write_report(pair, Folder.at(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path, make_result):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="file"):
        write_report(make_result("a", 0.2, 0.1), Folder.at(tmp_path / "file"))


def test_a_trade_off_needs_two_known_costs(make_result):
    runs = [make_result(n, 0.2, 0.1) for n in "ab"]
    draw = {"metric": "ndcg@10", "label": "ms"}
    assert plots.trade_off(runs, ["a", "b"], costs=[1.0, None], **draw) is None
    assert plots.trade_off(runs, ["a", "b"], costs=[0, 0], **draw) is not None
    assert plots.trade_off(runs, ["a", "b"], costs=[0.5, 3000.0], **draw) is not None


def test_a_name_is_never_read_as_a_formula(make_result):
    runs = [make_result(name, 0.2, 0.1) for name in ("$\\frac{$", "b")]
    assert len(parse(render(runs)).images) >= 6


def test_more_runs_than_colours(make_result):
    runs = [make_result(f"run {n}", *np.random.default_rng(n).random(2) / 5) for n in range(11)]
    assert len(parse(render(runs)).images) >= 6


def test_a_page_has_landmarks_captions_and_texts_for_images(four_results):
    html = render(four_results)
    tree = parse(html)
    assert [tree.tags.count(tag) for tag in ("header", "main", "footer", "h1")] == [1, 1, 1, 1]
    assert tree.tags.count("caption") == tree.tags.count("table") > 4
    assert {("scope", "col"), ("scope", "row")} <= set(tree.attributes)
    assert all(image["alt"].startswith("Figure: ") for image in tree.images)
    assert "<title>transition_graph, sasrec, semantic_id_lm, popularity - comparison" in html
    many = render([*four_results, {**four_results[0], "name": "fifth"}])
    assert "<title>5 runs - comparison" in many
    assert "<title>popularity - run" in render(four_results[:1])


def test_rivals_and_semantic_ids_are_marked(four_results):
    marks = re.findall(
        r'<th scope="row"[^>]*>(\S+) <span class="mark">(.*?)</span>', render(four_results)
    )
    assert marks == [
        ("transition_graph", "baseline"),
        ("sasrec", "baseline"),
        ("semantic_id_lm", "semantic IDs"),
        ("popularity", "baseline"),
    ]
    assert 'class="mark"' not in render([r for r in four_results if not r["codebooks"]])


def test_the_seconds_of_each_stage_are_shown(make_result):
    html = render([make_result("a", 0.2, 0.1, stage_seconds={"logs": 2.04, "training": 1234.5})])
    assert "Timings by stage" in folded(html)
    assert "1,234.5" in " ".join(parse(html).text)


def test_a_figure_has_colours_for_dark_screens_and_real_text(four_results):
    svg = plots.forest(four_results, ["a #1f2937", "b", "c", "d"], "ndcg@10")
    assert "prefers-color-scheme:dark" in svg
    assert "@media screen" in svg, "a print stays light"
    styles = re.findall(r'style="([^"]*)"', svg)
    assert not [style for style in styles if plots.INK in style]
    assert ">a #1f2937</text>" in svg
    assert all("sans-serif" in style for style in styles if "font-family" in style)


def test_a_page_that_grows_too_large_leaves_folded_figures_out(four_results, monkeypatch):
    whole = render(four_results)
    size = len(whole.encode())
    assert size < 1_500_000
    monkeypatch.setattr(html_page, "MOST_BYTES", size - 1)
    smaller = render(four_results)
    assert len(smaller.encode()) < size
    assert "Figures left out: 1." in smaller
    assert len(parse(smaller).images) == len(parse(whole).images) - 1
    monkeypatch.setattr(html_page, "MOST_BYTES", 1)
    least = render(four_results)
    assert len(parse(least).images) == 6, "those that are not folded away stay"


def test_thirty_runs_with_codes_fit(make_result, four_results):
    health = four_results[1]["codebooks"]
    runs = [make_result(f"run {n}", 0.2 + n / 999, 0.1, codebooks=health) for n in range(30)]
    assert len(render(runs).encode()) <= html_page.MOST_BYTES
