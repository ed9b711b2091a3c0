#pragma once
#include <cstdint>

// Runs CUDA kernels on a CPU, with every CUDA thread as a fiber of ThreadSanitizer. Fibers change in random order at barriers, at
// warp operations and around atomics. Only barriers, and the start and the end of a launch, order the accesses of two threads, so
// ThreadSanitizer reports each race of the kernel, whichever order was drawn: also those that the lockstep of a warp hides on
// some GPUs. The runtime itself is compiled without ThreadSanitizer, so its own memory orders nothing.
//
// Environment: V3D_EMULATOR_SEED of the order; V3D_EMULATOR_REMOVE="LAUNCH FILE:LINE" removes that barrier; V3D_EMULATOR_LOG is a
// file to which the first launch of each kernel and the first use of each barrier by a test are appended.
namespace emulator {

struct Index {
    unsigned x = 0, y = 0, z = 0;
};

// The built-in variables of a CUDA thread.
struct Variables {
    Index thread, block, block_size;
};

extern const Variables* current;

using Body = void (*)(const void*);
void launch(const char* name, const void* kernel, int64_t blocks, int threads, Body body, const void* closure);

// Calls body() once per CUDA thread. Throws std::runtime_error for a deadlock or an invalid warp operation.
template <typename Function>
void launch(const char* name, const void* kernel, int64_t blocks, int threads, const Function& body) {
    launch(name, kernel, blocks, threads, [](const void* closure) { (*static_cast<const Function*>(closure))(); }, &body);
}

// All threads of the block meet. Returns whether `holds` in all of them; without waiting if this barrier was removed.
bool barrier(const char* file, int line, bool holds);

// All lanes of `mask` meet, in the same operation, and get the value of each lane.
void exchange(const char* operation, unsigned mask, uint64_t value, uint64_t values[32]);

// Lets other threads run first, at random.
void hesitate();

// Ends the launch with an error.
[[noreturn]] void fail(const char* what);

// Memory of the block, filled with garbage at its start; one variable per place in the source.
void* shared_memory(const char* file, int line, uint64_t size);

template <typename T>
T& shared(const char* file, int line) {
    return *static_cast<T*>(shared_memory(file, line, sizeof(T)));
}

// The number of kernels that were launched, to notice a test that launched none.
int64_t launches();

}  // namespace emulator
