#include <algorithm>
#include <cstring>
#include <vector>
#include "cpu/dispatch.h"
#include "cpu/mesh_tiles.h"
#include "cpu/meshes.h"
#include "cpu/outlines.h"

// Attributes with silhouettes in one pass, and their gradients in another: equivalent to `rasterize`, `interpolate` and
// `antialias` one after the other, without intermediate images.
namespace vision3d::cpu {
namespace {

constexpr int64_t SUM_ROWS = 16;  // image rows per work item

template <typename T>
AntialiasArgs<T> antialias_args(const MeshImageArgs<T>& p) {
    const MeshArgs<T>& m = p.mesh;
    AntialiasArgs<T> a{};
    a.images = m.images;
    a.vertices = m.vertices;
    a.faces = m.faces;
    a.channels = p.channels;
    a.width = m.width;
    a.height = m.height;
    a.positions = m.positions;
    a.triangles = m.triangles;
    a.neighbors = p.neighbors;
    a.face_ids = m.face_ids;
    a.depths = m.depths;
    a.pairs = p.pairs;
    return a;
}

// The color of a pixel before antialiasing, counted over all images.
template <typename T>
void color_of(const MeshImageArgs<T>& p, int64_t i, double* color) {
    const MeshArgs<T>& m = p.mesh;
    std::fill(color, color + p.channels, 0.);
    const int32_t face = m.face_ids[i];
    if (face < 0) return;
    const int64_t size = int64_t(m.width) * m.height, image = i / size, pixel = i % size;
    const int32_t* triangle = m.triangles + 3 * int64_t(face);
    double e[3];
    edge_functions(load_face(m.positions + 4 * image * m.vertices, triangle), double(pixel % m.width) + .5, double(pixel / m.width) + .5,
                   e);
    const double scale = 1 / (e[0] + e[1] + e[2]);
    const T* set = p.attributes + (p.sets == 1 ? 0 : image) * m.vertices * p.channels;
    for (int k = 0; k < 3; ++k)
        for (int64_t c = 0; c < p.channels; ++c) color[c] += e[k] * scale * double(set[triangle[k] * p.channels + c]);
}

// Contribution of some rows to the gradients.
struct Part {
    std::vector<int32_t> faces;  // in order of appearance
    std::vector<int64_t> first;  // pixels of the image of their first appearance
    std::vector<PixelShare> shares;
    Scratch<double> rows;  // see FaceRow
    struct Edge {
        int32_t corners[2];
        double v[2][4];
    };
    std::vector<Edge> edges;
};

template <typename T>
void find_shares(const MeshImageArgs<T>& p, const AntialiasArgs<T>& a, int64_t image, int64_t begin, int64_t end, Part& part) {
    std::vector<double> colors(2 * p.channels);
    LinesMet<T> met(a, image);
    const auto lines = [&](int32_t face) -> const FaceLines& { return met(face); };
    const int64_t width = a.width, last = (image * a.height + end) * width;
    for (int64_t i = (image * a.height + begin) * width; i < last; ++i) {
        uint64_t eight;
        while (i + 8 <= last && (std::memcpy(&eight, a.pairs + i, 8), eight == 0)) i += 8;
        if (i >= last) break;
        if (a.pairs[i] == 0) continue;
        const int x = int(i % width), y = int(i / width % a.height);
        for (const bool vertical : {false, true}) {
            if (!is_marked(a, image, x, y, vertical)) continue;
            const PairBlend blend = blend_pair(a, image, x, y, vertical, lines);
            if (blend.target < 0) continue;
            const Blended pair = blended(blend, i, i + (vertical ? width : 1));
            color_of(p, pair.target, colors.data());
            color_of(p, pair.from, colors.data() + p.channels);
            double v_weight = 0;
            for (int64_t c = 0; c < p.channels; ++c)
                v_weight += double(p.v_colors[pair.target * p.channels + c]) * (colors[p.channels + c] - colors[c]);
            Part::Edge edge{};
            blend_weight_vjp(a, image, x, y, vertical, blend, v_weight, edge.corners, edge.v);
            part.edges.push_back(edge);
            if (a.face_ids[pair.target] >= 0) part.shares.push_back({pair.target, pair.target, -pair.weight});
            if (a.face_ids[pair.from] >= 0) part.shares.push_back({pair.from, pair.target, pair.weight});
        }
    }
}

// The sums over rows [begin, end) of an image.
template <typename T>
void sum_part(const MeshImageArgs<T>& p, const AntialiasArgs<T>& a, int64_t image, int64_t begin, int64_t end, Part& part) {
    const MeshArgs<T>& m = p.mesh;
    thread_local std::vector<int32_t> slots;  // index of each face in `part`; reset to -1 at the end
    if (int64_t(slots.size()) < m.faces) slots.assign(m.faces, -1);
    part.faces.clear();
    part.first.clear();
    part.shares.clear();
    part.edges.clear();
    find_shares(p, a, image, begin, end, part);
    const int64_t pixels = int64_t(m.width) * m.height, last = end * m.width;
    const int32_t* ids = m.face_ids + image * pixels;
    int32_t* slot = slots.data();
    const auto meet = [&](int64_t pixel) {
        const int32_t face = ids[pixel];
        if (face < 0 || slot[face] >= 0) return;
        slot[face] = int32_t(part.faces.size());
        part.faces.push_back(face);
        part.first.push_back(pixel);
    };
    for (int64_t i = begin * m.width; i < last; ++i) {
        if (ids[i] >= 0) {
            meet(i);
            continue;
        }
        int64_t two;
        while (i + 3 <= last && (std::memcpy(&two, ids + i + 1, 8), two == -1)) i += 2;
    }
    for (const PixelShare& share : part.shares) meet(share.pixel - image * pixels);
    part.rows.resize(FaceRow::size(p.channels) * int64_t(part.faces.size()));
    const FaceSumsArgs<T> sums{image,
                               begin,
                               end,
                               int64_t(part.faces.size()),
                               part.faces.data(),
                               part.first.data(),
                               slot,
                               int64_t(part.shares.size()),
                               part.shares.data(),
                               part.rows.data()};
    if constexpr (sizeof(T) == 4)
        kernels().meshes.sum_faces(p, sums);
    else
        kernels().meshes.sum_faces64(p, sums);
    for (const int32_t face : part.faces) slot[face] = -1;
}

template <typename T>
void add_part(const MeshImageArgs<T>& p, int64_t image, const Part& part) {
    const MeshArgs<T>& m = p.mesh;
    const int64_t D = p.channels, size = FaceRow::size(D);
    T* v_positions = p.v_positions + 4 * image * m.vertices;
    T* v_attributes = p.v_attributes + (p.sets == 1 ? 0 : image) * m.vertices * D;
    for (size_t n = 0; n < part.faces.size(); ++n) {
        const double *row = part.rows.data() + n * size, *sums = row + FaceRow::ATTRIBUTES + 4 * D;
        for (int k = 0; k < 3; ++k) {
            const int64_t corner = m.triangles[3 * int64_t(part.faces[n]) + k];
            T *to = v_positions + 4 * corner, *by = v_attributes + D * corner;
            to[0] += T(row[k]);
            to[1] += T(row[4 + k]);
            to[3] += T(row[8 + k]);
            for (int64_t c = 0; c < D; ++c) by[c] += T(sums[4 * c + k]);
        }
    }
    for (const Part::Edge& edge : part.edges)
        for (int k = 0; k < 8; ++k) v_positions[4 * int64_t(edge.corners[k / 4]) + k % 4] += T(edge.v[k / 4][k % 4]);
}

}  // namespace

template <typename T>
void draw_mesh(Loops, const MeshImageArgs<T>& p) {
    const MeshArgs<T>& m = p.mesh;
    const AntialiasArgs<T> a = antialias_args(p);
    const MeshKernels& loops = kernels().meshes;
    const int64_t D = p.channels;
    struct Changes {
        std::vector<int64_t> targets;
        std::vector<T> values;
    };
    std::vector<Changes> found((m.height + PAIR_ROWS - 1) / PAIR_ROWS);
    MeshSetup setup;
    Outlines<T> outlines(a);
    for (int64_t image = 0; image < m.images; ++image) {
        setup.load(m.positions + 4 * image * m.vertices, m.vertices, m.triangles, m.faces, m.width, m.height, m.near_plane, m.far_plane);
        draw_tiles(m, image, setup, [&](const MeshTile& tile) {
            if constexpr (sizeof(T) == 4)
                loops.shade(tile, p);
            else
                loops.shade64(tile, p);
        }, [&](int64_t first, int64_t end) { std::fill(p.colors + first * D, p.colors + end * D, T(0)); });
        outlines.load(image, setup.signs.data());
        // Colors change only after all pairs have read them.
        parallel_for(m.height, PAIR_ROWS, [&](int64_t begin, int64_t end) {
            Changes& changes = found[begin / PAIR_ROWS];
            changes.targets.clear();
            changes.targets.reserve(64);
            changes.values.clear();
            changes.values.reserve(64 * D);
            outlines.each_blend(begin, end, [&](const Blended& pair) {
                changes.targets.push_back(pair.target);
                for (int64_t c = 0; c < D; ++c)
                    changes.values.push_back(T(pair.weight) * (p.colors[pair.from * D + c] - p.colors[pair.target * D + c]));
            });
        });
        for (const Changes& changes : found)
            for (size_t n = 0; n < changes.targets.size(); ++n)
                for (int64_t c = 0; c < D; ++c) p.colors[changes.targets[n] * D + c] += changes.values[n * D + c];
    }
}

template <typename T>
void draw_mesh_vjp(Loops, const MeshImageArgs<T>& p) {
    const MeshArgs<T>& m = p.mesh;
    const AntialiasArgs<T> a = antialias_args(p);
    // A few parts at a time, so that their sums stay in the cache until they are added.
    const int64_t count = (m.height + SUM_ROWS - 1) / SUM_ROWS, together = num_threads() == 1 ? 1 : 4 * num_threads();
    std::vector<Part> parts(std::min(m.images * count, together));
    for (int64_t turn = 0; turn < m.images * count; turn += together) {
        const int64_t used = std::min(together, m.images * count - turn);
        parallel_for(used, 1, [&](int64_t n, int64_t) {
            const int64_t image = (turn + n) / count, begin = (turn + n) % count * SUM_ROWS;
            sum_part(p, a, image, begin, std::min<int64_t>(begin + SUM_ROWS, m.height), parts[n]);
        });
        // One thread adds in image order, so the result does not depend on the number of threads.
        for (int64_t n = 0; n < used; ++n) add_part(p, (turn + n) / count, parts[n]);
    }
}

template void draw_mesh(Loops, const MeshImageArgs<float>&);
template void draw_mesh(Loops, const MeshImageArgs<double>&);
template void draw_mesh_vjp(Loops, const MeshImageArgs<float>&);
template void draw_mesh_vjp(Loops, const MeshImageArgs<double>&);

}  // namespace vision3d::cpu
