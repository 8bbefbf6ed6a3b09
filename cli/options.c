/* SPDX-License-Identifier: Apache-2.0
 * Reads a command line by the tables, and says what is wrong with it. */
#include "options.h"

#include "breccia/breccia_file.h"
#include "print.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

const struct option_row option_rows[OPTION_COUNT] = {
#define OPTION(id, name, letter, argument, choices, help) {name, letter, argument, choices, help},
#include "options.def"
#undef OPTION
};

const struct command command_rows[] = {
#define COMMAND(name, operands, required, optional, summary, details, json)                                            \
    {#name, operands, required, (optional) | OPT(HELP), summary, details, json, command_##name},
#include "commands.def"
#undef COMMAND
};
const size_t command_count = sizeof command_rows / sizeof *command_rows;

const struct command program_row = {
    "",
    "COMMAND",
    0,
    OPT(HELP) | OPT(VERSION) | OPT(JSON) | OPT(GENERATE),
    "low-precision tensors that keep their scales",
    "Stores the weights of a model in low precision (FP8, MX, NVFP4, INT4 and others) together with their scales, says "
    "what is in a checkpoint and what its scales mean, brings it back, and measures what was lost.",
    NULL,
    NULL};

const char *choice_get(enum choices choices, size_t i) {
    static const char *const dtypes[] = {"bf16", "f16", "f32"}, *const nonfinite[] = {"refuse", "saturate"},
                             *const scales[] = {"refuse", "keep"}, *const classes[] = {"exact", "bit-exact", "one-ulp"},
                             *const kinds[] = {"man", "markdown", "bash", "zsh", "fish"};
    switch (choices) {
    case RECIPES: return i < BRC_RECIPE_COUNT ? brc_recipe_get((brc_recipe_id)i)->name : NULL;
    case READS:
    case WRITES:
    case TARGETS:
        for (int d = 0; d < BRC_DIALECT_COUNT; d++) {
            const brc_dialect_info *info = brc_dialect_get((brc_dialect)d);
            if (d == BRC_DIALECT_PLAIN && choices != READS) continue;
            if ((choices == READS ? info->reads : info->writes) && i-- == 0) return info->name;
        }
        return NULL;
    case DTYPES: return i < sizeof dtypes / sizeof *dtypes ? dtypes[i] : NULL;
    case NONFINITE: return i < sizeof nonfinite / sizeof *nonfinite ? nonfinite[i] : NULL;
    case SCALES: return i < sizeof scales / sizeof *scales ? scales[i] : NULL;
    case CLASSES: return i < sizeof classes / sizeof *classes ? classes[i] : NULL;
    case KINDS: return i < sizeof kinds / sizeof *kinds ? kinds[i] : NULL;
    case NOTHING:
    case PATHS: return NULL;
    }
    return NULL;
}

const char *option_help(enum option_id id, char *text, size_t size) {
    const struct option_row *row = &option_rows[id];
    snprintf(text, size, "%s", row->help);
    const char *first = row->choices == TARGETS ? " " : "; one of ";
    for (size_t i = 0; row->choices != RECIPES && choice_get(row->choices, i) != NULL; i++) {
        const size_t used = strlen(text);
        snprintf(text + used, size - used, "%s%s", i == 0 ? first : ", ", choice_get(row->choices, i));
    }
    return text;
}

/* Edit distance (insert, delete, replace: 1 each); words of this table are short. */
static size_t distance(const char *a, const char *b) {
    enum { LONGEST = 32 };
    const size_t m = strlen(a), n = strlen(b);
    size_t row[LONGEST + 1];
    if (m > LONGEST || n > LONGEST) return LONGEST;
    for (size_t j = 0; j <= n; j++) row[j] = j;
    for (size_t i = 1; i <= m; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            const size_t above = row[j], replaced = diagonal + (a[i - 1] != b[j - 1]);
            size_t least = above < row[j - 1] ? above + 1 : row[j - 1] + 1;
            if (replaced < least) least = replaced;
            row[j] = least;
            diagonal = above;
        }
    }
    return row[n];
}

