#!/usr/bin/env python3
"""Asks a GPU what the documentation does not say, and writes the answers down.

    integration/gpu/measure.py --build build/release --backend gpu --out docs/measured-on-gpu.md

With another backend it is a rehearsal: the same questions, to the simulator, and the page says so.
Each question has deadlines, and one that ends badly keeps none of the others from being asked. The
device's settings stay as they are; its compute mode too.
"""

import argparse
import pathlib
import signal
import subprocess
import sys
import traceback

import kit
import ask_clients  # noqa: F401: each puts its questions into the table
import ask_daemon  # noqa: F401
from harness import OPTIONS, SKIPPED, Backend

LONGEST = 120  # seconds for one question


def out_of_time(_number, _frame):
    raise TimeoutError(f"the question took more than {LONGEST} s")


def answer(ask):
    """What was found, and what went wrong, if anything did."""
    facts = kit.Facts()
    trouble = None
    signal.alarm(LONGEST)
    try:
        ask(facts)
    except Exception as error:  # a fact too: it stands in the page
        traceback.print_exc()
        trouble = f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        facts.stack.close()
    return facts.found, trouble


def machine(backend):
    if not backend.gpu:
        return f"no GPU: a rehearsal on {backend.name}"
    query = ["nvidia-smi", "--query-gpu=name,driver_version,compute_mode", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, timeout=60).stdout.strip()


def cell(value):
    text = str(value)
    return "`" + text.replace("|", "\\|").replace("\n", "` <br> `") + "`" if text else ""


def page(backend, answers):
    yield "# Measured on a GPU"
    yield ""
    yield f"By `integration/gpu/measure.py`. {machine(backend)}"
    for text, found, trouble in answers:
        yield ""
        yield f"## {text}"
        yield ""
        if found:
            yield from ("| what | seen |", "| --- | --- |")
        for what, value in found:
            yield f"| {what} | {cell(value)} |"
        if trouble:
            yield ""
            yield f"It ended before its end: {trouble}"


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--backend", default="gpu")
    parser.add_argument("--out", type=pathlib.Path, help="a page in Markdown")
    parser.add_argument("--only", default="", help="questions whose function's name has this in it")
    parser.add_argument("--strict", action="store_true", help="fail if a question ended badly")
    return parser.parse_args()


def main():
    given = options()
    OPTIONS.build, OPTIONS.backend = given.build.resolve(), given.backend
    backend = Backend(given.backend, OPTIONS.build)
    if reason := backend.missing():
        print(f"skipped: {reason}")
        return SKIPPED
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, out_of_time)
    answers = []
    for text, ask in kit.QUESTIONS:
        if given.only not in ask.__name__:
            continue
        print(f"{ask.__name__}: {text}", flush=True)
        answers.append((text, *answer(ask)))
        if given.out:  # after each, so that what is cut short leaves what it had
            given.out.write_text("\n".join(page(backend, answers)) + "\n")
    bad = [text for text, _, trouble in answers if trouble]
    print(f"{len(answers)} questions, {len(bad)} ended badly", *bad, sep="\n")
    return 1 if bad and given.strict else 0


if __name__ == "__main__":
    sys.exit(main())
