"""Types and pure math, and the conventions that everything above keeps.

Cameras     OpenCV axes: +x right, +y down, +z forward. ``cam_from_world`` is 4x4, metres.
            K is in pixels; the centre of the top-left pixel is (0.5, 0.5); principal points are
            off-centre and always honoured.
World       NeRSemble's: metres, +y up, +z from the face to the cameras, +x the subject's left.
Head space  NPHM's canonical space: FLAME metres x 4, so 1 unit = 250 mm; y up, face to +z, mouth
            closed. ``world_from_head`` is a similarity per frame: x_world = s R x_head + t.
Quaternions ``wxyz``, not silently normalised.
Images      ``[H, W, 3]`` float sRGB in 0..1 (uint8 in caches); mattes: 1 = head.
Names       carry frames and units: ``cam_from_world``, ``radius_mm``.
"""

MM_PER_UNIT = 250.0
"""Millimetres in one unit of head space (FLAME metres x 4)."""
