"""The calls by which people change what decides: the policy versions and the lists of a store.

They run on a thread of their own, so that no decision waits while a policy is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from features.events import ENTITIES
from rules.changes import changes
from rules.condition import nearest
from rules.source import LONGEST
from serving import listing, policies
from serving.desk import Desk
from serving.envelope import JSON, ApiError
from serving.roles import Permission
from serving.store.keys import ApiKey
from serving.store.lists import ListName
from serving.store.policies import PolicyAct, PolicyVersion
from serving.wire import (
    InvalidRequest,
    Problem,
    Text,
    Time,
    Wire,
    did_you_mean,
    load_object,
    shown,
    validate,
)

if TYPE_CHECKING:
    from serving.api import Api

DOCUMENTS: Final = (JSON, "application/yaml", "application/x-yaml", "text/yaml")
"""What a policy document may be sent as; JSON is YAML too."""

MOST_ENTRIES: Final = 1_000
"""How many list entries one answer holds at most."""

LISTING: Final = ("entity", "expired", "reveal", "limit", "after")
"""What a list is asked for by."""

REVIEW: Final = ("review", "admin")
ADMIN: Final = ("admin",)


class NoteBody(Wire):
    """Why something is done."""

    note: Text | None = None


class EntityBody(Wire):
    """An entity, as it is taken off a list."""

    entity: Text
    id: Text


class EntryBody(EntityBody):
    """An entity, as it is put on a list; ``expiresAt`` as every time on the wire."""

    reason: Text
    expires_at: Time | None = None


class Management:
    """The calls about policies and lists, over the desks of an `Api`."""

    def __init__(self, api: Api, *, second_person: bool) -> None:
        self._api = api
        self._second_person = second_person

    async def _call(
        self, request: Request, scopes: tuple[str, ...],
        work: Callable[[Desk, ApiKey, int], Mapping[str, Any]], holder: Permission = "read",
    ) -> Response:  # fmt: skip
        """Answer with what ``work`` gives of the desk, the key that asks and the present."""
        return await self._api.manage(request, scopes, work, holder)

    # --- policies ----------------------------------------------------------------------------

    async def policies(self, request: Request) -> Response:
        """Every version and every act that put one in force, the newest first."""

        def work(desk: Desk, key: ApiKey, at: int) -> Mapping[str, Any]:
            versions, acts = desk.store.policy_versions(), desk.store.policy_acts()
            active = desk.store.active_policy()
            named = {kept.hash: kept.version for kept in versions}
            return {
                "active": active.version if active else None,
                "policies": [_version(kept, active) for kept in reversed(versions)],
                "acts": [_act(act, named) for act in reversed(acts)],
            }

        return await self._call(request, REVIEW, work)

    async def policy(self, request: Request) -> Response:
        """One version with its document, as it was given."""
        version = request.path_params["version"]

        def work(desk: Desk, key: ApiKey, at: int) -> Mapping[str, Any]:
            kept = policies.kept_version(desk.store, version)
            return {**_version(kept, desk.store.active_policy()), "text": kept.text}

        return await self._call(request, REVIEW, work)

    async def propose(self, request: Request) -> Response:
        """Keep the body, a policy document in YAML or JSON, as a version that does not act yet.

        ``?note=`` says why; without it the document's own note does.
        """
        body = await self._api.body(request, DOCUMENTS, at_most=LONGEST)

        def work(desk: Desk, key: ApiKey, at: int) -> Mapping[str, Any]:
            note = validated(NoteBody, dict(request.query_params)).note
            try:
                text = body.decode()
            except UnicodeDecodeError as error:
                raise InvalidRequest([Problem("body", f"must be UTF-8: {error.reason}")]) from None
            if self._second_person and key.name is None:
                policies.refuse_unnamed(desk.store, None, key_id=key.id, at=at)
            person = policies.person_of(key.name, key.id)
            kept = policies.propose(
                desk.store, text, author=person, note=note or None, at=at, via=f"key:{key.id}"
            )
            active = desk.store.active_policy()
            told = []
            if active is not None:
                before, after = policies.loaded(active), policies.loaded(kept)
                told = [change.to_text() for change in changes(before, after)]
            return {**_version(kept, active), "changes": told}

        return await self._call(request, ADMIN, work, "policies")

    async def activate(self, request: Request) -> Response:
        """Put a version in force; the body may say why, as ``note``."""
        version = request.path_params["version"]
        body = await self._api.body(request)

        def work(desk: Desk, key: ApiKey, at: int) -> Mapping[str, Any]:
            note = validated(NoteBody, load_object(body)).note if body.strip() else None
            if self._second_person and key.name is None:
                policies.refuse_unnamed(desk.store, version, key_id=key.id, at=at)
            person = policies.person_of(key.name, key.id)
            act = policies.activate(
                desk.store, version, actor=person, at=at, second_person=self._second_person,
                note=note, via=f"key:{key.id}",
            )  # fmt: skip
            named = {kept.hash: kept.version for kept in desk.store.policy_versions()}
            return _act(act, named)

        return await self._call(request, ADMIN, work, "policies")

    # --- lists -------------------------------------------------------------------------------

    async def entries(self, request: Request) -> Response:
        """The entries in force, the newest first, by pseudonym.

        ``?entity=`` one kind, ``?expired=true`` those that have expired too, ``?limit=`` so many,
        ``?after=`` the ``next`` of the page before, ``?reveal=true`` with original ids, which is
        audited.
        """

        def work(desk: Desk, key: ApiKey, at: int) -> Mapping[str, Any]:
            name, query = _list(request), Query(request.query_params)
            limit, entity, after = query.limit(), query.entity(), query.after()
            revealed, expired = query.flag("reveal"), query.flag("expired")
            query.refuse()
            how: Any = {"entity": entity, "in_force_at": None if expired else at,
                        "limit": limit + 1, "after": after}  # fmt: skip
            found = desk.store.list_entries(name, **how)
            following = found[limit - 1].place if len(found) > limit else None
            originals: dict[str, str | None] = {}
            if revealed:
                person = policies.person_of(key.name, key.id)
                shown_to = listing.shown(
                    desk.store, name, **{**how, "limit": limit}, actor=person, at=at,
                    via=f"key:{key.id}",
                )  # fmt: skip
                originals = {entry["value"]: entry["id"] for entry in shown_to}
            return {
                "entries": [
                    {"entity": e.entity, "value": e.value, "reason": e.reason, "author": e.author,
                     "createdAt": e.created_at, "expiresAt": e.expires_at,
                     **({"id": originals.get(e.value)} if revealed else {})}
                    for e in found[:limit]
                ],
                "next": f"{following[0]}.{following[1]}" if following else None,
            }  # fmt: skip

        holder: Permission = "reveal" if request.query_params.get("reveal") == "true" else "read"
        return await self._call(request, REVIEW, work, holder)

    async def put_on_list(self, request: Request) -> Response:
        """Put an entity on a list, or renew its entry; it counts from the next decision on."""
        body = await self._api.body(request)

        def work(desk: Desk, key: ApiKey, at: int) -> Mapping[str, Any]:
            name, given = _list(request), validated(EntryBody, load_object(body))
            try:
                entry = listing.Entry.of(given.entity, given.id, given.reason, given.expires_at, at)
            except InvalidRequest as error:
                raise InvalidRequest(map(_on_the_wire, error.problems)) from None
            [kept] = listing.put(
                desk.store, name, [entry], author=policies.person_of(key.name, key.id), at=at,
                via=f"key:{key.id}",
            )  # fmt: skip
            return {"list": name, "entity": kept.entity, "id": entry.original, "value": kept.value,
                    "reason": kept.reason, "author": kept.author, "createdAt": kept.created_at,
                    "expiresAt": kept.expires_at}  # fmt: skip

        return await self._call(request, REVIEW, work, "lists")

    async def take_off_list(self, request: Request) -> Response:
        """Take an entity off a list: ``?entity=&id=``, or a body that says both.

        Many clients send no body with DELETE. An id in an address may be logged on its way, so
        what names a person is better sent in a body.
        """
        body = await self._api.body(request)
        names = {"entity", "id"}.intersection(request.query_params)
        query = dict(request.query_params) if names or not body.strip() else {}

        def work(desk: Desk, key: ApiKey, at: int) -> Mapping[str, Any]:
            name = _list(request)
            if not (query or body.strip()):
                message = "is required, in the query or in a JSON body"
                raise InvalidRequest([Problem(field, message) for field in ("entity", "id")])
            if query and body.strip():
                message = "must be empty where the query names the entity: say it once"
                raise InvalidRequest([Problem("body", message)])
            given = (
                validated(EntityBody, query) if query else validate(EntityBody, load_object(body))
            )
            was_there = listing.take_off(
                desk.store, name, given.entity, given.id,
                actor=policies.person_of(key.name, key.id), at=at, via=f"key:{key.id}",
            )  # fmt: skip
            if not was_there:
                told = f"{given.entity} {shown(given.id)!r} is not on the {name} list"
                raise ApiError(404, f"id: {told}")
            return {"list": name, "entity": given.entity, "id": given.id}

        return await self._call(request, REVIEW, work, "lists")


Given = TypeVar("Given", bound=Wire)


def validated(model: type[Given], raw: Mapping[str, Any]) -> Given:
    """As `validate`, and what the model does not know is refused.

    These calls are typed by people: an ``expires_at`` passed over would be an entry for ever.
    """
    known = [str(field.alias) for field in model.model_fields.values()]
    return validate(model, raw, _unknown(raw, known))


def _unknown(given: Mapping[str, Any], known: Sequence[str]) -> list[Problem]:
    """A problem for each name that is none of those known."""
    nearest_of = {name.lower().replace("_", ""): name for name in known}
    problems = []
    for name in given.keys() - set(known):
        near = get_close_matches(name.lower().replace("_", ""), nearest_of, 1)
        hint = f" (did you mean {nearest_of[near[0]]}?)" if near else ""
        told = f"is not known here, expected one of {', '.join(known)}{hint}"
        problems.append(Problem(shown(name), told, shown(given[name])))
    return sorted(problems, key=str)


def _list(request: Request) -> ListName:
    name: Literal["block", "allow"]
    for name in ("block", "allow"):
        if request.path_params["name"] == name:
            return name
    got = request.path_params["name"]
    hint = did_you_mean(got, ("block", "allow"))
    raise ApiError(404, f"list: expected block or allow, got {got!r}{hint}")


def _on_the_wire(problem: Problem) -> Problem:
    if problem.field == "expires_at":
        return Problem("expiresAt", problem.message, problem.value)
    return problem


def _version(kept: PolicyVersion, active: PolicyVersion | None) -> dict[str, Any]:
    return {
        "version": kept.version,
        "hash": kept.hash,
        "author": kept.author,
        "note": kept.note,
        "createdAt": kept.created_at,
        "active": active is not None and active.hash == kept.hash,
    }


def _act(act: PolicyAct, named: Mapping[str, str]) -> dict[str, Any]:
    return {
        "act": act.act,
        "version": named[act.hash],
        "hash": act.hash,
        "replaced": named[act.replaced] if act.replaced else None,
        "actor": act.actor,
        "note": act.note,
        "at": act.at,
    }


class Query:
    """The query of a listing; what is wrong with it is said all at once by `refuse`."""

    def __init__(self, given: Mapping[str, str], known: Sequence[str] = LISTING) -> None:
        self._given, self._known = given, known
        self._problems: list[Problem] = []

    def given(self, name: str) -> str | None:
        """What is given, as it stands; what no text of a store can hold is wrong."""
        given = self._given.get(name)
        if given is not None and "\0" in given:
            self.add(name, "must be text without NUL", given)
            return None
        return given

    def one_of(self, name: str, choices: Sequence[str]) -> str | None:
        """The one of several that is asked for."""
        given = self._given.get(name)
        if given is not None and given not in choices:
            hint = did_you_mean(given, choices)
            self.add(name, f"must be one of {', '.join(choices)}{hint}", given)
            return None
        return given

    def refuse(self) -> None:
        """Raise what is wrong so far, if anything is, and what no listing is asked for."""
        self._problems += _unknown(self._given, self._known)
        if self._problems:
            raise InvalidRequest(self._problems)

    def limit(self) -> int:
        """How many entries are asked for."""
        given = self._given.get("limit", "100")
        if given.isascii() and given.isdigit() and 1 <= int(given[:9]) <= MOST_ENTRIES:
            return int(given)
        self.add("limit", f"must be a whole number from 1 to {MOST_ENTRIES}", given)
        return 1

    def entity(self) -> str | None:
        """The one kind that is asked for."""
        given = self._given.get("entity")
        if given is not None and given not in ENTITIES:
            known = ", ".join(ENTITIES)
            near = nearest(given, ENTITIES)
            hint = f" (did you mean {near}?)" if near else ""
            self.add("entity", f"must be one of {known}{hint}", given)
        return given

    def after(self) -> tuple[int, str] | None:
        """The place of the last entry of the page before."""
        given = self._given.get("after")
        if given is None:
            return None
        at, _, value = given.partition(".")
        if not (at.isascii() and at.isdigit() and value) or "\0" in value:
            self.add("after", "must be the next of the page before", given)
            return None
        return int(at[:18]), value

    def flag(self, name: str) -> bool:
        """Whether something is asked for."""
        given = self._given.get(name, "false")
        if given not in ("true", "false"):
            self.add(name, "must be true or false", given)
        return given == "true"

    def add(self, field: str, message: str, value: str) -> None:
        """Note what is wrong with a field."""
        self._problems.append(Problem(field, message, shown(value)))
