"""The pages about the calls: /openapi.json and /docs, which needs nothing from elsewhere.

Both are made once, when they are first asked for. The page is the document written out: no script,
its one style sheet inside it and named by its hash in the page's Content-Security-Policy.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson
from jinja2 import Environment
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import Response

from serving.envelope import JSON

METHODS: Final = ("get", "post", "delete")


async def document(_: Request) -> Response:
    """The OpenAPI document."""
    return Response(await asyncio.to_thread(_document_text), media_type=JSON)


async def page(_: Request) -> Response:
    """The document as a page."""
    return Response(await asyncio.to_thread(_page_text), media_type="text/html",
                    headers={"Content-Security-Policy": POLICY})  # fmt: skip


@functools.cache
def _document() -> dict[str, Any]:
    from serving import api, openapi  # here, as the calls described are those of `serving.api`

    return openapi.document(api.CALLS)


@functools.cache
def _document_text() -> bytes:
    return orjson.dumps(_document())


@functools.cache
def _page_text() -> str:
    return render(_document())


def render(document: Mapping[str, Any]) -> str:
    """An OpenAPI document of ours as an HTML page."""
    calls: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, operations in document["paths"].items():
        for method in METHODS:
            if method in operations:
                told = operations[method]
                calls[told["tags"][0]].append({"method": method.upper(), "path": path, **told})
    return _TEMPLATE.render(document=document, calls=calls, style=Markup(STYLE))


# --- what the template uses --------------------------------------------------------------------


def in_markdown(text: str) -> Markup:
    """Paragraphs, and code between backticks, of a description.

    >>> in_markdown("Says `a<b`.\\n\\nNo more.")
    Markup('<p>Says <code>a&lt;b</code>.</p><p>No more.</p>')
    """
    made = "".join(f"<p>{escape(part)}</p>" for part in text.split("\n\n"))
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", made))


def kind_of(schema: Mapping[str, Any]) -> Markup:
    """What a schema takes, in a few words, with links to those that are named.

    >>> kind_of({"type": ["integer", "null"], "minimum": 0})
    Markup('integer or null')
    >>> kind_of({"type": "array", "items": {"$ref": "#/components/schemas/LineBody"}})
    Markup('array of <a href="#LineBody">LineBody</a>')
    >>> kind_of({"type": "array", "prefixItems": [{"type": "number"}, {"type": "string"}]})
    Markup('[number, string]')
    """
    if "title" in schema:
        return escape(schema["title"])
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return Markup('<a href="#{0}">{0}</a>').format(name)
    for several, word in (("anyOf", " or "), ("allOf", " with ")):
        parts = [kind_of(each) for each in schema.get(several, ()) if _says_kind(each, several)]
        if parts and "type" not in schema:
            return Markup(word).join(dict.fromkeys(parts))
    if "prefixItems" in schema:
        return Markup("[{}]").format(Markup(", ").join(map(kind_of, schema["prefixItems"])))
    if schema.get("type") == "array":
        return Markup("array of ") + kind_of(schema["items"])
    if "data" in schema.get("properties", {}):
        return Markup("data: ") + kind_of(schema["properties"]["data"])
    kinds = schema.get("type", "anything")
    return escape(kinds if isinstance(kinds, str) else " or ".join(kinds))


def _says_kind(schema: Mapping[str, Any], several: str) -> bool:
    """Whether a part tells a kind of its own: what only asks more of an object does not."""
    if several == "allOf":
        return "$ref" in schema
    return not schema.keys().isdisjoint(("type", "$ref", "anyOf", "allOf"))


def choices_of(schema: Mapping[str, Any]) -> str:
    """The words that a schema lists; of a long list the first."""
    inner = schema.get("items", schema)
    words = [str(word) for word in inner.get("enum", inner.get("examples", ())) if word is not None]
    if not words:
        return ""
    told = "one of" if "enum" in inner else "such as"
    return f"{told} {', '.join(words[:MOST_WORDS])}{', …' if len(words) > MOST_WORDS else ''}"


MOST_WORDS: Final = 16


def shown(value: Any) -> str:
    """An example as it is sent."""
    if isinstance(value, str):
        return value
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def scopes_of(security: list[Mapping[str, list[str]]]) -> list[str]:
    """The scopes of which one is enough."""
    return [*dict.fromkeys(scope for one in security for each in one.values() for scope in each)]


STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de;
  --page: #ffffff; --field: #f6f8fa; --link: #0550ae; --get: #0a5c36; --post: #0550ae;
  --delete: #a40e26; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9ea7b3; --line: #30363d;
  --page: #0d1117; --field: #161b22; --link: #79c0ff; --get: #56d364; --post: #79c0ff;
  --delete: #ff938a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; background: var(--page);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .25rem; }
h3 { font-size: 1rem; margin: 0; } h4 { font-size: .9rem; margin: 1rem 0 .25rem; }
p { margin: .4rem 0; } a { color: var(--link); }
code, pre, .path { font-family: ui-monospace, monospace; font-size: .88em; }
code { background: var(--field); border-radius: .25rem; padding: .1em .3em; }
pre { background: var(--field); border: 1px solid var(--line); border-radius: .4rem;
  margin: .4rem 0; max-height: 26rem; overflow: auto; overflow-wrap: normal; padding: .75rem; }
nav ul { columns: 20rem; list-style: none; margin: .5rem 0; padding: 0; }
nav li { break-inside: avoid; padding: .12rem 0; }
article { border: 1px solid var(--line); border-radius: .5rem; margin: .8rem 0; padding: .8rem 1rem;
  scroll-margin-top: 1rem; }
.method { display: inline-block; font-weight: 700; font-size: .8rem; min-width: 3.6rem; }
.GET { color: var(--get); } .POST { color: var(--post); } .DELETE { color: var(--delete); }
.soft { color: var(--soft); font-size: .9rem; }
.row { border-top: 1px solid var(--line); padding: .4rem 0; } .row p { margin: .1rem 0; }
summary { cursor: pointer; padding: .3rem 0; }
"""

