#include "cpu/meshes.h"

#include <algorithm>
#include <type_traits>
#include <vector>
#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "vision3d/interpolate.h"
#include "vision3d/mesh.h"

namespace vision3d::cpu {
namespace {

// Corners of one image in double, and where each is seen; NaN where it is not, or is not finite.
struct Corners {
    std::vector<double> points, pixels;  // (V,4) (V,2)

    template <typename T>
    void load(const T* positions, int64_t count, double near_plane) {
        points.resize(4 * count);
        pixels.resize(2 * count);
        parallel_for(count, 8192, [&](int64_t begin, int64_t end) {
            for (int64_t v = begin; v < end; ++v) {
                double* p = &points[4 * v];
                for (int k = 0; k < 4; ++k) p[k] = double(positions[4 * v + k]);
                const bool seen = p[2] >= near_plane && p[3] > 0 && p[0] * 0 + p[1] * 0 + p[2] * 0 + p[3] * 0 == 0;
                pixels[2 * v] = seen ? p[0] / p[3] : NAN;
                pixels[2 * v + 1] = seen ? p[1] / p[3] : NAN;
            }
        });
    }

    PixelBox box(const int32_t* face, int width, int height, double near_plane) const {
        double sum = 0, box[4] = {1e300, 1e300, -1e300, -1e300};
        for (int i = 0; i < 3; ++i) {
            const double x = pixels[2 * int64_t(face[i])], y = pixels[2 * int64_t(face[i]) + 1];
            sum += x + y;
            box[0] = min(box[0], x); box[1] = min(box[1], y);
            box[2] = max(box[2], x); box[3] = max(box[3], y);
        }
        if (sum == sum) return pixels_between(box, BOX_MARGIN, width, height);
        return face_box(load_face(points.data(), face), width, height, near_plane);
    }
};

// Faces of one image by the tiles that their boxes touch, each list in the order of the faces.
struct TileLists {
    std::vector<int64_t> begins;
    std::vector<int32_t> faces;