/* Keeps the closest of the words offered so far, if close enough to be meant. */
struct closest {
    const char *word, *best;
    size_t distance;
};
static void closest_offer(struct closest *closest, const char *word) {
    const size_t d = distance(closest->word, word), limit = strlen(closest->word) / 3 + 1;
    if (d <= limit && (closest->best == NULL || d < closest->distance)) closest->best = word, closest->distance = d;
}

const struct command *command_find(const char *name) {
    struct closest closest = {.word = name};
    for (size_t i = 0; i < command_count; i++) {
        if (strcmp(command_rows[i].name, name) == 0) return &command_rows[i];
        closest_offer(&closest, command_rows[i].name);
    }
    if (closest.best != NULL)
        complain("unknown command '%s'; did you mean '%s'? `breccia --help` lists all", name, closest.best);
    else complain("unknown command '%s'; `breccia --help` lists all", name);
    return NULL;
}

/* "breccia quantize --help" without a double space for the program itself. */
static void complain_usage(const struct command *command, const char *what, const char *hint) {
    const int program = command->name[0] == '\0';
    complain("%s%s%s; %s`breccia %s%s--help` says more", command->name, program ? "" : ": ", what, hint, command->name,
             program ? "" : " ");
}

static int unknown_option(const struct command *command, const char *given) {
    char what[256], hint[128] = "";
    struct closest closest = {.word = given + strspn(given, "-")};
    char bare[64];
    snprintf(bare, sizeof bare, "%.*s", (int)strcspn(closest.word, "="), closest.word);
    closest.word = bare;
    const uint32_t mask = command->required | command->optional;
    if (strlen(bare) > 1)
        for (size_t id = 0; id < OPTION_COUNT; id++)
            if ((mask >> id & 1) != 0 && option_rows[id].help != NULL) closest_offer(&closest, option_rows[id].name);
    snprintf(what, sizeof what, "unknown option '%s'", given);
    if (closest.best != NULL) snprintf(hint, sizeof hint, "did you mean '--%s'? ", closest.best);
    complain_usage(command, what, hint);
    return EXIT_USAGE;
}

/* Whether a value is one of the option's words; RECIPE, TARGET and free text are judged by who reads them. */
static int value_allowed(const struct command *command, enum option_id id, const char *value) {
    const enum choices choices = option_rows[id].choices;
    if (choices == RECIPES || choices == TARGETS || choice_get(choices, 0) == NULL) return 1;
    char words[256] = "";
    for (size_t i = 0; choice_get(choices, i) != NULL; i++) {
        if (strcmp(choice_get(choices, i), value) == 0) return 1;
        const size_t used = strlen(words);
        snprintf(words + used, sizeof words - used, "%s%s", i == 0 ? "" : ", ", choice_get(choices, i));
    }
    complain("%s: --%s: '%s' is none of %s", command->name, option_rows[id].name, value, words);
    return 0;
}

/* What is missing or too much, once everything is read. */
static int check_complete(const struct invocation *in) {
    const struct command *command = in->command;
    char what[256];
    const char *operand = command->operands;
    for (int i = 0; i < in->n_operands; i++) {
        if (*operand == '\0') {
            snprintf(what, sizeof what, "'%s' is one operand too many", in->operands[i]);
            complain_usage(command, what, "");
            return EXIT_USAGE;
        }
        operand += strcspn(operand, " ");
        operand += strspn(operand, " ");
    }
    if (*operand != '\0') {
        snprintf(what, sizeof what, "%.*s is missing", (int)strcspn(operand, " "), operand);
        complain_usage(command, what, "");
        return EXIT_USAGE;
    }
    for (size_t id = 0; id < OPTION_COUNT; id++) {
        if ((command->required >> id & 1) == 0 || option_value(in, (enum option_id)id) != NULL) continue;
        snprintf(what, sizeof what, "--%s %s is missing", option_rows[id].name, option_rows[id].argument);
        complain_usage(command, what, "");
        return EXIT_USAGE;
    }
    return 0;
}

