#include "emulator.h"

#include <dlfcn.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

extern "C" {
// Of ThreadSanitizer and AddressSanitizer; absent if the module is built without.
__attribute__((weak)) void* __tsan_get_current_fiber();
__attribute__((weak)) void* __tsan_create_fiber(unsigned flags);
__attribute__((weak)) void __tsan_switch_to_fiber(void* fiber, unsigned flags);
__attribute__((weak)) void __tsan_acquire(void* address);
__attribute__((weak)) void __tsan_release(void* address);
__attribute__((weak)) void __sanitizer_start_switch_fiber(void** saved, const void* stack, size_t size);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void* saved, const void** stack, size_t* size);

// Saves the registers that functions preserve and the stack pointer, and loads those of another stack.
void v3d_emulator_switch(void** from, void* to);
}

#if !defined(__x86_64__)
#error "the emulator switches stacks on x86-64 only"
#endif
asm(R"(
.text
.type v3d_emulator_switch, @function
v3d_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size v3d_emulator_switch, .-v3d_emulator_switch
)");

namespace emulator {

const Variables* current = nullptr;

namespace {

constexpr unsigned NO_SYNC = 1;                    // a switch of fibers orders nothing
constexpr size_t STACK = 256 << 10, GUARD = 4096;  // bytes
constexpr size_t MAX_SHARED = 48 << 10;            // bytes per block
constexpr int MAX_RESIDENT = 1024;                 // CUDA threads at once
constexpr int HESITATION = 8;                      // one atomic in this many lets others run first

struct Place {
    const char* file;
    int line;
    bool operator==(const Place& other) const { return line == other.line && std::strcmp(file, other.file) == 0; }
};

// What a thread did before release() is ordered before what another one does after acquire().
struct Gate {
    char address;
    void release() {
        if (__tsan_release) __tsan_release(&address);
    }
    void acquire() {
        if (__tsan_acquire) __tsan_acquire(&address);
    }
};

// A stack with what runs on it.
struct Context {
    const void* stack = nullptr;
    size_t size = 0;
    void* top = nullptr;  // stack pointer while others run
    void* sanitizer = nullptr;
};

// What a CUDA thread asks from the scheduler. The scheduler alone changes the runtime's memory: the allocator and functions such as
// memcpy are visible to ThreadSanitizer, which would report fibers that share memory in this way.
enum class Ask { TURN, END, FAIL, BARRIER, EXCHANGE, SHARED };

struct Block;

struct Fiber {
    Variables variables;
    Block* block = nullptr;
    Context context;
    Ask ask = Ask::TURN;
    const char* text = nullptr;           // of FAIL; operation of EXCHANGE
    Place place{nullptr, 0};              // of BARRIER and SHARED
    uint64_t value = 0;                   // given to BARRIER (holds), EXCHANGE, SHARED (size)
    unsigned mask = 0;                    // of EXCHANGE
    uint64_t* values = nullptr;           // for the result of EXCHANGE
    void* memory = nullptr;               // result of SHARED
    bool holds = false, removed = false;  // results of BARRIER
};

// Lanes of a warp that wait for the others of their mask.
struct Meeting {
    const char* operation;
    unsigned mask, arrived;
    Fiber* lanes[32];
};

struct Variable {
    Place place;
    std::unique_ptr<char[]> memory;
};

struct Block {
    int threads = 0, ended = 0;
    std::vector<Fiber*> waiting;  // at `barrier`
    Place barrier{nullptr, 0};
    unsigned generation = 0;            // number of barriers passed
    Gate gates[2];                      // two: a fast thread reaches the next barrier before a slow one has left the last one
    std::vector<Meeting> meetings[32];  // per warp
    std::vector<Variable> variables;
    size_t shared = 0;  // bytes
    Gate filled;        // shared memory is filled with garbage
};

struct Site {
    Place place;
    bool removed;
};

struct Launch {
    std::string name;
    Body body = nullptr;
    const void* closure = nullptr;
    Gate start, end;
    std::vector<Fiber*> ready, fibers;           // fibers: all that it used
    std::vector<std::unique_ptr<Block>> blocks;  // kept to the end, so that no memory is used by two blocks
    std::vector<Site> sites;
    std::string error;
};

std::mutex turn;  // launches take turns
Launch* now = nullptr;
Fiber* running = nullptr;
Context scheduler;
std::vector<Fiber*> idle;
int64_t launch_count = 0;

uint64_t first_random() {
    const char* const seed = std::getenv("V3D_EMULATOR_SEED");
    return seed ? std::strtoull(seed, nullptr, 10) : 0;
}

uint64_t random_state = first_random();

size_t random_below(size_t count) {  // splitmix64
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return size_t((z ^ z >> 31) % count);
}

template <typename T>
T take_random(std::vector<T>& from) {
    std::swap(from[random_below(from.size())], from.back());
    const T taken = from.back();
    from.pop_back();
    return taken;
}

std::string text_of(const Place& place) {
    const char* const slash = std::strrchr(place.file, '/');
    return std::string(slash ? slash + 1 : place.file) + ":" + std::to_string(place.line);
}

// Appends a line to the log, once per test.
void note(const std::string& what) {
    static const char* const path = std::getenv("V3D_EMULATOR_LOG");
    static std::set<std::string> written;
    if (!path) return;
    const char* const test = std::getenv("PYTEST_CURRENT_TEST");
    const std::string line = what + '\t' + (test ? test : "") + '\n';
    if (!written.insert(line).second) return;
    std::FILE* const file = std::fopen(path, "a");
    if (!file) throw std::runtime_error(std::string("emulator: cannot write ") + path);
    std::fputs(line.c_str(), file);
    std::fclose(file);
}

void switch_between(Context& from, const Context& to) {
    void* saved = nullptr;
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(to.sanitizer, NO_SYNC);
    if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(&saved, to.stack, to.size);
    v3d_emulator_switch(&from.top, to.top);
    if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(saved, nullptr, nullptr);
}

// On a fiber: returns when the scheduler has served it.
void suspend(Ask ask) {
    running->ask = ask;
    switch_between(running->context, scheduler);
}

// The function of all fibers: one CUDA thread after the other.
void run_threads() {
    if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(nullptr, &scheduler.stack, &scheduler.size);
    for (;;) {
        now->start.acquire();
        now->body(now->closure);
        now->end.release();
        suspend(Ask::END);
    }
}

Fiber* make_fiber() {
    void* const stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) throw std::runtime_error("emulator: no memory for the stack of a thread");
    mprotect(stack, GUARD, PROT_NONE);
    void** const top = reinterpret_cast<void**>(static_cast<char*>(stack) + STACK) - 2;
    *top = reinterpret_cast<void*>(&run_threads);  // the first switch returns there, after it has loaded six registers
    Fiber* const fiber = new Fiber;
    fiber->context = {stack, STACK, top - 6, __tsan_create_fiber ? __tsan_create_fiber(0) : nullptr};
    return fiber;
}

void start_block(int64_t index, int threads) {
    now->blocks.push_back(std::make_unique<Block>());
    Block& block = *now->blocks.back();
    block.threads = threads;
    for (int t = 0; t < threads; ++t) {
        // Any idle one: CUDA threads that follow each other on a fiber are ordered, so the pairs should differ between launches.
        Fiber* const fiber = idle.empty() ? make_fiber() : take_random(idle);
        fiber->variables = {{unsigned(t), 0, 0}, {unsigned(index), 0, 0}, {unsigned(threads), 1, 1}};
        fiber->block = &block;
        now->fibers.push_back(fiber);
        now->ready.push_back(fiber);
    }
}

void set_error(const Fiber& fiber, const std::string& what) {
    now->error = what + " (block " + std::to_string(fiber.variables.block.x) + ", thread " + std::to_string(fiber.variables.thread.x) + ")";
}

bool is_removed(const Place& place) {
    static const char* const removed = std::getenv("V3D_EMULATOR_REMOVE");
    for (const Site& site : now->sites)
        if (site.place == place) return site.removed;
    const std::string name = now->name + " " + text_of(place);
    note("barrier\t" + name);
    now->sites.push_back({place, removed && name == removed});
    return now->sites.back().removed;
}

void serve_barrier(Fiber* fiber) {
    Block& block = *fiber->block;
    fiber->holds = fiber->value != 0;
    fiber->removed = is_removed(fiber->place);
    if (fiber->removed) return now->ready.push_back(fiber);
    if (block.ended) return set_error(*fiber, "waits at " + text_of(fiber->place) + " for threads that have ended");
    if (!block.waiting.empty() && !(block.barrier == fiber->place))
        return set_error(*fiber, "waits at " + text_of(fiber->place) + ", others at " + text_of(block.barrier));
    block.barrier = fiber->place;
    block.waiting.push_back(fiber);
    if (int(block.waiting.size()) < block.threads) return;
    bool all = true;
    for (const Fiber* other : block.waiting) all = all && other->holds;
    for (Fiber* other : block.waiting) {
        other->holds = all;
        now->ready.push_back(other);
    }
    block.waiting.clear();
    ++block.generation;
}

void serve_exchange(Fiber* fiber) {
    const unsigned lane = fiber->variables.thread.x % 32;
    if (!(fiber->mask >> lane & 1)) return set_error(*fiber, std::string(fiber->text) + ": a lane is not in its own mask");
    std::vector<Meeting>& meetings = fiber->block->meetings[fiber->variables.thread.x / 32];
    size_t at = 0;
    while (at < meetings.size() && !(meetings[at].mask & fiber->mask)) ++at;
    if (at == meetings.size()) meetings.push_back({fiber->text, fiber->mask, 0, {}});
    Meeting& meeting = meetings[at];
    if (meeting.mask != fiber->mask || std::strcmp(meeting.operation, fiber->text) != 0)
        return set_error(*fiber,
                         std::string(fiber->text) + ": other lanes of the mask are in " + meeting.operation + " or have another mask");
    meeting.arrived |= 1u << lane;
    meeting.lanes[lane] = fiber;
    if (meeting.arrived != meeting.mask) return;
    for (unsigned to = 0; to < 32; ++to) {
        if (!(meeting.mask >> to & 1)) continue;
        for (unsigned from = 0; from < 32; ++from) {  // volatile: a call of memcpy would be visible to ThreadSanitizer
            const bool given = meeting.mask >> from & 1;
            static_cast<volatile uint64_t*>(meeting.lanes[to]->values)[from] = given ? meeting.lanes[from]->value : 0;
        }
        now->ready.push_back(meeting.lanes[to]);
    }
    meetings.erase(meetings.begin() + long(at));
}

void serve_shared(Fiber* fiber) {
    Block& block = *fiber->block;
    fiber->memory = nullptr;
    for (const Variable& variable : block.variables)
        if (variable.place == fiber->place) fiber->memory = variable.memory.get();
    if (!fiber->memory) {
        const size_t size = size_t(fiber->value);
        block.shared += size;
        if (block.shared > MAX_SHARED) return set_error(*fiber, "uses " + std::to_string(block.shared) + " bytes of shared memory");
        block.variables.push_back({fiber->place, std::unique_ptr<char[]>(new char[size])});
        fiber->memory = block.variables.back().memory.get();
        std::memset(fiber->memory, 0xff, size);
        block.filled.release();
    }
    now->ready.push_back(fiber);
}

void serve(Fiber* fiber) {
    switch (fiber->ask) {
        case Ask::TURN: return now->ready.push_back(fiber);
        case Ask::END: ++fiber->block->ended; return idle.push_back(fiber);
        case Ask::FAIL: return set_error(*fiber, fiber->text);
        case Ask::BARRIER: return serve_barrier(fiber);
        case Ask::EXCHANGE: return serve_exchange(fiber);
        case Ask::SHARED: return serve_shared(fiber);
    }
}

std::string deadlock() {
    for (const auto& block : now->blocks) {
        if (!block->waiting.empty())
            return "deadlock: " + std::to_string(block->waiting.size()) + " of " + std::to_string(block->threads) + " threads wait at " +
                   text_of(block->barrier);
        for (const std::vector<Meeting>& meetings : block->meetings)
            if (!meetings.empty()) return std::string("deadlock: lanes wait for others of their mask in ") + meetings[0].operation;
    }
    return "deadlock";
}

// Runs the blocks in random order, as many at once as there is room for.
void run(int64_t blocks, int threads) {
    std::vector<int64_t> left;
    for (int64_t i = 0; i < blocks; ++i) left.push_back(i);
    int64_t open = 0;  // threads that have started and not ended
    while (now->error.empty()) {
        while (!left.empty() && (open == 0 || open + threads <= MAX_RESIDENT)) {
            start_block(take_random(left), threads);
            open += threads;
        }
        if (open == 0) return;
        if (now->ready.empty()) {
            now->error = deadlock();
            return;
        }
        running = take_random(now->ready);
        current = &running->variables;
        switch_between(scheduler, running->context);
        if (running->ask == Ask::END) --open;
        serve(running);
    }
}

}  // namespace

