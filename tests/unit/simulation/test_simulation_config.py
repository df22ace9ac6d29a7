import pytest
import yaml

from itemese.core.errors import ConfigError
from itemese.simulation.config import SimulationConfig
from itemese.simulation.world import World


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_user": 5}, "Did you mean 'num_users'?"),
        ({"num_users": 0}, "`num_users` must be"),
        ({"num_items": 1}, "`num_items` must be"),
        ({"num_items": 100, "lengths": {"max": 51}}, r"lengths.max <= num_items / 2 = 50"),
        ({"lengths": {"mean": 4, "min": 5, "max": 9}}, "min < mean < max"),
        ({"lengths": {"mean": 9, "min": 5, "max": 9}}, "min < mean < max"),
        ({"lengths": {"distribution": "poisson"}}, "`lengths.distribution` must be"),
        ({"clock": {"ties": 1.0}}, "`clock.ties` must be"),
        ({"clock": {"span_seconds": 100}}, "its second"),
        ({"mixture": {"taste": -1}}, "`mixture.taste` must be"),
        ({"mixture": {"taste": 0, "popularity": 0}}, r"taste \+ popularity > 0"),
        ({"network": "shap"}, "Did you mean 'shop'?"),
        ({"network": {"entities": {}}}, "`network.name` must be given"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(values, said):
    with pytest.raises(ConfigError, match=said):
        SimulationConfig.parse(values)


def test_fingerprint_names_all_that_decides_the_log(tmp_path):
    file = tmp_path / "shop.yaml"
    inside = SimulationConfig().resolved()
    assert isinstance(inside.network, dict)
    assert inside.network["name"] == "shop"
    file.write_text(yaml.safe_dump(inside.network, sort_keys=False))
    base = SimulationConfig()
    same = SimulationConfig(network=str(file))
    assert base.fingerprint(0) == inside.fingerprint(0) == same.fingerprint(0)
    assert base.fingerprint(0) != base.fingerprint(1)
    assert base.fingerprint(0) != SimulationConfig(num_users=2001).fingerprint(0)
    file.write_text(file.read_text().replace("Nordhavn", "Norhavn"))
    assert base.fingerprint(0) != same.fingerprint(0)


def test_resolved_settings_need_no_file(tmp_path):
    file = tmp_path / "mine.yaml"
    inside = SimulationConfig().resolved()
    file.write_text(yaml.safe_dump(inside.network, sort_keys=False))
    resolved = SimulationConfig(network=str(file)).resolved()
    file.unlink()
    again = SimulationConfig.model_validate_json(resolved.model_dump_json())
    wanted = World(SimulationConfig(), 0).events(0, 3)
    assert World(resolved, 0).events(0, 3).equals(wanted)
    assert World(again, 0).events(0, 3).equals(wanted)
