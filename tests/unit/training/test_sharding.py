"""A model dealt out to two processes: each holds half, and the whole can be had again."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from itemese.backbones.backbone import BackboneConfig, build_backbone
from itemese.core.errors import ConfigError
from itemese.training.checkpoints import optimizer_tensors, restore_optimizer
from itemese.training.config import TrainingConfig
from itemese.training.sharding import shard, write_back

DIM = 8


class Scored(nn.Module):
    """A decoder with some of its weights frozen in bf16, as under LoRA, and a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        config = BackboneConfig(dim=DIM, num_layers=2, num_heads=2, hidden_dim=16)
        self.decoder = build_backbone(config, 10, 16)
        for name, parameter in self.decoder.named_parameters():
            if "down_proj" in name:
                parameter.data = parameter.data.bfloat16()
                parameter.requires_grad_(False)
        self.last = nn.Linear(DIM, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        words = self.decoder.get_input_embeddings()(tokens)
        with torch.autocast("cpu", torch.bfloat16):
            states = self.decoder(inputs_embeds=words, use_cache=False).last_hidden_state
        return self.last(states.float()).square().mean()


def tokens_of(step: int) -> Tensor:
    return torch.randint(10, (4, 6), generator=torch.Generator().manual_seed(step))


def optimizer_of(module: nn.Module) -> torch.optim.Optimizer:
    trained = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=0.01, fused=True)


def steps(module: nn.Module, optimizer: torch.optim.Optimizer, which: range) -> None:
    for step in which:
        optimizer.zero_grad()
        module(tokens_of(step)).backward()
        optimizer.step()


def two_processes(rank: int, place: str) -> None:
    """Train two steps, save, go on in another sharded twin for two more; keep the result."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place}/met", rank=rank, world_size=2)
    whole, first, second = Scored(), Scored(), Scored()
    shard(first, torch.device("cpu"), 2)
    held = sum(p.to_local().numel() for p in first.parameters())  # type: ignore[attr-defined]
    optimizer = optimizer_of(first)
    steps(first, optimizer, range(2))
    write_back(first, whole)
    saved = {name: t.clone() for name, t in optimizer_tensors(optimizer).items()}
    second.load_state_dict(whole.state_dict())
    shard(second, torch.device("cpu"), 2)
    optimizer = optimizer_of(second)
    restore_optimizer(optimizer, saved)
    steps(second, optimizer, range(2, 4))
    write_back(second, whole)
    facts = {"held": held, "state": whole.state_dict(), "optimizer": optimizer_tensors(optimizer)}
    torch.save(facts, f"{place}/{rank}.pt")
    dist.destroy_process_group()


def test_halves_train_and_go_on_as_the_whole_does(tmp_path: Path) -> None:
    mp.spawn(two_processes, (str(tmp_path),), nprocs=2)
    alone = Scored()
    optimizer = optimizer_of(alone)
    steps(alone, optimizer, range(4))
    size = sum(p.numel() for p in alone.parameters())
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert sum(facts["held"] for facts in found) == size
    assert max(facts["held"] for facts in found) < 0.7 * size
    for facts in found:
        for name, tensor in alone.state_dict().items():
            torch.testing.assert_close(facts["state"][name], tensor, rtol=1e-3, atol=1e-4)
        for name, tensor in optimizer_tensors(optimizer).items():
            torch.testing.assert_close(facts["optimizer"][name], tensor, rtol=1e-2, atol=1e-4)


def test_one_worker_has_nobody_to_share_with() -> None:
    with pytest.raises(ConfigError, match="at least 2 `num_workers` where `sharded` is true"):
        TrainingConfig.parse({"sharded": True, "num_workers": 1}, where="training")
