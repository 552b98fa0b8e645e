"""A row of LANES numbers as one value inside compiled kernels: guaranteed SIMD.

Left to itself, LLVM turns some loops over the pixels of a row into SIMD code and others not, by
rules that a harmless edit upsets. Here a row is a type of numba's: under njit, ``a * b + c`` on
rows is one vector instruction (or a few, where the machine's vectors are shorter). A row mixes with
scalars of its own precision only; comparisons give a mask for ``where`` and ``any_lane``.

Fused multiply-add and reordered sums are allowed. (Numba's cache does not notice edits of this
file or of ``semantics.py``: touch the kernels' files too.)
"""
# numba and llvmlite have no types:
# pyright: reportAttributeAccessIssue=false, reportOptionalCall=false
# pyright: reportCallIssue=false, reportReturnType=false
# ruff: noqa: ANN001, ANN201, ANN202 (numba reads the bare signatures)

import math
import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16
_FAST = ("reassoc", "contract", "nsz", "arcp")


class Row(types.Type):
    """LANES numbers of the type ``real``."""

    def __init__(self, real: types.Float) -> None:
        self.real = real
        super().__init__(name=f"Row({real}, {LANES})")


class Mask(types.Type):
    """LANES truth values."""

    def __init__(self) -> None:
        super().__init__(name=f"Mask({LANES})")


_MASK = Mask()


def _vector(real: types.Float) -> ir.VectorType:
    return ir.VectorType(ir.FloatType() if real == types.float32 else ir.DoubleType(), LANES)


@register_model(Row)
class _RowModel(models.PrimitiveModel):
    def __init__(self, manager, row: Row) -> None:
        super().__init__(manager, row, _vector(row.real))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, mask: Mask) -> None:
        super().__init__(manager, mask, ir.VectorType(ir.IntType(1), LANES))


def _splat(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """The scalar in every lane; a row or mask is returned as it is."""
    if isinstance(value.type, ir.VectorType):
        return value
    single = builder.insert_element(
        ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined), value, ir.IntType(32)(0)
    )
    places = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(single, single, places)


def _row_of(args) -> Row | None:
    """The row type of a pair of operands, if they are rows, or a row and a scalar, of one kind."""
    rows = [a for a in args if isinstance(a, Row)]
    if not rows or any(a not in (rows[0], rows[0].real) for a in args):
        return None
    return rows[0]


def _operator(function, emit, gives_mask: bool = False) -> None:
    """Teach numba ``function`` (of operator) on rows; ``emit(builder, a, b)`` makes the code."""

    @infer_global(function)
    class _Rule(AbstractTemplate):
        def generic(self, args, kws):
            row = _row_of(args)
            return row and signature(_MASK if gives_mask else row, *args)

    def lower(context, builder, sig, args):
        return emit(builder, *(_splat(builder, a) for a in args))

    for pair in ((Row, Row), (Row, types.Float), (types.Float, Row)):
        lower_builtin(function, *pair)(lower)


_operator(operator.add, lambda b, x, y: b.fadd(x, y, flags=_FAST))
_operator(operator.sub, lambda b, x, y: b.fsub(x, y, flags=_FAST))
_operator(operator.mul, lambda b, x, y: b.fmul(x, y, flags=_FAST))
_operator(operator.truediv, lambda b, x, y: b.fdiv(x, y, flags=_FAST))
_operator(operator.ge, lambda b, x, y: b.fcmp_ordered(">=", x, y), gives_mask=True)
_operator(operator.le, lambda b, x, y: b.fcmp_ordered("<=", x, y), gives_mask=True)
_operator(operator.gt, lambda b, x, y: b.fcmp_ordered(">", x, y), gives_mask=True)


@infer_global(operator.and_)
class _BothRule(AbstractTemplate):
    def generic(self, args, kws):
        return signature(_MASK, *args) if args == (_MASK, _MASK) else None


@lower_builtin(operator.and_, Mask, Mask)
def _both(context, builder, sig, args):
    return builder.and_(*args)


