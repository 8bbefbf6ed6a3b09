/* SPDX-License-Identifier: Apache-2.0
 * The tables of commands and options, and a command line read by them. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* What an option's argument may be: the words that completions offer and that error messages name. */
enum choices { NOTHING, PATHS, RECIPES, READS, WRITES, TARGETS, DTYPES, NONFINITE, SCALES, CLASSES, KINDS };

enum option_id {
#define OPTION(id, name, letter, argument, choices, help) OPTION_##id,
#include "options.def"
#undef OPTION
    OPTION_COUNT
};
#define OPT(id) (UINT32_C(1) << OPTION_##id)

struct option_row {
    const char *name;
    char letter;          /* 0 = none */
    const char *argument; /* NULL = a switch */
    enum choices choices;
    const char *help; /* NULL = not shown */
};
extern const struct option_row option_rows[OPTION_COUNT];

struct invocation;
struct command {
    const char *name; /* "" = the program itself, before a command */
    const char *operands;
    uint32_t required, optional;
    const char *summary, *details, *json;
    int (*run)(const struct invocation *);
};
extern const struct command command_rows[];
extern const size_t command_count;
extern const struct command program_row;

/* The i-th word an argument may be; NULL past the end, and for free text. */
const char *choice_get(enum choices choices, size_t i);

/* What an option does, with the words that its argument may be. */
enum { OPTION_HELP_SIZE = 512 };
const char *option_help(enum option_id id, char *text, size_t size);

/* A command line, read. */
struct invocation {
    const struct command *command;
    char **operands;
    int n_operands;
    struct {
        enum option_id id;
        const char *value;
    } * given; /* in order; the value of a switch is "" */
    size_t n_given;
};

/* Reads argv[1..] by a command's row; the program's own stops before the command's name. 0, or the exit code after a
 * message. Free with invocation_free in both cases. */
int invocation_parse(struct invocation *in, const struct command *command, int argc, char **argv);
void invocation_free(struct invocation *in);

/* The last value given, or NULL. */
const char *option_value(const struct invocation *in, enum option_id id);
/* All values given, in a list to be freed (NULL if none or out of memory). */
const char **option_values(const struct invocation *in, enum option_id id, size_t *count);
/* A whole number from `low` up; `otherwise` where the option is not given. 0, or the exit code after a message. */
int option_integer(const struct invocation *in, enum option_id id, int64_t low, int64_t otherwise, int64_t *value);
/* A real number, likewise. */
int option_real(const struct invocation *in, enum option_id id, double otherwise, double *value);

/* NULL, after a message with the closest name, if there is none. */
const struct command *command_find(const char *name);

/* The rows of manual.def, each list ended by a NULL term. */
struct manual_row {
    const char *term, *text;
};
extern const struct manual_row manual_exits[], manual_variables[], manual_examples[];

/* help.c, manual.c, completions.c: all from the tables. */
void help_program(FILE *out);
void help_command(FILE *out, const struct command *command);
void manual_man(FILE *out);
void manual_markdown(FILE *out);
void completions_bash(FILE *out);
void completions_zsh(FILE *out);
void completions_fish(FILE *out);

#define COMMAND(name, operands, required, optional, summary, details, json)                                            \
    int command_##name(const struct invocation *in);
#include "commands.def"
#undef COMMAND

#endif
