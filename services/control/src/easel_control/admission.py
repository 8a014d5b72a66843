"""From a file's text to what a row needs: admission, sources, secrets, sealing.

Everything wrong comes in one answer, as far as it can be looked at. Reads disks; writes nothing.
"""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.errors import FieldError, InvalidInput
from easel_contracts.spec import RevisionSpec
from easel_control.decide.admit import Admitted, admit_document, parse, text_of
from easel_control.decide.change import Content
from easel_control.decide.document import Document, same
from easel_control.decide.merge import laid_over, merged, redacted, with_kept_secrets, with_values
from easel_control.decide.pins import with_found
from easel_control.decide.releases import Laid
from easel_control.decide.secrets import RevisionSecrets
from easel_control.environment import Environments
from easel_control.model import RevisionRow, ServiceRow
from easel_control.sources import changed_sources, digests
from easel_control.store import Store
from easel_control.token_store import TokenStore
from easel_control.vault import Vault
from easel_kit.db import Connection


class Prepared(Struct, frozen=True, kw_only=True):
    """An admitted file, ready to be written."""

    name: str
    content: Content
    secrets: RevisionSecrets


class Admission:
    """Admits files for new and for existing services."""

    def __init__(
        self, vault: Vault, environments: Environments, store: Store, tokens: TokenStore, code_dir: Path, *,
        sees_paths: bool,
    ) -> None:  # fmt: skip
        self._vault, self._environments, self._store, self._tokens = vault, environments, store, tokens
        self._code_dir, self._sees_paths = code_dir, sees_paths

    async def new(self, workspace: str, text: str) -> Prepared:
        """What a file for a new service asks for; raises InvalidInput with everything wrong."""
        return await self._prepared(workspace, parse(text))

    async def cloned(self, row: ServiceRow, new_name: str, text: str) -> Prepared:
        """What a copy of a service asks for: its configuration and environment under another name, `text` laid over."""
        stored = self.config_of(row)
        document = with_kept_secrets(merged(stored, parse(text or "{}")), stored, login=False)
        metadata = document.value.get("metadata")
        if isinstance(metadata, dict):
            if metadata.get("name") not in (row.name, new_name):
                raise InvalidInput("the copy has two names", (FieldError(
                    path="metadata.name", code="CONFLICT", message=f"new_name is {new_name}",
                    hint="leave metadata.name out"),))  # fmt: skip
            document = replace(document, value={**document.value, "metadata": {**metadata, "name": new_name}})
        return await self._prepared(row.workspace, document)

    async def _prepared(self, workspace: str, document: Document) -> Prepared:
        admitted, spec = await self._sound(document)
        token = admitted.token or generated_token()
        content = self._content(
            workspace, admitted, spec, token_sealed=self.seal_token(workspace, admitted.name, token)
        )
        return Prepared(name=admitted.name, content=content, secrets=admitted.secrets)

    async def changed(self, row: ServiceRow, text: str, update_type: str) -> Prepared:
        """What a service's configuration becomes by an update; raises InvalidInput with everything wrong."""
        stored = self.config_of(row)
        document = parse(text)
        if update_type == "merge":
            document = merged(stored, document)
        elif update_type == "replace":
            document = _named(document, row.name)
        else:
            raise InvalidInput(f"update_type {update_type!r} is not allowed; merge or replace is")
        admitted, spec = await self._sound(with_kept_secrets(document, stored, login=update_type == "replace"))
        if admitted.name != row.name:
            raise InvalidInput("a service cannot be renamed", (FieldError(
                path="metadata.name", code="OUT_OF_RANGE", message=f"it is {admitted.name}, the service is {row.name}",
                hint="leave the name out, or create another service"),))  # fmt: skip
        token = admitted.token
        if token is not None and token == self.token_of(row):
            token = None
        if token is not None and (errors := await self._tokens.refused("service", row.workspace, row.name, token)):
            raise refusal(errors)
        revision = await self._store.revision(row.workspace, row.name, row.revision.number)
        assert revision is not None
        content = self._content(
            row.workspace, admitted, spec,
            token_sealed=None if token is None else self.seal_token(row.workspace, row.name, token),
            config_changed=not same(_but_instance(stored), _but_instance(admitted.config)),
            secrets_changed=self.secrets_of(revision) != admitted.secrets,
        )  # fmt: skip
        return Prepared(name=row.name, content=content, secrets=admitted.secrets)

    def config_of(self, row: ServiceRow) -> dict[str, Any]:
        """The stored configuration with its secrets, without token."""
        found: dict[str, Any] = json.loads(self._vault.open(f"config/{row.workspace}/{row.name}", row.config_sealed))
        return found

    def token_of(self, row: ServiceRow) -> str:
        """The service's token."""
        return self._vault.open(f"token/{row.workspace}/{row.name}", row.token_sealed).decode()

    def seal_token(self, workspace: str, name: str, token: str) -> bytes:
        """A service's token as its row keeps it."""
        return self._vault.seal(f"token/{workspace}/{name}", token.encode())

    def registry_login_of(self, row: ServiceRow) -> str:
        """The service's dockerAuth as it is now; empty: it has none."""
        login: str = self.config_of(row).get("dockerAuth", "")
        return login

    def with_instance(self, row: ServiceRow) -> ServiceRow:
        """The row with its configuration brought in line with its number of replicas, after a scale."""
        config = self.config_of(row)
        config["metadata"]["instance"] = row.instance
        return replace(
            row,
            config_sealed=self._seal_config(row.workspace, row.name, config),
            config_shown=text_of(redacted(config)),
        )

    def laid(self, row: ServiceRow, revision: RevisionRow) -> Laid:
        """The service's configuration as it is when it goes over to a revision that there has been."""
        config = laid_over(
            with_values(json.loads(revision.config_shown), self.secrets_of(revision)), self.config_of(row)
        )
        return Laid(
            config_sealed=self._seal_config(row.workspace, row.name, config), config_shown=text_of(redacted(config))
        )

    def secrets_of(self, revision: RevisionRow) -> RevisionSecrets:
        """Of its environments and git repositories. Never to be shown."""
        return self._environments.stored(revision.workspace, revision.name, revision.number, revision.env_sealed)

    async def looked_again(self, revision: RevisionRow) -> tuple[tuple[str, ...], tuple[FieldError, ...]]:
        """(what may differ from when the revision was admitted, in sentences; what it needs and is gone)."""
        spec = revision.spec
        now, gone = await digests(spec, self._code_dir, sees_paths=self._sees_paths)
        told = changed_sources(revision.number, spec.sources, with_found(now, spec.sources))
        return told, (*gone, *self._environments.missing(self.secrets_of(revision)))

    async def _sound(self, document: Document) -> tuple[Admitted, RevisionSpec]:
        admitted = admit_document(document)
        if not isinstance(admitted, Admitted):
            raise refusal(admitted)
        sources, missing = await digests(admitted.revision, self._code_dir, sees_paths=self._sees_paths)
        errors = (*missing, *self._environments.missing(admitted.secrets))
        if errors:
            raise refusal(errors)
        return admitted, replace(admitted.revision, sources=sources)

    def _content(
        self, workspace: str, admitted: Admitted, spec: RevisionSpec, *, token_sealed: bytes | None,
        config_changed: bool = True, secrets_changed: bool = True,
    ) -> Content:  # fmt: skip
        return Content(
            revision=spec, instance=admitted.instance, autoscaling=admitted.autoscaling, rolling=admitted.rolling,
            token_sealed=token_sealed, secrets_changed=secrets_changed,
            config_sealed=self._seal_config(workspace, admitted.name, admitted.config),
            config_shown=text_of(redacted(admitted.config)), config_changed=config_changed, labels=admitted.labels,
            workspace_id=admitted.workspace_id, gateway=admitted.gateway, group=admitted.group,
        )  # fmt: skip

    def _seal_config(self, workspace: str, name: str, config: dict[str, Any]) -> bytes:
        return self._vault.seal(f"config/{workspace}/{name}", text_of(config).encode())

    def seal_secrets(self, row: ServiceRow, secrets: RevisionSecrets) -> bytes:
        """The secrets of the row's revision as they are stored."""
        return self._environments.seal(row.workspace, row.name, row.revision.number, secrets)


