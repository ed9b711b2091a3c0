#pragma once
// One block of a kernel, written once for both sides: a GPU runs it with many threads, the host shim with loops over them.
// Code outside the member functions runs once per thread on a GPU and once per block on the host, so state kept by a thread
// between two steps is in a PerThread, and no step reads another thread's state except through staged memory.
#include <cstdint>
#include "vision3d/macros.h"

#if !defined(__CUDACC__)
#include <vector>
#endif

#if defined(__CUDACC__)
#define V3D_BODY __device__ __forceinline__
#define V3D_UNROLL _Pragma("unroll")  // keeps arrays indexed by the loop in registers
#else
#define V3D_BODY inline
#define V3D_UNROLL
#endif

// A variable that the threads of a block share, and the place of a barrier: the emulator of cuda_ext/tests has one variable per
// block, and removes barriers one at a time.
#if defined(V3D_EMULATED)
#define V3D_SHARED(type, name) type& name = emulator::shared<type>(__builtin_FILE(), __builtin_LINE())
#define V3D_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define V3D_AT_PLACE file, line
#else
#define V3D_SHARED(type, name) __shared__ type name
#define V3D_PLACE
#define V3D_AT_PLACE
#endif

namespace vision3d {

constexpr int MAX_THREADS = 256;  // per block: the pixels of the largest tile

#if defined(__CUDACC__)

template <typename State>
class PerThread {
  public:
    __device__ explicit PerThread(int) {}
    __device__ __forceinline__ State& operator[](int) { return state_; }

  private:
    State state_;
};

struct Block {
    int64_t index;  // index of the block in the grid
    int threads;

    __device__ Block() : index(blockIdx.x), threads(int(blockDim.x)) {}

    // body(thread), without a barrier.
    template <typename Body>
    __device__ __forceinline__ void each(Body body) const {
        body(int(threadIdx.x));
    }

    __device__ __forceinline__ void barrier(V3D_PLACE) const { __syncthreads(V3D_AT_PLACE); }

    // Whether predicate(thread) holds for all threads; a barrier.
    template <typename Predicate>
    __device__ __forceinline__ bool all(Predicate predicate) const {
        return __syncthreads_and(predicate(int(threadIdx.x)));
    }

    // Largest value(thread), at least -1; a barrier.
    template <typename Value>
    __device__ __forceinline__ int max(Value value) const {
        V3D_SHARED(int, most);
        if (threadIdx.x == 0) most = -1;
        __syncthreads();
        atomicMax(&most, value(int(threadIdx.x)));
        __syncthreads();
        return most;
    }

    // The lanes of each thread's warp with the same key.
    __device__ __forceinline__ void match(PerThread<int64_t>& keys, PerThread<uint32_t>& lanes) const {
        lanes[0] = __match_any_sync(0xffffffffu, static_cast<unsigned long long>(keys[0]));
    }

    // The least value(thread) of the threads of a warp.
    template <typename Value>
    __device__ __forceinline__ int64_t least(Value value) const {
        long long least = value(int(threadIdx.x));
        for (int step = 16; step > 0; step /= 2) {
            const long long other = __shfl_xor_sync(0xffffffffu, least, step);
            least = other < least ? other : least;
        }
        return least;
    }

    // target[k] += the sum over threads of rows[thread][k], k < used <= N; `counts` tells for each thread whether its row is
    // nonzero. Blocks of 16 threads or of whole warps.
    template <int N, typename T>
    __device__ __forceinline__ void add_sums(PerThread<T[N]>& rows, PerThread<bool>& counts, int used, T* target) const {
        if (threads >= 32)
            add_lane_sums<32>(rows[0], counts[0], used, target);
        else
            add_lane_sums<16>(rows[0], counts[0], used, target);
    }

    // target(key, k) += the sum over the threads with that key of rows[thread][k]; threads with key -1 add nothing. A warp
    // with a single key, as inside a face, adds once. Blocks of whole warps.
    template <int N, typename T, typename Target>
    __device__ __forceinline__ void add_by_key(PerThread<T[N]>& rows, PerThread<int64_t>& keys, Target target) const {
        const int64_t key = keys[0];
        const unsigned some = __ballot_sync(0xffffffffu, key >= 0);
        if (!some) return;
        const int64_t first = __shfl_sync(0xffffffffu, key, __ffs(some) - 1);
        if (__all_sync(0xffffffffu, key < 0 || key == first)) {
            V3D_UNROLL
            for (int k = 0; k < N; ++k) {
                T sum = key < 0 ? T(0) : rows[0][k];
                for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
                if (int(threadIdx.x) % 32 == k % 32) atomicAdd(&target(first, k), sum);
            }
        } else if (key >= 0) {
            V3D_UNROLL
            for (int k = 0; k < N; ++k) atomicAdd(&target(key, k), rows[0][k]);
        }
    }

  private:
    template <int LANES, int N, typename T>
    __device__ __forceinline__ void add_lane_sums(T (&row)[N], bool counts, int used, T* target) const {
        constexpr unsigned WARP = LANES == 32 ? 0xffffffffu : (1u << LANES) - 1;
        if (__any_sync(WARP, counts)) add_chunks<LANES, 0>(row, WARP, used, target);
    }

