"""The walls of the house: who may import whom, and what every method file must say."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "platform" / "itemese"

CONTRACTS = {
    "config",
    "schema",
    "ranking",
    "artifacts",
    "errors",
    "randomness",
    "cluster",
    "bundle",
    "figures",
}
"""Modules that any room may import; among themselves they import only each other."""

MAY_IMPORT = {
    "simulation": set(),
    "logs": {"simulation"},
    "sequences": set(),
    "knowledge": set(),
    "embeddings": set(),
    "codebooks": set(),
    "prompts": set(),
    "models": set(),
    "losses": set(),
    "evaluation": set(),
    "methods": {"codebooks", "prompts", "models", "losses"},
    "training": {"methods.base", "evaluation"},
    "search": {"experiment", "pipeline"},
    "serving": {"prompts", "codebooks", "methods", "models"},
}
"""Besides the contracts; a dotted name allows that module only."""

STORY = {
    "experiment",
    "pipeline",
    "handover",
    "results",
    "ablation",
    "poisoning",
    "selection",
    "export",
    "console",
    "benchmarks",
    "demo",
}
"""Room 10: may import every room but search and serving."""

RAY_IN = {
    "logs",
    "sequences",
    "knowledge",
    "embeddings",
    "codebooks.distributed",
    "search",
    "serving",
    "cluster",
    "training.distributed",
}


def modules() -> list[Path]:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 40, "the walk over the package found too little"
    return files


def dotted(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path) -> Iterator[str]:
    """Yield what a file imports, wherever the statement stands, as dotted names."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module in ("itemese", "ray"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def covers(allowed: set[str], name: str) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


@pytest.mark.parametrize("file", modules(), ids=dotted)
def test_a_room_imports_only_what_the_table_allows(file: Path) -> None:
    here = dotted(file)
    room = here.partition(".")[0]
    ours = [n.removeprefix("itemese.") for n in imports(file) if n.startswith("itemese.")]
    ours = [name for name in ours if name != "__version__"]
    if not room or room == "__init__":
        return
    if room in CONTRACTS:
        forbidden = [n for n in ours if not covers(CONTRACTS, n)]
    elif room in STORY:
        # The demo shows all of the house, and the benchmarks measure it.
        last = set() if room in ("demo", "benchmarks") else {"search", "serving"}
        forbidden = [n for n in ours if covers(last, n)]
    else:
        assert room in MAY_IMPORT, f"{room} is a new room: give it a line in the table"
        forbidden = [n for n in ours if not covers(CONTRACTS | MAY_IMPORT[room] | {room}, n)]
        if room == "methods":  # a method is one file: it knows the base and no other method
            forbidden += [n for n in ours if covers({"methods"}, n) and n != "methods.base"]
    assert not forbidden, f"{here} must not import {forbidden}"


@pytest.mark.parametrize("file", modules(), ids=dotted)
def test_ray_is_imported_only_where_it_belongs(file: Path) -> None:
    if any(name == "ray" or name.startswith("ray.") for name in imports(file)):
        assert covers(RAY_IN, dotted(file)), f"{dotted(file)} must run without Ray"


def test_platform_is_only_a_source_root() -> None:
    children = {c.name for c in (ROOT / "platform").iterdir()} - {"__pycache__"}
    assert children == {"itemese"}


def test_no_script_bears_a_standard_library_name() -> None:
    names = {f.stem for f in (ROOT / "jobs").glob("*.py")}
    assert names, "there must be jobs"
    assert not names & set(sys.stdlib_module_names)


def test_jobs_and_recipes_stay_thin() -> None:
    for file in (ROOT / "jobs").glob("*.py"):
        assert len(file.read_text().splitlines()) <= 60, file.name
    recipes = list((ROOT / "jobs" / "recipes").glob("*.yaml"))
    assert recipes
    for file in recipes:
        assert len(file.read_text().splitlines()) <= 40, file.name


def test_files_stay_readable() -> None:
    long = {dotted(f): n for f in modules() if (n := len(f.read_text().splitlines())) > 400}
    assert not long


METHODS = [
    f for f in sorted((PACKAGE / "methods").glob("*.py")) if f.stem not in ("__init__", "base")
]


@pytest.mark.parametrize("file", METHODS, ids=lambda f: f.stem)
def test_a_method_opens_with_its_provenance(file: Path) -> None:
    header = ast.get_docstring(ast.parse(file.read_text())) or ""
    missing = [
        w for w in ("Source:", "Code:", "Follows:", "Differs:", "Shapes:") if w not in header
    ]
    assert not missing, f"{file.name} must say {missing}"
    for arxiv in re.findall(r"arXiv (\S+)", header):
        assert re.match(r"\d{4}\.\d{4,5}v\d+[,.;):]*$", arxiv), f"{arxiv} must name its version"


def test_the_readme_maps_every_room_and_job() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rooms = {f.name for f in PACKAGE.iterdir() if f.is_dir() and f.name != "__pycache__"}
    tops = {f.name for f in PACKAGE.glob("*.py")} - {"__init__.py"}
    jobs = {f.name for f in (ROOT / "jobs").glob("*.py")}
    missing = [n for n in sorted(rooms) if f"{n}/" not in readme]
    missing += [n for n in sorted(tops | jobs) if n not in readme]
    assert not missing, f"README's file map must name {missing}"


def test_nothing_names_a_machine_or_a_registry() -> None:
    words = re.compile(r"/(home|root|work|tmp)/\w|pypi-more|/opt/wheels")
    tracked = [
        f
        for p in ("platform", "jobs", "search_spaces", "serve_configs")
        for f in (ROOT / p).rglob("*")
        if f.suffix in (".py", ".yaml")
    ]
    assert tracked
    found = [
        f.name
        for f in [*tracked, ROOT / "README.md", ROOT / "Makefile"]
        if words.search(f.read_text(encoding="utf-8"))
    ]
    assert not found
