import copy
import itertools

import numpy as np
import pytest

from itemese.core.errors import ConfigError
from itemese.simulation.declarations import packaged_networks
from itemese.simulation.network import Network
from itemese.simulation.streams import Stream

WEATHER = {
    "name": "weather",
    "entities": {
        "city": {
            "attributes": {
                "coast": {"distribution": "categorical", "probabilities": {"y": 0.25, "n": 0.75}}
            }
        },
        "day": {
            "relations": {"city": "city"},
            "attributes": {
                # Declared child first: the order of drawing must come from the parents.
                "wet": {
                    "distribution": "categorical",
                    "values": ["no", "yes"],
                    "parents": ["rain", "sprinkler"],
                    "table": {
                        "none, off": [1.0, 0.0],
                        "none,on": [0.2, 0.8],
                        "otherwise": [0.1, 0.9],
                    },
                },
                "rain": {
                    "distribution": "categorical",
                    "parents": ["city.coast"],
                    "table": {"y": {"none": 0.4, "some": 0.6}, "n": {"none": 0.9, "some": 0.1}},
                },
                "sprinkler": {
                    "distribution": "softmax",
                    "values": ["off", "on"],
                    "parents": ["rain"],
                    "bias": {"on": 0.5},
                    "effects": {"rain": {"some": {"on": -2.0}}},
                },
                "degrees": {
                    "distribution": "normal",
                    "mean": 20,
                    "std": 2,
                    "parents": ["rain"],
                    "effects": {"rain": {"some": -5}},
                },
                "ice": {
                    "distribution": "softmax",
                    "values": ["no", "yes"],
                    "parents": ["degrees"],
                    "effects": {"degrees": {"yes": 0.1}},
                    "bias": {"yes": -2.0},
                },
                "mood": {"distribution": "simplex", "over": "day.wet", "spread": 1.5},
                "price": {
                    "distribution": "lognormal",
                    "mean": 1,
                    "std": 0.5,
                    "low": 1,
                    "high": 9,
                    "decimals": 1,
                },
                "share": {"distribution": "uniform", "low": 2, "high": 4},
            },
            "text": {"line": "{rain} and {wet}"},
        },
    },
}


def changed(path: str, value: object) -> dict:
    network = copy.deepcopy(WEATHER)
    *parents, leaf = path.split("/")
    place = network
    for key in parents:
        place = place[key]
    place[leaf] = value
    return network


