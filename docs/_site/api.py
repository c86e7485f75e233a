"""The reference of the Python API: every public name of `toolkit`, and the error tree, from their docstrings."""

from __future__ import annotations

import inspect

HEAD = """# Python API

`import toolkit` imports numpy only; each name below imports what it needs when it is first used.

```python
import toolkit

with toolkit.load("engines/built/fashion-resnet18-int8") as runner:
    print(runner.classify(["pictures/boot.png"])[0][0].label)
```

"""
MEMBERS = {"Recipe": "of, load, parse, resolve, to_dict", "Manifest": ""}  # all others: what has a docstring


def api() -> str:
    """The whole page, in Markdown."""
    import toolkit
    from toolkit import errors

    names = [name for name in toolkit.__all__ if name != "ToolkitError"]
    functions = [name for name in names if inspect.isroutine(getattr(toolkit, name))]
    classes = [name for name in names if name not in functions]
    tree = [name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, errors.ToolkitError)]
    parts = [HEAD, "## Functions\n", *(_entry(f".. autofunction:: toolkit.{name}") for name in functions), "## Classes\n"]
    for name in classes:
        members = MEMBERS.get(name)
        option = "   :members:" if members is None else f"   :members: {members}" if members else ""
        parts.append(_entry(f".. autoclass:: toolkit.{name}\n{option}"))
    parts.append(
        "## Errors\n\nEach is one line that says what, where, and the next command. Exit codes: [Exit codes](exit-codes.md).\n"
    )
    parts += [
        f"```text\n{(errors.__doc__ or '').split(chr(10), 2)[2].strip()}\n```\n",
        _entry(".. autoclass:: toolkit.errors.ToolkitError"),
    ]
    return "\n".join(parts) + f"\nThe others add nothing to it: {', '.join(f'`{name}`' for name in tree[1:])}.\n"


def _entry(directive: str) -> str:
    return f"```{{eval-rst}}\n{directive}\n```\n"
