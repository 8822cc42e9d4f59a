"""A server whose wall clock a test can set; its monotonic clock goes on as it is."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from .waiting import wait_until

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

// The shift, and one that takes its place when the module looks at the monotonic clock, which it does in each timer.
static volatile struct { long long shift_s, has_next, next_s; } *page;

__attribute__((constructor)) static void open_shift(void) {
    int fd = open(getenv("CLOCK_SHIFT_FILE"), O_RDWR);
    void *mapped = mmap(0, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || mapped == MAP_FAILED) abort();
    page = mapped;
}

static int is_module(void *caller) {
    Dl_info found;
    return dladdr(caller, &found) && strstr(found.dli_fname, "llmcache");
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!page || failed) return failed;
    if (clock == CLOCK_MONOTONIC && page->has_next && is_module(__builtin_return_address(0))) {
        page->shift_s = page->next_s;
        page->has_next = 0;
    }
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += page->shift_s;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


class WallClock:
    """The wall clock of the servers that are started with `environment`."""

    def __init__(self, folder: Path):
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler to build the library that shifts a server's clock")
        source, library = folder / "clock.c", folder / "clock.so"
        source.write_text(SOURCE)
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        self.file = folder / "clock-shift"
        self.set(0)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_SHIFT_FILE": str(self.file)}

    def set(self, seconds: int) -> None:
        """Has the clock be so many seconds ahead of the true time from now on."""
        self._write(seconds, 0, 0)

    def set_in_a_timer(self, seconds: int) -> None:
        """The same, from the moment in which a timer of the module runs next. Not for Valkey, which binds what a module
        calls past this clock."""
        self._write(self._read()[0], 1, seconds)
        wait_until(lambda: self._read()[1] == 0, "a timer ran", 30)

    def _write(self, *page: int) -> None:
        with self.file.open("r+b" if self.file.exists() else "wb") as out:
            out.write(struct.pack("<3q", *page))

    def _read(self) -> tuple[int, ...]:
        return struct.unpack("<3q", self.file.read_bytes())
