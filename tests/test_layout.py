"""The layout: which package may import which, and what every method file must state."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from itemese.methods.lookup import SHARED

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "platform" / "itemese"

MAY_IMPORT = {
    "core": set(),
    "simulation": set(),
    "logs": {"simulation"},
    "sequences": set(),
    "features": set(),
    "knowledge": {"backbones"},
    "embeddings": {"backbones"},
    "codebooks": set(),
    "prompts": {"backbones.pretrained"},
    "layers": set(),
    "backbones": {"layers"},
    "decoding": {"layers", "backbones"},
    "losses": set(),
    "evaluation": set(),
    "methods": {"codebooks", "prompts", "layers", "backbones", "decoding", "losses"},
    "training": {"methods.base", "methods.lookup", "evaluation"},
    "search": {"pipeline", "evaluation.report"},
    "serving": {"prompts", "codebooks", "decoding", "methods"},
}
"""What each package imports besides itself and `core`; a dotted name allows that module only."""

ABOVE = {
    "pipeline": {"search", "serving", "benchmarks", "cli"},
    "benchmarks": {"cli"},
    "testing": {"pipeline", "search", "serving", "benchmarks", "cli"},
    "cli": set(),
}
"""Packages on top of the others, with what they must not import."""

RAY_IN = {
    "core.cluster",
    "core.tasks",
    "logs",
    "sequences",
    "features",
    "knowledge",
    "embeddings",
    "codebooks.distributed",
    "training.distributed",
    "search",
    "serving",
    "benchmarks",
    "cli",
}
"""Modules that may import Ray; everything else runs in a plain Python process."""


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
def test_a_package_imports_only_what_the_table_allows(file: Path) -> None:
    here = dotted(file)
    package = here.partition(".")[0]
    if file.parent == PACKAGE:
        return  # the public names
    ours = [n.removeprefix("itemese.") for n in imports(file) if n.startswith("itemese.")]
    ours = [name for name in ours if name != "__version__"]
    if package in ABOVE:
        forbidden = [n for n in ours if covers(ABOVE[package], n)]
    else:
        assert package in MAY_IMPORT, f"{package} is a new package: give it a line in the table"
        allowed = {"core", package} | MAY_IMPORT[package]
        forbidden = [n for n in ours if not covers(allowed, n)]
    if (
        package == "methods" and here != "methods.lookup"
    ):  # a method knows the bases and no other method, if not by a name in its settings
        bases = {f"methods.{name}" for name in SHARED}
        own = {*bases, ".".join(here.split(".")[:2])}
        forbidden += [n for n in ours if covers({"methods"}, n) and not covers(own, n)]
    assert not forbidden, f"{here} must not import {forbidden}"


LATE = [("pipeline.experiment", "pipeline.run")]
"""Imports inside a function that close a circle: `Experiment.run` is a promise of the interface."""


def test_no_module_is_part_of_an_import_circle() -> None:
    names = {dotted(file) for file in modules()}
    edges: dict[str, set[str]] = {}
    for file in modules():
        found = {n.removeprefix("itemese.") for n in imports(file) if n.startswith("itemese.")}
        edges[dotted(file)] = found & names - {dotted(file)}
    for late in LATE:
        edges[late[0]].remove(late[1])
    while free := {name for name, needs in edges.items() if not needs & edges.keys()}:
        edges = {name: needs for name, needs in edges.items() if name not in free}
    left = {name for name in edges if any(name in needs for needs in edges.values())}
    assert not left, f"these modules import each other in a circle: {sorted(left)}"


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
    *(f for f in (PACKAGE / "methods").glob("*.py") if f.stem not in {"__init__", *SHARED}),
    *(PACKAGE / "methods").glob("*/method.py"),
]


@pytest.mark.parametrize("file", sorted(METHODS), ids=dotted)
def test_a_method_opens_with_its_provenance(file: Path) -> None:
    header = ast.get_docstring(ast.parse(file.read_text())) or ""
    missing = [
        w for w in ("Source:", "Code:", "Follows:", "Differs:", "Shapes:") if w not in header
    ]
    assert not missing, f"{file.name} must say {missing}"
    for arxiv in re.findall(r"arXiv (\S+)", header):
        assert re.match(r"\d{4}\.\d{4,5}v\d+[,.;):]*$", arxiv), f"{arxiv} must name its version"


def test_the_readme_maps_every_package_and_job() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    packages = {f.name for f in PACKAGE.iterdir() if f.is_dir() and f.name != "__pycache__"}
    tops = {f.name for f in PACKAGE.glob("*.py")} - {"__init__.py"}
    jobs = {f.name for f in (ROOT / "jobs").glob("*.py")}
    missing = [n for n in sorted(packages) if f"{n}/" not in readme]
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
