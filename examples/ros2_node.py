r"""skyfix as a ROS 2 node: camera image and odometry in, NavSatFix with its accuracy out.

    python3 examples/ros2_node.py --ros-args -p bundle:=/data/bundle -p index:=/data/index \
        -p camera:=/data/camera.json -r image:=/camera/image_raw -r odometry:=/odom -r range:=/lidar

Subscribes `image` (sensor_msgs/Image), `odometry` (nav_msgs/Odometry: attitude, velocity, and as z
the height above the start) and, where there is one, `range` (sensor_msgs/Range, a rangefinder that
looks down). Publishes `fix` (sensor_msgs/NavSatFix): STATUS_NO_FIX and no position unless it is OK.

Besides ROS 2 only numpy and skyfix are needed. An example: tested without ROS, never on a drone.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime import Camera, Fix, Localizer, VehicleState
from edge_runtime.state import with_ground_height
from edge_runtime.states.occurrences import Occurrences
from edge_runtime.states.sample import Sample
from edge_runtime.states.timeline import Timeline

_REMEMBERED = 400
"""Samples of odometry: four seconds at 100 Hz."""
_CHANNELS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "rgba8": (0, 1, 2), "bgra8": (2, 1, 0)}
_VERTICAL_VARIANCE_M2 = 1e6
"""Nothing is known of the altitude."""


def rgb_of(
    encoding: str, height_px: int, width_px: int, step: int, data: bytes
) -> npt.NDArray[np.uint8] | None:
    """(H, W, 3) uint8 RGB of a sensor_msgs/Image; None where its encoding is not understood.

    Args:
        encoding: of the message.
        height_px: rows.
        width_px: columns.
        step: bytes of a row, padding included.
        data: of the message.
    """
    channels = 1 if encoding == "mono8" else 4 if encoding.endswith("a8") else 3
    if encoding not in ("mono8", *_CHANNELS) or step < width_px * channels:
        return None
    rows = np.frombuffer(data, np.uint8)[: height_px * step].reshape(height_px, step)
    pixels = rows[:, : width_px * channels].reshape(height_px, width_px, channels)
    order = (0, 0, 0) if encoding == "mono8" else _CHANNELS[encoding]
    return np.ascontiguousarray(pixels[..., list(order)])


def attitude_deg(x: float, y: float, z: float, w: float) -> tuple[float, float, float]:
    """Heading, pitch and roll by aerospace rules, of a ROS quaternion.

    ROS turns forward-left-up axes into east-north-up (REP 103), so its yaw counts against the clock
    from east, and its pitch is positive with the nose down.

    Returns:
        Degrees clockwise from north, nose up, right side down.
    """
    roll = math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = math.asin(max(-1.0, min(1.0, 2 * (w * y - z * x))))
    yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return (90.0 - math.degrees(yaw)) % 360.0, -math.degrees(pitch), math.degrees(roll)


def velocity_mps(
    quaternion: Sequence[float], forward: float, left: float, up: float
) -> tuple[float, float]:
    """Ground speed towards east and north of a twist in the body's axes."""
    x, y, z, w = quaternion
    east = (
        (1 - 2 * (y * y + z * z)) * forward + 2 * (x * y - z * w) * left + 2 * (x * z + y * w) * up
    )
    north = (
        2 * (x * y + z * w) * forward + (1 - 2 * (x * x + z * z)) * left + 2 * (y * z - x * w) * up
    )
    return east, north