@intrinsic
def where(typing, mask, yes, no):
    """Lane by lane: ``yes`` where the mask holds, else ``no``."""
    row = _row_of((yes, no))

    def code(context, builder, sig, args):
        return builder.select(args[0], _splat(builder, args[1]), _splat(builder, args[2]))

    return row(mask, yes, no), code


@intrinsic
def any_lane(typing, mask):
    """Whether the mask holds anywhere."""

    def code(context, builder, sig, args):
        bits = builder.bitcast(args[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(mask), code


@intrinsic
def pixel_centres(typing, like):
    """0.5, 1.5, 2.5 ... in the precision of the scalar ``like``."""

    def code(context, builder, sig, args):
        return ir.Constant(_vector(like), [i + 0.5 for i in range(LANES)])

    return Row(like)(like), code


def _address(context, builder, array, at, row: Row):
    """Where the row that starts at item ``at`` of a flat array lies."""
    data = context.make_array(array[0])(context, builder, array[1]).data
    return builder.bitcast(builder.gep(data, [at]), _vector(row.real).as_pointer())


@intrinsic
def load(typing, array, at):
    """The row that starts at item ``at`` of a one-dimensional array."""
    row = Row(array.dtype)

    def code(context, builder, sig, args):
        place = _address(context, builder, (sig.args[0], args[0]), args[1], row)
        return builder.load(place, align=row.real.bitwidth // 8)

    return row(array, types.intp), code


@intrinsic
def store(typing, array, at, value):
    """Put a row at item ``at`` of a one-dimensional array."""

    def code(context, builder, sig, args):
        place = _address(context, builder, (sig.args[0], args[0]), args[1], value)
        builder.store(args[2], place, align=value.real.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), code


@intrinsic
def total(typing, row):
    """The sum of the lanes, by halves."""

    def code(context, builder, sig, args):
        value, width = args[0], LANES
        while width > 1:
            width //= 2
            kind = ir.VectorType(ir.IntType(32), width)
            low, high = (
                builder.shuffle_vector(
                    value, value, ir.Constant(kind, [first + i for i in range(width)])
                )
                for first in (0, width)
            )
            value = builder.fadd(low, high, flags=_FAST)
        return builder.extract_element(value, ir.IntType(32)(0))

    return row.real(row), code


# 2^f on [-1/2, 1/2], minimax fit of degree 6 (relative error 2e-9; rounding in float32 adds 1e-7)
_POWERS_OF_TWO = (
    1.0, 0.693147203, 0.240226479, 0.0555033247, 0.00961843736, 0.00133988747, 0.00015353362,
)  # fmt: skip


def _exp_single(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """exp(-x) for x >= 0: 2^whole by its exponent bits, times 2^fraction by a polynomial."""

    def number(value: float) -> ir.Constant:
        return ir.Constant(x.type, [value] * LANES)

    whole_type = ir.VectorType(ir.IntType(32), LANES)
    x = builder.select(builder.fcmp_ordered("<", x, number(80.0)), x, number(80.0))
    t = builder.fmul(x, number(-math.log2(math.e)))
    # truncation towards zero = rounding to nearest, as t <= 0
    whole = builder.fptosi(builder.fsub(t, number(0.5)), whole_type)
    fraction = builder.fsub(t, builder.sitofp(whole, x.type))
    value = number(_POWERS_OF_TWO[-1])
    for coefficient in _POWERS_OF_TWO[-2::-1]:
        value = builder.fadd(
            builder.fmul(value, fraction, flags=_FAST), number(coefficient), flags=_FAST
        )
    bits = builder.add(whole, ir.Constant(whole_type, [127] * LANES))
    bits = builder.shl(bits, ir.Constant(whole_type, [23] * LANES))
    return builder.fmul(value, builder.bitcast(bits, x.type))


@intrinsic
def exp_negative(typing, row):
    """exp(-x) for x >= 0; in single precision it stops falling at exp(-80)."""

    def code(context, builder, sig, args):
        if row.real == types.float32:
            return _exp_single(builder, args[0])
        exp = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(args[0].type, [args[0].type]), f"llvm.exp.v{LANES}f64"
        )
        return builder.call(exp, [builder.fneg(args[0])])

    return row(row), code
