"""An avatar, codes, poses and a camera path -> pictures and videos."""
