"""Numbers within bounds: the command line refuses others by the setting's name."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    PositiveInt = NonNegativeInt = int
    NonNegativeFloat = ClosedUnitInterval = float
else:  # made at run time, which type checkers do not follow
    from jsonargparse.typing import (
        ClosedUnitInterval,
        NonNegativeFloat,
        NonNegativeInt,
        PositiveInt,
    )

__all__ = ["ClosedUnitInterval", "NonNegativeFloat", "NonNegativeInt", "PositiveInt"]
