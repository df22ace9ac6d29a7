"""TIGER's user tokens: known users, the unknown one, and what training makes of them."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch

from given import given
from itemese.core.errors import ConfigError
from itemese.core.ranking import Candidates
from itemese.core.schema import Catalog, Histories, Request
from itemese.core.vectors import SemanticIds
from itemese.decoding.code_seq2seq import CodeSeq2Seq
from itemese.methods.base import Inputs
from itemese.methods.tiger import Tiger, TigerConfig

NUM_ITEMS = 12
SMALL = {
    "name": "tiger",
    "num_user_tokens": 5,
    "beam_width": NUM_ITEMS,
    "network": {"dim": 16, "num_layers": 1, "num_heads": 2, "head_dim": 8, "hidden_dim": 32},
}


def inputs() -> Inputs:
    ids = [f"i{i}" for i in range(NUM_ITEMS)]
    table = pa.table({"item_id": ids, "title": ids})
    codes = np.stack([np.arange(NUM_ITEMS) // 4, np.arange(NUM_ITEMS) % 4], axis=1)

    def nothing() -> Iterator[Histories]:
        return iter(())

    catalog = Catalog(ids, ids, np.ones(NUM_ITEMS, np.int64), table)
    return given(catalog, nothing, semantic_ids=SemanticIds(codes.astype(np.int32), (3, 4)))


def make(**changes: object) -> tuple[Tiger, CodeSeq2Seq]:
    method = Tiger(TigerConfig.parse({**SMALL, **changes}))
    torch.manual_seed(0)
    module = method.build(inputs())
    assert isinstance(module, CodeSeq2Seq)
    return method, module


def rows(*users: str) -> list[Request]:
    return [Request(np.array([3, 1, 4], np.int32), np.arange(3), user) for user in users]


def test_no_user_has_a_token_of_its_own() -> None:
    method, module = make()
    token = method.collate(rows(*(f"u{n}" for n in range(200)), ""))["user_token"]
    assert token[:-1].unique().tolist() == [1, 2, 3, 4, 5]
    assert token[-1] == 0
    tokens = 1 + 3 + 4 + 5 + 1  # the opening one, two levels of codes, users, the unknown user
    assert len(module.token_table) == tokens
    assert "user_token" not in make(num_user_tokens=0)[0].collate(rows("u1"))


def test_a_named_user_changes_the_ranking_and_always_in_the_same_way() -> None:
    method, module = make()
    restored = method.restore(inputs(), module.state_dict()).eval()
    found = {}
    for user in ("u1", "u2", ""):
        ranked = []
        for one in (module.eval(), restored):
            batch = method.collate(rows(user))
            ranked.append(method.predict(one, batch, NUM_ITEMS, Candidates()).score)
            given_items = torch.arange(NUM_ITEMS)[None]
            scores = method.score(one, batch, given_items).values
            torch.testing.assert_close(scores.sort(descending=True).values, ranked[-1])
        assert torch.equal(*ranked)
        found[user] = ranked[0]
    assert not torch.allclose(found["u1"], found["u2"])
    assert not torch.allclose(found["u1"], found[""])


def test_training_sees_the_unknown_user_as_often_as_it_says() -> None:
    method, module = make(unknown_user_share=0.25)
    batch = method.collate(rows(*(f"u{n}" for n in range(2000))))
    seen: list[torch.Tensor] = []
    forward = module.forward

    def spy(window: torch.Tensor, target: torch.Tensor, user: torch.Tensor) -> object:
        seen.append(user)
        return forward(window[:2], target[:2], user[:2])

    module.forward = spy  # type: ignore[method-assign, assignment]
    torch.manual_seed(0)
    method.losses(module.train(), batch)
    unknown = (seen[0] == 0).view(2000, 2)  # a history of three items has two targets
    assert (unknown[:, 0] == unknown[:, 1]).all(), "one draw a history"
    assert unknown.float().mean().item() == pytest.approx(0.25, abs=0.04)
    kept = seen[0].view(2000, 2)[:, 0] == batch["user_token"]
    assert (kept | unknown[:, 0]).all()
    method.losses(module.eval(), batch)
    assert torch.equal(seen[1].view(2000, 2)[:, 0], batch["user_token"])


def test_a_share_of_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown_user_share"):
        TigerConfig.parse({**SMALL, "unknown_user_share": 1.0})
