"""Threads over clips: results in order, and an early end for what is no longer wanted."""

import time

import pytest

from npga.capture.parallel import Stop, StoppedError, in_threads


def test_results_come_in_order():
    assert in_threads(lambda item, stop: item * 2, [3, 1, 2], 2) == [6, 2, 4]


def test_a_failure_stops_what_runs_and_what_waits():
    ended: list[str] = []

    def work(item: str, stop: Stop) -> None:
        if item == "fails":
            time.sleep(0.05)
            raise KeyboardInterrupt
        ended.append(f"{item} began")
        for _ in range(200):
            time.sleep(0.01)
            try:
                stop.check()
            except StoppedError:
                ended.append(f"{item} stopped")
                raise
        ended.append(f"{item} went on to its end")

    with pytest.raises(KeyboardInterrupt):
        in_threads(work, ["fails", "runs", "waits", "waits too"], 2)
    assert "runs stopped" in ended
    assert not [line for line in ended if "end" in line or line.startswith("waits too")]
