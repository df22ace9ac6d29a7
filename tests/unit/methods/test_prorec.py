"""PRORec's generator: what the summary token sees, what distillation reaches, what it teaches."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from given import given
from itemese.core.errors import ConfigError, DataError
from itemese.core.ranking import Candidates
from itemese.core.schema import Catalog, Request
from itemese.core.vectors import Embeddings, SemanticIds
from itemese.decoding.code_seq2seq import CodeSeq2Seq
from itemese.methods.lookup import method_of, parse_method_config
from itemese.methods.prorec.network import SummarySeq2Seq
from loss_values import loss_values

ITEMS = 8
CODES = np.stack([np.arange(ITEMS) // 3, np.arange(ITEMS) % 3], axis=1).astype(np.int32)
TEACHER = np.random.default_rng(0).normal(size=(ITEMS, 6)).astype(np.float32)
NETWORK = {
    "dim": 16,
    "num_layers": 1,
    "num_heads": 2,
    "head_dim": 8,
    "hidden_dim": 32,
    "dropout": 0.0,
}


def inputs(parts=(("text", 2), ("recommender.collaborative", 3), ("recommender.text", 3))):
    ids = [f"i{n}" for n in range(ITEMS)]
    table = pa.table({"item_id": ids, "title": ids, "train_count": np.ones(ITEMS, np.int64)})
    vectors = np.concatenate([np.full((ITEMS, 2), 7.0, np.float32), TEACHER], axis=1)
    return given(
        Catalog.from_table(table),
        lambda: iter(()),
        embeddings=Embeddings("item", vectors, "drawn", parts=parts) if parts else None,
        semantic_ids=SemanticIds(CODES, (3, 3)),
    )


def make(given=None, **settings):
    config = {"name": "prorec", "network": NETWORK, "num_negatives": 50, **settings}
    method = method_of(parse_method_config(config))
    torch.manual_seed(0)
    return method, method.build(given or inputs())


def batch(method, *histories):
    rows = [Request(np.array(h, np.int32), np.arange(len(h))) for h in histories]
    return method.collate(rows)


@pytest.mark.parametrize("bare", [ITEMS, 4])
def test_items_of_one_teacher_vector_are_no_negatives_of_each_other(bare: int) -> None:
    given = inputs()
    given.embeddings.vectors[:bare] = 1.0
    method, module = make(given)
    rows = batch(method, [5, 0], [6, 1], [7, 2])
    lesson = module(torch.tensor([[5], [6]]), torch.tensor([1, 2]), num_negatives=99)[2]
    assert lesson.items.tolist() == [0, 0]
    assert set(lesson.other_items.tolist()) == {0, *range(bare, ITEMS)}
    loss = loss_values(method, module, rows)["distillation"].item()
    assert (abs(loss) < 1e-6) == (bare == ITEMS), "no negative is left"


HISTORIES = ([0, 1, 2, 3], [4, 5, 6, 7], [1, 2, 3, 4])


def test_the_teacher_is_the_integrated_vector_and_neither_trained_nor_saved() -> None:
    _, module = make()
    np.testing.assert_array_equal(module.teacher.numpy(), TEACHER)
    assert "teacher" not in module.state_dict()
    assert "teacher" not in dict(module.named_parameters())
    _, half = make(teacher="recommender.text")
    np.testing.assert_array_equal(half.teacher.numpy(), TEACHER[:, 3:])


def test_the_summary_token_sees_all_codes_and_no_code_sees_it() -> None:
    _, module = make()
    module.eval()
    window, target = torch.tensor([[0, 1]]), torch.tensor([2])
    with torch.no_grad():
        before = module.decoder_states(window, target)
        assert before.shape == (1, 4, 16), "opening, two codes, summary"
        module.summary.add_(1.0)
        after = module.decoder_states(window, target)
        torch.testing.assert_close(after[:, :3], before[:, :3])
        assert not torch.allclose(after[:, 3], before[:, 3])
        module.item_tokens[2, 1] -= 1  # its last code
        changed = module.decoder_states(window, target)
    torch.testing.assert_close(changed[:, :2], after[:, :2])
    assert not torch.allclose(changed[:, 3], after[:, 3])


def test_codes_are_predicted_as_by_the_model_without_a_summary() -> None:
    _, taught = make()
    _, plain = make(loss_weights={"distillation": 0.0})
    assert type(plain) is CodeSeq2Seq
    assert isinstance(taught, SummarySeq2Seq)
    names = set(taught.state_dict()) - set(plain.state_dict())
    assert names == {"summary", "project.weight", "project.bias"}
    plain.load_state_dict({k: v for k, v in taught.state_dict().items() if k not in names})
    window, target = torch.tensor([[0, 1], [3, -1]]), torch.tensor([2, 4])
    logits, codes = plain.eval()(window, target)
    same, again, _ = taught.eval()(window, target, num_negatives=5)
    assert torch.equal(codes, again)
    for one, two in zip(logits, same, strict=True):
        torch.testing.assert_close(one, two)


def reached(method, module, term):
    module.zero_grad()
    loss_values(method, module, batch(method, *HISTORIES))[term].backward()
    return {n for n, p in module.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize("form", ["info_nce", "cosine"])
def test_each_term_reaches_its_own_and_the_shared_weights(form) -> None:
    method, module = make(distillation=form)
    code, lesson = reached(method, module, "next_code"), reached(method, module, "distillation")
    own = {"summary", "project.weight", "project.bias"}
    assert lesson - code == own
    assert {"t5.shared.weight", "t5.encoder.block.0.layer.0.SelfAttention.q.weight"} <= lesson
    assert not own & code
    method, module = make(loss_weights={"distillation": 0.0})
    assert set(loss_values(method, module, batch(method, *HISTORIES))) == {"next_code"}


@pytest.mark.parametrize("form", ["info_nce", "cosine"])
def test_distillation_teaches_which_item_is_which(form) -> None:
    method, module = make(distillation=form, loss_weights={"next_code": 0.0})
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    rows = batch(method, *HISTORIES)
    window, target = torch.tensor([[0, 1], [4, 5], [1, 2]]), torch.tensor([2, 6, 3])

    def nearest() -> list[int]:
        with torch.no_grad():
            summary = module(window, target, num_negatives=1)[2].summary
        unit = torch.nn.functional.normalize(torch.from_numpy(TEACHER), dim=1)
        found: list[int] = (
            (torch.nn.functional.normalize(summary, dim=1) @ unit.T).argmax(1).tolist()
        )
        return found

    assert nearest() != [2, 6, 3]
    for _ in range(200):
        loss = loss_values(method, module, rows)["distillation"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert nearest() == [2, 6, 3]


def test_an_item_is_no_negative_of_itself() -> None:
    """Every negative drawn is the target itself: no negative is left."""
    method, module = make(num_negatives=200)
    window, target = torch.tensor([[0, 1]]), torch.tensor([2])
    _, _, lesson = module(window, target, num_negatives=4)
    own = torch.full((4,), 2)
    lesson = replace(lesson, others=module.teacher[own], other_items=own)
    assert method._distilled(lesson).item() == pytest.approx(0, abs=1e-6)


def test_it_learns_to_continue_histories_and_is_restored_without_its_teacher() -> None:
    method, module = make()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    rows = batch(method, *HISTORIES)
    for _ in range(150):
        loss = sum(loss_values(method, module, rows).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    asked = batch(method, [0, 1], [4, 5, 6])
    with torch.no_grad():
        ranking = method.predict(module.eval(), asked, 3, Candidates())
    assert ranking.item_index[:, 0].tolist() == [2, 7]
    state = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    again = method.restore(inputs(parts=()), state).eval()
    with torch.no_grad():
        restored = method.predict(again, asked, 3, Candidates())
    assert torch.equal(restored.item_index, ranking.item_index)
    assert method.facts(again)["teacher"] == "recommender"


def test_histories_of_one_item_have_nothing_to_teach() -> None:
    for form in ("info_nce", "cosine"):
        method, module = make(distillation=form)
        terms = loss_values(method, module, batch(method, [3], [5]))
        assert {name: term.item() for name, term in terms.items()} == {
            "next_code": 0,
            "distillation": 0,
        }
        sum(terms.values()).backward()


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match=r"`embeddings` must be given where method 'prorec'"):
        make(inputs(parts=()))
    with pytest.raises(DataError, match="source 'recommender'; got text, other"):
        make(inputs(parts=(("text", 2), ("other", 6))))
    make(inputs(parts=()), loss_weights={"distillation": 0.0})
