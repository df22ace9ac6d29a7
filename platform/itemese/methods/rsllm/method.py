"""RSLLM: a language model reads items as words and as vectors of a conventional recommender.

Source: K. Zheng, Q. Sun, C. Xu, P. Yu and Q. Guo, "Towards a Unified Paradigm: Integrating
    Recommendation Systems as a New Language in Large Models", arXiv 2412.16933v1.
Code: none released.
Follows: its abstract and readable summaries: unified prompts (title, marker, projected ID vector),
    a language-model loss with two contrastive losses, text-only prompts first and unified ones
    second. Where nothing readable says more, the projector, candidates and answer rule are those of
    LLaRA's released code and the default contrastive terms are CALRec's (arXiv 2405.02429v1).
Differs: the readings taken where the paper is not readable. The marker is "[ID]" for ``[DSR]``.
    ``alignment: history_target`` (default, the form that the two-stage recipe goes with): history
    against target and target-in-context against target; ``modality``: projected ID against the
    item's text, the recommender's state against the model's. The history's state is read from the
    same pass as the answer, which a causal model makes equal to a pass of its own; the target in
    context is read where the answer stands, so after the candidates too. ID vectors are divided by
    their spread, and the projector begins at the size of word vectors. An item without training
    events has the mean ID vector. Items stand on lines of their own. A stage that teaches a
    backbone without words to copy may come first (`copy_share`); it is not the paper's.
Shapes: B batch, T events, H history items in a prompt, C candidates, D hidden size, d ID vector
    size, I items.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from itemese.backbones.adapters import save_adapters_only
from itemese.backbones.backbone import weights_digests
from itemese.backbones.text_backbone import TextBackboneConfig, build_text_backbone, take_weights
from itemese.core.errors import ConfigError
from itemese.core.ranking import Answers
from itemese.core.schema import Catalog, Request
from itemese.layers.histories import pad_histories, user_numbers
from itemese.layers.id_vectors import id_vectors
from itemese.losses.contrastive import from_other_workers, info_nce
from itemese.methods.base import (
    Batch,
    Inputs,
    LossTerm,
    LossWeights,
    MethodConfig,
    Need,
    Stage,
)
from itemese.methods.families import CatalogueMethod
from itemese.methods.rsllm.hybrid_lm import HybridLanguageModel, make_projector, match_scale
from itemese.methods.rsllm.network import RsllmNetwork, Views
from itemese.methods.rsllm.prompts import ItemForm, PromptWriter
from itemese.methods.rsllm.reading import Reading, walk_trie
from itemese.prompts.templates import load_templates
from itemese.prompts.titles import clean_titles, read_answers
from itemese.prompts.tokenizer import TextTokenizer

COPY_STAGE = "copy"
"""Before the two stages: answers are the titles of all candidates. No ID vector."""

TEXT_STAGE = "text"
"""The first of two stages; its prompts hold no ID vector."""


class RsllmLossWeights(LossWeights):
    """CALRec's weights; the first term's is what the others leave of 1.

    `history_words` is not the paper's: a backbone that begins without words learns them from the
    histories' titles as well as from the answers.
    """

    language_model: float = Field(default=0.85, ge=0)
    history_alignment: float = Field(default=0.025, ge=0)
    target_alignment: float = Field(default=0.125, ge=0)
    history_words: float = Field(default=0.0, ge=0)


class RsllmConfig(MethodConfig):
    """Settings.

    Attributes:
        max_history: Events that targets are drawn from; a prompt holds the newest before one.
        prompt_items: H, history items in a prompt at most.
        item_form: How items stand in unified prompts: ``text``, ``id`` or ``text_id``.
        id_vectors: ``recommender``, or ``random``: drawn and frozen, the control.
        projector: ``mlp`` (two layers) or ``linear``.
        projector_dim: Width of the middle of ``mlp``.
        alignment: Which reading of the two contrastive losses.
        temperature: Divides their cosines.
        cached_negatives: Target vectors of earlier micro-batches kept as negatives; accumulation
            alone does not add any. Those of other workers are always used.
        text_share: Share of the steps on text-only prompts; 0 leaves that stage out.
        copy_share: Share of the steps, before those, on text-only prompts whose answer is all of
            the candidates in another order. A backbone that begins without words learns to copy
            there, which a pretrained one can; one title a prompt hardly teaches it.
        copy_candidates: Candidates of those prompts, and history items at most: copying is learnt
            sooner from few.
        num_candidates: C, in each prompt.
        template: Prompt template and its version.
        max_title_tokens: Longer titles are cut.
        max_tokens: Longest prompt with its answer; old history items are left out for it.
        backbone: The language model.
        loss_weights: Multipliers of the loss terms.
    """

    name: Literal["rsllm"] = "rsllm"
    prompt_items: int = Field(default=10, ge=1)
    item_form: ItemForm = ItemForm.TEXT_ID
    id_vectors: Literal["recommender", "random"] = "recommender"
    projector: Literal["mlp", "linear"] = "mlp"
    projector_dim: int = Field(default=256, ge=1)
    alignment: Literal["history_target", "modality"] = "history_target"
    temperature: float = Field(default=0.5, gt=0)
    cached_negatives: int = Field(default=0, ge=0)
    text_share: float = Field(default=0.4, ge=0, lt=1)
    copy_share: float = Field(default=0.0, ge=0, lt=1)
    copy_candidates: int = Field(default=6, ge=2)
    num_candidates: int = Field(default=20, ge=2)
    template: str = "items_v1"
    max_title_tokens: int = Field(default=24, ge=1)
    max_tokens: int = Field(default=1024, ge=16)
    backbone: TextBackboneConfig = TextBackboneConfig()
    loss_weights: RsllmLossWeights = RsllmLossWeights()

    @model_validator(mode="after")
    def _alignment_has_its_vectors(self) -> Self:
        if self.alignment == "modality" and self.item_form is ItemForm.TEXT:
            message = "a method with ID vectors where `alignment` is modality; item_form is text"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _unified_prompts_have_a_share(self) -> Self:
        if self.text_share + self.copy_share >= 1:
            message = "`text_share` and `copy_share` that leave unified prompts a share; they sum "
            raise ValueError(message + f"to {self.text_share + self.copy_share:g}")
        return self


class Rsllm(CatalogueMethod):
    """See the module docstring."""

    Config = RsllmConfig
    config: RsllmConfig
    needs: ClassVar[frozenset[Need]] = frozenset({Need.RECOMMENDER})
    warm_starts: ClassVar[bool] = True
    contrasting_terms: ClassVar[frozenset[str]] = frozenset(
        {"language_model", "history_words", "history_alignment", "target_alignment"}
    )
    """Those over words too: each prompt offers candidates that are drawn for the batch."""

    estimated_terms: ClassVar[frozenset[str]] = frozenset({"language_model", "history_words"})
    choice_modes: ClassVar[tuple[str, ...]] = ("free", "trie", "likelihood", "ranked")

    def required(self) -> frozenset[Need]:
        """Return the recommender, unless items are text alone."""
        return self.needs if self.config.item_form is not ItemForm.TEXT else frozenset()

    @property
    def max_offered(self) -> int:
        """Candidates that fit into a prompt."""
        return self.config.num_candidates

    def file_digests(self) -> dict[str, str]:
        """Return the hashes of the template and of pretrained weights."""
        template = {"template": load_templates(self.config.template).digest}
        return template | weights_digests(self.config.backbone)

    def build(self, inputs: Inputs) -> nn.Module:
        """Return the model, its tokenizer and the frozen ID vectors."""
        config, catalog = self.config, inputs.catalog
        name = config.backbone.pretrained
        if inputs.warm_start is not None:
            tokenizer = TextTokenizer.from_tensor(inputs.warm_start.get_buffer("tokenizer"))
        elif name is not None:
            tokenizer = TextTokenizer.pretrained(name)
        else:
            around = [t for texts in load_templates(config.template).texts for t in texts]
            texts = [*clean_titles(catalog.titles, catalog.item_ids), *around]
            tokenizer = TextTokenizer.trained(texts, config.backbone.vocabulary)
        if config.item_form is ItemForm.TEXT:
            return self._assemble(catalog, tokenizer, torch.zeros(0, 1), start=inputs.warm_start)
        if inputs.recommender is None:
            message = (
                "`recommender` must be trained before method 'rsllm' reads its vectors; got none. "
                "Add the section to the recipe, or set `method.item_form` to text."
            )
            raise ConfigError(message)
        vectors = id_vectors(
            inputs.recommender, catalog.train_count, drawn=config.id_vectors == "random"
        )
        return self._assemble(catalog, tokenizer, vectors, inputs.recommender, inputs.warm_start)

    def restore(self, inputs: Inputs, state: dict[str, Tensor]) -> nn.Module:
        """Rebuild it with the tokenizer and the ID vectors that were saved."""
        tokenizer = TextTokenizer.from_tensor(state["tokenizer"])
        vectors = torch.zeros_like(state["network.item_vectors"])
        module = self._assemble(inputs.catalog, tokenizer, vectors)
        module.load_state_dict(state)
        return module

    def _assemble(
        self,
        catalog: Catalog,
        tokenizer: TextTokenizer,
        vectors: Tensor,
        recommender: nn.Module | None = None,
        start: nn.Module | None = None,
    ) -> RsllmNetwork:
        """Put the parts together."""
        config = self.config
        writer = PromptWriter(
            clean_titles(catalog.titles, catalog.item_ids),
            load_templates(config.template),
            tokenizer,
            max_title_tokens=config.max_title_tokens,
            max_tokens=config.max_tokens,
            num_candidates=config.num_candidates,
            copied=config.copy_candidates if config.copy_share else 0,
        )
        lm = build_text_backbone(config.backbone, tokenizer.size, config.max_tokens)
        if start is not None:
            take_weights(lm, start.network.lm)  # type: ignore[union-attr, arg-type]
        words = lm.get_input_embeddings().weight  # type: ignore[operator]
        projector = None
        if len(vectors):
            width = vectors.shape[1]
            projector = make_projector(
                config.projector, dim=width, hidden=config.projector_dim, out=words.shape[1]
            )
            match_scale(projector, vectors, words)
        network = HybridLanguageModel(lm, projector, vectors)
        if config.backbone.adapters_only:
            save_adapters_only(network, "lm")
        weights = config.loss_weights
        module = RsllmNetwork(
            network,
            writer,
            form=config.item_form,
            prompt_items=config.prompt_items,
            num_candidates=config.num_candidates,
            aligned=[n for n in ("history", "target") if getattr(weights, f"{n}_alignment")],
            reads_history=bool(weights.history_words),
            cached_negatives=config.cached_negatives,
            recommender=recommender if config.alignment == "modality" else None,
        )
        module.register_buffer("tokenizer", tokenizer.to_tensor())
        return module

    def stages(self) -> tuple[Stage, ...]:
        """Text-only prompts train the language model; unified ones the projector as well."""
        text, copy = self.config.text_share, self.config.copy_share
        words, lm = ("language_model", "history_words"), ("network.lm.",)
        # The other reading compares ID vectors, and there is none in the text stage.
        terms = words if self.config.alignment == "modality" else ()
        stages = (
            Stage(COPY_STAGE, copy, words, lm, validated=False),
            Stage(TEXT_STAGE, text, terms, lm),
            Stage("unified", 1 - text - copy, trains=(*lm, "network.projector.")),
        )
        return tuple(stage for stage in stages if stage.share)

    def on_stage_start(self, module: nn.Module, stage: Stage) -> None:
        """Write items as text while the stage is text-only; kept negatives are the stage's own."""
        assert isinstance(module, RsllmNetwork)
        text_only = stage.name in (COPY_STAGE, TEXT_STAGE)
        module.form = ItemForm.TEXT if text_only else self.config.item_form
        module.copied = self.config.copy_candidates if stage.name == COPY_STAGE else 0
        module.kept_items.fill_(-1)

    def collate(self, requests: Sequence[Request]) -> Batch:
        """Return ``item_index [B, T]`` and ``draw [B]``, which decides the paraphrase.

        It is a hash of the user id, and 0 for the unknown user, whose paraphrase the history's
        length alone decides.
        """
        return {**pad_histories(requests), "draw": user_numbers(requests).clamp(min=0)}

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, LossTerm]:
        """Return the answer's cross-entropy a token, and the other terms that are on."""
        assert isinstance(module, RsllmNetwork)
        views: Views = module(batch["item_index"], batch["draw"])
        title = module.writer.words_per_title
        loss = F.cross_entropy(views.logits.float(), views.labels)
        answers = len(views.labels) / (title * max(1, module.copied))
        terms = {"language_model": LossTerm(loss, answers)}
        if views.history_logits is not None and views.history_labels is not None:
            logits, words = views.history_logits.float(), views.history_labels
            total = F.cross_entropy(logits, words, reduction="sum")
            terms["history_words"] = LossTerm(total / max(1, len(words)), len(words) / title)
        pairs = {"history_alignment": views.history, "target_alignment": views.target}
        for name, pair in pairs.items():
            if pair is None:
                continue
            other, other_items = from_other_workers(pair.positives, pair.items)
            loss = info_nce(
                pair.anchors,
                pair.positives,
                pair.items,
                self.config.temperature,
                negatives=torch.cat([pair.kept, other]),
                negative_items=torch.cat([pair.kept_items, other_items]),
            )
            terms[name] = LossTerm(loss, len(pair.items))
        return terms

    def count_targets(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """Count one answer and one pair a history; `history_words` counts titles of its prompt.

        A prompt holds the newest `prompt_items` before an event that is drawn evenly.
        """
        most, places = self.config.prompt_items, lengths - 1
        full = np.maximum(places - most, 0)  # targets with more than `prompt_items` before them
        below = places - full
        titles = (below * (below + 1) / 2 + full * most) / places
        one = np.ones(len(lengths))
        return {
            "language_model": one,
            "history_alignment": one,
            "target_alignment": one,
            "history_words": titles,
        }

    def score_catalogue(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the cosine of the history's state and each item's."""
        assert isinstance(module, RsllmNetwork)
        return module.history_states(batch["item_index"], batch["draw"]) @ module.items().T

    def choose(
        self,
        module: nn.Module,
        batch: Batch,
        offered: Tensor,
        modes: Sequence[str] | None = None,
    ) -> dict[str, Answers]:
        """Answer freely, inside the trie of the offered titles, by likelihood, and by towers."""
        assert isinstance(module, RsllmNetwork)
        if offered.shape[1] > self.config.num_candidates:
            message = (
                f"`evaluation.num_offered` must be at most `method.num_candidates` "
                f"({self.config.num_candidates}); got {offered.shape[1]}. Lower it."
            )
            raise ConfigError(message)
        wanted = set(self.choice_modes if modes is None else modes)
        found: dict[str, tuple[Tensor, tuple[str, ...]]] = {}
        if wanted & {"free", "trie", "likelihood"}:
            answers = module.answer_tokens(offered)
            reading = Reading(module.network, module.open_prompts(**batch, offered=offered))
        if wanted & {"trie", "likelihood"}:
            log_prob = reading.judge(answers).masked_fill((answers < 0).all(2)[..., None], -1e9)
            found["trie"] = (walk_trie(answers, log_prob), ())
            found["likelihood"] = (log_prob.sum(dim=2).argmax(dim=1), ())
        if "free" in wanted:
            tokenizer = TextTokenizer.from_tensor(module.get_buffer("tokenizer"))
            written = reading.write(module.writer.longest_answer, tokenizer.end)
            found["free"] = read_answers(written, answers, tokenizer)
        chosen = {way: Answers.at(place, offered, text) for way, (place, text) in found.items()}
        if "ranked" in wanted:
            chosen |= super().choose(module, batch, offered)
        return {name: chosen[name] for name in self.choice_modes if name in wanted}

    def facts(self, module: nn.Module) -> dict[str, Any]:
        """Return the template and its hash, the readings taken and what is trained."""
        assert isinstance(module, RsllmNetwork)
        templates = load_templates(self.config.template)
        trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
        return {
            "template": f"{templates.name} {templates.digest}",
            "item_form": str(self.config.item_form),
            "alignment": self.config.alignment,
            "trained_parameters": trained,
            "items_sharing_their_words": module.writer.shared_titles(),
        }
