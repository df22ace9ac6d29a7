"""Starting vectors of tokens by hand, and that they keep codes distinct."""

import torch

from itemese.backbones.token_vectors import code_vectors, start_tokens


def test_codes_are_means_of_what_earlier_codes_leave() -> None:
    vectors = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 4.0], [0.0, 6.0]])
    codes = torch.tensor([[0, 0], [0, 1], [2, 0], [2, 1]])
    first, second = code_vectors(vectors, codes, (3, 2))
    assert first.tolist() == [[2.0, 0.0], [0.0, 0.0], [0.0, 5.0]]
    assert second.tolist() == [[-0.5, -0.5], [0.5, 0.5]]


def test_tokens_keep_the_angles_of_their_codes() -> None:
    torch.manual_seed(0)
    found = [torch.randn(6, 8), 0.1 * torch.randn(4, 8), torch.zeros(3, 8)]
    table = torch.randn(20, 16)
    before = table.clone()
    start_tokens(table, [2, 8, 12], found, std=0.02)
    written = table[2:12]
    cosine = torch.nn.functional.cosine_similarity
    placed, meant = written[:, :8], torch.cat(found[:2])
    torch.testing.assert_close(
        cosine(placed[:, None], placed[None], dim=2), cosine(meant[:, None], meant[None], dim=2)
    )
    assert abs(placed.square().mean().sqrt() - 0.02) < 1e-6
    ratio = placed[6:].norm() / placed[:6].norm()
    torch.testing.assert_close(ratio, found[1].norm() / found[0].norm())
    untouched = torch.ones(20, dtype=torch.bool)
    untouched[2:12] = False
    torch.testing.assert_close(table[untouched], before[untouched])
    torch.testing.assert_close(written[:, 8:], before[2:12, 8:])


def test_larger_vectors_than_the_table_are_cut_to_their_main_directions() -> None:
    torch.manual_seed(0)
    plane = torch.randn(6, 2) @ torch.randn(2, 32)
    table = torch.zeros(7, 4)
    start_tokens(table, [1], [plane], std=1.0)
    placed = torch.pdist(table[1:])
    torch.testing.assert_close(placed / placed[0], torch.pdist(plane) / torch.pdist(plane)[0])


def test_vectors_that_tell_nothing_leave_the_table_alone() -> None:
    table = torch.randn(5, 4)
    before = table.clone()
    start_tokens(table, [1], [torch.zeros(4, 3)], std=1.0)
    torch.testing.assert_close(table, before)
