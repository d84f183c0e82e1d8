"""What ends a run from outside, and what is said of it."""

import logging
import os
import signal
import threading

import pytest

from quintet.core.run.interruption import DeathNotice, Ended, Signals, killed_process


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_raises_once_and_its_handler_is_put_back(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with Signals() as signals:
        with pytest.raises(Ended):
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # while the first is cleaned up after
        assert (signals.received, signals.status) == (number, 128 + number)
    assert signal.getsignal(number) == before


def test_a_signal_that_is_ignored_on_purpose_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.received is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_works_again_after_lightning_has_ignored_it():
    with Signals() as signals:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signals.status == 130


def test_another_thread_takes_no_signals():
    """Python lets the main thread alone set handlers."""
    failed = []

    def use():
        try:
            with Signals():
                pass
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert failed == []


@pytest.mark.parametrize(
    ("words", "cause", "expected"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", None, "(pid 7) was killed (Killed)"),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", None, "(pid 7, 8) ended unexpectedly"),
        (
            "DataLoader worker (pid(s) 7) exited unexpectedly",
            "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible",
            "(pid 7) was killed (Bus error)",
        ),
        ("mat1 and mat2 shapes cannot be multiplied", None, None),
    ],
)
def test_a_reading_process_that_ended_is_told_from_other_errors(words, cause, expected):
    error = RuntimeError(words)
    error.__cause__ = cause and RuntimeError(cause)
    said = killed_process(error, None)
    assert said is None if expected is None else expected in said


def test_the_observer_s_last_words_are_said_with_what_to_do(capsys):
    logger = logging.getLogger(DeathNotice.LOGGER)
    before = logger.level, logger.propagate
    with DeathNotice(lambda: "continue with: quintet fit"):
        logger.info("[rank: 1] Child process with PID 7 terminated with code -9. Forcefully terminating all other")
        logger.info("something else")
    logger.info("Child process with PID 8 terminated with code 1.")
    expected = "error: a process of this run (pid 7) was killed by SIGKILL\ncontinue with: quintet fit\n"
    assert capsys.readouterr().err == expected
    assert (logger.level, logger.propagate) == before


def test_lightning_s_observer_still_writes_what_the_notice_reads(capsys, monkeypatch):
    import subprocess
    import sys

    from lightning.fabric.strategies.launchers import subprocess_script

    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    process.wait()
    observer = subprocess_script._ChildProcessObserver(main_pid=0, child_processes=[process])
    monkeypatch.setattr(observer, "_terminate_all", lambda: None)
    with DeathNotice(lambda: ""):
        assert observer._run()
    assert capsys.readouterr().err == f"error: a process of this run (pid {process.pid}) ended with status 3\n"
