"""EAGER-LLM: items have codes of what they say and of how they are used, in one language model.

Source: M. Hong, Y. Xia, Z. Wang, J. Zhu et al., "EAGER-LLM: Enhancing Large Language Models as
    Recommenders through Exogenous Behavior-Semantic Integration", arXiv 2502.14735v1. Read through
    its opening, third-party notes and the released code.
Code: Dennis-Huangm/EAGER-LLM (PyTorch), built on LC-Rec and EAGER.
Follows: codes of a balanced tree over text vectors, then of one over DIN's item vectors
    (`codebooks.sources`); a mix of six tasks beside the next item's (text to codes and back,
    titles to codes, codes to title, intentions, preferences); two contrastive terms that compare
    the state at the end of a sequence with the target's vector of either source, 2,048 drawn
    negatives, temperature .1, weight .1; a last phase on the merged model that trains a fresh LoRA
    and the codes' vectors on the next item only.
Differs: DIN is trained on training events only (the released code leaks the validation item). The
    positive is no negative of itself; targets of the batch's other rows are negatives too; only
    histories have contrastive terms. A task is said by a learned token, or by sentences
    (``instructions: words``; ours, not LC-Rec's; the next item keeps its token, codes are opened by
    one), and has a weight of its own, not a share of the samples (ours, not searched). Every item
    of a history is a target in one pass. Intentions and preferences are made of item columns by a
    template, unless `intentions` and `preferences` name what a model wrote; a preference is what
    most items of a history are liked for. Each code's softmax runs over its own level, and beams
    stay inside the catalogue's tree and by default renormalise over its codes
    (`code_normalisation`), where the released code allows any token of the level.
Shapes: B batch, T history length, L code length, K_l codes of level l, N tokens of a text, H items
    in a task's prompt, I items, d size of a source's vectors.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from itemese.backbones.adapters import FIRST, add_adapter, save_adapters_only, use_adapters
from itemese.backbones.backbone import weights_digests
from itemese.backbones.text_backbone import TextBackboneConfig, build_text_backbone
from itemese.core.vectors import SemanticIds
from itemese.decoding.trie import PrefixTrie
from itemese.losses.code_tokens import next_code
from itemese.losses.contrastive import info_nce
from itemese.methods.base import (
    Batch,
    Inputs,
    LossTerm,
    LossWeights,
    Need,
    Stage,
)
from itemese.methods.eager_llm import instructions
from itemese.methods.eager_llm.facets import intention_lines, preference_facets
from itemese.methods.eager_llm.network import AlignedItemLanguageModel, Contrast, Knowledge
from itemese.methods.families import BeamConfig, BeamMethod
from itemese.prompts.item_tokens import TokenLayout
from itemese.prompts.item_words import item_titles, item_words, tokenised
from itemese.prompts.tokenizer import TextTokenizer

ANNEALING = "annealing"
"""The last stage, and its adapter."""


class EagerLlmLossWeights(LossWeights):
    """The contrastive weights are the released code's; those of the tasks are ours."""

    next_item: float = Field(default=1.0, ge=0)
    text_to_codes: float = Field(default=0.1, ge=0)
    codes_to_text: float = Field(default=0.1, ge=0)
    titles_to_codes: float = Field(default=0.1, ge=0)
    codes_to_title: float = Field(default=0.1, ge=0)
    intention: float = Field(default=0.1, ge=0)
    preference: float = Field(default=0.1, ge=0)
    semantic_contrast: float = Field(default=0.1, ge=0)
    behaviour_contrast: float = Field(default=0.1, ge=0)


