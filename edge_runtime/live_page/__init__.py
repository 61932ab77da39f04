"""The live page: a flight in the browser, from the drone's own imagery, without the internet.

page = LivePage(index / "imagery.mbtiles", about=About(deadline_ms=200.0))
print(page.start())
page.publish(fix, frame_rgb, sight)  # after every frame
page.close()
"""

from edge_runtime.live_page.page import About, LivePage
from edge_runtime.sight import Sight

__all__ = ["About", "LivePage", "Sight"]
