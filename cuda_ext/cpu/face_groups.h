#pragma once
#include <cstdint>
#include <vector>

namespace vision3d::cpu {

// The pixels of one image that show each face, in the order of the picture: sums over them are the same for any number of
// threads.
struct FaceGroups {
    std::vector<int32_t> faces;   // that are seen, ascending
    std::vector<int64_t> begins;  // of each face's pixels, one more than faces
    std::vector<int32_t> pixels;

    FaceGroups(const int32_t* face_ids, int64_t count, int64_t num_faces) {
        std::vector<int32_t> rows(num_faces, 0);
        for (int64_t i = 0; i < count; ++i)
            if (face_ids[i] >= 0) ++rows[face_ids[i]];
        begins.push_back(0);
        for (int64_t f = 0; f < num_faces; ++f) {
            if (rows[f] == 0) continue;
            faces.push_back(int32_t(f));
            begins.push_back(begins.back() + rows[f]);
            rows[f] = int32_t(faces.size() - 1);
        }
        pixels.resize(begins.back());
        std::vector<int64_t> next(begins.begin(), begins.end() - 1);
        for (int64_t i = 0; i < count; ++i)
            if (face_ids[i] >= 0) pixels[next[rows[face_ids[i]]]++] = int32_t(i);
    }
};

}  // namespace vision3d::cpu
