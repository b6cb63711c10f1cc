"""The command line, told to stop when a micro-batch has been trained on: always at the same place.

`stopped_run.py SIGNAL WHOM RANK MICRO_BATCH fit …`: that rank sends the signal to itself or to the
whole group of processes, data workers and all, as schedulers and terminals do.
"""

import os
import signal
import subprocess
import sys

from lightning_llava.callbacks import SampleLog
from lightning_llava.cli import main

if __name__ == "__main__":
    name, whom, rank, micro_batch = sys.argv[1:5]
    after = SampleLog.on_train_batch_end

    def tell(self, trainer, pl_module, outputs, batch, batch_idx):
        after(self, trainer, pl_module, outputs, batch, batch_idx)
        if batch.micro_batch == int(micro_batch) and trainer.global_rank == int(rank):
            number = signal.Signals[name]
            if whom == "itself":
                os.kill(os.getpid(), number)
            else:  # from a process that is no one's parent; it is in the group too
                subprocess.run(["kill", f"-{number}", "--", f"-{os.getpgrp()}"], check=False)

    SampleLog.on_train_batch_end = tell
    main(sys.argv[5:])
