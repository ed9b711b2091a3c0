"""From a scene to bodies: what moves, where up and the floor are, what fills a body, what represents it."""
