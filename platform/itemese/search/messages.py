"""What a trial and the study's driver say to each other through Tune."""

NUMBER = "trial"
"""Key of a trial's number beside its values; no parameter bears it, as all have a dot."""

OBJECTIVE = "objective"
"""Best validation metric of the stage so far; at the end that of the model that was kept."""

STAGE = "stage"
"""Name of training's stage that a validation belongs to; the report at the end has none."""

FOUND = "found"
"""Whether a validation is one of a model that the trial found finished."""
