"""A small network per anchor, evaluated only where it counts.

Each row of work is one (query, member) pair. Rows are sorted by weight set. On a GPU, and where
rows are few, they are cut into blocks of equal length, so that all members run as one batched
matrix product per layer; with many rows on a CPU each set's rows run through its own MLP, one set
after the other, so that what is between the layers stays in the cache. What the codes add to the
first layer is the same for all rows of a member and is computed once per member, unless there are
fewer rows than members (one query per head, as in Jacobians).

Letters: r rows (query x member), m members, s weight sets, b people, i o layer widths.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

ROWS_PER_SET = 48
"""So many rows per weight set, on average, are worth a product of their own on a CPU."""


@dataclass(frozen=True)
class RowPlan:
    """Where each row of work goes; the same plan serves all layers and both networks."""

    order: Int[Tensor, "r"]
    """Rows sorted by weight set."""
    runs: tuple[int, ...]
    """Rows of each weight set, where sets run one after the other; empty where in blocks."""
    slot: Int[Tensor, "r"]
    """Place of the row in the padded blocks, or among the sorted rows."""
    block_set: Int[Tensor, "k"]
    """Weight set of each block."""
    block_rows: int

    @staticmethod
    def of(row_set: Int[Tensor, "r"], set_count: int, in_blocks: bool | None = None) -> "RowPlan":
        """Order and blocks of rows with given weight sets; ``in_blocks``: None = the faster."""
        count = len(row_set)
        if in_blocks is None:
            in_blocks = row_set.is_cuda or count < ROWS_PER_SET * set_count
        order = torch.argsort(row_set, stable=True)
        per_set = torch.bincount(row_set, minlength=set_count)
        place = torch.arange(count, device=row_set.device)
        if not in_blocks:
            slot = torch.zeros_like(order).scatter_(0, order, place)
            return RowPlan(order, tuple(per_set.tolist()), slot, order[:0], 0)
        rows = 16
        while rows < 512 and rows * 4 * set_count < count:
            rows *= 2
        blocks = (per_set + rows - 1) // rows
        first_row = torch.cumsum(per_set, 0) - per_set
        first_slot = (torch.cumsum(blocks, 0) - blocks) * rows
        held = row_set[order]
        slot = torch.zeros_like(order).scatter_(
            0, order, place - first_row[held] + first_slot[held]
        )
        return RowPlan(order, (), slot, torch.repeat_interleave(blocks), rows)

    def spread(self, rows: Float[Tensor, "r c"]) -> Float[Tensor, "k n c"]:
        """Rows into padded blocks."""
        padded = rows.new_zeros(len(self.block_set) * self.block_rows, rows.shape[1])
        padded = padded.index_copy(0, self.slot, rows)
        return padded.reshape(len(self.block_set), self.block_rows, -1)

    def collect(self, blocks: Float[Tensor, "k n c"]) -> Float[Tensor, "r c"]:
        """Padded blocks back into rows."""
        return blocks.flatten(0, 1)[self.slot]


@dataclass(frozen=True)
class MemberCodes:
    """Codes [global | one local part per member] of ``b`` people."""

    code: Float[Tensor, "b c"]
    shared: int
    """Length of the global part."""
    member_set: Int[Tensor, "m"]
    """Weight set of each member."""

    @property
    def row_count(self) -> int:
        """Rows of a table with one row per person and member."""
        return len(self.code) * len(self.member_set)

    def of_members(self) -> Float[Tensor, "b m d"]:
        """[global, local] of every member."""
        people, count = len(self.code), len(self.member_set)
        common = self.code[:, None, : self.shared].expand(-1, count, -1)
        own = self.code[:, self.shared :].reshape(people, count, -1)
        return torch.cat([common, own], dim=-1)

    def of_rows(self, row: Int[Tensor, "r"]) -> Float[Tensor, "r d"]:
        """The same for rows b * m + member of the table alone."""
        common = self.code[:, : self.shared][row // len(self.member_set)]
        own = self.code[:, self.shared :].reshape(self.row_count, -1)
        return torch.cat([common, own[row]], dim=-1)


class LocalNetworks(nn.Module):
    """``set_count`` MLPs of one shape. The first layer sees codes, then the row's own input."""

    def __init__(
        self, set_count: int, code_size: int, row_size: int, width: int, depth: int, out: int
    ) -> None:
        """``depth`` hidden layers; the weights are random until a loader or training fills them."""
        super().__init__()
        self.code_size = code_size
        ends = [code_size + row_size] + [width] * depth + [out]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in pairwise(ends):
            bound = fan_in**-0.5
            self.weights.append(
                nn.Parameter(torch.zeros(set_count, fan_out, fan_in).uniform_(-bound, bound))
            )
            self.biases.append(
                nn.Parameter(torch.zeros(set_count, fan_out).uniform_(-bound, bound))
            )

    def forward(
        self,
        rows: Float[Tensor, "r i"],
        codes: MemberCodes,
        row: Int[Tensor, "r"],
        plan: RowPlan,
        activation: nn.Module,
        tap: nn.Module | None = None,
    ) -> tuple[Float[Tensor, "r out"], Float[Tensor, "r t"] | None]:
        """Outputs, and ``tap`` of the last hidden layer before its activation.

        ``row`` picks the codes.
        """
        if plan.runs:
            return self._set_by_set(rows, codes, row, plan, activation, tap)
        given, told = self._given(rows, codes, row)
        first = self.weights[0][:, :, -given.shape[1] :][plan.block_set]
        start = self.biases[0][plan.block_set][:, None] if told is None else plan.spread(told[row])
        hidden = torch.baddbmm(start, plan.spread(given), first.mT)
        for weight, bias in zip(list(self.weights)[1:-1], list(self.biases)[1:-1], strict=True):
            hidden = torch.baddbmm(
                bias[plan.block_set][:, None], activation(hidden), weight[plan.block_set].mT
            )
        out = torch.baddbmm(
            self.biases[-1][plan.block_set][:, None],
            activation(hidden),
            self.weights[-1][plan.block_set].mT,
        )
        return plan.collect(out), None if tap is None else plan.collect(tap(hidden))

    def _given(
        self, rows: Float[Tensor, "r i"], codes: MemberCodes, row: Int[Tensor, "r"]
    ) -> tuple[Float[Tensor, "r j"], Float[Tensor, "m o"] | None]:
        """The first layer's input; and what codes and bias add to it, by person and member.

        With fewer rows than members the codes are part of the input instead (None).
        """
        if len(row) < codes.row_count:
            return torch.cat([codes.of_rows(row), rows], dim=1), None
        weight = self.weights[0][:, :, : self.code_size][codes.member_set]
        told = torch.einsum("bmc,moc->bmo", codes.of_members(), weight)
        return rows, (told + self.biases[0][codes.member_set]).flatten(0, 1)

    def _set_by_set(
        self,
        rows: Float[Tensor, "r i"],
        codes: MemberCodes,
        row: Int[Tensor, "r"],
        plan: RowPlan,
        activation: nn.Module,
        tap: nn.Module | None,
    ) -> tuple[Float[Tensor, "r out"], Float[Tensor, "r t"] | None]:
        """The same, one weight set after the other."""
        first, bias = self.weights[0], self.biases[0]
        given, told = self._given(rows, codes, row)
        split = given[plan.order].split(plan.runs)
        which = row[plan.order].split(plan.runs)
        outs, tapped = [], []
        for chosen, (own, member) in enumerate(zip(split, which, strict=True)):
            weight = first[chosen, :, -own.shape[1] :].T
            hidden = torch.addmm(bias[chosen] if told is None else told[member], own, weight)
            for layer in range(1, len(self.weights) - 1):
                hidden = torch.addmm(
                    self.biases[layer][chosen], activation(hidden), self.weights[layer][chosen].T
                )
            if tap is not None:
                tapped.append(tap(hidden))
            last = self.weights[-1][chosen].T
            outs.append(torch.addmm(self.biases[-1][chosen], activation(hidden), last))
        return torch.cat(outs)[plan.slot], torch.cat(tapped)[plan.slot] if tapped else None
