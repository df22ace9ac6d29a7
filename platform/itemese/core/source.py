"""Digests of source code and of weight files, and the state of the git checkout.

A stage's output depends on the code that makes it. `source_digest` hashes the module of a stage and
every module that it imports, so that an edited network is trained again, while an edited comment or
docstring is not.
"""

import ast
import hashlib
import importlib.util
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import itemese
from itemese.core.errors import ConfigError

PACKAGE = Path(itemese.__file__).parent

_CHUNK_BYTES = 8 << 20


@cache
def source_digest(*modules: str) -> str:
    """Return a 16-digit hash of the code that modules run: their own and what they import.

    Imports are followed inside this package, inside the packages that `modules` belong to, also
    installed ones, and inside other folders on the path that are not installed; libraries are not
    followed. An import inside a function counts like one at the top. Files are read once a process,
    so a process names the code that it found when it first asked.

    Args:
        modules: Dotted names of importable modules.

    Raises:
        ConfigError: One of them has no Python file.
    """
    digest = hashlib.blake2b(digest_size=8)
    followed = _tops(modules)
    for name in modules:
        if _file_of(name, followed) is None:
            message = f"`{name}` must be a module with a Python file; got none. Check its name."
            raise ConfigError(message)
    for name in sorted(reachable(*modules)):
        digest.update(f"{name}\0{_parsed(_file_of(name, followed), name)[0]}\0".encode())
    return digest.hexdigest()


def reachable(*modules: str) -> set[str]:
    """Return the modules whose source `source_digest` hashes, by dotted name."""
    found: set[str] = set()
    waiting, followed = list(modules), _tops(modules)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        file = _file_of(name, followed)
        if file is None:
            continue
        found.add(name)
        waiting += [other for other in _parsed(file, name)[1] if other not in found]
        if "." in name:  # importing a module runs the packages above it
            waiting.append(name.rpartition(".")[0])
    return found


def _tops(modules: tuple[str, ...]) -> frozenset[str]:
    """Return the top-level packages of modules."""
    return frozenset(name.partition(".")[0] for name in modules)


@cache
def _file_of(module: str, followed: frozenset[str]) -> Path | None:
    """Return the file of a module whose source is followed; None for any other name.

    Args:
        module: Dotted name.
        followed: Top-level packages that are followed though they are installed.
    """
    top, _, rest = module.partition(".")
    if module == "itemese":
        return None  # only the version and the public names, which it imports when asked
    root = PACKAGE if top == "itemese" else _root_of(top, installed=top in followed)
    if root is None:
        return None
    if root.is_file():
        return None if rest else root
    place = root.joinpath(*rest.split(".")) if rest else root
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if file.is_file():
            return file
    return None


@cache
def _root_of(top: str, *, installed: bool) -> Path | None:
    """Return folder or file of a top-level module outside this package.

    Args:
        top: Its name.
        installed: Whether an installed one is meant too; otherwise None stands for libraries.
    """
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.origin is None:  # a folder without __init__.py
        places = list(spec.submodule_search_locations or ())
        root = Path(places[0]) if places else None
    elif spec.origin.endswith(".py"):
        origin = Path(spec.origin)
        root = origin.parent if origin.name == "__init__.py" else origin
    else:
        return None
    if root is None or installed:
        return root
    library = "site-packages" in root.parts or root.is_relative_to(Path(ast.__file__).parent)
    return None if library else root


@cache
def _parsed(file: Path | None, name: str) -> tuple[str, tuple[str, ...]]:
    """Return the digest of a file's code without docstrings, and the names that it may import.

    Args:
        file: Of the module.
        name: Of the module, from which its relative imports are resolved.
    """
    assert file is not None, "only modules with a file are parsed"
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    names = tuple(_imports(tree, package))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):  # a string as a statement is documentation
            node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
    text = ast.dump(tree)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest(), names


def _is_text(node: ast.AST) -> bool:
    """Return whether a statement is only a string."""
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
        return False
    return isinstance(node.value.value, str)


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield the dotted names of imports; of ``from a import b`` both ``a`` and ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            parts = [*(above if node.level else []), *([node.module] if node.module else [])]
            module = ".".join(parts)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def weights_digest(location: str) -> str:
    """Return a hash of pretrained weights, so that other weights under one name are noticed.

    Args:
        location: A local folder or file, all of whose bytes are hashed but those of notes and
            hidden files; or a name on the Hugging Face hub, which stands for its commit. A hub
            model that is not in the local cache is looked up there (``""`` if that fails).
    """
    place = Path(location).expanduser()
    if not place.exists():
        return _hub_revision(location)
    files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        if file.suffix.lower() == ".md" or file.name.startswith("."):
            continue
        stat = file.stat()
        digest.update(str(file.relative_to(place)).encode())
        digest.update(_file_digest(str(file), stat.st_size, stat.st_mtime_ns).encode())
    return digest.hexdigest()


@cache
def _file_digest(path: str, size: int, mtime_ns: int) -> str:
    """Return the hash of a file's bytes; unchanged files are read once a process."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _hub_revision(name: str) -> str:
    """Return the commit of a hub model, downloading its config first, or an empty string.

    So the commit is known before the weights are loaded, and stays the same afterwards.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
        if not isinstance(found, str):
            found = hf_hub_download(name, "config.json")
    except (OSError, HFValidationError):  # the errors of the hub and the network are OSErrors
        return ""
    return Path(found).parent.name


@cache
def git_state() -> dict[str, str | bool] | None:
    """Return commit and dirty flag of the checkout that this package runs from.

    Returns:
        ``{"commit": 40 digits, "dirty": bool}``; None where it is installed from a wheel, or git is
        missing. Dirty means that files of the package differ from the commit, or are new.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(PACKAGE), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        if git("ls-files", "--error-unmatch", "__init__.py") != "__init__.py":
            return None
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", ".")),
        }
    except (OSError, subprocess.SubprocessError):
        return None
