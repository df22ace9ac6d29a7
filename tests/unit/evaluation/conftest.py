"""Results as `evaluate` writes them, made up but of the right form."""

import copy

import pytest


def interval(value, width=0.004):
    return {"value": value, "low": value - width, "high": value + width}


def result_of(name, recall, ndcg, **changes):
    """Make a result whose other fields are plausible; `changes` replaces fields."""
    metrics = {}
    for split, factor in (("test", 1.0), ("test_seen_allowed", 0.7), ("validation", 1.1)):
        for cutoff, share in ((5, 0.7), (10, 1.0), (20, 1.4)):
            metrics[f"{split}/recall@{cutoff}"] = interval(recall * share * factor)
            metrics[f"{split}/ndcg@{cutoff}"] = interval(ndcg * share * factor, 0.002)
            metrics[f"{split}/mrr@{cutoff}"] = interval(ndcg * share * factor * 0.8, 0.002)
    slices = {
        label: {
            "about": about,
            "users": users,
            "ndcg@10": interval(ndcg * f),
            "recall@10": interval(recall * f),
        }
        for label, about, users, f in (
            ("cold", "target has at most 5 training events", 4211, 0.3),
            ("warm", "target has more than 5 training events", 18152, 1.2),
            ("head", "target among the 20% most trained-on items", 11800, 1.5),
            ("tail", "target outside the 20% most trained-on items", 10563, 0.4),
            ("history 1-9", "events before the target", 17000, 0.95),
            ("history 10-49", "events before the target", 5363, 1.2),
        )
    }
    slices["history 50+"] = {"about": "events before the target", "users": 0}
    curve = [
        {
            "step": 100 * n,
            "epoch": n,
            "train/loss": 9 - 2.5 * (1 - 0.8**n),
            "val/ndcg@10": ndcg * (1 - 0.7**n),
        }
        for n in range(1, 16)
    ]
    result = {
        "name": name,
        "method": name,
        "recipe": {"name": name, "seed": 0, "method": {"name": name, "max_history": 50}},
        "artifacts": {"logs": "logs/0a1b2c3d4e5f6071", "sequences": "sequences/a1b2c3d4e5f60718"},
        "data": {
            "source": "amazon_2014",
            "num_users": 22363,
            "num_items": 12101,
            "num_events": 198502,
        },
        "split_hash": "9f3a1c5577aa01be",
        "protocol": {
            "split": "leave_one_out",
            "ties": "input",
            "candidates": "full catalogue, item-level",
            "exclude_seen": True,
            "data_seed": 0,
        },
        "metrics": metrics,
        "slices": slices,
        "checks": {
            "illegal": 0,
            "duplicates": 0,
            "seen_recommended": 0,
            "unfilled": 0,
            "targets_seen": 37,
            "targets_excluded": 37,
        },
        "diversity": {"coverage@10": 0.61},
        "codebooks": None,
        "learning_curve": curve,
        "facts": {},
        "parameters": 1000,
        "train_seconds": 1.2,
        "users_per_second": 3100.0,
        "latency_ms": {"p50": 2.1, "p95": 3.9},
        "seeds": [0],
        "oracle": None,
        "environment": {"itemese": "0.1.0", "python": "3.12.3", "cpus": 2, "gpu": None},
        "command": "python jobs/train.py jobs/recipes/sasrec_beauty.yaml",
        "created": "2026-01-01T00:00:00+00:00",
    }
    return copy.deepcopy(result | changes)


HEALTH = {
    "num_items": 12101,
    "code_length": 4,
    "collision_rate_before": 0.083,
    "collision_rate_after": 0.0,
    "largest_collision_group": 11,
    "levels": [
        {
            "size": 256,
            "used": 256,
            "perplexity": 201.3,
            "prefixes": 256,
            "mean_fan_out": 256.0,
            "error": 0.62,
        },
        {"size": 256, "used": 249, "perplexity": 188.0},
        {"size": 256, "used": 231, "perplexity": 150.7},
        {"size": 16, "used": 11, "perplexity": 1.3},
    ],
}


@pytest.fixture
def make_result():
    """The function that makes a result."""
    return result_of


@pytest.fixture
def four_results():
    """A small leaderboard in which the generative model loses."""
    return [
        result_of("popularity", 0.0121, 0.0060, learning_curve=[], parameters=0, train_seconds=0.3),
        result_of(
            "semantic_id_lm",
            0.0551,
            0.0312,
            codebooks=HEALTH,
            parameters=4_410_112,
            train_seconds=812.0,
            users_per_second=210.0,
            latency_ms={"p50": 38.1, "p95": 55.0},
            facts={"beam_width": 50},
        ),
        result_of("sasrec", 0.0868, 0.0489, parameters=812_544, train_seconds=244.0),
        result_of(
            "transition_graph", 0.0828, 0.0565, learning_curve=[], parameters=0, train_seconds=2.2
        ),
    ]
