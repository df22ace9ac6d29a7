"""What joins a cluster gives back what Ray took."""

import signal
import threading
from typing import Any

from itemese.core import cluster


def test_ctrl_c_belongs_to_us_again_when_ray_is_done() -> None:
    before = signal.getsignal(signal.SIGINT)

    def rays(number: int, frame: Any) -> None: ...

    with cluster.signals_kept():
        signal.signal(signal.SIGINT, rays)
    assert signal.getsignal(signal.SIGINT) is before


def test_no_other_thread_touches_handlers() -> None:
    faults: list[BaseException] = []

    def inside() -> None:
        try:
            with cluster.signals_kept():
                pass
        except ValueError as error:
            faults.append(error)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert faults == []
