"""The wheel, installed outside the repository: its command works without the repository's files."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def test_an_installed_wheel_has_a_command_that_works(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    subprocess.run([*pip, "wheel", "--no-deps", "-w", wheels, ROOT], check=True, timeout=300)
    (wheel,) = wheels.glob("itemese-*.whl")
    pages = "platform/itemese/serving/http/playground"
    wanted = {file.relative_to(ROOT / "platform").as_posix() for file in (ROOT / pages).iterdir()}
    assert wanted <= set(ZipFile(wheel).namelist())
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True, timeout=120)
    home = tmp_path / "home"
    home.mkdir()

    def itemese(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, site / "bin" / "itemese", *arguments],
            cwd=home,
            env={**os.environ, "PYTHONPATH": str(site), "RAY_AUTH_MODE": "token"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert "core_worker" not in done.stderr, "messages of Ray's own are no news for users"
        return done.stdout

    rows = [f"u{n % 40},i{(n * 7 + n % 3) % 20},{1_600_000_000 + n}" for n in range(400)]
    (home / "mine.csv").write_text("\n".join(["user,item,time", *rows]))
    assert "wrote mine.yaml" in itemese("init", "mine.csv")
    short = ("--set", "training.max_epochs=1", "--no-rivals")
    assert "bundle: model" in itemese("train", "mine.yaml", "--bundle", "model", *short)
    assert " 3. " in itemese("ask", "model", "i1", "-k", "3")
    printed = itemese("demo", "--quick")
    assert "HTTP: 200 requests, 0 errors" in printed