def refusal(errors: tuple[FieldError, ...]) -> InvalidInput:
    """One answer with all errors."""
    count = f"{len(errors)} things are" if len(errors) > 1 else "one thing is"
    lines = "; ".join(f"{e.path or 'the file'}: {e.message}" for e in errors[:3])
    more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""
    return InvalidInput(f"{count} wrong with the service.json: {lines}{more}", errors, hint=errors[0].hint)


def generated_token() -> str:
    """As EAS makes them: base64 of 40 hexadecimal characters."""
    return base64.b64encode(secrets.token_hex(20).encode()).decode()


def _named(document: Document, name: str) -> Document:
    """A whole configuration may leave the name out: the request says it."""
    metadata = document.value.get("metadata", {})
    if not isinstance(metadata, dict) or "name" in metadata or not document.value:
        return document
    return replace(document, value={**document.value, "metadata": {**metadata, "name": name}})


def _but_instance(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "metadata": {k: v for k, v in config["metadata"].items() if k != "instance"}}


async def revisions_count(connection: Connection, row: ServiceRow) -> int:
    """The highest revision number there has been."""
    number = await connection.fetchval(
        "SELECT max(number) FROM revisions WHERE workspace = $1 AND name = $2", row.workspace, row.name
    )
    return int(number or 0)
