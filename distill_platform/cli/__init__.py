"""`distill …`: the platform from a shell.

app.py        the commands put together, errors as messages, plug-ins
options.py    options that many commands share
console.py    progress on stderr, one JSON document or a table on stdout
runs.py       run, plan, init, schema, status, logs, stop, retry, report
artifacts.py  sweep results
cache.py      cache inspect, verify, audit, gc
models.py     models list, show, promote, rollback, history, sync, approve
doctor.py     what works here, what does not, what to do

Exit codes: 0 done; 1 failed; 2 a spec or input that is wrong; 3 a gate or the teacher's floor was not reached;
130 interrupted. What is heavy (torch, ray, mlflow) is imported inside the commands that need it.
"""


def main() -> None:
    """The entry point of the `distill` command."""
    from distill_platform.cli.app import build_app

    build_app()()


__all__ = ["main"]
