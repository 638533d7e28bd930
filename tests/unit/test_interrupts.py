"""What ends a command from outside, while its main thread hangs."""

from __future__ import annotations

import subprocess
import sys

import pytest

HANGING = """
import ctypes, os, signal, threading, time
from sweeps.interrupts import end_now, interruptible

def from_outside():
    time.sleep(0.2)
    if {signalled}:
        os.kill(os.getpid(), signal.SIGTERM)
    end_now("Ray's servers have ended.")

with interruptible():
    threading.Thread(target=from_outside).start()
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):  # the second time it waits for ever, whatever signal comes
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""


@pytest.mark.parametrize("signalled", [True, False])
def test_a_signal_decides_the_exit_code_though_the_main_thread_hangs(signalled: bool) -> None:
    """The thread that ends the process knows of a signal that nobody has answered; whoever sent it needs no reason."""
    script = HANGING.format(signalled=signalled)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.returncode == (130 if signalled else 1)
    assert ended.stderr == ("" if signalled else "carsweep: Ray's servers have ended.\n")
