"""Fields of what was written of items and users: experts by hand, new users, controls, bundles."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from itemese.core.errors import ConfigError
from itemese.core.users import Users
from itemese.core.vectors import Embeddings
from itemese.layers.expert_network import ExpertNetwork
from itemese.methods.base import Need
from itemese.methods.deepfm import DeepFM, DeepFMConfig
from itemese.testing.planted import NUM_ITEMS, clicks, inputs

LOG = clicks(labelled=True)
USERS = LOG.num_users


def artifacts(**texts: Any) -> dict[str, Any]:
    """Return texts of all items and of every user but the last, whose taste is their kind."""
    draw = np.random.default_rng(1)
    kind = np.arange(USERS) % 2
    users = np.zeros((USERS + 1, 6), np.float32)
    users[1:, 0] = kind
    users[1:] += 0.1 * draw.normal(size=(USERS, 6))
    described = np.arange(USERS + 1) > 0
    described[-1] = False
    until = np.concatenate([[-1], LOG.timestamp[LOG.offsets[:-1] + 4]])
    items = draw.normal(size=(NUM_ITEMS, 6)).astype(np.float32)
    means = np.zeros((USERS + 1, 14), np.float32)
    vectors = inputs(LOG).embeddings.vectors
    for user in range(USERS):
        means[user + 1] = vectors[LOG.item_index[LOG.offsets[user] : LOG.offsets[user + 1]]].mean(0)
    found = {
        "item": Embeddings("item", items, "texts"),
        "user": Embeddings(
            "user", users, "texts", described=described, shown_until=until.astype(np.int64)
        ),
        **texts,
    }
    table = pa.table({"user_id": LOG.user_id, "train_count": [9] * USERS})
    return {
        Need.TEXT_EMBEDDINGS: {name: one for name, one in found.items() if one is not None},
        Need.USER_EMBEDDINGS: Embeddings(
            "user", means, "means", described=np.arange(USERS + 1) > 0
        ),
        Need.USERS: Users(table),
    }


def made(knowledge: dict[str, Any] | None = None, **texts: Any) -> tuple[DeepFM, Any, Any]:
    config = DeepFMConfig(dim=4, hidden_dims=(8,), knowledge=knowledge or {})
    method, given = DeepFM(config), inputs(LOG, artifacts(**texts))
    torch.manual_seed(0)
    return method, method.build(given), given


def test_experts_are_mixed_by_the_gate() -> None:
    torch.manual_seed(0)
    network = ExpertNetwork(5, ["item", "user"], num_shared=2, num_dedicated=1, hidden_dim=3, dim=2)
    vectors = torch.randn(4, 5)
    found = network(vectors, "user")
    for row, vector in enumerate(vectors):
        wanted = torch.zeros(2)
        weight = network.gate["user"](vector).softmax(0)
        both = [(network.shared, 0), (network.shared, 1), (network.dedicated["user"], 0)]
        for place, (experts, number) in enumerate(both):
            hidden = (vector @ experts.first[number] + experts.first_bias[number, 0]).relu()
            said = (hidden @ experts.second[number] + experts.second_bias[number, 0]).relu()
            wanted = wanted + weight[place] * said
        torch.testing.assert_close(found[row], wanted)
    assert not torch.equal(found, network(vectors, "item"))


def test_targets_that_a_text_has_shown_are_not_learnt() -> None:
    method, module, _ = made()
    rows = [LOG.request(user, longest=9) for user in (0, 1, USERS - 1)]
    batch = method.collate(rows)
    real = batch["item_index"] >= 0
    first = module.knowledge.first_targets(batch["user_number"], batch["timestamp"], real)
    # The texts of the first two show five events, of which two lie in the nine newest of twelve.
    assert first.tolist() == [2, 2, 1]
    counted = float(method.losses(module.train(), batch)["click"].targets)
    assert counted == 7 + 7 + 8
    shown = method.collate([replace(row, timestamp=row.timestamp * 0) for row in rows[:2]])
    nothing = method.losses(module, shown)["click"]
    assert float(nothing.value) == float(nothing.targets) == 0


def test_a_user_without_a_text_has_the_field_of_the_nearest_cluster() -> None:
    method, module, given = made({"user_clusters": 5})
    knowledge = module.eval().knowledge
    assert len(knowledge.user_key) == USERS - 1
    stranger = LOG.request(USERS - 1)
    batch = method.collate([stranger, replace(stranger, user_id="unknown"), LOG.request(3)])
    found = knowledge.of_users(batch["user_number"], batch["item_index"])
    mean = given.embeddings.vectors[stranger.history].mean(axis=0)
    centres = _centres(knowledge, given)
    nearest = int(np.linalg.norm(centres - mean, axis=1).argmin())
    assert torch.equal(found[0], knowledge._all("cluster")[nearest])
    assert torch.equal(found[0], found[1])
    row = int((knowledge.user_key == batch["user_number"][2]).nonzero())
    assert torch.equal(found[2], knowledge._all("user")[row])


def _centres(knowledge: Any, given: Any) -> np.ndarray:
    """Solve the centres back from the affinities of the items."""
    vectors = given.embeddings.vectors
    return np.linalg.lstsq(vectors, knowledge.affinity.numpy(), rcond=None)[0].T


def test_a_bundle_needs_no_vectors() -> None:
    method, module, given = made()
    batch = method.collate([LOG.request(user) for user in (0, 1, USERS - 1)])
    items = torch.arange(6).view(3, 2)
    with torch.no_grad():
        before = method.score(module.eval(), batch, items).values
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert not any("_vectors" in name for name in state if name.startswith("knowledge."))
    kept = {need: a for need, a in given.artifacts.items() if need == Need.FIELDS}
    restored = method.restore(replace(given, artifacts=kept, restores=True), state).eval()
    with torch.no_grad():
        assert torch.equal(method.score(restored, batch, items).values, before)


def test_users_texts_reach_the_prediction() -> None:
    """Histories are hidden, so only a user's text says which items are clicked."""
    method, module, _ = made({"items": False})
    train = LOG.known()
    batch = method.collate([train.request(user) for user in range(USERS - 1)])
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02)
    for _ in range(60):
        loss = method.losses(module.train(), batch)["click"].value
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    asked = method.collate([replace(train.request(0).newest(1), user_id=u) for u in ("u0", "u1")])
    with torch.no_grad():
        odds = method.score(module.eval(), asked, torch.tensor([[0, 1], [0, 1]])).values
    assert odds[0, 0] > odds[0, 1]
    assert odds[1, 1] > odds[1, 0]


@pytest.mark.parametrize("control", ["shuffled", "drawn"])
def test_controls_change_whose_vector_it_is(control: str) -> None:
    plain, other = (made({"control": c})[1].knowledge for c in (None, control))
    assert not torch.equal(plain.item_vectors, other.item_vectors)
    assert torch.equal(plain.user_key, other.user_key)
    if control == "shuffled":
        found = [one.item_vectors[one.item_vectors[:, 0].argsort()] for one in (plain, other)]
        torch.testing.assert_close(found[0], found[1])


def test_missing_texts_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"`knowledge.users` must name texts of users"):
        made(user=None)
    made({"users": None}, user=None)
    with pytest.raises(ConfigError, match="one size"):
        made({"users": "mean_of_items"})