class EagerLlmConfig(BeamConfig):
    """Settings.

    Attributes:
        max_history: 20 in the released code.
        semantic_source: Source of the embeddings that `semantic_contrast` reads.
        behaviour_source: Source that `behaviour_contrast` reads.
        columns: Of the items' texts; absent ones are passed over.
        facets: Columns that intentions and preferences are made of by a template.
        intentions: Column with intentions, of the items or of the `knowledge` section; None uses
            a template. An item without one is asked for by its title.
        preferences: Column with what an item is liked for, phrases with commas between, likewise
            (``taste`` of the knowledge section); None takes the facets.
        instructions: How a task is said: by learned ``tokens``, or in ``words`` of templates.
        max_text_tokens: Longer texts and titles are cut there.
        prompt_items: H, newest items of a history that a task's prompt holds.
        samples_per_task: Items, or rows of the batch, that each task but `next_item` draws a step.
        num_negatives: Items drawn for the contrastive terms.
        temperature: Divides their cosines.
        anneal_share: Share of the steps of the last phase; 0 leaves it and its LoRA out.
        anneal_rank: Rank of that LoRA.
        anneal_alpha: Its scale is ``anneal_alpha / anneal_rank``.
        anneal_dropout: Of its inputs.
        anneal_schedule: ``one_step``, the released code's, goes from all terms to the next item;
            ``two_step`` drops the tasks in words for half of the share before it.
        dropout: Of token vectors and of the states before the output heads, in training.
        token_init: How codes begin: ``random``, as drawn codes always do, or ``vectors``, as what
            each code adds to the item vectors that the semantic IDs were made of.
        backbone: The language model; ``adapter: lora`` leaves a pretrained one as it is.
        loss_weights: Multipliers of the loss terms.
    """

    name: Literal["eager_llm"] = "eager_llm"
    max_history: int = Field(default=20, ge=1, le=100_000)
    semantic_source: str = Field(default="text", min_length=1)
    behaviour_source: str = Field(default="recommender", min_length=1)
    columns: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=("title", "brand", "categories", "genres"), min_length=1
    )
    facets: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=("categories", "genres", "brand"), min_length=1
    )
    intentions: str | None = None
    preferences: str | None = None
    instructions: Literal["tokens", "words"] = "tokens"
    max_text_tokens: int = Field(default=24, ge=2)
    prompt_items: int = Field(default=8, ge=1)
    samples_per_task: int = Field(default=16, ge=1)
    num_negatives: int = Field(default=2048, ge=1)
    temperature: float = Field(default=0.1, gt=0)
    anneal_share: float = Field(default=0.25, ge=0, lt=1)
    anneal_rank: int = Field(default=8, ge=1)
    anneal_alpha: float = Field(default=32.0, gt=0)
    anneal_dropout: float = Field(default=0.05, ge=0, lt=1)
    anneal_schedule: Literal["one_step", "two_step"] = "one_step"
    dropout: float = Field(default=0.2, ge=0, lt=1)
    token_init: Literal["random", "vectors"] = "vectors"
    backbone: TextBackboneConfig = TextBackboneConfig()
    loss_weights: EagerLlmLossWeights = EagerLlmLossWeights()


