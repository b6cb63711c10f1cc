"""How a data set that is made by code (the demo) hooks into `prepare_data`."""

from abc import ABC, abstractmethod


class Preparation(ABC):
    """Something that writes shards before they are read; named in YAML as `data.preparation`."""

    @abstractmethod
    def prepare(self) -> None:
        """Write what is missing, on one process per machine; return at once when nothing is."""
