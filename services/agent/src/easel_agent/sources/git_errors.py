"""Says what went wrong with a repository, and what to change. Never with a server's own text: it may hold anything."""

from __future__ import annotations

import socket

import urllib3.exceptions as http
from dulwich.client import HTTPProxyUnauthorized, HTTPUnauthorized
from dulwich.errors import GitProtocolError, NotGitRepository

from easel_agent.sources.checkout import BadTree
from easel_agent.sources.git_client import AmbiguousCommit, NoSuchBranch, NoSuchCommit, NotARepository, TooLarge
from easel_agent.sources.model import CannotFetch, chain
from easel_agent.sources.threads import TookTooLong
from easel_contracts.spec import GitSource

LATER = "This may pass; the node tries to reach it directly, so its network must allow that."


def explain(
    at: str, source: GitSource, error: Exception, *, login: bool, timeout_s: float, max_mib: int
) -> CannotFetch:
    """The refusal for what dulwich, urllib3 or this package raised."""
    what, hint, temporary = (
        _content(source, error, timeout_s, max_mib) or _answered(error, login) or _network(error)
        or (f"git's protocol broke off ({type(error).__name__})", "This may pass.", True)
    )  # fmt: skip
    return CannotFetch(f"{at}: {source.repo} cannot be fetched: {what}. {hint}", temporary=temporary)


Said = tuple[str, str, bool]


def _content(source: GitSource, error: Exception, timeout_s: float, max_mib: int) -> Said | None:
    match error:
        case NoSuchBranch() if source.branch:
            return f"it has no branch or tag {source.branch!r}", "Correct git.branch.", False
        case NoSuchBranch():
            return "it has no commit yet, or no default branch", "Name one with git.branch.", False
        case NoSuchCommit():
            where = f"not in branch {source.branch!r}" if source.branch else "not in any branch"
            return (f"the commit is not there, or {where}",
                    "Check git.commit; after a forced push an old commit is gone: deploy again.", False)  # fmt: skip
        case AmbiguousCommit():
            return "several commits begin like git.commit", "Give more of its digits.", False
        case TookTooLong():
            return (f"it took longer than {timeout_s:.0f} s", "This may pass; a smaller repository, or a larger "
                    "EASEL_AGENT_GIT_TIMEOUT_S on the node, helps where it does not.", True)  # fmt: skip
        case TooLarge():
            return (f"it is larger than {max_mib} MiB",
                    "Keep large files in an object store, or raise EASEL_AGENT_GIT_MAX_MIB on the node.",
                    False)  # fmt: skip
        case BadTree():
            return f"its tree cannot be written: {error}", "Correct the repository.", False
    return None


def _answered(error: Exception, login: bool) -> Said | None:
    match error:
        case HTTPUnauthorized() if login:
            return ("the server refuses the user name and password",
                    "Correct git.username and git.password (often an access token that may have expired).",
                    False)  # fmt: skip
        case HTTPUnauthorized():
            return ("the server asks for a user name and password",
                    "Give git.username and git.password, or check the address: many servers ask also where there is "
                    "no such repository.", False)  # fmt: skip
        case HTTPProxyUnauthorized():
            return "the node's proxy asks for a login", "Set it in the node's https_proxy.", False
        case NotGitRepository():
            return "the server has no such repository (404)", "Check git.repo, and that the user may read it.", False
        case NotARepository():
            return "what answers there is not git", "Give the address that `git clone https://…` takes.", False
        case GitProtocolError():
            text = str(error)
            if "http resp 403" in text:
                return "the server forbids it (403)", "The user needs the right to read this repository.", False
            if "http resp 5" in text or "http resp 429" in text:
                return f"the server has trouble ({text.split('http resp ')[1][:3]})", "This may pass.", True
    return None


def _network(error: Exception) -> Said | None:
    for found in chain(error):
        match found:
            case http.NameResolutionError() | socket.gaierror():
                return "the host's name is not known on the node", "Check git.repo, or the node's DNS.", True
            case http.SSLError():
                return ("its certificate is not trusted on the node",
                        "Name your own authority's file in the node's SSL_CERT_FILE.", False)  # fmt: skip
            case http.NewConnectionError() | ConnectionRefusedError():
                return "nobody accepts connections there", LATER, True
            case http.ConnectTimeoutError() | http.ReadTimeoutError():
                return "the host does not answer in time", LATER, True
            case http.ProtocolError() | ConnectionError():
                return "the connection was lost", "This may pass.", True
    return None
