"""Prediction tasks of a history, and the T5 over item tokens beside its own definition."""

import pytest
import torch
import torch.nn.functional as F

from itemese.decoding import code_seq2seq
from itemese.decoding.code_seq2seq import CodeSeq2Seq, Seq2SeqConfig
from itemese.decoding.trie import PrefixTrie
from itemese.layers.histories import next_item_tasks
from itemese.losses.code_tokens import next_code


def test_every_item_but_the_oldest_is_a_task() -> None:
    window, target, row = next_item_tasks(torch.tensor([[4, 5, 6], [7, 8, -1]]), 0)
    assert target.tolist() == [5, 6, 8]
    assert row.tolist() == [0, 0, 1]
    assert window.tolist() == [[4, -1], [4, 5], [7, -1]]


def test_drawn_tasks_are_some_of_all_and_come_evenly() -> None:
    history = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, -1, -1, -1, -1]])
    torch.manual_seed(0)
    counts = torch.zeros(2, 6)
    for _ in range(600):
        window, _, row = next_item_tasks(history, 2)
        places = (window >= 0).sum(1)
        assert row.tolist() == [0, 0, 1]
        assert places[0] != places[1]
        counts[row, places] += 1
    assert counts[:, 0].tolist() == [0, 0]
    assert counts[1].tolist() == [0, 600, 0, 0, 0, 0]
    assert (counts[0, 1:] - 240).abs().max() < 50  # 5 standard deviations of 600 draws at .4


def test_drawn_tasks_do_not_depend_on_padding() -> None:
    history = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, -1, -1, -1, -1]])
    found = []
    for padding in (0, 3):
        torch.manual_seed(1)
        wide = F.pad(history, (0, padding), value=-1)
        found.append((*next_item_tasks(wide, 3), torch.rand(1)))
    for narrow, wide in zip(*found, strict=True):
        assert torch.equal(narrow, wide)


def small(num_user_tokens: int = 0) -> CodeSeq2Seq:
    codes = torch.tensor([[a, b] for a in range(3) for b in range(4)])
    torch.manual_seed(0)
    return CodeSeq2Seq(
        Seq2SeqConfig(dim=16, num_layers=2, num_heads=2, head_dim=8, hidden_dim=32),
        codes + torch.tensor([1, 4]),
        PrefixTrie.from_codes(codes, (3, 4)),
        num_user_tokens=num_user_tokens,
    ).eval()


def test_logits_are_those_of_t5_over_tokens() -> None:
    model = small(num_user_tokens=5)
    history, target = torch.tensor([[0, 7, 11], [5, -1, -1]]), torch.tensor([3, 10])
    user = torch.tensor([2, 4])
    logits, codes = model(history, target, user)
    assert codes.tolist() == [[0, 3], [2, 2]]
    # One row at a time, without padding, as token ids.
    for row, items in enumerate([[0, 7, 11], [5]]):
        words = [8 + int(user[row])]
        for item in items:
            words += [1 + item // 4, 4 + item % 4]
        begun = torch.tensor([[0, 1 + int(target[row]) // 4]])
        states = model.t5(input_ids=torch.tensor([words]), decoder_input_ids=begun)[0][0]
        plain = states * 16**-0.5 @ model.token_table.T
        torch.testing.assert_close(logits[0][row], plain[0, 1:4], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(logits[1][row], plain[1, 4:8], atol=1e-5, rtol=1e-4)


def test_the_user_is_heard_only_where_there_are_user_tokens() -> None:
    history, target = torch.tensor([[0, 7]]), torch.tensor([3])
    with_users = small(num_user_tokens=5)
    first, second = (with_users(history, target, torch.tensor([n]))[0][0] for n in (0, 1))
    assert not torch.allclose(first, second)
    logits, codes = small()(history, target)
    assert F.cross_entropy(logits[0], codes[:, 0]).isfinite()
    assert small().user_start is None


def test_groups_of_like_length_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    history = torch.randint(12, (40, 6))
    history[torch.arange(6) > torch.randint(6, (40, 1))] = -1
    target = torch.randint(12, (40,))
    alone, codes = model(history, target)
    monkeypatch.setattr(code_seq2seq, "GROUP_SIZE", 8)
    grouped, same_codes = model(history, target)
    assert torch.equal(codes, same_codes)
    for one, other in zip(alone, grouped, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_histories_of_one_item_make_no_task_and_no_loss() -> None:
    window, target, _ = next_item_tasks(torch.tensor([[3], [4]]), 0)
    loss = next_code(*small()(window, target))
    assert loss == 0
    loss.backward()
