#pragma once
#include <cmath>
#include <cstdint>
#include "cpu/mesh_tile.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "vision3d/antialias.h"

// Data of all faces of an image that drawing and outlines need, computed in one pass.
namespace vision3d::cpu {

// Sign of p + q + r - s - t - u; 0 where it is small relative to them.
inline int8_t sign_unless_narrow(double p, double q, double r, double s, double t, double u) {
    const double area = p + q + r - s - t - u;
    const double least = 1.01 * EDGE_ON * (abs(p) + abs(q) + abs(r) + abs(s) + abs(t) + abs(u));
    return int8_t((area > least) - (area < -least));
}

// Sign of the area of a face in the image.
inline int8_t area_sign(const MeshFace& f) {
    return sign_unless_narrow(f.x[0] * f.y[1] * f.w[2], f.x[1] * f.y[2] * f.w[0], f.x[2] * f.y[0] * f.w[1], f.x[0] * f.y[2] * f.w[1],
                              f.x[1] * f.y[0] * f.w[2], f.x[2] * f.y[1] * f.w[0]);
}

class MeshSetup {
  public:
    Scratch<double> points;   // (V,4), corners in double
    Scratch<PixelBox> boxes;  // boxes of faces
    Scratch<int8_t> sides;    // sign of the area in the image for plain faces, 0 for others
    Scratch<float> nearest;   // lower bound of the pixel depths for plain faces
    Scratch<int8_t> signs;    // signs of all areas in the image, 0 where narrow (EDGE_ON)
    int near_side = 1;

    // Faces are plain if all corners are between the planes in front of the camera, with a margin for rounding, and not narrow.
    template <typename T>
    void load(const T* positions, int64_t vertices, const int32_t* triangles, int64_t faces, int width, int height, double near_plane,
              double far_plane) {
        points.resize(4 * vertices);
        seen_.resize(4 * vertices);
        parallel_for(vertices, 8192, [&](int64_t begin, int64_t end) {
            for (int64_t v = begin; v < end; ++v) load_corner(positions + 4 * v, v, near_plane, far_plane);
        });
        boxes.resize(faces);
        sides.resize(faces);
        nearest.resize(faces);
        signs.resize(faces);
        parallel_for(faces, 4096, [&](int64_t begin, int64_t end) {
            for (int64_t f = begin; f < end; ++f) load_face_of(triangles + 3 * f, f, width, height, near_plane);
        });
        find_near_side(triangles, faces);
    }

  private:
    // Position of a corner in the image, NaN if it is not visible or not finite; and its depth, NaN if not well between the planes.
    template <typename T>
    void load_corner(const T* from, int64_t v, double near_plane, double far_plane) {
        double *p = &points[4 * v], *s = &seen_[4 * v];
        for (int k = 0; k < 4; ++k) p[k] = double(from[k]);
        const bool is_seen = p[2] >= near_plane && p[3] > 0 && p[0] * 0 + p[1] * 0 + p[2] * 0 + p[3] * 0 == 0;
        const bool between = near_plane > 0 && p[2] > near_plane * (1 + 1e-9) && p[2] < far_plane * (1 - 1e-9);
        s[0] = is_seen ? p[0] / p[3] : NAN;
        s[1] = is_seen ? p[1] / p[3] : NAN;
        s[2] = between ? p[2] : NAN;
        s[3] = 0;
    }

    void load_face_of(const int32_t* corners, int64_t f, int width, int height, double near_plane) {
        const double *a = &seen_[4 * int64_t(corners[0])], *b = &seen_[4 * int64_t(corners[1])], *c = &seen_[4 * int64_t(corners[2])];
        const double sum = a[0] + b[0] + c[0] + a[1] + b[1] + c[1];
        if (!(sum == sum)) {
            const MeshFace face = load_face(points.data(), corners);
            boxes[f] = face_box(face, width, height, near_plane);
            signs[f] = area_sign(face);
            sides[f] = 0;
            return;
        }
        const double box[4] = {min(min(a[0], b[0]), c[0]), min(min(a[1], b[1]), c[1]), max(max(a[0], b[0]), c[0]),
                               max(max(a[1], b[1]), c[1])};
        boxes[f] = pixels_between(box, BOX_MARGIN, width, height);
        signs[f] = sign_unless_narrow(a[0] * b[1], b[0] * c[1], c[0] * a[1], a[0] * c[1], b[0] * a[1], c[0] * b[1]);
        const double depth = a[2] + b[2] + c[2];
        sides[f] = depth == depth ? signs[f] : int8_t(0);
        nearest[f] = float(min(min(a[2], b[2]), c[2]) * (1 - 1e-6));  // pixel depths are rounded
    }

    // By the mean depth of some of the faces of either side. It determines the order of drawing, not the result.
    void find_near_side(const int32_t* triangles, int64_t faces) {
        double sums[2] = {}, counts[2] = {};
        const int64_t step = faces / 512 + 1;
        for (int64_t f = 0; f < faces; f += step) {
            if (sides[f] == 0) continue;
            sums[sides[f] > 0] += points[4 * int64_t(triangles[3 * f]) + 2];
            counts[sides[f] > 0] += 1;
        }
        near_side = sums[1] * counts[0] <= sums[0] * counts[1] ? 1 : -1;
    }

    Scratch<double> seen_;  // (V,4)
};

}  // namespace vision3d::cpu
