"""From an attribute's declaration to its domain and law; every number is checked here."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from itemese.core.config import nearest
from itemese.core.errors import ConfigError
from itemese.simulation.declarations import (
    CategoricalDeclaration,
    Declaration,
    NormalDeclaration,
    SimplexDeclaration,
    SoftmaxDeclaration,
    UniformDeclaration,
    Value,
)
from itemese.simulation.laws import Effects, Law, NumberLaw, SimplexLaw, SoftmaxLaw, TableLaw

_TOLERANCE = 1e-6
"""How far from 1 a row of probabilities may sum before it is refused."""


@dataclass(frozen=True)
class Domain:
    """What an attribute's values are.

    Attributes:
        values: As text, in code order; None for a number.
        is_simplex: Whether a row is a distribution over `values` instead of one of them.
    """

    values: tuple[str, ...] | None
    is_simplex: bool = False


Row = list[Value] | dict[Value, float]


def compile_law(
    spec: Declaration, parents: Mapping[str, Domain], over: Domain | None, where: str
) -> tuple[Domain, Law]:
    """Check one declaration against its parents and return what it describes.

    Args:
        spec: The declaration.
        parents: Domains of its parents, in the declared order.
        over: Domain that a simplex distributes over.
        where: Dotted path for errors.

    Raises:
        ConfigError: A row is no distribution, a combination is missing, a name is unknown.
    """
    for name, domain in parents.items():
        if domain.is_simplex:
            message = f"`{where}.parents` must be categorical or numeric; got the simplex "
            raise ConfigError(message + f"{name!r}. Use it in `choice.taste` only.")
    if isinstance(spec, CategoricalDeclaration):
        return _categorical(spec, parents, where)
    if isinstance(spec, SoftmaxDeclaration):
        values = _names(spec.values, where)
        effects = _log_odds(spec, values, parents, where)
        return Domain(values), SoftmaxLaw(effects)
    if isinstance(spec, SimplexDeclaration):
        if over is None or over.values is None or over.is_simplex:
            message = f"`{where}.over` must be a categorical attribute; got {spec.over!r}. "
            raise ConfigError(message + "Name one as entity.attribute.")
        effects = _log_odds(spec, over.values, parents, where)
        return Domain(over.values, is_simplex=True), SimplexLaw(effects, spec.spread)
    if isinstance(spec, UniformDeclaration):
        _check_bounds(spec.low, spec.high, where)
        _check_effects({}, parents, where)
        none = Effects(np.zeros(1), {}, {})
        law = NumberLaw(none, "uniform", 0.0, spec.low, spec.high, spec.decimals)
        return Domain(None), law
    assert isinstance(spec, NormalDeclaration)
    if spec.low is not None and spec.high is not None:
        _check_bounds(spec.low, spec.high, where)
    effects = _shift(spec, parents, where)
    law = NumberLaw(effects, spec.distribution, spec.std, spec.low, spec.high, spec.decimals)
    return Domain(None), law


def _check_bounds(low: float, high: float, where: str) -> None:
    if not low < high:
        message = f"`{where}.low` must be < high; got {low} and {high}. Change one of them."
        raise ConfigError(message)


def _names(values: Iterable[Value], where: str) -> tuple[str, ...]:
    """Return the values as text."""
    values = list(values)
    names = tuple(str(value) for value in values)
    if not names or len(set(names)) != len(names):
        message = f"`{where}.values` must be different texts or numbers; got {list(values)}. "
        raise ConfigError(message + "Name at least one, each once.")
    return names


def _categorical(
    spec: CategoricalDeclaration, parents: Mapping[str, Domain], where: str
) -> tuple[Domain, Law]:
    """Return the table of a categorical attribute."""
    wanted, other = ("table", "probabilities") if parents else ("probabilities", "table")
    if getattr(spec, wanted) is None or getattr(spec, other) is not None:
        message = f"`{where}.{wanted}` must be given, and {other} not, when parents are "
        message += f"{list(parents)}; got {wanted} {getattr(spec, wanted)!r}. Add the rows."
        raise ConfigError(message)
    rows: dict[str, Row]
    if spec.probabilities is not None:
        rows = {f"{where}.probabilities": spec.probabilities}
        keys = list(rows)
    else:
        rows, keys = _combinations(spec, parents, where)
    declared = spec.values if spec.values is not None else _values_in(rows.values())
    values = _names(declared, where)
    ready = {key: _row(row, values, key) for key, row in rows.items()}
    sizes = tuple(len(d.values or ()) for d in parents.values())
    table = np.stack([ready[key] for key in keys])
    return Domain(values), TableLaw(tuple(parents), sizes, table)


def _combinations(
    spec: CategoricalDeclaration, parents: Mapping[str, Domain], where: str
) -> tuple[dict[str, Row], list[str]]:
    """Return the rows by their dotted path, and the path that serves each combination."""
    for name, domain in parents.items():
        if domain.values is None:
            message = f"`{where}.parents` must be categorical for a table; got the number "
            raise ConfigError(message + f"{name!r}. Use distribution: softmax.")
    assert spec.table is not None
    split = {", ".join(p.strip() for p in str(k).split(",")): k for k in spec.table}
    rows = {f"{where}.table.{key}": spec.table[original] for key, original in split.items()}
    legal = [", ".join(c) for c in itertools.product(*(d.values or () for d in parents.values()))]
    for key in split:
        if key != "otherwise" and key not in legal:
            message = f"`{where}.table` must have rows named by values of {list(parents)}; got "
            raise ConfigError(message + f"{key!r}. {nearest(key, legal)}")
    missing = [key for key in legal if key not in split]
    if missing and "otherwise" not in split:
        message = f"`{where}.table` must have a row for each combination; got none for "
        raise ConfigError(message + f"{missing[0]!r}. Add it, or a row named otherwise.")
    return rows, [f"{where}.table.{key if key in split else 'otherwise'}" for key in legal]


def _is_list_of_values(row: Row) -> bool:
    return isinstance(row, list) and any(isinstance(entry, str) for entry in row)


def _values_in(rows: Iterable[Row]) -> list[Value]:
    """Return the values that rows name, in order of appearance."""
    found: dict[Value, None] = {}
    for row in rows:
        if isinstance(row, dict) or _is_list_of_values(row):
            found |= dict.fromkeys(row)
    return list(found)


def _row(row: Row, values: tuple[str, ...], where: str) -> np.ndarray:
    """Return ``[V] float64`` of one row, which must be a distribution."""
    result = np.zeros(len(values))
    if isinstance(row, dict) or _is_list_of_values(row):
        names = [str(value) for value in row]
        for name in names:
            if name not in values:
                message = f"`{where}` must name declared values; got {name!r}. "
                raise ConfigError(message + nearest(name, values))
        shares = list(row.values()) if isinstance(row, dict) else [1 / len(names)] * len(names)
        result[[values.index(name) for name in names]] = shares
    elif len(row) != len(values):
        message = f"`{where}` must have {len(values)} numbers, one a value; got {len(row)}. "
        raise ConfigError(message + "Add or remove numbers.")
    else:
        result[:] = [float(share) for share in row]
    total = float(result.sum())
    if (result < 0).any() or abs(total - 1) > _TOLERANCE:
        message = f"`{where}` must be probabilities that sum to 1; got {row} with the sum "
        raise ConfigError(message + f"{total:.6g}. Change them.")
    return np.asarray(result / total)


def _check_effects(effects: Iterable[str], parents: Mapping[str, Domain], where: str) -> None:
    """Refuse an effect without its parent, and a parent without its effect."""
    for name in effects:
        if name not in parents:
            message = f"`{where}.effects` must name parents; got {name!r}. "
            raise ConfigError(message + nearest(name, parents))
    for name in parents:
        if name not in effects:
            message = f"`{where}.effects` must have an entry for each parent; got none for "
            raise ConfigError(message + f"{name!r}. Add it or remove the parent.")


def _vector(
    numbers: Mapping[Value, float | dict[Value, float]], names: tuple[str, ...], where: str
) -> np.ndarray:
    """Return ``[len(names)] float64`` of ``name: number``; 0 where not named."""
    result = np.zeros(len(names))
    for name, number in numbers.items():
        if str(name) not in names:
            message = f"`{where}` must name declared values; got {name!r}. "
            raise ConfigError(message + nearest(str(name), names))
        if isinstance(number, dict):
            message = f"`{where}.{name}` must be a number; got {number!r}. Write one number."
            raise ConfigError(message)
        result[names.index(str(name))] = number
    return result


def _log_odds(
    spec: SoftmaxDeclaration | SimplexDeclaration,
    values: tuple[str, ...],
    parents: Mapping[str, Domain],
    where: str,
) -> Effects:
    """Return the effects on the log-odds of each value."""
    _check_effects(spec.effects, parents, where)
    tables, slopes = {}, {}
    for name, effect in spec.effects.items():
        place, domain = f"{where}.effects.{name}", parents[name].values
        if domain is None:
            slopes[name] = _vector(effect, values, place)
            continue
        table = np.zeros((len(domain), len(values)))
        for value, row in effect.items():
            if str(value) not in domain or not isinstance(row, dict):
                message = f"`{place}` must map values of {name} to value: number; got {value!r}: "
                raise ConfigError(message + f"{row!r}. {nearest(str(value), domain)}")
            table[domain.index(str(value))] = _vector(dict(row), values, f"{place}.{value}")
        tables[name] = table
    bias = _vector(dict(spec.bias), values, f"{where}.bias")
    return Effects(bias, tables, slopes)


def _shift(spec: NormalDeclaration, parents: Mapping[str, Domain], where: str) -> Effects:
    """Return the effects on the mean of a number."""
    _check_effects(spec.effects, parents, where)
    tables, slopes = {}, {}
    for name, effect in spec.effects.items():
        place, domain = f"{where}.effects.{name}", parents[name].values
        if (domain is None) == isinstance(effect, dict):
            form = "one number, the slope" if domain is None else "parent value: number"
            message = f"`{place}` must be {form}; got {effect!r}. Change it."
            raise ConfigError(message)
        if isinstance(effect, dict):
            tables[name] = _vector(dict(effect), domain or (), place)[:, None]
        else:
            slopes[name] = np.array([effect])
    return Effects(np.array([spec.mean]), tables, slopes)
