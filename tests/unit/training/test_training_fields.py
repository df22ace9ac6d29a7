"""Methods that read fields find them in the rows that they are trained on."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from itemese.core.artifacts import Folder
from itemese.core.schema import Split
from itemese.core.stages import Stored
from itemese.features.config import FeaturesConfig
from itemese.features.stage import build_fields, build_users
from itemese.layers.fields import pad_fields
from itemese.methods.base import Need
from itemese.pipeline.stages import STAGES
from itemese.training.config import TrainingConfig
from itemese.training.data import Share, TrainingData
from itemese.training.inputs import load_inputs


def test_rows_of_training_hold_the_fields_of_their_users(make_world, toy, tmp_path) -> None:
    world, logs = make_world(num_shards=1, num_users=40), Folder.at(tmp_path / "logs")
    users, fields = Folder.at(tmp_path / "users"), Folder.at(tmp_path / "fields")
    ids = [f"u{n:04d}" for n in range(40)]
    cities = [f"city {n % 3}" for n in range(40)]
    logs.write_table("users.parquet", pa.table({"user_id": ids, "city": cities}))
    build_users(world, logs, users)
    build_fields(FeaturesConfig(user=["city"]), world, users, fields)

    stored = Stored(fields, STAGES[Need.FIELDS].reader)
    found = load_inputs(toy(), world, {Need.FIELDS: stored})
    names = found.artifacts[Need.FIELDS].encoder.values["user.city"].to_pylist()
    blocks = list(found.train())
    assert all((block.split == Split.TRAIN).all() for block in blocks)
    held = {
        u: c for b in blocks for u, c in zip(b.user_id, b.user_fields["user.city"], strict=True)
    }
    assert {u: names[c - 1] for u, c in held.items()} == dict(zip(ids, cities, strict=True))

    config = TrainingConfig(batch_size=8)
    data = replace(TrainingData.scan(world, config, max_history=50, seed=3), fields=fields)
    seen = 0
    for step in data.steps(0, Share()):
        for _, rows in step:
            batch = pad_fields(rows)
            wanted = [names.index(cities[ids.index(row.user_id)]) + 1 for row in rows]
            np.testing.assert_array_equal(batch["fields/user.city"], wanted)
            seen += len(rows)
    assert seen >= data.num_rows > 20
