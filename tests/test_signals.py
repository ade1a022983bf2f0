"""B9: SIGTERM ends a command as Ctrl-C does, once, and says so by the exit code."""

from __future__ import annotations

import os
import signal

import pytest

from loopviz import signals


def test_sigterm_is_raised_once_and_the_handler_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with signals.terminating():
        with pytest.raises(signals.Terminated) as ended:
            signal.raise_signal(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # a second one must not tear what is being saved
    assert signal.getsignal(signal.SIGTERM) == before
    assert signals.exit_code(ended.value) == 143
    assert signals.exit_code(KeyboardInterrupt()) == 130
    assert signals.exit_code(signals.Terminated(signal.SIGHUP)) == 129


def test_a_hangup_that_is_ignored_stays_ignored():
    """nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.terminating():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_wait_while_a_line_is_written():
    done = []

    def write() -> None:
        with signals.held():
            signal.raise_signal(signal.SIGINT)
            done.append("the line")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert done == ["the line"]
