"""Only what Lightning lacks."""

from lightning_llava.callbacks.checkpoint import Checkpoint
from lightning_llava.callbacks.faults import Faults
from lightning_llava.callbacks.meter import Meter
from lightning_llava.callbacks.panels import Panels
from lightning_llava.callbacks.progress import Progress
from lightning_llava.callbacks.reports import Reports
from lightning_llava.callbacks.sample_log import SampleLog

__all__ = ["Checkpoint", "Faults", "Meter", "Panels", "Progress", "Reports", "SampleLog"]