class EagerLlm(BeamMethod):
    """See the module docstring."""

    Config = EagerLlmConfig
    config: EagerLlmConfig
    predicts_oldest: ClassVar[bool] = True
    contrasting_terms: ClassVar[frozenset[str]] = frozenset(
        {"semantic_contrast", "behaviour_contrast"}
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SEMANTIC_IDS, Need.KNOWLEDGE})

    def required(self) -> frozenset[Need]:
        """Return the needs, without knowledge where a template writes."""
        written = self.config.intentions or self.config.preferences
        return self.needs if written else self.needs - {Need.KNOWLEDGE}

    def file_digests(self) -> dict[str, str]:
        """Return the hashes of the sentences, where there are any, and of pretrained weights."""
        sentences = instructions.digests() if self.config.instructions == "words" else {}
        return sentences | weights_digests(self.config.backbone)

    def build(self, inputs: Inputs) -> nn.Module:
        """Return the model with tokens for this catalogue's semantic IDs.

        Raises:
            ConfigError: No column of the items holds what a task reads.
            DataError: The embeddings lack the source of a contrastive term that is on.
        """
        config, ids = self.config, inputs.semantic_ids
        assert ids is not None, "eager_llm needs semantic IDs"
        catalog, weights = inputs.catalog, config.loss_weights
        words, asked, facets = item_words(catalog, config.columns), list[str](), list[str]()
        facets_of = torch.zeros(0, 1, dtype=torch.long)
        if weights.intention:
            asked = intention_lines(catalog, config.facets, config.intentions)
        if weights.preference:
            facets, facets_of = preference_facets(catalog, config.facets, config.preferences)
        name, size = config.backbone.pretrained, config.backbone.vocabulary
        sentences = instructions.texts() if config.instructions == "words" else []
        tokenizer = TextTokenizer.of(name, [*words, *asked, *sentences], size)
        lines = (words, item_titles(catalog, words), asked, facets)
        texts, titles, intentions, short = (
            tokenised(each, tokenizer, config.max_text_tokens)[0] for each in lines
        )
        named = {"semantic": config.semantic_source, "behaviour": config.behaviour_source}
        contrasts = {f"{kind}_contrast": source for kind, source in named.items()}
        sources = {t: inputs.part(s) for t, s in contrasts.items() if getattr(weights, t)}
        said = instructions.tokens(tokenizer) if sentences else {}
        knowledge = Knowledge(texts, titles, intentions, short, facets_of, sources, said)
        module = self._assemble(ids, tokenizer.to_tensor(), knowledge)
        if config.token_init == "vectors":
            module.start_codes(ids.predicted, inputs.coded_vectors)
        return module

    def restore(self, inputs: Inputs, state: dict[str, Tensor]) -> nn.Module:
        """Rebuild it with the tokenizer that was saved; without texts it cannot be trained on."""
        ids = inputs.semantic_ids
        assert ids is not None, "eager_llm needs semantic IDs"
        module = self._assemble(ids, state["tokenizer"], Knowledge.forgotten(state))
        module.load_state_dict({k: t for k, t in state.items() if k != "texts"})  # once saved
        return module

    def _assemble(
        self, ids: SemanticIds, tokenizer: Tensor, knowledge: Knowledge
    ) -> AlignedItemLanguageModel:
        """Put the parts together."""
        config, layout = self.config, TokenLayout.of(ids)
        codes, text = len(layout.code_sizes), config.max_text_tokens
        prompt = config.prompt_items * max(text, codes)
        prompt += instructions.LONGEST if config.instructions == "words" else 0
        longest = 2 + max((config.max_history + 2) * codes, prompt + text + max(codes, 3 * text))
        words = TextTokenizer.from_tensor(tokenizer).size
        module = AlignedItemLanguageModel(
            build_text_backbone(config.backbone, words, longest),
            layout.item_tokens(ids),
            PrefixTrie.of(ids),
            tokenizer=tokenizer,
            knowledge=knowledge,
            prompt_items=config.prompt_items,
            num_negatives=config.num_negatives,
            dropout=config.dropout,
            code_normalisation=config.code_normalisation,
        )
        if config.anneal_share:
            rank, alpha, dropout = config.anneal_rank, config.anneal_alpha, config.anneal_dropout
            module.backbone = add_adapter(
                module.backbone, ANNEALING, rank=rank, alpha=alpha, dropout=dropout
            )
        if config.backbone.adapters_only:
            save_adapters_only(module, "backbone")
            save_adapters_only(module, "head")
        return module

    def stages(self) -> tuple[Stage, ...]:
        """All terms together; then, on what they made, the next item alone."""
        share, weights = self.config.anneal_share, self.config.loss_weights.model_dump()
        together = Stage("together", 1 - share)
        if not share:
            return (together,)
        if self.config.anneal_schedule == "one_step":
            return (together, Stage(ANNEALING, share, ("next_item",)))
        wordless = tuple(n for n in weights if n == "next_item" or n.endswith("_contrast"))
        last = Stage(ANNEALING, share / 2, ("next_item",))
        return (together, Stage("codes", share / 2, wordless), last)

    def on_stage_start(self, module: nn.Module, stage: Stage) -> None:
        """Train the fresh LoRA and the codes' vectors in the last stage, all else before it.

        Before it the fresh LoRA is off; in it the model that it is added to has no dropout.
        """
        assert isinstance(module, AlignedItemLanguageModel)
        module.only = stage.terms
        last = stage.name == ANNEALING
        dropouts = {FIRST: self.config.backbone.lora_dropout}
        if last:
            dropouts = {FIRST: 0.0, ANNEALING: self.config.anneal_dropout}
        use_adapters(module.backbone, dropouts)
        for name, parameter in module.named_parameters():
            fresh = f".{ANNEALING}." in name
            chosen = (fresh or name.startswith("code_table.")) if last else not fresh
            parameter.requires_grad_(parameter.requires_grad and chosen)

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, LossTerm]:
        """Return each task's cross-entropy, a code or a word, and the contrastive terms."""
        assert isinstance(module, AlignedItemLanguageModel)
        weights = self.config.loss_weights.model_dump()
        tasks = tuple(name for name, weight in weights.items() if weight)
        found = module(batch["item_index"], self.config.samples_per_task, tasks=tasks)
        words = module.words_per_answer
        return {name: self._term(name, given, words) for name, given in found.items()}

    def _term(self, name: str, given: Any, words: Mapping[str, float]) -> LossTerm:
        """Return the loss of what the module gave for one term; see `count_targets`."""
        if isinstance(given, Contrast):
            loss = info_nce(**vars(given), temperature=self.config.temperature)
            return LossTerm(loss, len(given.items))
        logits, labels = given
        drawn = self.config.samples_per_task
        if isinstance(logits, list):
            targets = len(labels) / (1 if name == "next_item" else drawn)
            return LossTerm(next_code(logits, labels), targets)
        loss = F.cross_entropy(logits.float(), labels, reduction="sum") / max(1, len(labels))
        return LossTerm(loss, len(labels) / (drawn * words[name]))

    def count_targets(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """Count items for `next_item`, histories for the contrasts; other tasks draw theirs."""
        one = np.ones(len(lengths))
        return {"next_item": lengths, "semantic_contrast": one, "behaviour_contrast": one}

    def facts(self, module: nn.Module) -> dict[str, Any]:
        """Return the beams' width, and what the texts of the tasks were made by."""
        config = self.config
        return super().facts(module) | {
            "intentions": f"column {config.intentions}" if config.intentions else "template",
            "preferences": f"column {config.preferences}" if config.preferences else "template",
            "instructions": config.instructions,
        }
