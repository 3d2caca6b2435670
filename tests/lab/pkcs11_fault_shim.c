/* SPDX-License-Identifier: Apache-2.0
 *
 * A PKCS#11 module that wraps another one and lets a test decide what goes wrong (PKCS#11 v3.1; v2.40 function list).
 * For one thread at a time, as our worker is.
 *
 *   PRIVYSEAL_SHIM_MODULE   the module that does the work
 *   PRIVYSEAL_SHIM_CONTROL  a file of orders and quirks, one a line; read anew at each call, may be missing
 *   PRIVYSEAL_SHIM_LOG      one line for each call of a wrapped function, before anything happens to it
 *   PRIVYSEAL_SHIM_STATE    a file for what must outlive a process
 *
 * An order is "FUNCTION ACTION [ARGUMENT] [WHEN]". Of several that are due, the last one in the file is done.
 *
 *   rv HEX    return it, without calling the real function     once HEX  the same, and remove the control file
 *   hang      never return                                     abort     before the real function
 *   segv      crash after the real function                    delay MS  first wait; goes together with another order
 *   late      never return, after the real function
 *   empty     (C_GetSlotList) no slots
 *   flags HEX (C_GetSlotInfo, C_GetTokenInfo) set these too    maker NAME  (C_GetTokenInfo) another manufacturer
 *   small     (C_Sign) want a larger buffer than was given     short       (C_Sign) give one byte less than there is
 *
 * WHEN counts the function's calls since the control file was written, from 1 on:
 *
 *   @N  the N-th call of this process      /N  every N-th call of this process
 *   *N  the first N calls of all processes, and then no more
 *   %P SEED  P percent of all processes' calls, the same ones for the same seed
 *
 * A quirk is "quirk NAME [ARGUMENT ...]"; several go together.
 *
 *   empty-after-open MS        no slots until MS after C_Initialize, or after a session was closed by any process
 *   busy-after-close MS [HEX]  C_OpenSession and C_SignInit return HEX (CKR_DEVICE_ERROR) until MS after that
 *   session-cap N              CKR_SESSION_COUNT for session N + 1 of this process
 *   pin-counter N              N wrong PINs lock it: flags in C_GetTokenInfo, then CKR_PIN_LOCKED; a right one resets
 *   removed                    no token; sessions that a call finds open are lost for good
 *
 * The log has a line "FUNCTION" for a call, for C_Sign "C_Sign data=HEX" with the last 32 bytes of what was to be
 * signed, and "signed=HEX" once the real module has made the signature. A call that is `late` has a line "FUNCTION-done"
 * once the real module has done its work.
 */

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pkcs11_fault_shim.h"

enum { LARGE = 4096, MANUFACTURER_OFFSET = 32, MANUFACTURER_SIZE = 32, LOGGED_BYTES = 32 };

struct function_list *real;

/* One write for a line, so that those of several processes stay whole. */
static void log_line(const char *first, const char *second, const struct call *call) {
  const char *path = getenv("PRIVYSEAL_SHIM_LOG");
  char line[64 + 2 * LOGGED_BYTES + 2];
  int length = snprintf(line, 64, "%s%s", first, second);
  int file = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
  if (call) {
    const unsigned char *data = (const unsigned char *)call->argument[1];
    word bytes = data ? call->argument[2] : 0;
    for (word i = bytes > LOGGED_BYTES ? bytes - LOGGED_BYTES : 0; i < bytes; i++) {
      length += snprintf(line + length, 3, "%02x", data[i]);
    }
  }
  line[length++] = '\n';
  if (file >= 0) {
    if (write(file, line, (size_t)length) != length) {
      abort(); /* A log that lacks a call would prove a lie. */
    }
    close(file);
  }
}

/* What an order does before the real function. Nonzero: it has answered in call->rv. */
static int order_answers(struct call *call, const struct script *script) {
  if (script->delay_ms) {
    wait_ms(script->delay_ms);
  }
  switch (script->action) {
    case HANG:
      for (;;) {
        pause();
      }
    case ABORT:
      abort();
    case ONCE:
      unlink(getenv("PRIVYSEAL_SHIM_CONTROL"));
      call->rv = script->number;
      return 1;
    case RETURN:
      call->rv = script->number;
      return 1;
    case EMPTY:
      *(word *)call->argument[2] = 0;
      call->rv = RV_OK;
      return 1;
    case SMALL:
      call->rv = RV_BUFFER_TOO_SMALL;
      if (*(word *)call->argument[4] >= LARGE) {
        return 0;
      }
      *(word *)call->argument[4] = LARGE;
      return 1;
    default:
      return 0;
  }
}

static void order_follows(const struct call *call, const struct script *script) {
  if (script->action == SEGV) {
    raise(SIGSEGV);
  }
  if (script->action == LATE) {
    log_line(call->name, "-done", NULL);
    for (;;) {
      pause();
    }
  }
  if (call->rv != RV_OK) {
    return;
  }
  if (script->action == FLAGS) {
    change_flags((void *)call->argument[1], script->number, 0);
  }
  if (script->action == MAKER) {
    char *maker = (char *)call->argument[1] + MANUFACTURER_OFFSET;
    size_t length = strlen(script->text);
    memset(maker, ' ', MANUFACTURER_SIZE);
    memcpy(maker, script->text, length < MANUFACTURER_SIZE ? length : MANUFACTURER_SIZE);
  }
  if (script->action == SHORT) {
    *(word *)call->argument[4] -= 1;
  }
}

/* Nonzero: call->rv is the answer. */
static int before(struct call *call, struct script *script) {
  int is_sign = call->place == AT_C_Sign;
  log_line(call->name, is_sign ? " data=" : "", is_sign ? call : NULL);
  if (call->place == AT_C_Initialize) {
    printf("a module that talks on stdout\n");
    fflush(stdout);
  }
  read_script(call->place, script);
  return order_answers(call, script) || quirk_answers(call, &script->quirks);
}

static void after(struct call *call, const struct script *script) {
  if (call->place == AT_C_Sign && call->rv == RV_OK && call->argument[3]) {
    log_line("signed=", "", call);
  }
  quirk_follows(call, &script->quirks);
  order_follows(call, script);
}

#define WRAPPER(function, index, parameters, ...)                                     \
  static word shim_##function parameters {                                            \
    struct call call = {.place = index, .name = #function, .argument = {__VA_ARGS__}}; \
    struct script script;                                                             \
    if (!before(&call, &script)) {                                                    \
      call.rv = ((word(*) parameters)real->functions[index])(__VA_ARGS__);            \
      after(&call, &script);                                                          \
    }                                                                                 \
    return call.rv;                                                                   \
  }
WRAPPED(WRAPPER)
#undef WRAPPER

__attribute__((visibility("default"))) word C_GetFunctionList(struct function_list **list) {
  static struct function_list ours;
  if (!real) {
    const char *path = getenv("PRIVYSEAL_SHIM_MODULE");
    void *library = path ? dlopen(path, RTLD_NOW) : NULL;
    void *get = library ? dlsym(library, "C_GetFunctionList") : NULL;
    if (!get || ((word(*)(struct function_list **))get)(&real)) {
      return RV_GENERAL_ERROR;
    }
    ours = *real;
#define REPLACE(name, index, parameters, ...) ours.functions[index] = (void *)shim_##name;
    WRAPPED(REPLACE)
#undef REPLACE
  }
  *list = &ours;
  return RV_OK;
}
