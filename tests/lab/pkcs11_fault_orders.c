/* SPDX-License-Identifier: Apache-2.0
 *
 * The control file: read anew at each call, counted since it was written. A line that is not exactly what
 * pkcs11_fault_shim.c describes is no order.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "pkcs11_fault_shim.h"

#ifdef __APPLE__
#define st_mtim st_mtimespec
#endif

enum { FILE_BYTES = 16384, LINE_BYTES = 127, WORDS = 6, HIGHEST_MS = 600000 };

static const struct {
  const char *name;
  enum action action;
  enum { NO_ARGUMENT, HEXADECIMAL, NAME } argument;
  int places[2]; /* -1: any function */
} actions[] = {
    {"rv", RETURN, HEXADECIMAL, {-1, -1}},
    {"once", ONCE, HEXADECIMAL, {-1, -1}},
    {"hang", HANG, NO_ARGUMENT, {-1, -1}},
    {"abort", ABORT, NO_ARGUMENT, {-1, -1}},
    {"segv", SEGV, NO_ARGUMENT, {-1, -1}},
    {"late", LATE, NO_ARGUMENT, {-1, -1}},
    {"empty", EMPTY, NO_ARGUMENT, {AT_C_GetSlotList, AT_C_GetSlotList}},
    {"flags", FLAGS, HEXADECIMAL, {AT_C_GetSlotInfo, AT_C_GetTokenInfo}},
    {"maker", MAKER, NAME, {AT_C_GetTokenInfo, AT_C_GetTokenInfo}},
    {"small", SMALL, NO_ARGUMENT, {AT_C_Sign, AT_C_Sign}},
    {"short", SHORT, NO_ARGUMENT, {AT_C_Sign, AT_C_Sign}},
};

static int place_of(const char *function) {
#define IS(name, index, parameters, ...)  \
  if (!strcmp(function, #name)) {         \
    return index;                         \
  }
  WRAPPED(IS)
#undef IS
  return -1;
}

/* The whole word is one number of this base, at most `highest`. */
static int reads_number(const char *text, int base, word highest, word *number) {
  static const char digits[] = "0123456789abcdefABCDEF";
  size_t length = strspn(text, digits);
  char *end;
  if (!length || text[length] || length > 16) {
    return 0;
  }
  *number = strtoul(text, &end, base);
  return !*end && *number <= highest;
}

static int reads_rv(const char *text, word *rv) {
  return reads_number(text, 16, ~0UL, rv) && *rv != RV_OK;
}

static int reads_percent(const char *text, double *percent) {
  char *end;
  if (!*text || text[strspn(text, "0123456789.")]) {
    return 0;
  }
  *percent = strtod(text, &end);
  return !*end && *percent <= 100;
}

/* A number from 0 to 1 that depends on the seed and the number of the call only (splitmix64). */
static double draw(word seed, uint64_t call) {
  uint64_t mixed = (uint64_t)seed * 0xd1342543de82ef95 + call * 0x9e3779b97f4a7c15;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  return (double)((mixed ^ (mixed >> 31)) >> 11) / 9007199254740992.0;
}

/* 1: now, 0: not now, -1: no condition at all. */
static int is_due(char **words, int count, uint64_t here, uint64_t everywhere) {
  word number;
  double percent;
  char kind = count ? words[0][0] : '\0';
  if (!count) {
    return 1;
  }
  if (kind == '%') {
    int is_chance = count == 2 && reads_percent(words[0] + 1, &percent) && reads_number(words[1], 10, ~0UL, &number);
    return is_chance ? draw(number, everywhere) < percent / 100 : -1;
  }
  if (count != 1 || !kind || !reads_number(words[0] + 1, 10, ~0UL, &number) || !number) {
    return -1;
  }
  return kind == '@' ? here == number : kind == '/' ? here % number == 0 : kind == '*' ? everywhere <= number : -1;
}

static void read_order(char **words, int count, int place, uint64_t here, struct script *script) {
  uint64_t everywhere = state()->calls[place];
  word number = 0;
  if (count < 2 || place_of(words[0]) != place) {
    return;
  }
  if (!strcmp(words[1], "delay")) {
    if (count > 2 && reads_number(words[2], 10, HIGHEST_MS, &number) &&
        is_due(words + 3, count - 3, here, everywhere) == 1) {
      script->delay_ms = number;
    }
    return;
  }
  for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
    int used = actions[i].argument == NO_ARGUMENT ? 2 : 3;
    if (strcmp(words[1], actions[i].name) || count < used) {
      continue;
    }
    if (actions[i].places[0] != -1 && place != actions[i].places[0] && place != actions[i].places[1]) {
      return;
    }
    if (actions[i].argument == HEXADECIMAL && !reads_rv(words[2], &number)) {
      return;
    }
    if (is_due(words + used, count - used, here, everywhere) == 1) {
      script->action = actions[i].action;
      script->number = number;
      snprintf(script->text, sizeof script->text, "%.63s", used == 3 ? words[2] : "");
    }
  }
}

