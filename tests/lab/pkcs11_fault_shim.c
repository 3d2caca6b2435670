/* SPDX-License-Identifier: Apache-2.0
 *
 * A PKCS#11 module that wraps another one and lets a test decide what goes wrong (PKCS#11 v3.1; v2.40 function list).
 *
 *   PRIVYSEAL_SHIM_MODULE   the module that does the work
 *   PRIVYSEAL_SHIM_CONTROL  a file of lines "FUNCTION ACTION [ARGUMENT]"; read anew at each call, may be missing
 *   PRIVYSEAL_SHIM_LOG      one line for each call of a wrapped function, before anything happens to it
 *
 * Actions: `rv HEX` return it; `once HEX` return it and remove the control file; `hang`; `abort`; `segv` crash after
 * the real function; `empty` (C_GetSlotList) no slots; `flags HEX` (C_GetSlotInfo, C_GetTokenInfo) set these too;
 * `maker NAME` (C_GetTokenInfo) another manufacturer; `small` (C_Sign) want a larger buffer than was given;
 * `short` (C_Sign) give one byte less than there is.
 */

#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long ulong_t;
typedef ulong_t rv_t;

enum { OK = 0x0, GENERAL_ERROR = 0x5, BUFFER_TOO_SMALL = 0x150 };
enum { FUNCTIONS = 68, LARGE = 4096, FLAGS_OFFSET = 96, MANUFACTURER_OFFSET = 32, MANUFACTURER_SIZE = 32 };

struct function_list {
  unsigned char major, minor;
  void *functions[FUNCTIONS];
};

/* Places in CK_FUNCTION_LIST. */
enum {
  INITIALIZE = 0, FINALIZE = 1, GET_SLOT_LIST = 4, GET_SLOT_INFO = 5, GET_TOKEN_INFO = 6, OPEN_SESSION = 12,
  LOGIN = 18, CREATE_OBJECT = 20, SIGN_INIT = 42, SIGN = 43, GENERATE_KEY_PAIR = 59
};

static struct function_list ours;
static struct function_list *real;

struct order {
  char action[16];
  char argument[64];
};

static void log_call(const char *function) {
  const char *path = getenv("PRIVYSEAL_SHIM_LOG");
  FILE *file = path ? fopen(path, "a") : NULL;
  if (file) {
    fprintf(file, "%s\n", function);
    fclose(file);
  }
}

/* What the control file says about this function; an empty action if nothing. */
static struct order order_for(const char *function) {
  struct order found = {"", ""};
  const char *path = getenv("PRIVYSEAL_SHIM_CONTROL");
  FILE *file = path ? fopen(path, "r") : NULL;
  char line[128];
  while (file && fgets(line, sizeof line, file)) {
    char name[32] = "";
    struct order read = {"", ""};
    if (sscanf(line, "%31s %15s %63s", name, read.action, read.argument) >= 2 && !strcmp(name, function)) {
      found = read;
    }
  }
  if (file) {
    fclose(file);
  }
  return found;
}

/* Log the call and do what happens before the real function. Nonzero: return that instead of calling it. */
static rv_t before(const char *function, struct order *order) {
  log_call(function);
  *order = order_for(function);
  if (!strcmp(order->action, "hang")) {
    for (;;) {
      pause();
    }
  }
  if (!strcmp(order->action, "abort")) {
    abort();
  }
  if (!strcmp(order->action, "once")) {
    unlink(getenv("PRIVYSEAL_SHIM_CONTROL"));
    return strtoul(order->argument, NULL, 16);
  }
  return strcmp(order->action, "rv") ? OK : strtoul(order->argument, NULL, 16);
}

static rv_t after(const struct order *order, rv_t rv) {
  if (!strcmp(order->action, "segv")) {
    raise(SIGSEGV);
  }
  return rv;
}

static rv_t shim_initialize(void *arguments) {
  struct order order;
  rv_t rv = before("C_Initialize", &order);
  printf("a module that talks on stdout\n");
  fflush(stdout);
  return rv ? rv : after(&order, ((rv_t(*)(void *))real->functions[INITIALIZE])(arguments));
}

static rv_t shim_finalize(void *reserved) {
  struct order order;
  rv_t rv = before("C_Finalize", &order);
  return rv ? rv : after(&order, ((rv_t(*)(void *))real->functions[FINALIZE])(reserved));
}

static rv_t shim_get_slot_list(unsigned char present, ulong_t *slots, ulong_t *count) {
  struct order order;
  rv_t rv = before("C_GetSlotList", &order);
  if (!rv && !strcmp(order.action, "empty")) {
    *count = 0;
    return OK;
  }
  return rv ? rv
            : ((rv_t(*)(unsigned char, ulong_t *, ulong_t *))real->functions[GET_SLOT_LIST])(present, slots, count);
}

/* CK_SLOT_INFO and CK_TOKEN_INFO both have their flags behind 96 bytes of text. */
static void add_flags(const struct order *order, void *info) {
  ulong_t flags;
  if (strcmp(order->action, "flags")) {
    return;
  }
  memcpy(&flags, (char *)info + FLAGS_OFFSET, sizeof flags);
  flags |= strtoul(order->argument, NULL, 16);
  memcpy((char *)info + FLAGS_OFFSET, &flags, sizeof flags);
}

