"""An avatar driven by one RGB camera: a video file, or live."""
