"""Triton as a peer of `serving.py`: python serving_triton.py ENGINE PORT BATCH WAIT_MS, until it is told to end.

The model repository is what `toolkit handoff triton --backend python` writes, with the batch and the wait that all peers get.
"""

from __future__ import annotations

import re
import signal
import sys
import tempfile
from pathlib import Path

from toolkit.engine.engine import Engine
from toolkit.handoff.triton import to_triton
from toolkit.testing.tritonserver import serving


def main() -> None:
    engine, port, batch, wait = Engine.open(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        to_triton([engine], work / "models", backend="python")
        config = work / "models" / engine.name / "config.pbtxt"
        delay = f"max_queue_delay_microseconds: {round(wait * 1e3)}"
        text = re.sub(r"max_queue_delay_microseconds: *\d+", delay, config.read_text())
        config.write_text(re.sub(r"preferred_batch_size: *\[[^]]*\]", f"preferred_batch_size: [{batch}]", text))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with serving(work / "models", work, port=port):
            signal.pause()


if __name__ == "__main__":
    main()