int64_t launches() { return launch_count; }

void hesitate() {
    if (random_below(HESITATION) == 0) suspend(Ask::TURN);
}

void fail(const char* what) {
    running->text = what;
    suspend(Ask::FAIL);
    std::abort();  // not reached: the scheduler leaves this fiber behind
}

void* shared_memory(const char* file, int line, uint64_t size) {
    Fiber& me = *running;
    me.place = {file, line};
    me.value = size;
    suspend(Ask::SHARED);
    me.block->filled.acquire();
    return me.memory;
}

bool barrier(const char* file, int line, bool holds) {
    Fiber& me = *running;
    hesitate();
    me.place = {file, line};
    me.value = holds;
    Gate& gate = me.block->gates[me.block->generation % 2];
    gate.release();
    suspend(Ask::BARRIER);
    if (!me.removed) gate.acquire();
    return me.holds;
}

void exchange(const char* operation, unsigned mask, uint64_t value, uint64_t values[32]) {
    Fiber& me = *running;
    hesitate();
    me.text = operation;
    me.mask = mask;
    me.value = value;
    me.values = values;
    suspend(Ask::EXCHANGE);
}

void launch(const char* name, const void* kernel, int64_t blocks, int threads, Body body, const void* closure) {
    const std::lock_guard<std::mutex> lock(turn);
    ++launch_count;
    Dl_info module;
    if (!dladdr(kernel, &module)) throw std::runtime_error("emulator: a kernel outside of the module");
    note("kernel\t" + std::to_string(static_cast<const char*>(kernel) - static_cast<const char*>(module.dli_fbase)));
    auto launch = std::make_unique<Launch>();
    launch->name = name;
    launch->body = body;
    launch->closure = closure;
    now = launch.get();
    scheduler.sanitizer = __tsan_get_current_fiber ? __tsan_get_current_fiber() : nullptr;
    launch->start.release();
    run(blocks, threads);
    launch->end.acquire();
    now = nullptr;
    if (launch->error.empty()) return;
    const Launch& failed = *launch.release();  // left behind with its threads, after all that they did
    for (Fiber* fiber : failed.fibers) {
        if (!__tsan_switch_to_fiber) break;
        __tsan_switch_to_fiber(fiber->context.sanitizer, NO_SYNC);
        __tsan_switch_to_fiber(scheduler.sanitizer, 0);
    }
    throw std::runtime_error(std::string("emulator, ") + name + ": " + failed.error);
}

}  // namespace emulator
