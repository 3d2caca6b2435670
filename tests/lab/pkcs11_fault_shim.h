/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of the shim share: the functions it wraps, one call, the script, what outlives a process.
 */

#ifndef PKCS11_FAULT_SHIM_H
#define PKCS11_FAULT_SHIM_H

#include <stddef.h>
#include <stdint.h>

/* CK_RV, CK_ULONG, a handle or a pointer: one machine word each. A CK_BBOOL comes and goes in a word, too. */
typedef unsigned long word;

enum {
  RV_OK = 0x0, RV_GENERAL_ERROR = 0x5, RV_DEVICE_ERROR = 0x30, RV_DEVICE_REMOVED = 0x32, RV_PIN_INCORRECT = 0xA0,
  RV_PIN_LOCKED = 0xA4, RV_SESSION_COUNT = 0xB1, RV_TOKEN_NOT_PRESENT = 0xE0, RV_BUFFER_TOO_SMALL = 0x150
};

enum { FUNCTIONS = 68, ARGUMENTS = 8 };

/* Wrapped functions: name, place in CK_FUNCTION_LIST, parameters, arguments. */
#define WRAPPED(X)                                                                                          \
  X(C_Initialize, 0, (word a), a)                                                                           \
  X(C_Finalize, 1, (word a), a)                                                                             \
  X(C_GetInfo, 2, (word a), a)                                                                              \
  X(C_GetSlotList, 4, (word a, word b, word c), a, b, c)                                                    \
  X(C_GetSlotInfo, 5, (word a, word b), a, b)                                                               \
  X(C_GetTokenInfo, 6, (word a, word b), a, b)                                                              \
  X(C_SetPIN, 11, (word a, word b, word c, word d, word e), a, b, c, d, e)                                  \
  X(C_OpenSession, 12, (word a, word b, word c, word d, word e), a, b, c, d, e)                             \
  X(C_CloseSession, 13, (word a), a)                                                                        \
  X(C_CloseAllSessions, 14, (word a), a)                                                                    \
  X(C_GetSessionInfo, 15, (word a, word b), a, b)                                                           \
  X(C_Login, 18, (word a, word b, word c, word d), a, b, c, d)                                              \
  X(C_Logout, 19, (word a), a)                                                                              \
  X(C_CreateObject, 20, (word a, word b, word c, word d), a, b, c, d)                                       \
  X(C_GetAttributeValue, 24, (word a, word b, word c, word d), a, b, c, d)                                  \
  X(C_FindObjectsInit, 26, (word a, word b, word c), a, b, c)                                               \
  X(C_FindObjects, 27, (word a, word b, word c, word d), a, b, c, d)                                        \
  X(C_FindObjectsFinal, 28, (word a), a)                                                                    \
  X(C_SignInit, 42, (word a, word b, word c), a, b, c)                                                      \
  X(C_Sign, 43, (word a, word b, word c, word d, word e), a, b, c, d, e)                                    \
  X(C_GenerateKeyPair, 59, (word a, word b, word c, word d, word e, word f, word g, word h), a, b, c, d, e, \
    f, g, h)

enum place {
#define PLACE(name, index, parameters, ...) AT_##name = index,
  WRAPPED(PLACE)
#undef PLACE
};

struct function_list {
  unsigned char major, minor;
  void *functions[FUNCTIONS];
};

/* The module that does the work. */
extern struct function_list *real;

struct call {
  int place;
  const char *name;
  word argument[ARGUMENTS];
  word rv;
};

/* orders.c: what the control file wants of one call. */

enum action { NOTHING, RETURN, ONCE, HANG, ABORT, SEGV, LATE, EMPTY, FLAGS, MAKER, SMALL, SHORT };

struct quirks {
  int has_empty, has_busy, has_cap, has_pin_counter, is_removed;
  word empty_ms, busy_ms, busy_rv, sessions, tries;
};

struct script {
  enum action action;
  word number;
  char text[64];
  word delay_ms;
  struct quirks quirks;
};

/* Count this call and read what shall happen to it. */
void read_script(int place, struct script *script);

/* quirks.c */

/* Nonzero: the quirk has answered in call->rv, and the real function is not to be called. */
int quirk_answers(struct call *call, const struct quirks *quirks);

/* After the real function, whether or not there is a quirk in the script: sessions are always counted. */
void quirk_follows(struct call *call, const struct quirks *quirks);

/* CK_SLOT_INFO and CK_TOKEN_INFO both have their flags behind 96 bytes of text. */
void change_flags(void *info, word set, word clear);

/* state.c: what outlives a process, in the file PRIVYSEAL_SHIM_STATE; without it, in this process alone. */

struct state {
  uint64_t orders;           /* which control file the calls are counted for */
  uint64_t calls[FUNCTIONS]; /* since then */
  uint64_t closed_ns;        /* when a session was last closed; 0 if never */
  uint64_t wrong_pins;
};

struct state *state(void);

uint64_t now_ns(void); /* CLOCK_MONOTONIC, which all processes share */
void wait_ms(word ms);

#endif
