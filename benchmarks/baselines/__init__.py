"""What the avatars are compared with: other avatars on the same loop, raster, data and steps."""