static rv_t shim_get_slot_info(ulong_t slot, void *info) {
  struct order order;
  rv_t rv = before("C_GetSlotInfo", &order);
  rv = rv ? rv : ((rv_t(*)(ulong_t, void *))real->functions[GET_SLOT_INFO])(slot, info);
  if (!rv) {
    add_flags(&order, info);
  }
  return rv;
}

static rv_t shim_get_token_info(ulong_t slot, void *info) {
  struct order order;
  rv_t rv = before("C_GetTokenInfo", &order);
  rv = rv ? rv : ((rv_t(*)(ulong_t, void *))real->functions[GET_TOKEN_INFO])(slot, info);
  if (!rv) {
    add_flags(&order, info);
  }
  if (!rv && !strcmp(order.action, "maker")) {
    size_t length = strlen(order.argument);
    memset((char *)info + MANUFACTURER_OFFSET, ' ', MANUFACTURER_SIZE);
    memcpy((char *)info + MANUFACTURER_OFFSET, order.argument, length < MANUFACTURER_SIZE ? length : MANUFACTURER_SIZE);
  }
  return rv;
}

static rv_t shim_open_session(ulong_t slot, ulong_t flags, void *application, void *notify, ulong_t *session) {
  struct order order;
  rv_t rv = before("C_OpenSession", &order);
  return rv ? rv
            : ((rv_t(*)(ulong_t, ulong_t, void *, void *, ulong_t *))real->functions[OPEN_SESSION])(
                  slot, flags, application, notify, session);
}

static rv_t shim_login(ulong_t session, ulong_t user, unsigned char *pin, ulong_t length) {
  struct order order;
  rv_t rv = before("C_Login", &order);
  return rv ? rv
            : ((rv_t(*)(ulong_t, ulong_t, unsigned char *, ulong_t))real->functions[LOGIN])(session, user, pin,
                                                                                            length);
}

static rv_t shim_sign_init(ulong_t session, void *mechanism, ulong_t key) {
  struct order order;
  rv_t rv = before("C_SignInit", &order);
  return rv ? rv : ((rv_t(*)(ulong_t, void *, ulong_t))real->functions[SIGN_INIT])(session, mechanism, key);
}

static rv_t shim_sign(ulong_t session, unsigned char *data, ulong_t length, unsigned char *signature, ulong_t *room) {
  struct order order;
  rv_t rv = before("C_Sign", &order);
  if (!rv && !strcmp(order.action, "small") && *room < LARGE) {
    *room = LARGE;
    return BUFFER_TOO_SMALL;
  }
  rv = rv ? rv
          : ((rv_t(*)(ulong_t, unsigned char *, ulong_t, unsigned char *, ulong_t *))real->functions[SIGN])(
                session, data, length, signature, room);
  if (!rv && !strcmp(order.action, "short")) {
    *room -= 1;
  }
  return after(&order, rv);
}

static rv_t shim_create_object(ulong_t session, void *template, ulong_t count, ulong_t *object) {
  struct order order;
  rv_t rv = before("C_CreateObject", &order);
  return rv ? rv
            : ((rv_t(*)(ulong_t, void *, ulong_t, ulong_t *))real->functions[CREATE_OBJECT])(session, template, count,
                                                                                             object);
}

static rv_t shim_generate_key_pair(ulong_t session, void *mechanism, void *public, ulong_t public_count, void *private,
                                   ulong_t private_count, ulong_t *public_key, ulong_t *private_key) {
  struct order order;
  rv_t rv = before("C_GenerateKeyPair", &order);
  rv = rv ? rv
          : ((rv_t(*)(ulong_t, void *, void *, ulong_t, void *, ulong_t, ulong_t *,
                      ulong_t *))real->functions[GENERATE_KEY_PAIR])(session, mechanism, public, public_count, private,
                                                                     private_count, public_key, private_key);
  return after(&order, rv);
}

rv_t C_GetFunctionList(struct function_list **list) {
  if (!real) {
    const char *path = getenv("PRIVYSEAL_SHIM_MODULE");
    void *library = path ? dlopen(path, RTLD_NOW) : NULL;
    rv_t (*get)(struct function_list **) = library ? (rv_t(*)(struct function_list **))dlsym(library, "C_GetFunctionList") : NULL;
    if (!get || get(&real)) {
      return GENERAL_ERROR;
    }
    ours = *real;
    ours.functions[INITIALIZE] = (void *)shim_initialize;
    ours.functions[FINALIZE] = (void *)shim_finalize;
    ours.functions[GET_SLOT_LIST] = (void *)shim_get_slot_list;
    ours.functions[GET_SLOT_INFO] = (void *)shim_get_slot_info;
    ours.functions[GET_TOKEN_INFO] = (void *)shim_get_token_info;
    ours.functions[OPEN_SESSION] = (void *)shim_open_session;
    ours.functions[LOGIN] = (void *)shim_login;
    ours.functions[SIGN_INIT] = (void *)shim_sign_init;
    ours.functions[SIGN] = (void *)shim_sign;
    ours.functions[CREATE_OBJECT] = (void *)shim_create_object;
    ours.functions[GENERATE_KEY_PAIR] = (void *)shim_generate_key_pair;
  }
  *list = &ours;
  return OK;
}
