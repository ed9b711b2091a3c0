"""Generated images of hands: poses, identities, skin, props, light, cameras and sensors at random, with their truth."""