def drawn(num_rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    network = Network(without_mood())
    rows = np.arange(num_rows)
    city = network.sample("city", seed=seed, counters=(rows,))
    day = network.sample("day", seed=seed, counters=(rows,), related={"city.coast": city["coast"]})
    return {"coast": city["coast"], **day}


def without_mood() -> dict:
    network = copy.deepcopy(WEATHER)
    # A simplex lies over another entity's attribute.
    del network["entities"]["day"]["attributes"]["mood"]
    return network


def exact() -> dict[tuple[int, int, int, int], float]:
    """The joint by hand: P(coast) P(rain | coast) P(sprinkler | rain) P(wet | rain, sprinkler)."""
    on = {0: np.exp(0.5) / (1 + np.exp(0.5)), 1: np.exp(-1.5) / (1 + np.exp(-1.5))}
    wet = {(0, 0): 0.0, (0, 1): 0.8, (1, 0): 0.9, (1, 1): 0.9}
    joint = {}
    for coast, rain, sprinkler, is_wet in itertools.product((0, 1), repeat=4):
        some = (0.6, 0.1)[coast]
        p = (0.25, 0.75)[coast] * (some if rain else 1 - some)
        p *= on[rain] if sprinkler else 1 - on[rain]
        p *= wet[rain, sprinkler] if is_wet else 1 - wet[rain, sprinkler]
        joint[coast, rain, sprinkler, is_wet] = p
    return joint


def test_ancestral_sampling_has_the_exact_joint():
    rows = drawn(200_000)
    names = ("coast", "rain", "sprinkler", "wet")
    place = np.ravel_multi_index([rows[name] for name in names], (2, 2, 2, 2))
    seen = np.bincount(place, minlength=16) / len(place)
    wanted = np.array(list(exact().values()))
    assert abs(wanted.sum() - 1) < 1e-12
    assert 0.5 * np.abs(seen - wanted).sum() < 0.004
    assert (seen[wanted == 0] == 0).all()


def test_numbers_follow_their_parents():
    rows = drawn(100_000)
    dry, rainy = rows["degrees"][rows["rain"] == 0], rows["degrees"][rows["rain"] == 1]
    assert abs(dry.mean() - 20) < 0.05
    assert abs(rainy.mean() - 15) < 0.05
    assert abs(dry.std() - 2) < 0.05
    assert abs(np.mean(((dry - 20) / 2) ** 4) - 3) < 0.2  # a normal's fourth moment
    assert rows["price"].min() == 1
    assert rows["price"].max() == 9
    assert abs(np.median(rows["price"]) - np.e) < 0.1
    assert np.array_equal(rows["price"], np.round(rows["price"], 1))
    assert 2 < rows["share"].min() < 2.01
    assert 3.99 < rows["share"].max() < 4
    assert abs(rows["share"].mean() - 3) < 0.01
    warm = 1 / (1 + np.exp(2 - 0.1 * rows["degrees"]))
    assert abs(rows["ice"].mean() - warm.mean()) < 0.006


def test_a_row_does_not_depend_on_its_company():
    network = Network(without_mood())
    all_rows = network.sample("city", seed=3, counters=(np.arange(500),))
    some = network.sample("city", seed=3, counters=(np.array([499, 7, 250]),))
    assert np.array_equal(all_rows["coast"][[499, 7, 250]], some["coast"])
    other = network.sample("city", seed=4, counters=(np.arange(500),))
    assert not np.array_equal(all_rows["coast"], other["coast"])


def test_stream_is_uniform_and_counters_do_not_mix():
    stream = Stream(1, "test")
    u = stream.uniform(np.repeat(np.arange(300), 300), np.tile(np.arange(300), 300))
    assert u.min() > 0
    assert u.max() < 1
    counts = np.bincount((u * 100).astype(int), minlength=100)
    assert abs(((counts - 900) ** 2 / 900).sum() - 99) < 5 * np.sqrt(2 * 99)
    grid = u.reshape(300, 300)
    assert abs(np.corrcoef(grid[:, :-1].ravel(), grid[:, 1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(grid[:-1].ravel(), grid[1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(grid.ravel(), grid.T.ravel())[0, 1]) < 0.02
    normal = stream.normal(np.arange(50_000))
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02
    forked = stream.fork(np.arange(300))
    assert not np.array_equal(forked.uniform(0, slice(None)), forked.uniform(1, slice(None)))
    assert forked.uniform(5, np.array([9]))[0] == forked.uniform(5, slice(None))[9]


DAY = "entities/day/attributes"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (f"{DAY}/rain/parents", ["city.coast", "wet"], "in a circle"),
        (f"{DAY}/rain/parents", ["city.coats"], "Did you mean 'city.coast'?"),
        (f"{DAY}/rain/table/y", {"none": 0.4, "some": 0.5}, "sum to 1"),
        (f"{DAY}/rain/table/y", {"none": 1.4, "some": -0.4}, "sum to 1"),
        (f"{DAY}/rain/table/x", {"none": 0.4, "some": 0.6}, "got 'x'"),
        (f"{DAY}/rain/table", {"y": {"none": 0.4, "some": 0.6}}, "got none for 'n'"),
        (f"{DAY}/rain/table", None, "must be given"),
        (f"{DAY}/rain/probabilities", [1.0], "must be given"),
        (f"{DAY}/rain/distribution", "categoricle", "Did you mean 'categorical'?"),
        (f"{DAY}/rain/distribution", None, "known distribution"),
        (f"{DAY}/rain/parnets", [], "Did you mean 'parents'?"),
        (f"{DAY}/wet/table/otherwise", [0.1, 0.2, 0.7], "2 numbers"),
        (f"{DAY}/wet/values", ["no", "no"], "different texts"),
        (f"{DAY}/wet/values", [True, False], "in quotes"),
        (f"{DAY}/wet/parents", ["degrees"], "got the number 'degrees'"),
        (f"{DAY}/sprinkler/effects", {"rain": {"sum": {"on": 1}}}, "Did you mean 'some'?"),
        (f"{DAY}/sprinkler/effects", {"rain": {"some": {"onn": 1}}}, "Did you mean 'on'?"),
        (f"{DAY}/sprinkler/effects", {}, "got none for 'rain'"),
        (f"{DAY}/sprinkler/effects", {"rian": {}, "rain": {}}, "Did you mean 'rain'?"),
        (f"{DAY}/sprinkler/bias", {"onn": 1}, "Did you mean 'on'?"),
        (f"{DAY}/degrees/effects", {"rain": 2.0}, "parent value: number"),
        (f"{DAY}/degrees/std", -1, "greater than or equal to 0"),
        (f"{DAY}/share/low", 5, "must be < high"),
        (f"{DAY}/mood/over", "city.cost", "Did you mean 'city.coast'?"),
        (f"{DAY}/ice/parents", ["mood"], "simplex"),
        ("entities/day/relations/city", "citty", "Did you mean 'city'?"),
        ("entities/city/relations", {"day": "day"}, "in a circle"),
        ("entities/day/text/line", "{rian}", "Did you mean 'rain'?"),
        ("entities/day/text/line", "{rain", "torn"),
        ("entities/day/text/wet", "{rain}", "new name"),
        ("entitys", {}, "Did you mean 'entities'?"),
        ("name", ["a"], "`network.name`"),
    ],
)
def test_a_torn_network_is_refused_in_one_sentence(path, value, said):
    network = changed(path, value)
    if "mood" not in path and value != ["mood"]:
        del network["entities"]["day"]["attributes"]["mood"]
    else:
        network["entities"]["day"]["attributes"]["mood"]["over"] = "city.coast"
        if path.endswith("over"):
            network["entities"]["day"]["attributes"]["mood"]["over"] = value
    with pytest.raises(ConfigError) as caught:
        Network(network)
    assert said in str(caught.value)
    assert str(caught.value).startswith("`network")


def test_files_names_and_mappings(tmp_path):
    assert "shop" in packaged_networks()
    for name in packaged_networks():
        Network(name)
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nentities: {a: {attributes: {}}}\n")
    assert Network(str(file)).name == "mine"
    assert Network(f"file://{file}").name == "mine"
    with pytest.raises(ConfigError, match="Did you mean 'shop'"):
        Network("shopp")
    with pytest.raises(ConfigError, match="readable file"):
        Network(str(tmp_path / "other.yaml"))
    file.write_text("- 1\n")
    with pytest.raises(ConfigError, match="mapping"):
        Network(str(file))
    with pytest.raises(ConfigError, match="mapping"):
        Network(f"file://{file}")
    file.write_text("a: [1\n")
    with pytest.raises(ConfigError, match="valid YAML"):
        Network(f"file://{file}")
