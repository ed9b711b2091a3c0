#include "cpu/meshes.h"

#include <algorithm>
#include <type_traits>
#include <vector>
#include "cpu/dispatch.h"
#include "cpu/mesh_tiles.h"
#include "cpu/parallel.h"
#include "vision3d/interpolate.h"
#include "vision3d/mesh.h"

namespace vision3d::cpu {
namespace {

constexpr int64_t RUN_ROWS = 8;  // image rows per work item

// Pixels of an image row that show one face, from column x on; begin and end are counted over all images.
struct Run {
    int32_t face;
    int64_t image, x, y, begin, end;
};

// Sums over the pixels that show a face, of `width` numbers for each of its corners. add(sums, run) adds the pixels of
// a run, empty(run) is called for those without a face; finish(sums, face) converts the sums of a face to gradients of its corners,
// which are added to rows(image)[corner]. Threads process rows, and one thread adds in image order, so the result does not depend
// on the number of threads.
template <typename T, typename Width, typename Add, typename Empty, typename Finish, typename Rows>
void sum_faces(const int32_t* face_ids, int64_t images, int64_t height, int64_t row_pixels, int64_t faces, const int32_t* triangles,
               Width width, Add add, Empty empty, Finish finish, Rows rows) {
    struct Part {
        std::vector<int32_t> faces;  // in order of appearance
        std::vector<double> sums;
    };
    const int64_t size = 3 * int64_t(width), parts = (height + RUN_ROWS - 1) / RUN_ROWS;
    std::vector<Part> found(parts);
    for (int64_t image = 0; image < images; ++image) {
        parallel_for(parts, 1, [&](int64_t index, int64_t) {
            thread_local std::vector<int32_t> slots;  // index of each face in `part`; reset to -1 at the end
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

// body(channels), a compile-time constant if there are few.
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
    const MeshKernels& loops = kernels().meshes;
    MeshSetup setup;
    for (int64_t image = 0; image < a.images; ++image) {
        setup.load(a.positions + 4 * image * a.vertices, a.vertices, a.triangles, a.faces, a.width, a.height, a.near_plane, a.far_plane);
        draw_tiles(a, image, setup, [&](const MeshTile& tile) {
            if constexpr (sizeof(T) == 4)
                loops.finish(tile, a);
            else
                loops.finish64(tile, a);
        }, [&](int64_t first, int64_t end) { std::fill(a.barycentrics + 3 * first, a.barycentrics + 3 * end, T(0)); });
    }
}

template <typename T>
void rasterize_vjp(Loops, const MeshVjpArgs<T>& a) {
    const MeshArgs<T>& f = a.forward;
    static_assert(sizeof(FaceSums) == 12 * sizeof(double));
    sum_faces<T>(f.face_ids, f.images, f.height, f.width, f.faces, f.triangles, std::integral_constant<int64_t, 4>(),
                 [&](double* sums, const Run& run) {
        add_run(a, run.face, run.image, run.x, run.y, run.begin, run.end, *reinterpret_cast<FaceSums*>(sums));
    }, [](const Run&) {}, [&](double* sums, int64_t image, int32_t face) {
        const FaceSums s = *reinterpret_cast<const FaceSums*>(sums);  // a copy, as `sums` receives the result
        face_vjp(load_face(f.positions + 4 * image * f.vertices, f.triangles + 3 * int64_t(face)), s, reinterpret_cast<double(*)[4]>(sums));
    }, [&](int64_t image) { return a.v_positions + 4 * image * f.vertices; });
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
        sum_faces<T>(a.face_ids, a.images, a.height, a.pixels / std::max<int64_t>(a.height, 1), a.faces, a.triangles, channels,
                     [&](double* sums, const Run& run) { interpolate_run_vjp(a, run, channels, sums); },
                     [&](const Run& run) { std::fill(a.v_barycentrics + 3 * run.begin, a.v_barycentrics + 3 * run.end, T(0)); },
                     [](double*, int64_t, int32_t) {},
                     [&](int64_t image) { return a.v_attributes + (a.sets == 1 ? 0 : image) * a.vertices * a.channels; });
    });
}

#define V3D_INSTANTIATE(T)                                       \
    template void rasterize(Loops, const MeshArgs<T>&);          \
    template void rasterize_vjp(Loops, const MeshVjpArgs<T>&);   \
    template void interpolate(Loops, const InterpolateArgs<T>&); \
    template void interpolate_vjp(Loops, const InterpolateArgs<T>&);
V3D_INSTANTIATE(float)
V3D_INSTANTIATE(double)
#undef V3D_INSTANTIATE

}  // namespace vision3d::cpu
