"""How the parts of a converter say that a record cannot become a sample."""

from lightning_llava.data.converters.draft import Reason


class Unusable(Exception):  # noqa: N818 - carries a reason to the report, not an error to the user
    """A record is left out for this reason; caught where its report entry is made."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
