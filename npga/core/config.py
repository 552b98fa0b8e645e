"""The one door for settings: schema (frozen dataclass) + configs/*.yaml + overrides, by hydra.

Settings reach the code as the frozen dataclass itself; no DictConfig leaves this file.
"""

import dataclasses
import difflib
import re
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import npga
from npga.core.errors import ConfigError

Schema = TypeVar("Schema")


def knob(default: Any, help: str) -> Any:  # noqa: ANN401  dataclass fields have any type
    """A dataclass field with the text that ``--help`` shows; lists and dicts are copied."""
    if isinstance(default, list | dict) or dataclasses.is_dataclass(default):
        return dataclasses.field(default_factory=lambda: _fresh(default), metadata={"help": help})
    return dataclasses.field(default=default, metadata={"help": help})


def _fresh(default: Any) -> Any:  # noqa: ANN401
    return default.copy() if isinstance(default, list | dict) else default


def configs_folder() -> Path:
    """The folder of yaml files: inside the installed package, or beside it in a checkout."""
    package = Path(npga.__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def compose_config(schema: type[Schema], name: str, overrides: list[str]) -> Schema:
    """The settings of command ``name``: schema, then configs/<name>.yaml, then ``overrides``.

    Raises ConfigError (two lines) for an unknown key, a value of the wrong type or range, a
    missing mandatory value, or an override that cannot be parsed.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    node = OmegaConf.structured(schema)
    _unlock(node)
    ConfigStore.instance().store(name=f"{name}_schema", node=node)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(configs_folder().absolute()), version_base="1.3"):
            composed = compose(config_name=name, overrides=[_quoted(o) for o in overrides])
        return OmegaConf.to_object(composed)  # pyright: ignore[reportReturnType]
    except ConfigError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError, TypeError, AttributeError) as error:
        raise _explained(error, schema, name, overrides) from None


def _unlock(node: Any) -> None:  # noqa: ANN401  omegaconf containers
    """Frozen schemas refuse every override; clear that flag, the built object stays frozen."""
    from omegaconf import DictConfig, OmegaConf

    OmegaConf.set_readonly(node, None)
    if isinstance(node, DictConfig) and not node._is_missing() and not node._is_none():
        for key in node:
            child = node._get_node(key)
            if isinstance(child, DictConfig):
                _unlock(child)


def _quoted(override: str) -> str:
    """Quote a plain value that hydra's grammar would stumble over (names with + or =, paths)."""
    key, equals, value = override.partition("=")
    plain = re.fullmatch(r"[^\[\]{}'\",]*[+=:() ~][^\[\]{}'\",]*", value)
    if equals and plain and not value.startswith("${"):
        return f"{key}='{value}'"
    return override


def _explained(error: Exception, schema: type, name: str, overrides: list[str]) -> ConfigError:
    """The two lines for what hydra or omegaconf refused."""
    cause = error.__cause__ or error.__context__
    reason = str(error).splitlines()[0]
    if cause is not None and str(cause).splitlines()[:1] not in ([], [reason]):
        reason = f"{reason}: {str(cause).splitlines()[0]}"
    keys = known_keys(schema)
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key not in keys and key != "preset":
            close = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
            hint = f"Did you mean {close[0]}? " if close else ""
            return ConfigError(
                f"npga {_words(name)} has no setting {key!r} (given: {override}).",
                f"{hint}npga {_words(name)} --help lists the settings.",
            )
    if "issing mandatory" in reason:
        missing = re.search(r"value: '?([\w.]+)", reason)
        key = missing.group(1) if missing else "a setting"
        return ConfigError(
            f"npga {_words(name)} needs {key}=..., which was not given.",
            f"npga {_words(name)} --help says what it is.",
        )
    return ConfigError(
        f"npga {_words(name)}: {reason}.", f"npga {_words(name)} --help lists settings and types."
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def known_keys(schema: type, prefix: str = "") -> list[str]:
    """Every settable key of a schema, nested ones with dots."""
    keys: list[str] = []
    for field in dataclasses.fields(schema):
        keys.append(prefix + field.name)
        kind = field.type
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            keys += known_keys(kind, f"{prefix}{field.name}.")
    return keys


def describe(schema: type, prefix: str = "") -> list[tuple[str, str, str]]:
    """(key, default, help) of every setting, for ``--help``."""
    rows: list[tuple[str, str, str]] = []
    for field in dataclasses.fields(schema):
        kind = field.type
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            rows += describe(kind, f"{prefix}{field.name}.")
            continue
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        shown = default.value if isinstance(default, Enum) else default
        if isinstance(default, list):
            shown = f"[{', '.join(map(str, as_plain(default)))}]"
        rows.append((prefix + field.name, str(shown), field.metadata.get("help", "")))
    return rows


def as_plain(config: Any) -> Any:  # noqa: ANN401  any dataclass
    """A dataclass as JSON-able values, for fingerprints and protocols."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: as_plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Enum):
        return config.value
    if isinstance(config, list | tuple):
        return [as_plain(v) for v in config]
    if isinstance(config, dict):
        return {str(k): as_plain(v) for k, v in config.items()}
    return config