static void read_quirk(char **words, int count, struct quirks *quirks) {
  const char *name = count > 1 ? words[1] : "";
  word number = 0;
  int has_number = count > 2 && reads_number(words[2], 10, HIGHEST_MS, &number);
  if (!strcmp(name, "removed") && count == 2) {
    quirks->is_removed = 1;
  } else if (!strcmp(name, "empty-after-open") && has_number && count == 3) {
    quirks->has_empty = 1;
    quirks->empty_ms = number;
  } else if (!strcmp(name, "busy-after-close") && has_number && count <= 4) {
    word rv = RV_DEVICE_ERROR;
    if (count == 3 || reads_rv(words[3], &rv)) {
      quirks->has_busy = 1;
      quirks->busy_ms = number;
      quirks->busy_rv = rv;
    }
  } else if (!strcmp(name, "session-cap") && has_number && count == 3) {
    quirks->has_cap = 1;
    quirks->sessions = number;
  } else if (!strcmp(name, "pin-counter") && has_number && number && count == 3) {
    quirks->has_pin_counter = 1;
    quirks->tries = number;
  }
}

/* The file as text, and a number that is another one whenever it was written anew; 0 if there is none. */
static uint64_t read_control(char *text, size_t room, size_t *length) {
  const char *path = getenv("PRIVYSEAL_SHIM_CONTROL");
  FILE *file = path ? fopen(path, "r") : NULL;
  struct stat about;
  uint64_t identity = 0;
  *length = 0;
  if (file && !fstat(fileno(file), &about)) {
    uint64_t parts[] = {about.st_ino, (uint64_t)about.st_mtim.tv_sec, (uint64_t)about.st_mtim.tv_nsec};
    *length = fread(text, 1, room, file);
    identity = 0xcbf29ce484222325;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
      identity = (identity ^ parts[i]) * 0x100000001b3;
    }
    for (size_t i = 0; i < *length; i++) {
      identity = (identity ^ (unsigned char)text[i]) * 0x100000001b3;
    }
  }
  if (file) {
    fclose(file);
  }
  return identity;
}

/* Count this call here and everywhere, from 1 on for each control file. */
static uint64_t count_call(int place, uint64_t identity) {
  static uint64_t counted_for;
  static uint64_t here[FUNCTIONS];
  if (counted_for != identity) {
    memset(here, 0, sizeof here);
    counted_for = identity;
  }
  if (state()->orders != identity) {
    memset(state()->calls, 0, sizeof state()->calls);
    state()->orders = identity;
  }
  state()->calls[place]++;
  return ++here[place];
}

void read_script(int place, struct script *script) {
  char text[FILE_BYTES + 1];
  size_t length, next;
  uint64_t here = count_call(place, read_control(text, FILE_BYTES, &length));
  memset(script, 0, sizeof *script);
  for (size_t start = 0; start < length; start = next) {
    const char *end = memchr(text + start, '\n', length - start);
    size_t line = end ? (size_t)(end - text) - start : length - start;
    char *words[WORDS + 1], *rest = NULL;
    int count = 0;
    next = start + line + 1;
    text[start + line] = '\0';
    /* Too long, with a NUL inside, or cut off by our own limit. */
    if (line > LINE_BYTES || strlen(text + start) != line || (!end && length == FILE_BYTES)) {
      continue;
    }
    for (char *found = strtok_r(text + start, " \t\r", &rest); found && count <= WORDS;
         found = strtok_r(NULL, " \t\r", &rest)) {
      words[count++] = found;
    }
    if (count > WORDS) {
      continue;
    }
    if (count && !strcmp(words[0], "quirk")) {
      read_quirk(words, count, &script->quirks);
    } else {
      read_order(words, count, place, here, script);
    }
  }
}
