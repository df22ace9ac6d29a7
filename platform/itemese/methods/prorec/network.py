"""An encoder-decoder over item codes that also sums up what it wrote, for a teacher to compare.

The decoder reads one token more than the codes of its target; the state there, projected, is set
against the teacher's vector of the target. Under the causal mask no code is predicted from it, so
search is that of the plain model.

Shapes: M prediction tasks of a batch, L code length, K_l codes of level l, D hidden size, I items,
Z size of the teacher's vectors, S negatives.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itemese.decoding.code_model import CodeNormalisation
from itemese.decoding.code_seq2seq import CodeSeq2Seq, Seq2SeqConfig
from itemese.decoding.trie import PrefixTrie
from itemese.layers.id_vectors import first_equal


@dataclass(frozen=True)
class Lesson:
    """What a batch shows beside what the teacher says.

    Attributes:
        summary [M, Z], wanted [M, Z], items [M] int64: of each target, by the model and by the
            teacher, and which item it is.
        others [S, Z], other_items [S] int64: the teacher's vectors of items drawn evenly. Items of
            equal vectors have the number of the first of them.
    """

    summary: Tensor
    wanted: Tensor
    items: Tensor
    others: Tensor
    other_items: Tensor


class SummarySeq2Seq(CodeSeq2Seq):
    """`CodeSeq2Seq` with a summary token behind the codes.

    Attributes:
        teacher [I, Z] float32: frozen, not saved: what is restored is not taught.
        first [I] int64: the first item with the teacher's vector of each.
        summary: Input vector of the summary token.
        project: From its state to the teacher's size.
    """

    teacher: Tensor
    first: Tensor

    def __init__(
        self,
        config: Seq2SeqConfig,
        item_tokens: Tensor,
        tree: PrefixTrie,
        *,
        teacher: Tensor,
        code_normalisation: CodeNormalisation,
    ) -> None:
        super().__init__(config, item_tokens, tree, code_normalisation=code_normalisation)
        self.register_buffer("teacher", teacher, persistent=False)
        self.register_buffer("first", first_equal(teacher), persistent=False)
        self.summary = nn.Parameter(torch.randn(config.dim))
        self.project = nn.Linear(config.dim, teacher.shape[1])

    def decoder_inputs(self, target: Tensor) -> Tensor:
        """Return ``[M, L + 2, D]``: the opening token, all codes, the summary token."""
        tokens = F.pad(self.item_tokens[target], (1, 0), value=self.opening)
        vectors = F.embedding(tokens, self.token_table)
        last = self.summary.to(vectors.dtype).expand(len(target), 1, -1)
        return torch.cat([vectors, last], dim=1)

    def forward(  # type: ignore[override]
        self, item_index: Tensor, target: Tensor, *, num_negatives: int
    ) -> tuple[list[Tensor], Tensor, Lesson]:
        """Predict the codes of an item after each history, and sum up the item.

        Args:
            item_index: ``[M, T]`` int64, right-padded with -1.
            target: ``[M]`` int64, the item that follows.
            num_negatives: S, drawn by torch's global generator.

        Returns:
            L logits ``[M, K_l]``, the codes ``[M, L] int64``, and the lesson.
        """
        states = self.decoder_states(item_index, target)
        logits = [self.code_logits(states[:, n], n) for n in range(self.code_length)]
        codes = self.codes_of(target)
        summary = self.project(F.normalize(states[:, -1], dim=-1))
        drawn = torch.randint(len(self.teacher), (num_negatives,), device=target.device)
        lesson = Lesson(
            summary,
            self.teacher[target],
            self.first[target],
            others=self.teacher[drawn],
            other_items=self.first[drawn],
        )
        return logits, codes, lesson
