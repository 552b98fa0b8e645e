"""An avatar driven by a tracked take, its own (self) or another person's (cross), or by codes."""
