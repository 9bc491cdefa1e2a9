"""How every page is made: one environment of templates, in which all text is data.

What a template prints is escaped, whoever wrote it; a name it does not know is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from serving.language import ENGLISH, Language

TEMPLATES: Final = Path(__file__).parent / "templates"
"""The templates of the service, and the parts and the style that all pages share."""


def environment(*folders: Path, language: Language = ENGLISH) -> Environment:
    """Templates from ``folders`` and then `TEMPLATES`, which say things in ``language``.

    In a template ``say`` and ``say_of`` are those of `Language`, whose other methods ``language``
    has. ``breakable`` is a filter for long names.

    >>> page = environment().from_string("{{ say('by {who}', who=name) }}, {{ name|breakable }}")
    >>> page.render(name="<i>a_b")
    'by &lt;i&gt;a_b, &lt;i&gt;a_<wbr>b'
    """
    made = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= language.globals()
    made.filters["breakable"] = breakable
    return made


def breakable(name: str) -> Markup:
    """A long name that may be broken behind its underscores."""
    return Markup("_<wbr>").join(str(name).split("_"))
