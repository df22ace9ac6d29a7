"""The errors a user can act on.

Each carries one string, because exceptions cross process borders and one with further
constructor arguments cannot be unpickled there. The sentence has one shape everywhere:
*`<where.field>` must be `<constraint>`; got `<value>`. `<what to do>`.*
"""


class ItemeseError(Exception):
    """Base of every error that a user can fix; jobs print it without a traceback."""


class ConfigError(ItemeseError):
    """A recipe, override, search space or command line that cannot be carried out."""


class DataError(ItemeseError):
    """Input data that cannot be used as it is."""


class ArtifactError(ItemeseError):
    """A stage output, checkpoint or bundle that is missing, torn or cannot be written."""


class TrainingError(ItemeseError):
    """Training that cannot go on, such as a loss term that is not finite."""


def require_columns(found: list[str], columns: list[str], where: str) -> None:
    """Raise DataError unless a table with the columns `found` has all `columns`."""
    missing = [c for c in columns if c not in found]
    if missing:
        message = (
            f"`{where}` must have the columns {columns}; got {found} without {missing}. Map your "
            "names with `logs.columns`."
        )
        raise DataError(message)