    // Adds the sums of row[FIRST], row[FIRST + 1], ... in chunks of powers of two.
    template <int LANES, int FIRST, int N, typename T>
    __device__ __forceinline__ void add_chunks(T (&row)[N], unsigned warp, int used, T* target) const {
        constexpr int SIZE = chunk_size(N - FIRST, LANES), END = FIRST + SIZE < N ? FIRST + SIZE : N;
        T values[SIZE];
        V3D_UNROLL
        for (int k = 0; k < SIZE; ++k) values[k] = FIRST + k < N ? row[FIRST + k] : T(0);
        add_chunk<LANES, SIZE>(values, warp, END - FIRST, used - FIRST, target + FIRST);
        if constexpr (END < N) add_chunks<LANES, END>(row, warp, used, target);
    }

    // The next smaller power of two, or the next larger one if at least three quarters of it are used.
    __device__ static constexpr int chunk_size(int rest, int lanes) {
        int size = 1;
        while (2 * size <= rest && 2 * size <= lanes) size *= 2;
        return 2 * size <= lanes && 4 * rest >= 6 * size && rest > size ? 2 * size : size;
    }

    // A butterfly in which every step halves the values: the upper lanes of a pair take over the upper half of the values, and give
    // away the lower half. For 8 values and 32 lanes these are 9 shuffles, in place of 5 for each value.
    template <int LANES, int SIZE, typename T>
    __device__ __forceinline__ void add_chunk(T (&values)[SIZE], unsigned warp, int count, int used, T* target) const {
        constexpr int SHARE = LANES / SIZE;  // lanes that end with the same value
        const int lane = int(threadIdx.x) % LANES;
        V3D_UNROLL
        for (int step = LANES / 2, half = SIZE / 2; half > 0; step /= 2, half /= 2) {
            const bool is_upper = lane & step;
            V3D_UNROLL
            for (int k = 0; k < half; ++k) {
                const T mine = is_upper ? values[half + k] : values[k], given = is_upper ? values[k] : values[half + k];
                values[k] = mine + __shfl_xor_sync(warp, given, step);
            }
        }
        V3D_UNROLL
        for (int step = SHARE / 2; step > 0; step /= 2) values[0] += __shfl_xor_sync(warp, values[0], step);
        const int k = lane / SHARE;
        if (lane % SHARE == 0 && k < count && k < used) atomicAdd(target + k, values[0]);
    }
};

// target += value, where other threads may add as well.
template <typename T>
V3D_BODY void add(T& target, T value, bool shared) {
#if !defined(V3D_EMULATED)
    __builtin_assume(__isGlobal(&target));  // adding to shared memory would take a loop
#endif
    if (shared)
        atomicAdd(&target, value);
    else
        target += value;
}

V3D_BODY void keep_least(uint64_t& target, uint64_t value) {
    atomicMin(reinterpret_cast<unsigned long long*>(&target), static_cast<unsigned long long>(value));
}

// count++; each thread gets a unique number.
V3D_BODY int32_t next_place(int32_t& count) { return atomicAdd(&count, 1); }

V3D_BODY int lowest_bit(uint32_t bits) { return __ffs(bits) - 1; }

#else

template <typename State>
class PerThread {
  public:
    explicit PerThread(int threads) : states_(threads) {}
    State& operator[](int thread) { return states_[thread].value; }

  private:
    struct Holder {
        State value;
    };  // std::vector supports neither arrays nor plain bools
    std::vector<Holder> states_;
};

struct Block {
    int64_t index;
    int threads;

    template <typename Body>
    void each(Body body) const {
        for (int t = 0; t < threads; ++t) body(t);
    }

    void barrier() const {}

    template <typename Predicate>
    bool all(Predicate predicate) const {
        for (int t = 0; t < threads; ++t)
            if (!predicate(t)) return false;
        return true;
    }

    template <typename Value>
    int max(Value value) const {
        int most = -1;
        for (int t = 0; t < threads; ++t) most = value(t) > most ? value(t) : most;
        return most;
    }

    void match(PerThread<int64_t>& keys, PerThread<uint32_t>& lanes) const {
        for (int t = 0; t < threads; ++t) {
            lanes[t] = 0;
            for (int lane = 0; lane < 32 && t / 32 * 32 + lane < threads; ++lane)
                if (keys[t / 32 * 32 + lane] == keys[t]) lanes[t] |= 1u << lane;
        }
    }

    template <typename Value>
    int64_t least(Value value) const {
        int64_t least = value(0);
        for (int t = 1; t < threads; ++t) least = value(t) < least ? value(t) : least;
        return least;
    }

    template <int N, typename T>
    void add_sums(PerThread<T[N]>& rows, PerThread<bool>& counts, int used, T* target) const {
        for (int t = 0; t < threads; ++t)
            for (int k = 0; counts[t] && k < used; ++k) target[k] += rows[t][k];
    }

    template <int N, typename T, typename Target>
    void add_by_key(PerThread<T[N]>& rows, PerThread<int64_t>& keys, Target target) const {
        for (int t = 0; t < threads; ++t)
            for (int k = 0; keys[t] >= 0 && k < N; ++k) target(keys[t], k) += rows[t][k];
    }
};

template <typename T>
V3D_BODY void add(T& target, T value, bool) {
    target += value;
}

V3D_BODY void keep_least(uint64_t& target, uint64_t value) { target = value < target ? value : target; }

V3D_BODY int32_t next_place(int32_t& count) { return count++; }

V3D_BODY int lowest_bit(uint32_t bits) { return __builtin_ctz(bits); }

#endif

}  // namespace vision3d
