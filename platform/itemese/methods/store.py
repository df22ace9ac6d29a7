"""STORE: the language model that invented the items' tokens learns to speak them.

Source: Q. Liu, J. Zhu, L. Fan, Z. Zhao, X.-M. Wu, "STORE: Streamlining Semantic Tokenization and
    Generative Recommendation with A Single LLM", arXiv 2409.07276v1 (later versions of the id are
    another paper). Read through its abstract and third-party notes only.
Code: none released; where the notes are silent, the first author's RecBench shows a way.
Follows: one model throughout: `dense_tokenizer` presses texts into slots, codebooks of the kind
    ``parallel_kmeans`` code them, and the same weights go on here (``start: tokenizer``) with
    token-to-token (the next item), text-to-token and token-to-text, cross-entropy each; codes in a
    table of their own and a loss at every code of a history, as in RecBench; beams inside the
    catalogue's tree.
Differs: readings where the notes are silent. "PCA" before k-means keeps the first components of
    each slot, not whitened: ``codebooks.principal``, 64 of 128 in the recipes. Beams add
    log-probabilities of codes that are by default renormalised over those that the tree allows, so
    that an only child is certain; ``code_normalisation: level`` keeps the trained probabilities
    (RecBench adds probabilities, normalised before its filter). The task is said by a learned token
    instead of a template, whose words are not known; each position's softmax runs over its own
    level's codes. Texts of the two alignment tasks are drawn evenly from the catalogue. The
    template of the scoring use (a yes or no with AUC) is not known; ``task: click`` reads the
    probability of the item's codes instead. New items of the catalogue keep the codebooks' codes;
    what the model would call them is reported, and `codes_of` says it.
Shapes: B batch, T history length, L code length, K_l codes of level l, N tokens of a text, I items.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from itemese.backbones.adapters import save_adapters_only
from itemese.backbones.backbone import weights_digests
from itemese.backbones.text_backbone import TextBackboneConfig, build_text_backbone, take_weights
from itemese.backbones.text_slots import TextSlots
from itemese.core.errors import ConfigError
from itemese.core.ranking import Candidates, Ranking, Scores
from itemese.core.schema import Request
from itemese.core.vectors import SemanticIds
from itemese.decoding.free_beams import free_beam_search
from itemese.decoding.text_item_lm import TextItemLanguageModel
from itemese.decoding.trie import PrefixTrie
from itemese.layers.histories import pad_histories
from itemese.losses.code_tokens import next_code
from itemese.methods.base import (
    Batch,
    Inputs,
    LossTerm,
    LossWeights,
    Need,
)
from itemese.methods.families import BeamConfig, BeamMethod
from itemese.prompts.item_tokens import TokenLayout
from itemese.prompts.item_words import item_words, tokenised
from itemese.prompts.tokenizer import TextTokenizer


class StoreLossWeights(LossWeights):
    """One weight a task; the paper's are not known."""

    token_to_token: float = Field(default=1.0, ge=0)
    text_to_token: float = Field(default=1.0, ge=0)
    token_to_text: float = Field(default=1.0, ge=0)


