"""What every method must do; each suite runs over every file in methods/."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from given import changed, given
from itemese.core.config import read_yaml
from itemese.core.ranking import Candidates, Ranking
from itemese.core.schema import Catalog, Histories, Request, Split
from itemese.core.vectors import Embeddings, SemanticIds
from itemese.methods.base import Batch, Inputs, Method, MethodConfig, Need, Stage
from itemese.methods.lookup import method_class, method_names, method_of
from loss_values import loss_values

NUM_ITEMS = 30
SMALL = read_yaml(Path(__file__).with_name("small_methods.yaml"))

NAMES = method_names()
TRAINED = [n for n in NAMES if method_of(method_class(n).Config()).stages()]


def planted(num_users: int = 200, seed: int = 0) -> Histories:
    """Users walk a fixed cycle over the items, with a random step one time in five."""
    generator = np.random.default_rng(seed)
    follower = np.random.default_rng(99).permutation(NUM_ITEMS)
    rows: list[list[int]] = []
    for _ in range(num_users):
        items = [int(generator.integers(NUM_ITEMS))]
        for _ in range(int(generator.integers(4, 12))):
            jump = generator.random() < 0.2
            items.append(int(generator.integers(NUM_ITEMS) if jump else follower[items[-1]]))
        rows.append(items)
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
    split = np.zeros(offsets[-1], np.int8)
    split[offsets[1:] - 1], split[offsets[1:] - 2] = Split.TEST, Split.VALIDATION
    flat = np.concatenate(rows).astype(np.int32)
    times = np.arange(len(flat), dtype=np.int64)
    return Histories([f"u{u}" for u in range(num_users)], offsets, flat, times, split)


HISTORIES = planted()


def catalog() -> Catalog:
    train = HISTORIES.only(Split.TRAIN)
    ids = [f"i{i}" for i in range(NUM_ITEMS)]
    table = pa.table({"item_id": ids, "title": ids})
    return Catalog(ids, ids, np.bincount(train.item_index, minlength=NUM_ITEMS), table)


def inputs() -> Inputs:
    def train() -> Iterator[Histories]:
        yield HISTORIES.only(Split.TRAIN)

    codes = np.stack([np.arange(NUM_ITEMS) // 6, np.arange(NUM_ITEMS) % 6], axis=1)
    ids = SemanticIds(codes.astype(np.int32), (5, 6))
    encoder = method_of(method_class("gru4rec").Config.parse(SMALL["gru4rec"]))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        recommender = encoder.build(Inputs(catalog(), train)).eval().requires_grad_(False)
    vectors = np.random.default_rng(4).normal(size=(NUM_ITEMS, 14)).astype(np.float32)
    parts = (("text", 8), ("recommender", 6))
    embeddings = Embeddings("item", vectors, "drawn", parts=parts)
    return given(catalog(), train, semantic_ids=ids, embeddings=embeddings, recommender=recommender)


def make(name: str, dropout: float = 0.0) -> tuple[Method, torch.nn.Module]:
    settings = {"name": name, "max_history": 12, **SMALL.get(name, {})}
    settings |= dict.fromkeys({"dropout", "anneal_dropout"} & set(settings), dropout)
    if "network" in settings:
        settings["network"] = {**settings["network"], "dropout": dropout}
    if "backbone" in settings:
        settings["backbone"] = {**settings["backbone"], "attention_dropout": dropout}
    method = method_of(method_class(name).Config.parse(settings))
    torch.manual_seed(0)
    return method, method.build(inputs())


def requests(count: int = 6) -> list[Request]:
    targets = HISTORIES.targets(Split.TEST)
    pairs = zip(targets.row[:count], targets.place[:count], strict=True)
    return [HISTORIES.request(int(row), int(place)) for row, place in pairs]


def training_examples(count: int) -> list[Request]:
    train = HISTORIES.only(Split.TRAIN)
    users = [u for u in range(train.num_users) if train.lengths()[u] >= 2][:count]
    return [train.request(u) for u in users]


def predict(
    method: Method, module: torch.nn.Module, rows: list[Request], k: int, hide: Candidates
) -> Ranking:
    with torch.no_grad():
        ranking = method.predict(module.eval(), method.collate(rows), k, hide)
    assert isinstance(ranking, Ranking)
    return ranking


def seen(rows: list[Request]) -> torch.Tensor:
    longest = max(len(r.history) for r in rows)
    return torch.tensor([[*r.history.tolist(), *[-1] * (longest - len(r.history))] for r in rows])


def test_methods_are_found() -> None:
    expected = {"popularity", "recent_popularity", "item_knn", "transition_graph", "sasrec"}
    assert expected | {"semantic_id_lm", "gru4rec", "caser"} <= set(NAMES)
    assert {n for n in NAMES if method_class(n).encodes_histories} >= {"sasrec", "gru4rec", "caser"}


@pytest.mark.parametrize("name", NAMES)
def test_config_is_named_after_the_file_and_typed(name: str) -> None:
    config = method_class(name).Config()
    assert config.name == name
    assert isinstance(config, MethodConfig)
    stages = method_of(config).stages()
    assert not stages or sum(s.share for s in stages) == pytest.approx(1.0)
    assert all(isinstance(s, Stage) for s in stages)


@pytest.mark.parametrize("name", [n for n in NAMES if method_class(n).encodes_histories])
def test_an_encoder_hands_out_states_and_item_vectors(name: str) -> None:
    method, module = make(name)
    batch = method.collate(requests())
    with torch.no_grad():
        states, vectors = module.eval()(batch["item_index"])
        shorter, _ = module(batch["item_index"][:, :-2])
    assert vectors.shape[0] == NUM_ITEMS
    assert states.shape == (*batch["item_index"].shape, vectors.shape[1])
    torch.testing.assert_close(states[:, :-2], shorter)  # no state knows what follows it


@pytest.mark.parametrize("name", NAMES)
def test_rankings_are_legal(name: str) -> None:
    method, module = make(name)
    rows = requests()
    ranking = predict(method, module, rows, 10, Candidates(exclude=seen(rows)))
    assert ranking.item_index.shape == (len(rows), 10)
    for row, items in zip(rows, ranking.item_index.tolist(), strict=True):
        assert len(set(items)) == 10
        assert set(items) <= set(range(NUM_ITEMS)) - set(row.history.tolist())
    assert (ranking.score.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_only_allowed_items_are_returned_and_the_rest_is_padding(name: str) -> None:
    method, module = make(name)
    allowed = torch.zeros(NUM_ITEMS, dtype=torch.bool)
    allowed[[3, 8]] = True
    ranking = predict(method, module, requests(), 4, Candidates(allowed=allowed))
    assert {*ranking.item_index[:, :2].flatten().tolist()} == {3, 8}
    assert (ranking.item_index[:, 2:] == -1).all()


@pytest.mark.parametrize("name", [n for n in NAMES if method_class(n).ranks_by_scores])
def test_a_longer_list_without_seen_items_is_the_list_that_excludes_them(name: str) -> None:
    """So that one ranking gives the figures of both protocols."""
    method, module = make(name)
    rows = requests(40)
    hidden = seen(rows)
    alone = predict(method, module, rows, 8, Candidates(exclude=hidden)).item_index
    longer = predict(method, module, rows, 8 + hidden.shape[1], Candidates()).item_index
    for row, (wanted, found) in enumerate(zip(alone.tolist(), longer.tolist(), strict=True)):
        left = [item for item in found if item not in {-1, *hidden[row].tolist()}][:8]
        assert left + [-1] * (8 - len(left)) == wanted


@pytest.mark.parametrize("name", NAMES)
def test_permuting_rows_permutes_rankings_and_padding_changes_nothing(name: str) -> None:
    method, module = make(name)
    rows = requests()
    together = predict(method, module, rows, 5, Candidates())
    backwards = predict(method, module, rows[::-1], 5, Candidates())
    assert backwards.item_index.flip(0).tolist() == together.item_index.tolist()
    for place, row in enumerate(rows):
        alone = predict(method, module, [row], 5, Candidates())
        assert alone.item_index[0].tolist() == together.item_index[place].tolist()
        torch.testing.assert_close(alone.score[0], together.score[place], atol=1e-4, rtol=1e-4)


def score(
    method: Method, module: torch.nn.Module, rows: list[Request], items: torch.Tensor
) -> torch.Tensor:
    with torch.no_grad():
        found = method.score(module.eval(), method.collate(rows), items)
    assert found.values.dtype == torch.float32
    assert found.values.shape == items.shape
    return found.values


@pytest.mark.parametrize("name", NAMES)
def test_given_items_have_the_scores_that_the_catalogue_is_ranked_by(name: str) -> None:
    method, module = make(name)  # beams are as wide as the catalogue
    rows = requests()
    ranking = predict(method, module, rows, NUM_ITEMS, Candidates())
    found = score(method, module, rows, ranking.item_index)
    torch.testing.assert_close(found, ranking.score, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_score_depends_on_its_row_and_item_alone(name: str) -> None:
    method, module = make(name)
    rows = requests()
    items = torch.arange(5 * len(rows)).view(len(rows), 5) * 7 % NUM_ITEMS
    items[1, 1:], items[2, 0], items[3, 1] = -1, -1, items[3, 0]  # nothing, and an item twice
    found = score(method, module, rows, items)
    assert (torch.isneginf(found) == (items < 0)).all()
    assert found[3, 0] == found[3, 1]
    backwards = score(method, module, rows[::-1], items.flip(0, 1)).flip(0, 1)
    torch.testing.assert_close(backwards, found, atol=1e-4, rtol=1e-4)
    for row, request in enumerate(rows):
        for place in range(5):
            one = score(method, module, [request], items[row : row + 1, place : place + 1])
            torch.testing.assert_close(one[0, 0], found[row, place], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_choice_is_the_offered_item_that_scores_highest(name: str) -> None:
    method, module = make(name)
    rows = requests()
    offered = torch.stack([torch.randperm(NUM_ITEMS)[:4] for _ in rows])
    offered[0, 2:], offered[1] = -1, -1
    values = score(method, module, rows, offered)
    with torch.no_grad():
        chosen = method.choose(module.eval(), method.collate(rows), offered, ["ranked"])
    for row, item in enumerate(chosen["ranked"].item_index.tolist()):
        best = offered[row][values[row] == values[row].max()]
        assert item == int(best.min())


@pytest.mark.parametrize("name", [n for n in NAMES if Need.SEMANTIC_IDS in method_class(n).needs])
def test_items_may_share_their_codes(name: str) -> None:
    shared = changed(inputs(), semantic_ids=replace(inputs().semantic_ids, num_predicted=1))
    method = method_of(method_class(name).Config.parse({"name": name, **SMALL.get(name, {})}))
    module = method.build(shared)
    terms = loss_values(method, module, method.collate(training_examples(4)))
    assert all(term.isfinite() for term in terms.values())
    ranking = predict(method, module, requests(), NUM_ITEMS, Candidates())
    for items, scores in zip(ranking.item_index.tolist(), ranking.score.tolist(), strict=True):
        assert sorted(items) == list(range(NUM_ITEMS))
        assert len(set(scores)) == 5  # six items a code; the lower last code stands first
        assert [item % 6 for item in items] == [0, 1, 2, 3, 4, 5] * 5


@pytest.mark.parametrize("name", NAMES)
def test_saved_tensors_restore_the_same_scores_without_training_data(name: str) -> None:
    method, module = make(name)
    state = {k: v.clone() for k, v in module.state_dict().items()}
    empty = Inputs(
        catalog(), lambda: iter(()), artifacts={Need.SEMANTIC_IDS: inputs().semantic_ids}
    )
    torch.manual_seed(1)
    restored = method.restore(empty, state)
    first = predict(method, module, requests(), 5, Candidates())
    second = predict(method, restored, requests(), 5, Candidates())
    assert torch.equal(first.item_index, second.item_index)
    assert torch.equal(first.score, second.score)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_gives_the_same_bits(name: str) -> None:
    _, first = make(name)
    _, second = make(name)
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[key]), key


@pytest.mark.parametrize("name", TRAINED)
def test_same_seed_takes_the_same_steps(name: str) -> None:
    states = []
    for _ in range(2):
        method, module = make(name, dropout=0.2)
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
        module.train()
        for step in range(2):
            torch.manual_seed(step)
            terms = loss_values(method, module, method.collate(training_examples(8)))
            optimizer.zero_grad()
            sum(terms.values()).backward()
            optimizer.step()
        states.append(module.state_dict())
    for key, tensor in states[0].items():
        assert torch.equal(tensor, states[1][key]), key


@pytest.mark.parametrize("name", [n for n in TRAINED if method_class(n).predicts_oldest])
def test_a_request_of_one_event_has_a_target_where_the_oldest_is_one(name: str) -> None:
    method, module = make(name)
    row = training_examples(1)[0]
    alone = replace(row, history=row.history[:1], timestamp=row.timestamp[:1])
    terms = method.losses(module.train(), method.collate([alone, row]))
    assert all(term.value.isfinite() for term in terms.values())
    for term, counts in method.count_targets(np.array([1, len(row.history)])).items():
        assert float(terms[term].targets) == counts.sum()


@pytest.mark.parametrize("name", TRAINED)
def test_training_changes_no_saved_buffer(name: str) -> None:
    """Gradient sync does not cover buffers: statistics of a worker's batches would differ."""
    method, module = make(name)
    buffers = {n: t.clone() for n, t in module.state_dict().items()}
    method.losses(module.train(), method.collate(training_examples(8)))
    assert all(torch.equal(t, buffers[n]) for n, t in module.state_dict().items())


