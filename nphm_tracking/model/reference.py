"""The head model one sample and one member at a time: the readable twin of the batched one.

Follows the description of MonoNPHM sentence by sentence, in the model's own precision (use
float64). Nothing here is fast, and nothing is to be optimised.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from nphm_tracking.model.head_model import Codes, HeadModel, HeadQuery


def reference_query(model: HeadModel, points: Float[Tensor, "n 3"], codes: Codes) -> HeadQuery:
    """The same as ``model.query`` for one head; loops over points and members."""
    anchors = _anchors(model, codes.z_geo)
    compressed = model.compressor(torch.cat([codes.z_geo, anchors.reshape(-1)]))
    condition = torch.cat([compressed, codes.z_exp])
    rows = [_point(model, point, condition, anchors, codes) for point in points]
    out, sdf, hue = (torch.stack(column) for column in zip(*rows, strict=True))
    color = hue if model.sizes.has_color else None
    offsets, hyper = out[:, :3], out[:, 3:]
    canonical = torch.cat([points + offsets, hyper], dim=1)
    return HeadQuery(offsets, hyper, canonical, anchors, sdf, color)


def _anchors(model: HeadModel, z_geo: Tensor) -> Tensor:
    field = model.canonical_field
    hidden = z_geo[: model.sizes.geo_global]
    hidden = torch.relu(field.anchor_layers[0](hidden))
    hidden = torch.relu(field.anchor_layers[1](hidden))
    return field.mean_anchors + field.anchor_layers[2](hidden).reshape(-1, 3)


def _point(
    model: HeadModel, point: Tensor, condition: Tensor, anchors: Tensor, codes: Codes
) -> tuple[Tensor, Tensor, Tensor]:
    """Offset and omega, signed distance, colour of one posed point."""
    out = _backward(model, torch.cat([point, condition]))
    query = torch.cat([point + out[:3], out[3:]])
    sizes = model.sizes
    distance = ((query[:3] - anchors) ** 2).sum(1).sqrt()
    nearest = torch.argsort(distance)[: sizes.neighbours]
    spread = distance[nearest[sizes.blend_neighbour - 1]] / sizes.blend_std
    total, sdf, color = point.new_zeros(()), point.new_zeros(()), point.new_zeros(3)
    for member in [*nearest.tolist(), sizes.anchor_count]:
        alone = member == sizes.anchor_count
        gap = torch.tensor(sizes.anchorless_distance).to(point) if alone else distance[member]
        weight = torch.exp(-((gap / spread) ** 2) / 2)
        value, hue = _member(model, member, query, anchors, codes)
        total, sdf, color = total + weight, sdf + weight * value, color + weight * hue
    return out, sdf / total, color / total


def _backward(model: HeadModel, given: Tensor) -> Tensor:
    mlp = model.backward_mlp
    hidden = given
    for number, layer in enumerate(mlp.layers):
        if number == mlp.skip:
            hidden = torch.cat([hidden, given]) / 2**0.5
        hidden = layer(hidden)
        if number < len(mlp.layers) - 1:
            hidden = mlp.activation(hidden)
    return hidden


def _member(
    model: HeadModel, member: int, query: Tensor, anchors: Tensor, codes: Codes
) -> tuple[Tensor, Tensor]:
    """What one local network says."""
    s, field = model.sizes, model.canonical_field
    local = query.clone()
    if member < s.anchor_count:
        local = query - torch.cat([anchors[member], query.new_zeros(s.hyper)])
    paired = member < 2 * s.pair_count
    if paired and member % 2 == 1:
        local = torch.cat([-local[:1], local[1:]])
    chosen = member // 2 if paired else member - s.pair_count
    codes_geo = _own_code(codes.z_geo, s.geo_global, s.geo_local, member)
    hidden = torch.cat([codes_geo, local])
    for layer in range(s.sdf_depth):
        before = field.sdf_networks.weights[layer][chosen] @ hidden
        before = before + field.sdf_networks.biases[layer][chosen]
        hidden = model.canonical_field.softplus(before)
    value = field.sdf_networks.weights[-1][chosen] @ hidden + field.sdf_networks.biases[-1][chosen]
    if not s.has_color:
        return value[0], hidden.new_zeros(3)
    told = field.widen(torch.relu(field.narrow(before)))
    hidden = torch.cat([_own_code(codes.z_app, s.app_global, s.app_local, member), told])
    for layer in range(s.color_depth + 1):
        hidden = field.color_networks.weights[layer][chosen] @ hidden
        hidden = hidden + field.color_networks.biases[layer][chosen]
        if layer < s.color_depth:
            hidden = torch.relu(hidden)
    return value[0], hidden


def _own_code(code: Tensor, shared: int, own: int, member: int) -> Tensor:
    start = shared + member * own
    return torch.cat([code[:shared], code[start : start + own]])
