"""The command ``itemese``: one subcommand a file of `commands`, imported when it is called."""

import importlib
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from itemese import __version__
from itemese.cli import console
from itemese.core.config import nearest
from itemese.core.errors import ConfigError

COMMANDS = {
    "init": "Look at a log and write a recipe for it.",
    "prepare": "Build logs, sequences and what a recipe's method needs; --inspect describes a log.",
    "write": "Write texts of items and users by a language model.",
    "train": "Train and evaluate a recipe beside its rivals.",
    "evaluate": "Print all figures of a recipe.",
    "compare": "Put recipes into one table, with paired tests.",
    "choose": "Let methods choose among the same offered items.",
    "ablate": "Run every variant of an ablation file.",
    "poison": "Measure what fake users can push.",
    "search": "Search a space with Ray Tune and Optuna.",
    "serve": "Serve a bundle, a study's winner or a registry over HTTP.",
    "ask": "Ask a bundle or a running service for recommendations.",
    "promote": "Make a bundle the champion of a registry.",
    "manifest": "Print a KubeRay RayService.",
    "export": "Write a bundle's language model in Hugging Face's form.",
    "methods": "List the methods: paper, needs, tasks.",
    "schema": "List every setting: type, default, meaning.",
    "runs": "List, show and delete what a storage holds.",
    "fetch": "Download a public data set.",
    "benchmark": "Measure speed.",
    "soak": "Overload, replace, kill and exhaust a service.",
    "demo": "From raw logs to a served winner in minutes.",
}
"""Name of each command, and its line in ``itemese --help``."""


class _Late(TyperCommand):
    """A command by its name and summary."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: Any = None,
        **extra: Any,
    ) -> Any:
        """Import the command, and let it read its arguments."""
        return load(str(self.name)).make_context(info_name, args, parent, **extra)


class _Commands(TyperGroup):
    """Imports a command when it is asked for: Ray and torch take seconds."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of that name, not imported yet.

        Raises:
            ConfigError: There is none.
        """
        if cmd_name not in COMMANDS:
            message = f"`itemese` must be followed by a command; got {cmd_name!r}. "
            raise ConfigError(message + nearest(cmd_name, COMMANDS))
        return _Late(cmd_name, help=COMMANDS[cmd_name])


def load(name: str) -> Any:
    """Import a command of `commands`: its ``main``, or its ``app`` of several verbs."""
    module = importlib.import_module(f"itemese.cli.commands.{name}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(pretty_exceptions_enable=False)
        app.command()(module.main)
    command = get_command(app)
    command.name = name
    return command


app = typer.Typer(cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def _options(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", help="No bars, no log lines; ITEMESE_QUIET=1 does it for jobs too."
    ),
) -> None:
    """Recommendation as a language for large models.

    Exit status: 0 done, 2 something that you can correct (one sentence says what), 130 stopped by
    Ctrl-C, 1 a defect (with its traceback).
    """
    if quiet:
        console.be_quiet()
    if version:
        print(__version__)
        raise typer.Exit


def run() -> None:
    """Entry point of the command line."""
    console.set_up()
    with console.sentences():
        app()
