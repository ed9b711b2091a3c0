// Uses the thread pool from several threads that resize it, run loops, throw, nest, start, end and fork. `make check-native`
// builds this with and without sanitizers, which must report nothing; a wrong sum or a hang is a failure, too. Argument: number
// of forks while other threads run.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <thread>
#include <vector>

#include "cpu/parallel.h"

namespace {

void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "stress_parallel: %s\n", what);
    std::_Exit(1);
}

// Every index is visited once, by at most the requested number of threads.
void loop(int64_t count, int64_t chunk) {
    std::vector<int> visits(static_cast<size_t>(count), 0);  // not atomic: concurrent visits are a race
    vision3d::parallel_for(count, chunk, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++visits[size_t(i)];
    });
    for (int value : visits) require(value == 1, "an index was not visited once");
}

void throwing_loop() {
    bool caught = false;
    try {
        vision3d::parallel_for(64, 1, [](int64_t begin, int64_t) {
            if (begin == 40) throw std::runtime_error("expected");
        });
    } catch (const std::runtime_error&) { caught = true; }
    require(caught, "an exception was lost");
}

void nested_loop() {
    std::atomic<int64_t> sum{0};
    vision3d::parallel_for(
        8, 1, [&](int64_t, int64_t) { vision3d::parallel_for(100, 10, [&](int64_t begin, int64_t end) { sum += end - begin; }); });
    require(sum == 800, "a loop inside of a loop lost work");
}

void caller(unsigned seed, int rounds) {
    for (int round = 0; round < rounds; ++round) {
        seed = seed * 1664525u + 1013904223u;
        const int threads = 1 + int((seed >> 16) % 4);
        vision3d::set_num_threads(threads);
        require(vision3d::num_threads() == threads, "another thread changed the number of threads");
        for (int k = 0; k < 5; ++k) loop(1 + (seed >> 20) % 500, 7);
        if (round % 16 == 0) throwing_loop();
        if (round % 16 == 8) nested_loop();
    }
}

// A child runs loops with its parent's number of threads, then with others; it ends before the alarm or is killed by it.
void forked_child() {
    const pid_t child = fork();
    require(child >= 0, "fork failed");
    if (child == 0) {
        alarm(20);
        loop(300, 7);
        for (int threads : {3, 1, 2}) {
            vision3d::set_num_threads(threads);
            loop(300, 7);
        }
        std::_Exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    require(!WIFSIGNALED(status) || WTERMSIG(status) != SIGALRM, "a forked child hung");
    require(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a forked child failed");
}

}  // namespace

int main(int count, char** arguments) {
    const int forks = count > 1 ? std::atoi(arguments[1]) : 20;
    alarm(100);
    std::vector<std::thread> callers;
    for (unsigned i = 0; i < 4; ++i) callers.emplace_back(caller, i + 1, 1000);
    vision3d::set_num_threads(2);
    for (int i = 0; i < 20; ++i) {  // while other threads run and resize
        loop(200, 7);
        if (i < forks) forked_child();
    }
    for (auto& thread : callers) thread.join();
    forked_child();
    std::puts("ok");
}
