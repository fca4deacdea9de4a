"""All commands as one application."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from distill_platform.cli import artifacts, cache, compare, doctor, models, runs
from distill_platform.cli.options import DEBUG
from distill_platform.errors import DistillError

PLUGINS = "distill_platform.cli"
"""Entry point group of sub-commands that other packages bring: name -> a `typer.Typer`."""

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""


class _ErrorsAsMessages(TyperGroup):
    """The platform's own errors end as one message on stderr and their exit code; all others are faults of ours."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DistillError as error:
            if ctx.meta.get(DEBUG):
                traceback.print_exc()
            lines = str(error).splitlines()
            typer.echo(f"distill: {error}" if len(lines) == 1 else "\n  ".join(["distill:", *lines]), err=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("distill: interrupted; the same command continues where this one was", err=True)
            raise typer.Exit(INTERRUPTED) from None


def build_app() -> typer.Typer:
    """The `distill` command with all sub-commands, those of installed plug-ins included."""
    app = typer.Typer(
        name="distill",
        cls=_ErrorsAsMessages,
        help="Distil an accurate model into one that is small enough to ship, and prove that it is good enough.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_start)
    for command in runs.COMMANDS:
        app.command()(command)
    app.command()(compare.compare)
    app.command()(doctor.doctor)
    app.add_typer(artifacts.sweep_app)
    app.add_typer(cache.app)
    app.add_typer(models.app)
    for entry in sorted(entry_points(group=PLUGINS), key=lambda entry: entry.name):
        _add_plugin(app, entry)
    return app


def _show_version(given: bool) -> None:
    if given:
        typer.echo(version("distill-platform"))
        raise typer.Exit


def _start(
    shown: Annotated[bool, typer.Option("--version", callback=_show_version, help="Show the version.")] = False,
) -> None:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # `import:package.module:function` finds modules of the folder one works in


def _add_plugin(app: typer.Typer, entry: EntryPoint) -> None:
    """Stand in for a plug-in's application, which is imported when it is called and not for `distill --help`."""
    package = entry.dist.name if entry.dist else entry.module
    app.command(
        entry.name,
        help=f"Commands of {package}; `distill {entry.name} --help` lists them.",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )(_plugin_call(entry))


def _plugin_call(entry: EntryPoint) -> Callable[[typer.Context], None]:
    def call(ctx: typer.Context) -> None:
        code = entry.load()(args=ctx.args, prog_name=f"distill {entry.name}", standalone_mode=False)
        raise typer.Exit(code if isinstance(code, int) else 0)

    return call
