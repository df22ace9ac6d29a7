"""Further columns of the log stay beside their events."""

import numpy as np
import pyarrow as pa
import pytest

from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError, DataError
from itemese.core.schema import Catalog, Histories
from itemese.sequences.config import SequencesConfig
from itemese.sequences.stage import build_sequences

pytestmark = pytest.mark.ray

ROWS = [(f"u{n % 7}", f"i{n % 5}", n // 3, None, n % 4) for n in range(90)]
MORE = {
    "device": pa.array([None if n % 9 == 0 else f"d{n % 6}" for n in range(90)]),
    "price": pa.array([n / 2 for n in range(90)]),
    "tags": pa.array([[str(n)] * (n % 3) for n in range(90)]),
}


@pytest.mark.parametrize("ties", ["input", "shuffle"])
def test_values_stay_with_their_events(ray_cluster, tmp_path, write_log, ties):
    order = np.random.default_rng(0).permutation(90).tolist()
    log = write_log(ROWS, order=order, files=3, group=7, more=MORE)
    config = SequencesConfig(
        columns=("device", "price", "tags", "row"), num_shards=3, ties=ties, min_item_events=2
    )
    out = Folder.at(tmp_path / "out")
    build_sequences(config, log, out, seed=0)
    names, seen = Catalog.read(out).item_ids, 0
    for shard in Histories.shard_names(out):
        for row in out.child("histories").read_table(shard).to_pylist():
            events = zip(*(row[n] for n in ("item_index", "timestamp", "row")), strict=True)
            for place, (item, time, number) in enumerate(events):
                user, item_id, wanted, _, rating = ROWS[number]
                assert (row["user_id"], names[item], time) == (user, item_id, wanted)
                assert row["rating"][place] == rating
                for name, values in MORE.items():
                    assert row[name][place] == values[number].as_py()
                seen += 1
    assert seen == 90


def test_without_columns_nothing_is_added(ray_cluster, tmp_path, write_log):
    out = Folder.at(tmp_path / "out")
    build_sequences(SequencesConfig(), write_log(ROWS, more=MORE), out, seed=0)
    table = out.child("histories").read_table("shard-00000.parquet")
    assert table.column_names == ["user_id", "item_index", "timestamp", "split", "rating"]


def test_columns_that_the_log_lacks_or_histories_hold_are_refused(tmp_path, write_log, ray_cluster):
    config = SequencesConfig(columns=("devise",))
    with pytest.raises(DataError, match=r"`sequences\.columns` must name .* got \['devise'\]"):
        build_sequences(config, write_log(ROWS), Folder.at(tmp_path / "out"), seed=0)
    for columns in (["rating"], ["user_id"], ["a", "a"]):
        with pytest.raises(ConfigError, match=r"`sequences\.columns`"):
            SequencesConfig.parse({"columns": columns}, where="sequences")
