"""Angles between two samples: on the circle, and attitudes along the shortest turn."""

import math

Quaternion = tuple[float, float, float, float]
"""w, x, y, z of unit length: forward-right-down axes to north-east-down."""

_POLE_DEG = 60.0
"""Beyond this pitch yaw and roll are about the same turn, and single angles are kept instead."""


def turned_deg(from_deg: float, to_deg: float) -> float:
    """The shorter way from one angle to another, in [-180, 180)."""
    return (to_deg - from_deg + 180.0) % 360.0 - 180.0


def angle_between_deg(a_deg: float, b_deg: float, share: float) -> float:
    """The angle at `share` (0..1) of the shorter way from a to b, in [-180, 180)."""
    return (a_deg + share * turned_deg(a_deg, b_deg) + 180.0) % 360.0 - 180.0


def attitude_between_deg(
    a_deg: tuple[float, float, float], b_deg: tuple[float, float, float], share: float
) -> tuple[float, float, float]:
    """Yaw, pitch and roll at `share` of the turn from a to b.

    The shortest turn at a steady rate (Shoemake 1985, slerp). Near the poles, where gimbals look
    straight down, the three angles are interpolated one by one: a turn gives the same picture there
    but splits it between yaw and roll at will, and the yaw is what a heading is taken from.
    """
    if max(abs(a_deg[1]), abs(b_deg[1])) > _POLE_DEG:
        yaw, pitch, roll = (
            angle_between_deg(a, b, share) for a, b in zip(a_deg, b_deg, strict=True)
        )
        return yaw, pitch, roll
    return euler_deg(_slerp(quaternion(*a_deg), quaternion(*b_deg), share))


def quaternion(yaw_deg: float, pitch_deg: float, roll_deg: float) -> Quaternion:
    """Of yaw, pitch, roll in this order (aerospace)."""
    y, p, r = (math.radians(a) / 2 for a in (yaw_deg, pitch_deg, roll_deg))
    cy, sy, cp, sp, cr, sr = (
        math.cos(y), math.sin(y), math.cos(p), math.sin(p), math.cos(r), math.sin(r)
    )  # fmt: skip
    return (
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    )


def euler_deg(q: Quaternion) -> tuple[float, float, float]:
    """Yaw, pitch and roll of a quaternion of about unit length."""
    w, x, y, z = q
    yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    pitch = math.asin(max(-1.0, min(1.0, 2 * (w * y - z * x))))
    roll = math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    return math.degrees(yaw), math.degrees(pitch), math.degrees(roll)


def _slerp(a: Quaternion, b: Quaternion, share: float) -> Quaternion:
    cosine = sum(i * j for i, j in zip(a, b, strict=True))
    sign = -1.0 if cosine < 0 else 1.0
    angle = math.acos(min(1.0, abs(cosine)))
    if angle < 1e-9:
        return a
    first = math.sin((1 - share) * angle) / math.sin(angle)
    second = sign * math.sin(share * angle) / math.sin(angle)
    w, x, y, z = (first * i + second * j for i, j in zip(a, b, strict=True))
    return w, x, y, z
