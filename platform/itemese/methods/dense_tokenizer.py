"""Dense tokenizer: a language model learns to say an item's text again from a few slots alone.

It makes item vectors for `store` and for codebooks: give it to `recommender` and let `embeddings`
take its vectors.

Source: Q. Liu, J. Zhu, L. Fan, Z. Zhao, X.-M. Wu, "STORE: Streamlining Semantic Tokenization and
    Generative Recommendation with A Single LLM", arXiv 2409.07276v1 (later versions of the id are
    another paper). Read through its abstract and third-party notes only.
Code: none released.
Follows: dense token slots behind a cascaded attention mask, trained to write the text again.
Differs: readings taken where the notes are silent. The block layout, what of a slot is its vector
    (`backbones.text_slots`), and ``mask: two_pass`` as the stricter reading; the number of slots.
    The "other self-supervised terms" of the notes are left out: nothing says what they are. As a
    recommender it knows content and no behaviour: it ranks by the mean vector of a history, so the
    best validation says nothing of the reconstruction. Set ``training.validate_every`` to
    ``training.max_epochs``, so that the last state is kept.
Shapes: B batch, T history length, N tokens of a text, M slots, D hidden size, I items.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from itemese.backbones.adapters import save_adapters_only
from itemese.backbones.backbone import weights_digests
from itemese.backbones.text_backbone import TextBackboneConfig, build_text_backbone
from itemese.backbones.text_slots import SlotMask, TextSlots
from itemese.core.schema import Request
from itemese.layers.histories import last_states, pad_histories
from itemese.methods.base import Batch, Inputs, LossTerm, LossWeights, MethodConfig
from itemese.methods.families import CatalogueMethod
from itemese.prompts.item_words import item_words, tokenised
from itemese.prompts.tokenizer import TextTokenizer


class DenseTokenizerLossWeights(LossWeights):
    """The tokenizer has one term."""

    reconstruction: float = Field(default=1.0, ge=0)


class DenseTokenizerConfig(MethodConfig):
    """Settings.

    Attributes:
        num_slots: M; an item's vector has M times the model's size.
        mask: ``cascaded``, ``two_pass``, or ``none`` (the ablation): see `backbones.text_slots`.
        columns: Of the items; absent ones are passed over, but one must exist.
        max_text_tokens: N, the window with its end token; longer texts are cut there.
        texts_per_step: Items whose texts a step reads, drawn evenly from the catalogue.
        backbone: The language model.
        loss_weights: Multipliers of the loss terms.
    """

    name: Literal["dense_tokenizer"] = "dense_tokenizer"
    num_slots: int = Field(default=3, ge=1, le=64)
    mask: SlotMask = "cascaded"
    columns: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=("title", "brand", "categories", "genres"), min_length=1
    )
    max_text_tokens: int = Field(default=32, ge=2)
    texts_per_step: int = Field(default=64, ge=1)
    backbone: TextBackboneConfig = TextBackboneConfig()
    loss_weights: DenseTokenizerLossWeights = DenseTokenizerLossWeights()


class DenseTokenizer(CatalogueMethod):
    """See the module docstring."""

    Config = DenseTokenizerConfig
    config: DenseTokenizerConfig
    learns_from_events: ClassVar[bool] = False
    encodes_histories: ClassVar[bool] = True
    has_item_vectors: ClassVar[bool] = True

    def file_digests(self) -> dict[str, str]:
        """Return the hash of pretrained weights."""
        return weights_digests(self.config.backbone)

    def build(self, inputs: Inputs) -> nn.Module:
        """Return the model with its slots and the catalogue's texts."""
        words = item_words(inputs.catalog, self.config.columns)
        name, size = self.config.backbone.pretrained, self.config.backbone.vocabulary
        tokenizer = TextTokenizer.of(name, words, size)
        texts, _ = tokenised(words, tokenizer, self.config.max_text_tokens)
        return self._assemble(texts, tokenizer)

    def restore(self, inputs: Inputs, state: dict[str, Tensor]) -> nn.Module:
        """Rebuild it with the tokenizer and the texts that were saved."""
        module = self._assemble(state["texts"], TextTokenizer.from_tensor(state["tokenizer"]))
        module.load_state_dict(state)
        return module

    def _assemble(self, texts: Tensor, tokenizer: TextTokenizer) -> TextSlots:
        """Put the parts together."""
        config = self.config
        longest = 2 * config.max_text_tokens + config.num_slots
        lm = build_text_backbone(config.backbone, tokenizer.size, longest)
        kept = tokenizer.to_tensor()
        module = TextSlots(lm, texts, kept, num_slots=config.num_slots, mask=config.mask)
        if config.backbone.adapters_only:
            save_adapters_only(module, "lm")
        return module

    @property
    def embeds_cold_items(self) -> bool:
        """Every item has a text."""
        return True

    def item_vectors(self, module: nn.Module) -> Tensor:
        """Return the slots of each item's text end to end, ``[I, M * D]``, of length 1."""
        assert isinstance(module, TextSlots)
        return module.items()

    def vector_parts(self, module: nn.Module) -> tuple[tuple[str, int], ...]:
        """Return ``slot_1``, ``slot_2``, ... and the model's size for each."""
        assert isinstance(module, TextSlots)
        width = module.slots.shape[1]
        return tuple((f"slot_{n + 1}", width) for n in range(module.num_slots))

    def collate(self, requests: Sequence[Request]) -> Batch:
        """Return ``item_index [B, T]``, right-padded with -1."""
        return pad_histories(requests)

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, LossTerm]:
        """Return ``reconstruction``: the cross-entropy a token of texts written again.

        Texts are drawn evenly from the whole catalogue, so items without an event are read as
        often as any other.
        """
        assert isinstance(module, TextSlots)
        logits, labels = module(batch["item_index"], self.config.texts_per_step)
        expected = self.config.texts_per_step * module.words_per_text
        return {
            "reconstruction": LossTerm(
                F.cross_entropy(logits.float(), labels), len(labels) / expected
            )
        }

    def count_targets(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """Count micro-batches: no target is of a history."""
        return {}

    def score_catalogue(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the cosine of the history's mean vector and each item's."""
        states, vectors = module(batch["item_index"])
        history = F.normalize(last_states(states, batch["item_index"]), dim=-1)
        found: Tensor = history @ vectors.T
        return found

    def facts(self, module: nn.Module) -> dict[str, Any]:
        """Return how many texts fill the window, which then holds less than all of them."""
        assert isinstance(module, TextSlots)
        full = (module.texts >= 0).all(dim=1)
        return {"texts_that_fill_the_window": int(full.sum()), "num_slots": module.num_slots}
