"""A Bayesian relation network: checked declarations, ready for ancestral sampling.

``P(attributes) = product over k of P(attribute_k | its parents)``, where parents lie in the same
entity or, through a relation, in another one that is drawn first.
Follows the idea of MemSim (arXiv 2409.20163): sample structured truth first, phrase it after.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from string import Formatter
from typing import Any

from itemese.core.config import nearest
from itemese.core.errors import ConfigError
from itemese.simulation.compiling import Domain, compile_law
from itemese.simulation.declarations import (
    DISTRIBUTIONS,
    ChoiceDeclaration,
    Declaration,
    EntityDeclaration,
    NetworkDeclaration,
    load_network,
)
from itemese.simulation.laws import Counters, Law, Parents
from itemese.simulation.streams import Stream


@dataclass(frozen=True)
class Attribute:
    """One attribute, ready to be drawn.

    Attributes:
        name: Its name inside the entity.
        parents: Names as declared.
        hidden: Whether it stays out of tables.
        domain: What its values are.
        law: How it is drawn given its parents.
        over: For a simplex, the ``entity.attribute`` that it distributes over.
    """

    name: str
    parents: tuple[str, ...]
    hidden: bool
    domain: Domain
    law: Law
    over: str | None = None


@dataclass(frozen=True)
class Entity:
    """One kind of thing.

    Attributes:
        name: Its name.
        relations: ``relation: entity``.
        attributes: By name, parents before children.
        text: Templates of each text column.
    """

    name: str
    relations: dict[str, str]
    attributes: dict[str, Attribute]
    text: dict[str, tuple[str, ...]]


class Network:
    """A checked network.

    Attributes:
        name: For reports.
        entities: By name, related ones before those that refer to them.
        choice: Which item an event is about, if declared.
    """

    def __init__(self, network: str | Mapping[str, Any]) -> None:
        """Load and check a network.

        Args:
            network: Packaged name, path or URI of a YAML file, or the mapping itself.

        Raises:
            ConfigError: A cycle, an unknown name, rows that are no distribution, ...
        """
        declared = NetworkDeclaration.parse(load_network(network), where="network")
        self.name = declared.name
        self.choice: ChoiceDeclaration | None = declared.choice
        self.entities: dict[str, Entity] = {}
        for name in _entity_order(declared.entities):
            self.entities[name] = self._entity(name, declared.entities[name])

    def attribute(self, path: str, where: str) -> Attribute:
        """Return the attribute ``entity.attribute``.

        Raises:
            ConfigError: There is none; the nearest is suggested. `where` names the reference.
        """
        known = {f"{e}.{a}": v for e, x in self.entities.items() for a, v in x.attributes.items()}
        if path not in known:
            message = f"`{where}` must be a declared entity.attribute; got {path!r}. "
            raise ConfigError(message + nearest(path, known))
        return known[path]

    def sample(
        self, entity: str, *, seed: int, counters: Counters, related: Parents | None = None
    ) -> Parents:
        """Draw all attributes of N rows of an entity, parents before children.

        Args:
            entity: Name.
            seed: The experiment's seed.
            counters: Addresses of the rows, [N] int64 each; the same address, the same draw.
            related: Drawn attributes of related rows, by ``relation.attribute``.

        Returns:
            By attribute: codes [N] int64, numbers [N] float64, or probabilities [N, V] float64.
        """
        drawn: Parents = dict(related or {})
        for name, attribute in self.entities[entity].attributes.items():
            stream = Stream(seed, f"{entity}/{name}")
            drawn[name] = attribute.law.draw(stream, counters, drawn)
        return {name: drawn[name] for name in self.entities[entity].attributes}

    def _entity(self, name: str, declared: EntityDeclaration) -> Entity:
        where = f"network.entities.{name}"
        specs = {
            key: _declaration(values, f"{where}.attributes.{key}")
            for key, values in declared.attributes.items()
        }
        foreign = {
            f"{relation}.{key}": attribute.domain
            for relation, other in declared.relations.items()
            for key, attribute in self.entities[other].attributes.items()
        }
        attributes: dict[str, Attribute] = {}
        for key in _attribute_order(specs, set(foreign), where):
            spec = specs[key]
            domains = foreign | {k: a.domain for k, a in attributes.items()}
            place = f"{where}.attributes.{key}"
            path: str | None = getattr(spec, "over", None)
            over = self.attribute(path, f"{place}.over").domain if path is not None else None
            parents = {parent: domains[parent] for parent in spec.parents}
            domain, law = compile_law(spec, parents, over, place)
            attributes[key] = Attribute(key, spec.parents, spec.hidden, domain, law, path)
        text = {
            column: (templates,) if isinstance(templates, str) else tuple(templates)
            for column, templates in declared.text.items()
        }
        _check_text(text, attributes, where)
        return Entity(name, dict(declared.relations), attributes, text)


def _declaration(values: dict[str, Any], where: str) -> Declaration:
    """Parse one attribute by its `distribution`."""
    name = values.get("distribution")
    if name not in DISTRIBUTIONS:
        message = f"`{where}.distribution` must be a known distribution; got {name!r}. "
        raise ConfigError(message + nearest(str(name), DISTRIBUTIONS))
    return DISTRIBUTIONS[name].parse(values, where=where)


def _entity_order(entities: Mapping[str, EntityDeclaration]) -> list[str]:
    """Return the entities, those that others refer to first."""
    needs: dict[str, set[str]] = {}
    for name, entity in entities.items():
        needs[name] = set(entity.relations.values())
        for relation, other in entity.relations.items():
            if other not in entities:
                message = f"`network.entities.{name}.relations.{relation}` must be a declared "
                message += f"entity; got {other!r}. {nearest(other, entities)}"
                raise ConfigError(message)
        for spec in entity.attributes.values():
            # A distribution over another entity's values needs these values first.
            owner = str(spec.get("over", "")).partition(".")[0]
            needs[name] |= {owner} & entities.keys() - {name}
    return _sorted(needs, "network.entities")


def _attribute_order(specs: Mapping[str, Declaration], foreign: set[str], where: str) -> list[str]:
    """Return the attributes, parents before children."""
    needs: dict[str, set[str]] = {}
    for name, spec in specs.items():
        for parent in spec.parents:
            if parent not in foreign and parent not in specs:
                known = sorted({*specs, *foreign} - {name})
                message = f"`{where}.attributes.{name}.parents` must be declared attributes; got "
                raise ConfigError(message + f"{parent!r}. {nearest(parent, known)}")
        needs[name] = set(spec.parents) & set(specs)
    return _sorted(needs, f"{where}.attributes")


def _sorted(needs: Mapping[str, set[str]], where: str) -> list[str]:
    """Return the keys so that each follows what it needs."""
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        circle = " <- ".join(error.args[1])
        message = f"`{where}` must not depend on each other in a circle; got {circle}. "
        raise ConfigError(message + "Remove one of these parents.") from None


def _check_text(
    text: Mapping[str, tuple[str, ...]], attributes: Mapping[str, Attribute], where: str
) -> None:
    """Refuse templates that name what cannot be written, and columns that hide an attribute."""
    known = {k for k, a in attributes.items() if not a.domain.is_simplex} | {"number"}
    for column, templates in text.items():
        if column in attributes or not templates:
            message = f"`{where}.text.{column}` must be a new name with at least one template; "
            raise ConfigError(message + "got an attribute's name or no template. Fix it.")
        for template in templates:
            for name in _fields(template, f"{where}.text.{column}"):
                if name not in known:
                    message = f"`{where}.text.{column}` must name attributes; got {name!r} in "
                    raise ConfigError(message + f"{template!r}. {nearest(name, known)}")


def _fields(template: str, where: str) -> list[str]:
    """Return the names in braces."""
    try:
        return [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        message = f"`{where}` must be a template such as '{{brand}} {{noun}}'; got {template!r}. "
        raise ConfigError(message + f"It is torn: {error}.") from None
