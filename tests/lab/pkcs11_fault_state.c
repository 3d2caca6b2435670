/* SPDX-License-Identifier: Apache-2.0
 *
 * What outlives a process that hangs or crashes: a file, mapped, so that nothing needs to be written at the end.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "pkcs11_fault_shim.h"

struct state *state(void) {
  static struct state *mapped;
  static struct state alone;
  if (!mapped) {
    const char *path = getenv("PRIVYSEAL_SHIM_STATE");
    int file = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    void *memory = MAP_FAILED;
    if (file >= 0 && !ftruncate(file, sizeof(struct state))) {
      memory = mmap(NULL, sizeof(struct state), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    }
    if (file >= 0) {
      close(file);
    }
    mapped = memory == MAP_FAILED ? &alone : memory;
  }
  return mapped;
}

uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void wait_ms(word ms) {
  /* Relative, and not CLOCK_REALTIME's either (POSIX nanosleep); clock_nanosleep is not everywhere. */
  struct timespec left = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
  while (nanosleep(&left, &left) && errno == EINTR) {
  }
}
