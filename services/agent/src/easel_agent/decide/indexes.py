"""Decides uv's settings from pip's, so that an index configured for pip on the machine is used for replicas too."""

from __future__ import annotations

from collections.abc import Mapping

PASSED = ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
          "http_proxy", "https_proxy", "no_proxy", "all_proxy")  # fmt: skip
TRUE = frozenset({"1", "true", "yes", "on"})


def uv_environment(env: Mapping[str, str], pip_config: Mapping[str, str]) -> dict[str, str]:
    """Variables for `uv pip install`.

    `env` is the agent's environment, `pip_config` pip's configuration files merged (`index-url` → value). Precedence
    as pip has it: PIP_* variables over files; and uv's own variables, when set, over both.
    """
    pip = pip_settings(env, pip_config)
    # pip takes the best version over all indexes, uv by default the first index that has the name.
    result = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    spellings = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "trusted-host": "UV_INSECURE_HOST",
                 "cert": "SSL_CERT_FILE"}  # fmt: skip
    for name, variable in spellings.items():
        if pip.get(name, "").strip():
            result[variable] = " ".join(pip[name].split())
    if pip.get("find-links", "").strip():
        result["UV_FIND_LINKS"] = ",".join(pip["find-links"].split())
    if pip.get("timeout", pip.get("default-timeout", "")).isdigit():
        result["UV_HTTP_TIMEOUT"] = pip.get("timeout", pip.get("default-timeout", ""))
    result |= {name: value for name, value in env.items() if name in PASSED or name.startswith("UV_")}
    # Set for the agent's own development environment, not meant for replicas.
    for name in ("UV_PROJECT_ENVIRONMENT", "UV_PROJECT", "UV_CACHE_DIR", "UV_PYTHON"):
        result.pop(name, None)
    return result


def arguments(env: Mapping[str, str], pip_config: Mapping[str, str]) -> tuple[str, ...]:
    """Options of `uv pip install` for which uv has no variable: a machine without an index is asked for none."""
    return ("--no-index",) if pip_settings(env, pip_config).get("no-index", "").strip().lower() in TRUE else ()


def local_paths(settings: Mapping[str, str]) -> tuple[str, ...]:
    """Directories and files that these settings name, which the installer must be able to see."""
    words = " ".join(settings.get(name, "") for name in ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_EXTRA_INDEX_URL"))
    found = words.split() + settings.get("UV_FIND_LINKS", "").split(",") + [settings.get("SSL_CERT_FILE", "")]
    return tuple(word.removeprefix("file://") for word in found if word.startswith(("/", "file:///")))


def pip_settings(env: Mapping[str, str], pip_config: Mapping[str, str]) -> dict[str, str]:
    """pip's settings by their long names (`index-url`): variables win over files."""
    variables = {name[4:].lower().replace("_", "-"): value for name, value in env.items() if name.startswith("PIP_")}
    return {**pip_config, **variables}