@pytest.mark.parametrize("name", TRAINED)
def test_loss_terms_are_the_declared_weights_and_reach_every_parameter(name: str) -> None:
    method, module = make(name)
    module.train()
    terms = loss_values(method, module, method.collate(training_examples(40)))
    declared = set(type(method.config.loss_weights).model_fields)
    assert set(terms) == (set(method.stages()[0].terms) or declared)
    assert set(terms) <= declared
    assert all(term.ndim == 0 and torch.isfinite(term) for term in terms.values())
    sum(terms.values()).backward()
    without = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


def seeded_losses(method: Method, module: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return loss_values(method, module, batch)


@pytest.mark.parametrize("name", TRAINED)
def test_padding_takes_no_part_in_the_loss(name: str) -> None:
    method, module = make(name)
    batch = method.collate(training_examples(8))
    padded = torch.nn.functional.pad(batch["item_index"], (0, 2), value=-1)
    narrow = seeded_losses(method, module.train(), batch)
    wide = seeded_losses(method, module, {**batch, "item_index": padded})
    assert (batch["item_index"] < 0).any()
    for term, value in narrow.items():
        assert wide[term].item() == pytest.approx(value.item(), rel=1e-5), term


IN_WORDS = {("rsllm", "language_model"), ("rsllm", "history_words")}
"""Terms over words: as many texts as they are worth, by the mean length of a text."""

MIXED = {
    *IN_WORDS,  # each prompt offers items that are drawn for the batch
    ("rsllm", "history_alignment"),
    ("rsllm", "target_alignment"),
    ("eager_llm", "semantic_contrast"),
    ("eager_llm", "behaviour_contrast"),
    ("prorec", "distillation"),
}
"""Terms whose value for a row depends on the other rows of its batch."""


@pytest.mark.parametrize("name", TRAINED)
def test_every_target_of_an_epoch_weighs_the_same(name: str) -> None:
    """However the histories are dealt out to micro-batches, the epoch adds up to one sum."""
    method, module = make(name)
    module.train(any(name == method_name for method_name, _ in IN_WORDS))  # they draw targets then
    rows = sorted(training_examples(30), key=lambda row: len(row.history))
    cuts = [rows, [rows[0]], rows[1:4], rows[4:18], rows[18:]]
    found = []
    for part in cuts:
        torch.manual_seed(5)
        with torch.no_grad():
            found.append(method.losses(module, method.collate(part)))
    whole, *parts = found
    declared = method.count_targets(np.array([len(row.history) for row in rows]))
    assert set(declared) <= set(type(method.config.loss_weights).model_fields)
    for term, (value, targets) in whole.items():
        if term not in declared:
            counts = [float(part[term].targets) for part in found]
            assert all(0 < count <= 1.5 for count in counts), term  # a micro-batch, or part of one
            continue
        wanted = float(declared[term].sum())
        exact = 0.3 if (name, term) in IN_WORDS else 1e-6
        assert float(targets) == pytest.approx(wanted, rel=exact), term
        if (name, term) not in MIXED:
            total = sum(float(part[term].value * part[term].targets) for part in parts)
            assert total == pytest.approx(float(value * targets), rel=1e-4), term


BLIND_TO_BEHAVIOUR = {"dense_tokenizer"}
"""Methods that are trained on texts alone: no order of events can teach them anything."""


@pytest.mark.parametrize("name", TRAINED)
def test_training_beats_popularity_on_a_planted_signal(name: str) -> None:
    method, module = make(name)
    given = method.config.loss_weights
    weights = {term: getattr(given, term) for term in type(given).model_fields}
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    module.train()
    batch = method.collate(training_examples(200))
    first = last = 0.0
    for step in range(60):
        terms = loss_values(method, module, batch)
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = (loss.item(), loss.item()) if step == 0 else (first, loss.item())
    assert last < 0.8 * first
    if name in BLIND_TO_BEHAVIOUR:
        return
    assert recall(method, module) > 2 * recall(*make("popularity"))


@pytest.mark.parametrize("name", ["item_knn", "transition_graph"])
def test_graphs_beat_popularity_on_a_planted_signal(name: str) -> None:
    assert recall(*make(name)) > 2 * recall(*make("popularity"))


def recall(method: Method, module: torch.nn.Module) -> float:
    targets = HISTORIES.targets(Split.TEST)
    rows = requests(len(targets.row))
    ranking = predict(method, module, rows, 3, Candidates())
    wanted = torch.from_numpy(targets.target)[:, None]
    return float((ranking.item_index == wanted).any(dim=1).float().mean())


def test_item_tokens_begin_as_the_vectors_of_their_codes() -> None:
    vectors = np.random.default_rng(0).normal(size=(NUM_ITEMS, 8)).astype(np.float32)
    method, plain = make("semantic_id_lm")
    torch.manual_seed(0)
    begun = method.build(changed(inputs(), embeddings=Embeddings("item", vectors, "drawn")))
    first = torch.from_numpy(vectors).view(5, 6, 8).mean(dim=1)  # six items share each first code
    tokens = begun.token_table[begun.starts[0] : begun.starts[0] + 5, :8].detach()
    torch.testing.assert_close(
        torch.pdist(tokens) / torch.pdist(tokens)[0], torch.pdist(first) / torch.pdist(first)[0]
    )
    assert not torch.equal(begun.token_table, plain.token_table)
    state = {name: tensor.clone() for name, tensor in begun.state_dict().items()}
    again = method.restore(inputs(), state)  # a bundle holds no item vectors
    assert torch.equal(again.token_table, begun.token_table)
