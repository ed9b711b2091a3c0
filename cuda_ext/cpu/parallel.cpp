#include "cpu/parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#ifndef _WIN32
#include <pthread.h>
#endif

namespace vision3d {
namespace {

// Kernels follow each other within microseconds, which is less than the wake-up time of a sleeping thread.
constexpr auto PATIENCE = std::chrono::microseconds(200);

void relax() {
#if defined(__x86_64__) || defined(_M_X64)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Spins for a short time; returns false if the condition has not become true. Useless if threads share cores.
template <typename Ready>
bool spin_until(bool spin, Ready ready) {
    if (ready()) return true;
    if (!spin) return false;
    const auto end = std::chrono::steady_clock::now() + PATIENCE;
    do {
        for (int i = 0; i < 16; ++i) {
            relax();
            if (ready()) return true;
        }
    } while (std::chrono::steady_clock::now() < end);
    return false;
}

// A job is shared by the threads that work on it; late threads find nothing to do. Each thread starts with its own chunks, which
// are adjacent in memory, and then takes chunks that others have not reached.
class Job {
  public:
    Job(int64_t count, int64_t chunk, int threads, const std::function<void(int64_t, int64_t)>& body)
        : count_(count), chunk_(chunk), chunks_((count + chunk - 1) / chunk), slices_(threads), body_(body) {
        for (int i = 0; i < threads; ++i) {
            slices_[i].next = chunks_ * i / threads;
            slices_[i].end = chunks_ * (i + 1) / threads;
        }
    }

    void work(int thread) {
        const int threads = int(slices_.size());
        for (int k = 0; k < threads; ++k) {
            Slice& slice = slices_[(thread + k) % threads];
            for (int64_t i; (i = slice.next.fetch_add(1)) < slice.end;) call(i);
        }
    }

    void wait(bool spin) {
        spin_until(spin, [&] { return done_.load(std::memory_order_acquire) == chunks_; });
        std::unique_lock lock(mutex_);
        finished_.wait(lock, [&] { return done_.load() == chunks_; });
        if (error_) std::rethrow_exception(error_);
    }

  private:
    struct alignas(64) Slice {
        std::atomic<int64_t> next{0};
        int64_t end = 0;
    };

    void call(int64_t i) {
        try {
            body_(i * chunk_, std::min(count_, (i + 1) * chunk_));
        } catch (...) {
            std::lock_guard lock(mutex_);
            if (!error_) error_ = std::current_exception();
        }
        if (done_.fetch_add(1) + 1 == chunks_) {
            std::lock_guard lock(mutex_);
            finished_.notify_all();
        }
    }

    const int64_t count_, chunk_, chunks_;
    std::vector<Slice> slices_;
    const std::function<void(int64_t, int64_t)>& body_;
    std::atomic<int64_t> done_{0};
    std::mutex mutex_;
    std::condition_variable finished_;
    std::exception_ptr error_;
};

// Threads that work for callers of `run`. Its size is fixed: a caller that needs another size uses another team.
class Team {
  public:
    explicit Team(int count) : spin_(count <= int(std::thread::hardware_concurrency())), count_(count) {
        workers_.reserve(size_t(count - 1));
        try {
            for (int i = 1; i < count; ++i) workers_.emplace_back([this, i] { serve(i); });
        } catch (const std::system_error&) {
            // The system provides no more threads: the job is shared by the existing ones.
        }
    }
    ~Team() { stop(); }
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    int count() const { return count_; }

    void run(int64_t count, int64_t chunk, const std::function<void(int64_t, int64_t)>& body) {
        auto job = std::make_shared<Job>(count, chunk, int(workers_.size()) + 1, body);
        {
            std::lock_guard lock(mutex_);
            job_ = job;
            posted_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        job->work(0);
        job->wait(spin_);
    }

  private:
    void serve(int thread);
    void stop() {
        {
            std::lock_guard lock(mutex_);
            stopping_ = true;
            posted_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        for (auto& worker : workers_) worker.join();
    }

    const bool spin_;
    const int count_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::shared_ptr<Job> job_;
    std::atomic<uint64_t> posted_{0};
    bool stopping_ = false;
    std::vector<std::thread> workers_;  // last member: threads use all of the above
};

// Callers with the same number of threads share a team, which is destroyed with the last of them.
class Teams {
  public:
    std::shared_ptr<Team> of(int count) {
        std::lock_guard lock(mutex_);
        std::weak_ptr<Team>& known = teams_[count];
        std::shared_ptr<Team> team = known.lock();
        if (!team) known = team = std::make_shared<Team>(count);
        return team;
    }

  private:
    std::mutex mutex_;
    std::map<int, std::weak_ptr<Team>> teams_;
};

struct Caller {
    int count = 0;  // 0: value of the last `set_num_threads` of any thread
    std::shared_ptr<Team> team;
};

std::atomic<int> last_count{1};
thread_local Caller caller;
alignas(Teams) unsigned char teams_memory[sizeof(Teams)];
Teams* const teams = new (teams_memory) Teams;  // never destroyed: threads may still run at exit

void Team::serve(int thread) {
    caller.count = 1;  // nested loops run on the same thread
    std::shared_ptr<Job> seen;
    for (uint64_t turn = 0;;) {
        spin_until(spin_, [&] { return posted_.load(std::memory_order_acquire) != turn; });
        {
            std::unique_lock lock(mutex_);
            wake_.wait(lock, [&] { return stopping_ || job_ != seen; });
            if (stopping_) return;
            seen = job_;
            turn = posted_.load(std::memory_order_relaxed);
        }
        seen->work(thread);
    }
}

#ifndef _WIN32
// A forked child has only the calling thread and none of the workers, and locks may be held by missing threads: it leaks all of
// them and creates its own on demand. Allocates no memory, since the allocator has locks, too.
void after_fork_in_child() {
    new (teams_memory) Teams;
    new (&caller.team) std::shared_ptr<Team>;
}
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, after_fork_in_child);
#endif

}  // namespace

void set_num_threads(int count) {
    caller.count = std::clamp(count, 1, MAX_POOL_THREADS);
    last_count.store(caller.count, std::memory_order_relaxed);
    if (caller.team && caller.team->count() != caller.count) caller.team.reset();
}

int num_threads() { return caller.count ? caller.count : last_count.load(std::memory_order_relaxed); }

void parallel_for(int64_t count, int64_t chunk, const std::function<void(int64_t, int64_t)>& body) {
    if (count <= 0) return;
    const int threads = num_threads();
    if (count <= chunk || threads == 1) {
        for (int64_t begin = 0; begin < count; begin += chunk) body(begin, std::min(count, begin + chunk));
        return;
    }
    if (!caller.team || caller.team->count() != threads) caller.team = teams->of(threads);
    caller.team->run(count, chunk, body);
}

}  // namespace vision3d
