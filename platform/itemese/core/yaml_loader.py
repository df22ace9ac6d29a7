"""The one reader of YAML: recipes, search spaces, ablations, serve configs, networks, ``--set``.

YAML 1.1 gives some texts a second meaning and keeps the last of equal keys. Here each text has one
meaning: keys are distinct texts (a whole number counts as text); values are mappings, lists, texts,
numbers, booleans and null.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from itemese.core.errors import ConfigError

_TAG = "tag:yaml.org,2002:"
_CLEARER = {"found unconstructable recursive node": "an anchor that holds itself"}
_PLAIN_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)")


def load_yaml(text: str | bytes, what: str) -> Any:
    """Return the value of one YAML document.

    Args:
        text: The document.
        what: Its name in errors, such as the file's.

    Raises:
        ConfigError: It is no YAML, or a part of it has two meanings; the message names the line.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        problem = _CLEARER.get(str(error.problem), error.problem)
        detail = f"{problem}{f' in line {mark.line + 1}' if mark else ''}"
    except RecursionError:
        detail = "too many levels"
    except (yaml.YAMLError, ValueError) as error:
        detail = " ".join(str(error).split())
    message = f"`{what}` must be valid YAML with one meaning; got: {detail}. Correct it."
    raise ConfigError(message) from None


class _Loader(yaml.SafeLoader):
    """Constructs plain values only; a node inside itself is an error of PyYAML."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = True) -> dict[Hashable, Any]:
        """Return a mapping with distinct texts as keys."""
        seen: dict[Any, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                self.construct_object(value_node, deep=True)  # what is merged has distinct keys too
            elif key_node.tag == f"{_TAG}int":
                key_node.tag = f"{_TAG}str"  # a number as key is the text that is written
            key = key_node.value
            if key_node.tag not in (f"{_TAG}str", f"{_TAG}merge"):
                _refuse(key_node, f"a key that is no text ({_shown(key_node)}; put it in quotes)")
            if key in seen:
                _refuse(key_node, f"the key {key!r} twice (first in line {seen[key]})")
            seen[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep=True)

    def construct_list(self, node: yaml.SequenceNode) -> list[Any]:
        """Return a list."""
        return self.construct_sequence(node, deep=True)

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        """Return a number as it is written: neither octal (010) nor sexagesimal (1:30)."""
        if not _PLAIN_INT.fullmatch(node.value):
            _refuse(node, f"{node.value}, which YAML reads as {self.construct_yaml_int(node)}")
        return self.construct_yaml_int(node)

    def construct_real(self, node: yaml.ScalarNode) -> float:
        """Return a number that is no sexagesimal (1:30.5)."""
        if ":" in node.value:
            _refuse(node, f"{node.value}, which YAML reads as {self.construct_yaml_float(node)}")
        return self.construct_yaml_float(node)

    def refuse_tag(self, node: yaml.Node) -> None:
        """Refuse dates, sets, binaries and whatever else has a tag."""
        if node.tag == f"{_TAG}timestamp":
            _refuse(node, f"the date {_shown(node)} (put it in quotes)")
        _refuse(node, f"the tag {node.tag.replace(_TAG, '!!')}")


def _refuse(node: yaml.Node, problem: str) -> None:
    """Raise the error of a node."""
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _shown(node: yaml.Node) -> str:
    """Return the text of a node, or its kind."""
    return str(node.value) if isinstance(node, yaml.ScalarNode) else "a list or mapping"


_Loader.yaml_constructors = {
    f"{_TAG}null": yaml.SafeLoader.construct_yaml_null,
    f"{_TAG}bool": yaml.SafeLoader.construct_yaml_bool,
    f"{_TAG}int": _Loader.construct_whole,
    f"{_TAG}float": _Loader.construct_real,
    f"{_TAG}str": yaml.SafeLoader.construct_yaml_str,
    f"{_TAG}seq": _Loader.construct_list,
    f"{_TAG}map": _Loader.construct_mapping,
    None: _Loader.refuse_tag,
}
