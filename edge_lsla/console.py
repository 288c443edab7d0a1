"""How every verb talks: people's text, `--json`, progress bars, one-line errors and exit codes.

`verb` turns a function that returns a dictionary into a typer command; see its docstring. Names in files that others
made may hold a terminal's commands: both consoles print control characters as escapes, and `visible` makes such a name
one line.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import json
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

from edge_lsla.errors import EdgeLslaError, Interrupted, UsageError

Step = Callable[[int, int, str], None]
RETRY_SECONDS = 0.05  # until an import is over

# What a terminal obeys (C0 and C1 controls), and what makes text look other than it is: Unicode's line separators and
# marks of direction.
_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_ONE_LINE = re.compile(f"[\t\n]|{_LINES.pattern}")


def visible(text: object) -> str:
    """Return text from a file on one line, with control characters as Python escapes: "\\x1b", "\\n", "\\u202e"."""
    return _ONE_LINE.sub(_escape, str(text))


def _visible_lines(text: str) -> str:
    return _LINES.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


class SafeConsole(Console):
    """A console that prints control characters as escapes, but for line breaks and what rich itself writes."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render to segments; those with control codes are rich's own, to draw progress bars."""
        for segment in super().render(renderable, options):
            if segment.control is None and _LINES.search(segment.text):
                segment = Segment(_visible_lines(segment.text), segment.style)
            yield segment

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a text of a string before anything measures it."""
        return super().render_str(_visible_lines(text), **options)


# Markup is off: file names and labels may look like it. Colours are given as styles.
error_console = SafeConsole(stderr=True, soft_wrap=True, highlight=False, markup=False)
output_console = SafeConsole(soft_wrap=True, highlight=False, markup=False)
_json_asked = False


def say() -> Console:
    """Return where people's text goes: standard output, or standard error under `--json`."""
    return error_console if _json_asked else output_console


def verb(app: typer.Typer, name: str) -> Callable[[Callable[..., dict[str, Any]]], Callable[..., None]]:
    """Register a function as the command `name` (its last word inside `app`).

    The function's parameters become options; `--json` and `--debug` are added. It prints through `say()` and returns
    what `--json` shows. Our errors end as one line on standard error and their exit code; a traceback shows only
    with `--debug`.
    """

    def decorate(function: Callable[..., dict[str, Any]]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(json_: bool = False, debug: bool = False, **arguments: Any) -> None:
            global _json_asked
            _json_asked = json_
            with _terminable():
                try:
                    code, result = 0, function(**arguments)
                except (typer.Exit, typer.Abort, SystemExit):  # the last: nobody reads our output any more
                    raise
                except BaseException as error:
                    code, result = _failed(error, debug)
            code = _answer(name, code, result) if json_ else code
            if code:
                raise typer.Exit(code)

        signature = inspect.signature(function, eval_str=True)
        added = {
            "json_": Annotated[bool, typer.Option("--json", help="Last line of standard output: one JSON object.")],
            "debug": Annotated[bool, typer.Option("--debug", help="Show a traceback on errors.")],
        }
        parameters = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
            for key, annotation in added.items()
        ]
        command.__signature__ = signature.replace(  # type: ignore[attr-defined]  # typer reads it
            parameters=[*signature.parameters.values(), *parameters], return_annotation=None
        )
        command.__annotations__ = {p.name: p.annotation for p in [*signature.parameters.values(), *parameters]}
        app.command(name.split()[-1])(command)
        return command

    return decorate


def run(app: typer.Typer, other_verbs: str = "") -> None:
    """Run the command line: usage errors too are one line, exit code 2, and JSON where it was asked for.

    Args:
        other_verbs: where else an unknown verb may be found.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without our letters must not end the work
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' warnings are for developers, who pass -W
    code: Any = 0
    try:
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        code, _ = _failed(KeyboardInterrupt(), False)
    except Exception as error:
        # typer carries its own copy of click; both spell usage errors alike.
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        name = context.command_path.partition(" ")[2] if context else ""
        if not error.format_message().strip(": ") or type(error).__name__ == "NoArgsIsHelpError":
            sys.exit(2)  # the help was shown
        remedy = f"see --help of {name}" if name else "see --help"
        if "No such command" in error.format_message():
            remedy += other_verbs
        code, result = _failed(UsageError(error.format_message().rstrip("."), name or None, remedy), False)
        if "--json" in sys.argv:
            code = _answer(name, code, result)
    sys.exit(code if isinstance(code, int) else 0)


def _answer(name: str, code: int, result: dict[str, Any]) -> int:
    """Print the JSON object; return the exit code."""
    try:
        print(json.dumps({"ok": code == 0, "verb": name, **result}), flush=True)
    except OSError as error:
        code, _ = _failed(error, False)
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  # nothing more fails at exit
    return code


def _failed(error: BaseException, debug: bool) -> tuple[int, dict[str, Any]]:
    details: dict[str, Any] = {}
    if debug:
        sys.stderr.write(_visible_lines("".join(traceback.format_exception(error))))
    if isinstance(error, KeyboardInterrupt):
        error = Interrupted("interrupted")
    line = ""
    if isinstance(error, EdgeLslaError):
        code, text = error.exit_code, str(error)
        details = error.details
        line = _one_line(error)
        if details.get("mistakes"):  # of a file; each is found more easily on a line of its own
            line = "\n  ".join([f"{error.what}: {visible(error.where)}", *map(visible, details["mistakes"])])
    elif isinstance(error, BrokenPipeError):
        code, text = 1, "the reader of our output went away"
    elif isinstance(error, MemoryError):
        code, text = 1, "out of memory; close other programs or use smaller batches"
    elif isinstance(error, OSError):
        code, text = (
            1,
            f"{error.strerror or error}: {error.filename or 'system call'}; check disk space and permissions",
        )
    else:
        code, text = 1, f"unexpected {type(error).__name__}: {error}; run again with --debug and report the traceback"
    with contextlib.suppress(BrokenPipeError):
        error_console.print(f"error: {line or ' '.join(text.split())}", style="bold red" if code != 130 else "")
    return code, {"error": text, "exit_code": code, **details}


def _one_line(error: EdgeLslaError) -> str:
    """Return an error's text with the place as it is written, so that a file's name can be told from another's."""
    if error.where is None:
        return " ".join(str(error).split())
    what, remedy = (" ".join((part or "").split()) for part in (error.what, error.remedy))
    return f"{what}: {visible(error.where)}" + (f"; {remedy}" if remedy else "")


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end a verb in the same way, so that half-written files are removed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if _importing(frame):
            # Libraries in C++ abort the process when an exception passes through their initialisation.
            again = threading.Timer(RETRY_SECONDS, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        raise KeyboardInterrupt

    previous = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:  # a shell's background job ignores Ctrl-C
                previous[number] = signal.signal(number, interrupt)
    except ValueError:  # not the main thread: a test or an embedding program owns the signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def progress(title: str) -> Iterator[Step]:
    """Show a progress bar while in the block, on a terminal only; call the result with (done, total, text)."""
    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=error_console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(title, total=None)

        def step(done: int, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total, description=f"{title} {visible(text)}")

        yield step
