#pragma once
#include "cuda/kernels/block.h"
#include "vision3d/antialias.h"
#include "vision3d/interpolate.h"
#include "vision3d/mesh.h"
#include "vision3d/texture.h"

// Meshes. Faces are drawn to a z-buffer of 64-bit keys, whose minimum wins in any order: small faces by one thread each, larger
// ones by the block that encounters them, and the largest ones through a queue that every tile of the image reads.
namespace vision3d::bodies {

constexpr int SMALL_BOX = 32, MEDIUM_BOX = 4096;  // maximum box size in pixels drawn by one thread, one block
constexpr int MESH_TILE = 16;                     // pixels; one thread each

// A face as shared by the threads of a block; id -1: none.
struct StagedFace {
    MeshFace face;
    PixelBox box;
    int32_t id;
};

struct StagedFaces {
    int32_t count;
    StagedFace faces[MAX_THREADS];
};

// Per image: number of queued faces, and their indices.
template <typename T>
V3D_BODY int32_t* face_queue(const MeshArgs<T>& a, int64_t image) {
    return a.queue + image * (a.faces + 1);
}

template <typename T>
V3D_BODY void clear_fragments(const MeshArgs<T>& a, int64_t i) {
    a.keys[i] = NO_FRAGMENT;
    if (i < a.images) *face_queue(a, i) = 0;
}

template <typename T>
V3D_BODY void load_staged(const MeshArgs<T>& a, int64_t image, int32_t id, StagedFace& s) {
    s.face = load_face(a.positions + 4 * image * a.vertices, a.triangles + 3 * int64_t(id));
    s.box = face_box(s.face, a.width, a.height, a.near_plane);
    s.id = id;
}

template <typename T>
V3D_BODY uint64_t key_at(const MeshArgs<T>& a, const StagedFace& s, int x, int y) {
    double e[3], depth;
    return covers(s.face, x + .5, y + .5, a.near_plane, a.far_plane, e, depth) ? fragment_key(depth, s.id) : NO_FRAGMENT;
}

// Every `step`-th pixel of a face's box, from the `first` one on; without divisions in the loop.
template <typename T>
V3D_BODY void draw_box(const MeshArgs<T>& a, int64_t image, const StagedFace& s, int first, int step) {
    const int width = s.box.x1 - s.box.x0, across = step % width, down = step / width;
    for (int x = s.box.x0 + first % width, y = s.box.y0 + first / width; y < s.box.y1; x += across, y += down) {
        if (x >= s.box.x1) {
            x -= width;
            if (++y >= s.box.y1) break;
        }
        const uint64_t key = key_at(a, s, x, y);
        if (key != NO_FRAGMENT) keep_least(a.keys[(image * a.height + y) * a.width + x], key);
    }
}

// Block b processes one block's number of faces of image b / chunks.
template <typename T>
V3D_BODY void draw_faces(const Block& block, const MeshArgs<T>& a, int64_t chunks, StagedFaces* staged) {
    const int64_t image = int(block.index) / int(chunks), first = int64_t(int(block.index) % int(chunks)) * block.threads;
    block.each([&](int t) {
        if (t == 0) staged->count = 0;
    });
    block.barrier();
    block.each([&](int t) {
        if (first + t >= a.faces) return;
        StagedFace s;
        load_staged(a, image, int32_t(first + t), s);
        const int64_t pixels = int64_t(s.box.x1 - s.box.x0) * (s.box.y1 - s.box.y0);
        if (s.box.x0 >= s.box.x1 || s.box.y0 >= s.box.y1) return;
        if (pixels <= SMALL_BOX) {
            draw_box(a, image, s, 0, 1);
        } else if (pixels <= MEDIUM_BOX) {
            staged->faces[next_place(staged->count)] = s;
        } else {
            int32_t* queue = face_queue(a, image);
            queue[1 + next_place(*queue)] = s.id;
        }
    });
    block.barrier();
    for (int32_t f = 0; f < staged->count; ++f) block.each([&](int t) { draw_box(a, image, staged->faces[f], t, block.threads); });
}

// Draws the queued faces in one tile of the image, then writes the outputs of its pixels.
template <typename T>
V3D_BODY void finish_fragments(const Block& block, const MeshArgs<T>& a, StagedFaces* staged) {
    const int tiles_x = (a.width + MESH_TILE - 1) / MESH_TILE, tiles_y = (a.height + MESH_TILE - 1) / MESH_TILE;
    const int tile = int(block.index) % (tiles_x * tiles_y), left = tile % tiles_x * MESH_TILE, top = tile / tiles_x * MESH_TILE;
    const int64_t image = int(block.index) / (tiles_x * tiles_y);
    const int32_t* queue = face_queue(a, image);
    const int32_t waiting = *queue;
    PerThread<uint64_t> keys(block.threads);
    block.each([&](int t) { keys[t] = NO_FRAGMENT; });
    for (int32_t first = 0; first < waiting; first += block.threads) {
        const int used = waiting - first < block.threads ? waiting - first : block.threads;
        block.barrier();
        block.each([&](int t) {
            if (t >= used) return;
            StagedFace& s = staged->faces[t];
            load_staged(a, image, queue[1 + first + t], s);
            if (s.box.x0 >= left + MESH_TILE || s.box.x1 <= left || s.box.y0 >= top + MESH_TILE || s.box.y1 <= top) s.id = -1;
        });
        block.barrier();
        block.each([&](int t) {
            for (int f = 0; f < used; ++f) {
                if (staged->faces[f].id < 0) continue;
                const uint64_t key = key_at(a, staged->faces[f], left + t % MESH_TILE, top + t / MESH_TILE);
                keys[t] = key < keys[t] ? key : keys[t];
            }
        });
    }
    block.each([&](int t) {
        const int x = left + t % MESH_TILE, y = top + t / MESH_TILE;
        if (x >= a.width || y >= a.height) return;
        const int64_t i = (image * a.height + y) * a.width + x;
        write_fragment(a, i, keys[t] < a.keys[i] ? keys[t] : a.keys[i]);
    });
}

// A face of an image as one number.
V3D_BODY int64_t face_key(int64_t image, int32_t face) { return image << 32 | face; }

// Corner k of the face, as an index of the vertices of all images.
template <typename Args>
V3D_BODY int64_t corner_of(const Args& a, int64_t key, int k) {
    return (key >> 32) * a.vertices + a.triangles[3 * int64_t(int32_t(key)) + k];
}

template <typename T>
V3D_BODY void rasterize_vjp(const Block& block, const MeshVjpArgs<T>& a) {
    const MeshArgs<T>& f = a.forward;
    const int64_t size = int64_t(f.width) * f.height;
    PerThread<T[12]> rows(block.threads);
    PerThread<int64_t> keys(block.threads);
    block.each([&](int t) {
        const int64_t i = block.index * block.threads + t;
        const int32_t face = i < f.images * size ? f.face_ids[i] : -1;
        double v[3][4] = {};
        if (face >= 0) fragment_vjp(a, i, face, v);
        for (int k = 0; k < 12; ++k) rows[t][k] = T(v[k / 4][k % 4]);
        keys[t] = face < 0 ? -1 : face_key(i / size, face);
    });
    block.add_by_key(rows, keys, [&](int64_t key, int k) -> T& { return a.v_positions[4 * corner_of(f, key, k / 4) + k % 4]; });
}

template <typename T>
V3D_BODY void interpolate_vjp(const Block& block, const InterpolateArgs<T>& a) {
    PerThread<T[3]> rows(block.threads);
    PerThread<int64_t> keys(block.threads);
    block.each([&](int t) {
        const int64_t i = block.index * block.threads + t, image = i / a.pixels;
        keys[t] = -1;
        if (i >= a.images * a.pixels) return;
        interpolate_pixel_vjp(a, i, a.channels);
        if (a.face_ids[i] >= 0) keys[t] = face_key(a.sets == 1 ? 0 : image, a.face_ids[i]);
    });
    for (int64_t c = 0; c < a.channels; ++c) {
        block.each([&](int t) {
            const int64_t i = block.index * block.threads + t;
            for (int k = 0; k < 3; ++k) rows[t][k] = keys[t] < 0 ? T(0) : a.barycentrics[3 * i + k] * a.v_values[i * a.channels + c];
        });
        block.add_by_key(rows, keys, [&](int64_t key, int k) -> T& { return a.v_attributes[corner_of(a, key, k) * a.channels + c]; });
    }
}

template <typename T>
V3D_BODY void texture_vjp(const TextureArgs<T>& a, int64_t i) {
    texture_pixel_vjp(a, i);
    T* set = a.v_textures + (a.sets == 1 ? 0 : i / a.pixels) * a.texels * a.channels;
    each_texel(a, i, [&](int64_t texel, T weight) {
        for (int64_t c = 0; c < a.channels; ++c) add(set[texel * a.channels + c], weight * a.v_values[i * a.channels + c], true);
    });
}

template <typename T>
V3D_BODY void find_pairs(const AntialiasArgs<T>& a, int64_t i) {
    const int64_t size = int64_t(a.width) * a.height, image = i / size;
    const int pixel = int(i - image * size);
    FaceLines lines;
    a.pairs[i] = find_pairs(a, image, pixel % a.width, pixel / a.width,
                            [&](int32_t face) -> const FaceLines& { return lines = face_lines(a, image, face); });
}

template <typename T>
V3D_BODY void antialias_vjp(const AntialiasArgs<T>& a, int64_t i) {
    antialias_pixel_vjp(a, i);
    const int64_t size = int64_t(a.width) * a.height, image = i / size;
    const int pixel = int(i - image * size), x = pixel % a.width, y = pixel / a.width;
    for (int n = 0; n < 2; ++n) {
        const bool vertical = n == 1;
        if (!is_marked(a, image, x, y, vertical)) continue;
        const PairBlend blend = blend_pair(a, image, x, y, vertical);
        if (blend.target < 0) continue;
        int32_t corners[2];
        double v[2][4] = {};
        blend_pair_vjp(a, image, x, y, vertical, blend, corners, v);
        for (int k = 0; k < 8; ++k) add(a.v_positions[4 * (image * a.vertices + corners[k / 4]) + k % 4], T(v[k / 4][k % 4]), true);
    }
}

}  // namespace vision3d::bodies
