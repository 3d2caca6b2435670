/* SPDX-License-Identifier: Apache-2.0
 *
 * Habits of tokens and their drivers that users report, each by name (see pkcs11_fault_shim.c).
 */

#include <string.h>

#include "pkcs11_fault_shim.h"

enum { FLAGS_OFFSET = 96, TOKEN_PRESENT = 0x1 };
enum { COUNT_LOW = 0x10000, FINAL_TRY = 0x20000, PIN_IS_LOCKED = 0x40000 };
enum { USER = 1, CONTEXT_SPECIFIC = 2 };

/* Of this process. */
static uint64_t initialized_ns;
static word open_sessions;
static word slot_of_sessions;

void change_flags(void *info, word set, word clear) {
  word flags;
  memcpy(&flags, (char *)info + FLAGS_OFFSET, sizeof flags);
  flags = (flags & ~clear) | set;
  memcpy((char *)info + FLAGS_OFFSET, &flags, sizeof flags);
}

static int is_within(uint64_t since_ns, word ms) {
  return since_ns && now_ns() - since_ns < (uint64_t)ms * 1000000;
}

static int answer(struct call *call, word rv) {
  call->rv = rv;
  return 1;
}

static int answer_no_slots(struct call *call) {
  if (call->argument[2]) {
    *(word *)call->argument[2] = 0;
  }
  return answer(call, RV_OK);
}

/* Sessions of a token that is pulled out are gone, and the user is logged out (PKCS#11 v3.1 section 5.6). */
static int answer_removed(struct call *call) {
  if (open_sessions) {
    open_sessions = 0;
    ((word(*)(word))real->functions[AT_C_CloseAllSessions])(slot_of_sessions);
  }
  switch (call->place) {
    case AT_C_Initialize:
    case AT_C_Finalize:
    case AT_C_GetInfo:
    case AT_C_GetSlotInfo:
      return 0;
    case AT_C_GetSlotList:
      return (call->argument[0] & 0xff) ? answer_no_slots(call) : 0;
    case AT_C_GetTokenInfo:
    case AT_C_OpenSession:
    case AT_C_CloseAllSessions:
      return answer(call, RV_TOKEN_NOT_PRESENT);
    default:
      return answer(call, RV_DEVICE_REMOVED);
  }
}

static int counts_pin(const struct call *call) {
  int is_login = call->place == AT_C_Login && (call->argument[1] == USER || call->argument[1] == CONTEXT_SPECIFIC);
  return is_login || call->place == AT_C_SetPIN;
}

int quirk_answers(struct call *call, const struct quirks *quirks) {
  if (quirks->is_removed && answer_removed(call)) {
    return 1;
  }
  if (quirks->has_empty && call->place == AT_C_GetSlotList &&
      (is_within(initialized_ns, quirks->empty_ms) || is_within(state()->closed_ns, quirks->empty_ms))) {
    return answer_no_slots(call);
  }
  if (quirks->has_busy && (call->place == AT_C_OpenSession || call->place == AT_C_SignInit) &&
      is_within(state()->closed_ns, quirks->busy_ms)) {
    return answer(call, quirks->busy_rv);
  }
  if (quirks->has_cap && call->place == AT_C_OpenSession && open_sessions >= quirks->sessions) {
    return answer(call, RV_SESSION_COUNT);
  }
  if (quirks->has_pin_counter && counts_pin(call) && state()->wrong_pins >= quirks->tries) {
    return answer(call, RV_PIN_LOCKED);
  }
  return 0;
}

static void count_sessions(const struct call *call) {
  word before = open_sessions;
  switch (call->place) {
    case AT_C_Initialize:
      initialized_ns = now_ns();
      break;
    case AT_C_OpenSession:
      open_sessions++;
      slot_of_sessions = call->argument[0];
      break;
    case AT_C_CloseSession:
      open_sessions -= open_sessions ? 1 : 0;
      break;
    case AT_C_CloseAllSessions:
    case AT_C_Finalize:
      open_sessions = 0;
      break;
    default:
      break;
  }
  if (open_sessions < before) {
    state()->closed_ns = now_ns();
  }
}

void quirk_follows(struct call *call, const struct quirks *quirks) {
  if (call->rv == RV_OK) {
    count_sessions(call);
  }
  if (quirks->is_removed && call->place == AT_C_GetSlotInfo && call->rv == RV_OK) {
    change_flags((void *)call->argument[1], 0, TOKEN_PRESENT);
  }
  if (quirks->has_pin_counter && counts_pin(call)) {
    uint64_t wrong = state()->wrong_pins;
    state()->wrong_pins = call->rv == RV_OK ? 0 : call->rv == RV_PIN_INCORRECT ? wrong + 1 : wrong;
  }
  if (quirks->has_pin_counter && call->place == AT_C_GetTokenInfo && call->rv == RV_OK) {
    uint64_t wrong = state()->wrong_pins;
    word flags = wrong >= quirks->tries ? PIN_IS_LOCKED : wrong + 1 == quirks->tries ? FINAL_TRY : 0;
    change_flags((void *)call->argument[1], flags | (wrong ? COUNT_LOW : 0), COUNT_LOW | FINAL_TRY | PIN_IS_LOCKED);
  }
}
