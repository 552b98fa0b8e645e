"""LPIPS against the formula written out, its files, and what is refused."""

import pickle

import pytest
import torch

from npga.core.errors import CheckpointError
from npga.core.lpips import NETS, Lpips, load_lpips


def pictures(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 72, 80, 3, generator=torch.Generator().manual_seed(1))


def slow_lpips(model: Lpips, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """One picture pair by the published formula, layer by layer and place by place."""
    pools = {"alex": {1: 3, 2: 3}, "vgg": {2: 2, 4: 2, 7: 2, 10: 2}}[model.net]
    kept: list[list[torch.Tensor]] = []
    for picture in (image, target):
        shift, spread = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x = ((picture * 2 - 1 - shift) / spread).permute(2, 0, 1)[None]
        layers = []
        for place, conv in enumerate(model.convolutions):
            if place in pools:
                x = torch.nn.functional.max_pool2d(x, pools[place], stride=2)
            x = conv(x).clamp(min=0)
            layers.append(x[0])
        kept.append([layers[place] for place in model.marked])
    total = torch.zeros(())
    for a, b, head in zip(*kept, model.heads, strict=True):
        values = []
        for y in range(a.shape[1]):
            for x in range(a.shape[2]):
                f = a[:, y, x] / (a[:, y, x].norm() + 1e-10)
                g = b[:, y, x] / (b[:, y, x].norm() + 1e-10)
                values.append((head * (f - g) ** 2).sum())
        total = total + torch.stack(values).mean()
    return total


@pytest.mark.parametrize("net", NETS)
def test_values_and_gradients_equal_the_written_out_formula(net):
    torch.manual_seed(0)
    model = Lpips(net).requires_grad_(False).double()
    for module in model.convolutions:
        torch.nn.init.normal_(module.bias, 0.1, 0.1)
    one, other = pictures(2).double()
    one, other = one[:40, :40], other[:40, :40]
    results = []
    for way in (lambda a: model(a[None], other[None])[0], lambda a: slow_lpips(model, a, other)):
        at = one.clone().requires_grad_()
        value = way(at)
        value.backward()
        results.append((value.detach(), at.grad))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-9)
    assert results[0][0] > 0


def test_equal_pictures_are_not_unlike_and_a_mask_chooses_where_to_look():
    torch.manual_seed(0)
    model = Lpips("alex").requires_grad_(False)
    one = pictures(1)
    other = one.clone()
    other[:, :, 50:] = 1 - other[:, :, 50:]
    assert model(one, one) == 0
    left = torch.zeros(1, 72, 80)
    left[:, :, :12] = 1
    f, g = model.features(one), model.features(other)
    assert model.compare(f, g, left) < 0.5 * model.compare(f, g, 1 - left)
    whole = torch.ones(1, 72, 80)
    torch.testing.assert_close(model.compare(f, g, whole), model.compare(f, g))


def flax_tree(model: Lpips) -> dict:
    tree = {"AlexNet_0": {}}
    for place, conv in enumerate(model.convolutions):
        kernel = conv.weight.detach().permute(2, 3, 1, 0).numpy()
        held = {"kernel": kernel, "bias": conv.bias.detach().numpy()}
        tree["AlexNet_0"][f"Conv_{place}"] = held
    for place, head in enumerate(model.heads):
        kernel = head.detach().numpy()[None, None, :, None]
        tree[f"NetLinLayer_{place}"] = {"Conv_0": {"kernel": kernel}}
    return tree


def test_both_kinds_of_files_give_the_same_network(tmp_path):
    torch.manual_seed(3)
    model = Lpips("alex").requires_grad_(False)
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "alexnet.ckpt").write_bytes(pickle.dumps(flax_tree(model)))
    torch.save(
        {f"features.{number}.{kind}": getattr(conv, kind)
         for number, conv in zip((0, 3, 6, 8, 10), model.convolutions, strict=True)
         for kind in ("weight", "bias")} | {"classifier.1.weight": torch.zeros(2, 2)},
        tmp_path / "alexnet-owt.pth",
    )  # fmt: skip
    heads = {f"lin{n}.model.1.weight": h[None, :, None, None] for n, h in enumerate(model.heads)}
    torch.save(heads, tmp_path / "alex.pth")
    one, other = pictures(2)[:, None]
    expected = model(one, other)
    for place in (tmp_path, tmp_path / "jax", tmp_path / "jax" / "alexnet.ckpt"):
        torch.testing.assert_close(load_lpips("alex", place)(one, other), expected)


class Evil:
    def __reduce__(self):
        return (print, ("this must never be printed",))


def test_absent_incomplete_and_dangerous_files_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("npga.core.lpips.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="No weights of LPIPS-vgg are installed"):
        load_lpips("vgg")
    with pytest.raises(CheckpointError, match="No weights of LPIPS-alex are in"):
        load_lpips("alex", tmp_path)
    with pytest.raises(CheckpointError, match="no LPIPS network 'squeeze'"):
        load_lpips("squeeze", tmp_path)
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, tmp_path / "alex.pth")
    with pytest.raises(CheckpointError, match=r"was expected, nothing was found"):
        load_lpips("alex", tmp_path)
    (tmp_path / "vgg16.ckpt").write_bytes(pickle.dumps({"VGG16_0": Evil()}))
    with pytest.raises(CheckpointError, match="is no array"):
        load_lpips("vgg", tmp_path)
    assert "never" not in capsys.readouterr().out