POLICY: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src "
    f"'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
)
"""The page's Content-Security-Policy: its own style sheet, and nothing else at all."""

_ENVIRONMENT: Final = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
_ENVIRONMENT.filters.update(markdown=in_markdown, kind=kind_of, choices=choices_of, shown=shown,
                            scopes=scopes_of)  # fmt: skip
_TEMPLATE: Final = _ENVIRONMENT.from_string("""\
{% macro field(name, schema, note, description) %}
<div class="row">
<p><code>{{ name }}</code> <span class="soft">{{ schema | kind }}{{ note }}</span></p>
{% if description %}{{ description | markdown }}{% endif %}
{% if schema | choices %}<p class="soft">{{ schema | choices }}</p>{% endif %}
</div>
{% endmacro %}
{% macro content(found) %}
{% for media, one in found.items() %}
<p class="soft"><code>{{ media }}</code> {{ one.schema | kind }}</p>
{% for name, example in (one.examples or {}).items() %}
<details><summary>{{ example.summary or name }}</summary>
<pre tabindex="0">{{ example.value | shown }}</pre></details>
{% endfor %}
{% endfor %}
{% endmacro %}
{% macro address(call) %}
<span class="path"><span class="method {{ call.method }}">{{ call.method }}</span>
{{- call.path }}</span>
{% endmacro %}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ document.info.title }}: the calls</title>
<style>{{ style }}</style>
</head>
<body>
<header>
<h1>{{ document.info.title }}</h1>
{{ document.info.description | markdown }}
<p class="soft">OpenAPI {{ document.openapi }}: <a href="/openapi.json">/openapi.json</a></p>
</header>
<nav aria-label="Calls">
<ul>
{% for tag, found in calls.items() %}
{% for call in found %}
<li><a href="#{{ call.operationId }}">{{ address(call) }}</a></li>
{% endfor %}
{% endfor %}
<li><a href="#refusals">Refusals</a> · <a href="#schemas">Schemas</a></li>
</ul>
</nav>
<main>
{% for tag in document.tags %}
<h2>{{ tag.name | capitalize }}</h2>
{{ tag.description | markdown }}
{% for call in calls[tag.name] %}
<article id="{{ call.operationId }}">
<h3>{{ address(call) }}</h3>
<p><strong>{{ call.summary }}</strong>
{% if call.security %}
<span class="soft">scope {{ call.security | scopes | join(" or ") }}</span>
{% endif %}
</p>
{{ call.description | markdown }}
{% for one in call.parameters if one.name %}
{% if loop.first %}<h4>Parameters</h4>{% endif %}
{{ field(one.name, one.schema, ", in the " ~ one.in, one.description) }}
{% endfor %}
{% if call.requestBody %}
<h4>Body{{ "" if call.requestBody.required else ", if any" }}</h4>
{{ content(call.requestBody.content) }}
{% endif %}
<h4>Answer</h4>
<p>{{ call.responses["200"].description }}</p>
{{ content(call.responses["200"].content) }}
<p class="soft">Refusals:
{% for status in call.responses if status != "200" %}
<a href="#refusal-{{ status }}">{{ status }}</a>
{% endfor %}
</p>
</article>
{% endfor %}
{% endfor %}
<h2 id="refusals">Refusals</h2>
<p>All are an <a href="#ErrorBody">ErrorBody</a>.</p>
{% for status, refusal in document.components.responses.items() %}
<article id="refusal-{{ status }}">
<h3>{{ status }}</h3>
<p>{{ refusal.description }}</p>
{% for name in refusal.headers if name != "X-Request-Id" %}
<p class="soft">With <code>{{ name }}</code>.</p>
{% endfor %}
<pre tabindex="0">{{ refusal.content["application/json"].example | shown }}</pre>
</article>
{% endfor %}
<h2 id="schemas">Schemas</h2>
{% for name, schema in document.components.schemas.items() %}
<article id="{{ name }}">
<h3>{{ name }}</h3>
{% if schema.description %}{{ schema.description | markdown }}{% endif %}
{% for property, inner in (schema.properties or {}).items() %}
{{ field(property, inner, ", required" if property in (schema.required or []) else "",
         inner.description) }}
{% endfor %}
</article>
{% endfor %}
</main>
</body>
</html>
""")
