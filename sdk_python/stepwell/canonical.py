"""The hash of a call's input that strict mode compares: of one JSON text (RFC 8785) that all languages make of it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, cast

from stepwell import codec
from stepwell.errors import SerializationError


def input_hash(inputs: Sequence[Any], what: str) -> bytes:
    """16 bytes of what a call was given, in its order. Raises SerializationError naming `what`."""
    data = codec.encode(inputs, what)
    try:
        text = canonical(json.loads(data, parse_int=float))
    except RecursionError:
        raise SerializationError(f"{what}: nested too deep for strict mode") from None
    return hashlib.sha256(text.encode()).digest()[:16]


def canonical(value: Any) -> str:
    """The one JSON text of a value whose numbers are floats; one beyond their range counts as null."""
    if isinstance(value, str):
        return json.encoder.encode_basestring(value)
    if isinstance(value, float):
        return _number(value) if math.isfinite(value) else "null"
    if isinstance(value, list):
        return f"[{','.join(map(canonical, cast('list[Any]', value)))}]"
    if isinstance(value, dict):
        members = sorted(cast("dict[str, Any]", value).items(), key=lambda member: member[0].encode("utf-16-be"))
        return f"{{{','.join(f'{canonical(name)}:{canonical(member)}' for name, member in members)}}}"
    return {None: "null", True: "true", False: "false"}[value]


def _number(value: float) -> str:
    """As ECMAScript writes it: the digits are Python's own, but not where the exponent begins."""
    sign, digit_list, exponent = Decimal(repr(value)).normalize().as_tuple()
    digits = "".join(map(str, digit_list))
    if digits == "0":
        return "0"
    point = len(digits) + int(exponent)
    if point > 21 or point <= -6:
        fraction = f".{digits[1:]}" if len(digits) > 1 else ""
        text = f"{digits[0]}{fraction}e{point - 1:+d}"
    elif point <= 0:
        text = f"0.{'0' * -point}{digits}"
    elif point < len(digits):
        text = f"{digits[:point]}.{digits[point:]}"
    else:
        text = digits.ljust(point, "0")
    return f"-{text}" if sign else text
