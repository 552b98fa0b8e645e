"""Typed tensor files: safetensors with a format name, a version and JSON metadata.

Nothing here unpickles. A file is written under a temporary name and renamed, so it is either
complete or absent.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from npga import __version__
from npga.core.errors import CheckpointError


def save_tensors(
    path: str | Path, tensors: dict[str, Tensor], *, format: str, version: int, meta: dict[str, Any]
) -> None:
    """Write ``tensors`` (any device) and ``meta`` (JSON-able) as one safetensors file.

    ``format`` names the type (``npga.track``), ``version`` its layout; both are checked on loading.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {
        "format": format,
        "version": str(version),
        "meta": json.dumps(meta, sort_keys=True),
        "npga": __version__,
    }
    partial = path.with_name(path.name + ".partial")
    clean = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    save_file(clean, partial, metadata=header)
    os.replace(partial, path)


def load_tensors(
    path: str | Path, *, format: str, version: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and metadata of a file that ``save_tensors`` wrote.

    Raises CheckpointError where the file is absent, cut short, of another format, or of another
    version.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"There is no file {path}; a {format} file was expected there.",
            "Check the path, or run the command that makes it.",
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors ({error}); a {format} file was expected.",
            "The file is truncated or of another kind: make or copy it again.",
        ) from None
    found = header.get("format", "no format name")
    if found != format:
        raise CheckpointError(
            f"{path} holds {found}, but {format} was expected.",
            f"Give the path of a {format} file here.",
        )
    if header.get("version") != str(version):
        raise CheckpointError(
            f"{path} is {format} version {header.get('version')}, but this program reads "
            f"version {version}.",
            "Make the file again with this version of npga, or use the version that wrote it "
            f"({header.get('npga', 'unknown')}).",
        )
    return tensors, json.loads(header.get("meta", "{}"))


def checksum(tensors: dict[str, Tensor]) -> str:
    """Sixteen hex digits that depend on names, shapes and values, not on order or device."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key}:{value.dtype}:{tuple(value.shape)};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def write_json(path: str | Path, content: Any) -> None:  # noqa: ANN401  JSON is any
    """Write JSON under a temporary name, then rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, sort_keys=False) + "\n")
    os.replace(partial, path)
