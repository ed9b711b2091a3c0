"""From a scene to bodies: moving parts, up direction and floor, filling, representations."""