int invocation_parse(struct invocation *in, const struct command *command, int argc, char **argv) {
    enum { FIRST_LONG = 256 };
    const int program = command == &program_row;
    struct option longs[OPTION_COUNT + 1];
    char letters[2 * OPTION_COUNT + 3] = "";
    size_t n = 0, used = 0;
    letters[used++] = program ? '+' : ':';
    if (program) letters[used++] = ':';
    for (size_t id = 0; id < OPTION_COUNT; id++) {
        const struct option_row *row = &option_rows[id];
        if (((command->required | command->optional) >> id & 1) == 0) continue;
        longs[n++] = (struct option){row->name, row->argument != NULL ? required_argument : no_argument, NULL,
                                     FIRST_LONG + (int)id};
        if (row->letter == 0) continue;
        letters[used++] = row->letter;
        if (row->argument != NULL) letters[used++] = ':';
    }
    letters[used] = '\0';
    longs[n] = (struct option){NULL, 0, NULL, 0};

    *in = (struct invocation){.command = command, .given = calloc((size_t)argc + 1, sizeof *in->given)};
    if (in->given == NULL) return complain("out of memory"), EXIT_IO;
    optind = 0; /* starts over: the program's options were read before the command's */
    opterr = 0;
    for (int got; (got = getopt_long(argc, argv, letters, longs, NULL)) != -1;) {
        char what[256];
        const char *last = argv[optind - 1];
        if (got == ':') {
            snprintf(what, sizeof what, "'%s' needs a value", last);
            return complain_usage(command, what, ""), EXIT_USAGE;
        }
        if (got == '?' && optopt >= FIRST_LONG) {
            snprintf(what, sizeof what, "'%s' takes no value", last);
            return complain_usage(command, what, ""), EXIT_USAGE;
        }
        if (got == '?') {
            const char letter[3] = {'-', (char)optopt, '\0'};
            return unknown_option(command, optopt != 0 ? letter : last);
        }
        size_t id = 0;
        while (got >= FIRST_LONG ? id != (size_t)(got - FIRST_LONG) : option_rows[id].letter != got) id++;
        const char *value = option_rows[id].argument != NULL ? optarg : "";
        if (!value_allowed(command, (enum option_id)id, value)) return EXIT_USAGE;
        if ((command->required >> id & 1) != 0 && option_value(in, (enum option_id)id) != NULL) {
            snprintf(what, sizeof what, "--%s is given twice", option_rows[id].name);
            return complain_usage(command, what, ""), EXIT_USAGE;
        }
        in->given[in->n_given].id = (enum option_id)id;
        in->given[in->n_given++].value = value;
    }
    in->operands = argv + optind;
    in->n_operands = argc - optind;
    if (program || option_value(in, OPTION_HELP) != NULL) return 0;
    return check_complete(in);
}

void invocation_free(struct invocation *in) {
    free(in->given);
    in->given = NULL;
}

const char *option_value(const struct invocation *in, enum option_id id) {
    for (size_t i = in->n_given; i-- > 0;)
        if (in->given[i].id == id) return in->given[i].value;
    return NULL;
}

const char **option_values(const struct invocation *in, enum option_id id, size_t *count) {
    const char **values = calloc(in->n_given + 1, sizeof *values);
    *count = 0;
    for (size_t i = 0; values != NULL && i < in->n_given; i++)
        if (in->given[i].id == id) values[(*count)++] = in->given[i].value;
    return values;
}

int option_integer(const struct invocation *in, enum option_id id, int64_t low, int64_t otherwise, int64_t *value) {
    const char *text = option_value(in, id);
    *value = otherwise;
    if (text == NULL) return 0;
    char *end;
    errno = 0;
    *value = strtoll(text, &end, 10);
    if (errno == 0 && end != text && *end == '\0' && *value >= low) return 0;
    complain("%s: --%s: '%s' is no whole number from %lld up", in->command->name, option_rows[id].name, text,
             (long long)low);
    return EXIT_USAGE;
}

int option_real(const struct invocation *in, enum option_id id, double otherwise, double *value) {
    const char *text = option_value(in, id);
    *value = otherwise;
    if (text == NULL) return 0;
    char *end;
    *value = strtod(text, &end);
    if (end != text && *end == '\0' && *value == *value) return 0;
    complain("%s: --%s: '%s' is no number", in->command->name, option_rows[id].name, text);
    return EXIT_USAGE;
}