    TileLists(const std::vector<PixelBox>& boxes, int tiles_x, int tiles_y) : begins(int64_t(tiles_x) * tiles_y + 1, 0) {
        const auto each = [&](auto&& visit) {
            for (size_t f = 0; f < boxes.size(); ++f) {
                const PixelBox& b = boxes[f];
                if (b.x0 >= b.x1 || b.y0 >= b.y1) continue;
                for (int ty = b.y0 / MESH_TILE_H; ty <= (b.y1 - 1) / MESH_TILE_H; ++ty)
                    for (int tx = b.x0 / MESH_TILE_W; tx <= (b.x1 - 1) / MESH_TILE_W; ++tx) visit(int64_t(ty) * tiles_x + tx, int32_t(f));
            }
        };
        each([&](int64_t tile, int32_t) { ++begins[tile + 1]; });
        for (size_t t = 1; t < begins.size(); ++t) begins[t] += begins[t - 1];
        faces.resize(begins.back());
        std::vector<int64_t> next(begins.begin(), begins.end() - 1);
        each([&](int64_t tile, int32_t face) { faces[next[tile]++] = face; });
    }
};

template <typename T>
void draw_tile(const MeshArgs<T>& a, int64_t image, const MeshFaces& faces, const TileLists& lists, int64_t tile, int tiles_x) {
    const int left = int(tile % tiles_x) * MESH_TILE_W, top = int(tile / tiles_x) * MESH_TILE_H;
    const int right = std::min(left + MESH_TILE_W, a.width), bottom = std::min(top + MESH_TILE_H, a.height);
    const int64_t begin = lists.begins[tile], count = lists.begins[tile + 1] - begin;
    if (count == 0) {
        for (int y = top; y < bottom; ++y) {
            const int64_t first = (image * a.height + y) * a.width + left, end = first + right - left;
            std::fill(a.face_ids + first, a.face_ids + end, -1);
            std::fill(a.depths + first, a.depths + end, T(0));
            std::fill(a.barycentrics + 3 * first, a.barycentrics + 3 * end, T(0));
        }
        return;
    }
    MeshTile drawn;
    drawn.image = image;
    drawn.left = left; drawn.top = top; drawn.right = right; drawn.bottom = bottom;
    std::fill(std::begin(drawn.keys), std::end(drawn.keys), NO_KEY);
    std::memset(drawn.e, 0, sizeof drawn.e);
    std::memset(drawn.depth, 0, sizeof drawn.depth);
    const MeshKernels& loops = kernels().meshes;
    loops.draw(faces, lists.faces.data() + begin, count, drawn);
    if constexpr (sizeof(T) == 4) loops.finish(drawn, a);
    else loops.finish64(drawn, a);
}

constexpr int64_t RUN_ROWS = 8;  // rows of a picture that a thread takes at once

// Pixels of a row of an image that show one face, from column x on; begin and end are counted over all images.
struct Run {
    int32_t face;
    int64_t image, x, y, begin, end;
};

// Sums over the pixels that show a face, of `width` numbers for each of its corners. add(sums, run) adds the pixels of
// a run, empty(run) is called for those without a face; finish(sums, face) turns the sums of a face into gradients of its corners;
// these go to rows(image)[corner]. Threads take some rows each, and one adds in the order of the picture, so the bits do not depend
// on their number.
template <typename T, typename Width, typename Add, typename Empty, typename Finish, typename Rows>
void sum_faces(const int32_t* face_ids, int64_t images, int64_t height, int64_t row_pixels, int64_t faces, const int32_t* triangles,
               Width width, Add add, Empty empty, Finish finish, Rows rows) {
    struct Part {
        std::vector<int32_t> faces;  // in the order in which they are met
        std::vector<double> sums;
    };
    const int64_t size = 3 * int64_t(width), parts = (height + RUN_ROWS - 1) / RUN_ROWS;
    std::vector<Part> found(parts);
    for (int64_t image = 0; image < images; ++image) {
        parallel_for(parts, 1, [&](int64_t index, int64_t) {
            thread_local std::vector<int32_t> slots;  // of each face in `part`; left at -1
            if (int64_t(slots.size()) < faces) slots.assign(faces, -1);
            Part& part = found[index];
            part.faces.clear();
            part.sums.clear();
            for (int64_t y = index * RUN_ROWS; y < std::min(height, (index + 1) * RUN_ROWS); ++y) {
                const int64_t first = (image * height + y) * row_pixels, last = first + row_pixels;
                for (int64_t i = first; i < last;) {
                    const int32_t face = face_ids[i];
                    const int64_t begin = i++;
                    while (i < last && face_ids[i] == face) ++i;
                    const Run run{face, image, begin - first, y, begin, i};
                    if (face < 0) {
                        empty(run);
                        continue;
                    }
                    if (slots[face] < 0) {
                        slots[face] = int32_t(part.faces.size());
                        part.faces.push_back(face);
                        part.sums.resize(part.sums.size() + size, 0.);
                    }
                    add(part.sums.data() + slots[face] * size, run);
                }
            }
            for (size_t n = 0; n < part.faces.size(); ++n) {
                finish(part.sums.data() + n * size, image, part.faces[n]);
                slots[part.faces[n]] = -1;
            }
        });
        T* to = rows(image);
        for (const Part& part : found)
            for (size_t n = 0; n < part.faces.size(); ++n)
                for (int k = 0; k < 3; ++k) {
                    T* row = to + int64_t(width) * triangles[3 * int64_t(part.faces[n]) + k];
                    for (int64_t c = 0; c < width; ++c) row[c] += T(part.sums[n * size + k * width + c]);
                }
    }
}

// Gradients by the barycentrics of the pixels of a run; adds those by the corners' attributes to sums.
template <typename T, typename N>
void interpolate_run_vjp(const InterpolateArgs<T>& a, const Run& run, N channels, double* sums) {
    const T* set = a.attributes + (a.sets == 1 ? 0 : run.image) * a.vertices * channels;
    const T* attributes[3];
    for (int k = 0; k < 3; ++k) attributes[k] = set + a.triangles[3 * int64_t(run.face) + k] * int64_t(channels);
    for (int64_t i = run.begin; i < run.end; ++i) {
        const T* v = a.v_values + i * channels;
        const double b[3] = {double(a.barycentrics[3 * i]), double(a.barycentrics[3 * i + 1]), double(a.barycentrics[3 * i + 2])};
        T by[3] = {};
        for (int64_t c = 0; c < channels; ++c) {
            const T value = v[c];
            for (int k = 0; k < 3; ++k) {
                by[k] += attributes[k][c] * value;
                sums[k * channels + c] += b[k] * double(value);
            }
        }
        for (int k = 0; k < 3; ++k) a.v_barycentrics[3 * i + k] = by[k];
    }
}

// body(channels), a constant where there are few.
template <typename Body>
void with_few_channels(int64_t channels, Body body) {
    switch (channels) {
        case 1: return body(std::integral_constant<int64_t, 1>());
        case 2: return body(std::integral_constant<int64_t, 2>());
        case 3: return body(std::integral_constant<int64_t, 3>());
        case 4: return body(std::integral_constant<int64_t, 4>());
        default: return body(channels);
    }
}

}  // namespace

template <typename T>
void rasterize(Loops, const MeshArgs<T>& a) {
    const int tiles_x = (a.width + MESH_TILE_W - 1) / MESH_TILE_W, tiles_y = (a.height + MESH_TILE_H - 1) / MESH_TILE_H;
    std::vector<PixelBox> boxes(a.faces);
    Corners corners;
    for (int64_t image = 0; image < a.images; ++image) {
        corners.load(a.positions + 4 * image * a.vertices, a.vertices, a.near_plane);
        parallel_for(a.faces, 4096, [&](int64_t begin, int64_t end) {
            for (int64_t f = begin; f < end; ++f) boxes[f] = corners.box(a.triangles + 3 * f, a.width, a.height, a.near_plane);
        });
        const MeshFaces faces{corners.points.data(), a.triangles, boxes.data(), a.near_plane, a.far_plane};
        const TileLists lists(boxes, tiles_x, tiles_y);
        parallel_for(int64_t(tiles_x) * tiles_y, 1, [&](int64_t tile, int64_t) { draw_tile(a, image, faces, lists, tile, tiles_x); });
    }
}

template <typename T>
void rasterize_vjp(Loops, const MeshVjpArgs<T>& a) {
    const MeshArgs<T>& f = a.forward;
    static_assert(sizeof(FaceSums) == 12 * sizeof(double));
    sum_faces<T>(
        f.face_ids, f.images, f.height, f.width, f.faces, f.triangles, std::integral_constant<int64_t, 4>(),
        [&](double* sums, const Run& run) {
            add_run(a, run.face, run.image, run.x, run.y, run.begin, run.end, *reinterpret_cast<FaceSums*>(sums));
        },
        [](const Run&) {},
        [&](double* sums, int64_t image, int32_t face) {
            const FaceSums s = *reinterpret_cast<const FaceSums*>(sums);  // a copy: `sums` takes the result
            face_vjp(load_face(f.positions + 4 * image * f.vertices, f.triangles + 3 * int64_t(face)), s, reinterpret_cast<double(*)[4]>(sums));
        },
        [&](int64_t image) { return a.v_positions + 4 * image * f.vertices; });
}

template <typename T>
void interpolate(Loops, const InterpolateArgs<T>& a) {
    with_few_channels(a.channels, [&](auto channels) {
        parallel_for(a.images * a.pixels, 4096, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) interpolate_pixel(a, i, channels);
        });
    });
}

template <typename T>
void interpolate_vjp(Loops, const InterpolateArgs<T>& a) {
    with_few_channels(a.channels, [&](auto channels) {
        sum_faces<T>(
            a.face_ids, a.images, a.height, a.pixels / std::max<int64_t>(a.height, 1), a.faces, a.triangles, channels,
            [&](double* sums, const Run& run) { interpolate_run_vjp(a, run, channels, sums); },
            [&](const Run& run) { std::fill(a.v_barycentrics + 3 * run.begin, a.v_barycentrics + 3 * run.end, T(0)); },
            [](double*, int64_t, int32_t) {},
            [&](int64_t image) { return a.v_attributes + (a.sets == 1 ? 0 : image) * a.vertices * a.channels; });
    });
}

#define V3D_INSTANTIATE(T)                                     \
    template void rasterize(Loops, const MeshArgs<T>&);        \
    template void rasterize_vjp(Loops, const MeshVjpArgs<T>&); \
    template void interpolate(Loops, const InterpolateArgs<T>&); \
    template void interpolate_vjp(Loops, const InterpolateArgs<T>&);
V3D_INSTANTIATE(float)
V3D_INSTANTIATE(double)
#undef V3D_INSTANTIATE

}  // namespace vision3d::cpu