class StoreConfig(BeamConfig):
    """Settings.

    Attributes:
        task: ``next_item``; or ``click``, for which nothing is trained otherwise: an item that the
            model gives p is a click with p / (p + 1/I), which is so where one item drawn evenly
            stands beside each click (``evaluation.click_negatives: 1``). Where events have labels
            the order is the model's, and the height of the probabilities means little.
        start: ``tokenizer`` goes on from the weights, words and texts of the `recommender`, a
            `dense_tokenizer` with the same backbone; ``fresh`` builds the backbone anew.
        columns: Of the items' texts; absent ones are passed over. Read by ``start: fresh``.
        max_text_tokens: Longer texts are cut there. Read by ``start: fresh``.
        texts_per_step: Items that the two alignment tasks draw a step.
        dropout: Of token vectors and of the states before the output heads, in training.
        token_init: How codes begin: ``random``, as drawn codes always do, or ``vectors``, as what
            each code adds to the item vectors that the semantic IDs were made of.
        constrained: Whether beams stay inside the catalogue; without it, codes of no item are
            dropped when a beam has ended, and `code_normalisation` must be ``level``.
        backbone: The language model; ``adapter: lora`` leaves a pretrained one as it is.
    """

    name: Literal["store"] = "store"
    task: Literal["next_item", "click"] = "next_item"
    start: Literal["tokenizer", "fresh"] = "tokenizer"
    columns: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=("title", "brand", "categories", "genres"), min_length=1
    )
    max_text_tokens: int = Field(default=32, ge=2)
    texts_per_step: int = Field(default=64, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    token_init: Literal["random", "vectors"] = "vectors"
    constrained: bool = True
    backbone: TextBackboneConfig = TextBackboneConfig()
    loss_weights: StoreLossWeights = StoreLossWeights()

    @model_validator(mode="after")
    def _no_tree_no_legal_codes(self) -> Self:
        if self.constrained or self.code_normalisation == "level":
            return self
        raise ValueError("`code_normalisation` level where `constrained` is false")  # noqa: EM101

    @model_validator(mode="after")
    def _clicks_are_of_items(self) -> Self:
        if self.constrained or self.task == "next_item":
            return self
        raise ValueError("`constrained` true where `task` is click")  # noqa: EM101


class Store(BeamMethod):
    """See the module docstring."""

    Config = StoreConfig
    config: StoreConfig
    predicts_oldest: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SEMANTIC_IDS, Need.RECOMMENDER})

    def required(self) -> frozenset[Need]:
        """Return semantic IDs, and the tokenizer unless the model starts afresh."""
        return self.needs if self.config.start == "tokenizer" else frozenset({Need.SEMANTIC_IDS})

    def file_digests(self) -> dict[str, str]:
        """Return the hash of pretrained weights."""
        return weights_digests(self.config.backbone)

    def build(self, inputs: Inputs) -> nn.Module:
        """Return the model with tokens for this catalogue's semantic IDs.

        Raises:
            ConfigError: It is to go on from a tokenizer, and the recommender is none, or another
                model than `backbone`.
        """
        ids = inputs.semantic_ids
        assert ids is not None, "store needs semantic IDs"
        if self.config.start == "tokenizer":
            source = inputs.recommender
            if not isinstance(source, TextSlots):
                message = (
                    "`recommender.method.name` must be dense_tokenizer where `method.start` is "
                    f"tokenizer; got a {type(source).__name__}. Change it, or set start to fresh."
                )
                raise ConfigError(message)
            module = self._assemble(ids, source.texts.clone(), source.tokenizer.clone(), source)
        else:
            words = item_words(inputs.catalog, self.config.columns)
            name = self.config.backbone.pretrained
            if name is not None:
                tokenizer = TextTokenizer.pretrained(name)
            else:
                tokenizer = TextTokenizer.trained(words, self.config.backbone.vocabulary)
            texts, _ = tokenised(words, tokenizer, self.config.max_text_tokens)
            module = self._assemble(ids, texts, tokenizer.to_tensor(), None)
        if self.config.token_init == "vectors":
            module.start_codes(ids.predicted, inputs.coded_vectors)
        return _with_unseen(module, inputs)

    def restore(self, inputs: Inputs, state: dict[str, Tensor]) -> nn.Module:
        """Rebuild it with the tokenizer and the texts that were saved."""
        ids = inputs.semantic_ids
        assert ids is not None, "store needs semantic IDs"
        module = self._assemble(ids, state["texts"], state["tokenizer"], None)
        module.load_state_dict(state)
        return _with_unseen(module, inputs)

    def _assemble(
        self, ids: SemanticIds, texts: Tensor, tokenizer: Tensor, source: TextSlots | None
    ) -> TextItemLanguageModel:
        """Put the parts together, with the weights of `source` if there is one."""
        config = self.config
        layout = TokenLayout.of(ids)
        codes = len(layout.code_sizes)
        longest = 1 + max((config.max_history + 1) * codes, texts.shape[1] + codes)
        if source is not None:  # positions belong to the weights that go on
            longest = max(longest, 2 * texts.shape[1] + source.num_slots)
        lm = build_text_backbone(
            config.backbone, TextTokenizer.from_tensor(tokenizer).size, longest
        )
        if source is not None:
            take_weights(lm, source.lm)
        module = TextItemLanguageModel(
            lm,
            layout.item_tokens(ids),
            PrefixTrie.of(ids),
            texts=texts,
            tokenizer=tokenizer,
            dropout=config.dropout,
            code_normalisation=config.code_normalisation,
        )
        if config.backbone.adapters_only:
            save_adapters_only(module, "backbone")
            save_adapters_only(module, "head")
        return module

    def collate(self, requests: Sequence[Request]) -> Batch:
        """Return ``item_index [B, T]``, right-padded with -1."""
        return pad_histories(requests)

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, LossTerm]:
        """Return the cross-entropy of each task whose weight is not 0, a code or a word."""
        assert isinstance(module, TextItemLanguageModel)
        weights = self.config.loss_weights.model_dump()
        tasks = tuple(name for name, weight in weights.items() if weight)
        found = module(batch["item_index"], self.config.texts_per_step, tasks=tasks)
        terms = {}
        for task, (logits, labels) in found.items():
            if task == "token_to_text":
                targets = len(labels) / (self.config.texts_per_step * module.words_per_text)
                terms[task] = LossTerm(F.cross_entropy(logits.float(), labels), targets)
            else:
                targets = len(labels) if task == "token_to_token" else 1
                terms[task] = LossTerm(next_code(logits, labels), targets)
        return terms

    def count_targets(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """Count every item of a history, the oldest too; the tasks over texts draw theirs."""
        return {"token_to_token": lengths}

    def predict(self, module: nn.Module, batch: Batch, k: int, candidates: Candidates) -> Ranking:
        """Rank by beam search; where the task is clicks, scores are their probabilities."""
        assert isinstance(module, TextItemLanguageModel)
        if self.config.constrained:
            ranking = super().predict(module, batch, k, candidates)
        else:
            ranking = free_beam_search(
                module,
                batch["item_index"],
                k,
                beam_width=self.config.beam_width,
                candidates=candidates,
                counts=module.invalid_beams,
            )
        if self.task == "next_item":
            return ranking
        prob = torch.sigmoid(ranking.score + math.log(len(module.item_tokens)))
        return Ranking(ranking.item_index, prob.where(ranking.item_index >= 0, ranking.score))

    def score(self, module: nn.Module, batch: Batch, item_index: Tensor) -> Scores:
        """Return the exact log-probability of each item's codes, or the log-odds of its click."""
        found = super().score(module, batch, item_index)
        if self.task == "next_item":
            return found
        assert isinstance(module, TextItemLanguageModel)
        # p / (p + 1/I) is the sigmoid of log p + log I.
        return Scores(found.values + math.log(len(module.item_tokens)), "logit")

    def invalid_beams(self, module: nn.Module) -> int:
        """Return how many beams outside the tree ended as no item."""
        assert isinstance(module, TextItemLanguageModel)
        return module.invalid_beams.invalid

    def codes_of(self, module: nn.Module, texts: Sequence[str]) -> Tensor:
        """Return the codes ``[A, L] int64`` that the model gives new items by their texts.

        Args:
            module: In evaluation mode.
            texts: One line an item, as `prompts.item_words` writes them.
        """
        assert isinstance(module, TextItemLanguageModel)
        tokenizer = TextTokenizer.from_tensor(module.tokenizer)
        tokens, _ = tokenised(texts, tokenizer, module.texts.shape[1])
        return module.name(tokens.to(module.texts.device))

    def facts(self, module: nn.Module) -> dict[str, Any]:
        """Return the beams' settings and how many items the model names as the codebooks did.

        A share of named items near chance means that the text-to-token task was off or forgotten,
        and that new items should not be tokenised by this model. Items without a training event are
        asked by themselves too: texts of the task, though no history (a refit's perhaps) has them.
        """
        assert isinstance(module, TextItemLanguageModel)
        found = super().facts(module) | {
            "constrained": self.config.constrained,
            **module.shares_named(torch.arange(len(module.texts))),
        }
        unseen = module.get_buffer("unseen").nonzero().flatten()
        if len(unseen):
            shares = module.shares_named(unseen)
            found |= {f"{name}_unseen": share for name, share in shares.items()}
            found["unseen_items"] = len(unseen)
        if not self.config.constrained:
            found["illegal_beams"] = round(module.invalid_beams.share, 4)
        return found


def _with_unseen(module: TextItemLanguageModel, inputs: Inputs) -> TextItemLanguageModel:
    """Note which items no training event names, ``unseen [I] bool``; it is not saved."""
    unseen = torch.from_numpy(inputs.catalog.train_count == 0)
    module.register_buffer("unseen", unseen, persistent=False)
    return module
