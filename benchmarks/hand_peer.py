"""MediaPipe Hands on images, for bench_hand_photos.py: runs in an environment of its own.

Reads {"images": [paths of .png]} from standard input and writes one row per image: null, or joints (21, 2) in image sides,
whether it is a right hand, and joints (21, 3) [m].
"""

import json
import sys

import mediapipe
import numpy as np
from PIL import Image


def main() -> None:
    hands = mediapipe.solutions.hands.Hands(
        static_image_mode=True, max_num_hands=1, model_complexity=1, min_detection_confidence=0.3
    )
    rows = []
    for path in json.load(sys.stdin)["images"]:
        found = hands.process(np.asarray(Image.open(path).convert("RGB")))
        if not found.multi_hand_landmarks:
            rows.append(None)
            continue
        flat = [[point.x, point.y] for point in found.multi_hand_landmarks[0].landmark]
        world = [[point.x, point.y, point.z] for point in found.multi_hand_world_landmarks[0].landmark]
        # It takes images for mirrored ones, so its names of the sides are exchanged.
        is_right = found.multi_handedness[0].classification[0].label == "Left"
        rows.append({"joints_2d": flat, "is_right": is_right, "joints_3d": world})
    print("PEER " + json.dumps(rows))


if __name__ == "__main__":
    main()