class SkyfixNode:
    """Callbacks of one camera. Not thread-safe: for a single-threaded executor."""

    def __init__(self, node: Any, localizer: Localizer, fix_type: Any, publisher: Any) -> None:
        """Keep what the callbacks need; `main` subscribes them."""
        self._log, self._localizer = node.get_logger(), localizer
        self._fix_type, self._publisher = fix_type, publisher
        self._said = Occurrences()
        self._known = Timeline(self._said, max_gap_s=0.5, keep=_REMEMBERED)
        self._tilt_cos = 1.0
        self._frames = 0

    def on_odometry(self, message: Any) -> None:
        """Attitude, velocity and height above the start."""
        q, twist = message.pose.pose.orientation, message.twist.twist.linear
        yaw, pitch, roll = attitude_deg(q.x, q.y, q.z, q.w)
        east, north = velocity_mps((q.x, q.y, q.z, q.w), twist.x, twist.y, twist.z)
        self._tilt_cos = math.cos(math.radians(pitch)) * math.cos(math.radians(roll))
        state = VehicleState(
            t_s=seconds(message.header.stamp),
            height_above_takeoff_m=message.pose.pose.position.z,
            yaw_deg=yaw,
            pitch_deg=pitch,
            roll_deg=roll,
            velocity_east_mps=east,
            velocity_north_mps=north,
        )
        self._add(state)

    def on_range(self, message: Any) -> None:
        """Height above the ground, shortened by the tilt of the beam."""
        if message.min_range < message.range < message.max_range and self._tilt_cos > 0.7:
            height_m = message.range * self._tilt_cos
            self._add(VehicleState(t_s=seconds(message.header.stamp), height_m=height_m))

    def on_image(self, message: Any) -> None:
        """Localise one frame and publish the answer."""
        t_s = seconds(message.header.stamp)
        image = rgb_of(
            message.encoding, message.height, message.width, message.step, bytes(message.data)
        )
        state = with_ground_height(self._known.state_at(t_s))
        name = f"{self._frames:06d}"
        self._frames += 1
        problem = "" if image is not None else f"encoding {message.encoding} is not understood"
        fix = self._localizer.step(image, state, frame_name=name, problem=problem)
        for event in self._said.taken():
            self._log.warning(event)
        self._publisher.publish(self.fix_message(message.header, fix))

    def fix_message(self, header: Any, fix: Fix) -> Any:
        """A NavSatFix with the header of the image: its time is the exposure's."""
        message = self._fix_type()
        message.header = header
        known = fix.status == "OK" and fix.eph_m is not None
        message.status.status = 0 if known else -1  # STATUS_FIX, STATUS_NO_FIX
        message.latitude = fix.lat_deg if known else math.nan
        message.longitude = fix.lon_deg if known else math.nan
        message.altitude = math.nan
        variance = fix.eph_m**2 if known and fix.eph_m is not None else 0.0
        up = _VERTICAL_VARIANCE_M2 if known else 0.0
        message.position_covariance = [variance, 0.0, 0.0, 0.0, variance, 0.0, 0.0, 0.0, up]
        # COVARIANCE_TYPE_APPROXIMATED, COVARIANCE_TYPE_UNKNOWN
        message.position_covariance_type = 1 if known else 0
        return message

    def _add(self, state: VehicleState) -> None:
        if state.t_s < self._known.last_s - 1.0:
            self._known.clear()  # A bag that is played again, or a clock that was set.
        self._known.add(Sample(state=state))


def seconds(stamp: Any) -> float:
    """A builtin_interfaces/Time as seconds."""
    return float(stamp.sec) + 1e-9 * float(stamp.nanosec)


def main() -> int:
    """Open everything, then spin until stopped."""
    import rclpy
    from nav_msgs.msg import Odometry
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image, NavSatFix, Range

    rclpy.init()
    node = rclpy.create_node("skyfix")
    paths = {
        name: str(node.declare_parameter(name, "").value) for name in ("bundle", "index", "camera")
    }
    localizer = Localizer.open(paths["bundle"], paths["index"], Camera.load(Path(paths["camera"])))
    skyfix = SkyfixNode(node, localizer, NavSatFix, node.create_publisher(NavSatFix, "fix", 10))
    # One image: a frame that waited while another was matched is older than the next one.
    newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    all_of_them = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
    node.create_subscription(Image, "image", skyfix.on_image, newest)
    node.create_subscription(Odometry, "odometry", skyfix.on_odometry, all_of_them)
    node.create_subscription(Range, "range", skyfix.on_range, all_of_them)
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    finally:
        localizer.close()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
