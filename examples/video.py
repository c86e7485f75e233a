"""A video, or a camera: frames are decoded by one thread while the engine answers those before. Needs opencv-python-headless.

    python examples/video.py engines/built/fashion-resnet18-int8 film.mp4
    python examples/video.py engines/built/fashion-resnet18-int8 0              # the first camera

Prints a line whenever the answer changes. Of a file every frame is answered, several at once where the decoder is ahead; of a
camera the newest ones, since a queue would only make the answer late.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from queue import Full, Queue
from typing import Any

import toolkit

try:
    import cv2
except ImportError:
    sys.exit("OpenCV is not here. Run: pip install opencv-python-headless")

AHEAD, BATCH = 16, 8  # frames that wait at most, and that are answered at once
Frame = tuple[float, Any]  # seconds since the start, and RGB pixels


def decode(source: str, frames: "Queue[Frame | None]", stop: threading.Event) -> None:
    """Put every frame into the queue, then None. A camera's oldest frame makes room for its newest."""
    camera = source.isdigit()
    capture = cv2.VideoCapture(int(source) if camera else source)
    try:
        rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
        number = 0
        while not stop.is_set():
            there, pixels = capture.read()
            if not there:
                break
            frame = (number / rate, pixels[..., ::-1])  # OpenCV's order is BGR
            number += 1
            if camera and frames.full():
                frames.get()
            put(frames, frame, stop)
    finally:
        capture.release()
        put(frames, None, stop)


def put(frames: "Queue[Frame | None]", frame: Frame | None, stop: threading.Event) -> None:
    waiting = True
    while waiting and not stop.is_set():
        with suppress(Full):
            frames.put(frame, timeout=0.2)
            waiting = False


def batches(frames: "Queue[Frame | None]") -> Iterator[list[Frame]]:
    """What waits, one frame at least and BATCH at most."""
    while (frame := frames.get()) is not None:
        some = [frame]
        while len(some) < BATCH and not frames.empty():
            if (frame := frames.get()) is None:
                yield some
                return
            some.append(frame)
        yield some


def main(engine: str, source: str) -> None:
    frames: Queue[Frame | None] = Queue(AHEAD)
    stop = threading.Event()
    with toolkit.load(engine) as runner:
        decoder = threading.Thread(target=decode, args=(source, frames, stop), name="decoder")
        decoder.start()
        count, last = 0, ""
        try:
            for some in batches(frames):
                for (seconds, _), best in zip(some, runner.classify([pixels for _, pixels in some], top=1), strict=True):
                    count += 1
                    if best[0].label != last:
                        last = best[0].label
                        print(f"{seconds:7.2f} s  {last}  {best[0].probability:.1%}", flush=True)
        except KeyboardInterrupt:
            pass
        finally:
            stop.set()
            decoder.join()
    if not count:
        sys.exit(f"{source} has no frame that OpenCV can read")
    print(f"{count} frames answered")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except toolkit.ToolkitError as error:
        sys.exit(f"{error}")
