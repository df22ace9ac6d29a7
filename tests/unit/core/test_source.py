"""Keys follow code and weights: what runs is hashed, what is only written about it is not."""

import subprocess
import sys
from pathlib import Path

import pytest

from itemese.core.errors import ConfigError
from itemese.core.source import git_state, reachable, source_digest, weights_digest

METHOD = '''"""A method. {note}"""
from helper_of_{name} import WIDTH


def run():
    """Return it. {note}"""
    # {note}
    from itemese.layers.convolutions import ConvolutionalEncoder

    return WIDTH * {factor}
'''


def write(folder: Path, name: str, *, note: str = "", factor: int = 1, width: int = 8) -> None:
    (folder / f"{name}.py").write_text(METHOD.format(name=name, note=note, factor=factor))
    (folder / f"helper_of_{name}.py").write_text(f"WIDTH = {width}\n")


def digest_in(folder: Path, name: str) -> str:
    """Return the digest in a process of its own: a process reads each file once."""
    code = f"from itemese.core.source import source_digest; print(source_digest({name!r}))"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {code}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_edited_code_changes_the_digest_and_words_about_it_do_not(tmp_path: Path) -> None:
    write(tmp_path, "mine")
    first = digest_in(tmp_path, "mine")
    write(tmp_path, "mine", note="Another sentence.")
    assert digest_in(tmp_path, "mine") == first
    write(tmp_path, "mine", factor=2)
    edited = digest_in(tmp_path, "mine")
    write(tmp_path, "mine", width=9)  # in the module that it imports
    assert len({first, edited, digest_in(tmp_path, "mine")}) == 3


@pytest.mark.parametrize("initial", [True, False], ids=["package", "folder"])
def test_a_package_elsewhere_is_followed_through_relative_imports(
    tmp_path: Path, initial: bool
) -> None:
    package = tmp_path / "theirs"
    (package / "parts").mkdir(parents=True)
    if initial:
        (package / "__init__.py").write_text("")
    (package / "method.py").write_text("from .parts import network\nfrom . import sizes\n")
    (package / "sizes.py").write_text("WIDTH = 8\n")
    (package / "parts" / "network.py").write_text("from ..sizes import WIDTH\n")
    found = {digest_in(tmp_path, "theirs.method")}
    (package / "parts" / "network.py").write_text("from ..sizes import WIDTH\nDEPTH = 2\n")
    found.add(digest_in(tmp_path, "theirs.method"))
    (package / "sizes.py").write_text("WIDTH = 9\n")
    found.add(digest_in(tmp_path, "theirs.method"))
    if initial:
        (package / "__init__.py").write_text("SEED = 1\n")
        found.add(digest_in(tmp_path, "theirs.method"))
    assert len(found) == 3 + initial


def test_an_installed_method_is_followed_and_a_library_is_not(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    site.mkdir()
    (site / "theirs.py").write_text("import library\n")
    (site / "library.py").write_text("A = 1\n")
    first = digest_in(site, "theirs")
    (site / "library.py").write_text("A = 2\n")
    assert digest_in(site, "theirs") == first
    (site / "theirs.py").write_text("import library\nB = 1\n")
    assert digest_in(site, "theirs") != first


def test_a_module_without_a_file_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`no\.such` must be a module with a Python file"):
        source_digest("no.such")


def test_a_hub_model_is_looked_up_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "snapshots" / ("a" * 40) / "config.json"
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: str(config))
    assert weights_digest("somebody/a-model") == "a" * 40


def test_imports_are_followed_inside_the_package_also_where_a_function_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "followed")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = reachable("followed")
    assert {"followed", "helper_of_followed", "itemese.layers.convolutions"} <= found
    assert not any(name.startswith(("torch", "numpy")) for name in found)


def test_a_stage_does_not_hang_on_the_code_of_a_later_one() -> None:
    logs, training = reachable("itemese.logs.stage"), reachable("itemese.training.stage")
    for name in logs:
        assert not name.startswith(("itemese.codebooks", "itemese.methods", "itemese.training"))
    assert not any(name.startswith(("itemese.search", "itemese.serving")) for name in training)
    sasrec = reachable("itemese.methods.sasrec")
    assert "itemese.layers.transformer" in sasrec
    assert "itemese.methods.tiger" not in sasrec
    assert source_digest("itemese.methods.sasrec") != source_digest("itemese.methods.tiger")


def test_other_weights_under_one_path_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"one")
    (tmp_path / "README.md").write_text("words")
    first = weights_digest(str(tmp_path))
    (tmp_path / "README.md").write_text("other words")
    assert weights_digest(str(tmp_path)) == first
    (tmp_path / "model.safetensors").write_bytes(b"two, longer")
    assert weights_digest(str(tmp_path)) != first
    assert weights_digest("nobody/has-this-model") == ""


def test_the_commit_of_a_checkout_is_named() -> None:
    found = git_state()
    if found is None:
        pytest.skip("the package does not run from a git checkout")
    assert len(str(found["commit"])) == 40
    assert found["dirty"] in (True, False)
