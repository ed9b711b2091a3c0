#include "cpu/parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace vision3d {
namespace {

// A job is shared by the threads that work on it; whoever is late finds its counter used up and does nothing.
struct Job {
    Job(int64_t count, int64_t chunk, const std::function<void(int64_t, int64_t)>& body)
        : count(count), chunk(chunk), chunks((count + chunk - 1) / chunk), body(body) {}

    void work() {
        for (int64_t i; (i = next.fetch_add(1)) < chunks;) {
            try {
                body(i * chunk, std::min(count, (i + 1) * chunk));
            } catch (...) {
                std::lock_guard lock(mutex);
                if (!error) error = std::current_exception();
            }
            if (done.fetch_add(1) + 1 == chunks) {
                std::lock_guard lock(mutex);
                finished.notify_all();
            }
        }
    }

    void wait() {
        std::unique_lock lock(mutex);
        finished.wait(lock, [&] { return done.load() == chunks; });
        if (error) std::rethrow_exception(error);
    }

    const int64_t count, chunk, chunks;
    const std::function<void(int64_t, int64_t)>& body;
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;
    std::exception_ptr error;
};

class Pool {
  public:
    void resize(int count) {
        std::lock_guard resizing(resize_mutex_);
        if (count == int(workers_.size()) + 1) return;
        stop();
        stopping_ = false;
        for (int i = 1; i < count; ++i) workers_.emplace_back([this] { serve(); });
    }
    void run(int64_t count, int64_t chunk, const std::function<void(int64_t, int64_t)>& body) {
        auto job = std::make_shared<Job>(count, chunk, body);
        {
            std::lock_guard lock(mutex_);
            job_ = job;
        }
        wake_.notify_all();
        job->work();
        job->wait();
    }
    size_t workers() const { return workers_.size(); }

  private:
    void serve() {
        std::shared_ptr<Job> seen;
        for (;;) {
            {
                std::unique_lock lock(mutex_);
                wake_.wait(lock, [&] { return stopping_ || job_ != seen; });
                if (stopping_) return;
                seen = job_;
            }
            seen->work();
        }
    }
    void stop() {
        {
            std::lock_guard lock(mutex_);
            stopping_ = true;
        }
        wake_.notify_all();
        for (auto& worker : workers_) worker.join();
        workers_.clear();
    }

    std::vector<std::thread> workers_;
    std::mutex mutex_, resize_mutex_;
    std::condition_variable wake_;
    std::shared_ptr<Job> job_;
    bool stopping_ = false;
};

Pool& pool() {
    static Pool& instance = *new Pool;  // never destroyed: threads may still run at exit, and do not exist after fork
    return instance;
}

}  // namespace

void set_num_threads(int count) { pool().resize(std::max(1, count)); }

void parallel_for(int64_t count, int64_t chunk, const std::function<void(int64_t, int64_t)>& body) {
    if (count <= 0) return;
    if (count <= chunk || pool().workers() == 0) {
        for (int64_t begin = 0; begin < count; begin += chunk) body(begin, std::min(count, begin + chunk));
    } else {
        pool().run(count, chunk, body);
    }
}

}  // namespace vision3d
