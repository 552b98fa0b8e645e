"""The published MonoNPHM checkpoint layout, read without its code.

``torch.save`` dict with ``id_decoder`` and ``ex_decoder`` state dicts; everything else is optional.
Only tensors are unpickled (``weights_only``). The constants that no tensor shows (neighbours,
blending) come from the folder's configs.yaml where it is there, else from the published defaults.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from npga.core.errors import CheckpointError
from nphm_tracking.model.sizes import HeadModelSizes

USUAL = {65: (12, 3.75), 39: (8, 4.0)}
"""Neighbours and blending of MonoNPHM (65 anchors) and of NPHM's backward flavour (39)."""


@dataclass(frozen=True)
class Published:
    """A checkpoint in our names."""

    file: Path
    sizes: HeadModelSizes
    tensors: dict[str, Tensor]


def read_published(path: Path) -> Published:
    """Sizes and weights of a ``.tar`` checkpoint, or of the newest one in a folder.

    Raises CheckpointError where the file is absent, unreadable, or lacks a weight.
    """
    file = _find(path)
    try:
        held = torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{file} cannot be read as a torch checkpoint of plain tensors "
            f"({str(error).splitlines()[0]}).",
            "Download checkpoint_epoch_2500.tar again; other pickles are refused.",
        ) from None
    parts = []
    for part in ("id_decoder", "ex_decoder"):
        if not isinstance(held, Mapping) or not isinstance(held.get(part), Mapping):
            raise CheckpointError(
                f"{file} holds no {part}; a MonoNPHM checkpoint was expected.",
                "Give checkpoint_epoch_2500.tar of MonoNPHM (NPHM's own checkpoints differ).",
            )
        parts.append(held[part])
    reader = _Reader(file, dict(parts[0]), dict(parts[1]))
    sizes = reader.sizes(_config_numbers(path), _codebook_widths(held))
    tensors = reader.renamed(sizes)
    tensors.update(_expression_statistics(held, sizes))
    return Published(file, sizes, tensors)


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    found = [p for p in path.glob("**/checkpoint_epoch_*.tar")] if path.is_dir() else []
    if not found:
        raise CheckpointError(
            f"{path} is neither a checkpoint nor a folder with checkpoints/checkpoint_epoch_*.tar.",
            "Give the .tar file or its experiment folder.",
        )
    return max(found, key=lambda p: int(re.findall(r"\d+", p.stem)[-1]))


def _config_numbers(path: Path) -> dict[str, Any]:
    """decoder.id of configs.yaml, {} where there is none."""
    folder = path if path.is_dir() else path.parent
    for candidate in (folder / "configs.yaml", folder.parent / "configs.yaml"):
        if candidate.is_file():
            import yaml

            held = yaml.safe_load(candidate.read_text()) or {}
            section = (held.get("decoder") or {}).get("id") or {}
            return section if isinstance(section, dict) else {}
    return {}


def _codebook_widths(held: Mapping[str, Any]) -> dict[str, int]:
    """Widths of the training codebooks: geo, app, exp (those that are there)."""
    codes = held.get("latent_codes")
    if not isinstance(codes, Mapping):
        return {}
    keys = {name: f"codebook.{name}.embedding.weight" for name in ("geo", "app", "exp")}
    return {n: codes[k].shape[1] for n, k in keys.items() if isinstance(codes.get(k), Tensor)}


def _expression_statistics(held: Mapping[str, Any], sizes: HeadModelSizes) -> dict[str, Tensor]:
    """Mean and spread of the training expression codes, where the checkpoint has them."""
    codes = held.get("latent_codes")
    table = codes.get("codebook.exp.embedding.weight") if isinstance(codes, Mapping) else None
    if not isinstance(table, Tensor) or table.shape[1] != sizes.exp or len(table) < 2:
        return {}
    table = table.float()
    return {
        "exp_mean": table.mean(0),
        "exp_std": table.std(0),
        "exp_lower": table.min(0).values,
        "exp_upper": table.max(0).values,
    }


