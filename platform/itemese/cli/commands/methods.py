"""List the methods: paper, needs, tasks."""

import inspect
import json
import re
import textwrap
from typing import Annotated, Any

import typer

from itemese.methods.lookup import method_class, method_module, method_names, method_of


def main(
    name: Annotated[str | None, typer.Argument(help="Show all that this method states")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts")] = False,
) -> None:
    """Print the methods, or what NAME states: source, differences, needs."""
    rows = [_facts(one) for one in ([name] if name else method_names())]
    if as_json:
        print(json.dumps(rows, indent=1))
    elif name:
        print(inspect.getdoc(method_module(name)))
        print(f"\nNeeds: {', '.join(rows[0]['needs']) or 'nothing but histories'}.")
        print(f"Settings: itemese schema method.{name}")
    else:
        for row in rows:
            print(f"{row['name']:18s} {textwrap.shorten(row['idea'], 100, placeholder=' ...')}")
            paper = row["paper"] or "no paper"
            print(f"{'':18s} {paper}; needs {', '.join(row['needs']) or 'nothing but histories'}\n")


def _facts(name: str) -> dict[str, Any]:
    """Return what a method states: name, idea, paper, needs by default, whether it is trained."""
    kind, doc = method_class(name), inspect.getdoc(method_module(name)) or ""
    idea = doc.split("\n\n")[0].partition(": ")[2] or doc.split("\n\n")[0]
    method = method_of(kind.Config.parse({"name": name}))
    paper = re.search(r"arXiv[ :]*(\d{4}\.\d{4,5}(v\d+)?)", doc)
    return {
        "name": name,
        "idea": " ".join(idea.split()),
        "paper": f"arXiv {paper.group(1)}" if paper else "",
        "needs": sorted(str(need) for need in method.required()),
        "trained": bool(method.stages()),
    }
