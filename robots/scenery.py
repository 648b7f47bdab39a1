"""What is around the robots whose bodies are our own: a sky, a light and a checkered floor."""

from __future__ import annotations


def scenery(squares: int = 2) -> str:
    """Parts of an MJCF; the geom ``floor`` touches whatever touches it.

    Args:
        squares: of the floor's pattern on a metre.
    """
    return f"""
      <visual><global offwidth="1280" offheight="960"/><headlight ambient="0.4 0.4 0.4"/></visual>
      <asset>
        <texture type="skybox" builtin="gradient" rgb1="0.72 0.81 0.90" rgb2="1 1 1"
                 width="32" height="192"/>
        <texture name="grid" type="2d" builtin="checker" rgb1="0.86 0.87 0.89" rgb2="0.80 0.81 0.84"
                 width="256" height="256"/>
        <material name="grid" texture="grid" texrepeat="{squares} {squares}" texuniform="true"/>
      </asset>
      <worldbody>
        <light pos="0 0 4" dir="0 0 -1" directional="true" diffuse="0.5 0.5 0.5"/>
        <geom name="floor" type="plane" size="50 50 1" material="grid" contype="1"
              conaffinity="1" rgba="1 1 1 1"/>
      </worldbody>"""