@dataclass(frozen=True)
class _Reader:
    """Two state dicts, and refusals that name the file and the key."""

    file: Path
    identity: dict[str, Tensor]
    expression: dict[str, Tensor]

    def get(self, key: str) -> Tensor:
        table = self.identity if key in self.identity else self.expression
        if key not in table:
            raise CheckpointError(
                f"{self.file} lacks {key}.",
                "The checkpoint is incomplete or of another model: download it again.",
            )
        return table[key].float()

    def sizes(self, config: dict[str, Any], codebook: dict[str, int]) -> HeadModelSizes:
        """Infer every size from the tensors' shapes."""
        anchor_out, set_count = self.get("mlp_pos.4.weight").shape[0], self._count_sets()
        anchors = anchor_out // 3
        geo_global = self.get("mlp_pos.0.weight").shape[1]
        layers = self._count("defDeepSDF.lin{}.weight", self.expression)
        hyper = self.get(f"defDeepSDF.lin{layers - 1}.weight").shape[0] - 3
        backward = self.get("defDeepSDF.lin0.weight")
        identity = self.get("compressor.0.weight").shape[0]
        skip = [
            i
            for i in range(1, layers)
            if self.get(f"defDeepSDF.lin{i}.weight").shape[1] != backward.shape[0]
        ]
        first = self.get("deepSDFensemble.layers.0.layers.0.weight")
        geo_local = first.shape[1] - geo_global - 3 - hyper
        color = self._color_sizes(config, codebook, anchors + 1, geo_local)
        usual = USUAL.get(anchors, USUAL[65])
        return HeadModelSizes(
            anchor_count=anchors,
            pair_count=anchors + 1 - set_count,
            neighbours=int(config.get("nneigh", usual[0])),
            blend_std=float(config.get("blend_std", usual[1])),
            geo_global=geo_global,
            geo_local=geo_local,
            exp=backward.shape[1] - 3 - identity,
            identity=identity,
            hyper=hyper,
            anchor_width=self.get("mlp_pos.0.weight").shape[0],
            backward_width=backward.shape[0],
            backward_depth=layers - 1,
            backward_skip=skip[0] if skip else layers,
            sdf_width=first.shape[0],
            sdf_depth=self._depth("deepSDFensemble"),
            **color,
        )

    def _color_sizes(
        self, config: dict[str, Any], codebook: dict[str, int], members: int, geo_local: int
    ) -> dict[str, int]:
        """Of the colour networks; all 0 where the checkpoint has none."""
        names = ("app_global", "app_local", "color_width", "color_depth", "bottleneck")
        if not self.has_color:
            return dict.fromkeys(names, 0)
        first = self.get("aggr_app.layers.0.layers.0.weight")
        bottleneck = self.get("communcation_bottleneck2.weight").shape[0]
        code = first.shape[1] - bottleneck
        local = self._app_local(config, codebook, code, members) or geo_local
        depth = self._depth("aggr_app")
        return dict(
            zip(names, (code - local, local, first.shape[0], depth, bottleneck), strict=True)
        )

    @property
    def has_color(self) -> bool:
        """Whether any key belongs to colour networks (a damaged checkpoint may lack others)."""
        return any(k.startswith(("aggr_app.", "communcation_")) for k in self.identity)

    def renamed(self, sizes: HeadModelSizes) -> dict[str, Tensor]:
        """The tensors under the names of HeadModel's state dict."""
        field = "canonical_field"
        out = {}
        for kind in ("weight", "bias"):
            for ours, theirs in enumerate((0, 2, 4)):
                out[f"{field}.anchor_layers.{ours}.{kind}"] = self.get(f"mlp_pos.{theirs}.{kind}")
            if sizes.has_color:
                out[f"{field}.narrow.{kind}"] = self.get(f"communcation_bottleneck1.{kind}")
                out[f"{field}.widen.{kind}"] = self.get(f"communcation_bottleneck2.{kind}")
            out[f"compressor.{kind}"] = self.get(f"compressor.0.{kind}")
            for i in range(sizes.backward_depth + 1):
                out[f"backward_mlp.layers.{i}.{kind}"] = self.get(f"defDeepSDF.lin{i}.{kind}")
            names = [("sdf_networks", "deepSDFensemble", sizes.sdf_depth)]
            if sizes.has_color:
                names.append(("color_networks", "aggr_app", sizes.color_depth))
            for ours, theirs, depth in names:
                for layer in range(depth + 1):
                    keys = [
                        f"{theirs}.layers.{s}.layers.{2 * layer}.{kind}"
                        for s in range(sizes.set_count)
                    ]
                    out[f"{field}.{ours}.{_plural(kind)}.{layer}"] = self._stack(keys)
        return out

    def _stack(self, keys: list[str]) -> Tensor:
        parts = [self.get(k) for k in keys]
        for key, part in zip(keys, parts, strict=True):
            if part.shape != parts[0].shape:
                raise CheckpointError(
                    f"{self.file}: {key} has shape {tuple(part.shape)}, its siblings "
                    f"{tuple(parts[0].shape)}.",
                    "The checkpoint is damaged: download it again.",
                )
        return torch.stack(parts)

    def _count_sets(self) -> int:
        return self._count("deepSDFensemble.layers.{}.layers.0.weight", self.identity)

    def _depth(self, network: str) -> int:
        pattern = re.compile(rf"{network}\.layers\.0\.layers\.\d+\.weight")
        found = [k for k in self.identity if pattern.fullmatch(k)]
        return len(found) - 1

    @staticmethod
    def _count(pattern: str, table: dict[str, Tensor]) -> int:
        count = 0
        while pattern.format(count) in table:
            count += 1
        return count

    @staticmethod
    def _app_local(
        config: dict[str, Any], codebook: dict[str, int], per_member: int, members: int
    ) -> int | None:
        """The split of the appearance code, which the weights do not show; None = like geometry."""
        if "app" in codebook:
            return (codebook["app"] - per_member) // (members - 1)
        found = config.get("lat_dim_loc_app")
        return None if found is None else int(found)


def _plural(kind: str) -> str:
    return {"weight": "weights", "bias": "biases"}[kind]
