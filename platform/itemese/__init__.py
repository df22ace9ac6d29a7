"""itemese: recommendation as a language for large models, on Ray."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Client", "Experiment", "Recommender", "__version__"]

if TYPE_CHECKING:
    from itemese.pipeline.experiment import Experiment
    from itemese.serving.client import Client
    from itemese.serving.engine import Recommender


def __getattr__(name: str) -> Any:
    """Load the public classes when first asked for, so that importing the package stays cheap."""
    if name == "Experiment":
        from itemese.pipeline.experiment import Experiment

        return Experiment
    if name == "Client":
        from itemese.serving.client import Client

        return Client
    if name == "Recommender":
        from itemese.serving.engine import Recommender

        return Recommender
    message = f"module 'itemese' has no attribute {name!r}"
    raise AttributeError(message)
