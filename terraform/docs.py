"""Writes the tables of inputs and outputs in each module's README.md. Run it after `terraform fmt -recursive`:

    python terraform/docs.py            rewrite the tables
    python terraform/docs.py --check    exit 1, naming the READMEs that are out of date

It reads our own formatted files, where a block starts in the first column and ends with a `}` in the first column.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
MARK = "<!-- below this line: python terraform/docs.py -->"


def readmes() -> list[Path]:
    """One for each module and environment, whether it is there or not."""
    return [folder / "README.md" for folder in sorted([*HERE.glob("modules/*/"), *HERE.glob("envs/*/")])]


def rendered(readme: Path) -> str:
    """The README with the tables that its folder's files call for."""
    prose = readme.read_text().partition(MARK)[0].rstrip() if readme.exists() else f"# {readme.parent.name}"
    return f"{prose}\n\n{MARK}\n\n{_inputs(readme.parent)}\n{_outputs(readme.parent)}"


def _inputs(folder: Path) -> str:
    rows = []
    for name, block in _blocks(folder, "variable"):
        kind = _squeezed(_argument(block, "type") or "any")
        default = _argument(block, "default")
        shown = "required" if default is None else f"`{_squeezed(default)}`"
        rows.append(f"| `{name}` | {_description(block)} | `{kind}` | {shown} |")
    return "\n".join(["| Input | | Type | Default |", "|---|---|---|---|", *rows, ""])


def _outputs(folder: Path) -> str:
    rows = [f"| `{name}` | {_description(block)} |" for name, block in _blocks(folder, "output")]
    return "\n".join(["| Output | |", "|---|---|", *rows, ""])


def _blocks(folder: Path, kind: str) -> list[tuple[str, str]]:
    text = "\n".join(path.read_text() for path in sorted(folder.glob("*.tf")))
    return re.findall(rf'^{kind} "(\w+)" \{{\n(.*?)^\}}', text, flags=re.MULTILINE | re.DOTALL)


def _argument(block: str, name: str) -> str | None:
    """An argument's text: the rest of its line, and what is indented deeper, with the closing bracket."""
    found = re.search(rf"^  {name} *= (.*(?:\n(?:    .*|  [)\]}}]+)$)*)", block, flags=re.MULTILINE)
    return found[1] if found else None


def _description(block: str) -> str:
    description = _argument(block, "description")
    assert description, f"a variable or output has no description:\n{block}"
    return description.strip().strip('"').replace("|", "\\|")


def _squeezed(text: str) -> str:
    """A value on one line; the fields of an object, which stand on lines of their own, with commas between them."""
    lines = [re.sub(r" +", " ", line.strip()) for line in text.splitlines()]
    joined = "".join(f"{line}, " if not line.endswith("{") else line for line in lines)
    return joined.replace(", }", "}").rstrip(", ")


def main() -> int:
    """Rewrite or check every README."""
    stale = [readme for readme in readmes() if not readme.exists() or readme.read_text() != rendered(readme)]
    if "--check" in sys.argv[1:]:
        for readme in stale:
            print(f"{readme} is out of date; run `python terraform/docs.py`")
        return 1 if stale else 0
    for readme in stale:
        readme.write_text(rendered(readme))
    return 0


if __name__ == "__main__":
    sys.exit(main())
